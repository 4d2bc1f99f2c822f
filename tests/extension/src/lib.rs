//! A Python extension as PyO3 makes them.

use pyo3::prelude::*;

/// Holds an object, and has no `__traverse__`: the collector of cycles cannot see it.
#[pyclass(module = "keeping", frozen)]
struct Keeper {
    held: Py<PyAny>,
}

#[pymethods]
impl Keeper {
    #[new]
    fn new(held: Py<PyAny>) -> Self {
        Keeper { held }
    }

    #[getter]
    fn held(&self, py: Python<'_>) -> Py<PyAny> {
        self.held.clone_ref(py)
    }
}

#[pymodule]
mod keeping {
    #[pymodule_export]
    use super::Keeper;
}
