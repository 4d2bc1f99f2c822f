/* A parent with a live set forks 8 children that change it, each in its own
 * way; when root, one sheds its rights and one moves into an empty root.
 *
 * Prints one line of JSON a process: what is live in it when it ends. Children
 * end one after the other, the parent last; `inherited` are blocks born in the
 * parent before the fork that the process still holds. */
#define _GNU_SOURCE
#include "truth.h"

#include <sys/wait.h>

enum { BASE, CHILD, LATE, SITES };
static struct site sites[SITES] = {
    [BASE] = TRUTH_INIT("before_fork"),
    [CHILD] = TRUTH_INIT("in_child"),
    [LATE] = TRUTH_INIT("after_fork"),
};

enum { BLOCKS = 20000, CHILDREN = 8 };
static void *blocks[BLOCKS];
static char empty_root[] = "/tmp/forks-XXXXXX";

SITE static void *before_fork(void) { return kept(malloc(100)); }
SITE static void *in_child(size_t bytes) { return kept(malloc(bytes)); }
SITE static void *after_fork(void) { return kept(malloc(60)); }

static void say_process(int number) {
    say("{\"pid\": %d, \"number\": %d, \"live_blocks\": %llu, \"live_bytes\": %llu, \"sites\": {",
        (int)getpid(), number,
        (unsigned long long)(sites[BASE].births - sites[BASE].frees + sites[CHILD].births -
                             sites[CHILD].frees + sites[LATE].births - sites[LATE].frees),
        (unsigned long long)(sites[BASE].live_bytes + sites[CHILD].live_bytes +
                             sites[LATE].live_bytes));
    say_sites(sites, SITES);
    say("}}\n");
}

static void child(int number) {
    if (geteuid() == 0 && number == 3 && setuid(65534) != 0) _exit(3);
    if (geteuid() == 0 && number == 5 && (chroot(empty_root) != 0 || chdir("/") != 0)) _exit(4);
    /* Free every n-th inherited block, add blocks of one's own. */
    for (int i = 0; i < BLOCKS; i += number + 2) {
        free(blocks[i]);
        died(&sites[BASE], 100);
    }
    for (int i = 0; i < 1000 * (number + 1); i++) {
        in_child(200 + (size_t)number);
        born(&sites[CHILD], 200 + (size_t)number);
    }
    say_process(number);
    if (number % 2 == 0) _exit(10 + number);
    exit(10 + number);
}

int main(void) {
    if (mkdtemp(empty_root) == NULL) return 2;
    for (int i = 0; i < BLOCKS; i++) {
        blocks[i] = before_fork();
        born(&sites[BASE], 100);
    }
    for (int i = 0; i < CHILDREN; i++) {
        pid_t pid = fork();
        if (pid < 0) return 1;
        if (pid == 0) child(i);
        for (int j = 0; j < 100; j++) {
            after_fork();
            born(&sites[LATE], 60);
        }
        int status = 0;
        if (waitpid(pid, &status, 0) != pid || !WIFEXITED(status) ||
            WEXITSTATUS(status) != 10 + i) {
            say("{\"error\": \"child %d ended with %d\"}\n", i, status);
            return 1;
        }
    }
    rmdir(empty_root);
    say_process(-1);
    return 0;
}
