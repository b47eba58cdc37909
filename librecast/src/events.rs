//! Machine-readable journal entries of programs: fixed MESSAGE_IDs, and fields beside the text.
//!
//! An event is logged with its number and fields (see the table) and a message for people:
//! `tracing::info!(target: TARGET, message_id = PEER_UP.id, lcroute_peer = %peer, "link up:
//! {peer}")`. A terminal does not show the fields (`cli`), the journal stores them in the entry.

use crate::time::{Duration, Instant};

use crate::bucket::{Bucket, Rate};

/// The target of all events: they reach the journal at any log level, unless the user sets theirs.
pub const TARGET: &str = "event";

/// One kind of event.
#[derive(Debug, PartialEq, Eq)]
pub struct Event {
    /// MESSAGE_ID: 128 bits in hexadecimal, never changed.
    pub id: &'static str,
    /// Name for people: program and event.
    pub name: &'static str,
    /// Fields beside MESSAGE, by their names in the journal.
    pub fields: &'static [&'static str],
    /// Meaning, and advice.
    pub meaning: &'static str,
}

macro_rules! events {
    ($($id:ident = $hex:literal, $name:literal, $fields:expr, $meaning:literal;)*) => {
        $(
            #[doc = $meaning]
            pub const $id: Event = Event { id: $hex, name: $name, fields: $fields, meaning: $meaning };
        )*

        /// All events.
        pub const EVENTS: &[Event] = &[$($id,)*];
    };
}

events! {
    UP = "5b9cc80b6cda43ce1fb43d1c0bef4fe5", "lcroute: up",
        &["LCROUTE_TUN", "LCROUTE_ADDRESS", "LCROUTE_PEER"],
        "The daemon is ready: the interface is there, with its address and routes.";
    DOWN = "3a69d799f61f18be22d64fdb07085559", "lcroute: down",
        &["LCROUTE_TUN", "LCROUTE_REASON"],
        "The daemon leaves the network: it was told to stop, or executes itself anew.";
    PEER_UP = "14e6ec4984e284518ad6ae38800887b1", "lcroute: peer up",
        &["LCROUTE_PEER", "LCROUTE_PEER_NAME"],
        "There is a link with this node.";
    PEER_DOWN = "698b82e62336847458d46677ea134ee3", "lcroute: peer down",
        &["LCROUTE_PEER", "LCROUTE_PEER_NAME", "LCROUTE_REASON"],
        "The link with this node has gone; it is made anew where it is wanted.";
    PEER_REFUSED = "928494f035255eb9f5f9eb9e879fe614", "lcroute: peer refused",
        &["LCROUTE_PEER", "LCROUTE_REASON"],
        "This node gets no link. Compare clocks, versions and networks of both; a revoked one needs a new key and token.";
    EXPELLED = "3df50d003c6529024bf93f07567a2e93", "lcroute: node expelled",
        &["LCROUTE_PEER"],
        "This node was revoked: other nodes do not make links with it any more.";
    EXPELLED_HERE = "cf75b6f54365edfb99c733626359ac93", "lcroute: this node is expelled",
        &["LCROUTE_PEER"],
        "This host's own node was revoked. `lcroute leave` and `lcroute join` with a new token bring it back, with a new key.";
    LAN = "cfdab1d018e54ec59c67f76186293846", "lcroute: LAN",
        &["LCROUTE_INTERFACE", "LCROUTE_ROLE", "LCROUTE_REASON"],
        "What this gateway does on a LAN has changed (`forwarder`, `standby`, `listening`, `off`), or what is wrong there. `lcroute lan` says what to do.";
    SHARE_READY = "e1c9a0ae7eab205a28e6387a639e1871", "lcsync: share ready",
        &["LCSYNC_SHARE", "LCSYNC_ROOT", "LCSYNC_GENERATION", "LCSYNC_BYTES"],
        "This share is served from now on.";
    SHARE_CHANGED = "24ac70496e39fdd23838eba8178fcbcc", "lcsync: new generation",
        &["LCSYNC_SHARE", "LCSYNC_ROOT", "LCSYNC_GENERATION", "LCSYNC_BYTES"],
        "The files of this share have changed, and the new version is served.";
    SHARE_VANISHED = "5ef8ceb0c765830b241f6101763e622c", "lcsync: share vanished",
        &["LCSYNC_SHARE", "LCSYNC_REASON"],
        "This share may lack files that were not deleted: a disk is not mounted, or all files are gone at once. The last version stays. The message says what to do.";
    COMMAND_RUN = "cca83ad1a238c0657f546d59bfeb9114", "lcagent: command run",
        &["LCAGENT_JOB", "LCAGENT_OPERATOR", "LCAGENT_COMMAND"],
        "A command of this operator was started.";
    COMMAND_ENDED = "e100ff63fe3448a289e1766e2b9bfc92", "lcagent: command ended",
        &["LCAGENT_JOB", "LCAGENT_OPERATOR", "LCAGENT_RESULT"],
        "A command has ended, in this way.";
    COMMAND_REFUSED = "3572573bf80bc2e4dbaa2ffaba04b9ac", "lcagent: command refused",
        &["LCAGENT_JOB", "LCAGENT_OPERATOR", "LCAGENT_COMMAND", "LCAGENT_REASON"],
        "A command was not run. The policy in lcagent.toml says what whose key may do.";
}

/// A limit for log lines that other hosts can cause: 64 at once, then one each 5 s.
#[derive(Debug, Clone, Default)]
pub struct LogLimit {
    bucket: Option<Bucket>,
    left_out: u64,
}

impl LogLimit {
    /// Lines at once. Chosen: a page of a terminal.
    const BURST: u64 = 64;
    /// Time per line in the long run. Chosen: 720 an hour.
    const PAUSE: Duration = Duration::from_secs(5);

    /// Returns whether to log a line now; if so, the number of lines left out before it.
    pub fn admit(&mut self, now: Instant) -> Option<u64> {
        let bucket = self.bucket.get_or_insert(Bucket::full(now));
        if !bucket.take(Rate::every(Self::PAUSE, Self::BURST), 1, now) {
            self.left_out = self.left_out.saturating_add(1);
            return None;
        }
        Some(std::mem::take(&mut self.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_distinct_and_128_bits_long() {
        for (n, event) in EVENTS.iter().enumerate() {
            assert_eq!(event.id.len(), 32, "{}", event.name);
            let hex = |c: char| c.is_ascii_hexdigit() && !c.is_ascii_uppercase();
            assert!(event.id.chars().all(hex), "{}", event.name);
            assert!(
                EVENTS[..n]
                    .iter()
                    .all(|e| e.id != event.id && e.name != event.name)
            );
            let program = event.name.split(':').next().unwrap().to_uppercase();
            assert!(
                event
                    .fields
                    .iter()
                    .all(|f| f.starts_with(&format!("{program}_")))
            );
        }
    }

    #[test]
    fn a_flood_is_logged_now_and_then_and_what_is_left_out_is_counted() {
        let start = Instant::now();
        let mut log_limit = LogLimit::default();
        let admitted = (0..1_000)
            .filter(|_| log_limit.admit(start).is_some())
            .count();
        assert_eq!(admitted, LogLimit::BURST as usize);
        assert_eq!(log_limit.admit(start + LogLimit::PAUSE), Some(1_000 - 64));
        assert_eq!(log_limit.admit(start + LogLimit::PAUSE), None);
        let later = start + LogLimit::PAUSE * 1_000;
        let admitted = (0..100)
            .filter(|_| log_limit.admit(later).is_some())
            .count();
        assert_eq!(admitted, LogLimit::BURST as usize);
    }
}
