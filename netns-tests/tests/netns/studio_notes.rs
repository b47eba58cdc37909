//! Notes of a lecture on hosts: files for any editor, equal on all hosts, also after a partition.

use std::io::Write;
use std::net::IpAddr;

use lcstudio_core::{NotesWriting, Place, Reading, Session, TrackName, TrackPlace, View};
use librecast_log::Role;
use librecast_log_host::{KeptLog, Network};

use crate::prelude::*;
use crate::studio::{Typed, session, turn_on};

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
        let arguments = Self::arguments(host, "notes.md", lcs, interface);
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        host.spawn("lcstudio", &arguments)
    }

    fn arguments(host: &Host, file: &str, lcs: &str, interface: &str) -> Vec<String> {
        let [file, state] = [file, "notes-state"].map(|name| host.path(name).display().to_string());
        let arguments = ["--json", "notes", lcs, &file, "--state-dir", &state, "-i"];
        let arguments = arguments.into_iter().chain([interface]);
        arguments.map(str::to_owned).collect()
    }

    /// Kills and restarts it.
    pub fn kill(&mut self) -> Result<()> {
        self.process.kill()?;
        self.process = Self::run(self.host, self.lcs, self.interface)?;
        Ok(())
    }

    pub fn read(&self) -> Result<String> {
        Ok(fs::read_to_string(&self.path)?)
    }

    pub fn until(&self, text: &str) -> Result<()> {
        becomes(text, || self.read())
    }

    /// Waits until it has printed these words.
    pub fn until_said(&self, words: &str) -> Result<()> {
        self.process.prints(words)
    }

    /// Waits until the saved text is on disk, as a draft or an entry.
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
            holds!(found, "{words} is not there: {}", self.process.stderr())
        })
    }
}

/// Presents on this host, and permits all to write notes.
pub(crate) fn present_notes(host: &Host, interface: &str) -> Result<(Typed, String)> {
    let (folder, key, lcs) = session(host, None)?;
    turn_on(&folder, "notes")?;
    let folder = folder.display();
    let command = format!("lcstudio --json present {folder} --key {key} -i {interface}");
    Ok((Typed::start(host, "present", &command)?, lcs))
}

#[test]
fn two_hosts_write_one_text_also_without_a_network() {
    world("studio-notes", |lab| {
        let hosts = lab.lan(&["stage", "one", "two"])?;
        let [stage, one, two] = crate::each(&hosts)?;
        let (_presenter, lcs) = present_notes(stage, "lan0")?;
        let mut one = NotesFile::start(one, &lcs, "lan0")?;
        let two = NotesFile::start(two, &lcs, "lan0")?;
        eventually("both have a file", || {
            holds!(one.read()?.is_empty() && two.read()?.is_empty())
        })?;
        fs::write(&one.path, "Bees dance.\nThey fly.\n")?;
        two.until("Bees dance.\nThey fly.\n")?;
        // all hosts are cut off
        for host in &hosts {
            host.cut("lan0")?;
        }
        fs::write(&one.path, "# Notes of one\nBees dance.\nThey fly.\n")?;
        fs::write(&two.path, "Bees dance.\nThey fly far. 🐝\n")?;
        one.until_kept("# Notes of one")?;
        two.until_kept(" far")?;
        // between the save and the network
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
        one.until(text)?;
        // the same words of one line: both have both, marked, until somebody chooses
        for host in &hosts {
            host.cut("lan0")?;
        }
        let [flowers, honey] = ["Bees visit flowers.", "All eat the honey."];
        fs::write(&one.path, text.replace("Bees dance.", flowers))?;
        fs::write(&two.path, text.replace("Bees dance.", honey))?;
        one.until_kept("visit flowers")?;
        two.until_kept("eat the honey")?;
        for host in &hosts {
            host.heal("lan0")?;
        }
        eventually("both have both lines", || {
            let there = [one.read()?, two.read()?];
            let line = |n| there[0].lines().nth(n).unwrap_or_default();
            let has = |line: &str, n, words| {
                line.starts_with(&format!("[{n} of 2, by ")) && line.ends_with(words)
            };
            let is_marked = has(line(1), 1, flowers) && has(line(2), 2, honey)
                || has(line(1), 1, honey) && has(line(2), 2, flowers);
            ensure!(there[0] == there[1] && is_marked, "{there:?}");
            holds!(
                there[0].ends_with("They fly far. 🐝\nAnd one more.\n"),
                "{there:?}"
            )
        })?;
        // what he had himself may be of an editor that has not loaded the marks: once it counts for
        // nothing
        let (marked, own) = (one.read()?, text.replace("Bees dance.", flowers));
        for _ in 0..2 {
            one.until(&marked)?;
            fs::write(&one.path, &own)?;
        }
        two.until(&own)?;
        one.until(&own)
    });
}

