/* Locks all its memory, allocates in itself and in a child, and prints how much
 * shared memory was resident in between, in KiB. Status 77: it may not. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static void *volatile kept;

static void allocate(void) {
    for (int i = 0; i < 300000; i++) {
        kept = malloc(10);
        free(kept);
    }
}

int main(void) {
    if (mlockall(MCL_CURRENT | MCL_FUTURE) != 0) return 77;
    char line[256];
    FILE *status = fopen("/proc/self/status", "r");
    while (status && fgets(line, sizeof line, status)) {
        long kib;
        if (sscanf(line, "RssShmem: %ld", &kib) == 1) printf("%ld\n", kib);
    }
    fflush(stdout);
    allocate();
    pid_t child = fork();
    if (child == 0) {
        allocate();
        _exit(0);
    }
    int how;
    return waitpid(child, &how, 0) == child ? how != 0 : 1;
}
