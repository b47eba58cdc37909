//! The state that members of a group share: keys and values that all of them write.

use crate::groups::{Person, invitation};
use crate::prelude::*;

/// Returns what `get --key` prints.
fn value(person: &Person, key: &str) -> Result<String> {
    let args = ["--control", &person.control, "get", "team", "--key", key];
    Ok(person.host.ask("lcgroup", &args)?.success()?.stdout)
}

fn keys(person: &Person) -> Result<String> {
    let args = ["--control", &person.control, "keys", "team"];
    Ok(person.host.ask("lcgroup", &args)?.success()?.stdout)
}

#[test]
fn members_share_keys_and_one_that_was_away_or_joins_later_has_the_same() {
    world("groups-shared", |lab| {
        let hosts = lab.lan(&["ann", "bob", "cy", "dora"])?.into_iter();
        let mut people = Person::all(hosts, "lan0")?;
        people[0].ask(&["create", "team", "--as", "ann"])?;
        let line = invitation(&people[0], "3")?;
        for person in &people[1..3] {
            person.join(&line)?;
            eventually("they are members", || person.is("member"))?;
        }
        let control = people[1].control.clone();
        let args = ["--control", &control, "--json", "watch", "team"];
        let mut watch = people[1].host.spawn("lcgroup", &args)?;
        // it prints changes from its first answer on
        people[0].ask(&["set", "team", "begun", "yes"])?;
        eventually("bob watches", || {
            people[0].ask(&["set", "team", "begun", "yes"])?;
            holds!(watch.stdout().contains("begun"), "not yet")
        })?;
        people[0].ask(&["set", "team", "colour", "red"])?;
        watch.prints("\"key\":\"colour\",\"text\":\"red\"")?;
        people[2].daemon()?.stop()?;
        people[1].ask(&["set", "team", "colour", "blue"])?;
        people[1].ask(&["set", "team", "begun"])?;
        watch.prints("\"text\":\"blue\"")?;
        eventually("ann has it", || {
            ensure!(keys(&people[0])? == "colour\n");
            holds!(value(&people[0], "colour")? == "blue\n", "not yet")
        })?;
        people[0].daemon()?.kill()?;
        people[2].start()?;
        people[0].start()?;
        for person in &people[..3] {
            eventually("all have the same", || {
                ensure!(keys(person)? == "colour\n");
                holds!(value(person, "colour")? == "blue\n", "{}", person.name)
            })?;
        }
        people[3].join(&line)?;
        eventually("a newcomer has it", || {
            holds!(value(&people[3], "colour")? == "blue\n", "not yet")
        })?;
        ensure!(people[3].said()?.is_empty(), "values are no messages");
        let long = "x".repeat(16 * 1_024 + 1);
        let control = people[0].control.clone();
        for (args, code) in [
            (["set", "team", "k", long.as_str()], 2),
            (["set", "team", "", "v"], 2),
            (["get", "team", "--key", "none"], 1),
            (["get", "other", "--key", "none"], 2),
        ] {
            let args = [&["--control", &control], &args[..]].concat();
            people[0].run(&args)?.exits(code)?;
        }
        people[1].daemon()?.stop()?;
        watch.expect_exit(Duration::from_secs(30), 3)
    });
}
