/* Loads CPython with dlopen, runs it, ends it, unloads it, and goes on:
 * `embedded LIBPYTHON TIMES`. Says how often it was really unloaded. */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *volatile kept;

static int is_mapped(const char *path) {
    char line[4096];
    int found = 0;
    FILE *maps = fopen("/proc/self/maps", "r");
    if (maps == NULL) return -1;
    while (fgets(line, sizeof line, maps)) found |= strstr(line, path) != NULL;
    fclose(maps);
    return found;
}

static void *symbol(void *library, const char *name) {
    void *found = dlsym(library, name);
    if (found == NULL) exit(3);
    return found;
}

int main(int argc, char **argv) {
    if (argc != 3) return 2;
    int unloaded = 0;
    for (int i = 0; i < atoi(argv[2]); i++) {
        void *library = dlopen(argv[1], RTLD_NOW | RTLD_GLOBAL);
        if (library == NULL) return puts(dlerror()), 4;
        /* The site module may load extensions, which are never unloaded. */
        *(int *)symbol(library, "Py_NoSiteFlag") = 1;
        ((void (*)(int))symbol(library, "Py_InitializeEx"))(0);
        int (*run)(const char *);
        *(void **)&run = symbol(library, "PyRun_SimpleString");
        if (run("KEPT = [bytes(1000) for _ in range(100)]") != 0) return 5;
        if (((int (*)(void))symbol(library, "Py_FinalizeEx"))() != 0) return 6;
        if (dlclose(library) != 0) return 7;
        unloaded += is_mapped(argv[1]) == 0;
        for (int j = 0; j < 10; j++) kept = malloc(100);
    }
    printf("{\"unloaded\": %d}\n", unloaded);
    return 0;
}
