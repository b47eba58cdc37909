//! `lcroute signal`: the signalling server as a program of its own.

use std::net::SocketAddr;
use std::path::PathBuf;

use lcroute_control::system::{room_for_clients, stop_signal};
use lcroute_signalling::server::{RelaySettings, Server, TlsFiles};
use librecast_program::cli::{Exit, ExitError};
use librecast_program::service;
use tokio::signal::unix::{SignalKind, signal};

/// Serves until SIGINT or SIGTERM; SIGHUP reads the certificate again.
pub fn run(
    listen: SocketAddr,
    tls: Option<(PathBuf, PathBuf)>,
    per_address: usize,
    relay: Option<RelaySettings>,
) -> anyhow::Result<Exit> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let tls = tls.map(|(cert, key)| TlsFiles { cert, key });
    runtime.block_on(async {
        let max_clients = room_for_clients();
        let stop = stop_signal()?;
        let mut hangup = signal(SignalKind::hangup())?;
        let server = Server::bind(listen, tls.as_ref())
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
