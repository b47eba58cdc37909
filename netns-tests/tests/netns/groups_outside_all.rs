//! Groups with a network of their own have files, deputies and devices, as all groups.

use std::os::unix::fs::symlink;

use crate::groups_outside::{Person, people};
use crate::prelude::*;
use crate::radio::RADIO;
use crate::radio_call::{One, strength, tone};

const MIB: usize = 1 << 20;

impl Person {
    fn send_file(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let path = self.host.write(name, bytes)?.display().to_string();
        self.ask(&["send", "team", "--file", &path]).map(drop)
    }

    fn get(&self, args: &[&str]) -> Result<Output> {
        let args = [&["--control", &self.control, "get", "team"], args].concat();
        self.host.run("lcgroup", &args)
    }

    fn has_file(&self, name: &str) -> Result<()> {
        let said = self.ask_lines(&["tail", "team"])?;
        holds!(said.contains(name), "{}: {said}", self.name)
    }

    fn ask_lines(&self, args: &[&str]) -> Result<String> {
        let args = [&["--control", &self.control, "--json"], args].concat();
        Ok(self.host.ask("lcgroup", &args)?.success()?.stdout)
    }

    /// Waits until it has admitted somebody, or was: its certificate depends on no line.
    fn is_admitted(&self) -> Result<()> {
        tells("membership renewed", || Ok(self.log()))
    }

    fn is_deputy(&self, of: &Self) -> Result<()> {
        eventually(&format!("{} knows the deputy", of.name), || {
            let list = of.ask(&["deputy", "list", "team"])?;
            holds!(list["deputies"][0]["name"] == *self.name, "{list}")
        })
    }

    fn takes_office(&self, seen_by: &[&Self]) -> Result<()> {
        for other in seen_by {
            eventually(&format!("{} sees the deputy in office", other.name), || {
                let list = other.ask(&["deputy", "list", "team"])?;
                holds!(list["deputies"][0]["in_office"] == true, "{list}")
            })?;
        }
        Ok(())
    }

    /// Calls the members, or takes part in a call, with a tone for a voice.
    fn calls(&self, text: &str, hz: f64, begun: Instant) -> Result<One> {
        let folder = self.host.path("bin");
        fs::create_dir(&folder)?;
        // the lab's program has another name
        symlink(RADIO, folder.join("lcradio"))?;
        let command = format!(
            "export PATH={}:$PATH; exec lcgroup --control {} --json call team {text} --",
            folder.display(),
            self.control
        );
        One::by(&self.host, &command, begun, tone(hz))
    }

    /// Waits until its node is out of the network, by what that says or by the group's log.
    fn is_out(&self) -> Result<()> {
        eventually(&format!("{} is not in the network", self.name), || {
            let (status, told) = (self.status()?, self.log());
            let is_told = told.contains("expelled from the network") || told.contains("as None");
            let is_out = status["network"]["links"] == 0 && is_told;
            holds!(is_out, "{status} {told}")
        })
    }

    fn has_devices(&self, name: &str, count: usize) -> Result<()> {
        eventually(&format!("{} sees {count} devices", self.name), || {
            let all = self.ask(&["members", "team"])?;
            let members = all["members"].as_array().context("no members")?;
            let member = members.iter().find(|member| member["name"] == name);
            let devices = member.and_then(|member| member["devices"].as_array());
            holds!(devices.is_some_and(|all| all.len() == count), "{all}")
        })
    }
}

/// Ann's group, with all but the last ones as members, and bob as her deputy.
fn group(people: &[Person], url: &str, members: usize) -> Result<String> {
    let (ann, bob) = (&people[0], &people[1]);
    ann.create(&["--at", url])?;
    let line = ann.invite("9")?;
    for person in &people[1..members] {
        person.join(&line)?;
        person.becomes("member")?;
        person.is_admitted()?;
    }
    ann.ask(&["deputy", "add", "team", "bob", "--after", "10s"])?;
    for person in &people[..members] {
        bob.is_deputy(person)?;
    }
    Ok(line)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let mut copy = std::process::Command::new("cp");
    let copied = copy.arg("-a").args([from, to]).status()?;
    holds!(copied.success(), "cp: {copied}")
}

