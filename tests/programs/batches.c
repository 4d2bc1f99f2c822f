/* Allocates in batches and reports each one once it is done, until killed.
 *
 * `batches [BLOCKS] [PAUSE_US] [BATCHES]`: every batch leaks BLOCKS blocks of
 * 48 bytes and frees as many others. After batch n the line `n BLOCKS*n` is
 * written, so that whoever kills the program knows what had happened. */
#include "truth.h"

SITE static void *leaked(void) { return kept(malloc(48)); }
SITE static void *passing(void) { return kept(malloc(64)); }

int main(int argc, char **argv) {
    int blocks = argc > 1 ? atoi(argv[1]) : 100;
    int pause_us = argc > 2 ? atoi(argv[2]) : 0;
    long batches = argc > 3 ? atol(argv[3]) : -1;
    say("pid %d\n", (int)getpid());
    for (long batch = 1; batches < 0 || batch <= batches; batch++) {
        for (int i = 0; i < blocks; i++) {
            leaked();
            free(passing());
        }
        say("%ld %ld\n", batch, batch * blocks);
        if (pause_us > 0) usleep((useconds_t)pause_us);
    }
    say("done\n");
    return 0;
}
