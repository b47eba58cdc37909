//! The program as a user meets it: exit codes, what goes to stdout, what is not there yet.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::path::Path;
use std::process::{Command, Output};

use librecast::id::{PeerId, SecretKey};

fn lcagent(args: &[&str], dir: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_lcagent"))
        .args(args)
        .current_dir(dir)
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn keygen_prints_the_public_key_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let out = lcagent(&["keygen", "k"], dir.path());
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
    let public: PeerId = text(&out.stdout)
        .strip_suffix('\n')
        .unwrap()
        .parse()
        .unwrap();
    assert_eq!(
        SecretKey::load(&dir.path().join("k")).unwrap().peer_id(),
        public
    );
    assert_eq!(std::fs::read(dir.path().join("k.pub")).unwrap(), out.stdout);
}

#[test]
fn keygen_speaks_json() {
    let dir = tempfile::tempdir().unwrap();
    let out = lcagent(&["keygen", "--json", "k"], dir.path());
    let result: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(
        result["public_key"],
        text(&std::fs::read(dir.path().join("k.pub")).unwrap()).trim()
    );
    assert_eq!(result["file"], "k");
}

#[test]
fn keygen_keeps_a_key_that_exists() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(lcagent(&["keygen", "k"], dir.path()).status.code(), Some(0));
    let before = std::fs::read(dir.path().join("k")).unwrap();
    let again = lcagent(&["keygen", "k"], dir.path());
    assert_eq!(again.status.code(), Some(1));
    assert!(again.stdout.is_empty());
    assert!(
        text(&again.stderr).contains("never overwritten"),
        "{}",
        text(&again.stderr)
    );
    assert_eq!(std::fs::read(dir.path().join("k")).unwrap(), before);
}

#[test]
fn wrong_usage_ends_with_2_and_help_with_0() {
    let here = Path::new("/");
    // verbs of the contract that are not there yet are wrong usage like any other word
    let wrong: &[&[&str]] = &[
        &[],
        &["run"],
        &["exec", "--", "true"],
        &["nodes"],
        &["keygen"],
        &["keygen", "a", "b"],
        &["keygen", "--frobnicate", "a"],
        &["--log", "=[", "keygen", "/nonexistent/k"],
    ];
    for args in wrong {
        let out = lcagent(args, here);
        assert_eq!(out.status.code(), Some(2), "{args:?}");
        assert!(out.stdout.is_empty() && !out.stderr.is_empty(), "{args:?}");
    }
    for args in [&["--help"][..], &["keygen", "--help"], &["--version"]] {
        let out = lcagent(args, here);
        assert_eq!(out.status.code(), Some(0), "{args:?}");
        assert!(out.stderr.is_empty(), "{args:?}");
    }
    assert!(text(&lcagent(&["--help"], here).stdout).contains("Examples:"));
    assert!(text(&lcagent(&["keygen", "--help"], here).stdout).contains("Examples:"));
}
