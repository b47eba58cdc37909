//! `lcroute demo` as a user runs it, and interrupts it.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use netns_tests::lab::{Turn, eventually, within};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

#[test]
fn it_succeeds_and_proves_it() -> Result<()> {
    let _turn = Turn::wait();
    let done = Command::new(crate::PROGRAM)
        .args(["lcroute", "demo", "--json"])
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
    let mut demo = Command::new(crate::PROGRAM)
        .args(["lcroute", "demo", "--json"])
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
