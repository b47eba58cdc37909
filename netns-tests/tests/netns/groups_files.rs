//! Files of private groups: they wait at mailboxes and members while their senders are away.

use crate::groups::{Person, contents, holding_key, holds, invitation};
use crate::prelude::*;

const MIB: usize = 1 << 20;

/// Starts people on one LAN. The first owns the group, the last holds it, the rest are members.
fn people(lab: &Lab, names: &[&str], space: &str) -> Result<Vec<Person>> {
    let hosts = lab.lan(names)?.into_iter();
    let people = Person::all(hosts, "lan0")?;
    let (holder, members) = people.split_last().context("nobody")?;
    members[0].ask(&["create", "team", "--as", "ann"])?;
    let line = invitation(&members[0], "9")?;
    let key = holding_key(&members[0])?;
    holder.ask(&["hold", &key, "team", "--space", space])?;
    for person in &members[1..] {
        person.join(&line)?;
        eventually("they are members", || person.is("member"))?;
    }
    Ok(people)
}

impl Person {
    fn send_file(&self, name: &str, bytes: &[u8]) -> Result<Value> {
        let path = self.host.write(name, bytes)?.display().to_string();
        self.ask(&["send", "team", "--file", &path])
    }

    fn get(&self, args: &[&str]) -> Result<Output> {
        self.host.run("lcgroup", &[&["get", "team"], args].concat())
    }

    fn begin_to_get(&self, args: &[&str]) -> Result<Process> {
        self.host
            .spawn("lcgroup", &[&["get", "team"], args].concat())
    }

    /// Whether it has read the message of a file.
    fn has_file(&self, name: &str) -> Result<()> {
        let said = self.said()?;
        let has = said.iter().any(|message| message["file"]["name"] == name);
        holds!(has, "{}: {said:?}", self.name)
    }

    fn holds_files(&self, files: u64) -> Result<()> {
        let held = self.ask(&["status"])?["held"][0]["files"].clone();
        holds!(held["files"] == files && held["missing"] == 0, "{held}")
    }

    /// The sealed files on its disk.
    fn sealed(&self, kind: &str) -> Result<Vec<PathBuf>> {
        let folder = self.folder().join(kind).join("team/files");
        let mut all = Vec::new();
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.file_name().is_some_and(|name| name.len() == 64) {
                all.push(path);
            }
        }
        all.sort();
        Ok(all)
    }

    fn kill(&mut self) -> Result<()> {
        self.daemon()?.kill()
    }
}

#[test]
fn a_file_waits_at_a_mailbox_that_cannot_read_it_while_its_sender_is_away() {
    world("groups-file-waits", |lab| {
        let mut people = people(lab, &["ann", "bob", "cy", "box"], "64Mi")?;
        people[2].daemon()?.stop()?;
        let mut plan = noise(1, 20 * MIB);
        let mark = b"meet at the old mill, by the river".repeat(20);
        plan.splice(..mark.len(), mark.iter().copied());
        people[1].send_file("plan.bin", &plan)?;
        eventually("the mailbox has it", || people[3].holds_files(1))?;
        // nobody who has read it is there any more
        people[1].kill()?;
        people[0].kill()?;
        people[2].start()?;
        eventually("cy reads the message", || people[2].has_file("plan.bin"))?;
        people[2]
            .get(&["plan.bin"])?
            .success()?
            .prints("plan.bin (21.0 MB) of bob")?;
        let dest = people[2].host.path("plan.bin");
        ensure!(fs::read(&dest)? == plan, "another content");
        let seen = contents(&people[3].folder())?;
        ensure!(
            seen.len() > plan.len() && !holds(&seen, "the old mill"),
            "the mailbox reads it"
        );
        // nothing is replaced unasked
        fs::write(&dest, b"mine")?;
        people[2].get(&["plan.bin"])?.fails(1, "--overwrite")?;
        ensure!(fs::read(&dest)? == b"mine");
        people[2].get(&["plan.bin", "--overwrite"])?.success()?;
        ensure!(fs::read(&dest)? == plan, "another content");
        // the mailbox goes, too: whoever has fetched it has it for others
        people[3].kill()?;
        people[0].start()?;
        people[0].get(&["1", "copy"])?.success()?;
        holds!(fs::read(people[0].host.path("copy"))? == plan)
    });
}

