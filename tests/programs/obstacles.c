/* Does to itself or to another process what keeps leakline out, says so, and
 * waits to be killed: `seccomp`, `forbid CALL`, `undumpable`, `trace PID`, or
 * nothing. */
#define _GNU_SOURCE
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <unistd.h>

/* A filter that kills for one system call, or for none. */
static int filter(unsigned call) {
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {.len = 4, .filter = code};
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
           prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
}

int main(int argc, char **argv) {
    const char *what = argc > 1 ? argv[1] : "";
    int failed = 0;
    if (!strcmp(what, "seccomp"))
        failed = filter(-1U);
    else if (!strcmp(what, "forbid"))
        failed = filter(atoi(argv[2]));
    else if (!strcmp(what, "undumpable"))
        failed = prctl(PR_SET_DUMPABLE, 0);
    else if (!strcmp(what, "trace"))
        failed = ptrace(PTRACE_SEIZE, atoi(argv[2]), NULL, NULL) != 0;
    if (failed) {
        perror(what);
        return 1;
    }
    puts("ready");
    fflush(stdout);
    for (;;) pause();
}
