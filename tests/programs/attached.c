/* A program that is attached to: `attached THREADS ROUNDS`. Commands come as
 * lines on stdin, one answer each:
 *
 * work        THREADS threads make, resize and free blocks, ROUNDS each, also
 *             blocks from before; the truth about the functions named below
 * load FILE   a library is loaded, and its plugin_work called 5 times
 * deep FILE   the same of one that is bound to itself (RTLD_DEEPBIND), lazily; it
 *             stays, and is called by `work`
 * fork        a child of which the threads that `work` starts are the first takes
 *             commands in its place
 * busy        THREADS threads go on making and freeing until `calm`
 * gap         the longest time that `busy` threads were away, in microseconds
 *
 * At its end every block has the bytes that were written to it, or it fails.
 */
#define _GNU_SOURCE
#include "truth.h"

#include <dlfcn.h>
#include <pthread.h>
#include <sys/wait.h>
#include <time.h>

enum { OLD = 4000, MOST_THREADS = 64 };

static struct site sites[] = {
    TRUTH_INIT("kept_blocks"), TRUTH_INIT("freed_blocks"), TRUTH_INIT("cleared_blocks"),
    TRUTH_INIT("moved_blocks"), TRUTH_INIT("aligned_blocks"),
};
enum { KEPT, FREED, CLEARED, MOVED, ALIGNED, SITES };

static int threads, rounds;
static void *old[OLD];
static int stop;
static uint64_t longest_gap;

static void spoilt(void) {
    say("a block is not as it was left\n");
    _exit(70);
}

static void fill(void *block, size_t bytes) { memset(block, (int)(bytes & 0x7f), bytes); }

static void check(const void *block, size_t bytes) {
    const unsigned char *at = block;
    for (size_t i = 0; i < bytes; i++)
        if (at[i] != (bytes & 0x7f)) spoilt();
}

SITE static void *kept_blocks(size_t bytes) {
    born(&sites[KEPT], bytes);
    void *block = kept(malloc(bytes));
    fill(block, bytes);
    return block;
}

SITE static void freed_blocks(size_t bytes) {
    born(&sites[FREED], bytes);
    void *block = kept(malloc(bytes));
    fill(block, bytes);
    check(block, bytes);
    died(&sites[FREED], bytes);
    free(block);
}

SITE static void *cleared_blocks(size_t bytes) {
    born(&sites[CLEARED], bytes);
    return kept(calloc(1, bytes));
}

SITE static void *aligned_blocks(size_t bytes) {
    void *block = NULL;
    born(&sites[ALIGNED], bytes);
    if (posix_memalign(&block, 64, bytes) != 0) _exit(71);
    return kept(block);
}

/* A block from before becomes one of ours. */
SITE static void *moved_blocks(void *block, size_t from, size_t to) {
    check(block, from);
    born(&sites[MOVED], to);
    block = kept(realloc(block, to));
    check(block, 0);
    fill(block, to);
    return block;
}

static void *work(void *argument) {
    int number = (int)(intptr_t)argument;
    for (int i = 0; i < rounds; i++) {
        kept_blocks(16 + (size_t)(i % 50));
        freed_blocks(100 + (size_t)(i % 100));
        if (i % 4 == 0) cleared_blocks(300);
        if (i % 8 == 0) aligned_blocks(128);
    }
    /* Each thread has its share of the blocks from before. */
    for (int i = number; i < OLD; i += threads) {
        if (old[i] == NULL) continue;
        if (i % 2 == 0) {
            old[i] = moved_blocks(old[i], 64, 5000);
            free(old[i]);
            died(&sites[MOVED], 5000);
        } else {
            check(old[i], 64);
            free(old[i]);
        }
        old[i] = NULL;
    }
    return NULL;
}

static uint64_t now_us(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000 + (uint64_t)time.tv_nsec / 1000;
}

