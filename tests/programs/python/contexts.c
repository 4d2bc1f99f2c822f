/* An embedding program whose allocators take numbers for contexts. */
#include <Python.h>

static void *allocate(void *context, size_t bytes) {
    (void)context;
    return malloc(bytes ? bytes : 1);
}
static void *zeroed(void *context, size_t count, size_t bytes) {
    (void)context;
    return calloc(count ? count : 1, bytes ? bytes : 1);
}
static void *reallocate(void *context, void *old, size_t bytes) {
    (void)context;
    return realloc(old, bytes ? bytes : 1);
}
static void release(void *context, void *block) {
    (void)context;
    free(block);
}

int main(void) {
    for (intptr_t domain = 0; domain < 3; domain++) {
        PyMemAllocatorEx own = {(void *)(domain + 1), allocate, zeroed, reallocate, release};
        PyMem_SetAllocator((PyMemAllocatorDomain)domain, &own);
    }
    Py_InitializeEx(0);
    PyRun_SimpleString("KEPT = [bytes(1000) for _ in range(100)]");
    PyRun_SimpleString("print('{\"made\":', len(KEPT), '}', flush=True)");
    return Py_FinalizeEx();
}
