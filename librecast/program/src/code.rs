//! Offers under a code: a sender repeats its own in beacons, a receiver waits for one.
//!
//! Both programs run in a guest by the code, and execute themselves in one if they do not.

use std::ffi::OsString;
use std::io;
use std::net::Ipv6Addr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use librecast::code::beacon::{
    BEACON_INTERVAL, BEACON_PORT, Beacon, LISTEN, Offer, Outcome, ReceivedBeacons, beacon_group,
};
use librecast::code::{Code, CodeError};
use librecast::socket::{ReceiveSockets, SendSocket, multicast_interfaces};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::arguments;
use crate::cli::{Exit, ExitError, MDNS_RULE, note};
use crate::guest::{self, Founded};
use crate::guest_state::{GuestState, Inside};

/// The interface of a guest.
pub const INTERFACE: &str = "lc0";
/// The option that stands for the code of the guest.
const OF_GUEST: &str = "--code";
/// Hop limit of beacons: they may reach the whole network.
pub const HOP_LIMIT: u8 = 64;
/// Time for a link to a present sender. Chosen: links take a second or two.
const ALONE: Duration = Duration::from_secs(4);
/// Interval of looks for others meanwhile.
const LOOK: Duration = Duration::from_millis(200);
/// Time after which a wait is explained.
const SILENT: Duration = Duration::from_secs(2);
/// Time to wait for a beacon. With the guest's start it is less than 15 s.
const NOBODY: Duration = Duration::from_secs(10);

/// Returns the command that sends offers of this kind, for users.
fn sends(offer: Offer) -> &'static str {
    match offer {
        Offer::Files => "lcsync send",
        Offer::Station => "lcradio cast --code",
        Offer::Session => "lcstudio present --code",
        Offer::Group => "lcgroup",
        Offer::Token => "lcroute invite --code",
    }
}

/// Returns the command that receives such offers, for users.
fn receives(offer: Offer) -> &'static str {
    match offer {
        Offer::Files => "lcsync receive",
        Offer::Station => "lcradio listen",
        Offer::Session => "lcstudio attend",
        Offer::Group => "lcgroup",
        Offer::Token => "lcroute up",
    }
}

/// Returns the index of the guest's interface.
pub fn interface() -> anyhow::Result<u32> {
    let found = multicast_interfaces(&[INTERFACE.to_owned()])?;
    let first = found.keys().next().copied();
    first.context("there is no lc0, which guests have")
}

/// A sender's place under the code of its guest.
#[derive(Debug)]
pub struct Offering {
    inside: Inside,
    group: Ipv6Addr,
    socket: SendSocket,
    received: ReceiveSockets,
    own: Ipv6Addr,
    heard: ReceivedBeacons,
    /// The last beacon that this program has sent.
    sent: Vec<u8>,
    told: bool,
}

impl Offering {
    /// Takes the place. A program in no guest executes itself in one that makes a code, so this
    /// precedes other threads.
    ///
    /// # Errors
    /// Somebody sends under the code already; the sockets of the guest; `lcroute` cannot be
    /// executed.
    pub fn begin() -> anyhow::Result<Self> {
        let Some(inside) = Inside::of_environment()? else {
            return Err(guest::found(Founded::Code).into());
        };
        let state = inside.read()?;
        if state.code.is_empty() {
            let message =
                "this guest's network has no code: outside of it the same command makes one";
            return Err(ExitError::new(Exit::Usage, message).into());
        }
        let group = beacon_group(&state.beacon_key());
        let index = interface()?;
        let socket = SendSocket::open(index, group, BEACON_PORT, HOP_LIMIT).context(INTERFACE)?;
        let mut received = ReceiveSockets::open(BEACON_PORT)?;
        received.join(group, index)?;
        let mut offering = Self {
            inside,
            group,
            own: socket.source()?,
            socket,
            received,
            heard: ReceivedBeacons::default(),
            sent: Vec::new(),
            told: false,
        };
        if !state.founds {
            offering.refuse_second()?;
        }
        Ok(offering)
    }

