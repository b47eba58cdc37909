//! `status --watch` on a terminal: in place, over a daemon's restart; restores the screen.

use crate::prelude::*;

/// A terminal of 6 rows and 60 columns, too few for any status; SIGTERM types ^C.
const TERMINAL: &str = r#"
import fcntl, os, pty, signal, struct, sys, termios
size = struct.pack("HHHH", 6, 60, 0, 0)
pid, fd = pty.fork()
if pid == 0:
    fcntl.ioctl(0, termios.TIOCSWINSZ, size)
    os.execvp(sys.argv[1], sys.argv[1:])
signal.signal(signal.SIGTERM, lambda *_: os.write(fd, b"\x03"))
while True:
    try:
        shown = os.read(fd, 65536)
    except OSError:
        break
    if not shown:
        break
    sys.stdout.buffer.write(shown)
    sys.stdout.buffer.flush()
code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
print(f"\nexit code {code}", flush=True)
"#;

#[test]
fn a_watch_repaints_survives_a_restart_and_restores_the_screen() {
    world("watch", |lab| {
        let mut network = lab.closed_network(["a", "b"])?;
        let host = network.members[0].host.clone();
        let terminal =
            |verb: &str| host.spawn("python3", &["-c", TERMINAL, "lcroute", verb, "--watch"]);
        let mut status = terminal("status")?;
        let mut peers = terminal("peers")?;
        eventually("three frames", || {
            for (watch, says) in [(&mut status, "connected, up"), (&mut peers, "RTT")] {
                watch.must_run()?;
                let shown = watch.stdout();
                ensure!(shown.starts_with("\x1b[?1049h\x1b[?25l\x1b[H"), "{shown:?}");
                ensure!(shown.matches("\x1b[H").count() >= 3, "{shown:?}");
                ensure!(last(watch)?.contains(says), "{shown:?}");
                // clearing before painting would flicker
                ensure!(!shown.contains("\x1b[2J") && !shown.contains("\x1b[H\x1b[J"));
            }
            Ok(())
        })?;
        let frame = last(&status)?;
        ensure!(frame.contains("more lines"), "{frame:?}");
        ensure!(frame.lines().count() <= 6, "{frame:?}");
        ensure!(
            frame.lines().all(|l| plain(l).chars().count() <= 60),
            "{frame:?}"
        );

        network.members[0].daemon()?.kill()?;
        tells("trying again", || last(&status))?;
        network.members[0].start()?;
        eventually("it shows the new daemon", || {
            let frame = last(&status)?;
            holds!(
                frame.contains("up ") && !frame.contains("trying again"),
                "{frame:?}"
            )
        })?;

        for watch in [&mut status, &mut peers] {
            watch.signal(Signal::SIGTERM)?;
            watch.wait(Duration::from_secs(20))?;
            let shown = watch.stdout();
            ensure!(shown.contains("exit code 130"), "{shown:?}");
            let (_, after) = shown.rsplit_once("\x1b[?1049l").context("not restored")?;
            ensure!(!after.contains("\x1b["), "{after:?}");
            shows_all(&shown, &["\x1b[?25h\x1b[?1049l"])?;
        }
        Ok(())
    });
}

#[test]
fn without_a_terminal_a_watch_is_lines_and_goes_on_over_a_restart() {
    world("watch-json", |lab| {
        let mut network = lab.closed_network(["a"])?;
        let host = network.members[0].host.clone();
        let mut watch = host.spawn("lcroute", &["status", "--json", "--watch"])?;
        let lines = |watch: &Process| -> Result<usize> {
            let said = watch.stdout();
            let whole = said.rfind('\n').map_or("", |end| &said[..end]);
            for line in whole.lines() {
                let status: Value = serde_json::from_str(line)?;
                ensure!(status["name"] == "a", "{line}");
            }
            Ok(whole.lines().count())
        };
        eventually("two looks", || {
            watch.must_run()?;
            holds!(lines(&watch)? >= 2)
        })?;
        network.members[0].daemon()?.kill()?;
        becomes(1, || Ok(watch.stderr().matches("trying again").count()))?;
        network.members[0].start()?;
        let before = lines(&watch)?;
        eventually("it goes on", || holds!(lines(&watch)? > before))?;
        watch.signal(Signal::SIGINT)?;
        watch.expect_exit(Duration::from_secs(20), 130)
    });
}

/// Returns the last complete frame.
fn last(watch: &Process) -> Result<String> {
    let shown = watch.stdout();
    let frames: Vec<&str> = shown.split("\x1b[H").collect();
    let whole = frames.iter().rev().find(|f| f.ends_with("\x1b[J"));
    Ok((*whole.context("no frame yet")?).to_owned())
}

fn plain(line: &str) -> String {
    line.replace("\x1b[K", "")
        .replace("\x1b[J", "")
        .replace('\r', "")
}
