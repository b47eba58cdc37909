//! `lcroute demo` as a user runs it, and interrupts it.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lcroute_lab::lab::{Turn, eventually, within};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

#[test]
fn it_succeeds_and_proves_it() -> Result<()> {
    let _turn = Turn::wait();
    let dir = installed(true)?;
    let done = Command::new(dir.path().join("bin/lcroute"))
        .args(["demo", "--json"])
        .output()?;
    let (out, err) = (
        String::from_utf8(done.stdout)?,
        String::from_utf8_lossy(&done.stderr),
    );
    ensure!(
        done.status.code() == Some(0),
        "{:?}\n{out}\n{err}",
        done.status
    );
    let lines: Vec<serde_json::Value> = out
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()
        .context(out.clone())?;
    let (summary, steps) = lines.split_last().context("no output")?;
    ensure!(summary["summary"]["ok"] == true, "{summary}");
    ensure!(
        steps.len() >= 6 && steps.iter().all(|step| step["ok"] == true),
        "{out}"
    );
    Ok(())
}

#[test]
fn all_arguments_are_those_of_the_lab_and_so_is_the_exit_code() -> Result<()> {
    let dir = installed(true)?;
    for (args, code, said) in [
        (&["demo", "--help"][..], 0, "Usage: lcroute demo"),
        (&["bench", "-h"], 0, "Usage: lcroute bench"),
        (&["sim", "--help"], 0, "Usage: lcroute sim"),
        (&["--json", "demo", "--nodes", "1"], 2, "2..=16"),
        (&["sim", "--list"], 0, "busy-hour"),
        (&["sim", "--config", "x"], 2, "--config"),
        (&["sim", "--replay", "nowhere.toml"], 2, "nowhere.toml"),
    ] {
        lcroute(&dir, args, code, said)?;
    }
    Ok(())
}

#[test]
fn without_the_lab_the_verbs_name_its_package() -> Result<()> {
    let dir = installed(false)?;
    lcroute(&dir, &["--help"], 0, "  demo  ")?;
    for verb in ["demo", "bench", "sim"] {
        lcroute(&dir, &[verb, "--help"], 1, "package lcroute-lab")?;
    }
    Ok(())
}

/// Programs in folders as packages install them, with the lab or without.
fn installed(with_lab: bool) -> Result<TempDir> {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    for (program, is_there) in [("bin/lcroute", true), ("lib/lcroute/lcroute-lab", with_lab)] {
        let path = dir.path().join(program);
        std::fs::create_dir_all(path.parent().context("a folder")?)?;
        if is_there {
            // a link by name would be followed, and others found beside it
            std::fs::hard_link(crate::PROGRAM, path)?;
        }
    }
    Ok(dir)
}

/// Runs `lcroute ARGS`, which must end with `code` and say `said`.
fn lcroute(dir: &TempDir, args: &[&str], code: i32, said: &str) -> Result<()> {
    let done = Command::new(dir.path().join("bin/lcroute"))
        .args(args)
        .output()?;
    let text = String::from_utf8([done.stdout, done.stderr].concat())?;
    ensure!(
        done.status.code() == Some(code) && text.contains(said),
        "{args:?}: {:?}: {text}",
        done.status
    );
    Ok(())
}

#[test]
fn interrupted_it_ends_with_130_and_leaves_nothing() -> Result<()> {
    ends(Signal::SIGINT, Some(130))
}

#[test]
fn terminated_it_ends_with_143_and_leaves_nothing() -> Result<()> {
    ends(Signal::SIGTERM, Some(143))
}

#[test]
fn even_killed_it_leaves_nothing() -> Result<()> {
    ends(Signal::SIGKILL, None)
}

/// Signals a demo that has begun, and looks for what is left of it.
fn ends(signal: Signal, code: Option<i32>) -> Result<()> {
    let _turn = Turn::wait();
    let mark = format!("DEMO_UNDER_TEST={signal}-{}", std::process::id());
    let (key, value) = mark.split_once('=').context("the mark")?;
    let dir = installed(true)?;
    let mut demo = Command::new(dir.path().join("bin/lcroute"))
        .args(["demo", "--json"])
        .env(key, value)
        .stdout(Stdio::piped())
        .spawn()?;
    let stdout = demo.stdout.take().context("the pipe")?;
    let mut first = String::new();
    let mut reader = BufReader::new(stdout);
    reader.read_line(&mut first)?;
    ensure!(
        first.contains("\"ok\":true"),
        "the first step failed: {first}"
    );
    kill(Pid::from_raw(i32::try_from(demo.id())?), signal)?;
    let status = wait(&mut demo)?;
    ensure!(status.code() == code, "{status:?} after {signal}");
    eventually("no process of the demo is left", || {
        let left = processes_with(&mark)?;
        ensure!(left.is_empty(), "still there: {left:?}");
        Ok(())
    })
}

fn wait(demo: &mut Child) -> Result<std::process::ExitStatus> {
    let ended = within(Duration::from_secs(20), "the demo has ended", || {
        demo.try_wait()?.context("it still runs")
    });
    if ended.is_err() {
        demo.kill()?;
    }
    ended
}

/// The command lines of all processes with this variable in their environment.
fn processes_with(mark: &str) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let path = entry?.path();
        // A process may end while it is looked at, and those of others cannot be read.
        let environment = std::fs::read(path.join("environ")).unwrap_or_default();
        if environment
            .split(|byte| *byte == 0)
            .any(|variable| variable == mark.as_bytes())
        {
            let command = std::fs::read(path.join("cmdline")).unwrap_or_default();
            found.push(String::from_utf8_lossy(&command).replace('\0', " "));
        }
    }
    Ok(found)
}