#[test]
fn a_file_that_cannot_be_notes_stays_and_what_waits_for_a_grant_is_kept() {
    world("studio-notes-file", |lab| {
        let [stage, one, two] = &crate::all(lab.lan(&["stage", "one", "two"])?)?;
        // a foreign file
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
        two.run(
            "lcstudio",
            &["notes", &lcs, &path, "--state-dir", &state, "-i", "lan0"],
        )?
        .fails(1, "not of these notes")?;
        ensure!(fs::read_to_string(&theirs)? == "not of these notes\n");
        // one program per state
        let state = one.path("notes-state").display().to_string();
        one.run(
            "lcstudio",
            &["notes", &lcs, &path, "--state-dir", &state, "-i", "lan0"],
        )?
        .fails(1, "used by another lcstudio")?;
        // a holder supplies all entries; grants are impossible
        let kept = stage.path("kept").display().to_string();
        let _holder = stage.spawn(
            "lcstudio",
            &["hold", &lcs, &kept, "--no-sound", "-i", "lan0"],
        )?;
        eventually("all is held", || {
            let held = fs::read(stage.path("kept/log/notes"))?;
            holds!(held.windows(6).any(|part| part == b"of all"))
        })?;
        presenter.types("q")?;
        presenter.process.expect_exit(DEADLINE, 0)?;
        let late = NotesFile::start(two, &lcs, "lan0")?;
        late.until("of all\n")?;
        fs::write(&late.path, "of all\nand of who is late\n")?;
        late.until_said("\"waits\"")?;
        late.until_kept("and of who is late")?;
        // invalid text stays in the file, without effect on the notes
        fs::write(&host.path, b"\xff\xfe")?;
        host.until_said("it is not UTF-8")?;
        ensure!(fs::read(&host.path)? == b"\xff\xfe");
        fs::write(&host.path, "of all, still\n")?;
        late.until("of all, still\nand of who is late\n")?;
        // removed
        fs::remove_file(&host.path)?;
        host.until("of all, still\n")?;
        host.process.signal(Signal::SIGTERM)?;
        host.process.expect_exit(DEADLINE, 143)
    });
}

/// Updates as pages write them: a title, and a text. Then updates with valid checksums that no
/// document produces: one makes Loro request 17 GB, the other makes it panic.
const OF_A_PAGE: &str = "6c6f726f000000000000000000000000f1b0628d000457001700170110014d000000000000000101000000000005010000010006\
    01040102000006056e6f746573000e0104020100020100020105020117001b1a23204e6f7465730a0a4265657320f09f909d2064616e63652e0a";
const HARMFUL: [&str; 2] = [
    "6c6f726f0000000000000000000000000eb6015b00045b00170017ffffffff0f10014d0000000000000001010000000000050100000100060104010200\
     0006056e6f746573000e0104020100020100020105020117001b1a23204e6f7465730a0a4265657320f09f909d2064616e63652e0a",
    "6c6f726f000000000000000000000000fa915cb0000447170217020111010000000000000000010100000000000501000001000601040102000006056e\
     6f746573000e01040201000201000201090201020b010302010002010002010400",
];

fn bytes(hex: &str) -> Result<Vec<u8>> {
    let digits = hex.as_bytes().chunks(2).map(std::str::from_utf8);
    digits
        .map(|two| Ok(u8::from_str_radix(two?, 16)?))
        .collect()
}

/// A member with a key of its own, which writes anything into notes.
struct Author {
    network: Network,
    index: KeptLog,
    notes: Option<KeptLog>,
    session: Session,
    key: SecretKey,
}

impl Author {
    /// Appends bodies until other members have them; to be called in its host's namespace.
    fn write(lcs: &str, seed: u8, bodies: &[Vec<u8>]) -> Result<()> {
        let now = Instant::now();
        let session = Session::decode(lcs)?;
        let index = KeptLog::open(session.index(), Role::Member, Vec::new(), None, now)?;
        let mut network = Network::open(&["lan0".to_owned()], now)?;
        network.join(index.address());
        let mut author = Self {
            network,
            index,
            notes: None,
            session,
            key: SecretKey::from_seed(&[seed; 32]),
        };
        author.join()?;
        let mut writing = NotesWriting::new(author.key.peer_id());
        for (id, body) in (1..).zip(bodies) {
            ensure!(writing.write(id, body.clone()).is_ok(), "it does not fit");
        }
        let mut last = None;
        eventually("all is appended, and was repeated", || {
            let now = Instant::now();
            let notes = author.notes.as_mut().context("joined before")?;
            writing.handle_timeout(notes.log_mut(), UnixTime::now(), now);
            author.turn()?;
            ensure!(writing.waiting() == 0, "{:?}", writing.failed());
            let since = last.get_or_insert(now);
            holds!(now.duration_since(*since) > Duration::from_millis(1_300))
        })
    }

