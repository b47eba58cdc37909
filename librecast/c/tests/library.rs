//! The header and the shared library agree, and bad input of C and Python is an error.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn here() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The shared library, which cargo makes beside the tests.
fn library() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.with_file_name("liblibrecast_c.so")
}

fn success(output: &Output) -> String {
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {error}", output.status);
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Names of functions in a text of C or Python.
fn functions(text: &str) -> BTreeSet<&str> {
    let starts = text.match_indices("librecast_").map(|(at, _)| &text[at..]);
    let names = starts.filter_map(|rest| {
        let end = rest.find(|c: char| !c.is_ascii_lowercase() && c != '_')?;
        let called = rest[end..].starts_with(['(', '"']);
        called.then_some(&rest[..end])
    });
    names.collect()
}

#[test]
fn the_library_has_the_functions_of_the_header_and_python_calls_each() {
    let header = fs::read_to_string(here().join("include/librecast.h")).unwrap();
    let declared = functions(&header);
    assert!(declared.contains("librecast_channel_open"), "{declared:?}");
    let symbols = Command::new("nm")
        .args(["--dynamic", "--defined-only", "--format=posix"])
        .arg(library())
        .output()
        .unwrap();
    let symbols = success(&symbols);
    let exported: BTreeSet<&str> = symbols
        .lines()
        .filter_map(|line| line.split(' ').next())
        .filter(|name| name.starts_with("librecast"))
        .collect();
    assert_eq!(exported, declared);
    let python = here().join("../python/librecast/_library.py");
    let python = fs::read_to_string(python).unwrap();
    let mut called = functions(&python);
    // neither has arguments
    called.extend(["librecast_message", "librecast_version"]);
    assert_eq!(called, declared);
}

#[test]
fn the_library_names_its_interface_for_the_dynamic_linker() {
    let head = Command::new("readelf")
        .arg("--dynamic")
        .arg(library())
        .output()
        .unwrap();
    let head = success(&head);
    assert!(head.contains("[liblibrecast_c.so.0]"), "{head}");
}

/// The library under its name for programs, in this folder.
fn installed(folder: &Path) {
    fs::copy(library(), folder.join("liblibrecast_c.so.0")).unwrap();
}

#[test]
fn a_program_in_c_gets_an_error_for_each_bad_input() {
    let folder = tempfile::tempdir().unwrap();
    installed(folder.path());
    let program = folder.path().join("bad_input");
    let compiled = Command::new("cc")
        .args([
            "-std=c99",
            "-Wall",
            "-Wextra",
            "-pedantic",
            "-Werror",
            "-pthread",
        ])
        .arg("-I")
        .arg(here().join("include"))
        .arg(here().join("tests/bad_input.c"))
        .arg("-o")
        .arg(&program)
        .arg(folder.path().join("liblibrecast_c.so.0"))
        .arg(format!("-Wl,-rpath,{}", folder.path().display()))
        .output()
        .unwrap();
    success(&compiled);
    let ran = Command::new(program)
        .env("LCROUTE_CONTROL", folder.path().join("control.sock"))
        .output()
        .unwrap();
    assert_eq!(success(&ran), "all\n");
}

#[test]
fn a_program_in_python_has_streams_and_an_exception_for_each_bad_input() {
    let folder = tempfile::tempdir().unwrap();
    installed(folder.path());
    let ran = Command::new("python3")
        .arg("-B")
        .arg(here().join("tests/bad_input.py"))
        .env("LCROUTE_CONTROL", folder.path().join("control.sock"))
        .env(
            "LIBRECAST_LIBRARY",
            folder.path().join("liblibrecast_c.so.0"),
        )
        .env("PYTHONPATH", here().join("../python"))
        .output()
        .unwrap();
    assert_eq!(success(&ran), "all\n");
}

#[test]
fn the_package_of_python_has_the_version_of_the_library() {
    let project = fs::read_to_string(here().join("../python/pyproject.toml")).unwrap();
    let version = format!("\nversion = \"{}\"\n", env!("CARGO_PKG_VERSION"));
    assert!(project.contains(&version), "{version}");
}
