/* longjmp out of deep frames that allocated. */
#include "truth.h"

#include <setjmp.h>
#include <signal.h>

enum { DEEP, AFTER, SITES };
static struct site sites[SITES] = {
    [DEEP] = TRUTH_INIT("before_jump"),
    [AFTER] = TRUTH_INIT("after_jump"),
};

static sigjmp_buf back;

SITE static void *before_jump(void) { return kept(malloc(80)); }
SITE static void *after_jump(void) { return kept(malloc(24)); }

SITE static int descend(int depth) {
    free(before_jump());
    born(&sites[DEEP], 80);
    died(&sites[DEEP], 80);
    if (depth == 0) siglongjmp(back, 1);
    return descend(depth - 1) + 1;
}

static void handle(int signal) {
    (void)signal;
    siglongjmp(back, 1);
}

int main(void) {
    struct sigaction action = {.sa_handler = handle};
    sigaction(SIGUSR1, &action, NULL);
    for (volatile int i = 0; i < 4000; i++) {
        if (sigsetjmp(back, 1) == 0) {
            if (i % 5 == 0) raise(SIGUSR1); /* out of a handler */
            descend(i % 40);
        }
        after_jump();
        born(&sites[AFTER], 24);
    }
    say_truth(sites, SITES);
    return 0;
}
