//! `lcsync receive CODE`: what somebody sends under a code of four words.
//!
//! The program executes itself as a guest by the code. Inside it waits for a beacon, and for a
//! second one of somebody else; then it fetches the share that the beacon's key has signed.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use librecast::code::Code;
use librecast::code::beacon::{BEACON_PORT, Beacon, Offer, Outcome, ReceivedBeacons, beacon_group};
use librecast::id::PeerId;
use librecast::socket::ReceiveSockets;
use librecast_program::cli::{Exit, ExitError};
use librecast_program::guest;
use librecast_program::guest_state::Inside;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::receive::sent::Sent;
use crate::receive::transfer;
use crate::send::{INTERFACE, SHARE, interface};

/// Stands for the code of the guest that this program runs in.
const OF_GUEST: &str = "-";
/// Time to wait for a beacon. With the guest's start it is less than 15 s.
const NOBODY: Duration = Duration::from_secs(10);
/// Interval of looks at the state while nothing comes, in milliseconds.
const LOOK_MILLIS: u16 = 100;

/// Options of the command line.
#[derive(Debug)]
pub struct Options {
    /// The code, in one argument or several, and the folder to receive into.
    pub arguments: Vec<OsString>,
    /// Replace what is there.
    pub overwrite: bool,
    /// Ask nothing.
    pub yes: bool,
    /// Give up after so long without a packet.
    pub timeout: Duration,
    /// Bits per second to receive.
    pub limit: Option<u64>,
    /// JSON lines.
    pub json: bool,
    /// Print nothing.
    pub quiet: bool,
}

/// Receives what is sent.
pub fn receive(options: &Options) -> anyhow::Result<Exit> {
    if let Some(inside) = Inside::of_environment()?
        && options
            .arguments
            .first()
            .is_some_and(|code| code == OF_GUEST)
    {
        return receive_inside(options, &inside);
    }
    let (code, dest) = code_of(&options.arguments)?;
    let mut arguments: Vec<OsString> = vec!["receive".into()];
    let flags = [
        (options.overwrite, "--overwrite"),
        (options.yes, "--yes"),
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
    let words = |count: usize| -> Option<String> {
        let words: Vec<&str> = arguments
            .get(..count)?
            .iter()
            .filter_map(|a| a.to_str())
            .collect();
        Some(words.join(" "))
    };
    let mut error = None;
    for count in [1, librecast::code::WORDS] {
        match words(count).map(|words| words.parse::<Code>()) {
            Some(Ok(code)) => {
                let dest = match &arguments[count..] {
                    [] => ".".into(),
                    [dest] => dest.clone(),
                    _ => return Err(usage("one DEST follows the words".to_owned())),
                };
                return Ok((code, dest));
            }
            Some(Err(e)) => error = Some(e),
            None => {}
        }
    }
    // the parser requires an argument
    Err(usage(error.map_or_else(String::new, |e| e.to_string())))
}

fn receive_inside(options: &Options, inside: &Inside) -> anyhow::Result<Exit> {
    let dest = options
        .arguments
        .get(1)
        .map_or_else(|| ".".into(), PathBuf::from);
    let beacon = wait_for_beacon(inside)?;
    if beacon.offer != Offer::Files {
        let (from, what) = (&beacon.from, beacon.offer.name());
        bail!("{from} offers {what} under these words, and no files");
    }
    let signer: PeerId = beacon
        .line
        .parse()
        .context("the sender's key (is it of another version?)")?;
    transfer::receive(&transfer::Options {
        name: SHARE.into(),
        part: None,
        pinned: None,
        seed: false,
        watch: false,
        stats: false,
        key: None,
        trust: Some(signer),
        sent: Some(Sent {
            from: beacon.from,
            signer: beacon.line,
            overwrite: options.overwrite,
            yes: options.yes,
        }),
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

/// Waits for the beacon of one sender.
fn wait_for_beacon(inside: &Inside) -> anyhow::Result<Beacon> {
    let group = beacon_group(&inside.read()?.beacon_key());
    let mut sockets = ReceiveSockets::open(BEACON_PORT)?;
    sockets.join(group, interface()?)?;
    let mut heard = ReceivedBeacons::default();
    let until = Instant::now() + NOBODY;
    loop {
        let mut fds: Vec<_> = sockets
            .fds()
            .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
            .collect();
        match poll(&mut fds, PollTimeout::from(LOOK_MILLIS)) {
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(e) => return Err(e.into()),
        }
        let now = Instant::now();
        sockets.receive(|datagram| heard.handle(datagram.source, datagram.payload, now))?;
        match heard.outcome(now) {
            Some(Outcome::One(beacon)) => return Ok(beacon.clone()),
            Some(Outcome::Several(one, other)) => {
                let message = format!(
                    "two send under these words, {} and {}: one of them may not be whom you mean, and nothing was received; ask for new words",
                    one.from, other.from
                );
                return Err(ExitError::new(Exit::NotPermitted, message).into());
            }
            None if now >= until && heard.until().is_none() => return Err(nobody(inside).into()),
            None => {}
        }
    }
}

fn nobody(inside: &Inside) -> ExitError {
    let (present, code) = match inside.read() {
        Ok(state) => (state.present, state.code.clone()),
        Err(_) => (0, String::new()),
    };
    let message = match (present, code.contains('@')) {
        (1.., _) => {
            "others are here under these words, but nobody sends: does `lcsync send` still run?"
                .to_owned()
        }
        (0, true) => format!(
            "nobody is here under these words after {} s: are they right, and does `lcsync send` still run?",
            NOBODY.as_secs()
        ),
        (0, false) => format!(
            "nobody is here under these words after {} s: are they right, does `lcsync send` still run, and is it on this LAN? Beyond a LAN the words need a server: WORDS@HOST",
            NOBODY.as_secs()
        ),
    };
    ExitError::new(Exit::Unreachable, message)
}

#[cfg(test)]
mod tests {
    use super::*;

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
        for wrong in [
            &["abandon", "zoo", "quality"][..],
            &["abandon-zoo-quality-lemon", "d", "e"],
            &["abandon", "zoo", "quality", "lemmon"],
        ] {
            assert_eq!(of(wrong).unwrap_err().exit, Exit::Usage, "{wrong:?}");
        }
    }
}
