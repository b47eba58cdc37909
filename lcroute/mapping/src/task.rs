//! The task that asks the router.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::anyhow;
use lcroute_netlink::{Gateway, NoGateway, gateway};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};

use crate::protocols::{Mapping, nonce};
use crate::schedule::{Lease, Schedule};
use crate::status::{Protocol, Status};
use crate::upnp;

/// Timeout for deleting a mapping at the program's end.
const END: Duration = Duration::from_secs(1);
/// Timeout for one protocol.
const PROTOCOL: Duration = Duration::from_secs(10);

/// Which router may be asked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// Reason for which none is asked, such as a key of the configuration.
    pub silent: Option<&'static str>,
    /// Interfaces that lead to none: lc0.
    pub exclude: Vec<String>,
    /// Interfaces in use; empty: all others.
    pub only: Vec<String>,
}

impl Settings {
    /// Returns the router of this host.
    ///
    /// # Errors
    /// No router could map a port.
    pub fn router(&self) -> Result<Gateway, NoGateway> {
        let exclude: Vec<_> = self.exclude.iter().map(String::as_str).collect();
        let only = (!self.only.is_empty()).then_some(self.only.as_slice());
        gateway(&exclude, only)
    }
}

#[derive(Debug)]
enum Input {
    Configure(Settings),
    Moved,
    End(oneshot::Sender<()>),
}

/// The task that maps a port; ends when dropped, without deleting the mapping.
#[derive(Debug)]
pub struct PortMapping {
    // few: one for each change of settings or addresses, and the task takes them while it asks
    inputs: mpsc::UnboundedSender<Input>,
    status: watch::Receiver<Status>,
    task: JoinHandle<()>,
}

impl Drop for PortMapping {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl PortMapping {
    /// Starts to ask for this port, if the settings permit it. A router refuses the mapping of an
    /// earlier run to another `secret` (RFC 6887 §11.3). To be called within a tokio runtime.
    #[must_use]
    pub fn start(port: u16, secret: [u8; 32], settings: Settings) -> Self {
        let (inputs, received) = mpsc::unbounded_channel();
        let (told, status) = watch::channel(Status::default());
        let task = Task {
            port,
            secret,
            settings,
            schedule: Schedule::new(Instant::now().into_std()),
            held: None,
            unanswered: None,
            told,
        };
        Self {
            inputs,
            status,
            task: tokio::spawn(task.run(received)),
        }
    }

    /// Waits for a change of the mapping; the first one is the first answer. Cancellation loses none.
    pub async fn changed(&mut self) -> Status {
        match self.status.changed().await {
            Ok(()) => self.status.borrow_and_update().clone(),
            // the task lives as long as this handle
            Err(_) => std::future::pending().await,
        }
    }

    /// Applies new settings.
    pub fn configure(&self, settings: Settings) {
        self.tell(Input::Configure(settings));
    }

    /// Handles a change of this host's addresses.
    pub fn moved(&self) {
        self.tell(Input::Moved);
    }

    /// Deletes the mapping, within a second; after a mere drop the next run finds it again.
    pub async fn end(self) {
        let (done, ended) = oneshot::channel();
        self.tell(Input::End(done));
        let _ = timeout(END, ended).await;
    }

    fn tell(&self, input: Input) {
        // the task lives as long as this handle
        let _ = self.inputs.send(input);
    }
}

struct Task {
    port: u16,
    secret: [u8; 32],
    settings: Settings,
    schedule: Schedule,
    /// Present as long as the schedule holds it.
    held: Option<Mapping>,
    /// A mapping that a slow router may have made, though nobody awaited its answer.
    unanswered: Option<upnp::Mapping>,
    told: watch::Sender<Status>,
}

impl Task {
    async fn run(mut self, mut inputs: mpsc::UnboundedReceiver<Input>) {
        loop {
            let input = match self.schedule.next_timeout() {
                Some(due) => tokio::select! {
                    input = inputs.recv() => input,
                    () = sleep_until(due.into()) => {
                        // inputs take precedence; it asks again after them
                        tokio::select! {
                            input = inputs.recv() => input,
                            () = self.ask() => continue,
                        }
                    }
                },
                None => inputs.recv().await,
            };
            match input {
                Some(Input::Configure(settings)) => self.configure(settings).await,
                Some(Input::Moved) => {
                    let found = self.settings.router().ok();
                    self.schedule.handle_moved(found, now());
                }
                Some(Input::End(done)) => {
                    self.give_back().await;
                    // the caller may have given up
                    let _ = done.send(());
                    return;
                }
                None => return,
            }
        }
    }