#[test]
fn files_have_names_lengths_and_numbers_that_mislead_nobody() {
    world("groups-file-names", |lab| {
        let [ann, bob, holder] = &crate::all(people(lab, &["ann", "bob", "box"], "64Mi")?)?;
        let long = ann.host.path("long");
        fs::File::create(&long)?.set_len(65 << 20)?;
        let long = long.display().to_string();
        let refused = ann.run(&["send", "team", "--file", &long])?;
        ensure!(
            refused.code == 2
                && refused.stderr.contains("at most 67.1 MB")
                && refused.stderr.contains("lcsync share"),
            "{refused:?}"
        );
        bob.get(&[])?.fails(3, "nobody in team sent a file")?;
        for (person, bytes) in [(ann, b"of ann"), (bob, b"of bob")] {
            person.send_file("notes", bytes)?;
        }
        ann.send_file(".profile", b"touch it")?;
        ann.send_file("empty", b"")?;
        for name in ["notes", ".profile", "empty"] {
            eventually("bob has the messages", || bob.has_file(name))?;
        }
        eventually("the mailbox has all", || holder.holds_files(4))?;
        let said = bob.said()?;
        let number = |name: &str, author: &str| -> Result<String> {
            let is_meant = |m: &&Value| m["file"]["name"] == name && m["name"] == author;
            let message = said.iter().find(is_meant).context("no message")?;
            Ok(message["n"].to_string())
        };
        bob.get(&["notes"])?.fails(2, "2 files are called")?;
        for (author, bytes) in [("ann", b"of ann"), ("bob", b"of bob")] {
            let got = bob.get(&[&number("notes", author)?, "-"])?.success()?;
            ensure!(got.stdout.as_bytes() == bytes, "{got:?}");
        }
        bob.get(&[".profile"])?.fails(2, "name it in DEST")?;
        bob.get(&[".profile", "profile"])?.success()?;
        ensure!(fs::read(bob.host.path("profile"))? == b"touch it");
        bob.get(&["empty"])?.success()?;
        ensure!(fs::read(bob.host.path("empty"))?.is_empty());
        let shown = bob.host.call("lcgroup tail team")?.stdout;
        let number = number("empty", "ann")?;
        ensure!(
            shown.contains(&format!(
                "ann: sends empty (0 B): lcgroup get team {number}"
            )),
            "{shown}"
        );
        // of nobody: an unknown name, a file that nobody has any more
        let unknown = bob.get(&["x"])?;
        unknown.exits(3)
    });
}

/// Damages a sealed file on a disk.
fn damage(path: &Path) -> Result<()> {
    let mut bytes = fs::read(path)?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    Ok(fs::write(path, bytes)?)
}

#[test]
#[ignore = "long: `make test-all`"]
fn a_mailbox_that_lies_serves_nobody_and_an_honest_one_is_found() {
    world("groups-file-lies", |lab| {
        let mut people = people(lab, &["ann", "bob", "cy", "liar", "box"], "64Mi")?;
        // the liar is a mailbox, too
        let key = holding_key(&people[0])?;
        people[3].ask(&["leave", "--forget", "team"])?;
        people[3].ask(&["hold", &key, "team"])?;
        let plan = noise(2, 3 * MIB);
        people[1].send_file("plan.bin", &plan)?;
        for at in [3, 4] {
            eventually("mailboxes have it", || people[at].holds_files(1))?;
        }
        eventually("cy reads the message", || people[2].has_file("plan.bin"))?;
        for at in [0, 1, 4] {
            people[at].kill()?;
        }
        // other bytes under the file's name, served by a program that believes them
        let sealed = people[3].sealed("held")?.pop().context("no file")?;
        people[3].daemon()?.stop()?;
        let folder = sealed.parent().context("no folder")?;
        let name = sealed
            .file_name()
            .context("no name")?
            .to_string_lossy()
            .into_owned();
        damage(&sealed)?;
        let (key, path) = (folder.join("key"), sealed.display().to_string());
        let key = key.display().to_string();
        let share = format!("share -i lan0 --name {name} --keyfile {key} {path}");
        let share = crate::words(&share);
        let mut liar = people[3].host.spawn("lcsync", &share)?;
        let lied = people[2].get(&["plan.bin", "--timeout", "8s"])?;
        ensure!(
            lied.code == 3 && !people[2].host.path("plan.bin").exists(),
            "{lied:?}"
        );
        liar.must_run()?;
        let mut gets = people[2].begin_to_get(&["plan.bin"])?;
        people[4].start()?;
        gets.expect_exit(Duration::from_secs(60), 0)?;
        ensure!(fs::read(people[2].host.path("plan.bin"))? == plan);
        liar.stop()?;
        // a mailbox whose disk has changed its copy replaces it, and serves the right one
        people[3].start()?;
        eventually("the copy is whole again", || {
            let (own, good) = (fs::read(&sealed)?, fs::read(&people[4].sealed("held")?[0])?);
            holds!(own == good, "the copy is damaged")
        })
    });
}

