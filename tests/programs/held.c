// A malloc that keeps who asks for 77777 bytes waiting, for as long as the file named by
// HOLD is there. Once it waits, HOLD.inside is there, too.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static void hold(void) {
    const char *path = getenv("HOLD");
    char inside[4096];
    if (path == NULL || access(path, F_OK) != 0)
        return;
    snprintf(inside, sizeof inside, "%s.inside", path);
    close(open(inside, O_CREAT | O_WRONLY, 0600));
    while (access(path, F_OK) == 0)
        usleep(1000);
}

void *malloc(size_t bytes) {
    static void *(*next)(size_t);
    if (next == NULL)
        next = (void *(*)(size_t))dlsym(RTLD_NEXT, "malloc");
    if (bytes == 77777)
        hold();
    return next(bytes);
}
