/* A worker that measures how long it was kept from its work: gap THREADS MIB.
 * It makes and frees blocks in a loop, beside THREADS threads that sleep and MIB
 * mebibytes that are resident. On stdin: `reset`, and `gap`, which answers with the
 * longest time between two turns since, in microseconds. */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static uint64_t longest;

static uint64_t now_us(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000 + (uint64_t)time.tv_nsec / 1000;
}

static void *work(void *unused) {
    uint64_t last = now_us();
    for (size_t turn = 0;; turn++) {
        void *block = malloc(16 + turn % 1000);
        __asm__ volatile("" : "+r"(block) : : "memory");
        free(block);
        uint64_t now = now_us(), gap = now - last;
        last = now;
        if (gap > __atomic_load_n(&longest, __ATOMIC_RELAXED))
            __atomic_store_n(&longest, gap, __ATOMIC_RELAXED);
    }
    return unused;
}

static void *rest(void *unused) {
    for (;;) pause();
    return unused;
}

int main(int argc, char **argv) {
    if (argc != 3) return 2;
    size_t bytes = (size_t)atol(argv[2]) << 20;
    char *resident = malloc(bytes + 1);
    if (resident == NULL) return 3;
    memset(resident, 1, bytes);
    pthread_t thread;
    for (int i = atoi(argv[1]); i > 0; i--)
        if (pthread_create(&thread, NULL, rest, NULL) != 0) return 4;
    if (pthread_create(&thread, NULL, work, NULL) != 0) return 4;
    puts("ready");
    fflush(stdout);
    char line[64];
    while (fgets(line, sizeof line, stdin) != NULL) {
        uint64_t gap = __atomic_exchange_n(&longest, 0, __ATOMIC_RELAXED);
        if (strcmp(line, "gap\n") != 0) gap = 0;
        printf("%llu\n", (unsigned long long)gap);
        fflush(stdout);
    }
    return 0;
}
