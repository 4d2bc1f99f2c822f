/* An extension module that loses references in the ways in which C code does, beside
 * functions that do the same work and lose none. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>

#include <stdlib.h>

#define OWN __attribute__((noinline, noclone)) static

/* ---- lost ---- */

/* A bytes object that nobody gets. */
OWN PyObject *make_bytes(PyObject *module, PyObject *number)
{
    char text[64] = "lost ";
    (void)module;
    snprintf(text + 5, sizeof text - 5, "%ld", PyLong_AsLong(number));
    PyObject *made = PyBytes_FromString(text);
    Py_XINCREF(made);
    return made;
}

/* A string that is counted once too often. */
OWN PyObject *make_str(PyObject *module, PyObject *number)
{
    (void)module;
    PyObject *made = PyUnicode_FromFormat("name of %ld", PyLong_AsLong(number));
    Py_XINCREF(made);
    return made;
}

/* A large number. */
OWN PyObject *make_int(PyObject *module, PyObject *number)
{
    (void)module;
    PyObject *made = PyLong_FromLongLong(1234567890123LL + PyLong_AsLong(number));
    Py_XINCREF(made);
    return made;
}

/* PyList_Append takes a reference of its own: the one that Py_BuildValue gave stays. */
OWN PyObject *make_list(PyObject *module, PyObject *number)
{
    (void)module;
    PyObject *row = PyList_New(0);
    PyObject *all = PyList_New(0);
    if (row == NULL || all == NULL || PyList_Append(row, number) < 0 || PyList_Append(all, row) < 0)
        return NULL;
    Py_DECREF(all);
    Py_RETURN_NONE;
}

/* The way out by an exception forgets what was made. */
OWN PyObject *fail_late(PyObject *module, PyObject *number)
{
    (void)module;
    PyObject *made = PyDict_New();
    if (made == NULL || PyDict_SetItemString(made, "number", number) < 0)
        return NULL;
    if (PyLong_AsLong(number) >= 0) {
        PyErr_SetString(PyExc_ValueError, "too late");
        return NULL;
    }
    return made;
}

/* One more reference to what somebody else made. */
OWN PyObject *hold_once_more(PyObject *module, PyObject *object)
{
    (void)module;
    Py_INCREF(object);
    Py_RETURN_NONE;
}

/* ---- healthy ---- */

static PyObject *cache;
/* Not static: nobody reads it, and the compiler would leave it out. */
PyObject *names[4096];
int known;

struct entry {
    struct entry *next;
    PyObject *value;
};
static struct entry *entries;

/* In a static array, in a list of C structures, and in a container that only C has. */
OWN PyObject *keep(PyObject *module, PyObject *number)
{
    (void)module;
    long at = PyLong_AsLong(number);
    if (cache == NULL && (cache = PyDict_New()) == NULL)
        return NULL;
    PyObject *value = PyUnicode_FromFormat("value %ld", at);
    if (value == NULL || PyDict_SetItem(cache, number, value) < 0)
        return NULL;
    Py_DECREF(value);
    if (known < 4096)
        names[known++] = PyUnicode_FromFormat("kept %ld", at);
    struct entry *entry = malloc(sizeof *entry);
    entry->value = PyBytes_FromFormat("entry %ld", at);
    entry->next = entries;
    entries = entry;
    return PyLong_FromLong(at + 1000000);
}

/* ---- a class without tp_traverse ---- */

typedef struct {
    PyObject_HEAD
    PyObject *callback;
    long number;
} Handle;

static int handle_init(PyObject *self, PyObject *arguments, PyObject *keywords)
{
    (void)keywords;
    Handle *handle = (Handle *)self;
    PyObject *callback = NULL;
    if (!PyArg_ParseTuple(arguments, "O", &callback))
        return -1;
    Py_INCREF(callback);
    Py_XSETREF(handle->callback, callback);
    return 0;
}

static void handle_dealloc(PyObject *self)
{
    Py_XDECREF(((Handle *)self)->callback);
    Py_TYPE(self)->tp_free(self);
}

static PyTypeObject HandleType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "losing.Handle",
    .tp_basicsize = sizeof(Handle),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_new = PyType_GenericNew,
    .tp_init = handle_init,
    .tp_dealloc = handle_dealloc,
};

static PyMethodDef methods[] = {
    {"make_bytes", make_bytes, METH_O, NULL},
    {"make_str", make_str, METH_O, NULL},
    {"make_int", make_int, METH_O, NULL},
    {"make_list", make_list, METH_O, NULL},
    {"fail_late", fail_late, METH_O, NULL},
    {"hold_once_more", hold_once_more, METH_O, NULL},
    {"keep", keep, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, .m_name = "losing", .m_size = -1, .m_methods = methods,
};

PyMODINIT_FUNC PyInit_losing(void)
{
    PyObject *made = PyModule_Create(&module);
    if (made == NULL || PyType_Ready(&HandleType) < 0)
        return NULL;
    Py_INCREF(&HandleType);
    PyModule_AddObject(made, "Handle", (PyObject *)&HandleType);
    return made;
}
