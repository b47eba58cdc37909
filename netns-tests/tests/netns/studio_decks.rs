//! Decks as users and their editors write them, and explanations of waits.

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use crate::prelude::*;
use crate::studio::{Typed, keygen, told, until_told};

/// The smallest PNG: one pixel.
const PIXEL: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01\x08\0\0\0\0\x3a\x7e\x9b\x55\0\0\0\nIDATx\x9cc\0\0\0\x02\0\x01\xe2\x21\xbc\x33\0\0\0\0IEND\xae\x42\x60\x82";

fn deck(slides: impl IntoIterator<Item = u32>) -> String {
    let slides = slides
        .into_iter()
        .map(|n| format!("# Slide {n}\n\nText {n}.\n"));
    slides.collect::<Vec<_>>().join("\n---\n\n")
}

/// Makes a folder with these slides; returns it, its key, and the session's text.
fn lecture(host: &Host, slides: &str) -> Result<(PathBuf, String, String)> {
    let (key, text, _) = keygen(host, "talk.key")?;
    let folder = host.path("talk");
    let path = folder.display().to_string();
    host.call(&format!("lcstudio new {path} --key {key}"))?;
    fs::write(folder.join("slides.md"), slides)?;
    Ok((folder, key, text))
}

fn present(host: &Host, folder: &Path, key: &str) -> Result<Typed> {
    let command = format!("lcstudio --json present {} --key {key}", folder.display());
    let started = Typed::start(host, "present", &command)?;
    eventually("it is on", || {
        let process = &started.process;
        holds!(process.stdout().contains("\"on\""), "{}", process.stderr())
    })?;
    Ok(started)
}

/// Returns numbers and texts of the printed slides, in order.
fn slides_of(process: &Process) -> Vec<(u64, String)> {
    let said = process.stdout();
    let lines = said
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let slides = lines.filter(|line| line["event"] == "slide");
    let slide = |line: Value| {
        Some((
            line["number"].as_u64()?,
            line["markdown"].as_str()?.to_owned(),
        ))
    };
    slides.filter_map(slide).collect()
}

#[test]
#[ignore = "long: `make test-all`"]
fn a_deck_that_lost_its_slides_waits_until_it_is_whole_and_the_slide_stays() {
    world("studio-emptied", |lab| {
        let [presenter, attender] = &crate::all(lab.lan(&["presenter", "attender"])?)?;
        let (folder, key, text) = lecture(presenter, &deck(1..=12))?;
        let mut presents = present(presenter, &folder, &key)?;
        let attends = Typed::start(
            attender,
            "attend",
            &format!("lcstudio --json attend {text}"),
        )?;
        presents.types("7")?;
        let shows = |number: u64| {
            eventually(&format!("slide {number}"), || {
                let slides = slides_of(&attends.process);
                let last = slides.last();
                holds!(
                    last.is_some_and(|(n, _)| *n == number),
                    "{slides:?}{}",
                    attends.process.stderr()
                )
            })
        };
        shows(7)?;
        let file = folder.join("slides.md");
        fs::write(&file, "")?;
        presents.process.says("0 of 12 slides")?;
        fs::write(&file, deck(1..=3))?;
        presents.process.says("3 of 12 slides")?;
        fs::remove_file(&file)?;
        presents.process.says("what was shown stays")?;
        // complete again, with another slide in front
        fs::write(
            folder.join("new.md"),
            deck(std::iter::once(99).chain(1..=12)),
        )?;
        fs::rename(folder.join("new.md"), &file)?;
        shows(8)?;
        let seventh = "# Slide 7\n\nText 7.";
        let mut slides = slides_of(&attends.process)
            .into_iter()
            .skip_while(|(n, _)| *n != 7);
        ensure!(slides.all(|(_, text)| text == seventh));
        // the slide itself is briefly missing
        fs::write(&file, deck((1..=12).filter(|n| *n != 7)))?;
        until_told(&presents.process, "slides", "count", &json!(11))?;
        fs::write(&file, deck(1..=12))?;
        shows(7)
    });
}

