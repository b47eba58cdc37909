//! Room for streams whose programs read slowly. Bytes that wait for readers count for the window of the whole connection: without more
//! room, two streams that nobody reads would stop all others between the same nodes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use quinn::{Connection, VarInt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes of one stream that may wait for its reader.
pub const STREAM_WINDOW: u32 = 4 << 20;
/// Bytes of one node's streams that may wait for readers, beside those of streams that are behind.
pub const RECEIVE_WINDOW: u32 = 8 << 20;
/// Most streams of all nodes that have room of their own while their readers are behind. Chosen: 256 MiB together; the unit has
/// room for it.
const MAX_BEHIND: usize = 64;

/// Room for streams that are behind, for all connections together.
#[derive(Debug, Clone)]
pub struct Room(Arc<Semaphore>);

impl Default for Room {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MAX_BEHIND)))
    }
}

/// The window of a connection.
#[derive(Debug)]
pub struct Window {
    connection: Connection,
    room: Room,
    behind: Mutex<u32>,
}

impl Window {
    /// The window of this connection, as it began.
    pub fn new(connection: Connection, room: Room) -> Arc<Self> {
        Arc::new(Self {
            connection,
            room,
            behind: Mutex::default(),
        })
    }

    /// Makes room for a stream that is behind, until this is dropped; none where too many are.
    pub fn widen(self: &Arc<Self>) -> Option<Wider> {
        let place = Arc::clone(&self.room.0).try_acquire_owned().ok()?;
        *self.lock() += 1;
        self.set();
        Some(Wider {
            window: Arc::clone(self),
            _place: place,
        })
    }

    fn lock(&self) -> MutexGuard<'_, u32> {
        self.behind.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self) {
        let behind = self.lock();
        self.connection
            .set_receive_window(VarInt::from_u32(RECEIVE_WINDOW + *behind * STREAM_WINDOW));
    }
}

/// Room for a stream that is behind.
#[derive(Debug)]
pub struct Wider {
    window: Arc<Window>,
    _place: OwnedSemaphorePermit,
}

impl Drop for Wider {
    fn drop(&mut self) {
        *self.window.lock() -= 1;
        self.window.set();
    }
}
