/* A counting allocator on top of the interpreter's three domains, made to
 * check a recording line by line.
 *
 * start(FILENAME) wraps the allocators. From then on every block that is born
 * while the innermost Python frame lies in a code object of that file name is
 * counted under its line and domain, until it dies. finish() writes the table
 * as JSON to stdout and ends the process at once, so that nothing can be born
 * or die after the count.
 *
 * It asks CPython itself for the line, through the interpreter's own headers,
 * and allocates nothing: tables are mapped.
 */
#define PY_SSIZE_T_CLEAN
#define Py_BUILD_CORE_MODULE 1
#include <Python.h>
#if PY_VERSION_HEX < 0x030b0000
#include <frameobject.h>
#elif PY_VERSION_HEX < 0x030e0000
#include <internal/pycore_frame.h>
#else
#include <internal/pycore_interpframe.h>
#endif

#include <stdint.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

enum { RAW, MEM, OBJ, DOMAINS };
enum { LINES = 4096, ENTRIES = 1 << 20 };

static const char *const names[DOMAINS] = {"raw", "mem", "obj"};
static const PyMemAllocatorDomain domains[DOMAINS] = {
    PYMEM_DOMAIN_RAW, PYMEM_DOMAIN_MEM, PYMEM_DOMAIN_OBJ};

struct counters {
    uint64_t births, resizes, total_bytes, live_blocks, live_bytes;
};

struct entry {
    uintptr_t block; /* 0: never used, 1: used and empty again */
    size_t bytes;
    struct counters *counters;
};

static struct counters (*table)[DOMAINS]; /* by line */
static struct entry *entries;
static size_t used_entries;
static PyMemAllocatorEx below[DOMAINS];
static PyObject *watched;
static __thread int inside;
static int lock;

static void acquire(void) {
    while (__atomic_exchange_n(&lock, 1, __ATOMIC_ACQUIRE)) {
    }
}

static void release(void) { __atomic_store_n(&lock, 0, __ATOMIC_RELEASE); }

/* Line of the innermost frame if it lies in the watched file, else 0. */
static int current_line(void) {
    PyThreadState *state = PyGILState_GetThisThreadState();
    if (state == NULL) return 0;
#if PY_VERSION_HEX < 0x030b0000
    PyFrameObject *frame = state->frame;
    if (frame == NULL || frame->f_code->co_filename != watched) return 0;
    int line = PyFrame_GetLineNumber(frame);
#else
#if PY_VERSION_HEX < 0x030d0000
    struct _PyInterpreterFrame *frame = state->cframe->current_frame;
#else
    struct _PyInterpreterFrame *frame = state->current_frame;
#endif
    while (frame != NULL && _PyFrame_IsIncomplete(frame)) frame = frame->previous;
    if (frame == NULL) return 0;
#if PY_VERSION_HEX < 0x030d0000
    PyCodeObject *code = frame->f_code;
#else
    PyCodeObject *code = _PyFrame_GetCode(frame);
#endif
    if (code->co_filename != watched) return 0;
    int line = PyCode_Addr2Line(code, _PyInterpreterFrame_LASTI(frame) * (int)sizeof(_Py_CODEUNIT));
#endif
    return line > 0 && line < LINES ? line : 0;
}

static struct entry *find(uintptr_t block) {
    size_t at = (block >> 4) * 0x9E3779B97F4A7C15ULL >> 44;
    while (entries[at].block != 0 && entries[at].block != block) at = (at + 1) % ENTRIES;
    return entries[at].block == block ? &entries[at] : NULL;
}

static void insert(void *pointer, size_t bytes, struct counters *counters) {
    uintptr_t block = (uintptr_t)pointer;
    size_t at = (block >> 4) * 0x9E3779B97F4A7C15ULL >> 44;
    while (entries[at].block > 1) at = (at + 1) % ENTRIES;
    if (entries[at].block == 0 && ++used_entries > ENTRIES / 4 * 3) {
        Py_FatalError("the counting allocator's table is full");
    }
    entries[at] = (struct entry){block, bytes, counters};
}

static void born(int domain, void *block, size_t bytes) {
    int line = block == NULL ? 0 : current_line();
    if (line == 0) return;
    struct counters *counters = &table[line][domain];
    acquire();
    insert(block, bytes, counters);
    counters->births++;
    counters->total_bytes += bytes;
    counters->live_blocks++;
    counters->live_bytes += bytes;
    release();
}

