//! `meet`: links two hosts by texts that people exchange.

use std::io::{IsTerminal, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use lcroute_control::Request;
use lcroute_control::client::Client;
use lcroute_control::text;
use librecast::id::PeerId;
use librecast_program::arguments;
use librecast_program::cli::{Exit, ExitError};
use librecast_program::units::utc;
use serde::Deserialize;
use serde_json::json;
use terminal_size::{Height, Width};

use super::{hint, print_line};

/// Assumed size of a terminal that does not report it.
const USUAL_SIZE: (usize, usize) = (80, 24);
/// Timeout for addresses and answers of STUN servers.
const ADDRESSES_WITHIN: Duration = Duration::from_secs(5);
/// Time between looks at the addresses of a daemon that has just started. Chosen.
const AGAIN: Duration = Duration::from_millis(200);

/// The daemon's answer about its own record.
#[derive(Debug, Deserialize)]
struct Own {
    record: Option<String>,
    until: Option<u64>,
    settled: bool,
    /// `[ice] policy = "relay"`
    #[serde(default)]
    hidden: bool,
}

/// Owner of the record that the daemon has accepted.
#[derive(Debug, Deserialize)]
struct Taken {
    peer_id: PeerId,
    name: Option<String>,
    until: u64,
}

/// Prints this node's text: as a block, as a QR code, or as a picture of one.
pub fn give(control: &Path, qr: Option<Option<PathBuf>>, json: bool) -> anyhow::Result<Exit> {
    let (record, good_until) = own_record(control)?;
    let until = utc(good_until);
    if json {
        print_line(json!({ "text": text::line(&record), "good_until": good_until }))?;
        return Ok(Exit::Ok);
    }
    match qr {
        None => {
            let block = text::write(&record, &[("Good-Until", &until)]);
            print_line(block.trim_end())?;
            hint(format_args!(
                "give this text to another node of the network, which takes it by `lcroute meet --with FILE`, and take its text; good until {until}"
            ));
        }
        Some(None) => {
            print_code(&text::line(&record))?;
            hint(format_args!("good until {until}"));
        }
        Some(Some(file)) => {
            write_code(&file, &text::line(&record))?;
            hint(format_args!("{}: good until {until}", file.display()));
        }
    }
    Ok(Exit::Ok)
}

/// Returns this node's record and its expiry. A daemon that has just started may lack addresses.
fn own_record(control: &Path) -> anyhow::Result<(Vec<u8>, u64)> {
    let mut client = Client::connect(control)?;
    let begin = Instant::now();
    loop {
        let own: Own = client.ask(&Request::Meet)?;
        if own.hidden {
            let why = "a text would show this host's addresses to all who read it ([ice] policy = \"relay\"); `lcroute meet --with` takes the text of a member that `disclose` names by its key";
            return Err(ExitError::new(Exit::Failed, why).into());
        }
        let (late, found) = (
            begin.elapsed() > ADDRESSES_WITHIN,
            own.record.zip(own.until),
        );
        match found {
            Some((record, until)) if own.settled || late => {
                return Ok((bs58::decode(record).into_vec()?, until));
            }
            None if late => {
                let why = "this host has no address that another could reach";
                return Err(ExitError::new(Exit::Unreachable, why).into());
            }
            _ => thread::sleep(AGAIN),
        }
    }
}

/// Reads texts of other nodes from a file, or from standard input (`-`).
pub fn take(control: &Path, from: &str, json: bool) -> anyhow::Result<Exit> {
    let mut input = Vec::new();
    let most = text::MAX_TEXT as u64 + 1;
    match from {
        "-" => {
            if std::io::stdin().is_terminal() {
                hint("paste the other node's text, then Ctrl-D");
            }
            librecast_program::standard::input()
                .take(most)
                .read_to_end(&mut input)?;
        }
        file => {
            let opened = std::fs::File::open(file).with_context(|| file.to_owned())?;
            opened.take(most).read_to_end(&mut input)?;
        }
    }
    let records = text::read(&input).map_err(|e| ExitError::new(Exit::Usage, e.to_string()))?;
    let mut client = Client::connect(control)?;
    for record in records {
        let record = bs58::encode(record).into_string();
        let taken: Taken = client.ask(&Request::Take { record })?;
        let until = utc(taken.until);
        if json {
            print_line(json!({
                "peer_id": taken.peer_id, "name": taken.name, "good_until": taken.until,
            }))?;
        } else {
            let name = taken.name.unwrap_or_else(|| taken.peer_id.to_string());
            print_line(format_args!("{name} is looked for until {until}"))?;
            hint(
                "it must take this node's text, too, unless its firewall lets UDP in; `lcroute peers` shows the link",
            );
        }
    }
    Ok(Exit::Ok)
}

/// Prints a QR code.
pub(super) fn print_code(text: &str) -> anyhow::Result<()> {
    let (columns, rows) = terminal_size();
    let colours = std::io::stdout().is_terminal();
    // colours need a terminal
    let code = text::qr(text, columns, rows, colours)?;
    let mut out = librecast_program::standard::output();
    writeln!(out, "{}", code.trim_end_matches('\n'))?;
    Ok(out.flush()?)
}

/// Prints the QR code of a line of standard input.
pub fn code_of_input() -> anyhow::Result<Exit> {
    let text = arguments::secret(arguments::STANDARD_INPUT).context("standard input")?;
    print_code(&text)?;
    Ok(Exit::Ok)
}

/// Writes a QR code to a file that only its owner may read: an SVG by its name, else a PNG.
pub(super) fn write_code(file: &Path, text: &str) -> anyhow::Result<()> {
    let is_svg = file
        .extension()
        .is_some_and(|e| e.eq_ignore_ascii_case("svg"));
    let picture = match is_svg {
        true => text::qr_svg(text)?.into_bytes(),
        false => text::qr_png(text)?,
    };
    let mut options = std::fs::OpenOptions::new();
    let opened = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(file);
    let written = opened.and_then(|mut to| to.write_all(&picture));
    written.with_context(|| file.display().to_string())
}

/// Returns columns and rows for a code; the last row is the prompt's.
fn terminal_size() -> (usize, usize) {
    match terminal_size::terminal_size() {
        Some((Width(columns), Height(rows))) => {
            (columns.into(), usize::from(rows).saturating_sub(1))
        }
        None => USUAL_SIZE,
    }
}