    /// Returns the state of the guest. Half of a change may be read: then the next second has it.
    ///
    /// # Errors
    /// As [`Inside::read`].
    pub fn state(&self) -> io::Result<GuestState> {
        self.inside.read()
    }

    /// Sends a beacon.
    ///
    /// # Errors
    /// A text in it is too long.
    pub fn send(&mut self, beacon: &Beacon) -> anyhow::Result<()> {
        let bytes = beacon.encode()?;
        // a full queue: the next second has one
        if let Err(e) = self.socket.send(self.group, &bytes, bytes.len()) {
            tracing::debug!("beacon: {e}");
        }
        self.sent = bytes;
        Ok(())
    }

    /// Listens for an interval of beacons, and warns the user of another sender, once.
    pub fn listen(&mut self) -> io::Result<()> {
        if let Some(other) = self.listen_until(Instant::now() + BEACON_INTERVAL)?
            && !std::mem::replace(&mut self.told, true)
        {
            note(format_args!(
                "somebody else, {other}, sends under these words, too: receivers take nothing; begin again, and pass on the new words"
            ));
        }
        Ok(())
    }

    /// Repeats an offer of this kind in a thread, until the process ends.
    ///
    /// # Errors
    /// A text is too long; there is no thread.
    pub fn repeat(mut self, offer: Offer, line: &str) -> anyhow::Result<()> {
        let beacon = Beacon {
            offer,
            from: self.state()?.name.clone(),
            bytes: 0,
            files: 0,
            line: line.to_owned(),
        };
        self.send(&beacon)?;
        let repeat = move || loop {
            let listened = self.listen().map_err(anyhow::Error::from);
            if let Err(e) = listened.and_then(|()| self.send(&beacon)) {
                tracing::warn!("beacons of the code: {e}");
                thread::sleep(BEACON_INTERVAL);
            }
        };
        thread::Builder::new()
            .name("beacons".into())
            .spawn(repeat)?;
        Ok(())
    }

    /// Listens until then; returns the name of another sender.
    fn listen_until(&mut self, until: Instant) -> io::Result<Option<String>> {
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            wait(&self.received, left)?;
            let (own, sent, heard) = (self.own, &self.sent, &mut self.heard);
            self.received.receive(|datagram| {
                if datagram.source != own || datagram.payload != sent {
                    heard.handle(datagram.source, datagram.payload, Instant::now());
                }
            })?;
        }
        Ok(self.heard.first().map(|beacon| beacon.from.clone()))
    }

    /// Fails if somebody sends already: listens once others are there, or seem not to be.
    fn refuse_second(&mut self) -> anyhow::Result<()> {
        let began = Instant::now();
        let mut until = began + ALONE + LISTEN;
        let mut told = false;
        loop {
            let now = Instant::now();
            let is_alone = self.state().is_ok_and(|state| state.present == 0);
            if !is_alone {
                until = until.min(now + LISTEN);
            }
            if now >= until {
                return Ok(());
            }
            if now >= began + SILENT && !std::mem::replace(&mut told, true) {
                note("listening whether somebody else sends under these words");
            }
            if let Some(from) = self.listen_until(now + LOOK)? {
                let message = format!(
                    "somebody else, {from}, sends under these words already: outside of this guest the same command makes new ones"
                );
                return Err(ExitError::new(Exit::NotPermitted, message).into());
            }
        }
    }
}

