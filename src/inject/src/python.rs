//! The Python interpreter of a process, and what it is given to run.

use std::ffi::CStr;
use std::fmt::Write as _;

use crate::image::Image;
use crate::target::Process;

/// Whether an interpreter runs: a program may have the library and never use it,
/// or be done with it, and is then not to be asked for anything.
pub(crate) fn is_running(process: &Process, image: &Image) -> bool {
    /// What `_PyRuntime` begins with since 3.13: where to find the rest.
    const COOKIE: u64 = u64::from_le_bytes(*b"xdebugpy");
    let Some(runtime) = image.symbol(process, "_PyRuntime") else {
        return false;
    };
    let word = |offset: u64| process.word(runtime.address.wrapping_add(offset)).ok();
    let (finalizing, interpreters) = if word(0) == Some(COOKIE) {
        (word(32), word(40))
    } else if image.symbol(process, "Py_Version").is_some() {
        // 3.11 and 3.12.
        (Some(24), Some(40))
    } else {
        (Some(16), Some(32))
    };
    finalizing.and_then(word) == Some(0)
        && interpreters.and_then(word).is_some_and(|first| first != 0)
}

/// A program that loads a library by its path, as a string of C.
///
/// It leaves no name in `__main__`, where it runs, and lets no exception out.
/// The import machinery is asked for an extension module: its loader opens the
/// library, finds that it is none, and leaves it open.
pub(crate) fn load_text(library: &CStr) -> Vec<u8> {
    let path = quoted(library.to_bytes());
    let path = if library.to_bytes().is_ascii() {
        format!("'{path}'")
    } else {
        format!("__import__('os').fsdecode(b'{path}')")
    };
    attempt(&format!(
        "__import__('_imp').create_dynamic(\
         type('S',(),{{'name':'leakline','origin':{path}}}))"
    ))
}

/// A program that opens a file in memory, which no other program inherits.
pub(crate) fn memory_file_text(name: &CStr) -> Vec<u8> {
    let name = quoted(name.to_bytes());
    attempt(&format!("__import__('os').memfd_create('{name}')"))
}

/// A program that closes a descriptor, if its link reads so.
pub(crate) fn close_text(descriptor: u32, link: &[u8]) -> Vec<u8> {
    let link = quoted(link);
    let os = "__import__('os')";
    attempt(&format!(
        "{os}.readlink('/proc/self/fd/{descriptor}')=='{link}' and {os}.close({descriptor})"
    ))
}

/// A program that tries to do something, as a string of C.
fn attempt(action: &str) -> Vec<u8> {
    format!("try:\n {action}\nexcept BaseException:\n pass\n\0").into_bytes()
}

/// Text to be put between single quotes.
fn quoted(bytes: &[u8]) -> String {
    let mut text = String::new();
    for &byte in bytes {
        if byte.is_ascii_graphic() && byte != b'\'' && byte != b'\\' || byte == b' ' {
            text.push(char::from(byte));
        } else {
            // It cannot fail for a string.
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_quoted() {
        let text = |path| String::from_utf8(load_text(path)).unwrap();
        assert_eq!(
            text(c"/opt/a b/lib'x'.so"),
            "try:\n __import__('_imp').create_dynamic(type('S',(),{'name':'leakline',\
             'origin':'/opt/a b/lib\\x27x\\x27.so'}))\nexcept BaseException:\n pass\n\0"
        );
        assert!(text(c"/\xc3\xa4").contains("'origin':__import__('os').fsdecode(b'/\\xc3\\xa4')"));
    }
}
