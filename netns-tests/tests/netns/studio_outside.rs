//! Sessions in networks of their own: with the text, anyone attends and asks, without network, daemon,
//! root.

use std::os::unix::fs::chown;

use crate::guest::{as_confined, as_nobody, family};
use crate::outside_dht::with_dht;
use crate::prelude::*;
use crate::radio::{RADIO, write_chirp};
use crate::reach::swarm;
use crate::stations::{kill_all, open_port, public_server};
use crate::studio::{Typed, keygen, session, told, turn_on, until_told};
use crate::studio_pictures::png;

/// The user without rights.
const NOBODY: u32 = 65_534;

/// A lecture of nobody.
struct Stage<'a> {
    host: &'a Host,
    folder: PathBuf,
    key: String,
    text: String,
}

fn give(path: &Path) -> Result<()> {
    chown(path, Some(NOBODY), Some(NOBODY))?;
    if path.is_dir() {
        for entry in fs::read_dir(path)? {
            give(&entry?.path())?;
        }
    }
    Ok(())
}

fn nobody(args: &str) -> String {
    format!("setpriv {} {args}", as_nobody(&[]).join(" "))
}

impl<'a> Stage<'a> {
    fn new(host: &'a Host, captioner: Option<&str>) -> Result<Self> {
        let (folder, key, text) = session(host, captioner)?;
        turn_on(&folder, "screen")?;
        give(&folder)?;
        give(Path::new(&key))?;
        Ok(Self {
            host,
            folder,
            key,
            text,
        })
    }

    /// Presents in the session's own network; returns the text that it prints.
    fn present(&self, args: &str) -> Result<(Typed, String)> {
        let (folder, key) = (self.folder.display(), &self.key);
        let command = format!("lcstudio --json present {folder} --key {key} --outside {args}");
        let started = Typed::start(self.host, "present", &nobody(&command))?;
        let text = eventually("it is on", || {
            let said = started.process.stdout();
            let mut lines = said
                .lines()
                .filter_map(|line| serde_json::from_str::<Value>(line).ok());
            let on = lines.find(|line| line["event"] == "on");
            let on = on.with_context(|| started.process.stderr())?;
            Ok(on["session"].as_str().context("no text")?.to_owned())
        })?;
        Ok((started, text))
    }
}

fn attend(host: &Host, name: &str, text: &str, args: &str) -> Result<Typed> {
    let command = format!("lcstudio --json attend {text} --name {name} {args}");
    Typed::start(host, name, &nobody(&command))
}

/// Waits for the slide with this number.
fn sees(attender: &Typed, slide: u32) -> Result<()> {
    eventually("the slide", || {
        told(&attender.process, "slide", "number", &slide.into()).with_context(|| {
            let process = &attender.process;
            format!("{}\n{}", process.stdout(), process.stderr())
        })
    })
}

/// Asks, and waits until all have the question that the presenter took up.
fn asks(
    presenter: &mut Typed,
    number: u32,
    asking: &mut Typed,
    words: &str,
    all: &[&Typed],
) -> Result<()> {
    let question = Value::from(words);
    asking.types(words)?;
    until_told(&presenter.process, "question", "text", &question)?;
    presenter.types(&format!("a {number}"))?;
    for attender in all.iter().copied().chain([&*asking]) {
        until_told(&attender.process, "question", "text", &question)?;
    }
    Ok(())
}

fn port_of(process: &Process) -> Result<String> {
    let told = eventually("it names its port", || {
        let told = process.stderr();
        ensure!(told.contains("UDP port "), "{told}");
        Ok(told)
    })?;
    let port = told.split("UDP port ").nth(1).context("no port")?;
    Ok(port.split(',').next().context("no port")?.to_owned())
}

#[test]
fn who_has_only_the_text_of_a_session_attends_and_asks_through_closed_firewalls() {
    guests("session", |lab| {
        let (_server, url) = public_server(lab)?;
        let [stage, early, late, confined] =
            &crate::all(lab.closed_hosts(&["stage", "early", "late", "confined"])?)?;
        let stage = Stage::new(stage, None)?;
        let text = format!("{}@{url}", stage.text);
        // before somebody presents
        let mut early = attend(early, "early", &text, "--timeout 60s")?;
        early.process.says("looking for the sender at")?;
        let (mut presenter, printed) = stage.present(&format!("--at {url}"))?;
        ensure!(printed == text, "{printed}");
        sees(&early, 1)?;
        presenter.types("c they dance")?;
        presenter.types("")?;
        sees(&early, 2)?;
        // earlier entries come to a late attender
        let mut late = attend(late, "late", &text, "")?;
        // without a namespace of its own
        let args = as_confined(&["lcstudio", "--json", "attend", &text]);
        let args = args.iter().map(|arg| format!("'{arg}'"));
        let args = args.collect::<Vec<_>>().join(" ");
        let confined = Typed::start(confined, "confined", &format!("setpriv {args}"))?;
        for attender in [&late, &confined] {
            sees(attender, 2)?;
            until_told(&attender.process, "caption", "text", &"they dance".into())?;
        }
        asks(
            &mut presenter,
            1,
            &mut late,
            "how far?",
            &[&early, &confined],
        )?;
        // the text is in the arguments of no process
        for process in [&presenter.process, &late.process] {
            for pid in family(process.pid()) {
                let shown = fs::read_to_string(format!("/proc/{pid}/cmdline"))?;
                ensure!(!shown.contains(&text[8..60]), "{shown}");
            }
        }
        kill_all(&presenter.process)?;
        let (mut again, _) = stage.present(&format!("--at {url}"))?;
        again.types("3")?;
        for attender in [&early, &late, &confined] {
            sees(attender, 3)?;
        }
        asks(&mut again, 1, &mut early, "and now?", &[&late, &confined])?;
        again.types("q")?;
        again.process.expect_exit(DEADLINE, 0)?;
        for mut attender in [early, late, confined] {
            attender.process.expect_exit(DEADLINE, 0)?;
        }
        Ok(())
    });
}

