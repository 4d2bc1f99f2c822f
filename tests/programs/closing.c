/* Signals that come while a library is being unloaded, when the loader's list still
 * has it and its memory is gone: the handler allocates, from a place that nobody has
 * seen yet, so that the list is looked at. Linked with an allocator that takes being
 * interrupted. `closing PLUGIN.so [SECONDS]`. */
#define _GNU_SOURCE
#include "truth.h"

#include <dlfcn.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>

enum { PAGES = 4096, CODE = 32 };

/* Calls malloc(88) and returns: a function at a place of its own each time. */
static unsigned char *next, *end;
static uint64_t handled;

static void make_room(void) {
    next = mmap(NULL, PAGES * 4096, PROT_READ | PROT_WRITE | PROT_EXEC,
                MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    end = next + PAGES * 4096;
}

static void *fresh(void) {
    if (end - next < CODE) make_room();
    unsigned char *code = next;
    next += CODE;
    /* push rbp; mov rbp, rsp; mov edi, 88; mov rax, malloc; call rax; pop rbp; ret */
    static const unsigned char body[] = {0x55, 0x48, 0x89, 0xe5, 0xbf, 88, 0, 0, 0, 0x48, 0xb8,
                                         0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xd0, 0x5d, 0xc3};
    memcpy(code, body, sizeof body);
    void *(*function)(size_t) = malloc;
    memcpy(code + 11, &function, sizeof function);
    return ((void *(*)(void))(void *)code)();
}

static void handle(int number) {
    (void)number;
    free(fresh());
    handled++;
}

static double now(void) {
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return (double)at.tv_sec + (double)at.tv_nsec / 1e9;
}

int main(int argc, char **argv) {
    if (argc < 2) return 2;
    double until = now() + (argc > 2 ? atof(argv[2]) : 1.0);
    make_room();
    struct sigaction action = {.sa_handler = handle, .sa_flags = SA_RESTART};
    sigaction(SIGALRM, &action, NULL);
    struct itimerval every = {{0, 50}, {0, 50}};
    setitimer(ITIMER_REAL, &every, NULL);
    unsigned loads = 0;
    while (now() < until) {
        void *plugin = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
        if (plugin == NULL) return 1;
        dlclose(plugin);
        loads++;
    }
    struct itimerval never = {{0, 0}, {0, 0}};
    setitimer(ITIMER_REAL, &never, NULL);
    say("{\"loads\": %u, \"handled\": %llu}\n", loads, (unsigned long long)handled);
    return handled == 0;
}
