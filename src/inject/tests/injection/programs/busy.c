/* As many threads as are told allocate and free all the time, until a signal
   or for 20 seconds; none of them ever waits. */
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static volatile double until;

static void stop(int signal)
{
    (void)signal;
    until = 0;
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec / 1e9;
}

__attribute__((noinline)) static int turn(unsigned seed)
{
    unsigned char *blocks[64];
    int good = 1;
    for (unsigned i = 0; i < 64; i++) {
        blocks[i] = malloc(16 + (seed * 31 + i * 17) % 900);
        memset(blocks[i], (int)(seed + i), 16);
    }
    for (unsigned i = 0; i < 64; i++) {
        good &= blocks[i][15] == (unsigned char)(seed + i);
        free(blocks[i]);
    }
    return good;
}

static void *run(void *argument)
{
    int good = 1;
    for (unsigned n = 0; (n & 255) != 0 || now() < until; n++)
        good &= turn(n);
    return good ? argument : NULL;
}

int main(int count, char **arguments)
{
    pthread_t threads[64];
    int most = count > 1 ? atoi(arguments[1]) : 1, good = 1;
    until = now() + 20;
    signal(SIGUSR1, stop);
    puts("ready");
    fflush(stdout);
    for (int i = 1; i < most; i++)
        pthread_create(&threads[i], NULL, run, &good);
    good &= run(&good) != NULL;
    for (int i = 1; i < most; i++) {
        void *result;
        pthread_join(threads[i], &result);
        good &= result != NULL;
    }
    puts(good ? "good" : "bad");
    return !good;
}
