/* Programs that are awkward to attach to: `odd_targets KIND`. Says `ready`, and on
 * each line of stdin `fine`, or what went wrong.
 *
 * attributes  threads that ask libc for their own stacks all the time: it allocates
 *             while it holds the lock that whoever asks the same needs
 * redirected  its own calls of malloc and free go to functions of its own, by words
 *             that it changed itself
 * vforks      children of vfork that end, beside threads that allocate
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <link.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { THREADS = 32 };

static unsigned long turns[THREADS];

static void say(const char *text) {
    if (write(STDOUT_FILENO, text, strlen(text)) < 0) _exit(99);
}

static void *ask(void *number) {
    for (;;) {
        pthread_attr_t attributes;
        if (pthread_getattr_np(pthread_self(), &attributes) != 0) _exit(3);
        pthread_attr_destroy(&attributes);
        __atomic_fetch_add(&turns[(intptr_t)number], 1, __ATOMIC_RELAXED);
    }
    return NULL;
}

static void *allocate(void *number) {
    for (;;) {
        char *block = malloc(100 + (size_t)(intptr_t)number);
        memset(block, 1, 100);
        free(block);
        __atomic_fetch_add(&turns[(intptr_t)number], 1, __ATOMIC_RELAXED);
    }
    return NULL;
}

static void start(void *(*function)(void *), int count) {
    for (intptr_t i = 0; i < count; i++) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, function, (void *)i) != 0) _exit(4);
    }
}

/* Every thread gets on within five seconds. */
static const char *get_on(int count) {
    unsigned long before[THREADS];
    memcpy(before, turns, sizeof before);
    for (int tenths = 0; tenths < 50; tenths++) {
        int stuck = 0;
        usleep(100000);
        for (int i = 0; i < count; i++)
            stuck += __atomic_load_n(&turns[i], __ATOMIC_RELAXED) == before[i];
        if (stuck == 0) return "fine\n";
    }
    return "threads are stuck\n";
}

enum { MARK = 0xabcd };
static void *(*real_malloc)(size_t);
static void (*real_free)(void *);

__attribute__((noinline)) static void *own_malloc(size_t bytes) {
    size_t *block = real_malloc(bytes + 16);
    block[0] = MARK;
    return block + 2;
}

__attribute__((noinline)) static void own_free(void *address) {
    size_t *block = address;
    if (block == NULL) return;
    if (block[-2] != MARK) {
        say("not my block\n");
        _exit(5);
    }
    real_free(block - 2);
}

static void redirect(void) {
    *(void **)&real_malloc = dlsym(RTLD_NEXT, "malloc");
    *(void **)&real_free = dlsym(RTLD_NEXT, "free");
    const char *strings = NULL;
    const ElfW(Sym) *symbols = NULL;
    const ElfW(Rela) *calls = NULL;
    size_t bytes = 0;
    struct link_map *map = dlopen(NULL, RTLD_NOW);
    for (const ElfW(Dyn) *entry = map->l_ld; entry->d_tag != DT_NULL; entry++) {
        if (entry->d_tag == DT_STRTAB) strings = (const char *)entry->d_un.d_ptr;
        if (entry->d_tag == DT_SYMTAB) symbols = (const void *)entry->d_un.d_ptr;
        if (entry->d_tag == DT_JMPREL) calls = (const void *)entry->d_un.d_ptr;
        if (entry->d_tag == DT_PLTRELSZ) bytes = entry->d_un.d_val;
    }
    for (size_t i = 0; i < bytes / sizeof *calls; i++) {
        const char *name = strings + symbols[ELF64_R_SYM(calls[i].r_info)].st_name;
        void **word = (void **)(map->l_addr + calls[i].r_offset);
        void *page = (void *)((uintptr_t)word & ~(uintptr_t)4095);
        int is_malloc = strcmp(name, "malloc") == 0;
        if (!is_malloc && strcmp(name, "free") != 0) continue;
        if (mprotect(page, 8192, PROT_READ | PROT_WRITE) != 0 &&
            mprotect(page, 4096, PROT_READ | PROT_WRITE) != 0)
            _exit(6);
        *word = is_malloc ? (void *)own_malloc : (void *)own_free;
    }
}

/* A block of the time before the attach is freed after it. */
static const char *use_own(void) {
    static char *held;
    free(held);
    held = malloc(50);
    for (int i = 0; i < 1000; i++) {
        char *block = malloc(50);
        __asm__ volatile("" : "+r"(block) : : "memory");
        free(block);
    }
    return "fine\n";
}

static void *make_children(void *number) {
    (void)number;
    for (;;) {
        pid_t child = vfork();
        if (child == 0) _exit(0);
        if (child > 0) waitpid(child, NULL, 0);
        usleep(200);
    }
    return NULL;
}

int main(int argc, char **argv) {
    const char *kind = argc == 2 ? argv[1] : "";
    char byte;
    int count = 0;
    if (strcmp(kind, "attributes") == 0) start(ask, count = THREADS);
    if (strcmp(kind, "redirected") == 0) redirect();
    if (strcmp(kind, "vforks") == 0) {
        start(allocate, count = 4);
        start(make_children, 1);
    }
    say("ready\n");
    while (read(STDIN_FILENO, &byte, 1) == 1)
        if (byte == '\n') say(count > 0 ? get_on(count) : use_own());
    _exit(0);
}
