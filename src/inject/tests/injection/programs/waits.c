/* Waits for two seconds, once, in the way that is named; prints what came of it. */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec / 1e9;
}

static struct timespec in_two_seconds(clockid_t clock)
{
    struct timespec time;
    clock_gettime(clock, &time);
    time.tv_sec += 2;
    return time;
}

static int child_that_writes(int to)
{
    if (fork() == 0) {
        struct timespec seconds = {2, 0};
        nanosleep(&seconds, NULL);
        if (to >= 0 && write(to, "x", 1) != 1)
            _exit(1);
        _exit(0);
    }
    return 0;
}

int main(int count, char **arguments)
{
    const char *way = count > 1 ? arguments[1] : "";
    int pipes[2], result = -2;
    char byte;
    struct timespec seconds = {2, 0}, then;
    if (pipe(pipes) != 0)
        return 1;
    puts("ready");
    fflush(stdout);
    double start = now();
    errno = 0;
    if (!strcmp(way, "select")) {
        struct timeval time = {2, 0};
        result = select(0, NULL, NULL, NULL, &time);
    } else if (!strcmp(way, "pselect")) {
        sigset_t none;
        sigemptyset(&none);
        result = pselect(0, NULL, NULL, NULL, &seconds, &none);
    } else if (!strcmp(way, "poll")) {
        result = poll(NULL, 0, 2000);
    } else if (!strcmp(way, "nanosleep")) {
        result = nanosleep(&seconds, NULL);
    } else if (!strcmp(way, "clock_nanosleep")) {
        then = in_two_seconds(CLOCK_MONOTONIC);
        result = clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &then, NULL);
    } else if (!strcmp(way, "epoll_wait")) {
        struct epoll_event event;
        int epoll = epoll_create1(0);
        event.events = EPOLLIN;
        epoll_ctl(epoll, EPOLL_CTL_ADD, pipes[0], &event);
        child_that_writes(pipes[1]);
        result = epoll_wait(epoll, &event, 1, -1);
    } else if (!strcmp(way, "epoll_wait_timed")) {
        struct epoll_event event;
        result = epoll_wait(epoll_create1(0), &event, 1, 2000);
    } else if (!strcmp(way, "read")) {
        child_that_writes(pipes[1]);
        result = read(pipes[0], &byte, 1);
    } else if (!strcmp(way, "recv")) {
        int sockets[2];
        socketpair(AF_UNIX, SOCK_STREAM, 0, sockets);
        child_that_writes(sockets[1]);
        result = recv(sockets[0], &byte, 1, 0);
    } else if (!strcmp(way, "waitpid")) {
        child_that_writes(-1);
        result = waitpid(-1, NULL, 0) > 0 ? 1 : -1;
    } else if (!strcmp(way, "cond_timedwait")) {
        pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
        pthread_cond_t condition = PTHREAD_COND_INITIALIZER;
        pthread_mutex_lock(&mutex);
        then = in_two_seconds(CLOCK_REALTIME);
        result = pthread_cond_timedwait(&condition, &mutex, &then) == ETIMEDOUT ? 0 : -1;
    } else if (!strcmp(way, "sem_timedwait")) {
        sem_t semaphore;
        sem_init(&semaphore, 0, 0);
        then = in_two_seconds(CLOCK_REALTIME);
        result = sem_timedwait(&semaphore, &then) == -1 && errno == ETIMEDOUT ? 0 : -1;
        errno = 0;
    }
    int error = errno;
    printf("%d %d %.3f\n", result, error, now() - start);
    return 0;
}