    fn join(&mut self) -> Result<()> {
        let (mut view, mut reading) = (View::default(), Reading::default());
        let mut owner = None;
        eventually("it is known where the notes are", || {
            self.turn()?;
            for new in reading.new_entries(&Place::Index, self.index.log()) {
                view.read(&new.place, new.by_owner, &new.entry);
            }
            match view.index().place(&TrackName::Notes) {
                Some(TrackPlace::Space(key)) => owner = Some(*key),
                other => bail!("{other:?}"),
            }
            Ok(())
        })?;
        let space = self.session.space(owner.context("found before")?);
        let key = SecretKey::from_seed(&self.key.seed());
        let notes = KeptLog::open(space, Role::Member, vec![key], None, Instant::now())?;
        self.network.join(notes.address());
        self.notes = Some(notes);
        Ok(())
    }

    fn turn(&mut self) -> Result<()> {
        let (time, now) = (UnixTime::now(), Instant::now());
        let Self {
            network,
            index,
            notes,
            ..
        } = self;
        network.receive(|group, source, bytes| {
            let source = IpAddr::from(source);
            let logs = [&mut *index].into_iter().chain(notes.as_mut());
            for log in logs.map(KeptLog::log_mut) {
                log.handle_datagram(group, source, bytes, time, now);
            }
        })?;
        for log in [index].into_iter().chain(notes) {
            log.turn(time, now)?;
            for (group, bytes) in log.take_transmits() {
                network.send(group, &bytes);
            }
        }
        Ok(())
    }
}

#[test]
fn an_update_that_wants_all_memory_ends_the_document_and_the_text_of_others_goes_on() {
    world("studio-notes-harm", |lab| {
        let [stage, one, two, bad] = &crate::all(lab.lan(&["stage", "one", "two", "bad"])?)?;
        let (_presenter, lcs) = present_notes(stage, "lan0")?;
        let one = NotesFile::start(one, &lcs, "lan0")?;
        eventually("it has a file", || one.read().map(drop))?;
        fs::write(&one.path, "of one\n")?;
        one.until_kept("of one")?;
        let honest = bytes(OF_A_PAGE)?;
        for (seed, harm) in (1..).zip(HARMFUL) {
            let bodies = match seed {
                // its earlier text stays
                1 => vec![honest.clone(), bytes(harm)?],
                _ => vec![bytes(harm)?],
            };
            bad.namespace().run(|| Author::write(&lcs, seed, &bodies))?;
        }
        for number in [2, 1] {
            one.until_said(&format!(
                r#""number":{number},"why":"its process has ended""#
            ))?;
        }
        let both = ["of one\n", "# Notes\n\nBees 🐝 dance.\n"];
        eventually("both texts are there", || {
            let text = one.read()?;
            holds!(both.iter().all(|part| text.contains(part)), "{text}")
        })?;
        // a later attender gets the same updates, and the rest continues
        let two = NotesFile::start(two, &lcs, "lan0")?;
        two.until(&one.read()?)?;
        fs::write(&one.path, format!("{}and more\n", one.read()?))?;
        two.until(&one.read()?)?;
        holds!(two.read()?.ends_with("and more\n"), "{}", two.read()?)
    });
}

#[test]
fn a_folder_that_cannot_be_written_is_said_and_nothing_is_lost() {
    world("studio-notes-read-only", |lab| {
        let [stage, one, two] = &crate::all(lab.lan(&["stage", "one", "two"])?)?;
        let (_presenter, lcs) = present_notes(stage, "lan0")?;
        let two = NotesFile::start(two, &lcs, "lan0")?;
        eventually("it has a file", || two.read().map(drop))?;
        let path = one.write("docs/notes.md", "")?;
        // the file is writable, and nothing beside it
        let arguments = NotesFile::arguments(one, "docs/notes.md", &lcs, "lan0").join(" ");
        let script = format!(
            "set -e; mount --bind docs docs; mount --bind docs/notes.md docs/notes.md; \
             mount -o remount,ro,bind docs; ! touch docs/other; exec lcstudio {arguments}"
        );
        let mut process = one.spawn("unshare", &["-m", "sh", "-c", &script])?;
        fs::write(&two.path, "of two\n")?;
        process.prints("it does not get what others write")?;
        ensure!(fs::read_to_string(&path)?.is_empty());
        // an editor that writes into the file: all get the text
        fs::write(&path, "of one\n")?;
        eventually("both have written", || {
            let text = two.read()?;
            shows_all(&text, &["of one\n", "of two\n"])
        })?;
        ensure!(fs::read_to_string(&path)? == "of one\n");
        process.kill()?;
        // once the folder is writable, all text is there
        let arguments = arguments.split(' ').collect::<Vec<_>>();
        let _process = one.spawn("lcstudio", &arguments)?;
        eventually("the file has all", || {
            let there = fs::read_to_string(&path)?;
            holds!(there == two.read()?, "{there}")
        })
    });
}
