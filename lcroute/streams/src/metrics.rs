//! Metrics of `[streams] metrics`, read from existing counters on request, and reasons of refusals.

use librecast::stream::Status;
use librecast_program::metrics::Page;
use librecast_program::{metrics_table, reasons};

reasons! {
    /// Why a connection, a stream or a datagram of another node is refused.
    Refused {
        Connections = "connections", "A connection while there are too many.";
        Datagram = "datagram", "A datagram of no stream, or of one whose program does not read.";
        Handshake = "handshake", "A handshake that failed, was never ended, or that the daemon did not sign.";
        Handshakes = "handshakes", "A handshake while its node, or all together, begin too many.";
        Hello = "hello", "A stream that does not begin as one of this protocol, or not in time.";
        NoMember = "no_member", "A connection of a node that is not a member.";
        NoneCommon = "none_common", "A stream in no protocol that is served to its node.";
        NotAllowed = "not_allowed", "A connection or stream of a node that nothing is served to.";
        OtherAddress = "other_address", "A connection from an address that is not that of its key.";
        Streams = "streams", "A stream while others have too many.";
        Unavailable = "unavailable", "A stream whose server does not answer.";
    }
}

metrics_table! {
    CONNECTIONS = gauge("lcroute_streams_connections", &[], "Connections with other nodes");
    OPEN = gauge("lcroute_streams_open", &[], "Streams that are open, in both directions");
    SERVING = gauge("lcroute_streams_serving", &[], "Protocols that are served on this host");
    OPENED = counter("lcroute_streams_opened_total", &[], "Streams that programs of this host opened");
    ACCEPTED = counter("lcroute_streams_accepted_total", &[], "Streams of other nodes that were accepted");
    RX_BYTES = counter("lcroute_streams_rx_bytes_total", &[], "Bytes that streams brought to this host");
    TX_BYTES = counter("lcroute_streams_tx_bytes_total", &[], "Bytes that streams took from this host");
    REFUSED = counter("lcroute_streams_refused_total", &["reason"], "Connections, streams and datagrams of other nodes that were refused, by reason");
}

/// Returns the present values.
pub fn page(status: &Status) -> Page {
    let mut page = Page::of_this_process();
    page.put(&CONNECTIONS, status.connections as u64);
    page.put(&OPEN, status.streams as u64);
    page.put(&SERVING, status.serving.len() as u64);
    page.put(&OPENED, status.opened);
    page.put(&ACCEPTED, status.accepted);
    page.put(&RX_BYTES, status.rx_bytes);
    page.put(&TX_BYTES, status.tx_bytes);
    for (reason, _) in Refused::TABLE {
        let count = status.refused.get(*reason).copied().unwrap_or_default();
        page.put_with(&REFUSED, &[reason], count);
    }
    page
}

#[cfg(test)]
mod tests {
    use librecast_program::metrics::check;

    use super::*;

    #[test]
    fn the_table_keeps_to_the_rules_and_reasons_are_sorted() {
        assert_eq!(check("lcroute", TABLE), Ok(()));
        assert!(Refused::TABLE.is_sorted_by_key(|(name, _)| *name));
    }

    #[test]
    fn all_that_is_counted_is_on_the_page() {
        let status = Status {
            connections: 2,
            serving: vec!["/ssh/1".parse().unwrap()],
            accepted: 7,
            refused: [("handshakes".to_owned(), 9)].into(),
            ..Status::default()
        };
        let text = page(&status).render().unwrap();
        for line in [
            "lcroute_streams_connections 2",
            "lcroute_streams_serving 1",
            "lcroute_streams_accepted_total 7",
            "lcroute_streams_refused_total{reason=\"handshakes\"} 9",
            "lcroute_streams_refused_total{reason=\"hello\"} 0",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}: {text}");
        }
        for description in TABLE {
            assert!(text.contains(description.name), "{}", description.name);
        }
    }
}
