//! Gives the shared library its name for the dynamic linker.

fn main() {
    // the number grows with each change that breaks programs
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,liblibrecast_c.so.0");
    println!("cargo:rerun-if-changed=build.rs");
}