#[test]
fn front_matter_is_not_shown_and_what_would_not_be_seen_is_named_by_line() {
    world("studio-markdown", |lab| {
        let [presenter, attender] = &crate::all(lab.lan(&["presenter", "attender"])?)?;
        let slides = "---\nmarp: true\ntitle: \"How bees talk\"\nauthor: Ann\n---\n\n# One\n\n![a](images/my%20photo.png)\n![b](images/my photo.png)\n\
                      ![c](images/pipe.png) ![d](images) ![e](images/null.png)\n\nlast words\n---\n\n# Two\n\n<!-- wave\nat them -->\n";
        let (folder, key, text) = lecture(presenter, slides)?;
        let images = folder.join("images");
        fs::write(images.join("my photo.png"), PIXEL)?;
        mkfifo(&images.join("pipe.png"), Mode::S_IRWXU)?;
        std::os::unix::fs::symlink("/dev/zero", images.join("null.png"))?;
        let presents = present(presenter, &folder, &key)?;
        let file = folder.join("slides.md").display().to_string();
        for (line, problem) in [
            (10, "picture images/my photo.png is shown as text"),
            (7, "picture images/pipe.png: this is a named pipe"),
            (7, "picture images: this is a folder"),
            (7, "picture images/null.png: this is a device"),
            (14, "--- directly below text makes a heading of it"),
        ] {
            let told = presents.process.stderr();
            shows_all(&told, &[&format!("{file}:{line}: {problem}")])?;
        }
        let told_all = presents.process.stderr();
        ensure!(!told_all.contains("my%20photo.png:"), "{told_all}");
        let attends = Typed::start(
            attender,
            "attend",
            &format!("lcstudio --json attend {text}"),
        )?;
        eventually("the first slide", || {
            let slides = slides_of(&attends.process);
            let (number, text) = slides.first().ok_or_else(|| anyhow::anyhow!("no slide"))?;
            ensure!(*number == 1 && text.starts_with("# One"), "{text}");
            told(
                &attends.process,
                "session",
                "title",
                &json!("How bees talk"),
            )?;
            told(&attends.process, "session", "presenter", &json!("Ann"))
        })?;
        // a note is on the presenter's terminal, and in no packet
        let notes = json!("wave\nat them");
        until_told(&presents.process, "slide", "notes", &notes)?;
        let heard = attends.process.stdout();
        ensure!(!heard.contains("at them"), "{heard}");
        for log in fs::read_dir(folder.join("log"))? {
            let log = log?.path();
            let is_sent = fs::read(&log)?.windows(7).any(|part| part == b"at them");
            ensure!(!is_sent, "{}", log.display());
        }
        Ok(())
    });
}

#[test]
#[ignore = "long: `make test-all`"]
fn waits_are_explained_and_a_key_that_may_not_write_is_told_at_once() {
    world("studio-waits", |lab| {
        let [presenter, other] = &crate::all(lab.lan(&["presenter", "other"])?)?;
        let (folder, key, text) = lecture(presenter, &deck(1..=3))?;
        let (own, _, _) = keygen(other, "own.key")?;
        let mut attends = other.spawn("lcstudio", &["attend", &text, "--timeout", "4s"])?;
        let holds = other.spawn(
            "lcstudio",
            &["hold", &text, &other.path("kept").display().to_string()],
        )?;
        attends.expect_exit(DEADLINE, 3)?;
        let told = attends.stderr();
        shows_all(&told, &["waits up to 4 s for the session on lan0"])?;
        holds.says("waits for the session on lan0")?;
        let presents = present(presenter, &folder, &key)?;
        // without input, long before the timeout
        let command = format!("lcstudio caption {text} --key {own} --timeout 1h -");
        let mut captions = Typed::start(other, "captions", &command)?;
        captions
            .process
            .fails(DEADLINE, 4, "[[captions]] in session.toml")?;
        let command = format!("lcstudio caption {text} --key {key} --timeout 1h -");
        let owner = presenter.spawn("sh", &["-c", &format!("echo hello | {command}")])?;
        let mut owner = owner;
        owner.expect_exit(DEADLINE, 0)?;

        // beside the program that holds the session
        let page = other.path("talk.html").display().to_string();
        let kept = other.path("kept").display().to_string();
        eventually("the page has all of it", || {
            other.call(&format!("lcstudio export {kept} {page}"))?;
            let html = fs::read_to_string(&page)?;
            ensure!(html.contains("Text 1.") && html.contains("hello"), "{html}");
            holds!(html.matches("<h1>").count() == 1, "{html}")
        })?;
        drop(presents);
        Ok(())
    });
}

#[test]
fn where_lcroute_runs_entries_go_to_a_lan_once_somebody_there_was_heard() {
    world("studio-interfaces", |lab| {
        let [presenter, attender] = &crate::all(lab.lan(&["presenter", "attender"])?)?;
        // an lc0, as programs see it
        presenter.ip("link add lc0 type veth peer name far0\nlink set lc0 up\nlink set far0 up")?;
        presenter.nft(
            "table inet entries {
               counter lan { }
               chain out { type filter hook output priority 0; oifname lan0 udp dport 14246 counter name lan; }
             }",
        )?;
        let (folder, key, text) = lecture(presenter, &deck(1..=3))?;
        let mut presents = present(presenter, &folder, &key)?;
        presents.types("2")?;
        presents.types("c nobody is there")?;
        eventually("the caption is sent", || {
            told(
                &presents.process,
                "caption",
                "text",
                &json!("nobody is there"),
            )
        })?;
        let sent = presenter.counter("entries", "lan")?.packets;
        ensure!(sent == 0, "{sent} packets for nobody");
        let attends = Typed::start(
            attender,
            "attend",
            &format!("lcstudio --json attend {text}"),
        )?;
        until_told(&attends.process, "slide", "number", &json!(2))
    });
}
