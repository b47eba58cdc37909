//! Metrics of a single-loop program: the server thread requests a page and wakes the loop.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::time::Duration;

use super::{Listen, Page, Server, Unavailable};

/// Time within which the loop makes a page; a slower one is stuck.
const PAGE_TIMEOUT: Duration = Duration::from_secs(2);

/// The loop's part.
pub struct Served {
    /// Dropped before the server, which then does not wait for the loop.
    asks: Option<Receiver<SyncSender<Page>>>,
    server: Option<Server>,
    group: &'static str,
    wake: Arc<dyn Fn() + Send + Sync>,
}

impl fmt::Debug for Served {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Served")
            .field("server", &self.server)
            .finish_non_exhaustive()
    }
}

impl Served {
    /// Serves nothing yet; `group` will own a unix socket, `wake` ends the loop's wait.
    #[must_use]
    pub fn new(group: &'static str, wake: impl Fn() + Send + Sync + 'static) -> Self {
        Self {
            asks: None,
            server: None,
            group,
            wake: Arc::new(wake),
        }
    }

    /// Serves at `wanted` from now on, or stops.
    pub fn listen(&mut self, wanted: Option<&Listen>) -> io::Result<()> {
        if self.server.as_ref().map(Server::listen) == wanted {
            return Ok(());
        }
        self.asks = None;
        self.server = None;
        let Some(listen) = wanted else { return Ok(()) };
        let (ask, asks): (Sender<SyncSender<Page>>, _) = channel();
        let wake = Arc::clone(&self.wake);
        self.server = Some(Server::start(listen, self.group, move || {
            let (to, answer) = sync_channel(1);
            ask.send(to).map_err(|_| Unavailable)?;
            wake();
            answer.recv_timeout(PAGE_TIMEOUT).map_err(|_| Unavailable)
        })?);
        self.asks = Some(asks);
        Ok(())
    }

    /// Makes a page for each request; call it in each turn of the loop.
    pub fn answer(&self, mut page: impl FnMut() -> Page) {
        let Some(asks) = &self.asks else { return };
        while let Ok(to) = asks.try_recv() {
            // the requester may have timed out
            let _ = to.try_send(page());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn the_loop_makes_the_page_and_may_stop_while_it_is_asked() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m");
        let (woken, wakes) = channel();
        let mut served = Served::new("no-such-group", move || woken.send(()).unwrap());
        served.listen(Some(&Listen::Unix(path.clone()))).unwrap();
        let ask = |path: std::path::PathBuf| {
            std::thread::spawn(move || {
                let mut stream = UnixStream::connect(path).unwrap();
                stream.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").unwrap();
                let mut answer = String::new();
                stream.read_to_string(&mut answer).map(|_| answer)
            })
        };
        let asked = ask(path.clone());
        wakes.recv().unwrap();
        served.answer(Page::of_this_process);
        assert!(asked.join().unwrap().unwrap().ends_with("# EOF\n"));
        // older than a page stays fresh
        std::thread::sleep(Duration::from_millis(250));
        let asked = ask(path);
        wakes.recv().unwrap();
        let begun = std::time::Instant::now();
        served.listen(None).unwrap();
        assert!(begun.elapsed() < PAGE_TIMEOUT / 2, "it waited for itself");
        // with an answer or without
        let _ = asked.join().unwrap();
    }
}
