//! The reasons for which packets and messages of pairs are dropped.

use librecast::drop_reasons;

drop_reasons! {
    /// Why a packet or a message was dropped.
    pub enum DropReason {
        /// A statement or a record that is not of the open key that is called.
        OpenForeign = "open_foreign",
        /// A call of the open key with a wrong cookie, answered with the right one.
        OutsideCookie = "outside_cookie",
        /// Too many pairs, callers, events or datagrams.
        OutsideFull = "outside_full",
        /// A packet of a stream without a link to its node.
        OutsideNoLink = "outside_no_link",
        /// A packet of a stream beyond `[outside] mbit`, or a call beyond the rates of new callers.
        OutsideRate = "outside_rate",
        /// A datagram whose hint does not belong to a pair, or a call where no key is open.
        OutsideUnknown = "outside_unknown",
        /// A control message, which no link of a pair carries.
        PairControl = "pair_control",
        /// A message over the link of a pair that is not a packet of QUIC.
        PairNotQuic = "pair_not_quic",
        /// Presence, a record or a message of a third key in the room of a pair.
        PairThird = "pair_third",
    }
}
