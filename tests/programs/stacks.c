/* Stacks that come and go under their addresses: a coroutine's is freed behind
 * every hook's back (free of a large block unmaps inside libc), and a smaller
 * one takes its place. Who still believed the old bounds would read beyond the
 * new one's end. */
#define _GNU_SOURCE
#include "truth.h"

#include <sys/mman.h>

enum { LARGE, SMALL, SITES };
static struct site sites[SITES] = {
    [LARGE] = TRUTH_INIT("take_on_large"),
    [SMALL] = TRUTH_INIT("take_on_small"),
};

enum { ROUNDS = 500, LARGE_BYTES = 512 * 1024, SMALL_BYTES = 128 * 1024, PAGE = 4096 };

SITE static void take_on_large(void) {
    free(kept(malloc(48)));
    born(&sites[LARGE], 48);
    died(&sites[LARGE], 48);
}

SITE static void take_on_small(void) {
    free(kept(malloc(56)));
    born(&sites[SMALL], 56);
    died(&sites[SMALL], 56);
}

/* Calls `body` with the stack pointer at `top`, where nothing says that the
 * stack ends: the frame claims a caller beyond it. */
__attribute__((noipa)) static void call_on(void *top, void (*body)(void)) {
    __asm__ volatile("mov %%rsp, %%rbx\n\t"
                     "mov %[top], %%rsp\n\t"
                     "call *%[body]\n\t"
                     "mov %%rbx, %%rsp"
                     :
                     : [top] "r"(top), [body] "r"(body)
                     : "rbx", "rax", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "memory",
                       "cc");
}

int main(void) {
    for (int i = 0; i < ROUNDS; i++) {
        char *large = malloc(LARGE_BYTES);
        char *start = (char *)((uintptr_t)large & ~(uintptr_t)(PAGE - 1));
        call_on(start + LARGE_BYTES, take_on_large);
        free(large);
        /* The page after it is nobody's. */
        char *small = mmap(start, SMALL_BYTES, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
        if (small == MAP_FAILED) continue;
        call_on(small + SMALL_BYTES, take_on_small);
        munmap(small, SMALL_BYTES);
    }
    say_truth(sites, SITES);
    return sites[SMALL].births == 0;
}
