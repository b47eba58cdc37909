//! Why a datagram or packet goes no further; each has a name, which `--json` shows.

librecast::drop_reasons! {
    /// Why a datagram or packet was dropped.
    pub enum DropReason {
        /// Not RTP: too short, of another version, or with fields past its end.
        Malformed = "malformed",
        /// RTP of another payload type than the station's.
        PayloadType = "payload_type",
        /// No Opus packet (RFC 6716, 3.4), or one longer than 120 ms.
        NotOpus = "not_opus",
        /// The station's key does not open it: another key sealed it, or it was changed.
        NotOpened = "not_opened",
        /// From an address, or with an SSRC, that no beacon of the station names.
        OtherSource = "other_source",
        /// A packet or beacon of this participant of a call, which came back.
        Own = "own",
        /// More packets in a second than a source may send.
        Rate = "rate",
        /// Came before any beacon, and no more of those are kept.
        BeforeBeacon = "before_beacon",
        /// A packet that was there before: the copy, or by another interface.
        Duplicate = "duplicate",
        /// Came when its time to be played, or to be recorded, had passed; or a question that waited too long.
        Expired = "expired",
        /// So far ahead of what is played that it does not fit.
        Ahead = "ahead",
        /// A beacon that does not fit the format, or of another version.
        BeaconMalformed = "beacon_malformed",
        /// A beacon that the station's key does not open.
        BeaconNotOpened = "beacon_not_opened",
        /// A beacon of another station, or not signed by its key.
        BeaconForged = "beacon_forged",
        /// A beacon that names another source than the address it came from.
        BeaconSource = "beacon_source",
        /// A beacon more than an hour away from this host's clock.
        BeaconTime = "beacon_time",
        /// A beacon of an earlier session than the one that is played, or older than one that came before.
        BeaconOlder = "beacon_older",
        /// A beacon or announcement by a grant of another station, or one that the station has not signed.
        GrantForged = "grant_forged",
        /// A beacon, announcement or packet of a caster whose grant has expired.
        GrantExpired = "grant_expired",
        /// A beacon of one caster more than are heard at once.
        CastersFull = "casters_full",
        /// A question or answer about a caster's clock that does not fit the format.
        ClockMalformed = "clock_malformed",
        /// A question or answer about a caster's clock that the station's key does not open.
        ClockNotOpened = "clock_not_opened",
        /// An answer about a caster's clock that the caster has not signed.
        ClockForged = "clock_forged",
        /// An answer about a caster's clock to no question of this listener, or of another session.
        ClockOther = "clock_other",
        /// More questions or answers about a clock in a second than are read.
        ClockRate = "clock_rate",
        /// A SAP announcement that does not fit the format, or is encrypted or compressed.
        AnnouncementMalformed = "announcement_malformed",
        /// An announcement without a stream of Opus on an IPv6 group that this program plays.
        AnnouncementOther = "announcement_other",
        /// An announcement that names a station, and is not signed by its key.
        AnnouncementForged = "announcement_forged",
        /// An announcement gave way to another: there were more than are kept, of its source or of all.
        AnnouncementFull = "announcement_full",
    }
}
