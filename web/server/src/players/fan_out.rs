//! Pieces of one stream for many clients: each has its place in a common ring. Without I/O.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::reasons::CloseReason;

/// Age above which a piece that a client has not taken ends that client. Chosen: a player that lags
/// more plays with gaps anyway.
pub const LAG: Duration = Duration::from_secs(2);

/// A client of one stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClientId(u64);

/// The next thing for a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Taken {
    /// A piece.
    Piece(Bytes),
    /// Nothing so far.
    Nothing,
    /// The end of the stream for this client.
    End(CloseReason),
}

/// The ring, and its clients.
#[derive(Debug)]
pub struct FanOut {
    /// Pieces with the times at which they came.
    pieces: VecDeque<(Instant, Bytes)>,
    /// Number of the first kept piece.
    first: u64,
    /// Bytes of all kept pieces, and their bound.
    bytes: usize,
    most: usize,
    /// The number of the next piece of each client.
    clients: BTreeMap<ClientId, u64>,
    next_client: u64,
    end: Option<CloseReason>,
}

impl FanOut {
    /// Makes an empty ring of this many bytes.
    pub fn new(most: usize) -> Self {
        Self {
            pieces: VecDeque::new(),
            first: 0,
            bytes: 0,
            most,
            clients: BTreeMap::new(),
            next_client: 0,
            end: None,
        }
    }

    /// Adds a client, which gets pieces from now on.
    pub fn enter(&mut self) -> ClientId {
        let client = ClientId(self.next_client);
        self.next_client += 1;
        self.clients.insert(client, self.following());
        client
    }

    /// Removes a client; it may have been removed already.
    pub fn leave(&mut self, client: ClientId) {
        self.clients.remove(&client);
    }

    /// Adds a piece; returns the clients that it leaves behind.
    pub fn push(&mut self, piece: Bytes, now: Instant) -> Vec<ClientId> {
        debug_assert!(self.end.is_none(), "an ended stream gets no piece");
        self.bytes += piece.len();
        self.pieces.push_back((now, piece));
        self.handle_timeout(now)
    }

    /// Forgets old pieces; returns the clients that needed one.
    pub fn handle_timeout(&mut self, now: Instant) -> Vec<ClientId> {
        while let Some((at, piece)) = self.pieces.front() {
            let is_old = now.saturating_duration_since(*at) > LAG;
            if !is_old && self.bytes <= self.most {
                break;
            }
            self.bytes -= piece.len();
            self.first += 1;
            self.pieces.pop_front();
        }
        let behind = self.clients.iter().filter(|(_, next)| **next < self.first);
        let behind: Vec<_> = behind.map(|(client, _)| *client).collect();
        for client in &behind {
            self.clients.remove(client);
        }
        behind
    }

    /// Ends the stream: clients get what is there, and then this reason.
    pub fn end(&mut self, reason: CloseReason) {
        self.end.get_or_insert(reason);
    }

    /// Returns why the stream has ended.
    pub fn ended(&self) -> Option<CloseReason> {
        self.end
    }

    /// Returns the next thing for a client.
    pub fn take(&mut self, client: ClientId) -> Taken {
        let Some(next) = self.clients.get_mut(&client) else {
            return Taken::End(CloseReason::Behind);
        };
        let at = next.checked_sub(self.first);
        let at = at.and_then(|at| usize::try_from(at).ok());
        match (at.and_then(|at| self.pieces.get(at)), self.end) {
            (Some((_, piece)), _) => {
                *next += 1;
                Taken::Piece(piece.clone())
            }
            (None, Some(reason)) => Taken::End(reason),
            (None, None) => Taken::Nothing,
        }
    }

    /// Returns the number of the piece after the last one.
    fn following(&self) -> u64 {
        self.first + self.pieces.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece() -> Bytes {
        Bytes::from_static(&[7; 100])
    }

    fn after(begun: Instant, ms: u64) -> Instant {
        begun + Duration::from_millis(ms)
    }

    #[test]
    fn every_client_gets_every_piece_once_from_its_entry_on() {
        let (mut fan_out, now) = (FanOut::new(10_000), Instant::now());
        let early = fan_out.enter();
        assert_eq!(fan_out.take(early), Taken::Nothing);
        assert!(fan_out.push(Bytes::from_static(b"a"), now).is_empty());
        let late = fan_out.enter();
        assert!(fan_out.push(Bytes::from_static(b"b"), now).is_empty());
        let mut all = |client| {
            let mut text = Vec::new();
            while let Taken::Piece(piece) = fan_out.take(client) {
                text.extend(piece);
            }
            text
        };
        assert_eq!(all(early), b"ab");
        assert_eq!(all(late), b"b");
        assert_eq!(all(early), b"");
    }

    #[test]
    fn a_client_more_than_two_seconds_behind_is_closed_and_delays_no_other() {
        let (mut fan_out, begun) = (FanOut::new(1 << 20), Instant::now());
        let [stuck, reads] = [(); 2].map(|()| fan_out.enter());
        for ms in (0..=2_000).step_by(20) {
            assert!(fan_out.push(piece(), after(begun, ms)).is_empty(), "{ms}");
            assert_eq!(fan_out.take(reads), Taken::Piece(piece()));
        }
        assert_eq!(fan_out.push(piece(), after(begun, 2_020)), [stuck]);
        assert_eq!(fan_out.take(stuck), Taken::End(CloseReason::Behind));
        assert_eq!(fan_out.take(reads), Taken::Piece(piece()));
        fan_out.leave(reads);
        assert!(fan_out.clients.is_empty());
    }

    #[test]
    fn a_stuck_client_of_a_stream_that_fell_silent_is_closed_too() {
        let (mut fan_out, begun) = (FanOut::new(1 << 20), Instant::now());
        let stuck = fan_out.enter();
        fan_out.push(piece(), begun);
        assert!(fan_out.handle_timeout(after(begun, 2_000)).is_empty());
        assert_eq!(fan_out.handle_timeout(after(begun, 2_001)), [stuck]);
        // who has taken all waits for any time
        let waits = fan_out.enter();
        assert!(fan_out.handle_timeout(after(begun, 9_999)).is_empty());
        assert_eq!(fan_out.take(waits), Taken::Nothing);
    }

    #[test]
    fn the_ring_keeps_its_bound_whatever_comes() {
        let (mut fan_out, now) = (FanOut::new(1_000), Instant::now());
        let stuck = fan_out.enter();
        let mut behind = Vec::new();
        for _ in 0..100 {
            behind.extend(fan_out.push(piece(), now));
            assert!(fan_out.bytes <= 1_000);
        }
        assert_eq!(behind, [stuck]);
        assert_eq!(fan_out.pieces.len(), 10);
    }

    #[test]
    fn at_the_end_clients_get_the_rest_and_then_the_reason() {
        let mut fan_out = FanOut::new(1_000);
        let client = fan_out.enter();
        fan_out.push(piece(), Instant::now());
        fan_out.end(CloseReason::Ended);
        fan_out.end(CloseReason::Silent);
        assert_eq!(fan_out.take(client), Taken::Piece(piece()));
        assert_eq!(fan_out.take(client), Taken::End(CloseReason::Ended));
    }
}
