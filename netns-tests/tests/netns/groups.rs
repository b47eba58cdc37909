//! Private groups: messages that wait for absent members, with holders that cannot read them.

use crate::prelude::*;
use crate::private::remembers;

/// A person with lcgroup on a host.
pub(crate) struct Person {
    pub(crate) host: Host,
    pub(crate) name: String,
    pub(crate) control: String,
    interface: &'static str,
    /// `lcgroup`, or a link of that name to a program with another clock.
    pub(crate) program: String,
    pub(crate) daemon: Option<Process>,
}

impl Person {
    pub(crate) fn new(host: Host, interface: &'static str) -> Result<Self> {
        let mut person = Self {
            program: "lcgroup".to_owned(),
            name: host.name().to_owned(),
            control: host.path("lcgroup.sock").display().to_string(),
            host,
            interface,
            daemon: None,
        };
        person.start()?;
        Ok(person)
    }

    /// Starts the programs of all these.
    pub(crate) fn all(
        hosts: impl Iterator<Item = Host>,
        interface: &'static str,
    ) -> Result<Vec<Self>> {
        hosts.map(|host| Self::new(host, interface)).collect()
    }

    /// Runs a command of the program.
    pub(crate) fn run(&self, args: &[&str]) -> Result<Output> {
        self.host.run("lcgroup", args)
    }

    /// Checks that the program refuses a command so.
    pub(crate) fn fails(&self, args: &[&str], code: i32, said: &str) -> Result<()> {
        self.run(args)?.fails(code, said)
    }

    pub(crate) fn folder(&self) -> PathBuf {
        self.host.path("groups")
    }

    pub(crate) fn start(&mut self) -> Result<()> {
        let folder = self.folder().display().to_string();
        let args = format!(
            "--state-dir {folder} --control {} run --interface {}",
            self.control, self.interface
        );
        let args = crate::words(&args);
        self.daemon = Some(self.host.spawn(&self.program, &args)?);
        eventually(&format!("lcgroup of {} answers", self.name), || {
            self.ask(&["status"]).map(drop)
        })
    }

    pub(crate) fn daemon(&mut self) -> Result<&mut Process> {
        self.daemon.as_mut().context("it does not run")
    }

    pub(crate) fn ask(&self, args: &[&str]) -> Result<Value> {
        let args = [&["--control", &self.control, "--json"], args].concat();
        let said = self.host.ask("lcgroup", &args)?.success()?.stdout;
        serde_json::from_str(&said).with_context(|| said)
    }

    pub(crate) fn join(&self, invitation: &str) -> Result<()> {
        self.ask(&["join", invitation, "team", "--as", &self.name])?;
        Ok(())
    }

    pub(crate) fn say(&self, words: &str) -> Result<()> {
        self.ask(&["send", "team", words]).map(drop)
    }

    pub(crate) fn status(&self) -> Result<Value> {
        let status = self.ask(&["status"])?;
        Ok(status["groups"][0].clone())
    }

    pub(crate) fn is(&self, state: &str) -> Result<()> {
        let status = self.status()?;
        holds!(status["state"] == state, "{}: {status}", self.name)
    }

    /// Returns the messages, in this host's order.
    pub(crate) fn said(&self) -> Result<Vec<Value>> {
        let args = ["--control", &self.control, "--json", "tail", "team"];
        let said = self.host.ask("lcgroup", &args)?.success()?.stdout;
        let lines = said.lines().map(serde_json::from_str);
        Ok(lines.collect::<Result<_, _>>()?)
    }

    pub(crate) fn has(&self, words: &str) -> Result<()> {
        let said = self.said()?;
        let has = said.iter().any(|message| message["text"] == words);
        holds!(
            has,
            "{} has {} messages, without {words:?}",
            self.name,
            said.len()
        )
    }
}

pub(crate) fn invitation(owner: &Person, uses: &str) -> Result<String> {
    let answer = owner.ask(&["invite", "team", "--uses", uses])?;
    Ok(answer["invitation"].as_str().context("no line")?.to_owned())
}

pub(crate) fn holding_key(owner: &Person) -> Result<String> {
    let answer = owner.ask(&["hold", "--key", "team"])?;
    Ok(answer["key"].as_str().context("no line")?.to_owned())
}

