/* `wait`: waits in select() until a signal ends it. `handler`: waits within a
   signal handler that interrupted malloc, as far as anybody can tell. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/select.h>

static volatile sig_atomic_t signals;

static void handler(int signal)
{
    (void)signal;
    signals++;
    if (signals > 1)
        return;
    struct pollfd none;
    poll(&none, 0, 1000);
}

static void count_it(int signal)
{
    (void)signal;
    signals++;
}

int main(int count, char **arguments)
{
    int in_handler = count > 1 && !strcmp(arguments[1], "handler");
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = in_handler ? handler : count_it;
    sigaction(SIGUSR1, &action, NULL);
    puts("ready");
    fflush(stdout);
    if (in_handler) {
        raise(SIGUSR1);
        puts("good");
        return 0;
    }
    struct timeval time = {10, 0};
    int result = select(0, NULL, NULL, NULL, &time);
    printf("%d %d %d\n", result, errno == EINTR, (int)signals);
    return 0;
}
