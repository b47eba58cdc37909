//! A server's last record: the channels that it sends, and its load.

use librecast::channel::ChannelId;
use librecast::time::{Duration, Instant};

use crate::packet::WIRE_SIZE;
use crate::record::{MAX_SENDING, Record};

/// Time from a JOIN to its first symbol: the kernel reports after 10 ms, a block gathers for 40.
const LEAD: Duration = Duration::from_millis(60);
/// Longest time between two records of a busy server.
const RECORDS: Duration = Duration::from_millis(100);

/// Symbols a second at a rate of a record, in kbit/s.
pub(super) fn packet_rate(kilobits: u32) -> f64 {
    f64::from(kilobits.max(1)) * 1e3 / (8 * WIRE_SIZE) as f64
}

/// Contents of the last record.
#[derive(Debug)]
pub(super) struct Announced {
    /// Symbols that a channel sends between a JOIN and its first symbol here.
    pub(super) lead: u32,
    /// The server has more to send than its record lists.
    pub(super) long_queue: bool,
    /// Most channels that only this receiver has joined: more would only wait at the server.
    pub(super) own: usize,
    /// Channels with members, none of them joined here.
    pub(super) being_sent: Vec<BeingSent>,
}

impl Default for Announced {
    /// Before the first record, nothing bounds the channels.
    fn default() -> Self {
        Self {
            lead: 0,
            long_queue: false,
            own: usize::MAX,
            being_sent: Vec::new(),
        }
    }
}

impl Announced {
    /// Reads the load from a record. `rate`: that of one channel, in kbit/s.
    pub(super) fn by(record: &Record, rate: u32) -> Self {
        // a server with a queue needs no further JOIN to be busy, and always has something to send
        // with twice its capacity; other receivers can join in time
        let (lead, own) = match record.total_rate {
            0 => ((LEAD.as_secs_f64() * packet_rate(rate)) as u32, usize::MAX),
            total => (0, 2 * total.div_ceil(rate.max(1)) as usize + 2),
        };
        Self {
            lead,
            long_queue: record.sending.len() == MAX_SENDING,
            own,
            being_sent: Vec::new(),
        }
    }
}

/// A channel that another receiver has joined already.
#[derive(Debug, Clone, Copy)]
pub(super) struct BeingSent {
    pub(super) channel: ChannelId,
    /// Symbols to come at that time.
    pub(super) left: u16,
    pub(super) at: Instant,
    pub(super) symbol_time: Duration,
}

impl BeingSent {
    /// Whether three quarters of a block of `symbols` come without a JOIN of this receiver.
    pub(super) fn is_worth_joining(&self, symbols: u32, now: Instant) -> bool {
        let left = u32::from(self.left);
        if left >= symbols {
            // not begun; the next record shows when it begins
            return now < self.at + RECORDS;
        }
        let spare = left.saturating_sub(symbols * 3 / 4);
        now < self.at + self.symbol_time * spare
    }
}
