//! A member of a private group with several hosts.

use crate::groups::{Person, invitation};
use crate::prelude::*;

/// Bob, who owns the group, Ann, and a host that is to be Ann's laptop.
fn people(lab: &Lab) -> Result<Vec<Person>> {
    let hosts = lab.lan(&["bob", "ann", "laptop"])?.into_iter();
    let people = Person::all(hosts, "lan0")?;
    people[0].ask(&["create", "team", "--as", "bob"])?;
    people[1].join(&invitation(&people[0], "1")?)?;
    eventually("ann is a member", || people[1].is("member"))?;
    Ok(people)
}

fn text(of: &Person) -> Result<String> {
    let answer = of.ask(&["device", "add", "team"])?;
    Ok(answer["invitation"].as_str().context("no line")?.to_owned())
}

/// The member of this name, as this host lists it.
fn member(seen_by: &Person, name: &str) -> Result<Value> {
    let all = seen_by.ask(&["members", "team"])?;
    let all = all["members"].as_array().context("no members")?;
    let mut named = all.iter().filter(|member| member["shown"] == name);
    let found = named.next().with_context(|| format!("{all:?}"))?;
    ensure!(named.next().is_none(), "{all:?}");
    Ok(found.clone())
}

fn has_devices(seen_by: &Person, count: usize) -> Result<()> {
    let ann = member(seen_by, "ann")?;
    let devices = ann["devices"].as_array().context("no devices")?;
    holds!(devices.len() == count, "{}: {ann}", seen_by.name)
}

/// Who said these words, as this host shows it, and whether that was its own person.
fn said_by(seen_by: &Person, words: &str) -> Result<(String, bool)> {
    let said = seen_by.said()?;
    let message = said.iter().find(|message| message["text"] == words);
    let message = message.with_context(|| format!("{}: no {words:?}", seen_by.name))?;
    let shown = message["shown"].as_str().context("no name")?.to_owned();
    Ok((shown, message["own"] == true))
}

#[test]
#[ignore = "long: `make test-all`"]
fn two_hosts_are_one_member_until_the_lost_one_is_removed_from_the_other() {
    world("groups-devices", |lab| {
        let mut people = people(lab)?;
        let (bob, ann, laptop) = (0, 1, 2);
        people[ann].say("before")?;
        let line = text(&people[ann])?;
        let args = ["join", &line, "team", "--as", "laptop", "--wait"];
        people[laptop]
            .run(&args)?
            .success()?
            .prints("a device of ann in team")?;
        for person in &people {
            eventually("it is one member", || has_devices(person, 2))?;
            let members = person.status()?["members"].clone();
            ensure!(members == 2, "{members}");
        }
        // words of either are ann's for all, and her own on both
        people[ann].say("by the first")?;
        people[laptop].say("by the laptop")?;
        people[bob].say("by bob")?;
        for words in ["by the first", "by the laptop"] {
            for person in &people {
                eventually("they read it", || person.has(words))?;
                let said = said_by(person, words)?;
                let is_own = person.name != "bob";
                ensure!(
                    said == ("ann".to_owned(), is_own),
                    "{}: {said:?}",
                    person.name
                );
            }
        }
        // the first device gives what was said before
        eventually("the laptop has it", || people[laptop].has("before"))?;
        // what is read on one is read on the other
        let unread = |person: &Person, count: u64| -> Result<()> {
            let status = person.status()?;
            holds!(status["unread"] == count, "{}: {status}", person.name)
        };
        for who in [ann, laptop] {
            eventually("bob's words are new", || unread(&people[who], 1))?;
        }
        let tail = ["tail", "team", "--new"];
        let read = people[ann].run(&tail)?.success()?.stdout;
        ensure!(
            read.contains("bob: by bob") && read.lines().count() >= 1,
            "{read}"
        );
        unread(&people[ann], 0)?;
        eventually("it is read on the laptop", || unread(&people[laptop], 0))?;
        people[bob].say("more")?;
        for who in [ann, laptop] {
            eventually("that is new", || unread(&people[who], 1))?;
        }
        // names and words to compare are those of the member
        let words = |person: &Person, args: &[&str]| -> Result<Value> {
            Ok(person.ask(&[&["verify", "team"], args].concat())?["words"].clone())
        };
        let anns = words(&people[ann], &[])?;
        ensure!(anns == words(&people[laptop], &[])? && anns == words(&people[bob], &["ann"])?);
        let list = ["device", "list", "team"];
        let listed = people[ann].run(&list)?.success()?.stdout;
        shows_all(&listed, &["1 first", "2 laptop"])?;
        let told = member(&people[bob], "ann")?.to_string();
        ensure!(!told.contains("laptop"), "{told}");

        // the laptop is lost, and so is the line
        let again = people[bob].run(&["join", &line, "other"])?;
        ensure!(again.code == 1, "bob is in that group: {again:?}");
        let remove = ["device", "remove", "team", "laptop"];
        let removed = people[ann].run(&remove)?.success()?;
        removed.prints("reads nothing")?;
        eventually("it is removed", || people[laptop].is("removed"))?;
        people[bob].say("without the laptop")?;
        eventually("ann reads it", || people[ann].has("without the laptop"))?;
        ensure!(people[laptop].has("without the laptop").is_err());
        has_devices(&people[bob], 1)?;
        // its words stay ann's, after a restart too
        people[bob].daemon()?.stop()?;
        people[bob].start()?;
        let said = said_by(&people[bob], "by the laptop")?;
        holds!(said.0 == "ann", "{said:?}")
    });
}

#[test]
#[ignore = "long: `make test-all`"]
fn the_owner_removes_one_device_or_all_and_a_text_is_good_once() {
    world("groups-devices-owner", |lab| {
        let people = people(lab)?;
        let (bob, ann, laptop) = (0, 1, 2);
        let refused = people[ann].run(&["device", "add", "team", "--expires", "2d"])?;
        refused.fails(2, "a day at most")?;
        let line = text(&people[ann])?;
        let join = |line: &str, who: usize| {
            people[who].host.run(
                "lcgroup",
                &["join", line, "team", "--as", "laptop", "--wait"],
            )
        };
        for bad in [&line[..line.len() - 1], "lcd1", "lcd1xyz"] {
            let refused = join(bad, laptop)?;
            ensure!(refused.code == 2, "{bad}: {refused:?}");
        }
        join(&line, laptop)?.success()?;
        people[laptop].say("hello")?;
        // one device of another member, by its number
        people[bob].fails(&["remove", "team", "ann", "--device", "3"], 2, "")?;
        people[bob].ask(&["remove", "team", "ann", "--device", "2", "--tell"])?;
        eventually("the laptop is removed", || people[laptop].is("removed"))?;
        people[ann].is("member")?;
        // its text is used up
        people[laptop].ask(&["leave", "--forget", "team"])?;
        join(&line, laptop)?.fails(4, "used up")?;
        people[laptop].ask(&["leave", "--forget", "team"])?;
        join(&text(&people[ann])?, laptop)?.success()?;
        people[laptop].ask(&["status"])?;
        // all devices at once
        people[bob].ask(&["remove", "team", "ann", "--tell"])?;
        for who in [ann, laptop] {
            eventually("it is removed", || people[who].is("removed"))?;
        }
        let listed = people[bob].ask(&["members", "team"])?;
        holds!(listed["members"].as_array().map(Vec::len) == Some(1))
    });
}
