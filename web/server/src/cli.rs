//! The command line, and how it begins and ends.

use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::sync::Arc;

use anyhow::Context;
use clap::{CommandFactory, Parser, Subcommand};
use lcroute_control::Request;
use lcroute_control::client::Client;
use lcroute_control::config::Config;
use lcroute_control::pages;
use lcroute_control::settings::Common;
use lcroute_control::system::stop_signal;
use lcroute_tls::TlsFiles;
use librecast_program::cli::{self, Exit, ExitError, init_logging, print_line, to_join};
use librecast_program::{groups, metrics, service};

use crate::feed::Feed;
use crate::files::Files;
use crate::groups::Groups;
use crate::guard::Guard;
use crate::players::Players;
use crate::serve::{Pages, bind};

/// The verbs of `lcroute` that this program has.
pub const VERBS: [&str; 1] = ["web"];

/// The command line behind `lcroute web`.
#[derive(Debug, Parser)]
#[command(
    name = "lcroute-web",
    bin_name = "lcroute",
    version,
    arg_required_else_help = true
)]
struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Pages that show this node and its network, for browsers of this host
    #[command(after_help = "\
Examples:
  lcroute web --open               the address of the pages; serves them where no service does
  lcroute web --listen [::]:7180   for other hosts as well: [web] tls_cert and tls_key in the configuration encrypt it

With [players] listen in the configuration, players get groups and stations by HTTP, too: http://HOST:PORT/list/")]
    Web {
        /// Where to serve [default: [web] listen, or [::1]:7180]
        #[arg(long, value_name = "ADDR:PORT")]
        listen: Option<SocketAddr>,
        /// Print the address of pages that are served already, or serve them, and show them in a browser if there is one
        #[arg(long)]
        open: bool,
        /// Print the code with which the dashboard invites, where [web] invite = true; for root and group lcroute
        #[arg(long, conflicts_with_all = ["listen", "open"])]
        code: bool,
    },
}

/// The command line itself, for man pages.
#[must_use]
pub fn command() -> clap::Command {
    Cli::command()
}

/// Runs the program with the arguments of this process.
#[must_use]
pub fn main() -> ExitCode {
    cli::run("lcroute", |Cli { common, verb }| {
        let Verb::Web { listen, open, code } = verb;
        match code {
            true => show_code(&common),
            false => run(&common, listen, open),
        }
    })
}

/// Prints answers that only the control socket gives.
fn show_code(common: &Common) -> anyhow::Result<Exit> {
    let config = common.load_config()?;
    let mut client = Client::connect(&common.control_to_ask(&config))?;
    let code: String = client.ask(&Request::Code)?;
    print_line(code)?;
    Ok(Exit::Ok)
}

fn run(common: &Common, listen: Option<SocketAddr>, open: bool) -> anyhow::Result<Exit> {
    let config = common.load_config()?;
    init_logging(common.log.as_deref().or(config.log.as_deref()), "info")?;
    let control = common.control_to_ask(&config);
    let served = || pages::served(&control).map_err(|e| not_for_this_user(&e));
    if open && let Some(address) = served()? {
        print_line(&address)?;
        show(&address);
        return Ok(Exit::Ok);
    }
    let tls = match (&config.web.tls_cert, &config.web.tls_key) {
        (Some(cert), Some(key)) => Some(TlsFiles {
            cert: cert.clone(),
            key: key.clone(),
        }),
        (None, None) => None,
        _ => {
            let message = "[web] tls_cert and tls_key go together";
            return Err(ExitError::new(Exit::Usage, message).into());
        }
    };
    let listen = listen.unwrap_or(config.web.listen);
    let guard = Guard::new(&config.web.names, tls.is_some())?;
    let files = Files::find()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let stop = stop_signal()?;
        let acceptor = tls.as_ref().map(TlsFiles::acceptor).transpose();
        let acceptor = acceptor.map_err(|e| ExitError::new(Exit::Usage, e.to_string()))?;
        let listener = bind(listen).await.map_err(|e| not_bound(listen, &e))?;
        let players = players(&config).await?;
        let bound = listener.local_addr()?;
        let address = address(bound, &config.web.names, tls.is_some(), guard.key());
        let folder = std::env::var_os("RUNTIME_DIRECTORY").map(PathBuf::from);
        let (address_file, mode) = match folder {
            // its unit decides about the readers of the folder
            Some(folder) => (folder.join(pages::ADDRESS_FILE), 0o644),
            // for root and the group of the control socket, like that
            None => (pages::beside(&control), 0o640),
        };
        let _file = AddressFile::write(&address_file, mode, &address);
        print_line(&address)?;
        if !bound.ip().is_loopback() && tls.is_none() {
            tracing::warn!("{bound}: other hosts reach the pages, and nothing encrypts them: [web] tls_cert and tls_key");
        }
        if open {
            show(&address);
        }
        let doctor = doctor(common, &control);
        let groups = config.web.groups.then(|| Arc::new(Groups::new(groups::control())));
        let feed = Feed::new(&control, config.web.invite, groups.clone());
        let pages = Pages::new(guard, files, feed, doctor, groups);
        service::ready();
        tokio::select! {
            () = Arc::new(pages).serve(listener, acceptor) => {}
            () = players => {}
            () = stop => {}
        }
        service::stopping();
        Ok(Exit::Ok)
    })
}

fn not_bound(listen: SocketAddr, e: &std::io::Error) -> ExitError {
    let exit = match e.kind() {
        std::io::ErrorKind::PermissionDenied => Exit::NotPermitted,
        _ => Exit::Failed,
    };
    ExitError::new(exit, format!("{listen}: {e}"))
}

