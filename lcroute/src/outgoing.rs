//! Datagrams on their way to the UDP socket.

use crate::drops::{DropReason, Drops};
use crate::udp;

/// A batch of datagrams of equal size for one destination, sent in one system call.
#[derive(Debug, Default)]
pub struct Outgoing {
    destination: Option<udp::Destination>,
    segment: usize,
    count: usize,
    buffer: Vec<u8>,
}

/// Most segments of one batch. Chosen: below the 64 that older kernels take; 1,200 bytes each fit.
const MAX_SEGMENTS: usize = 50;
/// Bytes of one batch: below the 64 KiB that the kernel takes, with room for headers.
const MAX_BATCH: usize = 60_000;

impl Outgoing {
    /// Adds a datagram; first sends the batch if the datagram does not fit it.
    pub fn push(
        &mut self,
        destination: udp::Destination,
        datagram: &[u8],
        socket: &mut udp::Socket,
        drops: &mut Drops,
    ) {
        let fits = self.destination == Some(destination)
            && datagram.len() <= self.segment
            && self.count < MAX_SEGMENTS
            && self.buffer.len() + datagram.len() <= MAX_BATCH
            // only the last segment may be short
            && self.buffer.len() == self.count * self.segment;
        if !fits {
            self.flush(socket, drops);
            self.destination = Some(destination);
            self.segment = datagram.len();
        }
        self.buffer.extend_from_slice(datagram);
        self.count += 1;
    }

    /// Sends the batch.
    pub fn flush(&mut self, socket: &mut udp::Socket, drops: &mut Drops) {
        if let Some(destination) = self.destination.take() {
            let segment = (self.count > 1).then_some(self.segment);
            if let Err(e) = socket.send(&destination, segment, &self.buffer) {
                tracing::debug!("udp send to {}: {e}", destination.to);
                drops.add(DropReason::UdpSendError, self.count as u64);
            }
        }
        self.count = 0;
        self.buffer.clear();
    }
}
