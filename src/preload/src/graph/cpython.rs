//! What of CPython a walk uses: functions by name, structures by version.

use core::cell::UnsafeCell;

use leakline_wire::cpython::of_type;

use super::keys::Kinds;
use crate::elf;
use crate::python::Interpreter;
use crate::sys;

macro_rules! functions {
    ($($(#[$doc:meta])* $field:ident: $name:literal,)*) => {
        /// What of CPython the child uses; addresses, 0 where there is none.
        pub struct Functions {
            $($(#[$doc])* pub $field: u64,)*
            /// Where the interpreter's own types lie, and their end.
            own: (u64, u64),
        }

        impl Functions {
            const NONE: Self = Functions { $($field: 0,)* own: (0, 0) };

            fn find() -> Self {
                let type_type = elf::find(c"PyType_Type");
                Functions {
                    $($field: elf::find($name),)*
                    own: elf::span_of(type_type),
                }
            }
        }
    };
}

functions! {
    dict_next: c"PyDict_Next",
    module_dict: c"PyImport_GetModuleDict",
    interpreter: c"PyInterpreterState_Get",
    first_thread: c"PyInterpreterState_ThreadHead",
    next_thread: c"PyThreadState_Next",
    type_type: c"PyType_Type",
    text: c"PyUnicode_Type",
    dict: c"PyDict_Type",
    list: c"PyList_Type",
    tuple: c"PyTuple_Type",
    set: c"PySet_Type",
    frozen_set: c"PyFrozenSet_Type",
    module: c"PyModule_Type",
    function: c"PyFunction_Type",
    builtin: c"PyCFunction_Type",
    cell: c"PyCell_Type",
    code: c"PyCode_Type",
    generator: c"PyGen_Type",
    coroutine: c"PyCoro_Type",
    async_generator: c"PyAsyncGen_Type",
    frame: c"PyFrame_Type",
    byte_array: c"PyByteArray_Type",
    int: c"PyLong_Type",
    bytes: c"PyBytes_Type",
    float: c"PyFloat_Type",
    bool: c"PyBool_Type",
    none: c"_Py_NoneStruct",
    true_: c"_Py_TrueStruct",
    /// From 3.10 on.
    collects: c"PyGC_IsEnabled",
}

/// What was found of the interpreter whose `PyDict_Next` it has.
struct Found(UnsafeCell<Functions>);
// SAFETY: written and read by who holds the GIL, or by a child's only thread.
unsafe impl Sync for Found {}

impl Functions {
    /// To be found before the fork: in a child the loader's list may be locked by
    /// nobody who is there.
    ///
    /// # Safety
    ///
    /// The calling thread must hold the GIL.
    pub unsafe fn get() -> Option<&'static Self> {
        static FOUND: Found = Found(UnsafeCell::new(Functions::NONE));
        let dict_next = elf::find(c"PyDict_Next");
        // SAFETY: the caller's: nobody else is here.
        let found = unsafe {
            if (*FOUND.0.get()).dict_next != dict_next {
                *FOUND.0.get() = Self::find();
            }
            &*FOUND.0.get()
        };
        let needed = [
            found.dict_next,
            found.module_dict,
            found.interpreter,
            found.type_type,
            found.dict,
            found.text,
        ];
        needed.iter().all(|address| *address != 0).then_some(found)
    }

    /// What is known of objects that are keys.
    pub fn kinds(&self, python: &Interpreter) -> Kinds {
        let digit_bytes = if self.int == 0 {
            0
        } else {
            // SAFETY: a type of the interpreter's, which lives as long as that.
            unsafe { sys::word(self.int + of_type::ITEM_SIZE) }
        };
        Kinds {
            text: self.text,
            int: self.int,
            bytes: self.bytes,
            float: self.float,
            bool: self.bool,
            none: self.none,
            true_: self.true_,
            minor: python.minor,
            text_ascii: python.layout.text_ascii,
            text_other: python.layout.text_other,
            digit_bytes,
        }
    }

    /// Whether an address lies in the interpreter's own file.
    pub fn is_own(&self, address: u64) -> bool {
        (self.own.0..self.own.1).contains(&address)
    }
}
