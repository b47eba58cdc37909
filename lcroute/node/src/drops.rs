//! The reasons for which a node drops packets and messages between the router and the links.

use librecast::drop_reasons;

drop_reasons! {
    /// Why a packet or a message was dropped.
    pub enum DropReason {
        /// A rendezvous epoch without the signature of an issuer or the network key.
        EpochForged = "epoch_forged",
        /// A neighbour passes on more rendezvous epochs than are looked at: the last ones wait.
        EpochLimited = "epoch_limited",
        /// Rendezvous epochs that cannot be read.
        EpochMalformed = "epoch_malformed",
        /// A rendezvous epoch by an issuer that was expelled, or is one no more.
        EpochRefused = "epoch_refused",
        /// A helper's offer that cannot be read, or that its neighbour has not made.
        HelperOffer = "helper_offer",
        /// A leaf took nothing of its packets for five seconds: its link is closed.
        LeafSlow = "leaf_slow",
        /// For a link that has just gone down.
        NoSuchLink = "no_such_link",
        /// The table of presence records of carriers is full.
        PresenceNamesFull = "presence_names_full",
        /// The queue of a link was full.
        QueueFull = "queue_full",
        /// A request to renew a certificate that its node has not signed, or to a node that is not an issuer.
        RenewalIgnored = "renewal_ignored",
        /// A peer refused a link by a revocation that is not valid.
        RevocationUnproven = "revocation_unproven",
        /// A message to a node that cannot be reached, or that may not be sent.
        RoutedNotSent = "routed_not_sent",
        /// A message from another node of a kind that this version does not know.
        RoutedUnknown = "routed_unknown",
        /// Longer than a link takes.
        TooLarge = "too_large",
    }
}
