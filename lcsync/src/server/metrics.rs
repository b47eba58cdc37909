//! Metrics of a server for `[metrics] listen`.

use librecast::coding::SYMBOL_SIZE;
use librecast_program::metrics::Page;
use librecast_program::metrics_table;

use super::core::Drops;
use super::hosted::Server;

metrics_table! {
    BUILD = gauge("lcsync_build_info", &["version"], "Always 1; the label tells the version");
    SHARES = gauge("lcsync_shares", &["state"], "Shares that are served (ready), or still being hashed (pending)");
    GENERATION = gauge("lcsync_share_generation", &["share"], "Version of the share: it grows with each change");
    BYTES = gauge("lcsync_share_bytes", &["share"], "Bytes of the share's files");
    BLOCKS = gauge("lcsync_share_blocks", &["share"], "Blocks of the share");
    LEFT_OUT = gauge("lcsync_share_left_out", &["share"], "Entries that could not be read or shared, and are not in the share");
    RIVALS = gauge("lcsync_share_rivals", &["share"], "Hosts that publish something else under the share's name and key: a copied image");
    VANISHED = gauge("lcsync_shares_vanished", &[], "Shares whose files may only seem to be gone (a disk that is not mounted): what is there is not taken");
    INTERFACES = gauge("lcsync_interfaces", &[], "Interfaces on which joins are watched");
    ROOTS = gauge("lcsync_roots_joined", &[], "Shares that somebody follows, counted on each interface");
    CHANNELS = gauge("lcsync_channels_joined", &[], "Channels of blocks that somebody has joined");
    BURSTING = gauge("lcsync_channels_sending", &[], "Channels of blocks that are being sent at full rate");
    QUEUED = gauge("lcsync_channels_waiting", &[], "Joined channels that are not sent at full rate: in the queue, or done and trickling");
    LOAD = gauge("lcsync_send_rate_bytes_per_second", &[], "Rate of all channels that are being sent, with headers");
    JOINS = counter("lcsync_joins_total", &["channel"], "Joins seen, of root channels and of blocks; what hosts repeat is not counted");
    SYMBOLS = counter("lcsync_symbols_sent_total", &[], "Symbols sent");
    SENT = counter("lcsync_sent_bytes_total", &[], "Bytes of the symbols sent, without headers: to compare with the size of files");
    DROPS = counter("lcsync_reports_dropped_total", &["reason"], "MLD reports without effect, by reason");
}

/// Reasons of reports without effect, with explanations.
pub const REASONS: &[(&str, &str)] = &[
    (
        "elsewhere",
        "For a share that is not served on this interface.",
    ),
    (
        "lost",
        "Lost by the kernel because the socket's queue was full; everybody is asked again.",
    ),
    (
        "malformed",
        "Not a correct MLD message, or from elsewhere than this link.",
    ),
    ("refused", "More channels joined than are known at once."),
    (
        "unknown_channel",
        "A group in a prefix of ours that is not a channel: of an old version, or guessed.",
    ),
    ("unwatched", "From an interface that is not watched."),
];

/// A served share.
#[derive(Debug)]
pub struct Share<'a> {
    /// NAME in lc:NAME.
    pub name: &'a str,
    /// It grows with each version.
    pub generation: u64,
    /// Bytes of its files.
    pub bytes: u64,
    /// Its blocks.
    pub blocks: u64,
    /// Entries that could not be read or shared.
    pub left_out: u64,
    /// Hosts that publish other files under its key.
    pub rivals: u64,
}

/// Returns the figures of a server that watches this number of interfaces. Beyond `shares`, some
/// are `pending`; of all, `vanished` are not published as they are.
pub fn page(
    server: &Server,
    interfaces: usize,
    shares: &[Share<'_>],
    (pending, vanished): (usize, usize),
) -> Page {
    let mut page = Page::of_this_process();
    page.put_with(&BUILD, &[env!("CARGO_PKG_VERSION")], 1);
    page.put_with(&SHARES, &["ready"], shares.len() as u64);
    page.put_with(&SHARES, &["pending"], pending as u64);
    page.put(&VANISHED, vanished as u64);
    for share in shares {
        let label = &[share.name];
        page.put_with(&GENERATION, label, share.generation);
        page.put_with(&BYTES, label, share.bytes);
        page.put_with(&BLOCKS, label, share.blocks);
        page.put_with(&LEFT_OUT, label, share.left_out);
        page.put_with(&RIVALS, label, share.rivals);
    }
    let channels = server.joined_channels();
    let (bursting, load) = server.bursts();
    page.put(&INTERFACES, interfaces as u64);
    page.put(&ROOTS, server.joined_roots() as u64);
    page.put(&CHANNELS, channels as u64);
    page.put(&BURSTING, bursting as u64);
    page.put(&QUEUED, channels.saturating_sub(bursting) as u64);
    page.put(&LOAD, load / 8);
    let (roots, blocks) = server.joins();
    page.put_with(&JOINS, &["root"], roots);
    page.put_with(&JOINS, &["block"], blocks);
    let symbols = server.symbols_sent().total();
    page.put(&SYMBOLS, symbols);
    page.put(&SENT, symbols * SYMBOL_SIZE as u64);
    let Drops {
        malformed,
        unknown_channel,
        lost,
        unwatched,
        elsewhere,
        refused,
    } = server.drops();
    let counts = [
        elsewhere,
        lost,
        malformed,
        refused,
        unknown_channel,
        unwatched,
    ];
    for ((reason, _), n) in REASONS.iter().zip(counts) {
        page.put_with(&DROPS, &[reason], n);
    }
    page
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use librecast_program::metrics::check;

    use super::*;
    use crate::server::channel::Rates;

    #[test]
    fn names_keep_to_the_rules_and_all_are_shown() {
        assert_eq!(check("lcsync", TABLE), Ok(()));
        let rates = Rates {
            stretch: None,
            channel: 1_000_000,
            slow: 100_000,
            total: None,
        };
        let mut server = Server::new(1, rates, 1, Instant::now());
        server.handle_malformed();
        let share = Share {
            name: "a",
            generation: 7,
            bytes: 10,
            blocks: 1,
            left_out: 3,
            rivals: 1,
        };
        let text = page(&server, 2, &[share], (1, 1)).render().unwrap();
        for d in TABLE {
            let stem = d.name.trim_end_matches("_total");
            assert!(
                text.contains(&format!("# TYPE {stem} {}\n", d.kind.name())),
                "{}",
                d.name
            );
        }
        for line in [
            "lcsync_share_generation{share=\"a\"} 7",
            "lcsync_shares{state=\"pending\"} 1",
            "lcsync_share_left_out{share=\"a\"} 3",
            "lcsync_share_rivals{share=\"a\"} 1",
            "lcsync_shares_vanished 1",
            "lcsync_reports_dropped_total{reason=\"malformed\"} 1",
            "lcsync_reports_dropped_total{reason=\"unwatched\"} 0",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} in {text}");
        }
    }
}
