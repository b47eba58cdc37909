//! Private groups of people with faulty clocks, names, texts, disks and firewalls.

use std::os::unix::fs::FileExt;

use crate::groups::{Person, invitation};
use crate::prelude::*;

const DAY: i64 = 86_400;

/// Starts people on one LAN.
fn people(lab: &Lab, names: &[&str]) -> Result<Vec<Person>> {
    let hosts = lab.lan(names)?.into_iter();
    hosts.map(|host| Person::new(host, "lan0")).collect()
}

/// Starts a group of ann's with the rest as members.
fn members(lab: &Lab, names: &[&str]) -> Result<Vec<Person>> {
    let people = people(lab, names)?;
    people[0].ask(&["create", "team", "--as", "ann"])?;
    let line = invitation(&people[0], "9")?;
    for person in &people[1..] {
        person.join(&line)?;
        eventually("they are members", || person.is("member"))?;
    }
    Ok(people)
}

impl Person {
    /// Restarts it with a clock ahead by this number of days.
    fn start_ahead(&mut self, days: i64) -> Result<()> {
        if let Ok(daemon) = self.daemon() {
            daemon.stop()?;
        }
        let link = self.host.path("lcgroup");
        if !link.exists() {
            std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_lcroute-skewed"), &link)?;
        }
        self.host.write("clock-offset", "0")?;
        self.host.write("clock-set", (days * DAY).to_ne_bytes())?;
        self.program = link.to_str().context("path")?.to_owned();
        self.start()
    }

    /// Sets its clock at run time.
    fn set_clock(&self, days: i64) -> Result<()> {
        let file = fs::File::options()
            .write(true)
            .open(self.host.path("clock-set"))?;
        // in place, because the file is mapped
        Ok(file.write_all_at(&(days * DAY).to_ne_bytes(), 0)?)
    }

    fn join_and_wait(&self, line: &str) -> Result<Process> {
        let name = self.name.clone();
        self.host
            .spawn("lcgroup", &["join", line, "team", "--as", &name, "--wait"])
    }

    fn notices(&self) -> Result<String> {
        Ok(self.status()?["notices"].to_string())
    }
}

fn a_joiner_is_told_of_its_clock(days: i64, words: &str) {
    world(&format!("groups-joins-{days}"), |lab| {
        let mut people = people(lab, &["ann", "bob"])?;
        people[0].ask(&["create", "team", "--as", "ann"])?;
        let line = invitation(&people[0], "1")?;
        people[1].start_ahead(days)?;
        let mut joins = people[1].join_and_wait(&line)?;
        joins.says(words)?;
        joins.says("the group's owner")?;
        eventually("status tells it, too", || {
            let status = people[1].status()?["clock"].to_string();
            ensure!(status.contains(words), "{status}");
            let notices = people[0].notices()?;
            holds!(notices.contains("bob asks to join"), "{notices}")
        })?;
        ensure!(joins.is_running(), "{}", joins.stderr());
        people[1].set_clock(0)?;
        eventually("bob is a member", || people[1].is("member"))?;
        joins.output()?.success()?;
        people[1].say("in time")?;
        eventually("ann reads it", || people[0].has("in time"))
    });
}

#[test]
fn a_joiner_whose_clock_is_weeks_behind_is_told_so_and_goes_on_when_it_is_set() {
    a_joiner_is_told_of_its_clock(-40, "40 days behind");
}

#[test]
fn a_joiner_whose_clock_is_days_ahead_is_told_so_and_goes_on_when_it_is_set() {
    a_joiner_is_told_of_its_clock(3, "3 days ahead of");
}

#[test]
fn a_joiner_is_told_that_the_owner_is_missing_and_is_let_in_soon_after_the_firewall_opens() {
    world("groups-firewall", |lab| {
        let people = people(lab, &["ann", "bob", "cy"])?;
        people[0].ask(&["create", "team", "--as", "ann"])?;
        let line = invitation(&people[0], "1")?;
        let table = "add table inet filter; add chain inet filter input { type filter hook input priority 0; policy accept; }; \
                     add rule inet filter input udp dport 14246 drop";
        people[0].host.nft(table)?;
        people[1].join(&line)?;
        let mut joins = people[1].join_and_wait(&line)?;
        joins.says("waits for the group's owner")?;
        joins.says("UDP port 14246")?;
        let again = people[1].run(&["join", &line, "--as", "bob"])?;
        ensure!(
            again.code == 0 && again.stdout.contains("not let in yet"),
            "{again:?}"
        );
        ensure!(joins.is_running(), "{}", joins.stderr());
        people[0].host.nft("delete table inet filter")?;
        joins.expect_exit(Duration::from_secs(30), 0)?;
        people[1].is("member")?;
        // the invitation was for one member
        people[2]
            .join_and_wait(&line)?
            .output()?
            .fails(4, "used up")?;
        // another invitation admits the same host
        let line = invitation(&people[0], "1")?;
        people[2].join_and_wait(&line)?.output()?.success()?;
        Ok(())
    });
}

