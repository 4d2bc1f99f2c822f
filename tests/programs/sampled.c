/* A heap to be estimated: blocks of one size, of a mix of sizes, large ones,
 * ones that are reallocated, and ones that die at once, in four threads; a child
 * that frees half of what it inherited, and allocates. `sampled SCALE`. */
#define _GNU_SOURCE
#include "truth.h"

#include <pthread.h>
#include <sys/wait.h>

enum { SMALL, MIXED, LARGE, RESIZED, CHURN, SITES };
static struct site sites[SITES] = {
    [SMALL] = TRUTH_INIT("in_small"),     [MIXED] = TRUTH_INIT("in_mixed"),
    [LARGE] = TRUTH_INIT("in_large"),     [RESIZED] = TRUTH_INIT("in_resized"),
    [CHURN] = TRUTH_INIT("in_churn"),
};

SITE static void *in_small(void) { return kept(malloc(48)); }
SITE static void *in_mixed(size_t bytes) { return kept(calloc(1, bytes)); }
SITE static void *in_large(void) { return kept(malloc(1000000)); }
SITE static void *in_resized(void *old, size_t bytes) { return kept(realloc(old, bytes)); }
SITE static void *in_churn(void) { return kept(malloc(64)); }
SITE static void *in_child(void) { return kept(malloc(3000000)); }

enum { THREADS = 4, MOST = 1 << 17 };
static long scale;
static void *smalls[THREADS][MOST];
static void *mixed[THREADS][MOST];

static void *work(void *argument) {
    long thread = (long)(intptr_t)argument;
    uint64_t seed = 99 + (uint64_t)thread;
    for (long i = 0; i < scale; i++) {
        smalls[thread][i] = in_small();
        born(&sites[SMALL], 48);
        if (i % 10 == 0) {
            size_t bytes = random_next(&seed) % 8 == 0 ? 60000 : 300;
            mixed[thread][i] = in_mixed(bytes);
            born(&sites[MIXED], bytes);
            /* Every other one goes again. */
            if (i % 20 == 0) {
                free(mixed[thread][i]);
                died(&sites[MIXED], bytes);
            }
        }
        free(in_churn());
        born(&sites[CHURN], 64);
        died(&sites[CHURN], 64);
        if (i % (scale / 4) == 0) {
            in_large();
            born(&sites[LARGE], 1000000);
        }
        if (i % (scale / 100) == 0) {
            /* Each step is a death and a birth. */
            void *block = NULL;
            for (size_t bytes = 1000; bytes <= 64000; bytes *= 2) {
                if (block != NULL) died(&sites[RESIZED], bytes / 2);
                block = in_resized(block, bytes);
                born(&sites[RESIZED], bytes);
            }
            /* It cannot be: the block stays. */
            if (realloc(block, (size_t)1 << 62) != NULL) _exit(97);
        }
    }
    for (long i = 0; i < scale; i += 3) {
        free(smalls[thread][i]);
        died(&sites[SMALL], 48);
    }
    return NULL;
}

int main(int argc, char **argv) {
    if (argc != 2) return 2;
    scale = atol(argv[1]);
    if (scale < 400 || scale > MOST) return 2;
    pthread_t threads[THREADS];
    for (intptr_t i = 0; i < THREADS; i++) {
        if (pthread_create(&threads[i], NULL, work, (void *)i) != 0) return 1;
    }
    for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
    pid_t child = fork();
    if (child == 0) {
        for (int thread = 0; thread < THREADS; thread++)
            for (long i = 1; i < scale; i += 3) free(smalls[thread][i]);
        for (int i = 0; i < 7; i++) in_child();
        _exit(0);
    }
    int status = 1;
    if (child < 0 || waitpid(child, &status, 0) != child || status != 0) return 1;
    say_truth(sites, SITES);
    return 0;
}
