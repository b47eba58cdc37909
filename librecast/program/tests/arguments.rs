//! A process with secrets in its arguments: other users can read the arguments, but no secret.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};

use librecast_program::arguments;

const SECRETS: [&str; 3] = [
    "lct1SecretOfTheNetwork",
    "--page=https://a.example/#lcs1SecretOfTheLecture",
    "lct1AnotherSecret,lcr1SecretOfTheStation,news",
];

/// A program's start, which the test below runs.
#[test]
#[ignore = "the test below starts it"]
fn program() {
    let given = arguments::given();
    for argument in given {
        println!("given {}", argument.display());
    }
    assert_eq!(given, arguments::given(), "they stay as they were given");
    println!("ready");
    // until the test has read its arguments
    let _ = std::io::stdin().read(&mut [0]);
}

#[test]
fn other_users_see_no_secret_and_the_program_has_them_whole() {
    let options = ["program", "--exact", "--ignored", "--nocapture", "--"];
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(options)
        .args(SECRETS)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut given = Vec::new();
    let mut output = BufReader::new(child.stdout.take().unwrap()).lines();
    for line in output.by_ref() {
        let line = line.unwrap();
        if line == "ready" {
            break;
        }
        given.extend(line.strip_prefix("given ").map(ToOwned::to_owned));
    }
    assert!(
        given.ends_with(&SECRETS.map(ToOwned::to_owned)),
        "{given:?}"
    );
    let shown = fs::read(format!("/proc/{}/cmdline", child.id())).unwrap();
    let shown = String::from_utf8(shown).unwrap();
    assert!(!shown.contains("Secret"), "{shown}");
    let last: Vec<&str> = shown.trim_end_matches('\0').rsplit('\0').take(3).collect();
    assert_eq!(last[2], "lct1..................");
    assert_eq!(last[0], "lct1.............,lcr1..................,news");
    drop(child.stdin.take());
    output.for_each(drop);
    assert!(child.wait().unwrap().success());
}
