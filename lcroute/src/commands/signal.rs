//! `lcroute signal`: the signalling server as a program of its own.

use std::net::SocketAddr;
use std::path::PathBuf;

use lcroute_control::system::{room_for_clients, stop_signal};
use lcroute_signalling::server::{RelaySettings, Server, TlsFiles};
use librecast_program::cli::{Exit, ExitError};
use librecast_program::metrics::{self, Listen};
use librecast_program::service;
use tokio::signal::unix::{SignalKind, signal};

use crate::metrics::signal::page;

/// Options of the command line.
#[derive(Debug)]
pub struct Options {
    pub listen: SocketAddr,
    /// Certificate and key.
    pub tls: Option<(PathBuf, PathBuf)>,
    pub public: bool,
    pub per_address: usize,
    pub relay: Option<RelaySettings>,
    pub metrics: Option<Listen>,
}

/// Serves until SIGINT or SIGTERM; SIGHUP reads the certificate again.
pub fn run(options: Options) -> anyhow::Result<Exit> {
    let Options {
        listen,
        per_address,
        relay,
        ..
    } = options;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let tls = options.tls.map(|(cert, key)| TlsFiles { cert, key });
    runtime.block_on(async {
        let max_clients = room_for_clients();
        let stop = stop_signal()?;
        let mut hangup = signal(SignalKind::hangup())?;
        let mut server = Server::bind(listen, tls.as_ref())
            .await
            .map_err(|e| match e.kind() {
                std::io::ErrorKind::InvalidInput => ExitError::new(Exit::Usage, e.to_string()),
                std::io::ErrorKind::PermissionDenied => {
                    ExitError::new(Exit::NotPermitted, format!("{listen}: {e}"))
                }
                _ => ExitError::new(Exit::Failed, format!("{listen}: {e}")),
            })?
            .with_max_clients(max_clients)
            .with_per_address(per_address)
            .with_relay(relay);
        if options.public {
            server = server.public();
        }
        let counts = server.counts();
        let source = move || Ok(page(&counts.usage()));
        let mut metrics = None;
        let wanted = options.metrics.as_ref();
        metrics::Server::change(&mut metrics, wanted, "lcroute", source).map_err(|e| {
            let shown = wanted.map(ToString::to_string).unwrap_or_default();
            ExitError::new(Exit::Failed, format!("--metrics {shown}: {e}"))
        })?;
        let scheme = if tls.is_some() { "wss" } else { "ws" };
        let ready = format!("ready: {scheme}://{}", server.local_addr()?);
        // the parent process may not read it
        let _ = super::print_line(ready);
        service::ready();
        let certificate = server.certificate();
        let renew = async {
            while hangup.recv().await.is_some() {
                match certificate.as_ref().map(|c| c.reload()) {
                    Some(Ok(())) => tracing::info!("certificate read again"),
                    Some(Err(e)) => tracing::error!("certificate kept as it was: {e}"),
                    None => {}
                }
            }
        };
        tokio::select! {
            () = server.run(stop) => {}
            () = renew => {}
        }
        Ok(Exit::Ok)
    })
}
