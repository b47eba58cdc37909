//! Places of connections: strangers cannot occupy all, and a client that reads nothing leaves.
//!
//! All programs of this host have one address. So a new connection is never refused: instead the
//! site with the most connections loses the one that has made no progress for the longest time.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::time::{Instant, Sleep};

/// Simultaneous connections without the key.
const MAX_STRANGERS: usize = 64;
/// Simultaneous connections with the key.
const MAX_TRUSTED: usize = 64;
/// Time for which a reader may take nothing.
const STALL: Duration = Duration::from_secs(10);
/// Lowest long-term rate of a reader, in bytes a second. Chosen: a phone at the edge of its cell.
const MIN_RATE: u32 = 4_096;

/// All connections of a server.
#[derive(Debug, Default)]
pub struct Connections(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    next: u64,
    all: BTreeMap<u64, Arc<State>>,
}

#[derive(Debug)]
struct State {
    site: IpAddr,
    is_trusted: AtomicBool,
    /// When it last took bytes, or began.
    moved: Mutex<Instant>,
    ended: Notify,
}

/// A connection's place in the table, until it is dropped.
#[derive(Debug)]
pub struct Place {
    number: u64,
    state: Arc<State>,
    connections: Arc<Connections>,
}

impl Connections {
    /// Adds a connection from an address; another one may have to end.
    pub fn enter(self: &Arc<Self>, from: IpAddr) -> Place {
        let state = Arc::new(State {
            site: site(from),
            is_trusted: AtomicBool::new(false),
            moved: Mutex::new(Instant::now()),
            ended: Notify::new(),
        });
        let mut table = self.table();
        let number = table.next;
        table.next += 1;
        table.make_room();
        table.all.insert(number, Arc::clone(&state));
        Place {
            number,
            state,
            connections: Arc::clone(self),
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        locked(&self.0)
    }
}

impl Table {
    fn make_room(&mut self) {
        let strangers = self.all.iter().filter(|(_, state)| !state.is_trusted());
        let mut sites = BTreeMap::<_, usize>::new();
        for (_, state) in strangers.clone() {
            *sites.entry(state.site).or_default() += 1;
        }
        if sites.values().sum::<usize>() < MAX_STRANGERS {
            return;
        }
        let worst = strangers.max_by_key(|(_, state)| {
            let moved = *locked(&state.moved);
            (sites.get(&state.site), std::cmp::Reverse(moved))
        });
        if let Some(state) = worst.map(|(n, _)| *n).and_then(|n| self.all.remove(&n)) {
            state.ended.notify_one();
        }
    }
}

impl State {
    fn is_trusted(&self) -> bool {
        self.is_trusted.load(Ordering::Relaxed)
    }
}

impl Place {
    /// Marks a client with the key, whose place strangers cannot take; false if there are too many.
    pub fn trust(&self) -> bool {
        let table = self.connections.table();
        let trusted = table.all.values().filter(|state| state.is_trusted());
        let is_admitted = self.state.is_trusted() || trusted.count() < MAX_TRUSTED;
        self.state.is_trusted.store(is_admitted, Ordering::Relaxed);
        is_admitted
    }

    /// Waits until another connection needs the place.
    pub async fn ended(&self) {
        self.state.ended.notified().await;
    }

    /// The connection's stream, which ends if the peer takes nothing.
    pub fn pace<S>(&self, stream: S) -> Paced<S> {
        Paced {
            stream,
            state: Arc::clone(&self.state),
            budget: StallBudget::default(),
            waiting: None,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.table().all.remove(&self.number);
    }
}

/// The part of an address that counts as one site: a host with IPv6 has 2^64 addresses.
pub fn site(from: IpAddr) -> IpAddr {
    match from.to_canonical() {
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64).into(),
        ip => ip,
    }
}

/// Ignores poisoning: no panic leaves a table half changed.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A stream with a [`StallBudget`] for its reader.
#[derive(Debug)]
pub struct Paced<S> {
    stream: S,
    state: Arc<State>,
    budget: StallBudget,
    /// The timer for the end of the budget.
    waiting: Option<Pin<Box<Sleep>>>,
}

/// The remaining time for which a reader may take nothing; taken bytes add to it.
#[derive(Debug)]
struct StallBudget {
    left: Duration,
    /// When the budget ends, while the reader takes nothing.
    until: Option<Instant>,
}

impl Default for StallBudget {
    fn default() -> Self {
        Self {
            left: STALL,
            until: None,
        }
    }
}

impl StallBudget {
    /// The reader takes nothing; returns when the budget ends.
    fn stall(&mut self, now: Instant) -> Instant {
        *self.until.get_or_insert(now + self.left)
    }

