/* Blocks that are born, resized and freed in phases with rests in between. On
 * stdout: when each rest was, by the wall clock, and for each phase what is
 * left of what was born in it, at the end of every phase.
 *
 * A program of several processes where it is given an argument: a child then
 * frees half of what it inherited, which is nobody's death but its own. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PHASES 6
#define BLOCKS 3000
#define SITE __attribute__((noinline))

struct block {
    void *at;
    size_t size;
};

static struct block blocks[PHASES][BLOCKS];
static double rests[PHASES];
static size_t born[PHASES][2], alive[PHASES][PHASES][2];
static unsigned seed = 1;

static unsigned some(unsigned below) {
    seed = seed * 1103515245 + 12345;
    return (seed >> 16) % below;
}

SITE static void *keep(size_t size) {
    void *at = malloc(size);
    *(volatile char *)at = 1;
    return at;
}

static void end_phase(int phase) {
    for (int of = 0; of <= phase; of++) {
        for (int i = 0; i < BLOCKS; i++) {
            alive[phase][of][0] += blocks[of][i].at != NULL;
            alive[phase][of][1] += blocks[of][i].at ? blocks[of][i].size : 0;
        }
    }
    /* Nearer to what was than to what comes, however late we wake. */
    struct timespec first = {0, 80000000}, rest = {0, 220000000}, now;
    nanosleep(&first, NULL);
    clock_gettime(CLOCK_REALTIME, &now);
    rests[phase] = now.tv_sec + now.tv_nsec / 1e9;
    nanosleep(&rest, NULL);
}

static void run_phase(int phase) {
    for (int i = 0; i < BLOCKS; i++) {
        struct block *block = &blocks[phase][i];
        block->size = 16 + some(200);
        block->at = keep(block->size);
        born[phase][0]++;
        born[phase][1] += block->size;
        /* One of any phase so far dies, now and then. */
        struct block *other = &blocks[some(phase + 1)][some(BLOCKS)];
        if (other != block && other->at && some(3) == 0) {
            free(other->at);
            other->at = NULL;
        }
    }
    /* Never grows, and never moves: smaller by less than malloc can use. */
    for (int i = 0; i < BLOCKS; i += 50) {
        struct block *block = &blocks[some(phase + 1)][i];
        if (block->at && block->size > 17) {
            void *at = realloc(block->at, block->size - 1);
            if (at != block->at)
                abort();
            block->size -= 1;
        }
    }
    end_phase(phase);
}

int main(int argc, char **argv) {
    (void)argv;
    for (int phase = 0; phase < PHASES; phase++) {
        run_phase(phase);
        if (argc > 1 && phase == 1) {
            pid_t child = fork();
            if (child == 0) {
                for (int i = 0; i < BLOCKS; i += 2)
                    free(blocks[0][i].at);
                _exit(0);
            }
            waitpid(child, NULL, 0);
        }
    }
    printf("{\"rests\": [");
    for (int phase = 0; phase < PHASES; phase++)
        printf("%s%.6f", phase ? ", " : "", rests[phase]);
    printf("], \"born\": [");
    for (int phase = 0; phase < PHASES; phase++)
        printf("%s[%zu, %zu]", phase ? ", " : "", born[phase][0], born[phase][1]);
    printf("], \"alive\": [");
    for (int at = 0; at < PHASES; at++) {
        printf("%s[", at ? ", " : "");
        for (int of = 0; of <= at; of++)
            printf("%s[%zu, %zu]", of ? ", " : "", alive[at][of][0], alive[at][of][1]);
        printf("]");
    }
    printf("]}\n");
    return 0;
}
