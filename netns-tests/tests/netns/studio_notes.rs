//! Notes of a lecture on hosts: files that any editor writes, equal everywhere, also after a time without a network.

use std::fs;
use std::io::Write;
use std::path::PathBuf;

use anyhow::{Result, ensure};
use lcroute_lab::lab::{DEADLINE, Host, Process, eventually};
use nix::sys::signal::Signal;

use crate::studio::{Typed, session};
use crate::world;

/// A host with a file of the notes.
pub(crate) struct NotesFile<'a> {
    host: &'a Host,
    lcs: &'a str,
    interface: &'a str,
    pub path: PathBuf,
    pub process: Process,
}

impl<'a> NotesFile<'a> {
    pub fn start(host: &'a Host, lcs: &'a str, interface: &'a str) -> Result<Self> {
        let path = host.path("notes.md");
        let process = Self::run(host, lcs, interface)?;
        Ok(Self {
            host,
            lcs,
            interface,
            path,
            process,
        })
    }

    fn run(host: &Host, lcs: &str, interface: &str) -> Result<Process> {
        let [file, state] =
            ["notes.md", "notes-state"].map(|name| host.path(name).display().to_string());
        let args = [
            "--json",
            "notes",
            lcs,
            &file,
            "--state-dir",
            &state,
            "-i",
            interface,
        ];
        host.spawn("lcstudio", &args)
    }

    /// Kills it, and starts it again.
    pub fn kill(&mut self) -> Result<()> {
        self.process.kill()?;
        self.process = Self::run(self.host, self.lcs, self.interface)?;
        Ok(())
    }

    pub fn read(&self) -> Result<String> {
        Ok(fs::read_to_string(&self.path)?)
    }

    pub fn until(&self, text: &str) -> Result<()> {
        eventually("the file has the notes", || {
            let there = self.read()?;
            ensure!(
                there == text,
                "{there}\n{}{}",
                self.process.stdout(),
                self.process.stderr()
            );
            Ok(())
        })
    }

    /// Waits until this was said.
    fn until_said(&self, words: &str) -> Result<()> {
        eventually(words, || {
            let said = self.process.stdout();
            ensure!(said.contains(words), "{said}{}", self.process.stderr());
            Ok(())
        })
    }

    /// Waits until what was saved is on disk and in nobody's hands: drafts, or entries.
    pub fn until_kept(&self, words: &str) -> Result<()> {
        eventually("what was saved is on disk", || {
            let mut found = false;
            for folder in fs::read_dir(self.host.path("notes-state"))? {
                for name in ["drafts", "log"] {
                    let bytes = fs::read(
                        folder
                            .as_ref()
                            .map_err(|e| anyhow::anyhow!("{e}"))?
                            .path()
                            .join(name),
                    )?;
                    found |= bytes
                        .windows(words.len())
                        .any(|part| part == words.as_bytes());
                }
            }
            ensure!(found, "{words} is not there: {}", self.process.stderr());
            Ok(())
        })
    }
}

/// Somebody presents on this host, and lets all write notes.
pub(crate) fn present_notes(host: &Host, interface: &str) -> Result<(Typed, String)> {
    let (folder, key, lcs) = session(host, None)?;
    let settings = folder.join("session.toml");
    let written = fs::read_to_string(&settings)?;
    fs::write(&settings, written.replace("notes = false", "notes = true"))?;
    let folder = folder.display();
    let command = format!("lcstudio --json present {folder} --key {key} -i {interface}");
    Ok((Typed::start(host, "present", &command)?, lcs))
}

