/* Fills glibc's heaps in a known way, says what its malloc says of them, and
 * does what it is told by lines on stdin.
 *
 *   arenas   six threads and the main one keep one block of ten; `trim` calls
 *            malloc_trim
 *   mapped   four blocks that are mapped by themselves, one of them aligned
 *   stacks   300 threads have used 64 KiB of their stacks each
 *   churn    four threads allocate and free without end */
#define _GNU_SOURCE
#include <malloc.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { THREADS = 6, BLOCKS = 40000, MAPPED = 20 << 20 };

static pthread_barrier_t filled;
static char *kept[THREADS + 1][BLOCKS];
void *mapped[4];

static void fill(long who) {
    for (int i = 0; i < BLOCKS; i++) {
        size_t size = 16 + (size_t)(i * 7919 % 1500);
        kept[who][i] = malloc(size);
        memset(kept[who][i], 1, size);
    }
    for (int i = 0; i < BLOCKS; i++) {
        if (i % 10 == 0) continue;
        free(kept[who][i]);
        kept[who][i] = NULL;
    }
}

static void *fill_and_wait(void *who) {
    fill((long)who);
    pthread_barrier_wait(&filled);
    for (;;) pause();
}

static void *use_stack(void *who) {
    char used[64 << 10];
    memset(used, (int)(long)who, sizeof used);
    __asm__ volatile("" : : "r"(used) : "memory");
    for (;;) pause();
}

static void *churn(void *seed) {
    enum { LIVE = 20000 };
    unsigned state = (unsigned)(long)seed;
    void **live = calloc(LIVE, sizeof *live);
    for (;;) {
        state = state * 1103515245 + 12345;
        unsigned at = (state >> 8) % LIVE;
        size_t size = 16 + (state >> 4) % 3000;
        free(live[at]);
        live[at] = malloc(size);
        memset(live[at], 1, size);
    }
}

static void start(void *(*run)(void *), int threads) {
    for (long who = 0; who < threads; who++) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, run, (void *)who)) exit(1);
    }
}

int main(int argc, char **argv) {
    const char *what = argc > 1 ? argv[1] : "";
    pthread_barrier_init(&filled, NULL, THREADS + 1);
    if (!strcmp(what, "arenas")) {
        start(fill_and_wait, THREADS);
        fill(THREADS);
        pthread_barrier_wait(&filled);
    } else if (!strcmp(what, "mapped")) {
        for (int i = 0; i < 3; i++) mapped[i] = malloc(MAPPED);
        if (posix_memalign(&mapped[3], 64, MAPPED)) return 1;
        for (int i = 0; i < 4; i++) memset(mapped[i], 1, MAPPED);
        /* Advice on part of a block makes several mappings of it. */
        for (int i = 0; i < 2; i++) {
            uintptr_t page = ((uintptr_t)mapped[i] | 4095) + 1;
            if (madvise((void *)page, MAPPED / 2 & ~4095, MADV_HUGEPAGE)) return 1;
        }
    } else if (!strcmp(what, "stacks")) {
        start(use_stack, 300);
    } else if (!strcmp(what, "churn")) {
        start(churn, 4);
    } else {
        return 2;
    }
    struct mallinfo2 info = mallinfo2();
    printf("{\"live\": %zu, \"free\": %zu, \"mapped\": %zu, \"arenas\": %d}\n", info.uordblks,
           info.fordblks, info.hblkhd, strcmp(what, "arenas") ? 1 : THREADS + 1);
    fflush(stdout);
    char line[32];
    while (fgets(line, sizeof line, stdin)) {
        if (!strcmp(line, "trim\n")) malloc_trim(0);
        puts("done");
        fflush(stdout);
    }
    for (;;) pause();
}
