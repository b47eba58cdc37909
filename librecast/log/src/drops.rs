//! Why a packet or an entry of the network is not taken.

librecast::drop_reasons! {
    /// Reasons for which a log does not take what came from the network.
    pub enum DropReason {
        /// The packet is of another version, another space, or longer than any of ours.
        Foreign = "foreign",
        /// This host said it itself, and heard it.
        Own = "own",
        /// The packet was not sealed by the read key of the space, or was changed on its way.
        Unsealed = "unsealed",
        /// The packet was opened, and what is in it is not as the format has it.
        Malformed = "malformed",
        /// The entry's author has no grant here, or none yet.
        UnknownAuthor = "unknown_author",
        /// The entry is not signed by its author.
        BadSignature = "bad_signature",
        /// So many signatures of the sender were bad that its entries are not looked at for a while.
        Suspended = "suspended",
        /// The entry's number is more than 10,000 beyond those known.
        NumberJump = "number_jump",
        /// The entry is outside of its author's grant: beyond the last number, or outside of its time.
        NotGranted = "not_granted",
        /// The author signed another entry of this number, or another history before it: nothing from there on counts.
        Conflict = "conflict",
        /// The log already holds as much of this author, or as much in all, as it may.
        Full = "full",
        /// The entry or request is here already.
        Duplicate = "duplicate",
        /// More requests wait than a log keeps; the oldest made room.
        RequestsFull = "requests_full",
        /// Wants or heads that differ came more often than they are answered; requests, or entries of one author, more often than
        /// they are stored.
        RateLimited = "rate_limited",
        /// Nobody here wants to see which authors are there.
        NotWatched = "not_watched",
        /// On the asking group, anything but wants, requests, and entries of captions; on the history group, anything but entries and heads.
        AskedBadly = "asked_badly",
        /// The presence of an author is more than a day from the clock of this host.
        WrongTime = "wrong_time",
    }
}
