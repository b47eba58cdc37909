//! How users of private groups are told of new messages: by a program, and on the desktop.

use crate::groups::{Person, invitation};
use crate::prelude::*;

/// Keeps each message in the file `told`; one with the text `slow` waits for the file `go`.
const SCRIPT: &str = r#"message=$(cat)
case $message in *'"text":"slow"'*) until [ -e go ]; do sleep 0.1; done ;; esac
printf '%s\n' "$message" >>told"#;

/// A group of ann's, with bob.
fn two(lab: &Lab) -> Result<[Person; 2]> {
    let hosts = lab.lan(&["ann", "bob"])?.into_iter();
    let people: Result<Vec<Person>> = hosts.map(|host| Person::new(host, "lan0")).collect();
    let [ann, bob] = <[Person; 2]>::try_from(people?).ok().expect("two");
    ann.ask(&["create", "team", "--as", "ann"])?;
    bob.join(&invitation(&ann, "1")?)?;
    eventually("bob is a member", || bob.is("member"))?;
    Ok([ann, bob])
}

fn run_for_new(person: &Person) -> Result<Process> {
    let args = ["tail", "team", "--new", "--exec", "sh", "-c", SCRIPT];
    person.host.spawn("lcgroup", &args)
}

/// The texts of messages for which the program of ann's ran.
fn told(person: &Person) -> Result<Vec<String>> {
    let all = fs::read_to_string(person.host.path("told")).unwrap_or_default();
    let text = |line: &str| -> Result<String> {
        let message: Value = serde_json::from_str(line)?;
        Ok(message["text"].as_str().unwrap_or_default().to_owned())
    };
    all.lines().map(text).collect()
}

fn is_told(person: &Person, expected: &[&str]) -> Result<()> {
    becomes(expected, || told(person))
}

#[test]
fn a_program_runs_for_each_new_message_and_none_is_lost_while_it_hangs() {
    world("groups-exec", |lab| {
        let [mut ann, bob] = two(lab)?;
        for (program, code) in [("no-such-program", 2), ("./told", 2)] {
            let args = ["tail", "team", "--exec", program];
            ann.run(&args)?.exits(code)?;
        }
        bob.say("first")?;
        eventually("ann reads it", || ann.has("first"))?;
        let mut runs = run_for_new(&ann)?;
        is_told(&ann, &["first"])?;
        let hostile = "'; touch evil; echo \" $(touch evil) `touch evil` \n --exec";
        ann.say("by ann herself")?;
        for words in ["slow", hostile, "last"] {
            bob.say(words)?;
        }
        runs.says("waits for sh (process")?;
        ensure!(told(&ann)? == ["first"]);
        ann.host.write("go", "")?;
        is_told(&ann, &["first", "slow", hostile, "last"])?;
        ensure!(!ann.host.path("evil").exists());
        becomes(0, || Ok(ann.status()?["unread"].clone()))?;
        runs.kill()?;
        bob.say("meanwhile")?;
        eventually("ann has it", || ann.has("meanwhile"))?;
        let mut runs = run_for_new(&ann)?;
        is_told(&ann, &["first", "slow", hostile, "last", "meanwhile"])?;
        ann.daemon()?.stop()?;
        runs.expect_exit(Duration::from_secs(30), 3)
    });
}

#[test]
fn a_desktop_shows_new_messages_of_others_as_text() {
    world("groups-desktop", |lab| {
        let [ann, mut bob] = two(lab)?;
        ann.say("old")?;
        eventually("bob reads it", || bob.has("old"))?;
        bob.daemon()?.stop()?;
        // where systemd's sessions have it, and where lcgroup looks
        let bus = bob.host.path("run/bus");
        fs::create_dir_all(bob.host.path("run"))?;
        let address = format!("unix:path={}", bus.display());
        let of_bus = format!("--address={address}");
        let _bus = bob.host.spawn(
            "dbus-daemon",
            &["--session", "--nofork", "--nopidfile", &of_bus],
        )?;
        eventually("the bus is there", || holds!(bus.exists(), "not yet"))?;
        let monitor = bob
            .host
            .spawn("busctl", &[&of_bus, "--json=short", "monitor"])?;
        monitor.says("Monitoring")?;
        let folder = bob.folder().display().to_string();
        let control = bob.control.clone();
        let args = ["--state-dir", &folder, "--control", &control, "run"];
        let args = [&args[..], &["--interface", "lan0", "--notify"]].concat();
        let daemon = bob.host.spawn("lcgroup", &args)?;
        eventually("lcgroup answers", || bob.ask(&["status"]).map(drop))?;
        bob.say("own")?;
        ann.say("<b>bold</b> & \u{1b}[31mred")?;
        eventually("the desktop is asked to show it", || {
            let said = monitor.stdout();
            let calls = said.lines().filter(|line| line.contains("\"Notify\""));
            let calls: Vec<Value> = calls.map(serde_json::from_str).collect::<Result<_, _>>()?;
            ensure!(calls.len() == 1, "{calls:?}");
            let shown = &calls[0]["payload"]["data"];
            ensure!(shown[3] == "ann in team", "{shown}");
            let text = "&lt;b&gt;bold&lt;/b&gt; &amp; \u{fffd}[31mred";
            holds!(shown[4] == text, "{shown}")
        })?;
        // this bus has no desktop
        daemon.says("no notification on the desktop")
    });
}
