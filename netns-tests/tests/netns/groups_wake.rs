//! Calls to members that are absent, by a program at a mailbox.

use crate::groups::{Person, holding_key, invitation};
use crate::prelude::*;

/// Minutes by which the clock of the mailbox goes on.
const LATER: [i64; 2] = [11, 75];

impl Person {
    /// Restarts it with a clock ahead by these minutes.
    fn start_later(&mut self, minutes: i64) -> Result<()> {
        self.daemon()?.stop()?;
        let link = self.host.path("lcgroup");
        if !link.exists() {
            std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_lcroute-skewed"), &link)?;
        }
        self.host
            .write("clock-offset", (minutes * 60).to_string())?;
        self.program = link.to_str().context("path")?.to_owned();
        self.start()
    }
}

/// Waits until the mailbox has all entries of a member's host.
fn has_all(mailbox: &Person, of: &Person) -> Result<()> {
    eventually("the mailbox has all", || {
        let held = mailbox.ask(&["status"])?["held"][0]["log"]["entries"].clone();
        let all = of.status()?["log"]["entries"].clone();
        holds!(held == all, "{held} of {all}")
    })
}

#[test]
fn a_mailbox_calls_a_member_for_whom_something_waits_until_it_comes() {
    world("groups-wake", |lab| {
        let hosts = lab.lan(&["ann", "bob", "mailbox"])?.into_iter();
        let mut people = Person::all(hosts, "lan0")?;
        people[0].ask(&["create", "team", "--as", "ann"])?;
        people[1].join(&invitation(&people[0], "1")?)?;
        eventually("bob is a member", || people[1].is("member"))?;
        let key = holding_key(&people[0])?;
        people[2].ask(&["hold", &key, "team"])?;
        let long = "x".repeat(64 * 1_024);
        people[1].fails(&["wake", "team", &long], 2, "512 bytes")?;
        let line = "$(touch evil) --help";
        people[1].ask(&["wake", "team", line])?;
        let called = |mailbox: &Person| -> Result<String> {
            Ok(fs::read_to_string(mailbox.host.path("called")).unwrap_or_default())
        };
        people[2].fails(&["hold", "team", "--wake", "./none"], 2, "no program")?;
        people[1].say("here")?;
        eventually("ann reads it", || people[0].has("here"))?;
        has_all(&people[2], &people[0])?;
        people[1].daemon()?.kill()?;
        people[0].say("where is bob?")?;
        has_all(&people[2], &people[0])?;
        let script = "{ cat; echo $#; } >>called";
        let mut calls = 0;
        for minutes in LATER {
            people[2].start_later(minutes)?;
            let args = ["hold", "team", "--wake", "sh", "-c", script];
            let mut runs = people[2].host.spawn("lcgroup", &args)?;
            calls += 1;
            let all = format!("{line}\n0\n").repeat(calls);
            becomes(all.clone(), || called(&people[2]))?;
            people[2].daemon()?.stop()?;
            runs.expect_exit(Duration::from_secs(30), 3)?;
            people[2].start()?;
        }
        ensure!(!people[2].host.path("evil").exists());
        // bob comes, and is called no more
        people[1].start()?;
        eventually("bob reads it", || people[1].has("where is bob?"))?;
        people[0].ask(&["wake", "team", "for ann"])?;
        has_all(&people[2], &people[0])?;
        people[1].say("here again")?;
        eventually("ann reads it", || people[0].has("here again"))?;
        has_all(&people[2], &people[0])?;
        // the call to bob would have been the first of them
        people[0].daemon()?.kill()?;
        people[2].start_later(3 * 24 * 60)?;
        let args = ["hold", "team", "--wake", "sh", "-c", script];
        let _runs = people[2].host.spawn("lcgroup", &args)?;
        let all = format!("{line}\n0\n").repeat(calls) + "for ann\n0\n";
        becomes(all, || called(&people[2]))
    });
}
