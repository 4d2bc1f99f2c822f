/* Has two threads allocate at the same instant, neither with the GIL. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <sched.h>
#include <stdlib.h>

static unsigned arrived;

static void meet(void) {
    unsigned round = (__atomic_fetch_add(&arrived, 1, __ATOMIC_ACQ_REL) / 2 + 1) * 2;
    /* Mostly without the kernel, to be off within nanoseconds of each other. */
    for (int i = 1; __atomic_load_n(&arrived, __ATOMIC_ACQUIRE) < round; i++)
        if (i % 4096 == 0) sched_yield();
}

static void *volatile kept;

static PyObject *py_meet(PyObject *self, PyObject *unused) {
    (void)self, (void)unused;
    Py_BEGIN_ALLOW_THREADS;
    meet();
    Py_END_ALLOW_THREADS;
    Py_RETURN_NONE;
}

static PyObject *py_leak(PyObject *self, PyObject *unused) {
    (void)self, (void)unused;
    Py_BEGIN_ALLOW_THREADS;
    meet();
    kept = malloc(24);
    Py_END_ALLOW_THREADS;
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"meet", py_meet, METH_NOARGS, "Waits for the other thread."},
    {"leak", py_leak, METH_NOARGS, "Waits for the other thread, and leaks 24 bytes."},
    {0},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, .m_name = "together", .m_size = -1, .m_methods = methods};

PyMODINIT_FUNC PyInit_together(void) { return PyModule_Create(&module); }
