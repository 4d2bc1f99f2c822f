/* A library with an allocator of its own, bound to itself alone (RTLD_DEEPBIND). */
#include <stddef.h>
#include <stdlib.h>

static char room[1 << 20];
static size_t used;

void *malloc(size_t bytes) {
    size_t at = used;
    used += (bytes + 31) & ~(size_t)15;
    if (used > sizeof room) used = at = 0;
    *(size_t *)(room + at) = 0x600d;
    return room + at + 16;
}

void free(void *block) {
    if (block != NULL && *(size_t *)((char *)block - 16) != 0x600d) abort();
}

void *plugin_work(void);
void *plugin_work(void) {
    /* By the first call only malloc is bound. */
    static void *held;
    if (held != NULL) free(held);
    held = malloc(40);
    return held;
}
