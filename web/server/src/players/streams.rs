//! Streams with clients: one join each, while somebody listens.

use std::collections::BTreeMap;
use std::net::{Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use bytes::Bytes;
use lcradio_core::Station;
use librecast::drops::{Drops, Reason as _};
use tokio::sync::{Notify, Semaphore};
use tokio::task::AbortHandle;

use super::fan_out::{ClientId, FanOut, Taken};
use super::reasons::CloseReason;

/// Bytes that rings of all groups keep for slow clients. Chosen: a quarter of the service's memory.
const GROUP_RINGS: usize = 64 << 20;
/// Most bytes of a group's ring: two seconds of 32 Mbit/s.
const MAX_RING: usize = 8 << 20;
/// Bytes of a station's ring: two seconds of 512 kbit/s.
const SOUND_RING: usize = 128 << 10;
/// Most ffmpeg at a time, one for each station. Chosen: each takes some 30 MB.
const MAX_FFMPEG: usize = 4;
/// States of stations that are remembered for the list. Chosen: more than the configuration names.
const MAX_STATES: usize = 128;

/// A stream that a client may ask for.
#[derive(Debug, Clone)]
pub enum Wanted {
    /// The payloads of a group.
    Group(SocketAddr),
    /// A station as Ogg Opus, under this name.
    Ogg(Station, String),
    /// The same as MP3.
    Mp3(Station, String),
}

/// The identity of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    Group(SocketAddr),
    Ogg(Ipv6Addr),
    Mp3(Ipv6Addr),
}

impl Wanted {
    fn key(&self) -> Key {
        match self {
            Self::Group(at) => Key::Group(*at),
            Self::Ogg(station, _) => Key::Ogg(station.group()),
            Self::Mp3(station, _) => Key::Mp3(station.group()),
        }
    }
}

/// The beginning of an answer.
#[derive(Debug, Clone)]
pub struct Beginning {
    pub media_type: &'static str,
    /// The bytes before the first piece, for each client.
    pub head: Option<Bytes>,
}

/// Ignores poisoning: no panic leaves a table half changed.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Closed clients, by reason.
#[derive(Debug, Default)]
pub struct Closed(Mutex<Drops<CloseReason>>);

impl Closed {
    pub fn count(&self, reason: CloseReason) {
        tracing::debug!("a client of [players] was closed: {}", reason.name());
        locked(&self.0).count(reason);
    }

    pub fn by_name(&self) -> BTreeMap<&'static str, u64> {
        locked(&self.0).by_name()
    }
}

/// Begins the task of a stream.
pub type Carry = fn(Arc<Streams>, Wanted, Arc<Channel>) -> AbortHandle;

/// All streams in use.
#[derive(Debug)]
pub struct Streams {
    carry: Carry,
    /// The name of lcroute's interface.
    pub tun: String,
    /// Bytes of a group's ring.
    ring: usize,
    pub ffmpegs: Semaphore,
    /// The program that makes MP3, by its name or path.
    pub ffmpeg: &'static str,
    in_use: Mutex<BTreeMap<Key, Running>>,
    states: Mutex<BTreeMap<Ipv6Addr, String>>,
    pub closed: Arc<Closed>,
}

#[derive(Debug)]
struct Running {
    channel: Arc<Channel>,
    task: AbortHandle,
}

impl Streams {
    /// Makes no stream yet, for this many offered groups.
    pub fn new(tun: &str, groups: usize, carry: Carry) -> Self {
        Self {
            carry,
            tun: tun.to_owned(),
            ring: (GROUP_RINGS / groups.max(1)).min(MAX_RING),
            ffmpegs: Semaphore::new(MAX_FFMPEG),
            ffmpeg: "ffmpeg",
            in_use: Mutex::default(),
            states: Mutex::default(),
            closed: Arc::default(),
        }
    }

    /// Adds a client, and the stream if it is the first one. `closed` tells a client that reads nothing.
    pub fn enter(self: &Arc<Self>, wanted: &Wanted, closed: Arc<Notify>) -> Client {
        let key = wanted.key();
        let mut in_use = locked(&self.in_use);
        let running = in_use.get(&key).map(|running| Arc::clone(&running.channel));
        let channel = running.filter(|channel| !channel.has_ended());
        let channel = channel.unwrap_or_else(|| {
            let channel = self.channel(key);
            let running = Running {
                task: (self.carry)(Arc::clone(self), wanted.clone(), Arc::clone(&channel)),
                channel: Arc::clone(&channel),
            };
            in_use.insert(key, running);
            channel
        });
        let id = channel.enter(closed);
        Client {
            streams: Arc::clone(self),
            key,
            channel,
            id,
        }
    }

    fn channel(&self, key: Key) -> Arc<Channel> {
        let ring = match key {
            Key::Group(_) => self.ring,
            Key::Ogg(_) | Key::Mp3(_) => SOUND_RING,
        };
        Arc::new(Channel::new(ring, Arc::clone(&self.closed)))
    }

    /// Removes a client; without any, the stream ends, and with it the join.
    fn leave(&self, client: &Client) {
        let mut in_use = locked(&self.in_use);
        if !client.channel.leave(client.id) {
            return;
        }
        let is_this = |running: &Running| Arc::ptr_eq(&running.channel, &client.channel);
        if in_use.get(&client.key).is_some_and(is_this) {
            let ended = in_use.remove(&client.key);
            drop(in_use);
            if let Some(Running { channel, task }) = ended {
                task.abort();
                // else its last state stays in the list
                if let (Key::Ogg(group), false) = (client.key, channel.has_ended()) {
                    locked(&self.states).remove(&group);
                }
            }
        }
    }

