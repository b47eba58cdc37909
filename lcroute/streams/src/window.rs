//! Room for streams with slow readers. Unread bytes count against the window of the whole
//! connection: without more room, two unread streams would stop all other streams between the same
//! nodes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use quinn::{Connection, VarInt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Maximum number of bytes of one stream that wait for its reader.
pub const STREAM_WINDOW: u32 = 4 << 20;
/// Maximum number of bytes of one node's streams that wait for readers, without slow streams.
pub const RECEIVE_WINDOW: u32 = 8 << 20;
/// Maximum number of slow streams with extra room. Chosen: 256 MiB, within the unit's limit.
const MAX_BEHIND: usize = 64;

/// Extra room for slow streams of all connections.
#[derive(Debug, Clone)]
pub struct Room(Arc<Semaphore>);

impl Default for Room {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MAX_BEHIND)))
    }
}

#[derive(Debug)]
pub struct Window {
    connection: Connection,
    room: Room,
    behind: Mutex<u32>,
}

impl Window {
    pub fn new(connection: Connection, room: Room) -> Arc<Self> {
        Arc::new(Self {
            connection,
            room,
            behind: Mutex::default(),
        })
    }

    /// Adds room for a slow stream, until the result is dropped; none if there are too many.
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

/// Extra room for a slow stream.
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