/// Starts a network of people; the first owns a group that all others ask to join.
pub(crate) fn people(lab: &Lab, names: &[&str]) -> Result<(Network, Vec<Person>)> {
    let mut network = lab.network(lab.closed_hosts(names)?)?;
    // messages before all links exist are repaired
    network.start_at_once()?;
    let hosts = network.members.iter().map(|member| member.host.clone());
    let people = Person::all(hosts, "lc0")?;
    Ok((network, people))
}

/// Returns the contents of all files in a folder.
pub(crate) fn contents(folder: &PathBuf) -> Result<Vec<u8>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        match entry.file_type()?.is_dir() {
            true => all.extend(contents(&entry.path())?),
            false => all.extend(fs::read(entry.path())?),
        }
    }
    Ok(all)
}

pub(crate) fn holds(bytes: &[u8], words: &str) -> bool {
    bytes.windows(words.len()).any(|w| w == words.as_bytes())
}

#[test]
fn words_wait_for_who_is_away_at_a_holder_that_cannot_read_them() {
    world("groups-mailbox", |lab| {
        let (_network, mut people) = people(lab, &["ann", "bob", "cy", "mailbox"])?;
        let dump = {
            let mailbox = &people[3].host;
            let path = mailbox.path("wire.pcap").display().to_string();
            let dump = mailbox.spawn("tcpdump", &["-i", "lc0", "-U", "-w", &path])?;
            dump.says("listening on")?;
            dump
        };
        people[0].ask(&["create", "team", "--as", "ann"])?;
        let line = invitation(&people[0], "2")?;
        people[1].join(&line)?;
        people[2].join(&line)?;
        let key = holding_key(&people[0])?;
        people[3].ask(&["hold", &key, "team"])?;
        for at in [1, 2] {
            eventually("they are members", || people[at].is("member"))?;
        }
        let refused = people[3].ask(&["join", "lct1abc", "x"]);
        ensure!(format!("{refused:?}").contains("lcg1"), "{refused:?}");
        // a conversation with one absent member
        people[0].say("meet at the old mill")?;
        eventually("it is read", || people[2].has("meet at the old mill"))?;
        people[2].daemon()?.stop()?;
        people[1].say("and bring the lantern")?;
        people[0].say("by the river at nine")?;
        eventually("the mailbox has both", || {
            let status = people[3].ask(&["status"])?;
            ensure!(status["held"][0]["log"]["entries"].as_u64() >= Some(8));
            people[1].has("by the river at nine")
        })?;
        // neither author is present any more
        people[0].daemon()?.kill()?;
        people[1].daemon()?.kill()?;
        people[2].start()?;
        eventually("what was said meanwhile is read", || {
            people[2].has("and bring the lantern")?;
            people[2].has("by the river at nine")
        })?;
        // the holder can read nothing, on disk, on the wire and in memory
        let pid = people[3].daemon()?.pid();
        let mut seen = contents(&people[3].folder())?;
        ensure!(seen.len() > 2_000, "{} bytes are held", seen.len());
        drop(dump);
        seen.extend(fs::read(people[3].host.path("wire.pcap"))?);
        for words in ["the old mill", "the lantern", "the river"] {
            ensure!(
                !holds(&seen, words),
                "the mailbox or the wire has {words:?}"
            );
            ensure!(
                !remembers(pid, words.as_bytes())?,
                "its memory has {words:?}"
            );
        }
        // after kill -9 no message is duplicated, and the conversation continues
        people[0].start()?;
        people[1].start()?;
        people[1].say("on my way")?;
        for person in &people[..3] {
            eventually("all have all", || person.has("on my way"))?;
            let said = person.said()?;
            ensure!(said.len() == 4, "{}: {said:?}", person.name);
        }
        // a removed member reads no later message
        people[0].ask(&["remove", "team", "cy", "--tell"])?;
        eventually("cy hears that", || people[2].is("removed"))?;
        people[1].say("without cy")?;
        eventually("the others read it", || people[0].has("without cy"))?;
        ensure!(people[2].has("without cy").is_err(), "cy reads on");
        let pid = people[2].daemon()?.pid();
        holds!(!remembers(pid, b"without cy")?, "cy's memory has it")
    });
}

