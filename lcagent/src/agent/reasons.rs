//! Reasons for refusals and drops: counted under a name; the operator gets them in words.

use librecast::wire::WireError;
use librecast_program::reasons;
use thiserror::Error;

use super::policy::Denied;
use crate::envelope::Refusal;
use crate::replay::ReplayError;

reasons! {
    /// Why a command is not executed.
    Refused {
        BelowWindow = "below_window", "Older than the commands that are remembered: it could be a replay.";
        Certificate = "certificate", "The operator's certificate does not count for it.";
        ClockAhead = "clock_ahead", "From further in the future than clocks may differ.";
        Expired = "expired", "Its time is over: it was held up, or clocks differ.";
        Lifetime = "lifetime", "Valid for longer than any command may be.";
        NoSuchJob = "no_such_job", "It is about a job that is not known, or does not run.";
        NotStarted = "not_started", "The job could not be started; the log says why.";
        NotUnderstood = "not_understood", "A request of a kind that this version does not know.";
        PayloadHash = "payload_hash", "What was sent is not what was signed.";
        Policy = "policy", "The configuration does not allow this to this key.";
        Replayed = "replayed", "It came before.";
        Revoked = "revoked", "By a key that was revoked.";
        Sealed = "sealed", "It asks in the open for what was sealed.";
        Selector = "selector", "The nodes it is for cannot be understood.";
        Signature = "signature", "A forged signature.";
        StillRuns = "still_runs", "It asks for the result of a job that runs.";
        TooManyForged = "too_many_forged", "Too many signatures of its source, or of all, did not verify of late: it is not looked at.";
        TooManyJobs = "too_many_jobs", "As many jobs run as may.";
        TooManyKeys = "too_many_keys", "More operators than are remembered.";
        TooManyRevoked = "too_many_revoked", "More revoked keys than are remembered.";
        UnknownKey = "unknown_key", "By a key that the configuration does not name.";
    }
}

reasons! {
    /// Why a datagram goes no further.
    Dropped {
        AnswersEvicted = "answers_evicted", "Answers that nobody fetched made room for newer ones.";
        Malformed = "malformed", "It cannot be read.";
        NotKeptOpen = "not_kept_open", "A command that agents do not repeat to nodes that come up later: their table is full.";
        TooLong = "too_long", "Longer than any command.";
        TooManyPayloads = "too_many_payloads", "More commands in several datagrams at a time than are collected.";
        Unreadable = "unreadable", "An acknowledgement that cannot be read.";
    }
}

/// The cause that a counter counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// A command that is not executed.
    Refused(Refused),
    /// A datagram that goes no further.
    Dropped(Dropped),
}

impl From<Refused> for Reason {
    fn from(reason: Refused) -> Self {
        Self::Refused(reason)
    }
}

impl From<Dropped> for Reason {
    fn from(reason: Dropped) -> Self {
        Self::Dropped(reason)
    }
}

impl From<ReplayError> for Refused {
    fn from(error: ReplayError) -> Self {
        match error {
            ReplayError::Replayed => Self::Replayed,
            ReplayError::BelowWindow => Self::BelowWindow,
            ReplayError::TooManyKeys => Self::TooManyKeys,
        }
    }
}

impl From<&Refusal> for Reason {
    fn from(refusal: &Refusal) -> Self {
        Self::Refused(match refusal {
            Refusal::TooLong(_) => return Dropped::TooLong.into(),
            Refusal::Malformed(_) => return Dropped::Malformed.into(),
            Refusal::Expired(_) => Refused::Expired,
            Refusal::ClockAhead(_) => Refused::ClockAhead,
            Refusal::Lifetime => Refused::Lifetime,
            Refusal::UnknownKey(_) => Refused::UnknownKey,
            Refusal::Revoked(_) => Refused::Revoked,
            Refusal::Certificate(_) | Refusal::CertificateSignature => Refused::Certificate,
            Refusal::Replay(error) => (*error).into(),
            Refusal::PayloadHash => Refused::PayloadHash,
            Refusal::Signature => Refused::Signature,
            Refusal::TooManyForged => Refused::TooManyForged,
            Refusal::Selector(_) => Refused::Selector,
        })
    }
}

/// The reason why a verified command is not executed; the operator reads it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NotExecuted {
    /// The payload is not a request of this version.
    #[error("request not understood: {0}")]
    NotUnderstood(WireError),
    /// The job to be cancelled does not run, or is another operator's.
    #[error("no such job runs here")]
    NotRunning,
    /// The requested job is not known, or is another operator's.
    #[error("no such job is known here")]
    NoSuchJob,
    /// The requested job has not ended.
    #[error("it still runs")]
    StillRuns,
    /// An unsealed request for a sealed answer.
    #[error("that job is sealed: ask with --encrypt")]
    Sealed,
    /// The policy denies the command.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// The policy denies the revocation.
    #[error("the node's policy does not let this key revoke that one")]
    MayNotRevoke,
    /// [`MAX_OF_ONE`](super::revoked::MAX_OF_ONE) keys are revoked under the operator's.
    #[error(
        "as many keys as it may have are revoked under that key already: have it revoked itself"
    )]
    TooManyRevoked,
    /// The limit of running jobs is reached.
    #[error("{0} jobs run here already")]
    TooManyJobs(usize),
}

impl NotExecuted {
    /// Returns the counter.
    #[must_use]
    pub fn reason(&self) -> Refused {
        match self {
            Self::NotUnderstood(_) => Refused::NotUnderstood,
            Self::NotRunning | Self::NoSuchJob => Refused::NoSuchJob,
            Self::StillRuns => Refused::StillRuns,
            Self::Sealed => Refused::Sealed,
            Self::Denied(_) | Self::MayNotRevoke => Refused::Policy,
            Self::TooManyRevoked => Refused::TooManyRevoked,
            Self::TooManyJobs(_) => Refused::TooManyJobs,
        }
    }
}