/// Waits for a datagram, up to this time.
pub fn wait(sockets: &ReceiveSockets, time: Duration) -> io::Result<()> {
    let poll_fd = |fd| PollFd::new(fd, PollFlags::POLLIN);
    let mut fds: Vec<_> = sockets.fds().map(poll_fd).collect();
    // rounded up: the last wait is not 0
    let millis = u16::try_from(time.as_millis()).unwrap_or(u16::MAX);
    match poll(&mut fds, PollTimeout::from(millis.saturating_add(1))) {
        Ok(_) | Err(nix::Error::EINTR) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

/// Executes this program again as a guest by the code that is this argument, with `--code` in its
/// place. Returns only if the argument is not a code, or on failure.
///
/// # Errors
/// `lcroute` cannot be executed.
pub fn enter(argument: &str) -> Result<(), ExitError> {
    let Ok(code) = argument.parse::<Code>() else {
        return Ok(());
    };
    let given = arguments::given().iter().skip(1);
    let replace = |given: &OsString| match given == argument {
        true => OsString::from(OF_GUEST),
        false => given.clone(),
    };
    // behind it the option would be a name
    let arguments: Vec<_> = given.filter(|given| *given != "--").map(replace).collect();
    Err(guest::join(&code.encode(), &arguments))
}

/// Waits for an offer of this kind under the code of this guest; says so after a while, unless it
/// is to be quiet.
///
/// # Errors
/// Nobody offers anything, several do, or it is of another kind; this is not a guest by a code.
pub fn wait_for(offer: Offer, is_quiet: bool) -> anyhow::Result<Beacon> {
    let Some(inside) = Inside::of_environment()? else {
        let message = "this is for programs in a guest by a code: lcroute guest CODE";
        return Err(ExitError::new(Exit::Usage, message).into());
    };
    let beacon = wait_for_any(&inside, offer, is_quiet)?;
    if beacon.offer != offer {
        let (from, what) = (&beacon.from, beacon.offer.name());
        let (wanted, receives) = (offer.name(), receives(beacon.offer));
        let message = format!(
            "{from} offers {what} under these words, and no {}: {receives} WORDS",
            wanted.trim_start_matches("a ")
        );
        return Err(ExitError::new(Exit::Failed, message).into());
    }
    Ok(beacon)
}

fn wait_for_any(inside: &Inside, offer: Offer, is_quiet: bool) -> anyhow::Result<Beacon> {
    let group = beacon_group(&inside.read()?.beacon_key());
    let mut sockets = ReceiveSockets::open(BEACON_PORT)?;
    sockets.join(group, interface()?)?;
    let mut heard = ReceivedBeacons::default();
    let began = Instant::now();
    let until = began + NOBODY;
    let mut told = is_quiet;
    loop {
        wait(&sockets, LOOK)?;
        let now = Instant::now();
        if now >= began + SILENT && !std::mem::replace(&mut told, true) {
            note("waiting for whoever sends under these words");
        }
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
            None if now >= until && heard.until().is_none() => {
                return Err(nobody(inside, offer).into());
            }
            None => {}
        }
    }
}

fn nobody(inside: &Inside, offer: Offer) -> ExitError {
    let (present, code) = match inside.read() {
        Ok(state) => (state.present, state.code.clone()),
        Err(_) => (0, String::new()),
    };
    let (sends, seconds) = (sends(offer), NOBODY.as_secs());
    let message = match (present, code.contains('@')) {
        (1.., _) => format!(
            "others are here under these words, but nobody sends: does `{sends}` still run?"
        ),
        (0, true) => format!(
            "nobody is here under these words after {seconds} s: are they right, and does `{sends}` still run?"
        ),
        (0, false) => format!(
            "nobody is here under these words after {seconds} s: are they right, does `{sends}` still run, is it on this LAN, and do the firewalls of both hosts let in UDP port 5353 (`{MDNS_RULE}`)? Beyond a LAN the words need a server: WORDS@HOST"
        ),
    };
    ExitError::new(Exit::Unreachable, message)
}

/// Returns the code in arguments, which have it as one argument or as its words, and their number.
pub fn of_arguments(arguments: &[OsString]) -> Result<(Code, usize), CodeError> {
    let mut error = CodeError::Words(0);
    for count in [1, librecast::code::WORDS] {
        let Some(words) = arguments.get(..count) else {
            continue;
        };
        let words: Vec<&str> = words.iter().filter_map(|word| word.to_str()).collect();
        match words.join(" ").parse() {
            Ok(code) => return Ok((code, count)),
            Err(e) => error = e,
        }
    }
    Err(error)
}
