//! Groups with a network of their own: members on hosts that share no network, without daemon or root.

use std::os::unix::fs::chown;

use crate::guest::{all_end, as_confined, as_nobody, family, open_driver};
use crate::outside_dht::with_dht;
use crate::prelude::*;
use crate::reach::swarm;
use crate::stations::{open_port, public_server};

/// The user without rights.
const NOBODY: u32 = 65_534;

/// A person with lcgroup, as nobody.
pub struct Person {
    pub host: Host,
    pub name: String,
    pub control: String,
    pub folder: PathBuf,
    /// Whether it may make no namespace.
    is_confined: bool,
    pub daemon: Option<Process>,
}

impl Person {
    pub fn new(host: &Host, is_confined: bool) -> Result<Self> {
        let folder = host.path("person");
        fs::create_dir(&folder)?;
        chown(&folder, Some(NOBODY), Some(NOBODY))?;
        let mut person = Self {
            host: host.clone(),
            name: host.name().to_owned(),
            control: folder.join("control.sock").display().to_string(),
            folder,
            is_confined,
            daemon: None,
        };
        person.start()?;
        Ok(person)
    }

    pub fn start(&mut self) -> Result<()> {
        let groups = self.folder.join("groups").display().to_string();
        let args = format!(
            "env RUST_LOG=info lcgroup --state-dir {groups} --control {} run",
            self.control
        );
        let args = crate::words(&args);
        let args = match self.is_confined {
            true => as_confined(&args),
            false => as_nobody(&args),
        };
        self.daemon = Some(self.host.spawn("setpriv", &args)?);
        eventually(&format!("lcgroup of {} answers", self.name), || {
            self.ask(&["status"]).map(drop)
        })
    }

    fn daemon(&mut self) -> Result<&mut Process> {
        self.daemon.as_mut().context("it does not run")
    }

    /// Ends it, with all that it has started.
    pub fn stop(&mut self) -> Result<()> {
        let family = family(self.daemon()?.pid());
        self.daemon()?.stop()?;
        all_end(&family)
    }

    /// Ends it at once; what it has started ends by itself.
    pub fn kill(&mut self) -> Result<()> {
        let pid = self.daemon()?.pid();
        let family = family(pid);
        kill(Pid::from_raw(i32::try_from(pid)?), Signal::SIGKILL)?;
        all_end(&family)
    }

    pub fn run(&self, args: &[&str]) -> Result<lcroute_demo::lab::Output> {
        let args = [&["--control", &self.control, "--json"], args].concat();
        self.host.run("lcgroup", &args)
    }

    pub fn ask(&self, args: &[&str]) -> Result<Value> {
        let args = [&["--control", &self.control, "--json"], args].concat();
        let said = self.host.ask("lcgroup", &args)?.success()?.stdout;
        serde_json::from_str(&said).with_context(|| said)
    }

    pub fn create(&self, args: &[&str]) -> Result<()> {
        let create = ["create", "team", "--as", &self.name, "--outside"];
        self.ask(&[&create, args].concat()).map(drop)
    }

    pub fn invite(&self, uses: &str) -> Result<String> {
        let answer = self.ask(&["invite", "team", "--uses", uses])?;
        Ok(answer["invitation"].as_str().context("no line")?.to_owned())
    }

    pub fn join(&self, line: &str) -> Result<()> {
        self.ask(&["join", line, "team", "--as", &self.name])
            .map(drop)
    }

    pub fn status(&self) -> Result<Value> {
        Ok(self.ask(&["status"])?["groups"][0].clone())
    }

    pub fn becomes(&self, state: &str) -> Result<()> {
        eventually(&format!("{} is {state}", self.name), || {
            let status = self.status()?;
            let told = self.daemon.as_ref().map(Process::stderr);
            holds!(
                status["state"] == state,
                "{status}: {}",
                told.unwrap_or_default()
            )
        })
    }

    /// Says this, and waits until all others have it.
    pub fn tells(&self, words: &str, others: &[&Self]) -> Result<()> {
        self.ask(&["send", "team", words])?;
        for other in others {
            eventually(&format!("{} reads {words:?}", other.name), || {
                holds!(other.reads(words)?, "{}: {}", other.name, other.status()?)
            })?;
        }
        Ok(())
    }