#[test]
fn who_comes_back_learns_of_a_removal_before_it_speaks_whatever_the_removed_one_sends() {
    world("groups-lies", |lab| {
        let hosts = lab.lan(&["ann", "bob", "cy", "dave"])?;
        let hosts = hosts.into_iter();
        let mut people = Person::all(hosts, "lan0")?;
        people[0].ask(&["create", "team", "--as", "ann"])?;
        let line = invitation(&people[0], "3")?;
        for person in &people[1..] {
            person.join(&line)?;
            eventually("they are members", || person.is("member"))?;
        }
        people[3].say("good night")?;
        eventually("ann reads it", || people[0].has("good night"))?;
        // cy is removed while dave is absent, and knows the sealing key
        people[3].daemon()?.stop()?;
        people[2].daemon()?.stop()?;
        let key = holding_key(&people[0])?;
        people[0].ask(&["remove", "team", "cy"])?;
        becomes(3, || Ok(people[1].status()?["members"].clone()))?;
        let lies = ["--interface", "lan0", &key];
        let liar = people[2].host.spawn("lcgroup-forge", &lies)?;
        liar.prints("lying")?;
        people[3].start()?;
        people[3].say("the code is 4711")?;
        eventually("bob reads it", || people[1].has("the code is 4711"))?;
        // it was sealed once, for the present members
        let (ann, dave) = (people[0].status()?, people[3].status()?);
        ensure!(
            dave["members"] == 3 && dave["epoch"] == ann["epoch"],
            "{dave}"
        );
        let members = people[0].ask(&["members", "team"])?;
        let members = members["members"].as_array().context("members")?;
        let of_dave = members.iter().find(|member| member["name"] == "dave");
        holds!(of_dave.is_some_and(|dave| dave["last"] == 2), "{members:?}")
    });
}

#[test]
fn a_copied_folder_says_nothing_and_a_second_program_does_not_start() {
    world("groups-copied", |lab| {
        let (_network, mut people) = people(lab, &["ann", "bob", "copy"])?;
        people[0].ask(&["create", "team", "--as", "ann"])?;
        people[1].join(&invitation(&people[0], "1")?)?;
        eventually("bob is a member", || people[1].is("member"))?;
        people[1].say("first")?;
        eventually("ann reads it", || people[0].has("first"))?;
        // started twice with one folder
        let folder = people[1].folder().display().to_string();
        let second = ["--state-dir", &folder, "--control", "other.sock", "run"];
        let second = people[1].run(&second)?;
        second.fails(1, "used by another")?;
        let pid = people[1].daemon()?.pid();
        let told = format!("lcgroup runs already (pid {pid})");
        second.says(&told)?;
        // a copy of bob's folder; bob continues, then the copy starts
        people[1].daemon()?.stop()?;
        people[2].daemon()?.stop()?;
        let (from, to) = (people[1].folder(), people[2].folder());
        let (from, to) = (from.join("groups"), to.join("groups"));
        let script = format!("cp -a {}/. {}/", from.display(), to.display());
        people[2].host.sh(&script)?.success()?;
        people[1].start()?;
        people[1].say("second")?;
        eventually("ann reads it", || people[0].has("second"))?;
        people[2].start()?;
        eventually("the copy knows what it is", || people[2].is("rolled_back"))?;
        ensure!(people[2].say("third").is_err(), "a copy spoke");
        people[1].say("third")?;
        eventually("ann reads bob", || people[0].has("third"))?;
        let status = people[0].status()?;
        let notices = status["notices"].to_string();
        holds!(!notices.contains("two hosts"), "{notices}")
    });
}