/* Forgets a block; gives back what was known of it. */
static struct entry died(void *block) {
    struct entry none = {0, 0, NULL};
    if (block == NULL) return none;
    acquire();
    struct entry *entry = find((uintptr_t)block);
    if (entry != NULL) {
        none = *entry;
        entry->block = 1;
        none.counters->live_blocks--;
        none.counters->live_bytes -= none.bytes;
    }
    release();
    return none;
}

static void lives_on(struct entry *was, size_t bytes, int counts) {
    acquire();
    insert((void *)was->block, bytes, was->counters);
    was->counters->live_blocks++;
    was->counters->live_bytes += bytes;
    if (counts) {
        was->counters->resizes++;
        if (bytes > was->bytes) was->counters->total_bytes += bytes - was->bytes;
    }
    release();
}

static void *count_malloc(void *context, size_t bytes) {
    int domain = (int)(intptr_t)context;
    inside++;
    void *block = below[domain].malloc(below[domain].ctx, bytes);
    if (--inside == 0) born(domain, block, bytes);
    return block;
}

static void *count_calloc(void *context, size_t count, size_t bytes) {
    int domain = (int)(intptr_t)context;
    inside++;
    void *block = below[domain].calloc(below[domain].ctx, count, bytes);
    if (--inside == 0) born(domain, block, count * bytes);
    return block;
}

static void *count_realloc(void *context, void *block, size_t bytes) {
    int domain = (int)(intptr_t)context;
    if (inside > 0) return below[domain].realloc(below[domain].ctx, block, bytes);
    uintptr_t before = (uintptr_t)block;
    struct entry was = died(block);
    inside++;
    void *after = below[domain].realloc(below[domain].ctx, block, bytes);
    inside--;
    if (after == NULL) {
        if (was.counters != NULL) lives_on(&was, was.bytes, 0);
    } else if ((uintptr_t)after != before) {
        born(domain, after, bytes);
    } else if (was.counters != NULL) {
        lives_on(&was, bytes, 1);
    }
    return after;
}

static void count_free(void *context, void *block) {
    int domain = (int)(intptr_t)context;
    if (inside == 0) died(block);
    inside++;
    below[domain].free(below[domain].ctx, block);
    inside--;
}

static void *map(size_t bytes) {
    void *place = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return place == MAP_FAILED ? NULL : place;
}

static PyObject *start(PyObject *self, PyObject *filename) {
    (void)self;
    table = map(sizeof *table * LINES);
    entries = map(sizeof *entries * ENTRIES);
    if (table == NULL || entries == NULL) return PyErr_NoMemory();
    Py_INCREF(filename);
    watched = filename;
    for (int domain = 0; domain < DOMAINS; domain++) {
        PyMem_GetAllocator(domains[domain], &below[domain]);
        PyMemAllocatorEx wrapper = {(void *)(intptr_t)domain, count_malloc, count_calloc,
                                    count_realloc, count_free};
        PyMem_SetAllocator(domains[domain], &wrapper);
    }
    Py_RETURN_NONE;
}

static void say(const char *format, ...) {
    char text[512];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    if (write(STDOUT_FILENO, text, (size_t)length) != length) _exit(98);
}

static PyObject *finish(PyObject *self, PyObject *arguments) {
    (void)self, (void)arguments;
    const char *separator = "";
    say("{\"pid\": %d, \"lines\": [", (int)getpid());
    for (int line = 0; line < LINES; line++) {
        for (int domain = 0; domain < DOMAINS; domain++) {
            struct counters *c = &table[line][domain];
            if (c->births == 0) continue;
            say("%s{\"line\": %d, \"domain\": \"%s\", \"total_blocks\": %llu, \"resizes\": %llu, "
                "\"total_bytes\": %llu, \"live_blocks\": %llu, \"live_bytes\": %llu}",
                separator, line, names[domain], (unsigned long long)c->births,
                (unsigned long long)c->resizes, (unsigned long long)c->total_bytes,
                (unsigned long long)c->live_blocks, (unsigned long long)c->live_bytes);
            separator = ", ";
        }
    }
    say("]}\n");
    _exit(0);
}

static PyMethodDef methods[] = {
    {"start", start, METH_O, "Counts blocks born in code of this file name."},
    {"finish", finish, METH_NOARGS, "Writes the counts and ends the process."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "counting", NULL, -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit_counting(void) { return PyModule_Create(&module); }
