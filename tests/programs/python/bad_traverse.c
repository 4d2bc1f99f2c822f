/* A type whose tp_traverse does not come back: it crashes, or it waits for ever. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

/* A handler of the program's own: it is not to run in a child that it knows nothing of. */
static void handle(int number)
{
    (void)number;
    close(open("handled", O_CREAT | O_WRONLY, 0600));
    _exit(3);
}

static int is_bad = 0;
static pid_t owner = 0;

static int traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    if (is_bad && getpid() != owner) {
        if (is_bad == 1)
            *(volatile int *)8 = 1;
        for (;;)
            pause();
    }
    return 0;
}

static void dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyType_Slot slots[] = {
    {Py_tp_traverse, traverse}, {Py_tp_dealloc, dealloc}, {0, NULL}};
static PyType_Spec spec = {"bad_traverse.Bad", sizeof(PyObject), 0,
                           Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC, slots};

static PyObject *be_bad(PyObject *module, PyObject *how)
{
    is_bad = (int)PyLong_AsLong(how);
    owner = getpid();
    signal(SIGSEGV, handle);
    signal(SIGALRM, handle);
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {{"be_bad", be_bad, METH_O, NULL}, {NULL, NULL, 0, NULL}};
static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "bad_traverse", NULL, -1, methods};

PyMODINIT_FUNC PyInit_bad_traverse(void)
{
    PyObject *module = PyModule_Create(&definition);
    if (module != NULL)
        PyModule_AddObject(module, "Bad", PyType_FromSpec(&spec));
    return module;
}