fn now() -> i64 {
    UnixTime::now().as_secs() as i64
}

#[test]
#[ignore = "long: `make test-all`"]
fn words_of_a_member_whose_clock_is_wrong_arrive_with_a_time_that_can_be_true_and_it_is_told() {
    world("groups-clocks", |lab| {
        let mut people = members(lab, &["ann", "bob", "cy"])?;
        let said = |person: &Person, words: &str| -> Result<()> {
            let all = person.said()?;
            let message = all.iter().find(|m| m["text"] == words);
            let message = message.with_context(|| format!("{} lacks {words:?}", person.name))?;
            let time = message["time"].as_i64().context("time")? / 1_000;
            let off = (time - now()).abs();
            holds!(off < 2 * DAY, "{words:?} is dated {} days away", off / DAY)
        };
        for (days, words) in [
            (730, "730 days ahead of"),
            (-730, "730 days behind"),
            (-40, "40 days behind"),
        ] {
            people[1].start_ahead(days)?;
            tells(words, || Ok(people[1].status()?["clock"].to_string()))?;
            let wrong = format!("by a clock {days} days ahead");
            let sent = people[1].run(&["send", "team", &wrong])?;
            ensure!(sent.code == 0 && sent.stderr.contains(words), "{sent:?}");
            // it reads the other messages as well
            let other = format!("to {wrong}");
            people[0].say(&other)?;
            eventually("bob reads ann", || people[1].has(&other))?;
            for at in [0, 2] {
                eventually("they read bob", || said(&people[at], &wrong))?;
                let notices = people[at].notices()?;
                ensure!(notices.contains("the clock of bob is"), "{notices}");
            }
            people[1].set_clock(0)?;
            becomes(Value::Null, || Ok(people[1].status()?["clock"].clone()))?;
            let right = format!("not {wrong} any more");
            let sent = people[1].ask(&["send", "team", &right])?;
            ensure!(sent["clock"].is_null(), "{sent}");
            for at in [0, 2] {
                eventually("they read bob", || said(&people[at], &right))?;
            }
        }
        // a member that starts later reads the same
        people[2].daemon()?.stop()?;
        people[1].say("later")?;
        people[2].start()?;
        eventually("cy reads it", || said(&people[2], "later"))
    });
}

#[test]
fn a_newcomer_reads_what_the_group_allows_and_all_see_what_that_is() {
    world("groups-history", |lab| {
        let people = people(lab, &["ann", "bob", "cy"])?;
        for (group, history) in [("open", "all"), ("team", "none")] {
            people[0].ask(&["create", group, "--as", "ann", "--history", history])?;
            let answer = people[0].ask(&["invite", group, "--uses", "2"])?;
            let line = answer["invitation"].as_str().context("no line")?.to_owned();
            let join = |person: &Person| -> Result<()> {
                let name = person.name.clone();
                let args = ["join", &line, group, "--as", &name, "--wait"];
                person.run(&args)?.success().map(drop)
            };
            join(&people[1])?;
            people[1].ask(&["send", group, "before"])?;
            let tail = |person: &Person, words: &str| {
                let said = person.run(&["tail", group])?.success()?;
                ensure!(
                    said.stdout.contains(words),
                    "{}: {}",
                    person.name,
                    said.stdout
                );
                Ok(said.stdout)
            };
            eventually("ann reads it", || tail(&people[0], "bob: before").map(drop))?;
            join(&people[2])?;
            people[0].ask(&["send", group, "after"])?;
            eventually("cy reads it", || tail(&people[2], "ann: after").map(drop))?;
            let told = people[2].host.call("lcgroup status")?.stdout;
            if history == "all" {
                eventually("cy reads more", || {
                    tail(&people[2], "(earlier) bob: before").map(drop)
                })?;
                ensure!(told.contains("newcomers read all that was said"), "{told}");
            } else {
                ensure!(tail(&people[2], "before").is_err());
            }
            // nobody else gets it twice
            let said = tail(&people[1], "after")?;
            ensure!(said.lines().count() == 2, "{said}");
        }
        Ok(())
    });
}

