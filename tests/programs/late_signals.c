/* A signal while libraries are being told of and nobody makes room: it must
 * not wait for the collector. `late_signals LIBRARY...`: at SIGUSR1 (the
 * collector is stopped then) fills all rings in another thread, loads the
 * libraries, calls them, and says whether a signal gets through meanwhile.
 * Run it with `--wait forever`. */
#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static atomic_int begin, handled;
static atomic_long pairs;

static void on_begin(int number) {
    (void)number;
    begin = 1;
}
static void on_signal(int number) {
    (void)number;
    handled = 1;
}

static void nap(void) {
    struct timespec time = {.tv_nsec = 1000000};
    nanosleep(&time, NULL);
}

static void *fill(void *unused) {
    (void)unused;
    for (;;) {
        void *block = malloc(100);
        __asm__ volatile("" : "+r"(block) : : "memory");
        free(block);
        pairs++;
    }
    return NULL;
}

/* Sends the signal for as long as it is not handled. */
static void *disturb(void *thread) {
    for (int i = 0; i < 1000; i++) nap();
    pthread_kill(*(pthread_t *)thread, SIGUSR2);
    for (int i = 0; i < 2000 && !handled; i++) nap();
    const char *said = handled ? "handled\n" : "late\n";
    if (write(1, said, strlen(said)) < 0) _exit(5);
    return NULL;
}

int main(int argc, char **argv) {
    signal(SIGUSR1, on_begin);
    signal(SIGUSR2, on_signal);
    printf("pid %d\n", getpid());
    fflush(stdout);
    while (!begin) nap();
    pthread_t filler, disturber, own = pthread_self();
    if (pthread_create(&filler, NULL, fill, NULL) != 0) return 4;
    /* Full when it stands still. */
    for (long before = -1; before != pairs;) {
        before = pairs;
        for (int i = 0; i < 300; i++) nap();
    }
    if (pthread_create(&disturber, NULL, disturb, &own) != 0) return 4;
    void *(*work[64])(void);
    for (int i = 1; i < argc; i++) {
        void *plugin = dlopen(argv[i], RTLD_NOW | RTLD_LOCAL);
        if (plugin == NULL) _exit(3);
        *(void **)&work[i] = dlsym(plugin, "plugin_work");
    }
    for (int i = 1; i < argc; i++) work[i]();
    pthread_join(disturber, NULL);
    printf("done\n");
    fflush(stdout);
    _exit(0);
}
