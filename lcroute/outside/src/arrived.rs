//! Events of carriers.

use lcroute_overlay::server::RelayCredentials;
use lcroute_signalling::CarrierEvent;
use librecast::id::PeerId;
use librecast::reach::FromReach;

use crate::share::ViewId;

/// An event of a carrier.
#[derive(Debug)]
pub(crate) enum Arrived {
    /// A carrier of one pair.
    Of(ViewId, CarrierEvent),
    /// A room of this own key at a server.
    Room(PeerId, CarrierEvent),
    /// The server at this URL relays for this host.
    Relay(String, RelayCredentials),
    /// A record under a name on a LAN.
    Lan(CarrierEvent),
    /// A line of the program for the DHT.
    Dht(FromReach),
}
