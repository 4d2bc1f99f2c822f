/* malloc/free pairs at the bottom of a stack: pairs PAIRS DEPTH THREADS.
 * Prints the nanoseconds of one pair in one thread. */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static long pairs;
static int depth;

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec * 1e9 + (double)time.tv_nsec;
}

__attribute__((noinline)) static void leaf(size_t bytes) {
    void *block = malloc(bytes);
    __asm__ volatile("" : "+r"(block) : : "memory");
    free(block);
}

__attribute__((noinline)) static double bottom(void) {
    double started = now();
    for (long i = 0; i < pairs; i++) leaf(16 + (size_t)(i & 7) * 16);
    return (now() - started) / (double)pairs;
}

__attribute__((noinline)) static double descend(int left) {
    double result = left <= 0 ? bottom() : descend(left - 1);
    __asm__ volatile("" : : : "memory");
    return result;
}

static void *work(void *result) {
    *(double *)result = descend(depth);
    return NULL;
}

int main(int argc, char **argv) {
    enum { MOST = 64 };
    if (argc != 4) return 2;
    pairs = atol(argv[1]);
    depth = atoi(argv[2]) - 4; /* main, work, bottom, leaf */
    int threads = atoi(argv[3]);
    if (threads < 1 || threads > MOST) return 2;
    pthread_t handles[MOST];
    double results[MOST], sum = 0;
    for (int i = 1; i < threads; i++) pthread_create(&handles[i], NULL, work, &results[i]);
    work(&results[0]);
    for (int i = 1; i < threads; i++) pthread_join(handles[i], NULL);
    for (int i = 0; i < threads; i++) sum += results[i];
    printf("%.1f\n", sum / threads);
    return 0;
}
