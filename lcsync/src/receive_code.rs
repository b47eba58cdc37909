//! `lcsync receive CODE`: receives files under a code of four words.
//!
//! The program executes itself as a guest by the code. Inside it waits for a beacon, and for a
//! second one of somebody else; then it fetches the share that the beacon's key has signed.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use librecast::code::Code;
use librecast::code::beacon::Offer;
use librecast_program::arguments::STANDARD_INPUT;
use librecast_program::cli::{Exit, ExitError};
use librecast_program::code::{self, INTERFACE};
use librecast_program::guest;

use crate::receive::sent::Sent;
use crate::receive::transfer;
use crate::send::SHARE;
use crate::sent_line::SentLine;

/// Stands for the code of the guest that this program runs in.
const OF_GUEST: &str = "-";
/// DEST where the user has named none.
const HERE: &str = ".";

/// Options of the command line.
#[derive(Debug)]
pub struct Options {
    /// The code, in one argument or several, and the folder to receive into.
    pub arguments: Vec<OsString>,
    /// Replace existing files.
    pub overwrite: bool,
    /// Ask nothing about sizes and numbers.
    pub yes: bool,
    /// Take hidden names and replace links without a question.
    pub hidden: bool,
    /// Give up after this long without a packet.
    pub timeout: Duration,
    /// Bits per second to receive.
    pub limit: Option<u64>,
    /// JSON lines.
    pub json: bool,
    /// Print nothing.
    pub quiet: bool,
}

/// Receives the files.
pub fn receive(options: &Options) -> anyhow::Result<Exit> {
    if options
        .arguments
        .first()
        .is_some_and(|code| code == OF_GUEST)
    {
        return receive_inside(options);
    }
    let (code, dest) = code_of(&options.arguments)?;
    let mut arguments: Vec<OsString> = vec!["receive".into()];
    let flags = [
        (options.overwrite, "--overwrite"),
        (options.yes, "--yes"),
        (options.hidden, "--hidden"),
        (options.json, "--json"),
        (options.quiet, "--quiet"),
    ];
    let flags = flags.into_iter().filter(|(given, _)| *given);
    arguments.extend(flags.map(|(_, flag)| flag.into()));
    let millis = options.timeout.as_millis();
    arguments.push(format!("--timeout={millis}ms").into());
    if let Some(limit) = options.limit {
        arguments.push(format!("--bwlimit={limit}").into());
    }
    arguments.extend(["--".into(), OF_GUEST.into(), dest]);
    Err(guest::join(&code.encode(), &arguments).into())
}

/// Returns the code, given as one argument or as its words, and DEST.
fn code_of(arguments: &[OsString]) -> Result<(Code, OsString), ExitError> {
    let usage = |message: String| ExitError::new(Exit::Usage, message);
    let first = arguments.first().and_then(|first| first.to_str());
    if let Some(share) = first.filter(|first| first.starts_with("lc:")) {
        let message =
            format!("{share} is a share, not the words of `lcsync send`: lcsync {share} DEST");
        return Err(usage(message));
    }
    let (code, count) = code::of_arguments(arguments).map_err(|e| usage(e.to_string()))?;
    match &arguments[count..] {
        [] => Ok((code, HERE.into())),
        [dest] => Ok((code, dest.clone())),
        _ => Err(usage("one DEST follows the words".to_owned())),
    }
}

fn receive_inside(options: &Options) -> anyhow::Result<Exit> {
    let dest = options
        .arguments
        .get(1)
        .map_or_else(|| HERE.into(), PathBuf::from);
    let beacon = code::wait_for(Offer::Files, options.quiet)?;
    let line: SentLine = beacon
        .line
        .parse()
        .context("the sender's key (is it of another version?)")?;
    let dest = match prints(line, &dest, options.json) {
        true => STANDARD_INPUT.into(),
        false => dest,
    };
    transfer::receive(&transfer::Options {
        name: SHARE.into(),
        part: None,
        pinned: None,
        seed: false,
        no_seed: false,
        watch: false,
        stats: false,
        key: None,
        trust: Some(line.signer),
        sent: Some(Sent {
            from: beacon.from,
            signer: line.signer.to_string(),
            overwrite: options.overwrite,
            yes: options.yes,
        }),
        hidden: options.hidden,
        dest,
        write_devices: false,
        interfaces: vec![INTERFACE.into()],
        timeout: options.timeout,
        dry_run: false,
        archive: false,
        delete: false,
        max_delete: None,
        sparse: false,
        limit: options.limit,
        json: options.json,
        verbose: false,
        quiet: options.quiet,
    })
}

/// Whether standard output is DEST: of a text, unless the user has named a folder or wants JSON.
fn prints(line: SentLine, dest: &Path, json: bool) -> bool {
    line.is_text && !json && dest.as_os_str() == HERE
}

#[cfg(test)]
mod tests {
    use librecast::id::SecretKey;

    use super::*;

    #[test]
    fn a_text_is_printed_unless_a_folder_is_named() {
        let signer = SecretKey::from_seed(&[7; 32]).peer_id();
        let prints =
            |is_text, dest: &str, json| prints(SentLine { signer, is_text }, Path::new(dest), json);
        assert!(prints(true, HERE, false));
        assert!(!prints(true, "folder", false));
        assert!(!prints(true, HERE, true));
        assert!(!prints(false, HERE, false));
    }

    #[test]
    fn the_words_may_be_one_argument_or_four() {
        let of = |arguments: &[&str]| {
            let arguments: Vec<_> = arguments.iter().map(OsString::from).collect();
            code_of(&arguments).map(|(code, dest)| (code.encode().to_string(), dest))
        };
        let right = |dest: &str| Ok(("abandon-zoo-quality-lemon".to_owned(), dest.into()));
        let same = |a: Result<_, ExitError>, b: Result<_, String>| {
            assert_eq!(a.map_err(|e| e.to_string()), b);
        };
        same(of(&["abandon-zoo-quality-lemon"]), right("."));
        same(of(&["abandon zoo quality lemon", "d"]), right("d"));
        same(of(&["Abandon", "Zoo", "Quality", "Lemon"]), right("."));
        same(of(&["aban", "zoo", "qual", "lemo", "d"]), right("d"));
        let share = of(&["lc:news", "d"]).unwrap_err().to_string();
        assert!(share.ends_with(": lcsync lc:news DEST"), "{share}");
        for wrong in [
            &["abandon", "zoo", "quality"][..],
            &["abandon-zoo-quality-lemon", "d", "e"],
            &["abandon", "zoo", "quality", "lemmon"],
        ] {
            assert_eq!(of(wrong).unwrap_err().exit, Exit::Usage, "{wrong:?}");
        }
    }
}
