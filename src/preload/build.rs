//! Has the library's references to its own functions mean its own, also where
//! another definition comes first in lookup order: so it is in a program that was
//! running before it was loaded.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-Bsymbolic-functions");
}
