/* Two coroutines and the main stack take turns (makecontext, swapcontext). */
#include "truth.h"

#include <ucontext.h>

enum { PING, PONG, MAIN, SITES };
static struct site sites[SITES] = {
    [PING] = TRUTH_INIT("take_in_ping"),
    [PONG] = TRUTH_INIT("take_in_pong"),
    [MAIN] = TRUTH_INIT("take_in_main"),
};

enum { ROUNDS = 20000, STACK = 64 * 1024 };
static ucontext_t main_context, ping_context, pong_context;
static char ping_stack[STACK], pong_stack[STACK];

SITE static void *take_in_ping(void) { return kept(malloc(10)); }
SITE static void *take_in_pong(void) { return kept(malloc(20)); }
SITE static void *take_in_main(void) { return kept(malloc(30)); }

SITE static void ping_body(int depth) {
    if (depth > 0) {
        ping_body(depth - 1);
        kept(NULL);
        return;
    }
    take_in_ping();
    born(&sites[PING], 10);
    swapcontext(&ping_context, &pong_context);
    free(take_in_ping());
    born(&sites[PING], 10);
    died(&sites[PING], 10);
}

SITE static void pong_body(void) {
    take_in_pong();
    born(&sites[PONG], 20);
    swapcontext(&pong_context, &main_context);
}

static void ping(void) {
    for (int i = 0;; i++) ping_body(i % 7);
}

static void pong(void) {
    for (;;) pong_body();
}

static void prepare(ucontext_t *context, char *stack, void (*body)(void)) {
    getcontext(context);
    context->uc_stack.ss_sp = stack;
    context->uc_stack.ss_size = STACK;
    context->uc_link = &main_context;
    makecontext(context, body, 0);
}

int main(void) {
    prepare(&ping_context, ping_stack, ping);
    prepare(&pong_context, pong_stack, pong);
    for (int i = 0; i < ROUNDS; i++) {
        swapcontext(&main_context, &ping_context);
        take_in_main();
        born(&sites[MAIN], 30);
    }
    say_truth(sites, SITES);
    return 0;
}
