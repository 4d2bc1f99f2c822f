/* Mappings that grow, move, are cut and overlaid. */
#define _GNU_SOURCE
#include "truth.h"

#include <sys/mman.h>

enum { PLAIN, CUT, MOVED, OVERLAID, OVER, SITES };
static struct site sites[SITES] = {
    [PLAIN] = TRUTH_INIT("plain_map"),       [CUT] = TRUTH_INIT("cut_map"),
    [MOVED] = TRUTH_INIT("moving_map"),      [OVERLAID] = TRUTH_INIT("overlaid_map"),
    [OVER] = TRUTH_INIT("map_over"),
};

enum { PAGE = 4096 };

static char *map(void *at, size_t bytes, int flags) {
    void *place = mmap(at, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);
    if (place == MAP_FAILED) _exit(3);
    return place;
}

SITE static char *plain_map(size_t bytes) { return kept(map(NULL, bytes, 0)); }
SITE static char *cut_map(size_t bytes) { return kept(map(NULL, bytes, 0)); }
SITE static char *overlaid_map(size_t bytes) { return kept(map(NULL, bytes, 0)); }
SITE static char *map_over(char *at, size_t bytes) { return kept(map(at, bytes, MAP_FIXED)); }

SITE static char *moving_map(char *old, size_t from, size_t to) {
    void *place = old == NULL ? map(NULL, to, 0) : mremap(old, from, to, MREMAP_MAYMOVE);
    if (place == MAP_FAILED) _exit(4);
    return kept(place);
}

int main(void) {
    for (int i = 0; i < 10; i++) {
        char *place = plain_map(16 * PAGE);
        born(&sites[PLAIN], 16 * PAGE);
        if (i % 2 == 0) {
            munmap(place, 16 * PAGE);
            died(&sites[PLAIN], 16 * PAGE);
        }
    }
    /* Cut out of the middle: 4 + 8 of 16 pages stay, as they were mapped. */
    char *cut = cut_map(16 * PAGE);
    sites[CUT].live_bytes = 12 * PAGE;
    munmap(cut + 4 * PAGE, 4 * PAGE);
    /* Grown twice, shrunk once: what is live counts. */
    char *moving = moving_map(NULL, 0, 4 * PAGE);
    moving = moving_map(moving, 4 * PAGE, 4000 * PAGE);
    moving = moving_map(moving, 4000 * PAGE, 6000 * PAGE);
    moving_map(moving, 6000 * PAGE, 5000 * PAGE);
    sites[MOVED].live_bytes = 5000 * PAGE;
    /* Mapped over in part: the overlaid pages are gone without munmap. */
    char *under = overlaid_map(10 * PAGE);
    map_over(under + 6 * PAGE, 4 * PAGE);
    sites[OVERLAID].live_bytes = 6 * PAGE;
    sites[OVER].live_bytes = 4 * PAGE;
    say_truth(sites, SITES);
    return 0;
}
