/* A signal handler that allocates, arriving at any instant of the program's
 * own allocations. Built twice: with the C library's allocator the signals are
 * raised between calls (a handler must not interrupt malloc); with
 * reentrant.c, by a timer, anywhere (-DANYWHERE). */
#define _GNU_SOURCE
#include "truth.h"

#include <signal.h>
#include <sys/time.h>

enum { HANDLER, MAIN, SITES };
static struct site sites[SITES] = {
    [HANDLER] = TRUTH_INIT("in_handler"),
    [MAIN] = TRUTH_INIT("in_main"),
};

SITE static void *in_handler(size_t bytes) { return kept(malloc(bytes)); }
SITE static void *in_main(size_t bytes) { return kept(malloc(bytes)); }

static void handle(int signal) {
    (void)signal;
    for (int i = 0; i < 3; i++) {
        void *block = in_handler(100);
        born(&sites[HANDLER], 100);
        if (i != 1) {
            free(block);
            died(&sites[HANDLER], 100);
        }
    }
}

int main(void) {
    /* An alternate stack, as crash handlers and Go have it. */
    static char stack[64 * 1024];
    stack_t alternate = {.ss_sp = stack, .ss_size = sizeof stack};
    sigaltstack(&alternate, NULL);
    struct sigaction action = {.sa_handler = handle, .sa_flags = SA_ONSTACK | SA_RESTART};
    sigaction(SIGUSR1, &action, NULL);
#ifdef ANYWHERE
    sigaction(SIGALRM, &action, NULL);
    struct itimerval often = {.it_interval = {.tv_usec = 200}, .it_value = {.tv_usec = 200}};
    setitimer(ITIMER_REAL, &often, NULL);
#endif
    for (int i = 0; i < 300000; i++) {
        void *block = in_main(40);
        born(&sites[MAIN], 40);
#ifndef ANYWHERE
        if (i % 1000 == 0) raise(SIGUSR1);
#endif
        if (i % 10 != 0) {
            free(block);
            died(&sites[MAIN], 40);
        }
    }
#ifdef ANYWHERE
    struct itimerval never = {.it_value = {.tv_usec = 0}};
    setitimer(ITIMER_REAL, &never, NULL);
    while (sites[HANDLER].births == 0) raise(SIGUSR1);
#endif
    say_truth(sites, SITES);
    return 0;
}
