//! How the control thread, and through it the control socket, speaks to the packet loop.

use crate::config::{Lan, Reread};
use std::net::SocketAddr;

use lcroute_node::Settings;
use lcroute_overlay::{CarrierId, CarrierKind, Presence};
use lcroute_signalling::Door;
use lcroute_webrtc::relay::{RelayOffer, StreamEvent};
use librecast::cert::GroupPrefix;
use librecast::id::PeerId;
use tokio::sync::{mpsc, oneshot};

use crate::control::{Answer, Request};
use crate::metrics::Observation;
use crate::status::Mapping;
use crate::waker::Waker;

/// Messages of the control thread that may wait.
const INBOX: usize = 1_024;

/// What the control thread tells the loop.
#[derive(Debug)]
pub enum Message {
    /// Who can be reached over a carrier.
    Presence(CarrierId, Presence),
    /// A sealed signalling message.
    Signal(CarrierId, PeerId, Vec<u8>),
    /// A carrier has a presence record, under a name of its own.
    Record((CarrierId, CarrierKind), String, Vec<u8>),
    /// A carrier has a presence record no more.
    RecordGone(CarrierId, String),
    /// Addresses of STUN servers.
    StunServers(Vec<SocketAddr>),
    /// Relays that may be used.
    Relays(Vec<RelayOffer>),
    /// What becomes of a stream to a relay.
    RelayStream(u64, StreamEvent),
    /// By which doors others find this node.
    Doors(Vec<Door>),
    /// What the router maps to our UDP port.
    Mapping(Mapping),
    /// A question of the control socket.
    Ask(Request, oneshot::Sender<Answer>),
    /// All that metrics are made of.
    Observe(oneshot::Sender<Observation>),
    /// A program that announced this has gone.
    Withdraw(GroupPrefix),
    /// A program that gave the secrets of this prefix has gone.
    TakeBackSecrets(GroupPrefix),
    /// A program for streams has come, or gone.
    Streams(bool),
    /// Settings that can change while running.
    Reconfigure(Reconfigure),
    /// Leave the network.
    Stop(End),
}

/// What a reload can change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reconfigure {
    /// Routes of lc0.
    pub routes: Vec<GroupPrefix>,
    /// Prefixes that are reached by lc0 or not at all.
    pub closed: Vec<GroupPrefix>,
    /// Interfaces whose addresses are used.
    pub interfaces: Vec<String>,
    /// LANs that this node is a gateway of.
    pub lans: Vec<Lan>,
    /// What concerns the node.
    pub node: Settings,
}

/// How the loop ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// lc0 goes away.
    Stop,
    /// lc0 stays, with the joins of programs, for the binary that is executed next.
    Exec,
    /// lc0 goes away, and so does the membership: this ephemeral member was expelled.
    Expelled,
}

/// Where the control thread puts its messages.
#[derive(Debug, Clone)]
pub struct Inbox {
    messages: mpsc::Sender<Message>,
    reload: mpsc::Sender<Reload>,
    waker: Waker,
}

/// A request to reload: by exec or by reading the file; the answer tells how it went.
#[derive(Debug)]
pub struct Reload {
    /// Execute the binary anew: the answer says whether it may, and who asked sends the [`Message::Stop`].
    pub exec: bool,
    /// What became of it.
    pub done: oneshot::Sender<Result<Reread, String>>,
}

impl Inbox {
    /// An inbox, and the ends at which its messages come out.
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

    /// Hands a message over; waits while the loop is behind. False when the loop has ended.
    pub async fn send(&self, message: Message) -> bool {
        let sent = self.messages.send(message).await.is_ok();
        self.waker.wake();
        sent
    }

    /// Asks the daemon.
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

    /// What the daemon says of itself; from a thread of its own, as it waits.
    pub fn observe(&self) -> Option<Observation> {
        let (answer, answered) = oneshot::channel();
        self.messages.blocking_send(Message::Observe(answer)).ok()?;
        self.waker.wake();
        answered.blocking_recv().ok()
    }
}
