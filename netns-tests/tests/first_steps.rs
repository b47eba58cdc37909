//! A user without `sudo` gets a message with the path written, and the service's path.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

/// An ordinary user, even if root runs the tests.
const NOBODY: u32 = 65_534;

/// Returns outputs of `lcroute ARGS` for an ordinary user with this home and variables.
fn as_user(
    program: &Path,
    home: &Path,
    args: &[&str],
    set: &[(&str, &str)],
) -> Result<(String, String)> {
    let mut command = Command::new(program);
    command.args(args).env_clear().env("HOME", home);
    command.envs(set.iter().copied());
    if nix::unistd::geteuid().is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    let done = command.output()?;
    let (said, told) = (
        String::from_utf8(done.stdout)?,
        String::from_utf8(done.stderr)?,
    );
    ensure!(done.status.success(), "{args:?}: {told}");
    Ok((said, told))
}

/// Returns a program that every user may execute, and homes that every user may write to.
fn homes() -> Result<(TempDir, PathBuf, [PathBuf; 2])> {
    let dir = tempfile::tempdir()?;
    let program = dir.path().join("lcroute");
    // another process copies: children of this one's threads would hold the file open
    let mut copy = Command::new("cp");
    copy.arg(env!("CARGO_BIN_EXE_netns-tests")).arg(&program);
    ensure!(copy.status()?.success(), "cp");
    let homes = ["alice", "bob"].map(|name| dir.path().join(name));
    for (path, mode) in [(dir.path(), 0o755), (&program, 0o755)] {
        fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    }
    for home in &homes {
        fs::create_dir(home)?;
        fs::set_permissions(home, fs::Permissions::from_mode(0o777))?;
    }
    Ok((dir, program, homes))
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("not UTF-8")
}

#[test]
fn a_forgotten_sudo_is_told_where_it_wrote_and_what_the_service_reads() -> Result<()> {
    let (_dir, program, [alice, bob]) = homes()?;
    // an empty variable counts as unset (XDG base directories)
    let empty = [("XDG_STATE_HOME", ""), ("XDG_RUNTIME_DIR", "")];
    let (_, told) = as_user(&program, &alice, &["init"], &empty)?;
    let written = alice.join(".local/state/lcroute");
    ensure!(written.join("membership.toml").exists(), "{told}");
    ensure!(told.contains(text(&written)?), "{told}");
    ensure!(told.contains("sudo lcroute init"), "{told}");

    let invite = ["invite", "--signal", "ws://198.18.0.1:7117"];
    let (token, _) = as_user(&program, &alice, &invite, &[])?;
    let elsewhere = bob.join("elsewhere");
    let elsewhere = [("XDG_STATE_HOME", text(&elsewhere)?)];
    let (_, told) = as_user(&program, &bob, &["join", token.trim()], &elsewhere)?;
    ensure!(told.contains("elsewhere/lcroute, for"), "{told}");
    ensure!(told.contains("sudo lcroute join TOKEN"), "{told}");
    Ok(())
}

#[test]
fn who_says_where_is_told_the_next_step_alone() -> Result<()> {
    let (dir, program, [alice, _]) = homes()?;
    let state = alice.join("mine");
    let args = ["init", "--state-dir", text(&state)?];
    let (_, told) = as_user(&program, &alice, &args, &[])?;
    ensure!(told.contains("next: `lcroute run`"), "{told}");
    ensure!(!told.contains("sudo"), "{told}");
    drop(dir);
    Ok(())
}
