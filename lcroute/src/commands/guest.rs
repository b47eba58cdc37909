//! `lcroute guest`: a program on an lc0 of its own, without root and daemon.

use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;
use clap::Args;
use lcroute_control::config::Config;
use lcroute_control::settings::{Common, SIGNAL, places_of_environment};
use lcroute_overlay::{TEXT_LIFETIME, TextRecord};
use librecast::cert::{GroupPrefix, MAX_TOKEN, MAX_URLS, Token, is_node_name};
use librecast::code::{Code, CodeError, CodeKeys, Host, WORDS};
use librecast::epoch::EpochSecret;
use librecast::id::SecretKey;
use librecast::text::TextKind;
use librecast::time::UnixTime;
use librecast_program::cli::{Exit, ExitError};
use librecast_program::guest::TextEntry;
use librecast_program::guest_state::{GuestState, HelperState, StateFile};
use librecast_program::helper::{self, MAX_HELPERS, is_helper};
use nix::libc;
use nix::unistd::{User, geteuid};
use zeroize::Zeroizing;

use super::meeting_places::meeting_places;
use super::up::{TOKEN, TOKEN_FILE, token_of_environment};
use super::{hint, membership, print_line};
use crate::guest::member::{self, Identity, OfCode, Start};
use crate::guest::text::{OwnerStart, Places};
use crate::guest::text_listener::ListenerStart;
use crate::guest::{self, Role, leaf};
use crate::links::seed;
use crate::port_mapping;
use crate::servers::proxy;
use crate::tun;

/// Name of nodes in the network of a text, which strangers see.
const TEXT_NAME: &str = "caster";
/// Name of a helper's node there.
const HELPER_NAME: &str = "helper";
/// Name of a guest whose user has none that a node can have.
const NAME: &str = "guest";

/// The origin of the token, and the program to be run.
#[derive(Debug, Args)]
pub struct GuestOptions {
    /// A token of `lcroute invite`, four words, or - to read it from standard input [default: from LCROUTE_TOKEN or LCROUTE_TOKEN_FILE]
    #[arg(value_name = "TOKEN|CODE", conflicts_with_all = ["token_fd", "token_file"])]
    token: Option<String>,
    /// The token or code is in this inherited descriptor
    #[arg(long, value_name = "N", conflicts_with = "token_file")]
    token_fd: Option<RawFd>,
    /// How a program of ours enters the network of a station's text, in this inherited descriptor
    #[arg(long, value_name = "N", hide = true, conflicts_with_all = ["token", "token_fd", "token_file", "found", "state"])]
    text_fd: Option<RawFd>,
    /// How lcgroup enters the network of a group, in this inherited descriptor
    #[arg(long, value_name = "N", hide = true, conflicts_with_all = ["token", "token_fd", "text_fd", "token_file", "found", "state"])]
    group_fd: Option<RawFd>,
    /// The token or code is in this file
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Make a network of four words, and print them
    #[arg(long, conflicts_with_all = ["token", "token_fd", "token_file"])]
    found: bool,
    /// With --found: no words, but a token for leaves, which may be public
    #[arg(long, requires = "found")]
    public: bool,
    /// Keep the key of a member in this folder, so that it is the same member next time
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// What to run, with its arguments [default: $SHELL]
    #[arg(last = true, value_name = "PROGRAM")]
    program: Vec<OsString>,
}

/// Runs the program, and exits with its code.
pub fn run(common: &Common, options: &GuestOptions) -> anyhow::Result<Exit> {
    let config = common.load_config_of_user()?;
    if config.exposure().direct().is_err() {
        let message = "[ice] policy = \"relay\": a guest links with others directly, which would show them this host's addresses";
        return Err(ExitError::new(Exit::NotPermitted, message).into());
    }
    let (host_interface, (routes, _)) = (config.tun.name.clone(), tun::routes(&config.routes()));
    let proxy = proxy(&config).map_err(|e| ExitError::new(Exit::Usage, format!("{e:#}")))?;
    let role = role(config, options)?;
    let shell = || std::env::var_os("SHELL").filter(|shell| !shell.is_empty());
    let shell = || shell().unwrap_or_else(|| OsString::from("/bin/sh"));
    let (program, arguments) = match options.program.split_first() {
        Some((program, arguments)) => (program.clone(), arguments),
        None => (shell(), &[][..]),
    };
    let mut command = Command::new(&program);
    command
        .args(arguments)
        .env_remove(TOKEN)
        .env_remove(TOKEN_FILE);
    let code = guest::run(guest::Options {
        role,
        command,
        is_shell: options.program.is_empty(),
        host_interface,
        proxy,
        routes,
    })?;
    std::process::exit(code.into());
}