#[test]
#[ignore = "long: `make test-all`"]
fn a_member_comes_back_after_400_days_without_an_invitation() {
    world("groups-400-days", |lab| {
        let mut people = people(lab, &["ann", "bob", "cy", "dora"])?;
        for bad in ["1h", "0", "never", "2000y"] {
            let refused = people[0].run(&["create", "team", "--keep", bad])?;
            ensure!(refused.code == 2, "{bad}: {refused:?}");
        }
        people[0].ask(&["create", "team", "--as", "ann", "--keep", "2y"])?;
        let line = invitation(&people[0], "3")?;
        for person in &people[1..] {
            person.join(&line)?;
            eventually("they are members", || person.is("member"))?;
        }
        people[3].say("good bye")?;
        eventually("cy reads it", || people[2].has("good bye"))?;
        people[2].daemon()?.stop()?;
        people[3].say("for good")?;
        eventually("ann reads it", || people[0].has("for good"))?;
        people[3].daemon()?.stop()?;
        for days in [100, 200, 300, 400] {
            for person in &mut people[..2] {
                person.start_ahead(days)?;
            }
            let words = format!("day {days}");
            people[(days / 100 % 2) as usize].say(&words)?;
            for person in &people[..2] {
                eventually("they read it", || person.has(&words))?;
            }
            let before = people[0].status()?["epoch"].as_u64();
            people[0].ask(&["refresh", "team"])?;
            exceeds(before, || Ok(people[1].status()?["epoch"].as_u64()))?;
        }
        people[2].daemon = None;
        people[2].start_ahead(400)?;
        for words in ["for good", "day 100", "day 200", "day 300", "day 400"] {
            eventually("cy reads it", || people[2].has(words))?;
        }
        people[2].say("I am back")?;
        for person in &people[..2] {
            eventually("they read cy", || person.has("I am back"))?;
        }
        for person in &people[..3] {
            let told = person.host.call("lcgroup status")?.stdout;
            ensure!(told.contains("keeps what was said for 730 days"), "{told}");
        }
        Ok(())
    });
}

#[test]
fn a_folder_that_was_put_back_says_nothing_and_tells_the_way_out() {
    world("groups-put-back", |lab| {
        let mut people = members(lab, &["ann", "bob"])?;
        people[1].say("first")?;
        eventually("ann reads it", || people[0].has("first"))?;
        people[1].daemon()?.stop()?;
        let (folder, copy) = (people[1].folder(), people[1].host.path("copy"));
        let (folder, copy) = (folder.display(), copy.display());
        let sh = |person: &Person, script: &str| person.host.sh(script);
        sh(&people[1], &format!("cp -a {folder} {copy}"))?.success()?;
        people[1].start()?;
        people[1].say("second")?;
        eventually("ann reads it", || people[0].has("second"))?;
        people[1].daemon()?.stop()?;
        sh(&people[1], &format!("rm -r {folder} && mv {copy} {folder}"))?.success()?;
        people[1].start()?;
        // at once, and after the daemon has detected it
        for words in ["third", "fourth"] {
            people[1].fails(&["send", "team", words], 1, "lcgroup leave --forget team")?;
        }
        for verb in [&["status"][..], &["tail", "team"]] {
            let told = people[1].run(verb)?.success()?;
            let told = told.stdout + &told.stderr;
            ensure!(told.contains("older copy"), "{verb:?}: {told}");
        }
        people[0].say("fifth")?;
        ensure!(people[0].has("third").is_err(), "a copy spoke");
        // the remedy
        people[1].ask(&["leave", "team", "--forget"])?;
        people[1].join(&invitation(&people[0], "1")?)?;
        eventually("bob is a member again", || people[1].is("member"))?;
        people[1].say("sixth")?;
        eventually("ann reads it", || people[0].has("sixth"))
    });
}

