/* Thread-specific destructors that free and allocate while the thread dies,
 * in several rounds; every other thread leaves by pthread_exit. */
#include "truth.h"

#include <pthread.h>

enum { VALUE, FAREWELL, SITES };
static struct site sites[SITES] = {
    [VALUE] = TRUTH_INIT("thread_value"),
    [FAREWELL] = TRUTH_INIT("in_destructor"),
};

static pthread_key_t key, late_key;

SITE static void *thread_value(void) { return kept(malloc(256)); }
SITE static void *in_destructor(void) { return kept(malloc(48)); }

static void late_destroy(void *value) {
    free(value);
    died(&sites[FAREWELL], 48);
    in_destructor();
    born(&sites[FAREWELL], 48);
}

static void destroy(void *value) {
    free(value);
    died(&sites[VALUE], 256);
    void *block = in_destructor();
    born(&sites[FAREWELL], 48);
    pthread_setspecific(late_key, block); /* another round */
}

static void *work(void *argument) {
    pthread_setspecific(key, thread_value());
    born(&sites[VALUE], 256);
    if (argument != NULL) pthread_exit(NULL);
    return NULL;
}

int main(void) {
    /* The later key is made first, so that its destructor has had its turn. */
    pthread_key_create(&late_key, late_destroy);
    pthread_key_create(&key, destroy);
    for (intptr_t i = 0; i < 500; i++) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, work, (void *)(i % 2)) != 0) return 1;
        pthread_join(thread, NULL);
    }
    say_truth(sites, SITES);
    return 0;
}