#[test]
fn wrong_texts_of_sessions_are_refused_and_nobody_under_a_text_is_said() {
    guests("session-wrong", |lab| {
        let (_server, url) = public_server(lab)?;
        let host = lab.host("bob")?;
        let stage = Stage::new(&host, None)?;
        let text = &stage.text;
        let out = host.path("kept").display().to_string();
        for (args, code, said) in [
            (format!("attend {}@{url}", &text[..60]), 2, "damaged"),
            (format!("attend {text}@"), 2, "a place is HOST"),
            (format!("watch {text}@ camera -"), 2, "a place is HOST"),
            (
                "hold lcr1abc@meet.example kept".to_owned(),
                2,
                "this is a station",
            ),
            (format!("attend {text} --outside -i lc0"), 2, "--interface"),
            (format!("hold {text} {out} --at {url}"), 2, "--at"),
            // nobody presents
            (
                format!("attend {text}@{url} --timeout 4s"),
                3,
                "nobody presents",
            ),
        ] {
            let refused = host.sh(&nobody(&format!("lcstudio {args} <&-")))?;
            let told = refused.stderr;
            ensure!(
                refused.code == code && told.contains(said),
                "{args}: {}: {told}",
                refused.code
            );
        }
        let (folder, key) = (stage.folder.display(), &stage.key);
        let many = "--at a --at b --at c --at d";
        let many = format!("lcstudio present {folder} --key {key} --outside {many}");
        host.sh(&nobody(&many))?.exits(2)?;
        // a key that presents something else
        let (other, _, _) = keygen(&host, "other.key")?;
        give(Path::new(&other))?;
        let wrong = format!("lcstudio invite {folder} --key {other} --outside --at {url}");
        host.sh(&nobody(&wrong))?.exits(2)
    });
}

#[test]
#[ignore = "long: `make test-all`"]
fn sound_a_screen_captions_and_a_holder_are_in_the_network_of_a_session() {
    guests("session-tracks", |lab| {
        let (_server, url) = public_server(lab)?;
        let [stage, voice, ann, kept, bob] =
            &crate::all(lab.closed_hosts(&["stage", "voice", "ann", "kept", "bob"])?)?;
        let (writes, _, public) = keygen(ann, "ann.key")?;
        give(Path::new(&writes))?;
        let stage = Stage::new(stage, Some(&public))?;
        let (mut presenter, text) = stage.present(&format!("--at {url}"))?;
        // the presenter shows a screen by the text and the key, from another host too
        let picture = voice.path("picture.png");
        fs::write(&picture, png(64, 48, 3))?;
        let key = voice.path("talk.key");
        fs::copy(&stage.key, &key)?;
        give(&key)?;
        let screen = format!("lcstudio screen {text} --key {} -", key.display());
        let screen = format!(
            "(cat {}; sleep 600) | {}",
            picture.display(),
            nobody(&screen)
        );
        let _screen = voice.spawn("sh", &["-c", &screen])?;
        // others that send have a member's token
        let (folder, own) = (stage.folder.display(), &stage.key);
        let invite = format!("lcstudio invite {folder} --key {own} --outside --member --at {url}");
        let invited = stage.host.sh(&nobody(&invite))?.success()?;
        let token = invited.stdout.trim().to_owned();
        ensure!(token.starts_with("lct1"), "{token}");
        let sound = voice.path("audio-en.key");
        fs::copy(stage.folder.join("audio-en.key"), &sound)?;
        give(&sound)?;
        let chirp = write_chirp(voice, 60)?;
        let cast = format!("{RADIO} cast {token} --key {} -", sound.display());
        let cast = format!("exec {} <{}", nobody(&cast), chirp.display());
        let _cast = voice.spawn("sh", &["-c", &cast])?;
        let state = ann.path("captions");
        fs::create_dir(&state)?;
        give(&state)?;
        let caption = format!(
            "lcstudio caption {text} --key {writes} --lang en --state-dir {} -",
            state.display()
        );
        let mut writer = Typed::start(ann, "ann", &nobody(&caption))?;
        // more at once than a router takes of a leaf
        for line in 1..=20 {
            writer.types(&format!("line {line}"))?;
        }
        // by the text alone
        let holds = kept.path("kept");
        fs::create_dir(&holds)?;
        give(&holds)?;
        let hold = format!("lcstudio hold {text} {}", holds.display());
        let hold = kept.spawn("sh", &["-c", &format!("exec {}", nobody(&hold))])?;
        let bob_sees = attend(bob, "bob", &text, "")?;
        let watch = format!(
            "exec {}",
            nobody(&format!("lcstudio watch {text} screen -"))
        );
        let watch = bob.spawn("sh", &["-c", &watch])?;
        for line in 1..=20 {
            eventually("the captions of ann, who is a leaf", || {
                let line = format!("line {line}");
                told(&bob_sees.process, "caption", "text", &line.into())
                    .with_context(|| writer.process.stderr())
            })?;
        }
        watch.prints("PNG")?;
        presenter.types("2")?;
        sees(&bob_sees, 2)?;
        eventually("it keeps what came", || {
            let names = fs::read_dir(&holds)?
                .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
                .collect::<Result<Vec<_>>>()?;
            let has = |end: &str| names.iter().any(|name| name.ends_with(end));
            holds!(
                has("session") && has("screen"),
                "{names:?}: {}",
                hold.stderr()
            )
        })?;
        Ok(())
    });
}

