/* Computes the same again and again in vector, x87 and general registers and in
   the red zone, until a signal or for 20 seconds, and compares; errno too. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
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

__attribute__((target("avx2"), optimize("O3,tree-vectorize"), noinline)) static double
vectors(const double *from)
{
    double sums[16] = {0};
    for (int round = 0; round < 2000; round++)
        for (int i = 0; i < 16; i++)
            sums[i] = sums[i] * 0.999 + from[i] * (double)(round & 7);
    double sum = 0;
    for (int i = 0; i < 16; i++)
        sum += sums[i];
    return sum;
}

__attribute__((noinline)) static long double x87(void)
{
    long double sum = 0;
    for (int round = 1; round < 2000; round++)
        sum += 1.0L / round;
    return sum;
}

/* A leaf without calls keeps its locals below the stack pointer. */
__attribute__((optimize("O1"), noinline)) static unsigned long leaf(unsigned long seed)
{
    volatile unsigned long locals[12];
    for (int i = 0; i < 12; i++)
        locals[i] = seed + i;
    for (int round = 0; round < 1000; round++)
        for (int i = 0; i < 12; i++)
            locals[i] = locals[i] * 6364136223846793005UL + locals[(i + 5) % 12];
    return locals[0] ^ locals[7];
}

int main(void)
{
    double from[16];
    until = now() + 20;
    for (int i = 0; i < 16; i++)
        from[i] = i * 1.25 + 0.1;
    int has_vectors = __builtin_cpu_supports("avx2");
    double sum = has_vectors ? vectors(from) : 0;
    long double sum87 = x87();
    unsigned long hash = leaf(1);
    long turns = 0, wrong = 0;
    signal(SIGUSR1, stop);
    puts("ready");
    fflush(stdout);
    errno = 77;
    while (now() < until) {
        wrong += has_vectors && vectors(from) != sum;
        wrong += x87() != sum87;
        wrong += leaf(1) != hash;
        turns++;
        wrong += errno != 77;
    }
    printf("%s %ld\n", wrong ? "wrong" : "right", turns);
    return wrong != 0;
}
