//! Columns as an Arrow C stream: what pandas, polars, DuckDB and pyarrow read by
//! `__arrow_c_stream__`, without a library of Arrow's on this side.
//!
//! The three structures are those of Arrow's C data and C stream interfaces, which are
//! fixed. A stream has one batch of all rows. Columns are 64-bit integers (`l`) and texts
//! with 64-bit offsets (`U`); none has nulls.
//!
//! # Invariants
//!
//! * `release` is set while a structure owns something, and null after it was called: by
//!   the consumer, or by us when a capsule that nobody took is dropped.
//! * What a consumer has been given lives by itself: schema and array do not point into the
//!   stream. Columns are shared by count.
#![expect(
    unsafe_code,
    reason = "structures of pointers, filled for a C interface"
)]

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr;
use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::PyCapsule;

/// `EINVAL`: there is no batch to be told of by a null stream.
const INVALID: c_int = 22;

const STREAM: &CStr = c"arrow_array_stream";
const STRUCTURE: &CStr = c"+s";
const INTEGER: &CStr = c"l";
const TEXT: &CStr = c"U";
const NO_NAME: &CStr = c"";

/// A column's values.
#[derive(FromPyObject)]
pub(crate) enum Values {
    /// 64-bit integers.
    Integers(Vec<i64>),
    /// Texts.
    Texts(Vec<String>),
}

/// A column as it lies in memory.
struct Column {
    name: CString,
    format: &'static CStr,
    rows: usize,
    integers: Vec<i64>,
    text: Vec<u8>,
}

impl Column {
    fn new(name: String, values: Values, is_text: bool) -> PyResult<Self> {
        let name = CString::new(name)?;
        Ok(match values {
            Values::Integers(integers) if !is_text => Column {
                name,
                format: INTEGER,
                rows: integers.len(),
                integers,
                text: Vec::new(),
            },
            // An empty list is one of either.
            Values::Integers(_) => Column {
                name,
                format: TEXT,
                rows: 0,
                integers: vec![0],
                text: Vec::new(),
            },
            Values::Texts(texts) => {
                let mut text = Vec::new();
                let mut offsets = vec![0];
                for one in &texts {
                    text.extend_from_slice(one.as_bytes());
                    offsets.push(text.len() as i64);
                }
                Column {
                    name,
                    format: TEXT,
                    rows: texts.len(),
                    integers: offsets,
                    text,
                }
            }
        })
    }
}

struct Table {
    rows: usize,
    columns: Vec<Column>,
}

#[repr(C)]
struct ArrowSchema {
    format: *const c_char,
    name: *const c_char,
    metadata: *const c_char,
    flags: i64,
    n_children: i64,
    children: *mut *mut ArrowSchema,
    dictionary: *mut ArrowSchema,
    release: Option<unsafe extern "C" fn(*mut ArrowSchema)>,
    private_data: *mut c_void,
}

#[repr(C)]
struct ArrowArray {
    length: i64,
    null_count: i64,
    offset: i64,
    n_buffers: i64,
    n_children: i64,
    buffers: *mut *const c_void,
    children: *mut *mut ArrowArray,
    dictionary: *mut ArrowArray,
    release: Option<unsafe extern "C" fn(*mut ArrowArray)>,
    private_data: *mut c_void,
}

#[repr(C)]
struct ArrowArrayStream {
    get_schema: Option<unsafe extern "C" fn(*mut ArrowArrayStream, *mut ArrowSchema) -> c_int>,
    get_next: Option<unsafe extern "C" fn(*mut ArrowArrayStream, *mut ArrowArray) -> c_int>,
    get_last_error: Option<unsafe extern "C" fn(*mut ArrowArrayStream) -> *const c_char>,
    release: Option<unsafe extern "C" fn(*mut ArrowArrayStream)>,
    private_data: *mut c_void,
}

// SAFETY: all that it points to is a `Source` of its own, which is Send; nothing in it is
// bound to a thread.
unsafe impl Send for ArrowArrayStream {}

impl Drop for ArrowArrayStream {
    fn drop(&mut self) {
        if let Some(release) = self.release {
            // SAFETY: set, so that it was not released; this is the structure that it is of.
            unsafe { release(self) };
        }
    }
}

/// What a stream owns.
struct Source {
    table: Arc<Table>,
    is_told: bool,
}

/// What a schema owns.
struct SchemaParts {
    table: Arc<Table>,
    children: Vec<*mut ArrowSchema>,
}

/// What an array owns.
struct ArrayParts {
    table: Arc<Table>,
    buffers: Vec<*const c_void>,
    children: Vec<*mut ArrowArray>,
}

fn schema_of(table: &Arc<Table>, column: Option<usize>) -> ArrowSchema {
    let children: Vec<*mut ArrowSchema> = match column {
        Some(_) => Vec::new(),
        None => (0..table.columns.len())
            .map(|at| Box::into_raw(Box::new(schema_of(table, Some(at)))))
            .collect(),
    };
    let mut parts = Box::new(SchemaParts {
        table: Arc::clone(table),
        children,
    });
    let column = column.map(|at| &parts.table.columns[at]);
    ArrowSchema {
        format: column.map_or(STRUCTURE, |column| column.format).as_ptr(),
        name: column.map_or(NO_NAME, |column| &column.name).as_ptr(),
        metadata: ptr::null(),
        flags: 0,
        n_children: parts.children.len() as i64,
        children: parts.children.as_mut_ptr(),
        dictionary: ptr::null_mut(),
        release: Some(release_schema),
        private_data: Box::into_raw(parts).cast(),
    }
}