#[test]
#[ignore = "long: `make test-all`"]
fn a_session_on_a_lan_needs_no_server() {
    guests("session-lan", |lab| {
        let [stage, bob] = &crate::all(lab.lan(&["stage", "bob"])?)?;
        let stage = Stage::new(stage, None)?;
        let (presenter, text) = stage.present("")?;
        ensure!(text == stage.text, "{text}");
        let port = port_of(&presenter.process)?;
        let mut bob = attend(bob, "bob", &text, "--outside")?;
        sees(&bob, 1)?;
        // the port that it has named is enough, and stays the same
        kill_all(&presenter.process)?;
        open_port(stage.host, &port)?;
        let (mut again, _) = stage.present("")?;
        again.types("2")?;
        sees(&bob, 2)?;
        asks(&mut again, 1, &mut bob, "here, too?", &[])
    });
}

#[test]
#[ignore = "long: `make test-all`"]
fn a_session_without_a_server_is_found_by_a_dht_if_its_port_is_open() {
    guests("session-dht", |lab| {
        let (_swarm, enters) = swarm(lab)?;
        let hosts = lab.closed_hosts(&["stage", "bob"])?;
        let [stage, bob] = crate::each(&hosts)?;
        hosts.iter().try_for_each(|host| with_dht(host, &enters))?;
        let stage = Stage::new(stage, None)?;
        let (mut presenter, text) = stage.present("")?;
        open_port(stage.host, &port_of(&presenter.process)?)?;
        let mut bob = attend(bob, "bob", &text, "--outside --timeout 60s")?;
        sees(&bob, 1)?;
        asks(&mut presenter, 1, &mut bob, "found?", &[])
    });
}

#[test]
#[ignore = "long: `make test-all`"]
fn without_udp_a_session_is_attended_by_the_relay_of_the_server() {
    guests("session-relay", |lab| {
        let mut server = lab.signalling_server()?;
        server.kill()?;
        server.args = vec!["--public".to_owned()];
        server.start()?;
        let url = server.url()?;
        let [stage, bob] = &crate::all(lab.closed_hosts(&["stage", "bob"])?)?;
        bob.drop_udp()?;
        let stage = Stage::new(stage, None)?;
        let (mut presenter, text) = stage.present(&format!("--at {url}"))?;
        let mut bob = attend(bob, "bob", &text, "--timeout 60s")?;
        sees(&bob, 1)?;
        asks(&mut presenter, 1, &mut bob, "by TCP?", &[])
    });
}

#[test]
#[ignore = "long: `make test-all`"]
fn a_session_of_a_host_with_a_daemon_leaves_its_network_as_it_was() {
    guests("session-daemon", |lab| {
        let network = lab.closed_network(["stage", "member"])?;
        let url = network.signalling.url()?;
        let bob = lab.closed_hosts(&["bob"])?.remove(0);
        let [on_stage, member] = crate::each(&network.members)?;
        let groups = || -> Result<Value> {
            let shown = on_stage
                .host
                .ask("lcroute", &["groups", "--json"])?
                .success()?;
            Ok(serde_json::from_str(&shown.stdout)?)
        };
        let before = groups()?;
        let stage = Stage::new(&on_stage.host, None)?;
        let (_presenter, text) = stage.present(&format!("--at {url}"))?;
        let bob = attend(&bob, "bob", &text, "")?;
        sees(&bob, 1)?;
        ensure!(groups()? == before, "{}", groups()?);
        // a member that has the text without its place hears nothing of it
        let args = ["attend", &stage.text, "--timeout", "5s"];
        member.host.run("lcstudio", &args)?.exits(3)
    });
}
