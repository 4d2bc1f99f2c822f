/* What Python's queue of calls is like while its lock is held: whoever stops
   the thread that holds it cannot ask it for anything. With an argument, what an
   interpreter is like that was never started: it must not be asked. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

/* As of 3.9: the fifth word tells of an interpreter. */
void *_PyRuntime[64];

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
    if (!_PyRuntime[4])
        abort();
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

int main(int count, char **arguments)
{
    if (count == 1)
        _PyRuntime[4] = arguments;
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
