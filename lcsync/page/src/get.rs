//! The receiver in a page: beacons of a code, then the share that they name.

use std::collections::VecDeque;
use std::net::Ipv6Addr;

use lcroute_web_page::{Command, Datagram};
use lcsync::opener::Opener;
use lcsync::receive::choice::Proof;
use lcsync::receive::core::{Event, Failure, Receiver, Settings};
use lcsync::sent_line::SentLine;
use lcsync::signature::Trust;
use librecast::channel::{LCSYNC_PORT, ROOT_CHANNEL, SharePrefix, channel_of};
use librecast::code::beacon::{BEACON_PORT, Offer, Outcome, ReceivedBeacons, beacon_group};
use librecast::time::{Duration, Instant};
use serde::Serialize;

use crate::files::{File, Files, Piece};
use crate::link::Wanted;

/// Name of the share under a code, as `lcsync send` has it.
pub(crate) const SHARE: &str = "files";
/// Silence after which the page gives up: as `lcsync` does.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Blocks under way at a time. Chosen: a leaf has 64 groups, and a change leaves later than here.
const MOST_BLOCKS: usize = 48;
/// Bits a second that a page receives, as programs in a leaf do: a router drops packets to leaves
/// beyond 50 Mbit/s, by default.
const LEAF_RATE: u64 = 45_000_000;
/// The longest pause between two looks at beacons.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Where it stands.
#[derive(Debug)]
enum Phase {
    /// It listens for beacons.
    Beacons(Ipv6Addr, ReceivedBeacons),
    /// It receives a share.
    Share(Box<Share>),
    /// It has given up, for this reason.
    Ended(String),
}

#[derive(Debug)]
struct Share {
    prefix: SharePrefix,
    name: String,
    receiver: Receiver,
    files: Option<Files>,
}

/// The receiver.
#[derive(Debug)]
pub struct PageGet {
    phase: Phase,
    /// The sender's name, and the key that has signed it.
    sender: Option<(String, String)>,
    joined: Vec<Ipv6Addr>,
    commands: VecDeque<Command>,
    /// A text for the user beside the state.
    notice: Option<&'static str>,
    now: Instant,
}

/// The state, for the page.
#[derive(Debug, Serialize)]
struct Status<'a> {
    /// `beacons`, `share`, `files` or `ended`.
    phase: &'static str,
    problem: Option<&'a str>,
    notice: Option<&'static str>,
    from: Option<&'a str>,
    signer: Option<&'a str>,
    files: &'a [File],
    /// Whether something was left out, as it is not a file.
    others: bool,
    /// Recent loss, 0 to 1.
    loss: f64,
}

impl PageGet {
    /// Begins to listen.
    #[must_use]
    pub fn new(wanted: Wanted, now: Instant) -> Self {
        let mut get = Self {
            phase: Phase::Ended(String::new()),
            sender: None,
            joined: Vec::new(),
            commands: VecDeque::new(),
            notice: None,
            now,
        };
        match wanted {
            Wanted::Code(key) => {
                let group = beacon_group(&key);
                get.phase = Phase::Beacons(group, ReceivedBeacons::default());
                get.join(group);
            }
            Wanted::Share(name) => get.begin(&name, Proof::None),
        }
        get
    }

    /// Begins to receive a share.
    fn begin(&mut self, name: &str, proof: Proof) {
        let prefix = SharePrefix::of_name(b"", name);
        let settings = Settings {
            pinned: None,
            proof,
            floor: 0,
            opener: Opener::default(),
            limit: Some(LEAF_RATE),
            timeout: TIMEOUT,
            own_server: None,
            overlay: None,
        };
        let mut receiver = Receiver::new(settings, self.now);
        receiver.set_room(MOST_BLOCKS, self.now);
        self.phase = Phase::Share(Box::new(Share {
            prefix,
            name: name.to_owned(),
            receiver,
            files: None,
        }));
        self.join(prefix.group(ROOT_CHANNEL));
    }

    fn join(&mut self, group: Ipv6Addr) {
        self.joined.push(group);
        self.commands.push_back(Command::Join(group));
    }

    fn leave(&mut self, group: Ipv6Addr) {
        self.joined.retain(|joined| *joined != group);
        self.commands.push_back(Command::Leave(group));
    }

    fn end(&mut self, why: impl Into<String>) {
        for group in std::mem::take(&mut self.joined) {
            self.commands.push_back(Command::Leave(group));
        }
        self.phase = Phase::Ended(why.into());
    }

    /// Handles a datagram of the member.
    pub fn handle_datagram(&mut self, datagram: Datagram<'_>, now: Instant) {
        self.now = now;
        match &mut self.phase {
            Phase::Beacons(group, received)
                if datagram.group == *group && datagram.port == BEACON_PORT =>
            {
                received.handle(datagram.source, datagram.data, now);
            }
            Phase::Share(share)
                if datagram.port == LCSYNC_PORT
                    && SharePrefix::of_group(datagram.group) == Some(share.prefix) =>
            {
                let channel = channel_of(datagram.group);
                let (data, from) = (datagram.data, datagram.source);
                share.receiver.handle_datagram(channel, data, from, 0, now);
            }
            _ => {}
        }
        self.turn();
    }

