/* A library that keeps what it allocates, or does not. */
#include <stdlib.h>

static void *volatile last;

void keep(size_t size) { last = malloc(size); }

void use(size_t size) {
    last = malloc(size);
    free(last);
}
