/* Loads a plugin under ever new names, one after the other, and has each leak:
 * many_libraries PLUGIN COUNT, in a directory of its own. */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

int main(int argc, char **argv) {
    if (argc != 3) return 2;
    for (int i = 0; i < atoi(argv[2]); i++) {
        char name[64];
        snprintf(name, sizeof name, "./%d.so", i);
        if (symlink(argv[1], name) != 0) return 3;
        void *library = dlopen(name, RTLD_NOW);
        if (!library) return 4;
        void *(*work)(void);
        *(void **)&work = dlsym(library, "plugin_work");
        work();
        if (dlclose(library) != 0) return 5;
    }
    return 0;
}
