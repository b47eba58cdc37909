//! Relays of servers for all pairs: one allocation of the shared stack at most, while it is needed.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use lcroute_overlay::server::RelayCredentials;
use lcroute_signalling::relay_stream::{RelayStreams, RelayTarget};
use lcroute_webrtc::relay::{RelayOffer, StreamCommand, StreamEvent};
use tokio::sync::mpsc;

/// Relays, and the stream to the one in use.
#[derive(Debug)]
pub(crate) struct Relays {
    /// Credentials, by the server's URL.
    offered: BTreeMap<String, RelayCredentials>,
    streams: RelayStreams,
}

impl Relays {
    /// Returns no relays yet, and the events of later streams.
    pub(crate) fn new() -> (Self, mpsc::Receiver<(u64, StreamEvent)>) {
        let (streams, happened) = RelayStreams::new();
        let offered = BTreeMap::new();
        (Self { offered, streams }, happened)
    }

    /// Keeps a server's credentials.
    pub(crate) fn offered(&mut self, url: String, credentials: RelayCredentials) {
        self.offered.insert(url, credentials);
    }

    /// Returns the relays of these servers with known addresses.
    pub(crate) fn offers(
        &mut self,
        servers: &BTreeMap<String, Vec<SocketAddr>>,
    ) -> Vec<RelayOffer> {
        self.offered.retain(|url, _| servers.contains_key(url));
        let known = self.offered.iter().filter_map(|(url, credentials)| {
            // a relay on this host's loopback gives unreachable addresses
            let addresses = servers.get(url)?.iter();
            let udp: Vec<_> = addresses
                .filter(|at| !at.ip().is_loopback())
                .copied()
                .collect();
            (!udp.is_empty()).then(|| RelayOffer {
                url: url.clone(),
                udp,
                stream: RelayTarget::of_signalling(url, None).is_some(),
                credentials: credentials.clone(),
                renews: true,
            })
        });
        known.collect()
    }

    /// Carries out a command about streams.
    pub(crate) fn execute(&mut self, command: StreamCommand) {
        match command {
            StreamCommand::Open { stream, url } => {
                let target = RelayTarget::of_signalling(&url, None);
                self.streams.open(stream, target);
            }
            StreamCommand::Send { stream, contents } => {
                if let Some(queue) = self.streams.queue(stream) {
                    // a full stream loses datagrams, as networks do
                    let _ = queue.try_send(contents);
                }
            }
            StreamCommand::Close { stream } => self.streams.close(stream),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn relays_are_offered_while_their_server_is_used_and_has_an_address() {
        let mut relays = Relays::new().0;
        let credentials = RelayCredentials {
            user: "1:a".into(),
            password: "b".into(),
        };
        let (there, here) = ("wss://meet.example", "ws://[::1]:7117");
        for url in [there, here, "ws://gone.example"] {
            relays.offered(url.into(), credentials.clone());
        }
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        let servers = BTreeMap::from([
            (there.to_owned(), vec![at("192.0.2.1:7117")]),
            (here.to_owned(), vec![at("[::1]:7117")]),
        ]);
        let offers = relays.offers(&servers);
        let [offer] = offers.as_slice() else {
            panic!("{offers:?}")
        };
        assert_eq!((offer.url.as_str(), offer.stream), (there, true));
        assert!(relays.offers(&BTreeMap::new()).is_empty());
        assert!(relays.offers(&servers).is_empty(), "forgotten");
    }
}
