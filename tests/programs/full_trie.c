/* More frames than there is room for: ever new ways to a stack 4,000 deep, and
 * between them one that came early. */
#include "truth.h"

enum { WAYS = 1200, TURNS = 11, DEPTH = 4000 };
static struct site sites[2] = {TRUTH_INIT("early"), TRUTH_INIT("at_the_end")};

SITE static void early(void) {
    kept(malloc(10));
    born(&sites[0], 10);
}

SITE static void at_the_end(void) {
    kept(malloc(100));
    born(&sites[1], 100);
}

SITE static void down(int left) {
    if (left == 0)
        at_the_end();
    else
        down(left - 1);
    kept(NULL);
}

SITE static void turn(unsigned way, int left) {
    if (left == 0) {
        down(DEPTH);
    } else if (way & 1) {
        turn(way >> 1, left - 1);
        kept(sites); /* another line than below, also to an optimiser */
    } else {
        turn(way >> 1, left - 1);
        kept(&way);
    }
    kept(NULL);
}

SITE static void step(unsigned way) {
    early();
    turn(way, TURNS);
    kept(NULL);
}

int main(void) {
    for (volatile unsigned way = 0; way < WAYS; way++) step(way);
    say_truth(sites, 2);
    return 0;
}