    async fn configure(&mut self, settings: Settings) {
        if settings != self.settings {
            self.give_back().await;
            self.schedule.handle_settings(now());
        }
        self.settings = settings;
    }

    async fn ask(&mut self) {
        let found = match self.settings.silent {
            Some(why) => Err(why.to_owned()),
            None => self.settings.router().map_err(|e| e.to_string()),
        };
        let asked = self.schedule.handle_timeout(found, now());
        if !self.schedule.has_lease() {
            self.held = None;
        }
        if let Some(gateway) = asked {
            let answer = self.renew_or_map(gateway).await;
            let answer = answer.map_err(|e| format!("{e:#}"));
            self.schedule.handle_answer(answer, now());
            if !self.schedule.has_lease() {
                self.held = None;
            }
        }
        self.tell();
    }

    async fn renew_or_map(&mut self, gateway: Gateway) -> anyhow::Result<Lease> {
        if let Some(held) = &mut self.held {
            match timeout(PROTOCOL, held.renew(gateway, self.port)).await {
                Ok(Ok(())) => return Ok(held.lease),
                Ok(Err(e)) => tracing::debug!("the mapped port is not renewed: {e:#}"),
                Err(_) => tracing::debug!("the mapped port is not renewed in time"),
            }
        }
        let nonce = nonce(&self.secret, gateway);
        let mut failures = Vec::new();
        for protocol in Protocol::ALL {
            let (port, unanswered) = (self.port, &mut self.unanswered);
            let asked = Mapping::request(protocol, gateway, port, nonce, unanswered);
            let asked = timeout(PROTOCOL, asked);
            match asked.await.unwrap_or_else(|_| Err(anyhow!("no end"))) {
                Ok(mapping) => {
                    self.unanswered = None;
                    return Ok(self.held.insert(mapping).lease);
                }
                Err(e) => failures.push(format!("{}: {e:#}", protocol.name())),
            }
        }
        Err(anyhow!("{}", failures.join("; ")))
    }

    async fn give_back(&mut self) {
        self.schedule.handle_given_back();
        let (held, unanswered) = (self.held.take(), self.unanswered.take());
        let give_back = async {
            let Some(held) = held else { return };
            let address = held.lease.address;
            match held.give_back().await {
                Ok(()) => tracing::debug!("{address} given back"),
                Err(e) => tracing::debug!("{address} not given back: {e:#}"),
            }
        };
        let withdraw = async {
            // it fails where the router has made none
            if let Some(mapping) = unanswered
                && let Err(e) = mapping.end().await
            {
                tracing::debug!("a mapping without an answer: {e:#}");
            }
        };
        tokio::join!(give_back, withdraw);
    }

    /// Sends the status to the owner, if it has changed.
    fn tell(&mut self) {
        let status = self.schedule.status();
        if *self.told.borrow() == status {
            return;
        }
        match (status.address, status.by, &status.failure) {
            (Some(address), Some(by), _) => {
                let (address, by) = (SocketAddr::V4(address), by.name());
                tracing::info!(
                    "the router maps {address} to UDP port {}, by {by}",
                    self.port
                );
            }
            (_, _, Some(why)) => tracing::debug!("no port is mapped: {why}"),
            _ => {}
        }
        self.told.send_replace(status);
    }
}

fn now() -> std::time::Instant {
    Instant::now().into_std()
}
