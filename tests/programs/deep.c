/* 900 frames, and a block at the bottom of them, again and again. */
#include "truth.h"

static struct site site = TRUTH_INIT("at_the_bottom");

SITE static void *at_the_bottom(void) { return kept(malloc(56)); }

SITE static int descend(int depth) {
    if (depth == 0) {
        at_the_bottom();
        born(&site, 56);
        return 0;
    }
    return descend(depth - 1) + 1;
}

int main(void) {
    int sum = 0;
    for (int i = 0; i < 300; i++) sum += descend(900);
    if (sum != 300 * 900) return 1;
    say_truth(&site, 1);
    return 0;
}