/// Each of 12 members has all of 100 messages: a third were absent, one author failed for good, the
/// owner was absent for half of them, and of two holders one forges.
#[test]
#[ignore = "long: `make test-all`"]
fn twelve_members_have_all_hundred_messages_whatever_happened() {
    world("groups-twelve", |lab| {
        let names: Vec<String> = (0..14).map(|n| format!("p{n}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let (_network, mut people) = people(lab, &names)?;
        let mut liar_host = people.pop().context("14 of them")?;
        let holder = people.pop().context("13 of them")?;
        people[0].ask(&["create", "team", "--as", "p0"])?;
        let line = invitation(&people[0], "12")?;
        for person in &people[1..] {
            person.join(&line)?;
        }
        let key = holding_key(&people[0])?;
        holder.ask(&["hold", &key, "team"])?;
        liar_host.daemon()?.stop()?;
        let liar = liar_host.host.spawn("lcgroup-forge", &[&key])?;
        liar.prints("lying")?;
        for person in &people[1..] {
            eventually("they are members", || person.is("member"))?;
        }
        for person in &people {
            becomes(Some(12), || Ok(person.status()?["members"].as_u64()))?;
        }
        // members 8 to 11 are absent from now on; the owner and 1 to 7 take turns
        for person in &mut people[8..] {
            person.daemon()?.stop()?;
        }
        let mut speakers: Vec<usize> = (0..8).collect();
        for n in 0..100 {
            if n == 50 {
                people[0].daemon()?.stop()?;
                speakers.retain(|at| *at != 0);
            }
            if n == 60 {
                // all messages of 7 are held; it fails for good
                let last = format!("message {}", n - 1);
                eventually("all before is held", || people[1].has(&last))?;
                people[7].daemon()?.kill()?;
                speakers.retain(|at| *at != 7);
            }
            let speaker = speakers[n % speakers.len()];
            people[speaker].say(&format!("message {n}"))?;
        }
        for at in &speakers {
            becomes(100, || Ok(people[*at].said()?.len()))?;
        }
        // all authors leave, the absent ones return: only the holders have the messages
        for at in speakers {
            people[at].daemon()?.stop()?;
        }
        people[0].start()?;
        for person in &mut people[8..] {
            person.start()?;
        }
        for at in [0, 8, 9, 10, 11] {
            eventually("who was away has all", || {
                let said = people[at].said()?;
                let words: BTreeSet<String> = said.iter().map(|m| m["text"].to_string()).collect();
                holds!(
                    words.len() == 100 && said.len() == 100,
                    "{} has {}: {}",
                    people[at].name,
                    said.len(),
                    people[at].status()?
                )
            })?;
            // each author's messages in order
            let mut last = BTreeMap::new();
            for message in people[at].said()? {
                let text = message["text"].as_str().context("text")?.to_owned();
                let n: u32 = text.trim_start_matches("message ").parse()?;
                let author = message["author"].to_string();
                let before = last.insert(author, n);
                ensure!(before < Some(n), "{n} came after {before:?}");
            }
        }
        let held = contents(&holder.folder())?;
        ensure!(!holds(&held, "message "), "a holder has a message in clear");
        let status = people[0].status()?;
        let drops = &status["log"]["drops"];
        println!("dropped by the owner: {drops}; waited at most {DEADLINE:?}");
        holds!(drops["bad_signature"].as_u64() > Some(0))
    });
}

#[test]
fn files_are_for_the_members_of_the_moment() {
    world("groups-files", |lab| {
        let (_network, people) = people(lab, &["ann", "bob", "cy", "eve"])?;
        people[0].ask(&["create", "team", "--as", "ann"])?;
        let line = invitation(&people[0], "2")?;
        for at in [1, 2] {
            people[at].join(&line)?;
            eventually("a member", || people[at].is("member"))?;
        }
        let [ann, bob, cy, eve] = [0, 1, 2, 3].map(|at: usize| &people[at].host);
        let fetch =
            |host: &Host, args: &[&str]| host.run("lcsync", &[args, &["-i", "lc0"]].concat());
        fetch(cy, &["lc:plans", "out", "--lcgroup", "team"])?.fails(3, "nobody in team shares")?;
        bob.write("plans/mill.txt", b"by the river")?;
        let plans = bob.path("plans").display().to_string();
        let shares = ["share", "-i", "lc0", "--lcgroup", "team", &plans];
        let mut share = bob.spawn("lcsync", &shares)?;
        let offered = |person: &Person| {
            let said = person.said()?;
            let offers = said.iter().filter(|m| m["files"] == "plans").count();
            ensure!(offers > 0, "{}: {said:?}", person.name);
            Ok(offers)
        };
        for person in [&people[0], &people[2]] {
            eventually("the offer is read", || offered(person).map(drop))?;
        }
        let read = |host: &Host| -> Result<Vec<u8>> { Ok(fs::read(host.path("out/mill.txt"))?) };
        for host in [ann, cy] {
            let out = host.path("out").display().to_string();
            fetch(host, &["lc:plans", &out, "--lcgroup", "team/bob"])?.success()?;
            ensure!(read(host)? == b"by the river");
        }
        // no key is on the wire in clear, and the share's name opens nothing
        fetch(eve, &["lc:plans", "out", "--timeout", "2s"])?.exits(3)?;
        // a removed member knows the earlier keys; later shares have new ones
        people[0].ask(&["remove", "team", "cy"])?;
        becomes(2, || Ok(people[1].status()?["members"].clone()))?;
        share.stop()?;
        bob.write("plans/mill.txt", b"by the bridge")?;
        let _share = bob.spawn("lcsync", &shares)?;
        becomes(2, || offered(&people[0]))?;
        let out = ann.path("out").display().to_string();
        fetch(ann, &["lc:plans", &out, "--lcgroup", "team"])?.success()?;
        ensure!(read(ann)? == b"by the bridge");
        let out = cy.path("out").display().to_string();
        let old = ["lc:plans", &out, "--lcgroup", "team", "--timeout", "2s"];
        let removed = fetch(cy, &old)?;
        holds!(
            removed.code == 3 && read(cy)? == b"by the river",
            "{removed:?}"
        )
    });
}

/// A prefix that ann, bob and cy protect by keys of their group, as their configuration permits.
const PREFIX: &str = "ff1e:7::/32";
const GROUP: &str = "ff1e:7::42";

impl Person {
    fn protect(&self) -> Result<()> {
        self.ask(&["protect", "team", PREFIX]).map(drop)
    }

    fn prefix(&self) -> Result<Value> {
        Ok(self.status()?["prefixes"][0].clone())
    }
}

#[test]
fn keys_of_a_group_seal_packets_without_loss_and_open_nothing_to_who_was_removed() {
    world("groups-protect", |lab| {
        let mut network = lab.network(lab.configured_hosts(
            &["ann", "bob", "cy"],
            &format!("[[private]]\nprefix = \"{PREFIX}\"\n"),
        )?)?;
        network.start()?;
        let hosts = network.members.iter().map(|member| member.host.clone());
        let mut people = Person::all(hosts, "lc0")?;
        people[0].ask(&["create", "team", "--as", "ann"])?;
        // closed while no program gives keys
        let closed = network.members[0]
            .host
            .run("lcroute", &["doctor", "--json"])?;
        closed.prints("no program gives its keys")?;
        people[0].protect()?;
        people[1].join(&invitation(&people[0], "1")?)?;
        eventually("bob is a member", || people[1].is("member"))?;
        people[1].protect()?;
        let foreign = people[1].ask(&["protect", "team", "ff1e:8::/32"]);
        ensure!(
            format!("{foreign:?}").contains("is not private here"),
            "{foreign:?}"
        );
        // members seal with an epoch's key one second after they have learnt it
        eventually("ann seals with a key that bob has", || {
            let (ann, bob) = (people[0].prefix()?, people[1].prefix()?);
            holds!(ann["epoch"] == bob["epoch"], "{ann}, {bob}")
        })?;
        // bob receives ann while cy joins, is a member, and is removed
        let [ann, bob, cy] = network.nodes()?;
        let receiver = ann.known_receiver(bob, GROUP, &[])?;
        let count = 12_000;
        let args = [GROUP, "--count", "12000", "--rate", "1000", "--size", "200"];
        let sender = ann.host.spawn("mc-send", &args)?;
        receiver.expect_more("sealed by the first epoch")?;
        people[2].join(&invitation(&people[0], "1")?)?;
        eventually("cy is a member", || people[2].is("member"))?;
        people[2].protect()?;
        let removed = cy.host.receive(GROUP, &[])?;
        removed.expect_more("cy reads as a member")?;
        // a member that keeps its old keys
        people[2].daemon()?.signal(Signal::SIGSTOP)?;
        people[0].ask(&["remove", "team", "cy"])?;
        eventually("bob seals with the next key", || {
            let status = people[1].status()?;
            let prefix = &status["prefixes"][0];
            ensure!(prefix["epoch"] == status["epoch"], "{status}");
            holds!(status["members"] == 2, "{status}")
        })?;
        let mut read = 0;
        eventually("cy reads nothing more", || {
            receiver.expect_more("ann sends on")?;
            let before = std::mem::replace(&mut read, removed.packets()?);
            holds!(read == before, "{read} packets, {before} a moment ago")
        })?;
        sender.output()?.success()?;
        receiver.expect_exactly(count)?;
        ensure!(removed.packets()? == read, "cy reads on");
        people[2].daemon()?.signal(Signal::SIGCONT)?;
        becomes(Value::Null, || Ok(people[2].prefix()?["epoch"].clone()))?;
        // without lcgroup nothing leaves in clear
        people[0].daemon()?.kill()?;
        eventually("ann's prefix is closed", || {
            let status = network.members[0]
                .host
                .run("lcroute", &["status", "--json"])?;
            holds!(
                status.stdout.contains("\"has_key\": false")
                    || status.stdout.contains("\"has_key\":false"),
                "{status:?}"
            )
        })?;
        people[0].start()?;
        becomes(true, || Ok(people[0].prefix()?["sealed"].clone()))?;
        Ok(())
    });
}