fn array_of(table: &Arc<Table>, column: Option<usize>) -> ArrowArray {
    let (rows, buffers, children) = if let Some(at) = column {
        let column = &table.columns[at];
        let integers: *const c_void = column.integers.as_ptr().cast();
        // Nulls first: there are none.
        let buffers = if column.format == TEXT {
            vec![ptr::null(), integers, column.text.as_ptr().cast()]
        } else {
            vec![ptr::null(), integers]
        };
        (column.rows, buffers, Vec::new())
    } else {
        let children = (0..table.columns.len())
            .map(|at| Box::into_raw(Box::new(array_of(table, Some(at)))))
            .collect();
        (table.rows, vec![ptr::null()], children)
    };
    let mut parts = Box::new(ArrayParts {
        table: Arc::clone(table),
        buffers,
        children,
    });
    ArrowArray {
        length: rows as i64,
        null_count: 0,
        offset: 0,
        n_buffers: parts.buffers.len() as i64,
        n_children: parts.children.len() as i64,
        buffers: parts.buffers.as_mut_ptr(),
        children: parts.children.as_mut_ptr(),
        dictionary: ptr::null_mut(),
        release: Some(release_array),
        private_data: Box::into_raw(parts).cast(),
    }
}

/// Releases a schema and the children that nobody has moved away.
///
/// # Safety
///
/// `schema` is one of `schema_of`, which was not released.
unsafe extern "C" fn release_schema(schema: *mut ArrowSchema) {
    // SAFETY: the caller gives a whole structure, whose parts `schema_of` made by
    // `Box::into_raw`; `release` is null from here on, so that it is done once.
    let parts = unsafe {
        (*schema).release = None;
        Box::from_raw((*schema).private_data.cast::<SchemaParts>())
    };
    for child in &parts.children {
        // SAFETY: made by `Box::into_raw`, freed here alone; who moved it away has
        // nulled `release` in what is left.
        unsafe {
            if let Some(release) = (**child).release {
                release(*child);
            }
            drop(Box::from_raw(*child));
        }
    }
    drop(parts.table);
}

/// Releases an array and the children that nobody has moved away.
///
/// # Safety
///
/// `array` is one of `array_of`, which was not released.
unsafe extern "C" fn release_array(array: *mut ArrowArray) {
    // SAFETY: as in `release_schema`, with `array_of`.
    let parts = unsafe {
        (*array).release = None;
        Box::from_raw((*array).private_data.cast::<ArrayParts>())
    };
    for child in &parts.children {
        // SAFETY: as in `release_schema`.
        unsafe {
            if let Some(release) = (**child).release {
                release(*child);
            }
            drop(Box::from_raw(*child));
        }
    }
    drop(parts.table);
}

/// Tells of the columns.
///
/// # Safety
///
/// `stream` is ours and not released, `schema` is room for one.
unsafe extern "C" fn get_schema(stream: *mut ArrowArrayStream, schema: *mut ArrowSchema) -> c_int {
    if stream.is_null() || schema.is_null() {
        return INVALID;
    }
    // SAFETY: the source lives as long as the stream is not released; what is written over
    // is room that owns nothing.
    unsafe {
        let source = &*(*stream).private_data.cast::<Source>();
        schema.write(schema_of(&source.table, None));
    }
    0
}

/// Gives the batch, and then the end: an array that is released.
///
/// # Safety
///
/// `stream` is ours and not released, and asked by one thread at a time; `array` is room for
/// one.
unsafe extern "C" fn get_next(stream: *mut ArrowArrayStream, array: *mut ArrowArray) -> c_int {
    if stream.is_null() || array.is_null() {
        return INVALID;
    }
    // SAFETY: as in `get_schema`.
    unsafe {
        let source = &mut *(*stream).private_data.cast::<Source>();
        let mut next = array_of(&source.table, None);
        if source.is_told {
            release_array(&raw mut next);
        }
        source.is_told = true;
        array.write(next);
    }
    0
}

/// Nothing that fails has words.
///
/// # Safety
///
/// None: it looks at nothing.
unsafe extern "C" fn get_last_error(_: *mut ArrowArrayStream) -> *const c_char {
    ptr::null()
}

/// Releases a stream.
///
/// # Safety
///
/// `stream` is ours and was not released.
unsafe extern "C" fn release_stream(stream: *mut ArrowArrayStream) {
    // SAFETY: the source was made by `Box::into_raw`, and is freed once: `release` is null
    // from here on.
    unsafe {
        (*stream).release = None;
        drop(Box::from_raw((*stream).private_data.cast::<Source>()));
    }
}

/// A capsule of a stream of columns, all of as many rows: names, values, and whether the
/// values are texts.
#[pyfunction]
pub(crate) fn arrow_stream(
    py: Python<'_>,
    columns: Vec<(String, Values, bool)>,
) -> PyResult<Bound<'_, PyCapsule>> {
    let columns: Vec<Column> = columns
        .into_iter()
        .map(|(name, values, is_text)| Column::new(name, values, is_text))
        .collect::<PyResult<_>>()?;
    let rows = columns.first().map_or(0, |column| column.rows);
    if columns.iter().any(|column| column.rows != rows) {
        return Err(pyo3::exceptions::PyValueError::new_err(
            "columns have as many rows as each other",
        ));
    }
    let source = Box::new(Source {
        table: Arc::new(Table { rows, columns }),
        is_told: false,
    });
    let stream = ArrowArrayStream {
        get_schema: Some(get_schema),
        get_next: Some(get_next),
        get_last_error: Some(get_last_error),
        release: Some(release_stream),
        private_data: Box::into_raw(source).cast(),
    };
    PyCapsule::new_with_value(py, stream, STREAM)
}
