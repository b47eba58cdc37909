//! The arguments of a process, and secrets among them. Every user of a host can read the arguments
//! of all processes; so a program overwrites secrets in its own at its start.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, BufRead};
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::sync::OnceLock;

use librecast::cert::MAX_TOKEN;
use librecast::text::{self, TextError, TextKind};
use zeroize::Zeroizing;

use crate::standard;

/// The argument that stands for a line of standard input.
pub const STANDARD_INPUT: &str = "-";
/// Replaces the bytes of a secret where arguments are shown.
const BLOT: u8 = b'.';
/// Bytes of standard input that may hold a secret: the longest token with space around it.
const MAX_SECRET: u64 = 2 * MAX_TOKEN as u64;
/// The error of a token that is not whole.
const DAMAGED: TextError = TextError::Damaged(TextKind::Token);
/// Fields of /proc/PID/stat between name and address of the arguments (proc_pid_stat(5), 48).
const BEFORE_ARGUMENTS: usize = 45;

/// Returns the arguments of this process, its name first. The first call overwrites secrets in the
/// arguments that other users can read: programs make it first.
pub fn given() -> &'static [OsString] {
    static GIVEN: OnceLock<Vec<OsString>> = OnceLock::new();
    GIVEN.get_or_init(|| {
        let all: Vec<OsString> = std::env::args_os().collect();
        if all.iter().any(|argument| has_secret(argument.as_bytes())) {
            // on failure there is no /proc, so no other user can read them
            blot(&all).unwrap_or_default();
        }
        all
    })
}

/// Returns whether an argument is, contains or requests a secret.
#[must_use]
pub fn is_secret(argument: &OsStr) -> bool {
    argument == STANDARD_INPUT || has_secret(argument.as_bytes())
}

/// Returns whether the bytes contain a secret text.
#[must_use]
pub fn has_secret(bytes: &[u8]) -> bool {
    !secrets(bytes).is_empty()
}

/// Replaces each secret of a text by `...`, for messages.
#[must_use]
pub fn without_secrets(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut at = 0;
    for secret in secrets(text.as_bytes()) {
        shown.push_str(text.get(at..secret.start).unwrap_or_default());
        shown.push_str("...");
        at = secret.end;
    }
    shown.push_str(text.get(at..).unwrap_or_default());
    shown
}

/// Returns the secret of an argument; for `-` the first non-empty line of standard input, with the
/// further lines to which a mail program has wrapped a token.
///
/// # Errors
/// Standard input cannot be read.
pub fn secret(argument: &str) -> io::Result<Zeroizing<String>> {
    match argument {
        STANDARD_INPUT => first_line(standard::input()),
        text => Ok(Zeroizing::new(text.to_owned())),
    }
}

fn first_line(input: impl BufRead) -> io::Result<Zeroizing<String>> {
    let mut input = input.take(MAX_SECRET);
    // allocated for the longest: a growing text leaves a copy behind
    let mut line = Zeroizing::new(String::with_capacity(MAX_SECRET as usize));
    while input.read_line(&mut line)? > 0 && line.trim().is_empty() {
        line.clear();
    }
    // an empty line ends a token that stays damaged
    let mut before = 0;
    while is_part_of_token(&line) && !line[before..].trim().is_empty() {
        before = line.len();
        if input.read_line(&mut line)? == 0 {
            break;
        }
    }
    Ok(Zeroizing::new(line.trim().to_owned()))
}

/// Whether these are the first lines of a token, and not all.
fn is_part_of_token(lines: &str) -> bool {
    let is_wrapped = |c: char| c.is_ascii_alphanumeric() || c.is_whitespace() || c == '>';
    let read = text::decode(TextKind::Token, lines, MAX_TOKEN);
    lines.ends_with('\n') && lines.chars().all(is_wrapped) && read.is_err_and(|e| e == DAMAGED)
}

/// Returns the places of secrets, after their prefixes. Damaged ones count: they can be guessed.
fn secrets(bytes: &[u8]) -> Vec<Range<usize>> {
    let is_part = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_alphanumeric);
    let mut found = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let end = (at..).find(|at| !is_part(*at)).unwrap_or(bytes.len());
        let word = &bytes[at..end];
        let mut kinds = TextKind::ALL.into_iter().filter(|kind| kind.is_secret());
        if let Some(kind) = kinds.find(|kind| word.starts_with(kind.prefix().as_bytes())) {
            let start = at + kind.prefix().len();
            if start < end {
                found.push(start..end);
            }
        }
        at = end + 1;
    }
    found
}

