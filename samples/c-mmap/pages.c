/* Maps a buffer for each file it looks at, and unmaps every other one. */
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

enum { FILES = 100, BYTES = 1 << 20 };

__attribute__((noinline)) static char *map_buffer(void) {
    void *buffer =
        mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return buffer == MAP_FAILED ? NULL : buffer;
}

int main(void) {
    int looked_at = 0;
    for (int file = 0; file < FILES; file++) {
        char *buffer = map_buffer();
        if (buffer == NULL) return 1;
        memset(buffer, file, 4096);
        looked_at += buffer[0] == file;
        if (file % 2 == 0) munmap(buffer, BYTES);
    }
    printf("looked at %d files\n", looked_at);
    return 0;
}
