/* Reallocs in four threads that keep crossing each other's old addresses. */
#include "truth.h"

#include <pthread.h>

static struct site site = TRUTH_INIT("resize");

SITE static char *resize(char *block, size_t bytes) { return kept(realloc(block, bytes)); }

enum { SLOTS = 64, STEPS = 60000, THREADS = 4 };

static void *work(void *argument) {
    uint64_t seed = 77 + (uint64_t)(intptr_t)argument;
    char *blocks[SLOTS] = {NULL};
    size_t sizes[SLOTS] = {0};
    for (int i = 0; i < STEPS; i++) {
        uint32_t at = random_next(&seed) % SLOTS;
        size_t bytes = 1 + random_next(&seed) % (random_next(&seed) % 50 == 0 ? 300000 : 2000);
        uintptr_t before = (uintptr_t)blocks[at];
        blocks[at] = resize(blocks[at], bytes);
        if (before == 0) {
            born(&site, bytes);
        } else if ((uintptr_t)blocks[at] == before) {
            resized(&site, sizes[at], bytes);
        } else {
            died(&site, sizes[at]);
            born(&site, bytes);
        }
        sizes[at] = bytes;
    }
    return NULL;
}

int main(void) {
    pthread_t threads[THREADS];
    for (intptr_t i = 0; i < THREADS; i++) {
        if (pthread_create(&threads[i], NULL, work, (void *)i) != 0) return 1;
    }
    for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
    say_truth(&site, 1);
    return 0;
}
