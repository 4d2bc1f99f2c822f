/* Is in one call of libc's qsort() for a good second, mostly in a function of its
   own that this calls. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static double until;

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec / 1e9;
}

static int compare(const void *a, const void *b)
{
    double pause = now() + 0.001;
    while (now() < pause && now() < until)
        for (volatile int i = 0; i < 10000; i++)
            ;
    return *(const int *)a - *(const int *)b;
}

int main(void)
{
    int numbers[1000];
    for (int i = 0; i < 1000; i++)
        numbers[i] = 1000 - i;
    until = now() + 1.3;
    puts("ready");
    fflush(stdout);
    qsort(numbers, 1000, sizeof *numbers, compare);
    puts(numbers[0] == 1 ? "good" : "bad");
    return 0;
}
