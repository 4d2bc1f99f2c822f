/* What Python's queue of calls is like while its lock is held: whoever stops
   the thread that holds it cannot ask it for anything. */
#include <pthread.h>
#include <stdio.h>
#include <time.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int (*volatile function)(const char *);
static const char *volatile argument;
static volatile int runs;

int PyRun_SimpleString(const char *text)
{
    runs += text[0] == 't';
    return 0;
}

int Py_AddPendingCall(int (*call)(const char *), const char *with)
{
    pthread_mutex_lock(&lock);
    argument = with;
    function = call;
    pthread_mutex_unlock(&lock);
    return 0;
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec / 1e9;
}

int main(void)
{
    double locked_until = now() + 0.5, until = now() + 1.5;
    puts("ready");
    fflush(stdout);
    pthread_mutex_lock(&lock);
    while (now() < locked_until)
        ;
    pthread_mutex_unlock(&lock);
    while (now() < until)
        if (function) {
            function(argument);
            function = NULL;
        }
    printf("%d\n", runs);
    return 0;
}