#[test]
fn two_hosts_write_one_text_also_without_a_network() {
    world("studio-notes", |lab| {
        let hosts = lab.lan(&["stage", "one", "two"])?;
        let [stage, one, two] = &hosts[..] else {
            anyhow::bail!("three hosts");
        };
        let (_presenter, lcs) = present_notes(stage, "lan0")?;
        let mut one = NotesFile::start(one, &lcs, "lan0")?;
        let two = NotesFile::start(two, &lcs, "lan0")?;
        eventually("both have a file", || {
            ensure!(one.read()?.is_empty() && two.read()?.is_empty());
            Ok(())
        })?;
        fs::write(&one.path, "Bees dance.\nThey fly.\n")?;
        two.until("Bees dance.\nThey fly.\n")?;
        // nobody reaches anybody
        for host in &hosts {
            host.cut("lan0")?;
        }
        fs::write(&one.path, "# Notes of one\nBees dance.\nThey fly.\n")?;
        fs::write(&two.path, "Bees dance.\nThey fly far. 🐝\n")?;
        one.until_kept("# Notes of one")?;
        two.until_kept(" far")?;
        // between the save and the others
        one.kill()?;
        fs::OpenOptions::new()
            .append(true)
            .open(&one.path)?
            .write_all(b"And one more.\n")?;
        one.until_kept("And one more.")?;
        for host in &hosts {
            host.heal("lan0")?;
        }
        let text = "# Notes of one\nBees dance.\nThey fly far. 🐝\nAnd one more.\n";
        two.until(text)?;
        one.until(text)
    });
}

#[test]
fn a_file_that_cannot_be_notes_stays_and_what_waits_for_a_grant_is_kept() {
    world("studio-notes-file", |lab| {
        let hosts = lab.lan(&["stage", "one", "two"])?;
        let [stage, one, two] = &hosts[..] else {
            anyhow::bail!("three hosts");
        };
        // a file of something else
        let (mut presenter, lcs) = present_notes(stage, "lan0")?;
        let theirs = two.write("other.md", "not of these notes\n")?;
        let mut host = NotesFile::start(one, &lcs, "lan0")?;
        eventually("it has a file", || host.read().map(drop))?;
        fs::write(&host.path, "of all\n")?;
        host.until_kept("of all")?;
        let (path, state) = (
            theirs.display().to_string(),
            two.path("notes-state").display().to_string(),
        );
        let refused = two.run(
            "lcstudio",
            &["notes", &lcs, &path, "--state-dir", &state, "-i", "lan0"],
        )?;
        ensure!(
            refused.code == 1 && refused.stderr.contains("not of these notes"),
            "{refused:?}"
        );
        ensure!(fs::read_to_string(&theirs)? == "not of these notes\n");
        // one state, one program
        let state = one.path("notes-state").display().to_string();
        let again = one.run(
            "lcstudio",
            &["notes", &lcs, &path, "--state-dir", &state, "-i", "lan0"],
        )?;
        ensure!(
            again.code == 1 && again.stderr.contains("used by another lcstudio"),
            "{again:?}"
        );
        // a host that holds gives what there is; nobody grants
        let kept = stage.path("kept").display().to_string();
        let _holder = stage.spawn(
            "lcstudio",
            &["hold", &lcs, &kept, "--no-sound", "-i", "lan0"],
        )?;
        eventually("all is held", || {
            let held = fs::read(stage.path("kept/log/notes"))?;
            ensure!(held.windows(6).any(|part| part == b"of all"));
            Ok(())
        })?;
        presenter.types("q")?;
        ensure!(
            presenter.process.wait(DEADLINE)? == 0,
            "{}",
            presenter.process.stderr()
        );
        let late = NotesFile::start(two, &lcs, "lan0")?;
        late.until("of all\n")?;
        fs::write(&late.path, "of all\nand of who is late\n")?;
        late.until_said("\"waits\"")?;
        late.until_kept("and of who is late")?;
        // what no text is stays, and the notes do not change by it
        fs::write(&host.path, b"\xff\xfe")?;
        host.until_said("it is not UTF-8")?;
        ensure!(fs::read(&host.path)? == b"\xff\xfe");
        fs::write(&host.path, "of all, still\n")?;
        late.until("of all, still\nand of who is late\n")?;
        // gone
        fs::remove_file(&host.path)?;
        host.until("of all, still\n")?;
        host.process.signal(Signal::SIGTERM)?;
        ensure!(
            host.process.wait(DEADLINE)? == 143,
            "{}",
            host.process.stderr()
        );
        Ok(())
    });
}
