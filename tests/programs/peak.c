/* A high-water mark between two instants of which nothing remains: `first`
 * holds most of it, `second` is larger at the end. */
#include "truth.h"

enum { FIRST, SECOND, BRIEF, SITES };
static struct site sites[SITES] = {
    [FIRST] = TRUTH_INIT("first"),
    [SECOND] = TRUTH_INIT("second"),
    [BRIEF] = TRUTH_INIT("brief"),
};

enum { MOST = 4000 };
static void *kept_first[MOST], *kept_second[MOST];

SITE static void *first(size_t bytes) { return kept(malloc(bytes)); }
SITE static void *second(size_t bytes) { return kept(malloc(bytes)); }
SITE static void *brief(size_t bytes) { return kept(malloc(bytes)); }

static uint64_t live(void) {
    return sites[FIRST].live_bytes + sites[SECOND].live_bytes + sites[BRIEF].live_bytes;
}

int main(void) {
    for (int i = 0; i < MOST; i++) {
        kept_first[i] = first(5000);
        born(&sites[FIRST], 5000);
    }
    for (int i = 0; i < MOST / 4; i++) {
        kept_second[i] = second(300);
        born(&sites[SECOND], 300);
    }
    void *block = brief(777777);
    born(&sites[BRIEF], 777777);
    uint64_t peak = live(), peak_first = sites[FIRST].live_bytes;
    uint64_t peak_second = sites[SECOND].live_bytes;
    free(block);
    died(&sites[BRIEF], 777777);
    for (int i = 0; i < MOST; i++) {
        free(kept_first[i]);
        died(&sites[FIRST], 5000);
    }
    for (int i = MOST / 4; i < MOST; i++) {
        kept_second[i] = second(1000);
        born(&sites[SECOND], 1000);
    }
    say("{\"pid\": %d, \"peak_bytes\": %llu, \"peaks\": {\"first\": %llu, \"second\": %llu, "
        "\"brief\": 777777}, \"sites\": {",
        (int)getpid(), (unsigned long long)peak, (unsigned long long)peak_first,
        (unsigned long long)peak_second);
    say_sites(sites, SITES);
    say("}}\n");
    return 0;
}