fn role(config: Config, options: &GuestOptions) -> anyhow::Result<Role> {
    if let Some(fd) = options.text_fd {
        return by_text(fd, config, options);
    }
    if let Some(fd) = options.group_fd {
        return super::group::role((fd, &inherited(fd)?), config);
    }
    if options.found {
        let mut random = [0; 2 * WORDS];
        getrandom::fill(&mut random).map_err(|e| anyhow::anyhow!("random numbers: {e}"))?;
        let servers = servers_of_user(&config)?;
        if options.public {
            return public(servers, config, options);
        }
        let host = servers.first().and_then(|url| Host::of_url(url));
        if let (None, Some(url)) = (&host, servers.first()) {
            hint(format_args!(
                "a code cannot name {url}: the others set {SIGNAL} to it"
            ));
        }
        let code = Code::of_random(random, host);
        if options.program.is_empty() {
            // a shell shows nothing by itself
            print_line(&*code.encode())?;
        } else if !prints_words(&options.program) {
            // standard output is the program's
            hint(format_args!("the words are {}", *code.encode()));
        }
        return of_code(&code, servers, config, options);
    }
    let text = text(options)?;
    if TextKind::of(&text).is_none() {
        let code: Code = text.parse().map_err(|e: CodeError| {
            let message = format!("{e} (a token begins with {})", TextKind::Token.prefix());
            ExitError::new(Exit::Usage, message)
        })?;
        let servers = match code.host() {
            Some(host) => vec![host.to_string()],
            None => servers_of_user(&config)?,
        };
        return of_code(&code, servers, config, options);
    }
    let token = leaf::token(&text)?;
    if token.invitation().grant().leaf {
        if options.state.is_some() {
            let message = "--state keeps the key of a member, and the token is for leaves";
            return Err(ExitError::new(Exit::Usage, message).into());
        }
        return Ok(Role::Leaf(Box::new(leaf::with_servers(token)?)));
    }
    if is_helper(&token.invitation().grant().labels) {
        let mut state = GuestState::default();
        (state.name, state.helper) = (HELPER_NAME.to_owned(), Some(HelperState::default()));
        return as_member(token, HELPER_NAME, Some(state), config, options);
    }
    as_member(token, &name(), None, config, options)
}

/// Returns a member of a network of the run, and prints its token for leaves if the program is none
/// of ours, which do so themselves.
fn public(servers: Vec<String>, config: Config, options: &GuestOptions) -> anyhow::Result<Role> {
    if servers.is_empty() {
        let message = format!(
            "a public link needs a signalling server, at which leaves find this host: {SIGNAL}=HOST, or [signal] servers in the configuration"
        );
        return Err(ExitError::new(Exit::Usage, message).into());
    }
    let keys = CodeKeys::of_random(&seed()?);
    let now = UnixTime::now();
    // the groups of `lcsync send`; other programs send to groups of their own
    let prefixes = match member::sent_files() {
        Some(prefix) if is_own(&options.program) => vec![prefix],
        _ => vec![GroupPrefix::ALL],
    };
    let leaf_token = keys
        .leaf_token(
            SecretKey::generate(),
            (prefixes, false),
            servers.clone(),
            now,
        )?
        .encode();
    if !is_own(&options.program) {
        print_line(&*leaf_token)?;
    }
    let mut token = keys.token(SecretKey::generate(), servers, now)?;
    // leaves must not find presence records
    token.epoch = Some((1, EpochSecret::new(seed()?)));
    let name = name();
    let mut state = GuestState::default();
    state.leaf_token = leaf_token.to_string();
    (state.founds, state.name) = (true, name.clone());
    as_member(token, &name, Some(state), config, options)
}

/// Returns whether this program prints the words for receivers by itself.
fn is_own(program: &[OsString]) -> bool {
    let name = program
        .first()
        .and_then(|program| Path::new(program).file_name());
    name.is_some_and(|name| name == "lcsync")
}

/// The same of the words of a code.
fn prints_words(program: &[OsString]) -> bool {
    is_own(program) || program.iter().any(|argument| argument == "--code")
}

fn of_code(
    code: &Code,
    servers: Vec<String>,
    config: Config,
    options: &GuestOptions,
) -> anyhow::Result<Role> {
    let keys = code.keys();
    let token = keys.token(SecretKey::generate(), servers, UnixTime::now())?;
    let name = name();
    let mut state = GuestState::default();
    state.code = code.encode().to_string();
    state.beacon = keys.beacon.0;
    (state.founds, state.name) = (options.found, name.clone());
    as_member(token, &name, Some(state), config, options)
}

fn as_member(
    token: Token,
    name: &str,
    state: Option<GuestState>,
    config: Config,
    options: &GuestOptions,
) -> anyhow::Result<Role> {
    let start = start_of(token, name, state, config, options.state.clone())?;
    Ok(Role::Member(Box::new(start)))
}

fn start_of(
    token: Token,
    name: &str,
    state: Option<GuestState>,
    config: Config,
    folder: Option<PathBuf>,
) -> anyhow::Result<Start> {
    Ok(Start {
        identity: Identity::new(&token, name, folder)?,
        network: token.network(),
        epochs: member::epochs_of(&token),
        signal: token.signal,
        group: None,
        code: state.map(told).transpose()?,
        owner: None,
        mapping: None,
        config,
    })
}

/// Returns what the program inside is told.
fn told(state: GuestState) -> std::io::Result<OfCode> {
    StateFile::new(&state).map(|file| OfCode { file, state })
}

