//! `lcroute demo` as users run and interrupt it.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::prelude::*;
use crate::web;

/// Requests a relayed address as a stranger; prints type and code of the refusal (RFC 8656).
const ALLOCATE: &str = r#"
import socket, sys, urllib.parse
at = urllib.parse.urlsplit(sys.argv[1])
stream = socket.create_connection((at.hostname, at.port), timeout=20)
stream.sendall(bytes.fromhex("000300082112a442" + 24 * "7" + "0019000411000000"))
answer = stream.recv(2048)
code = answer.index(bytes.fromhex("0009"), 20)
print(answer[:2].hex(), answer[code + 6 : code + 8].hex())
"#;
/// Folder of the README's figure with its generator and source.
const FIGURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/figures");

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
    let lines: Vec<Value> = out
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
    let picture = draw(out.as_bytes())?;
    holds!(picture.ends_with("</svg>\n"), "{picture}")
}

#[test]
fn the_picture_is_what_the_script_makes_of_the_run_beside_it() -> Result<()> {
    let kept = |name| fs::read(Path::new(FIGURES).join(name)).context(name);
    let made = draw(&kept("demo.json")?)?;
    holds!(
        made.as_bytes() == kept("demo.svg")?,
        "docs/figures/demo.svg is stale; run `make figures`"
    )
}

/// Makes the README's figure of a demo; checks its form, and that it has no external content.
fn draw(said: &[u8]) -> Result<String> {
    let script = Path::new(FIGURES).join("demo.py");
    let made = piped(Command::new("python3").arg(script), said)?;
    const CHECK: &str = "import sys, xml.etree.ElementTree as xml; xml.parse(sys.stdin)";
    piped(Command::new("python3").args(["-c", CHECK]), made.as_bytes())?;
    ensure!(made.len() < 40_000, "{} bytes", made.len());
    for foreign in ["<script", "http://", "https://", "url(", "@import"] {
        let own = made.replace("http://www.w3.org/2000/svg", "");
        ensure!(!own.contains(foreign), "{foreign} in {made}");
    }
    Ok(made)
}

/// Returns the output of a program for this input.
fn piped(command: &mut Command, input: &[u8]) -> Result<String> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut stdin = child.stdin.take().context("the pipe")?;
    stdin.write_all(input)?;
    drop(stdin);
    let done = child.wait_with_output()?;
    let said = String::from_utf8_lossy(&done.stderr);
    ensure!(done.status.success(), "{command:?}: {said}");
    Ok(String::from_utf8(done.stdout)?)
}

#[test]
fn with_web_pages_and_signalling_are_reached_over_the_machines_own_loopback_until_it_is_interrupted()
 {
    crate::world("demo-web", |lab| {
        // has only a loopback interface, so all access is by the ports of the demo
        let machine = lab.detached_host("machine")?;
        let mark = format!("DEMO_UNDER_TEST=web-{}", std::process::id());
        let (key, value) = mark.split_once('=').context("the mark")?;
        let mut demo = machine
            .namespace()
            .command(Path::new(crate::PROGRAM))
            .args(["demo", "--web", "--json", "--nodes", "2"])
            .env(key, value)
            .stdout(Stdio::piped())
            .spawn()?;
        let mut lines = BufReader::new(demo.stdout.take().context("the pipe")?).lines();
        let facts = loop {
            let line = lines.next().context("it has ended")??;
            let step: Value = serde_json::from_str(&line)?;
            if step["facts"]["token"].is_string() {
                break step["facts"].clone();
            }
        };
        let fact = |name: &str| facts[name].as_str().context("a fact");

        let address = fact("dashboard")?;
        ensure!(address.starts_with("http://127.0.0.1:"), "{address}");
        let (status, shown) = web::get(&machine, address, "/", &[])?;
        ensure!(
            status == 200 && shown.contains("<title>"),
            "{status} {shown}"
        );
        let page = web::open(&machine, address)?;
        eventually("packets flow from alpha to bravo", || {
            let look = web::latest(&page)?;
            let flows = look["flows"].as_array().context("flows")?;
            let of_demo = |flow: &&Value| flow["group"] == "ff1e::42";
            let edges = flows.iter().find(of_demo).context("no flow")?;
            let rate = edges["edges"][0]["packets_s"].as_f64();
            holds!(rate > Some(10.0), "{edges}")
        })?;

        machine
            .run("lcroute", &["join", fact("token")?])?
            .success()?;
        let mut member = Member::new(machine);
        member.start()?;
        becomes(2, || Ok(member.peers()?.len()))?;
        // a browser's link uses it; a host takes no relay of its own loopback
        let status = member.status()?;
        let server = status["doors"][0]["at"].as_str().context("a server")?;
        let asked = member.host.ask("python3", &["-c", ALLOCATE, server])?;
        let refused = asked.success()?.stdout;
        ensure!(refused == "0113 0401\n", "{refused}");

        kill(Pid::from_raw(i32::try_from(demo.id())?), Signal::SIGINT)?;
        ensure!(wait(&mut demo)?.code() == Some(130));
        expect_nothing_left(&mark)
    });
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

/// Returns programs in folders as packages install them, with the lab or without.
fn installed(with_lab: bool) -> Result<TempDir> {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    for (program, is_there) in [("bin/lcroute", true), ("lib/lcroute/lcroute-lab", with_lab)] {
        let path = dir.path().join(program);
        fs::create_dir_all(path.parent().context("a folder")?)?;
        if is_there {
            // a symbolic link would be followed, and other programs found beside it
            fs::hard_link(crate::PROGRAM, path)?;
        }
    }
    Ok(dir)
}

/// Runs `lcroute ARGS`, which must end with `code` and print `said`.
fn lcroute(dir: &TempDir, args: &[&str], code: i32, said: &str) -> Result<()> {
    let done = Command::new(dir.path().join("bin/lcroute"))
        .args(args)
        .output()?;
    let text = String::from_utf8([done.stdout, done.stderr].concat())?;
    holds!(
        done.status.code() == Some(code) && text.contains(said),
        "{args:?}: {:?}: {text}",
        done.status
    )
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

/// Signals a running demo, and searches for remains.
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
    shows_all(&first, &["\"ok\":true"])?;
    kill(Pid::from_raw(i32::try_from(demo.id())?), signal)?;
    let status = wait(&mut demo)?;
    ensure!(status.code() == code, "{status:?} after {signal}");
    expect_nothing_left(&mark)
}

fn expect_nothing_left(mark: &str) -> Result<()> {
    becomes(0, || Ok(processes_with(mark)?.len()))
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

/// Returns the command lines of all processes with this variable in their environment.
fn processes_with(mark: &str) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let path = entry?.path();
        // A process may end during the look, and those of other users are unreadable.
        let environment = fs::read(path.join("environ")).unwrap_or_default();
        if environment
            .split(|byte| *byte == 0)
            .any(|variable| variable == mark.as_bytes())
        {
            let command = fs::read(path.join("cmdline")).unwrap_or_default();
            found.push(String::from_utf8_lossy(&command).replace('\0', " "));
        }
    }
    Ok(found)
}
