/* Blocks that are lost, and blocks that are not, in numbers and sizes that a seed
 * chooses. Each kind is made by a function of its own. Built with -fsanitize=leak, it
 * has LeakSanitizer look at the instant at which otherwise it exits.
 *
 * Arguments: seed, how many of each kind at most. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#ifdef LSAN
#include <sanitizer/lsan_interface.h>
#endif

#define MOST 4096
#define NOINLINE __attribute__((noinline))

static void *volatile in_data[MOST] = {(void *)1};
static void *volatile in_bss[MOST];
static char *volatile interior[MOST];
static __thread void *volatile in_tls[MOST];
static pthread_key_t key;
static uint64_t state;

static uint64_t dice(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

static size_t size(void)
{
    return 16 + 8 * (dice() % (dice() % 16 == 0 ? 4000 : 30));
}

/* A function of its own for each kind, so that each is a site. */
#define MAKER(name)                            \
    NOINLINE static void **name(size_t bytes)  \
    {                                          \
        void **block = malloc(bytes);          \
        memset(block, 0, bytes);               \
        __asm__ volatile("" : "+r"(block));    \
        return block;                          \
    }

MAKER(kept_in_data)
MAKER(kept_in_bss)
MAKER(kept_inside)
MAKER(kept_in_tls)
MAKER(kept_on_stack)
MAKER(kept_in_chain)
MAKER(kept_by_thread)
MAKER(kept_for_key)
MAKER(kept_by_realloc)
MAKER(lost_alone)
MAKER(lost_chain_head)
MAKER(lost_chain_rest)
MAKER(lost_cycle)
MAKER(lost_but_freed_points)
MAKER(lost_behind_end)
MAKER(lost_unaligned)
MAKER(lost_by_self)
MAKER(lost_tree)

/* What earlier calls left below is not to be found. */
NOINLINE static void wipe(void)
{
    volatile char rest[64 * 1024];
    memset((void *)rest, 0, sizeof rest);
}

NOINLINE static void lose(long count)
{
    for (long i = 0; i < count; i++)
        lost_alone(size());
    for (long i = 0; i < count; i++) {
        void **block = lost_by_self(size());
        block[1] = block;
    }
    for (long i = 0; i < count / 4; i++) {
        void **at = lost_chain_head(size());
        for (long length = dice() % 8; length > 0; length--) {
            void **next = lost_chain_rest(size());
            *at = next;
            at = next;
        }
    }
    for (long i = 0; i < count / 4; i++) {
        void **first = lost_cycle(size()), **at = first;
        for (long length = 1 + dice() % 5; length > 0; length--) {
            void **next = lost_cycle(size());
            *at = next;
            at = next;
        }
        *at = first;
    }
    for (long i = 0; i < count / 4; i++) {
        void **holder = malloc(64);
        holder[4] = lost_but_freed_points(size());
        free(holder);
    }
    for (long i = 0; i < count / 4; i++) {
        size_t bytes = size() | 8;
        void **block = lost_behind_end(bytes);
        /* The end is not in it, nor in another. */
        in_bss[MOST - 1 - i % 8] = (char *)block + bytes;
    }
    for (long i = 0; i < 8; i++) {
        void **block = lost_unaligned(size());
        memcpy((char *)(uintptr_t)&in_bss[MOST - 100 + 2 * i] + 3, &block, sizeof block);
    }
    for (long i = 0; i < count / 8; i++) {
        void **root = lost_tree(128);
        for (int child = 0; child < 8; child++) {
            root[child] = lost_tree(64);
            /* Inside of it counts. */
            root[child] = (char *)root[child] + 16;
        }
    }
}

/* From the `first` place on. */
NOINLINE static void keep(long first, long count)
{
    for (long i = first; i < first + count && i < MOST / 2; i++) {
        in_data[i] = kept_in_data(size());
        in_bss[i] = kept_in_bss(size());
        in_tls[i] = kept_in_tls(size());
        size_t bytes = size();
        interior[i] = (char *)kept_inside(bytes) + dice() % bytes;
    }
    void *volatile *at = &in_bss[MOST / 2 + first % 512];
    for (long i = 0; i < count; i++) {
        void **next = kept_in_chain(size());
        *at = (char *)next + 8;
        at = next + dice() % 2;
    }
    for (long i = 0; i < 16; i++) {
        long place = MOST / 2 + 1024 + first % 512 + i;
        in_bss[place] = kept_by_realloc(32);
        in_bss[place] = realloc(in_bss[place], 400000);
    }
}

static pthread_barrier_t ready;

static void *thread(void *unused)
{
    void *volatile mine[64];
    (void)unused;
    for (int i = 0; i < 64; i++)
        /* The dice are the main thread's. */
        mine[i] = kept_by_thread(16 + 8 * i);
    pthread_setspecific(key, kept_for_key(100));
    pthread_barrier_wait(&ready);
    pause();
    return mine[5];
}

int main(int argc, char **argv)
{
    state = 88172645463325252ull ^ (uint64_t)atol(argv[1]) * 0x9e3779b97f4a7c15ull;
    long count = atol(argv[2]);
    int threads = argc > 3 ? atoi(argv[3]) : 0;
    void *volatile mine[64];
    pthread_t other;
    pthread_key_create(&key, NULL);
    pthread_barrier_init(&ready, NULL, threads + 1);
    for (int i = 0; i < threads; i++)
        pthread_create(&other, NULL, thread, NULL);
    for (int i = 0; i < 64; i++)
        mine[i] = kept_on_stack(size());
    keep(1, count);
    lose(count);
    keep(count + 1, count / 2);
    pthread_barrier_wait(&ready);
    wipe();
#ifdef LSAN
    __lsan_do_recoverable_leak_check();
    fflush(NULL);
    _exit(0);
#endif
    exit(mine[3] == NULL);
}
