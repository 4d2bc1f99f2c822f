/* A large live set of random sizes, then random replacement in it:
 * live BLOCKS REPLACEMENTS THREADS. */
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

static long blocks, replacements;

static uint32_t next(uint64_t *state) {
    *state = *state * 6364136223846793005ULL + 1442695040888963407ULL;
    return (uint32_t)(*state >> 32);
}

static void *work(void *argument) {
    uint64_t seed = (uint64_t)(uintptr_t)argument;
    void **held = malloc((size_t)blocks * sizeof *held);
    if (held == NULL) _exit(1);
    for (long i = 0; i < blocks; i++) held[i] = malloc(16 + next(&seed) % 100);
    for (long i = 0; i < replacements; i++) {
        long at = (long)(((uint64_t)next(&seed) * (uint64_t)blocks) >> 32);
        free(held[at]);
        held[at] = malloc(16 + next(&seed) % 100);
    }
    return NULL;
}

int main(int argc, char **argv) {
    enum { MOST = 64 };
    if (argc != 4) return 2;
    long threads = atol(argv[3]);
    if (threads < 1 || threads > MOST) return 2;
    blocks = atol(argv[1]) / threads;
    replacements = atol(argv[2]) / threads;
    pthread_t handles[MOST];
    for (long i = 1; i < threads; i++) pthread_create(&handles[i], NULL, work, (void *)(i + 1));
    work((void *)1);
    for (long i = 1; i < threads; i++) pthread_join(handles[i], NULL);
    _exit(0);
}
