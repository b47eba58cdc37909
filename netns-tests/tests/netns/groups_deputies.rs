//! Private groups whose owner is lost, or away, and whose deputy takes over.

use crate::groups::{Person, invitation};
use crate::prelude::*;

/// A group of ann's in which bob is her deputy.
fn group(lab: &Lab, names: &[&str], members: usize) -> Result<Vec<Person>> {
    let hosts = lab.lan(names)?.into_iter();
    let people = Person::all(hosts, "lan0")?;
    people[0].ask(&["create", "team", "--as", "ann"])?;
    let line = invitation(&people[0], "9")?;
    for person in &people[1..members] {
        person.join(&line)?;
        eventually("they are members", || person.is("member"))?;
    }
    people[0].ask(&["deputy", "add", "team", "bob", "--after", "10s"])?;
    for person in &people[..members] {
        eventually("all know the deputy", || {
            let list = person.ask(&["deputy", "list", "team"])?;
            ensure!(list["deputies"][0]["name"] == "bob", "{list}");
            holds!(list["deputies"][0]["in_office"] == false, "{list}")
        })?;
    }
    people[1].fails(&["deputy", "add", "team", "cy"], 1, "only the owner")?;
    Ok(people)
}

fn takes_over(person: &Person) -> Result<()> {
    eventually("the deputy takes over", || {
        let list = person.ask(&["deputy", "list", "team"])?;
        holds!(list["deputies"][0]["in_office"] == true, "{list}")
    })
}

#[test]
#[ignore = "long: `make test-all`"]
fn the_owners_folder_is_deleted_and_the_deputy_lets_in_and_removes() {
    world("groups-deputy", |lab| {
        let mut people = group(lab, &["ann", "bob", "cy", "dora", "eve"], 4)?;
        people[0].say("before")?;
        eventually("all read it", || people[3].has("before"))?;
        people[0].daemon()?.signal(Signal::SIGKILL)?;
        fs::remove_dir_all(people[0].folder())?;
        takes_over(&people[1])?;
        takes_over(&people[2])?;
        let status = people[2].status()?;
        ensure!(status["deputy"] == "bob", "{status}");
        people[4].join(&invitation(&people[1], "1")?)?;
        eventually("eve is a member", || people[4].is("member"))?;
        people[1].ask(&["remove", "team", "cy", "--tell"])?;
        eventually("cy is removed", || people[2].is("removed"))?;
        for (from, to) in [(4, 3), (3, 1), (1, 4)] {
            let words = format!("{from} to {to}");
            people[from].say(&words)?;
            eventually("it is read", || people[to].has(&words))?;
        }
        ensure!(people[2].has("4 to 3").is_err(), "cy reads on");
        // it goes on after a restart of the deputy
        people[1].daemon()?.signal(Signal::SIGKILL)?;
        people[1].start()?;
        people[1].ask(&["remove", "team", "dora", "--tell"])?;
        eventually("dora is removed", || people[3].is("removed"))?;
        people[1].say("two of us")?;
        eventually("eve reads it", || people[4].has("two of us"))
    });
}

#[test]
#[ignore = "long: `make test-all`"]
fn an_owner_that_was_away_and_one_that_was_cut_off_come_to_one_group_with_all() {
    world("groups-deputy-back", |lab| {
        let mut people = group(lab, &["ann", "bob", "cy", "dora"], 3)?;
        for (from, to) in [(0, "bob"), (1, "ann")] {
            let host = &people[from].host;
            let handed = host.run("lcgroup", &["deputy", "hand-over", "team", to])?;
            let handed = handed.success()?.stdout;
            ensure!(handed.contains("removes them now"), "{handed}");
        }
        people[0].daemon()?.signal(Signal::SIGKILL)?;
        takes_over(&people[1])?;
        people[3].join(&invitation(&people[1], "1")?)?;
        eventually("dora is a member", || people[3].is("member"))?;
        people[3].say("ann is away")?;
        people[0].start()?;
        eventually("ann reads it", || people[0].has("ann is away"))?;
        let epochs = |people: &[Person]| -> Result<()> {
            let epochs = people.iter().map(|p| Ok(p.status()?["epoch"].clone()));
            let epochs: Vec<_> = epochs.collect::<Result<_>>()?;
            holds!(epochs.iter().all(|epoch| *epoch == epochs[0]), "{epochs:?}")
        };
        eventually("all have one epoch", || epochs(&people))?;
        // she takes the office back, and is cut off with it
        people[0].ask(&["deputy", "remove", "team", "bob"])?;
        people[0].ask(&["deputy", "add", "team", "bob", "--after", "10s"])?;
        becomes(Value::Null, || Ok(people[2].status()?["deputy"].clone()))?;
        people[0].host.call("ip link set lan0 down")?;
        takes_over(&people[1])?;
        people[1].ask(&["remove", "team", "dora", "--tell"])?;
        people[2].say("without ann")?;
        eventually("bob reads it", || people[1].has("without ann"))?;
        people[0].host.call("ip link set lan0 up")?;
        eventually("all have one epoch", || epochs(&people[..3]))?;
        people[0].say("with all")?;
        for person in &people[1..3] {
            eventually("it is read", || person.has("with all"))?;
        }
        eventually("ann reads what was said", || people[0].has("without ann"))
    });
}