/// Returns a secret's place with what a mail program has wrapped to further lines of its argument.
fn with_lines(bytes: &[u8], secret: &Range<usize>) -> Range<usize> {
    let is_part = |byte: &&u8| match byte {
        b'>' => true,
        byte => !byte.is_ascii() || byte.is_ascii_alphanumeric() || byte.is_ascii_whitespace(),
    };
    let rest = bytes.get(secret.end..).unwrap_or_default();
    secret.start..secret.end + rest.iter().take_while(is_part).count()
}

/// Overwrites the secrets of `all` in the kernel's view of this process's arguments.
fn blot(all: &[OsString]) -> Option<()> {
    let mut bytes = Zeroizing::new(Vec::new());
    for argument in all {
        bytes.extend_from_slice(argument.as_bytes());
        bytes.push(0);
    }
    // the process that started this one may have replaced the arguments
    let shown = Zeroizing::new(fs::read("/proc/self/cmdline").ok()?);
    if *shown != *bytes {
        return None;
    }
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // the name in parentheses may contain any character
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let start: usize = fields.nth(BEFORE_ARGUMENTS)?.parse().ok()?;
    if start == 0 {
        return None;
    }
    for secret in secrets(&bytes) {
        for at in with_lines(&bytes, &secret) {
            // SAFETY: the kernel put the arguments there, in one piece as compared above, on this
            // process's writable stack. std copies arguments: no reference to them lives
            unsafe {
                std::ptr::with_exposed_provenance_mut::<u8>(start + at).write_volatile(BLOT);
            }
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_found_wherever_they_stand() {
        for (text, shown) in [
            ("lct1abc", "lct1..."),
            ("--token=lct1abc", "--token=lct1..."),
            ("lct1abc,lcr1DEF,news", "lct1...,lcr1...,news"),
            ("https://a.example/#lct1abc", "https://a.example/#lct1..."),
            ("'lcs1abc': damaged", "'lcs1...': damaged"),
            (
                "lcg1a lch1b lck1c lcb1d\n",
                "lcg1... lch1... lck1... lcb1...\n",
            ),
            // prefixes alone, other words, and public texts
            ("this is a token (lct1), not", "this is a token (lct1), not"),
            ("xlct1abc lct2abc lct", "xlct1abc lct2abc lct"),
            ("lcx1abc lca1abc", "lcx1abc lca1abc"),
            ("", ""),
        ] {
            assert_eq!(without_secrets(text), shown);
            assert_eq!(has_secret(text.as_bytes()), text != shown);
        }
        assert!(has_secret(b"\xff lct1abc"));
        assert_eq!(
            without_secrets("\u{e9}lct1abc\u{e9}"),
            "\u{e9}lct1...\u{e9}"
        );
    }

    #[test]
    fn all_lines_of_a_wrapped_secret_are_overwritten() {
        let bytes = b"up\0> lct1abc\n> def g\0--name\0";
        let places = secrets(bytes);
        let [secret] = &places[..] else {
            panic!("{places:?}");
        };
        assert_eq!(&bytes[with_lines(bytes, secret)], b"abc\n> def g");
    }

    #[test]
    fn a_secret_is_an_argument_or_a_line() {
        assert_eq!(*secret("lct1abc").unwrap(), "lct1abc");
        let mut input = &b"\n \n lck1abc \nquestion\n"[..];
        assert_eq!(*first_line(&mut input).unwrap(), "lck1abc");
        assert_eq!(input, b"question\n");
        assert_eq!(*first_line(&b""[..]).unwrap(), "");
        let token = text::encode(TextKind::Token, &[7; 90]);
        let (one, two) = token.split_at(72);
        let wrapped = format!("> {one}\n> {two}\nquestion\n");
        let mut input = wrapped.as_bytes();
        let read = first_line(&mut input).unwrap();
        assert_eq!(
            text::decode(TextKind::Token, &read, 90).unwrap()[..],
            [7; 90]
        );
        assert_eq!(input, b"question\n");
        let mut damaged = &b"lct1abc\n\nquestion\n"[..];
        first_line(&mut damaged).unwrap();
        assert_eq!(damaged, b"question\n");
        let endless = vec![b'x'; 1 << 20];
        let read = first_line(&endless[..]).unwrap();
        assert_eq!(read.len() as u64, MAX_SECRET);
    }
}
