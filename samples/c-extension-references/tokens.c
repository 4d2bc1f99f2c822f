/* A tokenizer that loses a reference for each token: PyList_Append takes one
 * of its own, and the one from make_token is never given back. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

__attribute__((noinline)) static PyObject *make_token(const char *start, Py_ssize_t length) {
    PyObject *token = PyBytes_FromStringAndSize(start, length);
    __asm__ volatile("" : "+r"(token));
    return token;
}

static PyObject *tokenize(PyObject *module, PyObject *argument) {
    (void)module;
    const char *text = PyUnicode_AsUTF8(argument);
    PyObject *tokens = text == NULL ? NULL : PyList_New(0);
    if (tokens == NULL) return NULL;
    while (*text != '\0') {
        const char *end = text;
        while (*end != '\0' && *end != ' ') end++;
        PyObject *token = make_token(text, end - text);
        if (token == NULL || PyList_Append(tokens, token) < 0) {
            Py_DECREF(tokens);
            return NULL;
        }
        /* Py_DECREF(token) is missing here. */
        text = *end == ' ' ? end + 1 : end;
    }
    return tokens;
}

static PyMethodDef methods[] = {
    {"tokenize", tokenize, METH_O, "Splits a text at spaces."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "tokens", NULL, -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit_tokens(void) { return PyModule_Create(&definition); }
