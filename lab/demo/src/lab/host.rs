//! A host: a network namespace with a name, a folder, and programs that run in it.

use std::fs;
use std::io::Write;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, ensure};

use super::namespace::Namespace;
use super::process::{Output, Process};
use super::{World, find_program};

/// The configuration of a host's daemon, if it has one.
const CONFIG: &str = "lcroute.toml";
/// Authorities that it trusts for TLS, if the file exists.
const AUTHORITIES: &str = "authorities.pem";

/// Returns whether daemons use offloads at `lc0`, as by default: not with `NETNS_OFFLOAD=off` in
/// the environment of the tests.
#[must_use]
pub fn offload() -> bool {
    std::env::var_os("NETNS_OFFLOAD").is_none_or(|wish| wish != "off")
}

/// A host of a world. Clones are the same host.
#[derive(Clone, Debug)]
pub struct Host {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    name: String,
    namespace: Namespace,
    folder: PathBuf,
    programs: PathBuf,
    started: AtomicU32,
    addresses: std::sync::OnceLock<(Ipv4Addr, Option<Ipv6Addr>)>,
}

impl Host {
    pub(super) fn new(world: &Arc<World>, name: &str) -> Result<Host> {
        let folder = world.folder.join(name);
        ensure!(!folder.exists(), "two hosts called {name}");
        for part in ["logs", "run", "state", "config", "cache"] {
            let part = folder.join(part);
            fs::create_dir_all(&part).with_context(|| part.display().to_string())?;
        }
        let host = Host {
            inner: Arc::new(Inner {
                name: name.to_owned(),
                namespace: Namespace::new()?,
                folder,
                programs: world.programs.clone(),
                started: AtomicU32::new(0),
                addresses: std::sync::OnceLock::new(),
            }),
        };
        if !offload() {
            host.configure("")?;
        }
        host.ip("link set lo up")?;
        Ok(host)
    }

    /// Returns the host's name.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// Returns its network namespace.
    pub fn namespace(&self) -> &Namespace {
        &self.inner.namespace
    }

