//! A port of the machine itself that leads into a world, for a browser on the user's desktop.

use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anyhow::{Context, Result};

use super::Namespace;

/// Maximum number of connections through all ports; further ones are closed at once.
const MAX_CONNECTIONS: usize = 128;
static CONNECTIONS: AtomicUsize = AtomicUsize::new(0);

/// A TCP port on the loopback interface of the network that opened it: a socket stays in its
/// namespace even if its process leaves.
#[derive(Debug)]
pub struct ForwardedPort {
    listener: TcpListener,
    port: u16,
}

impl ForwardedPort {
    /// Opens a free port. To be called before [`super::isolate`].
    pub fn open() -> Result<ForwardedPort> {
        let listener =
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("a port on 127.0.0.1")?;
        let port = listener.local_addr()?.port();
        Ok(ForwardedPort { listener, port })
    }

    /// Returns its number.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Connects the port to `to` as seen from `namespace`, until this process ends.
    pub fn lead(self, namespace: &Namespace, to: SocketAddr) {
        let namespace = namespace.clone();
        thread::spawn(move || {
            namespace.run(|| {
                for stream in self.listener.incoming() {
                    // the client has gone, or descriptors are used up until connections end
                    let Ok(outer) = stream else {
                        thread::sleep(std::time::Duration::from_millis(100));
                        continue;
                    };
                    if CONNECTIONS.fetch_add(1, Ordering::Relaxed) < MAX_CONNECTIONS
                        && let Ok(inner) = TcpStream::connect(to)
                    {
                        thread::spawn(move || {
                            // either side may end it at any time
                            let _ = join(&outer, &inner);
                            CONNECTIONS.fetch_sub(1, Ordering::Relaxed);
                        });
                    } else {
                        CONNECTIONS.fetch_sub(1, Ordering::Relaxed);
                    }
                }
                Ok(())
            })
        });
    }
}

/// Carries data in both directions until both sides have ended.
fn join(outer: &TcpStream, inner: &TcpStream) -> io::Result<()> {
    for stream in [outer, inner] {
        stream.set_nodelay(true)?;
    }
    thread::scope(|scope| {
        let back = scope.spawn(|| carry(inner, outer));
        let there = carry(outer, inner);
        back.join().unwrap_or(Ok(())).and(there)
    })
}

fn carry(mut from: &TcpStream, mut to: &TcpStream) -> io::Result<()> {
    let carried = io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Write);
    if carried.is_err() {
        // the other direction must not wait for ever
        let _ = from.shutdown(Shutdown::Both);
    }
    carried.map(drop)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn both_ways_and_both_ends_pass_a_forwarded_port() {
        let echo = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = echo.local_addr().unwrap();
        thread::spawn(move || {
            for stream in echo.incoming() {
                let mut stream = stream.unwrap();
                let mut all = Vec::new();
                stream.read_to_end(&mut all).unwrap();
                stream.write_all(&all).unwrap();
            }
        });
        let (outer, inner) = (TcpListener::bind("127.0.0.1:0").unwrap(), to);
        let at = outer.local_addr().unwrap();
        thread::spawn(move || {
            for stream in outer.incoming() {
                join(&stream.unwrap(), &TcpStream::connect(inner).unwrap()).unwrap();
            }
        });
        for length in [0, 1, 1_000_000] {
            let sent = crate::lab::noise(7, length);
            let mut client = TcpStream::connect(at).unwrap();
            client.write_all(&sent).unwrap();
            client.shutdown(Shutdown::Write).unwrap();
            let mut back = Vec::new();
            client.read_to_end(&mut back).unwrap();
            assert_eq!(back, sent);
        }
    }
}