    /// Remembers a station's state for the list.
    pub fn set_state(&self, group: Ipv6Addr, state: String) {
        let mut states = locked(&self.states);
        if states.len() >= MAX_STATES && !states.contains_key(&group) {
            states.pop_first();
        }
        states.insert(group, state);
    }

    /// Returns a station's state.
    pub fn state(&self, group: Ipv6Addr) -> Option<String> {
        locked(&self.states).get(&group).cloned()
    }

    /// Adds a stream that a test fills.
    #[cfg(test)]
    pub fn insert(&self, key: Key) -> Arc<Channel> {
        let channel = self.channel(key);
        let task = tokio::spawn(std::future::pending::<()>()).abort_handle();
        let running = Running {
            task,
            channel: Arc::clone(&channel),
        };
        locked(&self.in_use).insert(key, running);
        channel
    }

    /// Returns whether a stream is in use.
    #[cfg(test)]
    pub fn has(&self, key: Key) -> bool {
        locked(&self.in_use).contains_key(&key)
    }
}

/// One stream.
#[derive(Debug)]
pub struct Channel {
    state: Mutex<State>,
    closed: Arc<Closed>,
}

#[derive(Debug)]
struct State {
    fan_out: FanOut,
    seats: BTreeMap<ClientId, Seat>,
    beginning: Option<Beginning>,
    /// Why it has ended, for a client that got nothing.
    told: String,
}

/// A client that waits.
#[derive(Debug)]
struct Seat {
    waker: Option<Waker>,
    closed: Arc<Notify>,
}

impl Channel {
    fn new(ring: usize, closed: Arc<Closed>) -> Self {
        Self {
            state: Mutex::new(State {
                fan_out: FanOut::new(ring),
                seats: BTreeMap::new(),
                beginning: None,
                told: String::new(),
            }),
            closed,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        locked(&self.state)
    }

    fn has_ended(&self) -> bool {
        self.state().fan_out.ended().is_some()
    }

    fn enter(&self, closed: Arc<Notify>) -> ClientId {
        let mut state = self.state();
        let id = state.fan_out.enter();
        let waker = None;
        state.seats.insert(id, Seat { waker, closed });
        id
    }

    /// Removes a client; returns whether it was the last one.
    fn leave(&self, id: ClientId) -> bool {
        let mut state = self.state();
        state.fan_out.leave(id);
        state.seats.remove(&id);
        state.seats.is_empty()
    }

    /// Returns the number of clients.
    #[cfg(test)]
    pub fn clients(&self) -> usize {
        self.state().seats.len()
    }

    /// Begins the answers of all clients, once.
    pub fn begin(&self, media_type: &'static str, head: Option<Bytes>) {
        let mut state = self.state();
        if state.beginning.is_none() {
            state.beginning = Some(Beginning { media_type, head });
            state.wake();
        }
    }

    /// Adds a piece for all clients.
    pub fn push(&self, piece: Bytes, now: Instant) {
        if piece.is_empty() {
            return;
        }
        let mut state = self.state();
        let behind = state.fan_out.push(piece, now);
        self.close(&state, behind);
        state.wake();
    }

    /// Closes clients that have read nothing for too long.
    pub fn handle_timeout(&self, now: Instant) {
        let mut state = self.state();
        let behind = state.fan_out.handle_timeout(now);
        self.close(&state, behind);
    }

    fn close(&self, state: &State, behind: Vec<ClientId>) {
        for id in behind {
            self.closed.count(CloseReason::Behind);
            // its seat goes with its connection
            if let Some(seat) = state.seats.get(&id) {
                seat.closed.notify_one();
            }
        }
    }

    /// Ends the stream for all clients.
    pub fn end(&self, reason: CloseReason, told: String) {
        let mut state = self.state();
        state.fan_out.end(reason);
        state.told = told;
        state.wake();
    }
}

impl State {
    fn wake(&mut self) {
        for waker in self.seats.values_mut().filter_map(|seat| seat.waker.take()) {
            waker.wake();
        }
    }

    fn wait(&mut self, id: ClientId, cx: &Context<'_>) {
        if let Some(seat) = self.seats.get_mut(&id) {
            seat.waker = Some(cx.waker().clone());
        }
    }
}

/// A client of a stream, which leaves it when it is dropped.
#[derive(Debug)]
pub struct Client {
    streams: Arc<Streams>,
    key: Key,
    channel: Arc<Channel>,
    id: ClientId,
}

impl Client {
    /// Waits for the beginning; an error says why there is none.
    pub async fn begun(&self) -> Result<Beginning, (CloseReason, String)> {
        std::future::poll_fn(|cx| {
            let mut state = self.channel.state();
            if let Some(beginning) = &state.beginning {
                return Poll::Ready(Ok(beginning.clone()));
            }
            if let Some(reason) = state.fan_out.ended() {
                return Poll::Ready(Err((reason, state.told.clone())));
            }
            state.wait(self.id, cx);
            Poll::Pending
        })
        .await
    }

    /// Returns the next piece, or why there is no more.
    pub fn poll_piece(&self, cx: &Context<'_>) -> Poll<Result<Bytes, CloseReason>> {
        let mut state = self.channel.state();
        match state.fan_out.take(self.id) {
            Taken::Piece(piece) => Poll::Ready(Ok(piece)),
            Taken::End(reason) => Poll::Ready(Err(reason)),
            Taken::Nothing => {
                state.wait(self.id, cx);
                Poll::Pending
            }
        }
    }

    /// Counts the end of this client.
    pub fn count(&self, reason: CloseReason) {
        self.streams.closed.count(reason);
    }

    /// Waits for the next piece.
    pub async fn next(&self) -> Result<Bytes, CloseReason> {
        std::future::poll_fn(|cx| self.poll_piece(cx)).await
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let streams = Arc::clone(&self.streams);
        streams.leave(self);
    }
}
