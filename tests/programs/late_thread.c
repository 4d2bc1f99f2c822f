/* A thread that starts while nothing can be recorded: late_thread STOPPED GOING.
 * Once file STOPPED is there the first allocates more than there is room for, and
 * ends. The second allocates a little, says so, and leaks once GOING is there. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void *volatile kept;
static char **files;

static void wait_for(const char *file) {
    while (access(file, F_OK) != 0) usleep(1000);
}

static void say(const char *line) {
    if (write(STDOUT_FILENO, line, strlen(line)) < 0) _exit(99);
}

static void *first(void *argument) {
    wait_for(files[1]);
    for (int i = 0; i < 1000000; i++) {
        kept = malloc(10);
        free(kept);
    }
    return argument;
}

static void *second(void *argument) {
    kept = malloc(10);
    say("second\n");
    wait_for(files[2]);
    for (int i = 0; i < 1000; i++) kept = malloc(10);
    return argument;
}

static void run(void *(*work)(void *), const char *name) {
    pthread_t thread;
    /* A thread has its creator's name from the start. */
    pthread_setname_np(pthread_self(), name);
    if (pthread_create(&thread, NULL, work, NULL) != 0) _exit(1);
    pthread_join(thread, NULL);
}

int main(int argc, char **argv) {
    if (argc != 3) return 2;
    files = argv;
    say("joined\n");
    run(first, "first");
    /* Until the kernel knows that it is gone. */
    usleep(100000);
    run(second, "second");
    return 0;
}