    /// Returns the path of a file or folder of this host, in memory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.inner.folder.join(name)
    }

    /// Returns the address of this host itself (its NAT has another).
    pub fn v4(&self) -> Result<Ipv4Addr> {
        let addresses = self.inner.addresses.get();
        addresses
            .map(|(v4, _)| *v4)
            .with_context(|| format!("{} has no IPv4", self.name()))
    }

    /// Returns its IPv6 address.
    pub fn v6(&self) -> Result<Ipv6Addr> {
        let v6 = self.inner.addresses.get().and_then(|(_, v6)| *v6);
        v6.with_context(|| format!("{} has no IPv6", self.name()))
    }

    pub(super) fn set_addresses(&self, v4: Ipv4Addr, v6: Option<Ipv6Addr>) {
        // A host is attached once; the first addresses stay.
        let _ = self.inner.addresses.set((v4, v6));
    }

    /// Returns a command on this host: a program of ours or an installed one. Its environment keeps
    /// all its files in the host's folder.
    ///
    /// # Errors
    /// There is no such program; the error names it.
    pub fn command(&self, program: &str) -> Result<Command> {
        let ours = self.inner.programs.join(program);
        let file = if ours.exists() {
            Some(ours)
        } else {
            find_program(program)
        };
        let file = file.with_context(|| format!("program `{program}` is not installed"))?;
        let mut command = self.inner.namespace.command(&file);
        let path = std::env::var("PATH").unwrap_or_default();
        let state = self.path("state");
        command
            .current_dir(&self.inner.folder)
            .env(
                "PATH",
                format!("{}:{path}:/usr/sbin:/sbin", self.inner.programs.display()),
            )
            .env("HOME", &self.inner.folder)
            .env("XDG_RUNTIME_DIR", self.path("run"))
            .env("XDG_STATE_HOME", &state)
            .env("XDG_CONFIG_HOME", self.path("config"))
            .env("XDG_CACHE_HOME", self.path("cache"))
            .env("LCROUTE_STATE_DIR", state.join("lcroute"))
            .env("LCROUTE_CONTROL", self.path("run/control.sock"))
            .env("LCGROUP_CONTROL", self.path("lcgroup.sock"))
            .env(
                "RUST_LOG",
                std::env::var("LAB_LOG").unwrap_or_else(|_| "info".to_owned()),
            )
            // logs contain the time even if the tests run under systemd
            .env_remove("JOURNAL_STREAM")
            // the desktop of the user that runs the tests
            .env_remove("DBUS_SESSION_BUS_ADDRESS")
            .env_remove("LCROUTE_CONFIG");
        for (variable, file) in [("LCROUTE_CONFIG", CONFIG), ("SSL_CERT_FILE", AUTHORITIES)] {
            let file = self.path(file);
            if file.exists() {
                command.env(variable, file);
            }
        }
        Ok(command)
    }

    /// Starts a program in the background. It ends with the handle, and with the calling thread.
    pub fn spawn(&self, program: &str, args: &[&str]) -> Result<Process> {
        let number = self.inner.started.fetch_add(1, Ordering::Relaxed);
        let verb = args
            .first()
            .filter(|verb| verb.chars().all(char::is_alphabetic));
        let title = format!("{number:03}-{program}-{}", verb.unwrap_or(&""));
        let mut command = self.command(program)?;
        command.args(args);
        Process::start(command, &self.path("logs"), title.trim_end_matches('-'))
    }

    /// Runs a program to its end.
    ///
    /// # Errors
    /// There is no such program, or it hangs. A failure exit is not an error here.
    pub fn run(&self, program: &str, args: &[&str]) -> Result<Output> {
        self.spawn(program, args)?
            .output()
            .with_context(|| format!("{program} {args:?}"))
    }

    /// Runs a script of the shell to its end.
    pub fn sh(&self, script: &str) -> Result<Output> {
        self.run("sh", &["-c", script])
    }

    /// Runs a command line without quotes to its end, which must be a success.
    pub fn call(&self, line: &str) -> Result<Output> {
        let mut words = line.split(' ');
        let program = words.next().unwrap_or_default();
        let args: Vec<&str> = words.collect();
        let done = self.run(program, &args)?.success();
        done.with_context(|| line.to_owned())
    }

    /// Runs a program that is called repeatedly, without a log.
    pub fn ask(&self, program: &str, args: &[&str]) -> Result<Output> {
        let done = self
            .command(program)?
            .args(args)
            .stdin(Stdio::null())
            .output()?;
        Ok(Output {
            code: done.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&done.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&done.stderr).into_owned(),
        })
    }

    /// Runs commands of `ip`, one a line.
    ///
    /// # Errors
    /// `ip` refuses one; the error names it.
    pub fn ip(&self, commands: &str) -> Result<()> {
        self.feed("ip", &["-batch", "-"], commands)
    }

    /// Runs a script of `nft`.
    pub fn nft(&self, script: &str) -> Result<()> {
        self.feed("nft", &["-f", "-"], script)
    }

    /// Returns whether there is such an interface.
    pub fn has_interface(&self, interface: &str) -> bool {
        self.ask("ip", &["link", "show", "dev", interface])
            .is_ok_and(|shown| shown.code == 0)
    }

    fn feed(&self, program: &str, args: &[&str], input: &str) -> Result<()> {
        let mut command = self.command(program)?;
        command
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| program.to_owned())?;
        let mut stdin = child.stdin.take().context("a pipe that was asked for")?;
        stdin.write_all(input.as_bytes())?;
        drop(stdin);
        let done = child.wait_with_output()?;
        let said = String::from_utf8_lossy(&done.stderr);
        ensure!(
            done.status.success(),
            "{program} on {}: {said}\n{input}",
            self.name()
        );
        Ok(())
    }

    /// Returns the traffic of an interface since its start: (received, sent).
    pub fn interface_traffic(&self, interface: &str) -> Result<(super::Traffic, super::Traffic)> {
        let table = self.namespace().read("/proc/thread-self/net/dev")?;
        let line = table
            .lines()
            .find_map(|line| line.trim().strip_prefix(interface)?.strip_prefix(':'));
        let line = line.with_context(|| format!("no interface {interface} on {}", self.name()))?;
        let fields: Vec<u64> = line
            .split_whitespace()
            .filter_map(|field| field.parse().ok())
            .collect();
        ensure!(fields.len() >= 10, "unexpected line in net/dev: {line}");
        let traffic = |at: usize| super::Traffic {
            bytes: fields[at],
            packets: fields[at + 1],
        };
        Ok((traffic(0), traffic(8)))
    }

    /// Writes the configuration of this host's daemon, without offloads at `lc0` if [`offload`] is
    /// false and `content` has no such key.
    pub fn configure(&self, content: &str) -> Result<()> {
        let mut content = content.to_owned();
        if !offload() && !content.contains("offload =") {
            match content.find("[tun]\n") {
                Some(at) => content.insert_str(at + "[tun]\n".len(), "offload = false\n"),
                None => content.push_str("\n[tun]\noffload = false\n"),
            }
        }
        self.write(CONFIG, content).map(drop)
    }

    /// Writes the configuration of this host's daemon, which reads it anew.
    pub fn reconfigure(&self, content: &str) -> Result<()> {
        self.configure(content)?;
        self.call("lcroute reload").map(drop)
    }

    /// Returns the state folder of this host's programs.
    pub fn state_dir(&self) -> PathBuf {
        self.path("state/lcroute")
    }

    /// Writes a file of this host.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> Result<PathBuf> {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap_or(Path::new("/")))?;
        fs::write(&path, content).with_context(|| path.display().to_string())?;
        Ok(path)
    }
}