#[test]
#[ignore = "long: `make test-all`"]
fn full_disks_and_kills_cost_no_file() {
    world("groups-file-disks", |lab| {
        let mut people = people(lab, &["ann", "bob", "cy", "box"], "200Mi")?;
        // the mailbox has no room
        people[3].daemon()?.stop()?;
        let folder = people[3].folder().join("held/team/files");
        fs::create_dir_all(&folder)?;
        let folder = folder.display().to_string();
        let mount = ["-t", "tmpfs", "-o", "size=24m,mode=700", "none", &folder];
        people[3].host.run("mount", &mount)?.success()?;
        people[3].start()?;
        people[2].daemon()?.stop()?;
        let plan = noise(3, 20 * MIB);
        people[1].send_file("plan.bin", &plan)?;
        eventually("the mailbox says why it has nothing", || {
            let status = people[3].run(&["status"])?.stdout;
            holds!(status.contains("has no room for it"), "{status}")
        })?;
        people[3]
            .host
            .call(&format!("mount -o remount,size=80m {folder}"))?;
        eventually("it has it once there is room", || people[3].holds_files(1))?;
        // its fetch is killed half way, and so is that of a member: both go on
        people[1].kill()?;
        people[2].start()?;
        eventually("cy reads the message", || people[2].has_file("plan.bin"))?;
        let mut gets = people[2].begin_to_get(&["plan.bin"])?;
        let incoming = people[2].folder().join("groups/team/files/incoming");
        exceeds(MIB, || Ok(contents(&incoming)?.len()))?;
        people[2].kill()?;
        gets.kill()?;
        ensure!(!people[2].host.path("plan.bin").exists());
        let left = fs::read_dir(people[2].host.path("."))?.filter_map(Result::ok);
        let left: Vec<_> = left.map(|entry| entry.file_name()).collect();
        ensure!(
            !left
                .iter()
                .any(|name| name.to_string_lossy().starts_with(".lcgroup-get")),
            "{left:?}"
        );
        people[2].start()?;
        people[2].get(&["plan.bin"])?.success()?;
        ensure!(fs::read(people[2].host.path("plan.bin"))? == plan);
        // no room for the user
        let full = people[2].host.path("full");
        fs::create_dir(&full)?;
        let full = full.display().to_string();
        let mount = ["-t", "tmpfs", "-o", "size=8m", "none", &full];
        people[2].host.run("mount", &mount)?.success()?;
        people[2]
            .get(&["plan.bin", &full])?
            .fails(1, "No space left")?;
        ensure!(fs::read_dir(&full)?.next().is_none(), "half a file");
        people[2].host.run("umount", &[&full])?.success()?;
        Ok(())
    });
}

#[test]
#[ignore = "long: `make test-all`"]
fn one_member_displaces_its_own_files_alone_and_a_removed_one_opens_no_later_file() {
    world("groups-file-space", |lab| {
        let people = people(lab, &["ann", "bob", "cy", "box"], "8Mi")?;
        people[0].send_file("small", &noise(4, MIB))?;
        eventually("the mailbox has it", || people[3].holds_files(1))?;
        for n in 0..6 {
            people[1].send_file(&format!("flood{n}"), &noise(5 + n, 2 * MIB))?;
        }
        eventually("the mailbox is full, and has ann's", || {
            let held = people[3].ask(&["status"])?["held"][0]["files"].clone();
            let bytes = held["bytes"].as_u64().context("bytes")?;
            holds!(
                held["files"] == 4 && held["missing"] == 0 && bytes < 8 << 20,
                "{held}"
            )
        })?;
        let ann = people[0].sealed("groups")?.pop().context("ann's")?;
        let kept = people[3].sealed("held")?;
        ensure!(
            kept.iter().any(|path| path.file_name() == ann.file_name()),
            "{kept:?}"
        );
        people[0].ask(&["remove", "team", "cy", "--tell"])?;
        eventually("cy hears that", || people[2].is("removed"))?;
        people[0].send_file("secret", b"without cy")?;
        eventually("bob has it", || people[1].has_file("secret"))?;
        let removed = people[2].get(&["secret"])?;
        removed.exits(3)
    });
}
