/* dlopen and dlclose in a loop: two plugins take turns at the same addresses.
 * `plugins ALPHA.so BETA.so`. */
#include "truth.h"

#include <dlfcn.h>

static struct site sites[] = {TRUTH_INIT("leak_of_alpha"), TRUTH_INIT("leak_of_beta")};

int main(int argc, char **argv) {
    if (argc != 3) return 2;
    for (int round = 0; round < 200; round++) {
        int which = round % 2;
        void *plugin = dlopen(argv[1 + which], RTLD_NOW | RTLD_LOCAL);
        if (plugin == NULL) return 3;
        void *(*work)(void);
        *(void **)&work = dlsym(plugin, "plugin_work");
        size_t bytes = which == 0 ? 1000 : 3000;
        for (int i = 0; i < 5; i++) {
            work();
            born(&sites[which], bytes);
            died(&sites[which], bytes);
            born(&sites[which], bytes);
        }
        if (dlclose(plugin) != 0) return 4;
    }
    say_truth(sites, 2);
    return 0;
}
