/* Threads that allocate once and then wait: idle_threads PROCESSES THREADS. */
#include <pthread.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static pthread_barrier_t all;
static void *volatile kept;

static void *work(void *argument) {
    for (int i = 0; i < 2; i++) {
        void *block = malloc(10);
        kept = block; /* which another thread may change */
        free(block);
        pthread_barrier_wait(&all);
    }
    return argument;
}

static int threads(int count) {
    pthread_t *started = calloc((size_t)count, sizeof *started);
    pthread_attr_t small;
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, 64 << 10);
    pthread_barrier_init(&all, NULL, (unsigned)count + 1);
    for (int i = 0; i < count; i++)
        if (pthread_create(&started[i], &small, work, NULL) != 0) return 1;
    for (int i = 0; i < 2; i++) pthread_barrier_wait(&all);
    for (int i = 0; i < count; i++) pthread_join(started[i], NULL);
    free(started);
    return 0;
}

int main(int argc, char **argv) {
    if (argc < 3) return 2;
    int count = atoi(argv[2]), failed = 0, status;
    for (int i = 1; i < atoi(argv[1]); i++)
        if (fork() == 0) return threads(count);
    failed = threads(count);
    while (wait(&status) > 0) failed |= status != 0;
    return failed;
}
