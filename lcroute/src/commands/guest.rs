//! `lcroute guest`: a program on an lc0 of its own, without root and daemon.

use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;
use lcroute_control::config::Config;
use librecast::cert::MAX_TOKEN;
use librecast_program::cli::{Exit, ExitError};
use nix::libc;
use zeroize::Zeroizing;

use super::membership;
use super::up::{TOKEN, TOKEN_FILE, token_of_environment};
use crate::guest::{self, leaf};
use crate::tun;

/// Where the token comes from.
#[derive(Debug)]
pub struct GuestOptions {
    /// The token, or `-`.
    pub token: Option<String>,
    /// An inherited descriptor with the token.
    pub token_fd: Option<RawFd>,
    /// A file with the token.
    pub token_file: Option<PathBuf>,
    /// The program and its arguments; none: a shell.
    pub program: Vec<OsString>,
}

/// Runs the program, and exits with its code.
pub fn run(config: &Config, options: &GuestOptions) -> anyhow::Result<Exit> {
    if config.exposure().direct().is_err() {
        let message = "[ice] policy = \"relay\": a guest links with routers directly, which would show them this host's addresses";
        return Err(ExitError::new(Exit::NotPermitted, message).into());
    }
    let token = leaf::token(&text(options)?)?;
    if !token.invitation().grant().leaf {
        let message = "the token is a member's, and guests of this version are leaves: `lcroute invite --leaf --groups P` prints a token for leaves";
        return Err(ExitError::new(Exit::NotPermitted, message).into());
    }
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
    let (routes, _) = tun::routes(&config.routes());
    let code = guest::run(guest::Options {
        token,
        command,
        is_shell: options.program.is_empty(),
        host_interface: config.tun.name.clone(),
        routes,
    })?;
    std::process::exit(code.into());
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
        let message = "TOKEN, - for standard input, --token-file FILE, LCROUTE_TOKEN or LCROUTE_TOKEN_FILE: a token of `lcroute invite --leaf`";
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
