/* Thousands of short-lived threads, each leaving two blocks behind. */
#include "truth.h"

#include <pthread.h>

enum { LEFT, PASSING, SITES };
static struct site sites[SITES] = {
    [LEFT] = TRUTH_INIT("left_behind"),
    [PASSING] = TRUTH_INIT("passing"),
};

SITE static void *left_behind(size_t bytes) { return kept(malloc(bytes)); }
SITE static void *passing(size_t bytes) { return kept(malloc(bytes)); }

static void *work(void *argument) {
    size_t bytes = 16 + (size_t)(intptr_t)argument % 100;
    for (int i = 0; i < 2; i++) {
        left_behind(bytes);
        born(&sites[LEFT], bytes);
    }
    for (int i = 0; i < 8; i++) {
        void *block = passing(bytes * 2);
        born(&sites[PASSING], bytes * 2);
        free(block);
        died(&sites[PASSING], bytes * 2);
    }
    return NULL;
}

int main(int argc, char **argv) {
    enum { AT_ONCE = 16 };
    int rounds = argc > 1 ? atoi(argv[1]) / AT_ONCE : 250;
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 256 * 1024);
    for (int round = 0; round < rounds; round++) {
        pthread_t threads[AT_ONCE];
        for (intptr_t i = 0; i < AT_ONCE; i++) {
            if (pthread_create(&threads[i], &attributes, work, (void *)(i + round)) != 0) return 1;
        }
        for (int i = 0; i < AT_ONCE; i++) pthread_join(threads[i], NULL);
    }
    say_truth(sites, SITES);
    return 0;
}
