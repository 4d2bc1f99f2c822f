/* Each call of the allocator's family once, at its edges. */
#define _GNU_SOURCE
#include "truth.h"

#include <errno.h>
#include <malloc.h>

enum {
    ZERO, OVERFLOW_CALLOC, HUGE_MALLOC, NULL_REALLOC, REALLOC_TO_ZERO, FAILED_REALLOC, ARRAY,
    ARRAY_OVERFLOW, VALLOC, PVALLOC, BAD_ALIGNMENT, DUPLICATE, USABLE, SITES
};

static struct site sites[SITES] = {
    [ZERO] = TRUTH_INIT("zero_bytes"),
    [OVERFLOW_CALLOC] = TRUTH_INIT("calloc_that_overflows"),
    [HUGE_MALLOC] = TRUTH_INIT("malloc_that_fails"),
    [NULL_REALLOC] = TRUTH_INIT("realloc_of_null"),
    [REALLOC_TO_ZERO] = TRUTH_INIT("realloc_to_zero"),
    [FAILED_REALLOC] = TRUTH_INIT("realloc_that_fails"),
    [ARRAY] = TRUTH_INIT("array"),
    [ARRAY_OVERFLOW] = TRUTH_INIT("array_that_overflows"),
    [VALLOC] = TRUTH_INIT("page_aligned"),
    [PVALLOC] = TRUTH_INIT("whole_pages"),
    [BAD_ALIGNMENT] = TRUTH_INIT("bad_alignment"),
    [DUPLICATE] = TRUTH_INIT("duplicate"),
    [USABLE] = TRUTH_INIT("usable"),
};

static int failures;

static void check(int holds, const char *what) {
    if (!holds) {
        failures++;
        dprintf(STDERR_FILENO, "edges: does not hold: %s\n", what);
    }
}

SITE static void zero_bytes(void) {
    for (int i = 0; i < 3; i++) {
        errno = 1234;
        check(kept(malloc(0)) != NULL, "malloc(0) gives a block");
        check(errno == 1234, "errno is kept by malloc");
        born(&sites[ZERO], 0);
    }
}

SITE static void calloc_that_overflows(void) {
    volatile size_t half = SIZE_MAX / 2;
    errno = 0;
    check(kept(calloc(half, 3)) == NULL && errno == ENOMEM, "calloc sees the overflow");
}

SITE static void malloc_that_fails(void) {
    volatile size_t huge = (size_t)PTRDIFF_MAX - 4096;
    errno = 0;
    check(kept(malloc(huge)) == NULL && errno == ENOMEM, "malloc says ENOMEM");
}

SITE static void realloc_of_null(void) {
    check(kept(realloc(NULL, 100)) != NULL, "realloc(NULL) allocates");
    born(&sites[NULL_REALLOC], 100);
}

SITE static void realloc_to_zero(void) {
    void *block = kept(malloc(50));
    born(&sites[REALLOC_TO_ZERO], 50);
    check(kept(realloc(block, 0)) == NULL, "realloc(block, 0) frees");
    died(&sites[REALLOC_TO_ZERO], 50);
}

SITE static void realloc_that_fails(void) {
    volatile size_t huge = (size_t)PTRDIFF_MAX - 4096;
    char *block = (char *)kept(malloc(70));
    volatile char *last = (char *)kept(block + 69);
    born(&sites[FAILED_REALLOC], 70);
    *last = 7;
    errno = 0;
    check(kept(realloc(block, huge)) == NULL && errno == ENOMEM, "realloc says ENOMEM");
    check(*last == 7, "the block lives on");
}

SITE static void array(void) {
    check(kept(reallocarray(NULL, 10, 12)) != NULL, "reallocarray allocates");
    born(&sites[ARRAY], 120);
}

SITE static void array_that_overflows(void) {
    volatile size_t half = SIZE_MAX / 2;
    errno = 0;
    check(kept(reallocarray(NULL, half, 3)) == NULL && errno == ENOMEM, "reallocarray overflows");
}

SITE static void page_aligned(void) {
    check((uintptr_t)kept(valloc(300)) % 4096 == 0, "valloc aligns");
    born(&sites[VALLOC], 300);
}

SITE static void whole_pages(void) {
    check((uintptr_t)kept(pvalloc(8192)) % 4096 == 0, "pvalloc aligns");
    born(&sites[PVALLOC], 8192);
}

SITE static void bad_alignment(void) {
    void *block = NULL;
    volatile size_t alignment = 3;
    errno = 1234;
    check(posix_memalign(&block, alignment, 10) == EINVAL, "posix_memalign says EINVAL");
    check(errno == 1234, "posix_memalign leaves errno");
    kept(block);
}

SITE static void duplicate(void) {
    check(kept(strdup("forty-two bytes with the terminating NUL.")) != NULL, "strdup");
    born(&sites[DUPLICATE], 42);
}

SITE static void usable(void) {
    char *block = (char *)kept(malloc(33));
    born(&sites[USABLE], 33);
    size_t bytes = malloc_usable_size(block);
    check(bytes >= 33, "malloc_usable_size");
    memset(block, 1, bytes);
}

int main(void) {
    zero_bytes();
    calloc_that_overflows();
    malloc_that_fails();
    realloc_of_null();
    realloc_to_zero();
    realloc_that_fails();
    array();
    array_that_overflows();
    page_aligned();
    whole_pages();
    bad_alignment();
    duplicate();
    usable();
    errno = 1234;
    free(NULL);
    free(kept(malloc(1)));
    check(errno == 1234, "errno is kept by free");
    say_truth(sites, SITES);
    return failures == 0 ? 0 : 1;
}
