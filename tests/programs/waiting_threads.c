/* Threads that allocate, wait, and allocate again after a library was
 * unloaded: waiting_threads THREADS LIBRARY. Prints RssAnon in KiB. */
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

static pthread_barrier_t all;
static void *volatile kept;

static void *work(void *argument) {
    for (int i = 0; i < 3; i++) {
        void *block = malloc(10);
        kept = block; /* which another thread may change */
        free(block);
        pthread_barrier_wait(&all);
        pthread_barrier_wait(&all);
    }
    return argument;
}

static void step(void) {
    pthread_barrier_wait(&all);
    pthread_barrier_wait(&all);
}

int main(int argc, char **argv) {
    int count = argc > 2 ? atoi(argv[1]) : 0;
    pthread_t *threads = calloc((size_t)count, sizeof *threads);
    void *library = argc > 2 ? dlopen(argv[2], RTLD_NOW) : NULL;
    if (!library) return 1;
    pthread_barrier_init(&all, NULL, (unsigned)count + 1);
    for (int i = 0; i < count; i++)
        if (pthread_create(&threads[i], NULL, work, NULL) != 0) return 1;
    step();
    if (dlclose(library) != 0) return 1;
    step();
    pthread_barrier_wait(&all);
    char line[256];
    FILE *status = fopen("/proc/self/status", "r");
    while (status && fgets(line, sizeof line, status)) {
        long kib;
        if (sscanf(line, "RssAnon: %ld", &kib) == 1) printf("%ld\n", kib);
    }
    pthread_barrier_wait(&all);
    for (int i = 0; i < count; i++) pthread_join(threads[i], NULL);
    return 0;
}
