/* A thread that allocates while another sends it one signal after the other, whose
 * handler allocates: sooner or later between any two instructions. */
#include "truth.h"

#include <pthread.h>
#include <signal.h>

enum { TURNS = 3000000 };
static struct site sites[] = {TRUTH_INIT("in_turn")};

static pthread_t target;
static volatile int is_over;

SITE static void *in_turn(size_t bytes) { return kept(malloc(bytes)); }
SITE static void *in_handler(void) { return kept(malloc(600)); }

static void handle(int number) {
    (void)number;
    free(in_handler());
}

static void *flood(void *argument) {
    while (!is_over) pthread_kill(target, SIGUSR1);
    return argument;
}

int main(void) {
    struct sigaction action = {.sa_handler = handle, .sa_flags = SA_RESTART};
    sigaction(SIGUSR1, &action, NULL);
    target = pthread_self();
    pthread_t thread;
    if (pthread_create(&thread, NULL, flood, NULL) != 0) return 1;
    for (int i = 0; i < TURNS; i++) free(in_turn(40));
    is_over = 1;
    pthread_join(thread, NULL);
    for (int i = 0; i < TURNS; i++) {
        born(&sites[0], 40);
        died(&sites[0], 40);
    }
    say("{\"sites\": {");
    say_sites(sites, 1);
    say("}}\n");
    return 0;
}
