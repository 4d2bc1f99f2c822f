/* Keeps so many blocks, and loses one each time that it has worked for a while, until it
 * is told to end. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void *volatile kept[100000];
static volatile sig_atomic_t is_over;

static void over(int signal)
{
    (void)signal;
    is_over = 1;
}

__attribute__((noinline)) static void *keep(void)
{
    void *block = malloc(100);
    memset(block, 0, 100);
    return block;
}

__attribute__((noinline)) static void lose(void)
{
    void *block = malloc(60);
    memset(block, 0, 60);
    __asm__ volatile("" : "+r"(block) : : "memory");
}

int main(int argc, char **argv)
{
    long count = argc > 1 ? atol(argv[1]) : 1000;
    signal(SIGTERM, over);
    for (long i = 0; i < count; i++)
        kept[i] = keep();
    for (int i = 0; i < 10; i++)
        lose();
    puts("ready");
    fflush(stdout);
    while (!is_over) {
        for (int i = 0; i < 200; i++)
            free(malloc(40));
        lose();
        usleep(500);
    }
    return 0;
}