    pub fn reads(&self, words: &str) -> Result<bool> {
        let args = ["--control", &self.control, "--json", "tail", "team"];
        let said = self.host.ask("lcgroup", &args)?.success()?.stdout;
        let lines = said.lines().map(serde_json::from_str::<Value>);
        let mut lines = lines.collect::<Result<Vec<_>, _>>()?.into_iter();
        Ok(lines.any(|message| message["text"] == words))
    }

    /// Waits until the owner's host has admitted it: its certificate depends on no invitation.
    fn admitted(&self) -> Result<()> {
        tells("membership renewed", || Ok(self.log()))
    }

    /// Waits until its status says so.
    pub fn says(&self, words: &str) -> Result<()> {
        tells(words, || Ok(self.status()?.to_string()))
    }

    /// Returns what its programs have printed.
    pub fn log(&self) -> String {
        self.daemon
            .as_ref()
            .map(Process::stderr)
            .unwrap_or_default()
    }
}

/// Starts people behind closed firewalls, with a server that belongs to nobody.
pub fn people(lab: &Lab, names: &[&str]) -> Result<(SignallingServer, String, Vec<Person>)> {
    open_driver()?;
    let (server, url) = public_server(lab)?;
    let hosts = lab.closed_hosts(names)?;
    let people = hosts.iter().map(|host| Person::new(host, false));
    Ok((server, url, people.collect::<Result<_>>()?))
}

#[test]
fn who_has_a_line_of_a_group_is_a_member_through_closed_firewalls() {
    world("group-outside", |lab| {
        let (_server, url, people) = people(lab, &["ann", "bob"])?;
        let [ann, bob] = crate::each(&people)?;
        let confined = lab.closed_hosts(&["cy", "dan"])?;
        let cy = Person::new(&confined[0], true)?;
        let dan = Person::new(&confined[1], false)?;
        ann.create(&["--at", &url])?;
        let line = ann.invite("3")?;
        ensure!(line.ends_with(&format!("@{url}")), "{line}");
        bob.join(&line)?;
        cy.join(&line)?;
        bob.becomes("member")?;
        cy.becomes("member")?;
        ann.tells("hello", &[bob, &cy])?;
        cy.tells("hello ann", &[ann, bob])?;
        // the secrets are in the arguments of no process
        for person in [ann, bob, &cy] {
            let daemon = person.daemon.as_ref().context("it runs")?;
            let family = family(daemon.pid());
            ensure!(family.len() > 3, "{family:?}");
            for pid in family {
                let shown = fs::read_to_string(format!("/proc/{pid}/cmdline"))?;
                ensure!(!shown.contains(&line[8..60]), "{shown}");
            }
        }
        // the line went too far: its last place is withdrawn, and those who came by it stay
        for person in [bob, &cy] {
            person.admitted()?;
        }
        let open = ann.ask(&["invitations", "team"])?;
        ensure!(open["invitations"][0]["left"] == 1, "{open}");
        ann.ask(&["withdraw", "team", &line])?;
        let none = ann.ask(&["invitations", "team"])?;
        ensure!(none["invitations"] == json!([]), "{none}");
        ann.run(&["withdraw", "team", &line])?.exits(2)?;
        dan.join(&line)?;
        bob.tells("without dan", &[ann, &cy])?;
        dan.says("it is looked for at")?;
        ensure!(dan.status()?["state"] == "joining");
        dan.join(&ann.invite("1")?)?;
        dan.becomes("member")?;
        cy.tells("with dan", &[ann, bob, &dan])
    });
}