/// Returns a guest of the network that a text leads to: its first router, for the text's owner; else
/// a leaf.
fn by_text(fd: RawFd, config: Config, options: &GuestOptions) -> anyhow::Result<Role> {
    let wrong =
        |e: &dyn std::fmt::Display| ExitError::new(Exit::Usage, format!("--text-fd {fd}: {e}"));
    let entry: TextEntry = serde_json::from_str(&inherited(fd)?).map_err(|e| wrong(&e))?;
    let text = entry.text_key();
    let (places, first) = meeting_places(&entry.places, &config)?;
    let mut state = GuestState::default();
    state.text = entry.text.clone();
    state.place = first.map(|place| place.to_string()).unwrap_or_default();
    state.name = TEXT_NAME.to_owned();
    let Some(owner) = &entry.founds else {
        let start = ListenerStart { text, places };
        return Ok(Role::Text(Box::new(start), Box::new(told(state)?)));
    };
    let now = UnixTime::now();
    let Places { servers, dht, .. } = places;
    let token = CodeKeys::text_token(&owner.seed.0, SecretKey::generate(), servers.clone(), now)?;
    if owner.is_beside {
        return as_member(token, TEXT_NAME, Some(state), config, options);
    }
    state.founds = true;
    let withdrawn = &owner.withdrawn[..owner.withdrawn.len().min(MAX_HELPERS)];
    let keys = CodeKeys::of_random(&owner.seed.0);
    let record = TextRecord {
        made: now.as_secs(),
        until: now.as_secs() + TEXT_LIFETIME,
        attestation: owner.attestation.0,
        token: keys.leaf_token(
            SecretKey::generate(),
            (vec![GroupPrefix::ALL], owner.asks),
            servers,
            now,
        )?,
        routers: Vec::new(),
    };
    Ok(Role::Member(Box::new(Start {
        owner: Some(OwnerStart {
            text,
            signs: SecretKey::from_seed(&keys.network().seed()),
            record,
            dht,
            signer: None,
            withdrawn: helper::withdrawals(&owner.seed.0, withdrawn, now)?,
        }),
        mapping: Some(port_mapping::settings(&config)),
        ..start_of(token, TEXT_NAME, Some(state), config, None)?
    })))
}

/// Returns the signalling servers of codes: of the environment, else of the user's file, else of
/// the host's.
fn servers_of_user(config: &Config) -> anyhow::Result<Vec<String>> {
    if let Some(places) = places_of_environment()? {
        let servers = places.iter().map(|place| place.server().to_owned());
        return Ok(servers.collect());
    }
    let mut servers = config.signal.servers.clone();
    servers.truncate(MAX_URLS.into());
    Ok(servers)
}

/// Returns the user's name, if a node can have it.
fn name() -> String {
    let user = User::from_uid(geteuid()).ok().flatten();
    let name = user.map(|user| user.name).filter(|name| is_node_name(name));
    name.unwrap_or_else(|| NAME.to_owned())
}

/// Returns the text of the token.
fn text(options: &GuestOptions) -> anyhow::Result<Zeroizing<String>> {
    if let Some(fd) = options.token_fd {
        return inherited(fd);
    }
    if let Some(file) = &options.token_file {
        return read(file).with_context(|| file.display().to_string());
    }
    if let Some(token) = &options.token {
        return membership::read_token(token);
    }
    let text = token_of_environment()?;
    Ok(text.ok_or_else(|| {
        let message = "TOKEN or CODE, - for standard input, --token-file FILE, LCROUTE_TOKEN or LCROUTE_TOKEN_FILE; --found makes a code";
        ExitError::new(Exit::Usage, message)
    })?)
}

/// Reads an inherited descriptor, and closes it: the program must not have it.
fn inherited(fd: RawFd) -> anyhow::Result<Zeroizing<String>> {
    if fd <= libc::STDERR_FILENO {
        let message = format!("--token-fd {fd}: standard input is `-`");
        return Err(ExitError::new(Exit::Usage, message).into());
    }
    let text = read(format!("/proc/self/fd/{fd}")).with_context(|| format!("--token-fd {fd}"))?;
    nix::unistd::close(fd)?;
    Ok(text)
}

fn read(file: impl AsRef<Path>) -> std::io::Result<Zeroizing<String>> {
    let mut text = Zeroizing::new(String::with_capacity(MAX_TOKEN + 1));
    let file = File::open(file)?;
    file.take(MAX_TOKEN as u64 + 1).read_to_string(&mut text)?;
    Ok(Zeroizing::new(text.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_told_where_the_program_does_not_print_them() {
        let prints = |line: &str| {
            let program: Vec<_> = line.split(' ').map(OsString::from).collect();
            prints_words(&program)
        };
        assert!(prints("/usr/bin/lcsync send report.pdf"));
        assert!(prints("lcradio cast --code -"));
        assert!(!prints("ffmpeg -i film.mkv udp://[ff1e:5::42]:5004"));
        assert!(!prints("lcroute listen ff1e::42"));
    }
}
