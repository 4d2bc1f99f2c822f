/* Loaded and unloaded again and again. Built twice with different names and
 * the same layout: the second stands where the first stood. */
#include <stdlib.h>

#define GLUE(a, b) a##b
#define NAME(prefix, suffix) GLUE(prefix, suffix)

__attribute__((noinline)) static void *NAME(leak_of_, PLUGIN)(size_t bytes) {
    void *block = malloc(bytes);
    __asm__ volatile("" : "+r"(block) : : "memory");
    return block;
}

void *plugin_work(void);
void *plugin_work(void) {
    free(NAME(leak_of_, PLUGIN)(BYTES));
    return NAME(leak_of_, PLUGIN)(BYTES);
}
