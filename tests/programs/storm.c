/* Everything at once: threads that load and unload a library, fork, start other
 * threads whose first allocation is libc's own, and allocate; and signals whose
 * handler allocates and is interrupted by another of its kind. Linked with an
 * allocator that takes the latter. `storm PLUGIN.so`. */
#define _GNU_SOURCE
#include "truth.h"

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sys/time.h>
#include <sys/wait.h>

enum { CHURN, FIRST, LOADED, SITES };
static struct site sites[SITES] = {
    [CHURN] = TRUTH_INIT("in_churn"),
    [FIRST] = TRUTH_INIT("after_getattr"),
    [LOADED] = TRUTH_INIT("leak_of_storm"),
};

enum { LOADS = 150, FORKS = 80, STARTS = 300, CHURNS = 60000, CHILD_BLOCKS = 10 };

static const char *library;
static uint64_t handled;

SITE static void *in_churn(size_t bytes) { return kept(malloc(bytes)); }
SITE static void *after_getattr(void) { return kept(malloc(40)); }
SITE static void *in_child(void) { return kept(malloc(72)); }
SITE static void *in_handler(void) { return kept(malloc(88)); }

static void handle(int number) {
    int saved = errno;
    void *block = in_handler();
    /* The other signal comes in the middle of this one. */
    if (number == SIGALRM) raise(SIGUSR1);
    free(block);
    add(&handled, 1);
    errno = saved;
}

static void *load(void *argument) {
    for (int i = 0; i < LOADS; i++) {
        void *plugin = dlopen(library, RTLD_NOW | RTLD_LOCAL);
        if (plugin == NULL) return (void *)1;
        void *(*work)(void);
        *(void **)&work = dlsym(plugin, "plugin_work");
        free(work());
        for (int j = 0; j < 2; j++) {
            born(&sites[LOADED], 500);
            died(&sites[LOADED], 500);
        }
        dlclose(plugin);
    }
    return argument;
}

static void *fork_often(void *argument) {
    for (int i = 0; i < FORKS; i++) {
        pid_t pid = fork();
        if (pid < 0) return (void *)1;
        if (pid == 0) {
            for (int j = 0; j < CHILD_BLOCKS; j++) in_child();
            _exit(0);
        }
        int status;
        while (waitpid(pid, &status, 0) < 0)
            if (errno != EINTR) return (void *)1;
        if (status != 0) return (void *)1;
    }
    return argument;
}

static void *begin(void *argument) {
    pthread_attr_t attributes;
    if (pthread_getattr_np(pthread_self(), &attributes) != 0) return (void *)1;
    pthread_attr_destroy(&attributes);
    after_getattr();
    born(&sites[FIRST], 40);
    return argument;
}

static void *start_often(void *argument) {
    for (int i = 0; i < STARTS; i++) {
        pthread_t thread;
        void *result = NULL;
        if (pthread_create(&thread, NULL, begin, NULL) != 0) return (void *)1;
        pthread_join(thread, &result);
        if (result != NULL) return result;
    }
    return argument;
}

static void *churn(void *argument) {
    for (int i = 0; i < CHURNS; i++) {
        size_t bytes = 16 + (size_t)(i % 7) * 24;
        free(in_churn(bytes));
        born(&sites[CHURN], bytes);
        died(&sites[CHURN], bytes);
    }
    return argument;
}

int main(int argc, char **argv) {
    if (argc != 2) return 2;
    library = argv[1];
    struct sigaction action = {.sa_handler = handle, .sa_flags = SA_RESTART | SA_NODEFER};
    sigaction(SIGALRM, &action, NULL);
    sigaction(SIGUSR1, &action, NULL);
    struct itimerval every = {{0, 500}, {0, 500}};
    setitimer(ITIMER_REAL, &every, NULL);
    void *(*bodies[])(void *) = {load, fork_often, start_often, churn, churn};
    enum { THREADS = sizeof bodies / sizeof *bodies };
    pthread_t threads[THREADS];
    int failed = 0;
    for (int i = 0; i < THREADS; i++) failed |= pthread_create(&threads[i], NULL, bodies[i], NULL);
    for (int i = 0; i < THREADS; i++) {
        void *result;
        pthread_join(threads[i], &result);
        failed |= result != NULL;
    }
    struct itimerval never = {{0, 0}, {0, 0}};
    setitimer(ITIMER_REAL, &never, NULL);
    say("{\"pid\": %d, \"child_blocks\": %d, \"handled\": %llu, \"sites\": {", (int)getpid(),
        FORKS * CHILD_BLOCKS, (unsigned long long)handled);
    say_sites(sites, SITES);
    say("}}\n");
    return failed;
}
