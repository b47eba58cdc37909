//! Reasons why a client was closed or refused.

librecast::drop_reasons! {
    /// The reason why a client of `[players]` got no more, or nothing.
    pub enum CloseReason {
        /// The client was more than two seconds behind, or took more memory than its share.
        Behind = "behind",
        /// The station has ended.
        Ended = "ended",
        /// Nothing came for half a minute, or for the first ten seconds.
        Silent = "silent",
        /// The group or station could not be received on this host, or ffmpeg failed.
        Failed = "failed",
        /// There were as many clients as `[players] clients` permits.
        TooManyClients = "too_many_clients",
        /// There were as many clients of one address as `[players] per_address` permits.
        TooManyOfAddress = "too_many_of_address",
        /// Clients of one /64 had three quarters of all places.
        TooManyOfPrefix = "too_many_of_prefix",
        /// The client sent no whole request within ten seconds, or no request of HTTP.
        BadRequest = "bad_request",
        /// The request was for something that is not offered.
        NotOffered = "not_offered",
    }
}