    /// Handles the passing of time.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.now = now;
        if let Phase::Share(share) = &mut self.phase {
            share.receiver.handle_timeout(now);
        }
        self.turn();
    }

    /// Returns when [`Self::handle_timeout`] is due.
    #[must_use]
    pub fn next_timeout(&self) -> Instant {
        let latest = self.now + LOOK_EVERY;
        match &self.phase {
            Phase::Share(share) => share.receiver.next_timeout().min(latest),
            _ => latest,
        }
    }

    fn turn(&mut self) {
        if let Phase::Beacons(group, received) = &self.phase {
            let group = *group;
            match received.outcome(self.now) {
                None => {}
                Some(Outcome::Several(one, other)) => {
                    let why = format!(
                        "Two send under these words, {} and {}: one of them may not be whom you mean. Nothing was received. Ask for new words.",
                        one.from, other.from
                    );
                    self.end(why);
                }
                Some(Outcome::One(beacon)) if beacon.offer != Offer::Files => {
                    let (from, what) = (&beacon.from, beacon.offer.name());
                    let why = format!("{from} offers {what} under these words, and no files.");
                    self.end(why);
                }
                Some(Outcome::One(beacon)) => match beacon.line.parse::<SentLine>() {
                    Ok(SentLine { signer, .. }) => {
                        let proof = Proof::Signed(Trust::new(signer, SHARE, self.now));
                        self.sender = Some((beacon.from.clone(), signer.to_string()));
                        self.leave(group);
                        self.begin(SHARE, proof);
                    }
                    Err(_) => self.end("What is sent is of another version of lcsync."),
                },
            }
        }
        while let Phase::Share(share) = &mut self.phase
            && let Some(event) = share.receiver.poll_event(self.now)
        {
            self.handle(event);
        }
    }

    fn handle(&mut self, event: Event) {
        let Phase::Share(share) = &mut self.phase else {
            return;
        };
        let prefix = share.prefix;
        match event {
            Event::Join(channel) => self.join(prefix.group(channel)),
            Event::Leave(channel) => self.leave(prefix.group(channel)),
            Event::Tree(found) => match Files::new(found.1, &share.name) {
                Ok(files) => share.files = Some(files),
                Err(why) => self.end(why),
            },
            Event::Changed => {
                if share.files.take().is_some() {
                    self.notice = Some("The sender has changed the files: choose again.");
                }
            }
            Event::Block { block, bytes } => {
                if let Some(files) = &mut share.files {
                    files.take(block, &bytes);
                }
            }
            Event::Failed(failure) => self.end(sentence(&failure)),
            Event::Untrusted(_) => {
                self.notice = Some(
                    "Somebody else sends files under the same name, which the sender has not signed: they are ignored.",
                );
            }
            Event::Fetched
            | Event::Record { .. }
            | Event::Conflict { .. }
            | Event::Rival { .. }
            | Event::RolledBack(_)
            | Event::CorruptSource(_)
            | Event::Version(_) => {}
        }
    }

    /// Fetches files by their numbers.
    ///
    /// # Errors
    /// An explanation for users.
    pub fn want(&mut self, numbers: &[usize], now: Instant) -> Result<(), String> {
        self.now = now;
        if let Phase::Share(share) = &mut self.phase
            && let Some(files) = &mut share.files
        {
            files.want(numbers)?;
            self.notice = None;
            let (wanted, leaves) = files.missing();
            share.receiver.fetch(&wanted, leaves, now);
        }
        self.turn();
        Ok(())
    }

    /// Returns the next command for the member.
    pub fn poll_command(&mut self) -> Option<Command> {
        self.commands.pop_front()
    }

    /// Returns the next piece of a file.
    pub fn poll_piece(&mut self) -> Option<Piece> {
        match &mut self.phase {
            Phase::Share(share) => share.files.as_mut()?.poll_piece(),
            _ => None,
        }
    }

    /// Returns the state as JSON.
    #[must_use]
    pub fn status(&self) -> String {
        let (phase, problem, share) = match &self.phase {
            Phase::Beacons(..) => ("beacons", None, None),
            Phase::Share(share) if share.files.is_none() => ("share", None, Some(share)),
            Phase::Share(share) => ("files", None, Some(share)),
            Phase::Ended(why) => ("ended", Some(why.as_str()), None),
        };
        let files = share.and_then(|share| share.files.as_ref());
        let status = Status {
            phase,
            problem,
            notice: self.notice,
            from: self.sender.as_ref().map(|(from, _)| from.as_str()),
            signer: self.sender.as_ref().map(|(_, signer)| signer.as_str()),
            files: files.map_or(&[], Files::all),
            others: files.is_some_and(Files::has_others),
            loss: share.map_or(0.0, |share| share.receiver.loss()),
        };
        serde_json::to_string(&status).unwrap_or_default()
    }
}

fn sentence(failure: &Failure) -> String {
    match failure {
        Failure::Silence | Failure::NoVersion => {
            "The sender is gone: does `lcsync send` still run? Load this page again when it does."
                .to_owned()
        }
        Failure::NoBlocks => {
            "The sender is there, but nothing of the files comes: is its network busy, or has a firewall changed?".to_owned()
        }
        Failure::Tree(why) => format!("What is sent makes no sense: {why}."),
    }
}
