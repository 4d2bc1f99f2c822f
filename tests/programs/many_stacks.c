/* 8192 different stacks to one function, met by two threads at once: each has
 * its own place in what is recorded, however often tables grow meanwhile. */
#include "truth.h"

#include <pthread.h>

enum { DEPTH = 13 };
static struct site sites[1] = {TRUTH_INIT("at_the_leaf")};

SITE static void at_the_leaf(size_t bytes) {
    kept(malloc(bytes));
    born(&sites[0], bytes);
}

SITE static void turn(unsigned path, int left, size_t bytes) {
    if (left == 0) {
        at_the_leaf(bytes);
    } else if (path & 1) {
        turn(path >> 1, left - 1, bytes);
        kept(sites); /* another line than below, also to an optimiser */
    } else {
        turn(path >> 1, left - 1, bytes);
        kept(&path);
    }
    kept(NULL);
}

static void *walk(void *bytes) {
    for (int round = 0; round < 2; round++)
        for (unsigned path = 0; path < 1u << DEPTH; path++) turn(path, DEPTH, (size_t)bytes);
    return NULL;
}

int main(void) {
    pthread_t other;
    pthread_create(&other, NULL, walk, (void *)16);
    walk((void *)16);
    pthread_join(other, NULL);
    say_truth(sites, 1);
    return 0;
}
