/* What a test program knows about its own allocations, and how it says so.
 *
 * Nothing here allocates: counters are static, output is formatted on the
 * stack and leaves by write(2). So a site's counters are the whole truth about
 * the function of the same name, and nothing else in the program disturbs
 * them (thread starts and the like allocate on their own account, elsewhere).
 *
 * A function that counts itself is a SITE: never inlined, never merged with
 * another of the same body, and never left by a tail call, so that it has a
 * frame of its own in every stack.
 */
#ifndef TRUTH_H
#define TRUTH_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifdef __cplusplus
#define TRUTH_INIT(text) {text, 0, 0, 0, 0, 0, 0}
#else
#define TRUTH_INIT(text) {.name = text}
#endif

#define SITE __attribute__((noipa))

/* Keeps the caller's frame: a call cannot be its last instruction. */
static inline void *kept(void *block) {
    __asm__ volatile("" : "+r"(block) : : "memory");
    return block;
}

struct site {
    const char *name;
    uint64_t calls;       /* births and resizes in place */
    uint64_t births;      /* blocks born */
    uint64_t frees;       /* of these, blocks that died */
    uint64_t resizes;     /* blocks born here that were resized in place */
    uint64_t total_bytes; /* at birth, and by growing in place */
    uint64_t live_bytes;
};

static inline void add(uint64_t *counter, uint64_t amount) {
    __atomic_fetch_add(counter, amount, __ATOMIC_RELAXED);
}

static inline void born(struct site *site, size_t bytes) {
    add(&site->calls, 1);
    add(&site->births, 1);
    add(&site->total_bytes, bytes);
    add(&site->live_bytes, bytes);
}

static inline void died(struct site *site, size_t bytes) {
    add(&site->frees, 1);
    add(&site->live_bytes, -(uint64_t)bytes);
}

/* A block born at `site` was resized where it stands. */
static inline void resized(struct site *site, size_t from, size_t to) {
    add(&site->calls, 1);
    add(&site->resizes, 1);
    add(&site->live_bytes, (uint64_t)to - (uint64_t)from);
    if (to > from) add(&site->total_bytes, to - from);
}

static inline void say_bytes(const char *text, size_t length) {
    while (length > 0) {
        ssize_t wrote = write(STDOUT_FILENO, text, length);
        if (wrote <= 0) _exit(99);
        text += wrote;
        length -= (size_t)wrote;
    }
}

__attribute__((format(printf, 1, 2))) static inline void say(const char *format, ...) {
    char text[1024];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    if (length < 0 || (size_t)length >= sizeof text) _exit(98);
    say_bytes(text, (size_t)length);
}

/* `"NAME": {...}, ...` for a JSON object of sites. */
static inline void say_sites(const struct site *sites, size_t count) {
    for (size_t i = 0; i < count; i++) {
        const struct site *s = &sites[i];
        say("%s\"%s\": {\"calls\": %llu, \"births\": %llu, \"frees\": %llu, \"resizes\": %llu, "
            "\"live_blocks\": %llu, \"live_bytes\": %llu, \"total_bytes\": %llu}",
            i == 0 ? "" : ", ", s->name, (unsigned long long)s->calls,
            (unsigned long long)s->births, (unsigned long long)s->frees,
            (unsigned long long)s->resizes, (unsigned long long)(s->births - s->frees),
            (unsigned long long)s->live_bytes, (unsigned long long)s->total_bytes);
    }
}

/* The whole truth as one line of JSON. */
static inline void say_truth(const struct site *sites, size_t count) {
    say("{\"pid\": %d, \"sites\": {", (int)getpid());
    say_sites(sites, count);
    say("}}\n");
}

/* Small, seeded and the same everywhere. */
static inline uint32_t random_next(uint64_t *state) {
    *state = *state * 6364136223846793005ULL + 1442695040888963407ULL;
    return (uint32_t)(*state >> 33);
}

#endif
