/* Closes every descriptor it did not open itself, as daemons do, and then
 * counts on the lowest free numbers. */
#define _GNU_SOURCE
#include "truth.h"

#include <fcntl.h>

static struct site site = TRUTH_INIT("around_the_closing");

SITE static void *around_the_closing(void) { return kept(malloc(72)); }

static void allocate(void) {
    for (int i = 0; i < 5000; i++) {
        around_the_closing();
        born(&site, 72);
    }
}

int main(void) {
    int first[3], again[3];
    allocate();
    for (int i = 0; i < 3; i++) first[i] = open("/dev/null", O_RDONLY);
    for (int fd = 3; fd < 1024; fd++) close(fd);
    for (int i = 0; i < 3; i++) again[i] = open("/dev/null", O_RDONLY);
    allocate();
    for (int i = 0; i < 3; i++) {
        /* The numbers are the program's own: 3, 4, 5, whatever stands beside. */
        if (again[i] != 3 + i) {
            say("{\"error\": \"descriptor %d instead of %d (first %d)\"}\n", again[i], 3 + i,
                first[i]);
            return 1;
        }
    }
    say_truth(&site, 1);
    return 0;
}