#[test]
#[ignore = "long: `make test-all`"]
fn members_find_each_other_without_the_owner_and_a_removed_one_is_expelled() {
    world("group-outside-owner", |lab| {
        let (_server, url, mut people) = people(lab, &["ann", "bob", "cy", "dan"])?;
        people[0].create(&["--at", &url])?;
        let line = people[0].invite("9")?;
        for person in &people[1..] {
            person.join(&line)?;
        }
        for person in &people[1..] {
            person.becomes("member")?;
        }
        for person in &people[1..] {
            person.admitted()?;
        }
        // all start again, one of them after a crash, and the owner does not
        people[0].stop()?;
        people[1].kill()?;
        people[2].stop()?;
        people[3].stop()?;
        for person in &mut people[1..] {
            person.start()?;
        }
        people[1].tells("without ann", &[&people[2], &people[3]])?;
        people[0].start()?;
        people[3].tells("with ann", &[&people[0], &people[1], &people[2]])?;
        // dan is removed
        people[0].ask(&["remove", "team", "dan"])?;
        eventually("dan is not in the network", || {
            let status = people[3].status()?;
            let links = &status["network"]["links"];
            let told = people[3].log();
            let is_told = told.contains("expelled from the network") || told.contains("as None");
            let is_out = *links == 0 && is_told;
            holds!(is_out, "{status} {}", people[3].log())
        })?;
        people[1].tells("without dan", &[&people[0], &people[2]])?;
        // nor after a start of all
        for person in &mut people {
            person.stop()?;
        }
        for person in &mut people {
            person.start()?;
        }
        people[2].tells("again without dan", &[&people[0], &people[1]])?;
        ensure!(!people[3].reads("without dan")? && !people[3].reads("again without dan")?);
        ensure!(people[3].status()?["network"]["links"] == 0);
        // the line by which dan came leads nobody in any more, and another one does
        let [eve, fay] = &crate::all(lab.closed_hosts(&["eve", "fay"])?)?;
        let (eve, fay) = (Person::new(eve, false)?, Person::new(fay, false)?);
        eve.join(&line)?;
        let other = people[0].invite("1")?;
        fay.join(&other)?;
        fay.becomes("member")?;
        fay.tells("fay is here", &[&people[0], &people[1]])?;
        ensure!(eve.status()?["state"] == "joining");
        eve.says("it is looked for at")
    });
}

#[test]
#[ignore = "long: `make test-all`"]
fn what_is_missing_is_told_and_comes_back() {
    world("group-outside-missing", |lab| {
        let (mut server, url, mut people) = people(lab, &["ann", "bob", "cy"])?;
        people[0].create(&["--at", &url])?;
        let line = people[0].invite("2")?;
        let (text, _) = line.split_once('@').context("no place")?;
        for wrong in [
            format!("{text}@"),
            format!("{text}@a b"),
            format!("{}@x", &text[..90]),
        ] {
            people[1]
                .run(&["join", &wrong, "team", "--as", "bob"])?
                .exits(2)?;
        }
        // the owner's host is off: its joiner is told within seconds, and joins once it is back
        people[0].stop()?;
        let joins = people[1].host.spawn(
            "lcgroup",
            &[
                "--control",
                &people[1].control,
                "join",
                &line,
                "team",
                "--as",
                "bob",
                "--wait",
            ],
        )?;
        joins.says("does `lcgroup run` run on the owner's host")?;
        people[0].start()?;
        joins.output()?.success()?;
        people[1].becomes("member")?;
        // a place where nobody is
        people[2].join(&format!("{text}@ws://192.0.2.1:7117"))?;
        people[2].says("at ws://192.0.2.1:7117")?;
        people[2].join(&line)?;
        people[2].becomes("member")?;
        // the server dies: links stay, and who starts is told
        server.kill()?;
        people[1].tells("without a server", &[&people[0], &people[2]])?;
        people[2].stop()?;
        people[2].start()?;
        people[2].says("does not answer")?;
        server.start()?;
        people[2].tells("with a server", &[&people[0], &people[1]])?;
        // parts die: the guest of ann, the program inside of bob's
        let guests = |person: &Person| -> Result<Vec<u32>> {
            let pid = person.daemon.as_ref().context("it runs")?.pid();
            Ok(family(pid)
                .into_iter()
                .filter(|other| *other != pid)
                .collect())
        };
        for (person, last) in [(&people[0], false), (&people[1], true)] {
            let all = guests(person)?;
            let victim = match last {
                true => all.last(),
                false => all.first(),
            };
            let victim = *victim.context("no guest")?;
            kill(Pid::from_raw(i32::try_from(victim)?), Signal::SIGKILL)?;
            all_end(&all)?;
        }
        people[0].tells("ann's guest is back", &[&people[1], &people[2]])?;
        people[1].tells("bob's guest is back", &[&people[0], &people[2]])?;
        // the daemon dies, and starts at once
        people[1].kill()?;
        people[1].start()?;
        people[1].tells("bob is back", &[&people[0], &people[2]])?;
        // a group without a network in the same program, and none of them hears the other
        people[0].ask(&["create", "open", "--as", "ann"])?;
        let plain = people[0].ask(&["invite", "open"])?;
        let plain = plain["invitation"].as_str().context("no line")?;
        ensure!(!plain.contains('@'), "{plain}");
        let at = people[1].run(&["join", &format!("{plain}@{url}")])?;
        at.fails(2, "no network of its own")?;
        people[0].ask(&["leave", "team", "--forget"])?;
        holds!(!people[0].folder.join("groups/groups/team").exists())
    });
}

