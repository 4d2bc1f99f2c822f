/* An executable whose own malloc, realloc and free call on with RTLD_NEXT, as
 * counting wrappers do, and that calls a function of the family it has not. */
#define _GNU_SOURCE
#include "truth.h"

#include <dlfcn.h>

static unsigned long calls;

void *malloc(size_t bytes) {
    static void *(*real)(size_t);
    if (real == NULL) *(void **)&real = dlsym(RTLD_NEXT, "malloc");
    calls++;
    return real(bytes);
}
void *realloc(void *old, size_t bytes) {
    static void *(*real)(void *, size_t);
    if (real == NULL) *(void **)&real = dlsym(RTLD_NEXT, "realloc");
    calls++;
    return real(old, bytes);
}
void free(void *block) {
    static void (*real)(void *);
    if (real == NULL) *(void **)&real = dlsym(RTLD_NEXT, "free");
    calls++;
    real(block);
}

static struct site sites[] = {TRUTH_INIT("by_malloc"), TRUTH_INIT("by_reallocarray")};

SITE static void by_malloc(void) {
    for (int i = 0; i < 100; i++) {
        void *block = kept(malloc(100));
        born(&sites[0], 100);
        if (i % 2) {
            free(block);
            died(&sites[0], 100);
        }
    }
}

SITE static void by_reallocarray(void) {
    for (int i = 0; i < 100; i++) {
        void *block = kept(reallocarray(NULL, 10, 20));
        born(&sites[1], 200);
        if (i % 2) {
            free(block);
            died(&sites[1], 200);
        }
    }
}

int main(void) {
    by_malloc();
    by_reallocarray();
    if (calls < 300) return 3;
    say_truth(sites, 2);
    return 0;
}
