/* 1,000,003 allocating calls of known sizes in 4 threads, blocks handed over
 * and freed across threads. `truth SEED` prints what must be found. */
#define _GNU_SOURCE
#include "truth.h"

#include <malloc.h>
#include <pthread.h>
#include <sched.h>

enum { THREADS = 4, CALLS = 1000003, SLOTS = 3000, QUEUE = 1024 };

enum { SMALL, LARGE, ZEROED, GROWN, ALIGNED, POSIX, C11, SITES };

static struct site sites[SITES] = {
    [SMALL] = TRUTH_INIT("take_small"),     [LARGE] = TRUTH_INIT("take_large"),
    [ZEROED] = TRUTH_INIT("take_zeroed"),   [GROWN] = TRUTH_INIT("take_grown"),
    [ALIGNED] = TRUTH_INIT("take_aligned"), [POSIX] = TRUTH_INIT("take_posix"),
    [C11] = TRUTH_INIT("take_c11"),
};

struct block {
    char *address;
    size_t bytes;
    int site;
};

SITE static char *take_small(size_t bytes) { return kept(malloc(bytes)); }

SITE static char *take_large(size_t bytes) { return kept(malloc(bytes)); }

SITE static char *take_zeroed(size_t bytes) { return kept(calloc(bytes / 4, 4)); }

SITE static char *take_aligned(size_t bytes) { return kept(memalign(64, bytes)); }

SITE static char *take_posix(size_t bytes) {
    void *block = NULL;
    if (posix_memalign(&block, 128, bytes) != 0) return NULL;
    return kept(block);
}

SITE static char *take_c11(size_t bytes) { return kept(aligned_alloc(32, bytes)); }

SITE static char *take_grown(char *block, size_t bytes) { return kept(realloc(block, bytes)); }

static void must(const void *block) {
    if (block == NULL) {
        say("{\"error\": \"out of memory\"}\n");
        _exit(97);
    }
}

static struct block take(uint64_t *seed) {
    uint32_t r = random_next(seed);
    struct block block;
    block.bytes = 1 + random_next(seed) % 600;
    block.site = (int)(r % 16);
    switch (block.site) {
    default:
        block.site = SMALL;
        if (r % 1024 < 16) block.bytes = 0;
        block.address = take_small(block.bytes);
        break;
    case 1:
        block.site = LARGE;
        block.bytes = 4096 + random_next(seed) % 60000;
        if (r % 4096 < 16) block.bytes += 1 << 20;
        block.address = take_large(block.bytes);
        break;
    case 2:
    case 3:
        block.site = ZEROED;
        block.bytes = block.bytes / 4 * 4;
        block.address = take_zeroed(block.bytes);
        break;
    case 4:
        block.site = GROWN;
        block.address = take_grown(NULL, block.bytes);
        break;
    case 5:
        block.site = ALIGNED;
        block.address = take_aligned(block.bytes);
        break;
    case 6:
        block.site = POSIX;
        block.address = take_posix(block.bytes);
        break;
    case 7:
        block.site = C11;
        block.bytes = (block.bytes + 31) / 32 * 32;
        block.address = take_c11(block.bytes);
        break;
    }
    must(block.address);
    born(&sites[block.site], block.bytes);
    return block;
}

static void drop(struct block *block) {
    free(block->address);
    died(&sites[block->site], block->bytes);
    block->address = NULL;
}

static void grow(struct block *block, size_t bytes) {
    uintptr_t before = (uintptr_t)block->address;
    char *after = take_grown(block->address, bytes);
    must(after);
    if ((uintptr_t)after == before) {
        resized(&sites[block->site], block->bytes, bytes);
    } else {
        died(&sites[block->site], block->bytes);
        block->site = GROWN;
        born(&sites[GROWN], bytes);
    }
    block->address = after;
    block->bytes = bytes;
}

/* Single producer, single consumer: thread t to thread t + 1. */
static struct queue {
    _Alignas(64) uint32_t head;
    _Alignas(64) uint32_t tail;
    struct block blocks[QUEUE];
} queues[THREADS];

static int hand_over(struct queue *queue, struct block *block) {
    uint32_t head = queue->head;
    if (head - __atomic_load_n(&queue->tail, __ATOMIC_ACQUIRE) == QUEUE) return 0;
    queue->blocks[head % QUEUE] = *block;
    __atomic_store_n(&queue->head, head + 1, __ATOMIC_RELEASE);
    block->address = NULL;
    return 1;
}

static int receive(struct queue *queue, struct block *block) {
    uint32_t tail = queue->tail;
    if (__atomic_load_n(&queue->head, __ATOMIC_ACQUIRE) == tail) return 0;
    *block = queue->blocks[tail % QUEUE];
    __atomic_store_n(&queue->tail, tail + 1, __ATOMIC_RELEASE);
    return 1;
}

static struct block slots[THREADS][SLOTS];
static uint64_t base_seed;

static void *work(void *argument) {
    int self = (int)(intptr_t)argument;
    uint64_t seed = base_seed * 1000 + (uint64_t)self;
    int calls = CALLS / THREADS + (self < CALLS % THREADS);
    struct queue *out = &queues[self];
    struct queue *in = &queues[(self + THREADS - 1) % THREADS];
    while (calls > 0) {
        struct block *slot = &slots[self][random_next(&seed) % SLOTS];
        uint32_t r = random_next(&seed);
        if (slot->address == NULL) {
            *slot = take(&seed);
            calls--;
        } else if (r % 8 < 3) {
            drop(slot);
        } else if (r % 8 < 6) {
            if (!hand_over(out, slot)) sched_yield();
        } else {
            grow(slot, 1 + random_next(&seed) % (r % 128 == 7 ? 200000 : 900));
            calls--;
        }
        struct block given;
        while (receive(in, &given)) {
            if (calls > 0 && random_next(&seed) % 8 == 0) {
                grow(&given, 1 + random_next(&seed) % 900);
                calls--;
            }
            drop(&given);
        }
    }
    return NULL;
}

int main(int argc, char **argv) {
    base_seed = argc > 1 ? strtoull(argv[1], NULL, 10) : 1;
    pthread_t threads[THREADS];
    for (intptr_t i = 0; i < THREADS; i++) {
        if (pthread_create(&threads[i], NULL, work, (void *)i) != 0) return 1;
    }
    for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
    /* Blocks still in queues and slots stay live: they are the live set. */
    say_truth(sites, SITES);
    return 0;
}