#[test]
fn a_folder_that_was_put_back_says_nothing_while_no_other_host_can_show_its_age() {
    world("groups-put-back-alone", |lab| {
        let mut people = members(lab, &["ann", "bob"])?;
        people[1].say("first")?;
        eventually("ann reads it", || people[0].has("first"))?;
        for person in &mut people {
            person.daemon()?.stop()?;
            let folder = person.folder().display().to_string();
            let script = format!(
                "cp -a {folder} {folder}-copy && rm -r {folder} && mv {folder}-copy {folder}"
            );
            person.host.sh(&script)?.success()?;
        }
        let refuses = |person: &Person, args: &[&str]| -> Result<()> {
            person.fails(args, 1, "copied here or put back")
        };
        people[1].start()?;
        refuses(&people[1], &["send", "team", "to nobody"])?;
        people[1].daemon()?.stop()?;
        people[0].start()?;
        for args in [&["send", "team", "alone"][..], &["remove", "team", "bob"]] {
            refuses(&people[0], args)?;
        }
        // who joins ends the doubt
        people[0].ask(&["invite", "team"])?;
        // each shows the other that nothing newer was said, and `send` waits for it
        people[1].start()?;
        for (at, words) in [(0, "together"), (1, "again")] {
            people[at].say(words)?;
            eventually("the other reads it", || people[1 - at].has(words))?;
        }
        let words: Vec<String> = people[0]
            .said()?
            .iter()
            .map(|m| m["text"].to_string())
            .collect();
        ensure!(
            words == ["\"first\"", "\"together\"", "\"again\""],
            "{words:?}"
        );
        // the folder is known from now on
        people[0].daemon()?.stop()?;
        people[1].daemon()?.stop()?;
        people[1].start()?;
        people[1].say("to whoever comes")
    });
}

#[test]
#[ignore = "long: `make test-all`"]
fn a_copy_of_a_folder_on_a_second_host_says_nothing_more_and_tells_the_way_out() {
    world("groups-two-hosts", |lab| {
        let mut people = members(lab, &["ann", "bob", "copy"])?;
        people[1].daemon()?.stop()?;
        people[2].daemon()?.stop()?;
        let (from, to) = (people[1].folder(), people[2].folder());
        let script = format!(
            "rm -r {1}/groups && cp -a {0}/groups {1}/",
            from.display(),
            to.display()
        );
        people[2].host.sh(&script)?.success()?;
        // both are cut off while they write
        let cut = "add table inet cut; add chain inet cut input { type filter hook input priority 0; policy accept; }; \
                   add rule inet cut input udp dport 14246 drop";
        people[0].host.nft(cut)?;
        for (at, words) in [(1, "by the one"), (2, "by the other")] {
            people[at].host.nft(cut)?;
            people[at].start()?;
            if at == 2 {
                let sent = people[at].run(&["send", "team", "by a copy"])?;
                sent.fails(1, "copied here")?;
                // a snapshot of a whole machine has the place of the true folder
                people[at].daemon()?.stop()?;
                fs::remove_file(people[at].folder().join("groups/team/place"))?;
                people[at].start()?;
            }
            people[at].say(words)?;
        }
        for person in &people {
            person.host.nft("delete table inet cut")?;
        }
        // the first author may continue, unless both wrote before they received each other
        eventually("one of them is told", || {
            let mut told = Vec::new();
            for person in &people[1..] {
                told.push(person.run(&["send", "team", "more"])?);
            }
            let refused = told.iter().find(|sent| sent.code == 1);
            let refused = refused.with_context(|| format!("{told:?}"))?;
            let way_out = "lcgroup leave --forget team";
            refused.says(way_out)
        })
    });
}