    /// The reader takes bytes.
    fn resume(&mut self, bytes: usize, now: Instant) {
        if let Some(until) = self.until.take() {
            self.left = until.saturating_duration_since(now);
        }
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let gained = Duration::from_secs(bytes.into()) / MIN_RATE;
        self.left = self.left.saturating_add(gained).min(STALL);
    }
}

impl<S> Paced<S> {
    fn written(
        &mut self,
        written: Poll<io::Result<usize>>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let Poll::Ready(result) = written else {
            let until = self.budget.stall(Instant::now());
            let waiting = || Box::pin(tokio::time::sleep_until(until));
            let waiting = self.waiting.get_or_insert_with(waiting);
            ready!(waiting.as_mut().poll(cx));
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        };
        let now = Instant::now();
        self.waiting = None;
        self.budget.resume(*result.as_ref().unwrap_or(&0), now);
        if let Ok(1..) = result {
            *locked(&self.state.moved) = now;
        }
        Poll::Ready(result)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Paced<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Paced<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.written(written, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.written(written, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const HERE: &str = "127.0.0.1";

    fn enter(connections: &Arc<Connections>, from: &str) -> Place {
        connections.enter(from.parse().unwrap())
    }

    fn has_ended(place: &Place) -> bool {
        !place.connections.table().all.contains_key(&place.number)
    }

    #[tokio::test]
    async fn a_newcomer_takes_the_place_of_whoever_got_nothing_for_longest() {
        let connections = Arc::default();
        let mut places = Vec::new();
        for _ in 0..MAX_STRANGERS {
            places.push(enter(&connections, HERE));
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let (near, mut far) = tokio::io::duplex(1 << 10);
        places[0].pace(near).write_all(b"bytes").await.unwrap();
        far.read_exact(&mut [0; 5]).await.unwrap();
        assert!(places[2].trust());
        let _new = [(); 2].map(|()| enter(&connections, HERE));
        let ended: Vec<_> = (0..5).filter(|n| has_ended(&places[*n])).collect();
        assert_eq!(
            ended,
            [1],
            "the first has read, the third has the key, which left a place"
        );
        places[1].ended().await;
        let _more = [(); 2].map(|()| enter(&connections, HERE));
        let ended: Vec<_> = (0..6).filter(|n| has_ended(&places[*n])).collect();
        assert_eq!(ended, [1, 3, 4]);
        drop(places);
        assert_eq!(connections.table().all.len(), 4);
    }

    #[tokio::test]
    async fn who_has_many_loses_before_who_has_few() {
        let connections = Arc::default();
        let guest = enter(&connections, "192.0.2.1");
        tokio::time::sleep(Duration::from_millis(1)).await;
        // a host with a /64 has any number of addresses
        let flood = (0..1_000).map(|n| enter(&connections, &format!("2001:db8:0:7::{n:x}")));
        let flood: Vec<_> = flood.collect();
        let left = flood.iter().filter(|place| !has_ended(place));
        assert_eq!(left.count(), MAX_STRANGERS - 1);
        assert!(!has_ended(&guest));
    }

    #[tokio::test]
    async fn those_with_the_key_are_bounded_as_well() {
        let connections = Arc::default();
        let places: Vec<_> = (0..=MAX_TRUSTED)
            .map(|_| {
                let place = enter(&connections, HERE);
                let is_trusted = place.trust();
                (place, is_trusted)
            })
            .collect();
        let trusted = places.iter().filter(|(_, is_trusted)| *is_trusted);
        assert_eq!(trusted.count(), MAX_TRUSTED);
        assert!(places[0].0.trust(), "it has its place already");
    }

    /// Returns the bytes of 200 KiB that a reader gets with a pause after each `bytes`.
    fn read(bytes: usize, pause: Duration) -> usize {
        let (mut budget, mut now, mut all) = (StallBudget::default(), Instant::now(), 0);
        while all < 200 << 10 {
            budget.resume(bytes, now);
            all += bytes;
            let until = budget.stall(now);
            now += pause;
            if now >= until {
                break;
            }
        }
        all
    }

    #[test]
    fn a_reader_has_to_go_on() {
        assert_eq!(read(1 << 10, Duration::from_secs(3_600)), 1 << 10);
        assert_eq!(read(1 << 10, Duration::from_millis(200)), 200 << 10);
        // a byte now and then is not enough
        assert!(read(1, Duration::from_secs(5)) < 10);
    }

    #[tokio::test]
    async fn a_connection_ends_whose_reader_takes_nothing() {
        let connections = Arc::default();
        let place = enter(&connections, HERE);
        let (near, _far) = tokio::io::duplex(1 << 10);
        let mut near = place.pace(near);
        near.budget.left = Duration::ZERO;
        let sent = near.write_all(&vec![0; 2 << 20]).await;
        assert_eq!(sent.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}
