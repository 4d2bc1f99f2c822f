/* Forks while other threads allocate: no lock may be left held in the child. */
#include "truth.h"

#include <pthread.h>
#include <sys/wait.h>

SITE static void *in_thread(void) { return kept(malloc(50)); }
SITE static void *in_child(void) { return kept(malloc(70)); }

static int stop;

static void *work(void *argument) {
    (void)argument;
    while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) free(in_thread());
    return NULL;
}

int main(void) {
    enum { THREADS = 3, FORKS = 200 };
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++) {
        if (pthread_create(&threads[i], NULL, work, NULL) != 0) return 1;
    }
    int good = 0;
    for (int i = 0; i < FORKS; i++) {
        pid_t pid = fork();
        if (pid < 0) return 1;
        if (pid == 0) {
            for (int j = 0; j < 10; j++) in_child();
            _exit(0);
        }
        int status = 0;
        waitpid(pid, &status, 0);
        good += status == 0;
    }
    __atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
    for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
    say("{\"forks\": %d, \"child_blocks\": %d}\n", good, good * 10);
    return good == FORKS ? 0 : 1;
}
