//! Messages from the control thread and the control socket to the packet loop.

use std::net::Ipv4Addr;

use lcroute_control::config::{Lan, Reread};
use lcroute_control::status::Mapping;
use lcroute_control::{Answer, Request};
use lcroute_node::Settings;
use lcroute_signalling::{CarrierEvent, Door, IceEvent};
use librecast::cert::GroupPrefix;
use tokio::sync::{mpsc, oneshot};

use crate::metrics::Observation;
use crate::waker::Waker;

/// Capacity of the channel.
const INBOX: usize = 1_024;

/// A message of the control thread to the loop.
#[derive(Debug)]
pub enum Message {
    /// An event of a carrier.
    Carrier(CarrierEvent),
    /// Something new about STUN servers and relays.
    Ice(IceEvent),
    /// Where other nodes find this one, and this host's address outside of a NAT that keeps ports.
    Doors(Vec<Door>, Option<Ipv4Addr>),
    /// The router's mapping of our UDP port.
    Mapping(Mapping),
    /// A request of the control socket.
    Ask(Request, oneshot::Sender<Answer>),
    /// A request for the values of metrics.
    Observe(oneshot::Sender<Observation>),
    /// Ends an announcement: its program has closed the connection.
    Withdraw(GroupPrefix),
    /// Removes the secrets of this prefix: their program has closed the connection.
    TakeBackSecrets(GroupPrefix),
    /// A program for streams registers, or ends.
    Streams(bool),
    /// Settings that can change while running.
    Reconfigure(Box<Reconfigure>),
    /// Ends the loop.
    Stop(End),
}

/// Settings that a reload can change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reconfigure {
    /// Routes of lc0.
    pub routes: Vec<GroupPrefix>,
    /// Prefixes that programs reach only by lc0.
    pub closed: Vec<GroupPrefix>,
    /// Interfaces whose addresses are used.
    pub interfaces: Vec<String>,
    /// LANs that this node is a gateway of.
    pub lans: Vec<Lan>,
    /// Settings of the node.
    pub node: Settings,
}

/// How the loop ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Removes lc0.
    Stop,
    /// Keeps lc0 and the joins of programs for the next image.
    Exec,
    /// Removes lc0 and the membership: this ephemeral member was expelled.
    Expelled,
}

/// The sending end for the control thread.
#[derive(Debug, Clone)]
pub struct Inbox {
    messages: mpsc::Sender<Message>,
    reload: mpsc::Sender<Reload>,
    waker: Waker,
}

/// A request to reload, by exec or by reading the file.
#[derive(Debug)]
pub struct Reload {
    /// Whether to execute the binary anew: after the answer the asker sends [`Message::Stop`].
    pub exec: bool,
    /// The result.
    pub done: oneshot::Sender<Result<Reread, String>>,
}

impl Inbox {
    /// Creates an inbox, and the receivers of its messages.
    pub fn new(waker: Waker) -> (Self, mpsc::Receiver<Message>, mpsc::Receiver<Reload>) {
        let (messages, received) = mpsc::channel(INBOX);
        let (reload, reloads) = mpsc::channel(1);
        (
            Self {
                messages,
                reload,
                waker,
            },
            received,
            reloads,
        )
    }

    /// Sends a message; waits while the channel is full. Returns false if the loop has ended.
    pub async fn send(&self, message: Message) -> bool {
        let sent = self.messages.send(message).await.is_ok();
        self.waker.wake();
        sent
    }

    /// Sends a request, and waits for the answer.
    pub async fn ask(&self, request: Request) -> Answer {
        let stopping = || Answer::Error("the daemon is stopping".into());
        if let Request::Reload { exec } = request {
            let (done, result) = oneshot::channel();
            if self.reload.send(Reload { exec, done }).await.is_err() {
                return stopping();
            }
            return match result.await {
                Ok(Ok(reread)) => serde_json::to_value(reread)
                    .map_or_else(|e| Answer::Error(e.to_string()), Answer::Ok),
                Ok(Err(e)) => Answer::Error(e),
                Err(_) => stopping(),
            };
        }
        let (answer, answered) = oneshot::channel();
        if !self.send(Message::Ask(request, answer)).await {
            return stopping();
        }
        answered.await.unwrap_or_else(|_| stopping())
    }

    /// Returns the values of metrics; blocks, so it needs a thread of its own.
    pub fn observe(&self) -> Option<Observation> {
        let (answer, answered) = oneshot::channel();
        self.messages.blocking_send(Message::Observe(answer)).ok()?;
        self.waker.wake();
        answered.blocking_recv().ok()
    }
}