#[test]
fn text_and_names_of_all_writings_stay_as_they_are() {
    world("groups-writings", |lab| {
        let people = people(lab, &["ann", "bob"])?;
        people[0].ask(&["create", "team", "--as", "\u{645}\u{6cc}\u{200c}\u{62e}"])?;
        let line = invitation(&people[0], "1")?;
        let name = "\u{d2e}\u{d4b}\u{d39}\u{d28}\u{d4d}\u{200d} \u{1f468}\u{200d}\u{1f469}\u{200d}\u{1f467}";
        people[1].ask(&["join", &line, "team", "--as", name])?;
        eventually("bob is a member", || people[1].is("member"))?;
        let written = [
            "\u{dc1}\u{dca}\u{200d}\u{dbb}\u{dd3} \u{5e9}\u{5dc}\u{5d5}\u{5dd}!\u{200f}",
            "Donau\u{ad}dampf\u{200b}schiff \u{2764}\u{fe0f}\u{200d}\u{1f525}",
            "\u{2067}\u{5d0} (1)\u{2069} \u{1f3f4}\u{e0067}\u{e0062}\u{e0073}\u{e0063}\u{e0074}\u{e007f}",
        ];
        for words in written {
            people[1].say(words)?;
            eventually("ann reads it", || people[0].has(words))?;
        }
        people[1].say("a\u{202e}b\u{2067}c")?;
        eventually("ann reads it", || people[0].has("a\u{202e}b\u{2067}c"))?;
        let tail = people[0].host.call("lcgroup tail team")?;
        let tail = tail.stdout;
        for words in written {
            ensure!(tail.contains(&format!("Z {name}: {words}\n")), "{tail:?}");
        }
        ensure!(tail.contains(": a\u{fffd}b\u{2067}c\u{2069}\n"), "{tail:?}");
        // 64 KiB of text, independent of their length in JSON
        for byte in ["\"", "\\n", "\\001", "\\000"] {
            let script = format!("printf '{byte}%.0s' $(seq 65536) | lcgroup send team");
            let sent = people[1].host.sh(&script)?;
            sent.success().with_context(|| format!("{byte:?}"))?;
        }
        eventually("ann has all", || {
            let said = people[0].said()?;
            ensure!(said.len() == 4 + 4, "{} messages", said.len());
            let length = |m: &Value| m["text"].as_str().map(str::len);
            // the shell's line end is not part of the text
            let lengths: Vec<_> = said[4..].iter().filter_map(length).collect();
            holds!(lengths == [65_536, 65_535, 65_536, 65_536], "{lengths:?}")
        })?;
        let script = "printf 'x%.0s' $(seq 65537) | lcgroup send team";
        people[1].host.sh(script)?.fails(2, "65536")
    });
}

#[test]
fn members_with_one_name_are_told_apart() {
    world("groups-names", |lab| {
        let people = people(lab, &["ann", "bob", "cy", "dora"])?;
        people[0].ask(&["create", "team", "--as", "Ann"])?;
        let line = invitation(&people[0], "3")?;
        for (person, name) in people[1..].iter().zip([" Ann ", "\u{410}nn", "Dora"]) {
            person.ask(&["join", &line, "team", "--as", name])?;
            eventually("they are members", || person.is("member"))?;
        }
        for (n, person) in people.iter().enumerate() {
            person.say(&format!("word {n}"))?;
            eventually("ann reads it", || people[0].has(&format!("word {n}")))?;
        }
        let tail = people[0].host.call("lcgroup tail team")?.stdout;
        let names: Vec<&str> = tail
            .lines()
            .filter_map(|line| line.get(21..)?.split(": ").next())
            .collect();
        let mut different = names.clone();
        different.sort_unstable();
        different.dedup();
        ensure!(different.len() == 4 && names[3] == "Dora", "{tail}");
        ensure!(
            names[0].starts_with("Ann#") && !tail.contains("12D3Koo"),
            "{tail}"
        );
        let listed = people[0].host.call("lcgroup members team")?.stdout;
        ensure!(names.iter().all(|name| listed.contains(name)), "{listed}");
        ensure!(!listed.contains("12D3Koo"), "{listed}");
        let json = people[0].ask(&["members", "team"])?.to_string();
        ensure!(
            json.contains("12D3Koo") && names.iter().all(|name| json.contains(name)),
            "{json}"
        );
        // each Ann is one that her own host shows with the same words
        let words = |who: usize, of: &[&str]| -> Result<String> {
            let answer = people[who].ask(&[&["verify", "team"], of].concat())?;
            Ok(answer["words"].to_string())
        };
        let own = [words(0, &[])?, words(1, &[])?, words(2, &[])?];
        ensure!(
            own[0] != own[1] && own[1] != own[2] && own[1].split(' ').count() == 8,
            "{own:?}"
        );
        ensure!(words(0, &[names[1]])? == own[1] && words(3, &[names[2]])? == own[2]);
        // words that were told are compared, and a contact of the address book is the member
        let told = own[1].trim_matches('"').to_uppercase();
        let compare = |words: &str| {
            let args = ["verify", "team", names[1], words];
            people[0].host.run("lcgroup", &args)
        };
        let same = compare(&told)?;
        ensure!(
            same.code == 0 && same.stdout.contains("the same words"),
            "{same:?}"
        );
        let other = compare(own[2].trim_matches('"'))?;
        other.fails(1, "somebody else")?;
        let key = people[0].ask(&["verify", "team", names[1]])?;
        let key = key["author"].as_str().context("key")?.to_owned();
        people[0]
            .host
            .call(&format!("lcroute book add mum {key}"))?;
        let by_book = people[0].ask(&["verify", "team", "book:mum"])?;
        ensure!(
            by_book["words"] == own[1].trim_matches('"') && by_book["book"] == "mum",
            "{by_book}"
        );
        people[0].fails(&["verify", "team", "Ann"], 2, "marks")?;
        // the shown name identifies one of them
        people[0].fails(&["remove", "team", "Ann"], 2, "marks")?;
        people[0]
            .run(&["remove", "team", names[1], "--tell"])?
            .success()?;
        eventually("the other ann is gone", || people[1].is("removed"))?;
        for blank in [" ", "\u{200b}", "\u{3164}"] {
            people[1].fails(&["create", "other", "--as", blank], 2, "")?;
        }
        Ok(())
    });
}