/// Binds the address of `[players]`; returns its server, which does nothing unless it is configured.
async fn players(config: &Config) -> anyhow::Result<impl Future<Output = ()>> {
    let server = match config.players.listen {
        Some(listen) => {
            let players = Players::new(config);
            let players = players.map_err(|e| ExitError::new(Exit::Usage, format!("{e:#}")))?;
            let players = Arc::new(players);
            let listener = bind(listen).await.map_err(|e| not_bound(listen, &e))?;
            let bound = listener.local_addr()?;
            tracing::info!("players get groups and stations at {bound}: the list is at /list/");
            let metrics = serve_metrics(config, &players)?;
            Some((players, listener, metrics))
        }
        None => None,
    };
    Ok(async move {
        match server {
            Some((players, listener, _metrics)) => players.serve(listener).await,
            None => std::future::pending().await,
        }
    })
}

/// Serves `[players] metrics`, if they are configured, until the server is dropped.
fn serve_metrics(
    config: &Config,
    players: &Arc<Players>,
) -> anyhow::Result<Option<metrics::Server>> {
    let Some(listen) = &config.players.metrics else {
        return Ok(None);
    };
    let players = Arc::clone(players);
    let server = metrics::Server::start(listen, "lcroute", move || Ok(players.metrics()));
    let server = server.with_context(|| format!("[players] metrics = \"{listen}\""))?;
    Ok(Some(server))
}

/// Returns the address that a browser opens.
fn address(bound: SocketAddr, names: &[String], is_tls: bool, key: &str) -> String {
    let scheme = if is_tls { "https" } else { "http" };
    let host = match (names.first(), bound.ip()) {
        // a certificate has a name
        (Some(name), _) if is_tls => name.clone(),
        (_, ip) if ip.is_unspecified() => "localhost".into(),
        (_, IpAddr::V4(ip)) => ip.to_string(),
        (_, IpAddr::V6(ip)) => format!("[{ip}]"),
    };
    format!("{scheme}://{host}:{}/#{key}", bound.port())
}

/// The file that leads to the pages; it goes with the program.
struct AddressFile(PathBuf);

impl AddressFile {
    /// A folder in which this user may not write has no such file: then the address is where it was printed.
    fn write(path: &Path, mode: u32, address: &str) -> Option<Self> {
        let new = path.with_extension("new");
        // the remains of a killed program
        let _ = std::fs::remove_file(&new);
        let mut options = std::fs::OpenOptions::new();
        let file = options.write(true).create_new(true).mode(mode).open(&new);
        let written = file.and_then(|mut file| {
            // whatever the umask is
            file.set_permissions(std::fs::Permissions::from_mode(mode))?;
            std::io::Write::write_all(&mut file, format!("{address}\n").as_bytes())
        });
        match written.and_then(|()| std::fs::rename(&new, path)) {
            Ok(()) => Some(Self(path.to_owned())),
            Err(e) => {
                tracing::info!(
                    "{}: {e}: `lcroute web --open` will not find these pages",
                    path.display()
                );
                None
            }
        }
    }
}

impl Drop for AddressFile {
    fn drop(&mut self) {
        // somebody may have removed it already
        let _ = std::fs::remove_file(&self.0);
    }
}

fn not_for_this_user(e: &std::io::Error) -> ExitError {
    let message = format!("{e}: {}", to_join("lcroute"));
    ExitError::new(Exit::NotPermitted, message)
}

/// Shows it in the browser of the user of this desktop, if there is one.
fn show(address: &str) {
    let sits_here = ["DISPLAY", "WAYLAND_DISPLAY"]
        .iter()
        .any(|name| std::env::var_os(name).is_some());
    if sits_here {
        let browser = std::process::Command::new("xdg-open")
            .arg(address)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        if let Err(e) = browser {
            tracing::debug!("xdg-open: {e}");
        }
    }
}

/// `lcroute doctor` of the same installation and settings.
fn doctor(common: &Common, control: &Path) -> (PathBuf, Vec<String>) {
    let own = std::env::current_exe().unwrap_or_default();
    let folder = own.parent().unwrap_or(Path::new("/"));
    let places = [folder.join("lcroute"), folder.join("../../bin/lcroute")];
    let program = places.into_iter().find(|place| place.is_file());
    let mut args = vec!["doctor".to_owned(), "--json".to_owned()];
    args.extend(["--control".to_owned(), control.display().to_string()]);
    if let Some(config) = common.config_path() {
        args.extend(["--config".to_owned(), config.display().to_string()]);
    }
    (program.unwrap_or("lcroute".into()), args)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        command().debug_assert();
    }

    #[test]
    fn the_address_leads_where_the_pages_are() {
        let at = |bound: &str, names: &[&str], is_tls| {
            let names: Vec<_> = names.iter().map(ToString::to_string).collect();
            address(bound.parse().unwrap(), &names, is_tls, "k")
        };
        assert_eq!(at("[::1]:7180", &[], false), "http://[::1]:7180/#k");
        assert_eq!(
            at("0.0.0.0:80", &["n.example"], false),
            "http://localhost:80/#k"
        );
        assert_eq!(
            at("[::]:7180", &["n.example"], true),
            "https://n.example:7180/#k"
        );
    }

    #[test]
    fn the_file_with_the_address_goes_with_the_program() {
        let folder = tempfile::tempdir().unwrap();
        let control = folder.path().join("control.sock");
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}/#k", listener.local_addr().unwrap());
        let path = pages::beside(&control);
        let file = AddressFile::write(&path, 0o640, &address).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o640);
        assert_eq!(pages::served(&control).unwrap(), Some(address));
        drop(file);
        assert_eq!(pages::served(&control).unwrap(), None);
    }
}