static void *busy(void *argument) {
    uint64_t state = (uint64_t)(uintptr_t)argument + 1, last = now_us();
    enum { SLOTS = 64 };
    void *blocks[SLOTS] = {0};
    size_t sizes[SLOTS] = {0};
    while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
        int at = (int)(random_next(&state) % SLOTS);
        size_t bytes = 1 + random_next(&state) % 2000;
        if (blocks[at] != NULL) check(blocks[at], sizes[at]);
        switch (random_next(&state) % 4) {
        case 0:
            free(blocks[at]);
            blocks[at] = malloc(bytes);
            break;
        case 1:
            free(blocks[at]);
            blocks[at] = calloc(1, bytes);
            break;
        default:
            blocks[at] = realloc(blocks[at], bytes);
        }
        if (blocks[at] == NULL) _exit(72);
        fill(blocks[at], bytes);
        sizes[at] = bytes;
        uint64_t now = now_us(), gap = now - last;
        last = now;
        uint64_t most = __atomic_load_n(&longest_gap, __ATOMIC_RELAXED);
        while (gap > most && !__atomic_compare_exchange_n(&longest_gap, &most, gap, 0,
                                                          __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {}
    }
    for (int i = 0; i < SLOTS; i++) free(blocks[i]);
    return NULL;
}

static pthread_t handles[MOST_THREADS];

static void start(void *(*function)(void *)) {
    for (int i = 0; i < threads; i++)
        if (pthread_create(&handles[i], NULL, function, (void *)(intptr_t)i) != 0) _exit(73);
}

static void join(void) {
    for (int i = 0; i < threads; i++) pthread_join(handles[i], NULL);
}

static void *(*deep_work)(void);

static void load_deep(const char *path) {
    void *plugin = dlopen(path, RTLD_LAZY | RTLD_LOCAL | RTLD_DEEPBIND);
    if (plugin == NULL) _exit(75);
    *(void **)&deep_work = dlsym(plugin, "plugin_work");
    deep_work();
}

static void load(const char *path) {
    void *plugin = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (plugin == NULL) _exit(74);
    void *(*plugin_work)(void);
    *(void **)&plugin_work = dlsym(plugin, "plugin_work");
    /* It is noticed with the next event that comes a moment later. */
    usleep(20000);
    freed_blocks(10);
    for (int i = 0; i < 5; i++) plugin_work();
}

int main(int argc, char **argv) {
    if (argc != 3) return 2;
    threads = atoi(argv[1]);
    rounds = atoi(argv[2]);
    if (threads < 1 || threads > MOST_THREADS) return 2;
    for (int i = 0; i < OLD; i++) {
        old[i] = malloc(64);
        fill(old[i], 64);
    }
    say("ready\n");
    char line[512];
    size_t length = 0;
    /* Without stdio: it would make blocks of its own. */
    while (read(STDIN_FILENO, line + length, 1) == 1) {
        if (line[length] != '\n') {
            if (++length == sizeof line) return 3;
            continue;
        }
        line[length] = 0;
        length = 0;
        if (strcmp(line, "work") == 0) {
            for (int i = 0; deep_work != NULL && i < 100; i++) deep_work();
            start(work);
            join();
            say_truth(sites, SITES);
        } else if (strncmp(line, "load ", 5) == 0) {
            load(line + 5);
            say("loaded\n");
        } else if (strncmp(line, "deep ", 5) == 0) {
            load_deep(line + 5);
            say("loaded\n");
        } else if (strcmp(line, "fork") == 0) {
            int status = 0;
            pid_t child = fork();
            if (child != 0) {
                waitpid(child, &status, 0);
                _exit(WIFEXITED(status) ? WEXITSTATUS(status) : 1);
            }
            say("{\"pid\": %d}\n", (int)getpid());
        } else if (strcmp(line, "busy") == 0) {
            stop = 0;
            start(busy);
            say("busy\n");
        } else if (strcmp(line, "calm") == 0) {
            __atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
            join();
            say("calm\n");
        } else if (strcmp(line, "gap") == 0) {
            say("%llu\n", (unsigned long long)longest_gap);
            longest_gap = 0;
        } else {
            return 4;
        }
    }
    say("end\n");
    return 0;
}
