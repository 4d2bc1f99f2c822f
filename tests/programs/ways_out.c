/* The ways a process becomes another or ends. `ways_out WAY`, see main. */
#define _GNU_SOURCE
#include "truth.h"

#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>

extern char **environ;

static struct site site = TRUTH_INIT("before_leaving");

SITE static void *before_leaving(void) { return kept(malloc(128)); }

static void *first[500];

static void allocate(int count) {
    for (int i = 0; i < count; i++) {
        void *block = before_leaving();
        if (i < 500) first[i] = block;
        born(&site, 128);
    }
}

/* What an exit handler gives back was live when the program ended. */
static void release(void) {
    for (int i = 0; i < 500; i++) {
        free(first[i]);
        died(&site, 128);
    }
    say_truth(&site, 1);
}

static void say_site(void) { say_truth(&site, 1); }

int main(int argc, char **argv) {
    const char *way = argc > 1 ? argv[1] : "";
    char *again[] = {argv[0], "plain", NULL};
    char *absent[] = {"/nonexistent/program", NULL};
    int status = 0;
    allocate(500);
    if (strcmp(way, "plain") == 0) {
        say_site();
        return 7;
    }
    if (strcmp(way, "return, then release") == 0) {
        atexit(release);
        return 4;
    }
    if (strcmp(way, "exit, then release") == 0) {
        atexit(release);
        exit(4);
    }
    if (strcmp(way, "_exit") == 0) {
        say_site();
        _exit(8);
    }
    if (strcmp(way, "quick_exit") == 0) {
        say_site();
        quick_exit(9);
    }
    if (strcmp(way, "abort") == 0) {
        say_site();
        abort();
    }
    if (strcmp(way, "sigterm") == 0) {
        say_site();
        raise(SIGTERM);
    }
    if (strcmp(way, "sigkill") == 0) {
        say_site();
        raise(SIGKILL);
    }
    if (strcmp(way, "segfault") == 0) {
        say_site();
        raise(SIGSEGV);
    }
    if (strcmp(way, "exec") == 0) {
        execv(absent[0], absent); /* fails: nothing may have changed */
        allocate(50);
        say_site();
        execv("/proc/self/exe", again);
        return 1;
    }
    if (strcmp(way, "vfork") == 0) {
        for (int i = 0; i < 20; i++) {
            pid_t pid = vfork();
            if (pid == 0) {
                execv(i % 2 == 0 ? "/proc/self/exe" : absent[0], again);
                _exit(77);
            }
            if (waitpid(pid, &status, 0) != pid) return 1;
            if (WEXITSTATUS(status) != (i % 2 == 0 ? 7 : 77)) return 2;
            allocate(50);
        }
        say_site();
        return 0;
    }
    if (strcmp(way, "posix_spawn") == 0) {
        for (int i = 0; i < 10; i++) {
            pid_t pid;
            if (posix_spawn(&pid, "/proc/self/exe", NULL, NULL, again, environ) != 0) return 1;
            if (waitpid(pid, &status, 0) != pid || WEXITSTATUS(status) != 7) return 2;
            if (posix_spawn(&pid, absent[0], NULL, NULL, absent, environ) == 0) return 3;
            allocate(50);
        }
        say_site();
        return 0;
    }
    if (strcmp(way, "system") == 0) {
        status = system("exit 3");
        allocate(50);
        say_site();
        return WEXITSTATUS(status);
    }
    return 2;
}
