/* malloc/free pairs at the bottom of a stack: pairs PAIRS DEPTH THREADS.
 * Prints the nanoseconds of one pair in one thread; and `cpu N`, those that the
 * thread ran: where there are fewer processors than threads and collector, these
 * show what threads cost one another. */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static long pairs;
static int depth;

static double now(clockid_t clock) {
    struct timespec time;
    clock_gettime(clock, &time);
    return (double)time.tv_sec * 1e9 + (double)time.tv_nsec;
}

__attribute__((noinline)) static void leaf(size_t bytes) {
    void *block = malloc(bytes);
    __asm__ volatile("" : "+r"(block) : : "memory");
    free(block);
}

struct result {
    double passed, ran;
};

__attribute__((noinline)) static void bottom(struct result *result) {
    double started = now(CLOCK_MONOTONIC), began = now(CLOCK_THREAD_CPUTIME_ID);
    for (long i = 0; i < pairs; i++) leaf(16 + (size_t)(i & 7) * 16);
    result->ran = (now(CLOCK_THREAD_CPUTIME_ID) - began) / (double)pairs;
    result->passed = (now(CLOCK_MONOTONIC) - started) / (double)pairs;
}

__attribute__((noinline)) static void descend(int left, struct result *result) {
    if (left <= 0) bottom(result);
    else descend(left - 1, result);
    __asm__ volatile("" : : : "memory");
}

static void *work(void *result) {
    descend(depth, result);
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
    struct result results[MOST], sum = {0, 0};
    for (int i = 1; i < threads; i++) pthread_create(&handles[i], NULL, work, &results[i]);
    work(&results[0]);
    for (int i = 1; i < threads; i++) pthread_join(handles[i], NULL);
    for (int i = 0; i < threads; i++) {
        sum.passed += results[i].passed;
        sum.ran += results[i].ran;
    }
    printf("%.1f\ncpu %.1f\n", sum.passed / threads, sum.ran / threads);
    return 0;
}