#[test]
#[ignore = "long: `make test-all`"]
fn a_file_waits_in_the_groups_network_while_its_sender_is_killed() {
    world("group-outside-files", |lab| {
        let (_server, url, mut people) = people(lab, &["ann", "bob", "cy", "box"])?;
        people[0].create(&["--at", &url])?;
        let line = people[0].invite("2")?;
        people[1].join(&line)?;
        people[2].join(&line)?;
        let answer = people[0].ask(&["hold", "--key", "team"])?;
        let key = answer["key"].as_str().context("no line")?.to_owned();
        people[3].ask(&["hold", &key, "team", "--space", "64Mi"])?;
        people[1].becomes("member")?;
        people[2].becomes("member")?;
        let plan = noise(1, 20 * MIB);
        people[1].send_file("plan.bin", &plan)?;
        eventually("the mailbox has it", || {
            let held = people[3].ask(&["status"])?["held"][0]["files"].clone();
            holds!(held["files"] == 1 && held["missing"] == 0, "{held}")
        })?;
        eventually("cy reads the message", || people[2].has_file("plan.bin"))?;
        // the sender and the owner are killed while cy begins to fetch it
        let dest = people[2].host.path("plan.bin");
        let dest = dest.display().to_string();
        let args = format!("--control {} get team plan.bin {dest}", people[2].control);
        let args = crate::words(&args);
        let gets = people[2].host.spawn("lcgroup", &args)?;
        people[1].kill()?;
        people[0].kill()?;
        gets.output()?.success()?;
        ensure!(fs::read(&dest)? == plan, "another content");
        // all start again without them, and the mailbox and cy have it for bob, whose copy is gone
        people[2].stop()?;
        people[3].kill()?;
        people[2].start()?;
        people[3].start()?;
        fs::remove_dir_all(people[1].folder.join("groups/groups/team/files"))?;
        people[1].start()?;
        let again = people[1].host.path("again.bin").display().to_string();
        people[1].get(&["plan.bin", &again])?.success()?;
        ensure!(fs::read(&again)? == plan, "another content");
        // the guest of cy's dies under its programs for files, and all of them come back
        people[2].send_file("late.bin", &plan[..MIB])?;
        people[1].kill()?;
        people[1].start()?;
        eventually("bob reads the message", || people[1].has_file("late.bin"))?;
        let late = people[1].host.path("late.bin").display().to_string();
        people[1].get(&["late.bin", &late])?.success()?;
        holds!(fs::read(&late)? == plan[..MIB], "another content")
    });
}

#[test]
#[ignore = "long: `make test-all`"]
fn without_its_owner_a_deputy_lets_in_and_expels() {
    world("group-outside-deputy", |lab| {
        let names = ["ann", "bob", "cy", "dan", "eve", "fay"];
        let (_server, url, mut people) = people(lab, &names)?;
        let line = group(&people, &url, 4)?;
        people[0].tells("before", &[&people[1], &people[2], &people[3]])?;
        // the owner's folder is gone for good
        people[0].kill()?;
        fs::remove_dir_all(people[0].folder.join("groups"))?;
        people[1].takes_office(&[&people[1], &people[2], &people[3]])?;
        let of_bob = people[1].invite("2")?;
        people[4].join(&of_bob)?;
        people[4].becomes("member")?;
        people[4].tells("eve is here", &[&people[1], &people[2], &people[3]])?;
        people[4].is_admitted()?;
        people[1].ask(&["remove", "team", "cy"])?;
        people[2].is_out()?;
        people[1].tells("without cy", &[&people[3], &people[4]])?;
        // all start anew, some of them after a crash, and cy tries by all that it has
        for (at, person) in people.iter_mut().enumerate().skip(1).take(4) {
            match at % 2 {
                0 => person.kill()?,
                _ => person.stop()?,
            }
        }
        for person in people.iter_mut().skip(1).take(4) {
            person.start()?;
        }
        people[3].tells("again without cy", &[&people[1], &people[4]])?;
        ensure!(!people[2].reads("without cy")? && !people[2].reads("again without cy")?);
        ensure!(people[2].status()?["network"]["links"] == 0);
        people[2].ask(&["leave", "team", "--forget"])?;
        people[2].join(&line)?;
        people[5].join(&of_bob)?;
        people[5].becomes("member")?;
        people[5].tells("fay is here", &[&people[1], &people[3], &people[4]])?;
        ensure!(people[2].status()?["state"] == "joining");
        people[2].says("it is looked for at")
    });
}

