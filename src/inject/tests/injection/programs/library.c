/* A library that tells what happens to it, a line each, in the file MARKS. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

char leakline_argument[512];

static void mark(const char *what)
{
    char *path = getenv("MARKS");
    int file = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    /* As a real one does: it allocates. */
    char *line = malloc(4096);
    int length = snprintf(line, 4096, "%s\n", what);
    if (write(file, line, length) != length)
        abort();
    free(line);
    close(file);
}

__attribute__((constructor)) static void loaded(void)
{
    char *wait = getenv("LOADS_FOR_MS");
    if (wait) {
        struct timespec time = {0, atol(wait) * 1000000};
        nanosleep(&time, NULL);
    }
    mark("loaded");
}

int tell(void *argument)
{
    mark(argument);
    return 0;
}

/* Changes all that a function may change. */
int spoil(void *argument)
{
    (void)argument;
    if (__builtin_cpu_supports("avx2"))
        __asm__ volatile("vpcmpeqd %%ymm0, %%ymm0, %%ymm0\n vmovdqa %%ymm0, %%ymm1\n"
                         "vmovdqa %%ymm0, %%ymm2\n vmovdqa %%ymm0, %%ymm3\n"
                         "vmovdqa %%ymm0, %%ymm4\n vmovdqa %%ymm0, %%ymm5\n"
                         "vmovdqa %%ymm0, %%ymm6\n vmovdqa %%ymm0, %%ymm7\n"
                         "vmovdqa %%ymm0, %%ymm8\n vmovdqa %%ymm0, %%ymm15\n" ::
                             : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7",
                               "xmm8", "xmm15");
    __asm__ volatile("fninit\n fldpi\n fldpi\n fldpi\n emms" ::: "st");
    __asm__ volatile("mov $1, %%rax\n mov $2, %%rcx\n mov $3, %%rdx\n mov $4, %%r8\n"
                     "mov $5, %%r9\n mov $6, %%r10\n mov $7, %%r11\n" ::
                         : "rax", "rcx", "rdx", "r8", "r9", "r10", "r11", "cc");
    /* The red zone too. */
    volatile char below[4096];
    memset((void *)below, 7, sizeof below);
    errno = 5;
    return 0;
}
