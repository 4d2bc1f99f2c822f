/* A parent with a live set and children with as many blocks of their own, all
 * at once: prefork CHILDREN BLOCKS. */
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static void take(void **held, long blocks) {
    for (long i = 0; i < blocks; i++) held[i] = malloc(16 + (size_t)(i % 7) * 16);
}

int main(int argc, char **argv) {
    if (argc != 3) return 2;
    long children = atol(argv[1]), blocks = atol(argv[2]);
    void **inherited = malloc((size_t)blocks * sizeof *inherited);
    void **own = malloc((size_t)blocks * sizeof *own);
    if (inherited == NULL || own == NULL) return 1;
    take(inherited, blocks);
    for (long child = 0; child < children; child++) {
        if (fork() == 0) {
            take(own, blocks);
            for (long i = child; i < blocks; i += 3) free(inherited[i]);
            for (long i = 0; i < blocks; i += 2) free(own[i]);
            _exit(0);
        }
    }
    int status, failed = 0;
    while (wait(&status) > 0) failed |= status;
    return failed != 0;
}
