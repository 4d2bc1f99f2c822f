/* Allocates before main, before any library's constructor has run
 * (.preinit_array) and in a constructor of the first rank; frees a part in a
 * destructor after main. */
#include "truth.h"

enum { PREINIT, CONSTRUCTOR, SITES };
static struct site sites[SITES] = {
    [PREINIT] = TRUTH_INIT("before_constructors"),
    [CONSTRUCTOR] = TRUTH_INIT("in_constructor"),
};

static void *early_block;

SITE static void *before_constructors(void) { return kept(malloc(333)); }
SITE static void *in_constructor(void) { return kept(malloc(111)); }

static void first(int argc, char **argv, char **environment) {
    (void)argc, (void)argv, (void)environment;
    before_constructors();
    born(&sites[PREINIT], 333);
}

__attribute__((section(".preinit_array"), used)) static void (*const before)(int, char **,
                                                                             char **) = first;

__attribute__((constructor(101))) static void begin(void) {
    early_block = in_constructor();
    born(&sites[CONSTRUCTOR], 111);
    in_constructor();
    born(&sites[CONSTRUCTOR], 111);
}

__attribute__((destructor(101))) static void end(void) { free(early_block); }

int main(void) {
    /* `end` runs after this is said. */
    died(&sites[CONSTRUCTOR], 111);
    say_truth(sites, SITES);
    return 0;
}
