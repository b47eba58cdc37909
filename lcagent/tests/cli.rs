//! The program for a user: exit codes and standard output.

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
    let wrong: &[&[&str]] = &[
        &[],
        &["frobnicate"],
        &["exec"],
        &["exec", "--on", "all"],
        &["--log", "bogus", "keygen", "/nonexistent/k"],
        &["exec", "--on", "a,,b", "--", "true"],
        &["cancel", "12"],
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
    for args in [&["--help"][..], &["exec", "--help"], &["--version"]] {
        let out = lcagent(args, here);
        assert_eq!(out.status.code(), Some(0), "{args:?}");
        assert!(out.stderr.is_empty(), "{args:?}");
    }
    assert!(text(&lcagent(&["--help"], here).stdout).contains("Examples:"));
    assert!(text(&lcagent(&["keygen", "--help"], here).stdout).contains("Examples:"));
}

#[test]
fn operator_without_a_key_is_told_how_to_make_one() {
    let dir = tempfile::tempdir().unwrap();
    let out = lcagent(&["exec", "--key", "none", "--", "true"], dir.path());
    assert_eq!(out.status.code(), Some(4));
    assert!(
        text(&out.stderr).contains("lcagent keygen none"),
        "{}",
        text(&out.stderr)
    );
}

#[test]
fn agent_with_a_wrong_configuration_ends_with_2_and_names_the_line() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("c"), "name = \"a\"\ncolour = 1\n").unwrap();
    let out = lcagent(
        &["run", "--config", "c", "--state-dir", "state"],
        dir.path(),
    );
    assert_eq!(out.status.code(), Some(2));
    assert!(
        text(&out.stderr).contains("c:2: colour"),
        "{}",
        text(&out.stderr)
    );
    assert!(!dir.path().join("state").exists(), "nothing is made before");
}
