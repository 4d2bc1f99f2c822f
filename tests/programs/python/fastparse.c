/* An extension module that allocates in a builtin, in a static helper below
 * one, and in a method of a type. */
#include <Python.h>

#include <stdlib.h>

#define OWN __attribute__((noinline, noclone)) static

/* So that no allocation is optimised away. */
static void *volatile last;

OWN int parse_header(long bytes) {
    last = malloc(bytes);
    return last != NULL;
}

OWN PyObject *parse(PyObject *self, PyObject *count) {
    (void)self;
    for (long left = PyLong_AsLong(count); left > 0; left--)
        if (!parse_header(224)) return PyErr_NoMemory();
    Py_RETURN_NONE;
}

OWN PyObject *scan(PyObject *self, PyObject *count) {
    (void)self;
    for (long left = PyLong_AsLong(count); left > 0; left--)
        if (!(last = malloc(112))) return PyErr_NoMemory();
    Py_RETURN_NONE;
}

OWN PyObject *call(PyObject *self, PyObject *arguments, PyObject *keywords) {
    (void)keywords;
    return scan(self, PyTuple_GET_ITEM(arguments, 0));
}

static PyMethodDef methods[] = {
    {"parse", parse, METH_O, "parse(count)"},
    {"scan", scan, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

static PyTypeObject Parser = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "fastparse.Parser",
    .tp_basicsize = sizeof(PyObject),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_new = PyType_GenericNew,
    .tp_call = call,
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, .m_name = "fastparse", .m_size = -1, .m_methods = methods,
};

PyMODINIT_FUNC PyInit_fastparse(void) {
    PyObject *made = PyModule_Create(&module);
    if (!made || PyType_Ready(&Parser) < 0) return NULL;
    Py_INCREF(&Parser);
    PyModule_AddObject(made, "Parser", (PyObject *)&Parser);
    return made;
}
