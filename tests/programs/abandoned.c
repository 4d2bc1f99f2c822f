/* Signal handlers that leave by siglongjmp whatever they interrupted: hooks,
 * too. Not legal where malloc was at work, but done; so this is linked with an
 * allocator that takes it (reentrant.c). What is allocated afterwards has its
 * stack again. */
#define _GNU_SOURCE
#include "truth.h"

#include <setjmp.h>
#include <signal.h>
#include <sys/time.h>

enum { AFTER, SITES };
static struct site sites[SITES] = {[AFTER] = TRUTH_INIT("after_jump")};

static sigjmp_buf back;
static volatile sig_atomic_t may_jump;
static volatile int jumps;

SITE static void *after_jump(void) { return kept(malloc(24)); }

static void handle(int signal) {
    (void)signal;
    if (may_jump) {
        may_jump = 0;
        jumps++;
        siglongjmp(back, 1);
    }
}

/* Far more stack than `main` uses afterwards, so that what comes later is not
 * taken for something below the hook that was left. */
SITE static void churn(int depth) {
    char room[256];
    __asm__ volatile("" : : "r"(room) : "memory");
    if (depth > 0) {
        churn(depth - 1);
        kept(NULL);
        return;
    }
    for (;;) free(kept(malloc(16)));
}

int main(void) {
    struct sigaction action = {.sa_handler = handle};
    sigaction(SIGALRM, &action, NULL);
    struct itimerval every = {{0, 300}, {0, 300}};
    setitimer(ITIMER_REAL, &every, NULL);
    while (jumps < 1000) {
        if (sigsetjmp(back, 1) == 0) {
            may_jump = 1;
            churn(20);
        }
        after_jump();
        born(&sites[AFTER], 24);
    }
    struct itimerval never = {{0, 0}, {0, 0}};
    setitimer(ITIMER_REAL, &never, NULL);
    say_truth(sites, SITES);
    return 0;
}
