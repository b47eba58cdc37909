//! Actions for the agent's shell, and the jobs that they start.

use std::net::Ipv6Addr;

use librecast::id::PeerId;

use super::policy::Permit;
use super::revoked::Principal;
use crate::datagram::{JobId, StreamId};
use crate::request::Run;
use crate::sealed::AnswerKey;

/// An action for the shell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Sends a datagram to the channel, on interface `via` (0: on all).
    Channel {
        /// Index of the interface.
        via: u32,
        /// At most [`MAX_DATAGRAM`](crate::datagram::MAX_DATAGRAM) bytes.
        datagram: Vec<u8>,
    },
    /// Sends a datagram to an operator's answer group, on interface `via` (0: on all).
    Answers {
        /// The operator of that group.
        operator: PeerId,
        /// Index of the interface.
        via: u32,
        /// At most [`MAX_DATAGRAM`](crate::datagram::MAX_DATAGRAM) bytes.
        datagram: Vec<u8>,
    },
    /// Writes the replay window to disk. Precedes all outputs that follow from a command.
    Remember,
    /// Writes the revocations to disk.
    RememberRevoked,
    /// Starts a job; reported by `Agent::handle_stream` or `Agent::handle_refused`.
    Start(Box<Start>),
    /// Ends the job; its stream ends with a record of the cause.
    Cancel(JobId),
    /// Passes the node's facts to `Agent::handle_answer`.
    Facts(JobId),
    /// Passes the operator's jobs to `Agent::handle_answer`.
    Jobs {
        /// The operator that requests the list.
        operator: PeerId,
        /// The requesting command.
        job: JobId,
    },
    /// An operator reports another agent with this key at this address; output once each.
    SharedKey(Ipv6Addr),
    /// A job's stream has been delivered.
    Delivered(JobId),
    /// A job's stream can be deleted.
    Forget(JobId),
    /// For the audit log: a command that starts no job.
    Audit {
        /// The command's operator.
        operator: PeerId,
        /// The operator's name in the policy.
        name: Option<String>,
        /// The command.
        job: JobId,
        /// The request, in words.
        what: String,
        /// The result.
        verdict: String,
    },
}

/// A job that may run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    /// The command, and the name of the job's folder.
    pub job: JobId,
    /// The operator, and the key that certified it.
    pub principal: Principal,
    /// The operator's name in the policy.
    pub name: Option<String>,
    /// Program, arguments and environment.
    pub run: Run,
    /// User and limits.
    pub permit: Permit,
    /// The first bytes of its stream.
    pub preamble: Vec<u8>,
    /// The stream's name.
    pub stream: StreamId,
    /// The key that seals the answer, if it is private.
    pub seal: Option<AnswerKey>,
}

/// The part of a job that an agent keeps beside its stream.
#[derive(Debug, Clone)]
pub struct Kept {
    /// The operator, and the key that certified it.
    pub principal: Principal,
    /// The key that seals the answer, if it is private.
    pub seal: Option<AnswerKey>,
    /// The stream's name.
    pub stream: StreamId,
    /// Whether the operator has the whole stream.
    pub delivered: bool,
}
