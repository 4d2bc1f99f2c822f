/* Allocates little beside what it computes, for so many seconds of processor time:
 * what it keeps, and what it does not. `slow_growth SECONDS`. */
#include "truth.h"

#include <time.h>

enum { KEPT, CHURN, SITES };
static struct site sites[SITES] = {
    [KEPT] = TRUTH_INIT("in_kept"),
    [CHURN] = TRUTH_INIT("in_churn"),
};

SITE static void *in_kept(void) { return kept(malloc(400)); }
SITE static void *in_churn(void) { return kept(malloc(2000)); }

int main(int argc, char **argv) {
    if (argc != 2) return 2;
    clock_t end = (clock_t)(atof(argv[1]) * CLOCKS_PER_SEC);
    volatile uint64_t work = 0;
    while (clock() < end) {
        in_kept();
        born(&sites[KEPT], 400);
        for (int i = 0; i < 3; i++) {
            free(in_churn());
            born(&sites[CHURN], 2000);
            died(&sites[CHURN], 2000);
        }
        for (int i = 0; i < 200000; i++) work = work + (uint64_t)i;
    }
    say_truth(sites, SITES);
    return 0;
}
