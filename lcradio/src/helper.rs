//! `lcradio helper`: a further router of a station's own network, for listeners beyond the uplink
//! of its caster. The guest routes; this program shows what it does.

use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use librecast::cert::Token;
use librecast_program::arguments::{self, STANDARD_INPUT};
use librecast_program::cli::{Exit, ExitError};
use librecast_program::guest;
use librecast_program::guest_state::{HelperState, Inside};
use librecast_program::helper::is_helper;
use serde_json::json;

use crate::process::{Wake, confine};

/// Interval of looks at the guest's state: the guest writes it as often.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Least time between two lines where no terminal shows them.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Helps until a signal comes.
pub fn run(token: Option<&str>, json: bool) -> anyhow::Result<Exit> {
    if !guest::is_inside() {
        return Err(enter(token)?.into());
    }
    let inside = Inside::of_environment()?;
    let helper = inside.as_ref().map(Inside::read).transpose()?;
    let (Some(inside), Some(_)) = (inside, helper.and_then(|state| state.helper)) else {
        return Err(no_helper().into());
    };
    confine()?;
    let wake = Wake::on_interrupt()?;
    let mut show = Show::new(json);
    loop {
        if let Some(exit) = wake.interrupted() {
            show.end();
            return Ok(exit);
        }
        // none: half of a change is read, and the next look finds the whole
        let state = inside.read().ok().and_then(|state| state.helper);
        // before the first look of the guest all is 0
        if let Some(state) = state.filter(|state| *state != HelperState::default()) {
            show.look(&state, Instant::now())?;
        }
        wake.wait(std::iter::empty(), Instant::now() + LOOK_EVERY)?;
    }
}

fn no_helper() -> ExitError {
    let message = "by this token nobody helps: the caster prints one with `lcradio invite`";
    ExitError::new(Exit::NotPermitted, message)
}

/// Executes this program in the station's network. Returns only on failure.
fn enter(token: Option<&str>) -> anyhow::Result<ExitError> {
    let usage = |message: String| ExitError::new(Exit::Usage, message);
    let Some(given) = token else {
        return Err(usage("name the token that `lcradio invite` printed".to_owned()).into());
    };
    let text = arguments::secret(given)?;
    let token: Token = text.parse().map_err(|e| usage(format!("{e}")))?;
    if !is_helper(&token.invitation().grant().labels) {
        return Err(no_helper().into());
    }
    // a token on the command line has led inside before
    let is_other = |argument: &&OsString| *argument != STANDARD_INPUT;
    let others = arguments::given().iter().skip(1).filter(is_other);
    Ok(guest::join(&text, &others.cloned().collect::<Vec<_>>()))
}

/// Bits a second on links, between two looks.
#[derive(Debug)]
struct Meter {
    last: Option<(u64, Instant)>,
    bits_per_second: f64,
}

impl Meter {
    fn look(&mut self, sent_bytes: u64, now: Instant) {
        if let Some((before, at)) = self.last.replace((sent_bytes, now)) {
            let seconds = now.saturating_duration_since(at).as_secs_f64().max(0.001);
            self.bits_per_second = sent_bytes.saturating_sub(before) as f64 * 8.0 / seconds;
        }
    }
}

/// What the user sees.
#[derive(Debug)]
struct Show {
    json: bool,
    on_terminal: bool,
    meter: Meter,
    /// The last line's numbers of listeners and casters, and its time.
    shown: Option<((usize, usize), Instant)>,
}

impl Show {
    fn new(json: bool) -> Self {
        Self {
            json,
            on_terminal: !json && io::stderr().is_terminal(),
            meter: Meter {
                last: None,
                bits_per_second: 0.0,
            },
            shown: None,
        }
    }

    fn look(&mut self, state: &HelperState, now: Instant) -> io::Result<()> {
        self.meter.look(state.sent_bytes, now);
        let bits = self.meter.bits_per_second;
        if self.json {
            let told = json!({
                "casters": state.casters,
                "listeners": state.leaves,
                "room": state.room,
                "out_bits_per_second": bits as u64,
            });
            let mut out = librecast_program::standard::output();
            writeln!(out, "{told}")?;
            return out.flush();
        }
        let key = (state.leaves, state.casters);
        let is_due = match self.shown {
            _ if self.on_terminal => true,
            None => true,
            Some((last, at)) => {
                let is_turn = (last.1 > 0) != (state.casters > 0);
                last != key && (is_turn || at + LINE_EVERY <= now)
            }
        };
        if is_due {
            self.shown = Some((key, now));
            let (begin, end) = match self.on_terminal {
                true => ("\r\x1b[K", ""),
                false => ("", "\n"),
            };
            // the reader may be gone
            let mut errors = librecast_program::standard::errors();
            let _ = write!(errors, "{begin}{}{end}", line(state, bits));
            let _ = errors.flush();
        }
        Ok(())
    }

    fn end(&self) {
        if self.on_terminal {
            let _ = writeln!(librecast_program::standard::errors());
        }
    }
}

/// Returns the line for people.
fn line(state: &HelperState, bits_per_second: f64) -> String {
    let does = match state.casters {
        0 => "waiting for the caster",
        _ => "helping",
    };
    let listeners = match state.leaves {
        1 => "1 listener".to_owned(),
        n => format!("{n} listeners"),
    };
    let full = match state.room {
        0 => ", no room for more",
        _ => "",
    };
    let mbit = bits_per_second / 1e6;
    format!("{does}: {listeners} here{full}, {mbit:.1} Mbit/s out")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_it_does_and_for_how_many() {
        let mut state = HelperState {
            leaves: 12,
            room: 500,
            casters: 1,
            sent_bytes: 0,
        };
        let shown = line(&state, 3_140_000.0);
        assert_eq!(shown, "helping: 12 listeners here, 3.1 Mbit/s out");
        (state.casters, state.leaves, state.room) = (0, 1, 0);
        let shown = line(&state, 0.0);
        assert_eq!(
            shown,
            "waiting for the caster: 1 listener here, no room for more, 0.0 Mbit/s out"
        );
    }

    #[test]
    fn the_rate_is_that_between_two_looks() {
        let now = Instant::now();
        let mut meter = Meter {
            last: None,
            bits_per_second: 0.0,
        };
        meter.look(1_000_000, now);
        assert!(meter.bits_per_second.abs() < 1e-9);
        meter.look(1_125_000, now + Duration::from_secs(2));
        assert!((meter.bits_per_second - 500_000.0).abs() < 1.0);
    }

    #[test]
    fn tokens_of_other_kinds_and_none_are_refused() {
        let exit = |token: Option<&str>| {
            let error = enter(token).unwrap_err();
            error.downcast_ref::<ExitError>().unwrap().exit
        };
        assert_eq!(exit(None), Exit::Usage);
        assert_eq!(exit(Some("lct1damaged")), Exit::Usage);
        let (seed, key) = ([7; 32], librecast::id::SecretKey::from_seed(&[8; 32]));
        let now = librecast::time::UnixTime::now();
        let member = librecast::code::CodeKeys::text_token(&seed, key, Vec::new(), now).unwrap();
        assert_eq!(exit(Some(&member.encode())), Exit::NotPermitted);
    }
}