#[test]
#[ignore = "long: `make test-all`"]
fn a_group_on_a_lan_needs_no_server() {
    guests("group-outside-lan", |lab| {
        let hosts = lab.lan(&["ann", "bob", "cy"])?;
        let mut people = hosts
            .iter()
            .map(|host| Person::new(host, false))
            .collect::<Result<Vec<_>>>()?;
        people[0].create(&[])?;
        let line = people[0].invite("2")?;
        ensure!(!line.contains('@'), "{line}");
        people[1].join(&line)?;
        people[2].join(&line)?;
        people[1].becomes("member")?;
        people[2].becomes("member")?;
        people[1].tells("on a LAN", &[&people[0], &people[2]])?;
        people[0].stop()?;
        people[1].stop()?;
        people[1].start()?;
        people[1].tells("without ann", &[&people[2]])
    });
}

#[test]
#[ignore = "long: `make test-all`"]
fn a_group_is_found_by_a_dht_if_a_port_is_open() {
    guests("group-outside-dht", |lab| {
        let (_swarm, enters) = swarm(lab)?;
        let hosts = lab.closed_hosts(&["ann", "bob", "cy"])?;
        hosts.iter().try_for_each(|host| with_dht(host, &enters))?;
        let mut people = hosts
            .iter()
            .map(|host| Person::new(host, false))
            .collect::<Result<Vec<_>>>()?;
        people[0].create(&[])?;
        let port = eventually("it names its port", || {
            let port = people[0].status()?["network"]["port"].as_u64();
            ensure!(port.is_some_and(|port| port > 0), "{port:?}");
            Ok(port.unwrap_or_default().to_string())
        })?;
        open_port(&people[0].host, &port)?;
        let line = people[0].invite("2")?;
        people[1].join(&line)?;
        people[2].join(&line)?;
        people[1].becomes("member")?;
        people[2].becomes("member")?;
        people[1].tells("by a DHT", &[&people[0], &people[2]])?;
        people[1].stop()?;
        people[1].start()?;
        people[1].tells("again", &[&people[0], &people[2]])
    });
}

#[test]
#[ignore = "long: `make test-all`"]
fn a_mailbox_enters_by_a_line_of_its_own() {
    world("group-outside-mailbox", |lab| {
        let (_server, url, mut people) = people(lab, &["ann", "bob", "box"])?;
        people[0].create(&["--at", &url])?;
        people[1].join(&people[0].invite("1")?)?;
        people[1].becomes("member")?;
        people[1].run(&["hold", "--key", "team"])?.exits(4)?;
        let answer = people[0].ask(&["hold", "--key", "team"])?;
        let key = answer["key"].as_str().context("no line")?.to_owned();
        ensure!(key.ends_with(&url), "{key}");
        people[2].ask(&["hold", &key, "team"])?;
        let holds = |person: &Person, entries: u64| {
            eventually("the mailbox has it", || {
                let status = person.ask(&["status"])?;
                let held = status["held"][0]["log"]["entries"].as_u64();
                holds!(held >= Some(entries), "{status} {}", person.log())
            })
        };
        let entries = |person: &Person| -> Result<u64> {
            person.status()?["log"]["entries"]
                .as_u64()
                .context("entries")
        };
        // bob is away; ann speaks, and leaves; the mailbox alone is there when bob comes back
        people[1].stop()?;
        people[0].tells("for bob", &[])?;
        holds(&people[2], entries(&people[0])?)?;
        people[0].stop()?;
        people[2].stop()?;
        people[2].start()?;
        people[1].start()?;
        eventually("bob reads it", || {
            holds!(people[1].reads("for bob")?, "{}", people[1].log())
        })
    });
}