#[test]
#[ignore = "long: `make test-all`"]
fn who_is_a_deputy_no_more_lets_nobody_in() {
    world("group-outside-ended", |lab| {
        let (_server, url, mut people) = people(lab, &["ann", "bob", "cy", "dan", "eve"])?;
        group(&people, &url, 3)?;
        people[0].kill()?;
        people[1].takes_office(&[&people[1], &people[2]])?;
        people[3].join(&people[1].invite("1")?)?;
        people[3].becomes("member")?;
        people[3].is_admitted()?;
        let of_bob = people[1].invite("1")?;
        // what bob had in office, for later
        let (groups, kept) = (
            people[1].folder.join("groups"),
            people[1].folder.join("kept"),
        );
        copy(&groups, &kept)?;
        // the owner is back, and ends the right: those that bob let in stay, and so does bob
        people[0].start()?;
        becomes(4, || Ok(people[0].status()?["members"].clone()))?;
        people[0].ask(&["deputy", "remove", "team", "bob"])?;
        tells("in its network as Some(Member)", || Ok(people[1].log()))?;
        people[3].tells("dan stays", &[&people[0], &people[1], &people[2]])?;
        people[1].tells("bob stays", &[&people[0], &people[2], &people[3]])?;
        for person in &mut people[..4] {
            person.stop()?;
        }
        for person in &mut people[..4] {
            person.start()?;
        }
        people[3].tells(
            "and after a start of all",
            &[&people[0], &people[1], &people[2]],
        )?;
        // the folder of then still has the key, and it opens nothing
        people[1].stop()?;
        fs::rename(&groups, people[1].folder.join("now"))?;
        fs::rename(&kept, &groups)?;
        people[1].start()?;
        eventually(
            "its key is expelled, and bob is no more than a member",
            || {
                let told = people[1].log();
                ensure!(told.contains("this node has been expelled"), "{told}");
                holds!(told.contains("in its network as Some(Member)"), "{told}")
            },
        )?;
        people[4].join(&of_bob)?;
        people[2].tells("nobody else is here", &[&people[0], &people[3]])?;
        ensure!(people[4].status()?["network"]["links"] == 0);
        holds!(people[4].status()?["state"] == "joining")
    });
}

#[test]
#[ignore = "long: `make test-all`"]
fn two_hosts_are_one_member_in_the_groups_network() {
    world("group-outside-devices", |lab| {
        let (_server, url, mut people) = people(lab, &["ann", "bob", "laptop", "tablet"])?;
        group(&people, &url, 2)?;
        let text = |person: &Person| -> Result<String> {
            let answer = person.ask(&["device", "add", "team"])?;
            Ok(answer["invitation"].as_str().context("no line")?.to_owned())
        };
        let of_bob = text(&people[1])?;
        ensure!(of_bob.ends_with(&format!("@{url}")), "{of_bob}");
        people[2].join(&of_bob)?;
        people[2].becomes("member")?;
        people[2].is_admitted()?;
        people[0].has_devices("bob", 2)?;
        people[2].tells("by the laptop", &[&people[0], &people[1]])?;
        // it is lost, and leads nobody back in
        people[1].ask(&["device", "remove", "team", "laptop"])?;
        people[2].is_out()?;
        people[0].has_devices("bob", 1)?;
        people[2].ask(&["leave", "team", "--forget"])?;
        people[2].join(&of_bob)?;
        people[0].tells("without the laptop", &[&people[1]])?;
        ensure!(people[2].status()?["state"] == "joining");
        // the owner is gone: its deputy lets the next one in
        people[0].kill()?;
        people[1].takes_office(&[&people[1]])?;
        people[3].join(&text(&people[1])?)?;
        people[3].becomes("member")?;
        people[3].tells("by the tablet", &[&people[1]])?;
        for person in [1, 3] {
            people[person].stop()?;
        }
        for person in [1, 3] {
            people[person].start()?;
        }
        people[3].tells("again by the tablet", &[&people[1]])
    });
}

#[test]
#[ignore = "long: `make test-all`"]
fn a_call_goes_over_the_groups_network_through_closed_firewalls_and_ends_with_it() {
    world_alone("group-outside-call", |lab| {
        let (_server, url, mut people) = people(lab, &["ann", "bob"])?;
        let [ann, bob] = crate::each(&people)?;
        ann.create(&["--at", &url])?;
        bob.join(&ann.invite("1")?)?;
        bob.becomes("member")?;
        bob.is_admitted()?;
        let begun = Instant::now();
        let mut a = ann.calls("", 500.0, begun)?;
        let text = a.text()?;
        // bob's terminal shows what to type
        let typed = format!("ann: calls: lcgroup call team {text}");
        eventually("bob is told", || {
            let args = ["--control", &bob.control, "tail", "team"];
            let said = bob.host.ask("lcgroup", &args)?.success()?.stdout;
            holds!(said.contains(&typed), "{said}")
        })?;
        let b = bob.calls(&text, 900.0, begun)?;
        for (one, other, [own, theirs]) in
            [(&a, "bob", [500.0, 900.0]), (&b, "ann", [900.0, 500.0])]
        {
            eventually("both are here, by their names in the group", || {
                let (others, open) = one.others()?;
                holds!(others == [other] && open == [other], "{others:?} {open:?}")
            })?;
            eventually(&format!("{other} is heard"), || {
                let sound = one.next_sound(1)?;
                let [own, theirs] = [own, theirs].map(|hz| strength(&sound, hz));
                holds!(theirs > 3_000.0 && own < 300.0, "{own} {theirs}")
            })?;
        }
        // her network is gone: nobody waits in silence
        people[0].kill()?;
        a.process.fails(DEADLINE, 1, "has ended")
    });
}
