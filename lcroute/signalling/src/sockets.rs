//! UDP sockets of links, one for each address of this host, each with a task that reads it.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Bytes of a receive buffer: more than the longest datagram of a link.
const BUFFER: usize = 2_048;

/// A datagram, after the addresses of its sender and of the socket.
pub type Datagram = (SocketAddr, SocketAddr, Vec<u8>);

/// Returns a datagram and those that wait behind it, as many as one turn takes.
pub fn batch(
    first: Datagram,
    more: &mut mpsc::Receiver<Datagram>,
    most: usize,
) -> impl Iterator<Item = Datagram> {
    let waiting = std::iter::from_fn(|| more.try_recv().ok());
    std::iter::once(first).chain(waiting).take(most)
}

#[derive(Debug)]
struct Bound {
    at: SocketAddr,
    socket: Arc<UdpSocket>,
    reader: JoinHandle<()>,
}

impl Drop for Bound {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// The sockets.
#[derive(Debug)]
pub struct Sockets {
    bound: Vec<Bound>,
    received: mpsc::Sender<Datagram>,
}

impl Sockets {
    /// Returns no sockets yet, and the datagrams of later ones, of which at most `queued` wait.
    pub fn new(queued: usize) -> (Self, mpsc::Receiver<Datagram>) {
        let (received, datagrams) = mpsc::channel(queued);
        let bound = Vec::new();
        (Self { bound, received }, datagrams)
    }

    /// Returns the addresses of the sockets.
    pub fn addresses(&self) -> impl ExactSizeIterator<Item = SocketAddr> {
        self.bound.iter().map(|bound| bound.at)
    }

    /// Returns the port of the first socket.
    pub fn port(&self) -> Option<u16> {
        self.bound.first().map(|bound| bound.at.port())
    }

    /// Returns whether there is a socket of this address.
    pub fn has(&self, ip: IpAddr) -> bool {
        self.addresses().any(|at| at.ip() == ip)
    }

    /// Opens a socket, within a tokio runtime.
    pub fn open(&mut self, at: (IpAddr, u16)) -> io::Result<()> {
        let socket = std::net::UdpSocket::bind(at)?;
        socket.set_nonblocking(true)?;
        let at = socket.local_addr()?;
        let socket = Arc::new(UdpSocket::from_std(socket)?);
        let reader = tokio::spawn(receive(socket.clone(), at, self.received.clone()));
        self.bound.push(Bound { at, socket, reader });
        Ok(())
    }

    /// Closes all sockets but those of these addresses.
    pub fn retain(&mut self, addresses: &[IpAddr]) {
        self.bound
            .retain(|bound| addresses.contains(&bound.at.ip()));
    }

    /// Sends a datagram from this address, or from any of its family.
    pub fn send(&self, from: Option<SocketAddr>, to: SocketAddr, datagram: &[u8]) {
        let is_its = |at: &SocketAddr| match from {
            Some(from) => *at == from,
            None => at.is_ipv4() == to.is_ipv4(),
        };
        let bound = self.bound.iter().find(|bound| is_its(&bound.at));
        if let Some(bound) = bound
            && let Err(e) = bound.socket.try_send_to(datagram, to)
        {
            // networks lose datagrams at any time
            tracing::debug!("to {to}: {e}");
        }
    }
}

async fn receive(socket: Arc<UdpSocket>, at: SocketAddr, received: mpsc::Sender<Datagram>) {
    let mut buffer = vec![0; BUFFER];
    loop {
        match socket.recv_from(&mut buffer).await {
            Ok((n, from)) => {
                let datagram = buffer[..n].to_vec();
                if received.send((from, at, datagram)).await.is_err() {
                    return;
                }
            }
            // an ICMP error about an earlier datagram
            Err(e) => tracing::debug!("{at}: {e}"),
        }
    }
}
