//! Secrets as arguments: every user of a host can read all arguments, but finds no secret.

use lcradio_core::StationKey;

use crate::prelude::*;
use crate::radio::RADIO;
use crate::reach::{closed_lan, said};
use crate::studio::keygen;

/// Returns the arguments as `ps` shows them.
fn arguments(process: &Process) -> Result<String> {
    let bytes = fs::read(format!("/proc/{}/cmdline", process.pid()))?;
    Ok(String::from_utf8_lossy(&bytes).replace('\0', " "))
}

/// Waits until a process shows its verb, and only the kind of the secret.
fn shows(process: &mut Process, verb: &str, secret: &str) -> Result<()> {
    let (kind, rest) = secret.split_at(4);
    eventually("its arguments are plain", || {
        process.must_run()?;
        let shown = arguments(process)?;
        ensure!(!shown.contains(rest), "{verb}: {shown}");
        holds!(shown.contains(&format!(" {verb} {kind}.")), "{shown}")
    })
}

#[test]
fn no_process_that_stays_shows_a_secret_among_its_arguments() {
    world("secrets", |lab| {
        let hosts = closed_lan(lab, &["a", "b"])?;
        let [a, b] = &hosts[..] else { unreachable!() };
        let founder = a.spawn("lcroute", &["up", "--name", "a"])?;
        let token = said(&founder, "token ")?;
        let mut joined = b.spawn("lcroute", &["up", &token, "--name", "b"])?;
        said(&joined, "linked ")?;
        shows(&mut joined, "up", &token)?;

        let station = StationKey::from_seed(&[7; 32]).station(false).encode();
        let mut radio = b.spawn(RADIO, &["listen", &station, "-"])?;
        shows(&mut radio, "listen", &station)?;

        let (key, session, _) = keygen(b, "talk.key")?;
        let (kept, notes) = (b.path("kept"), b.path("notes.md"));
        let (kept, notes) = (kept.display().to_string(), notes.display().to_string());
        for verb in [
            &["attend", &session][..],
            &["hold", &session, &kept],
            &["notes", &session, &notes],
            &["caption", &session, "--key", &key, "-"],
        ] {
            let mut studio = b.spawn("lcstudio", verb)?;
            shows(&mut studio, verb[0], &session)?;
        }

        let run = |host: &Host| {
            let state = host.path("lcgroup").display().to_string();
            host.spawn("lcgroup", &["--state-dir", &state, "run"])
        };
        let mut owner = run(a)?;
        eventually("a group", || {
            let args = ["create", "team", "--as", "ann"];
            a.run("lcgroup", &args)?.success().map(|_| ())
        })?;
        let invitation = a.call("lcgroup invite team")?.stdout;
        let invitation = invitation.trim();
        owner.stop()?;
        let _member = run(b)?;
        eventually("lcgroup answers", || b.call("lcgroup status").map(|_| ()))?;
        // no answer arrives
        let args = ["join", invitation, "team", "--as", "bob", "--wait"];
        let mut joining = b.spawn("lcgroup", &args)?;
        shows(&mut joining, "join", invitation)?;

        // a re-executed daemon is a member, and needs no token
        b.call("lcroute reload --exec")?;
        eventually("it is executed anew", || {
            joined.must_run()?;
            let shown = arguments(&joined)?;
            ensure!(shown.ends_with("lcroute up --name b "), "{shown}");
            b.call("lcroute status").map(|_| ())
        })?;
        // messages show none either
        let wrong = b.run("lcstudio", &["attend", &session, &session])?;
        let told = wrong.stderr;
        ensure!(wrong.code == 2 && told.contains("'lcs1...'"), "{told}");
        holds!(!told.contains(&session[4..]), "{told}")
    });
}