#[test]
fn what_a_full_disk_refused_is_not_sent_later() {
    world("groups-full-disk", |lab| {
        let mut people = people(lab, &["ann", "bob"])?;
        people[0].ask(&["create", "team", "--as", "ann"])?;
        people[1].daemon()?.stop()?;
        let folder = people[1].folder().display().to_string();
        let mount = ["-t", "tmpfs", "-o", "size=600k,mode=700", "none", &folder];
        people[1].host.run("mount", &mount)?.success()?;
        people[1].start()?;
        people[1].join(&invitation(&people[0], "1")?)?;
        eventually("bob is a member", || people[1].is("member"))?;
        people[1].say("before")?;
        eventually("ann reads it", || people[0].has("before"))?;
        let fill = format!("cat /dev/zero > {folder}/filler || true");
        people[1].host.sh(&fill)?.success()?;
        let mut refused = Vec::new();
        for n in 0..6 {
            let words = format!("{n} on a full disk {}", "x".repeat(5_000));
            let sent = people[1].run(&["send", "team", &words])?;
            match sent.code {
                0 => {}
                _ => {
                    sent.says("nothing was done")?;
                    refused.push(words);
                }
            }
        }
        ensure!(!refused.is_empty(), "the disk took all");
        people[1].fails(&["create", "other", "--as", "bob"], 1, "")?;
        people[1].daemon()?.kill()?;
        fs::remove_file(people[1].folder().join("filler"))?;
        people[1].start()?;
        people[1].say("after")?;
        eventually("ann reads it", || people[0].has("after"))?;
        for person in &people {
            for words in &refused {
                ensure!(
                    person.has(words).is_err(),
                    "{} has {}",
                    person.name,
                    &words[..20]
                );
            }
        }
        // the refused request blocks nothing
        people[1].ask(&["create", "other", "--as", "bob"])?;
        Ok(())
    });
}

#[test]
fn a_removed_member_is_not_told_and_sees_a_group_in_which_nobody_writes() {
    world("groups-quiet", |lab| {
        let hosts = lab.lan(&["ann", "bob", "cy"])?.into_iter();
        let mut people = Person::all(hosts, "lan0")?;
        people[0].ask(&["create", "team", "--as", "ann"])?;
        let line = invitation(&people[0], "2")?;
        for person in &people[1..] {
            person.join(&line)?;
            eventually("they are members", || person.is("member"))?;
        }
        people[2].say("hello")?;
        eventually("ann reads it", || people[0].has("hello"))?;
        // without own messages, and notices, which end with a restart
        let seen = |cy: &Person| -> Result<Value> {
            let mut status = cy.status()?;
            let fields = status.as_object_mut().context("a status")?;
            fields.retain(|key, _| !["log", "messages", "notices", "read"].contains(&key.as_str()));
            Ok(json!([status, cy.run(&["members", "team"])?.stdout]))
        };
        becomes(3, || Ok(people[2].status()?["members"].clone()))?;
        let before = seen(&people[2])?;
        people[0].ask(&["remove", "team", "cy"])?;
        becomes(2, || Ok(people[1].status()?["members"].clone()))?;
        people[1].say("without cy")?;
        eventually("ann reads it", || people[0].has("without cy"))?;
        for restarts in [false, true] {
            if restarts {
                people[2].daemon()?.kill()?;
                people[2].start()?;
            }
            people[2].say("is anybody there?")?;
            eventually("cy's own message is shown", || {
                people[2].has("is anybody there?")
            })?;
            becomes(before.clone(), || seen(&people[2]))?;
            ensure!(people[2].has("without cy").is_err(), "cy reads on");
        }
        ensure!(people[0].has("is anybody there?").is_err());
        // leaving ends that
        people[2].ask(&["leave", "team"])?;
        eventually("cy has left", || people[2].is("removed"))
    });
}
