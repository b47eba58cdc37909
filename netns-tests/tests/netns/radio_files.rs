//! Recordings: a damaged one is cast to its end, and a second recorder keeps the first one's sound.

use crate::prelude::*;
use crate::radio::{RADIO, RATE, cast, key_of, listen, read_samples, sounding, write_chirp};

fn record(host: &Host, station: &str, file: &Path, args: &[&str]) -> Result<Process> {
    let file = file.display().to_string();
    let all = [&["listen", station, "--record", &file], args].concat();
    host.spawn(RADIO, &all)
}

#[test]
#[ignore = "long: `make test-all`"]
fn a_damaged_recording_is_cast_to_its_end_and_each_damaged_passage_is_said() {
    world_alone("radio-damaged", |lab| {
        let [caster, listener] = &crate::all(lab.lan(&["caster", "listener"])?)?;
        let (key, station, _) = key_of(caster, "station.key")?;
        let text = station.encode();
        let whole = caster.path("whole.opus");
        let mut records = record(caster, &text, &whole, &[])?;
        records.says("waits up to 30 s for the station on ")?;
        let chirp = write_chirp(caster, 8)?;
        let mut casts = cast(caster, &chirp, &format!("--key {key}"))?;
        casts.expect_exit(DEADLINE, 0)?;
        records.expect_exit(DEADLINE, 0)?;

        let whole = fs::read(whole)?;
        let pages = whole.windows(4).enumerate().filter(|(_, w)| w == b"OggS");
        let pages: Vec<usize> = pages.map(|(at, _)| at).collect();
        ensure!(pages.len() >= 8, "{} pages", pages.len());
        let mut damaged = whole.clone();
        // within a packet, in a checksum, in the table of lengths
        for at in [pages[3] + 300, pages[3] + 301, pages[5] + 24, pages[7] + 27] {
            damaged[at] ^= 0x5a;
        }
        let cut = damaged.len() - 100;
        let file = caster.write("damaged.opus", &damaged[..cut])?;
        let (mut hears, heard) = listen(listener, &text, "heard", "")?;
        hears.says("lost_before_copy")?;
        let file = file.display().to_string();
        let mut casts = caster.spawn(RADIO, &["cast", "--key", &key, "--file", &file])?;
        casts.expect_exit(DEADLINE, 0)?;
        hears.expect_exit(DEADLINE, 0)?;
        let told = casts.stderr();
        let passed = told.matches("passed over: ").count();
        ensure!(passed == 4, "{told}");
        let samples = read_samples(&heard)?;
        let seconds = sounding(&samples).len() as f64 / RATE as f64;
        // three pages of a second each, and the cut one
        holds!((3.0..6.0).contains(&seconds), "{seconds} s")
    });
}

#[test]
#[ignore = "long: `make test-all`"]
fn a_recorder_that_is_started_again_begins_a_new_file_and_waits_for_a_day() {
    world_alone("radio-recorder", |lab| {
        let [caster, recorder] = &crate::all(lab.lan(&["caster", "recorder"])?)?;
        let (key, station, _) = key_of(caster, "station.key")?;
        let (text, file) = (station.encode(), recorder.path("story.opus"));
        let chirp = write_chirp(caster, 30)?;
        let size = |name: &str| -> Result<u64> {
            let path = recorder.path(name);
            Ok(fs::metadata(&path).context(name.to_owned())?.len())
        };
        let mut files = Vec::new();
        for name in ["story.opus", "story-2.opus", "story-3.opus"] {
            let mut records = record(recorder, &text, &file, &["--timeout", "3s"])?;
            let mut casts = cast(caster, &chirp, &format!("--key {key}"))?;
            exceeds(10_000, || size(name))?;
            casts.kill()?;
            records.expect_exit(DEADLINE, 3)?;
            let told = records.stderr();
            let is_first = name == "story.opus";
            ensure!(told.contains("exists: this records to") != is_first);
            files.push((name, fs::read(recorder.path(name))?));
        }
        for (name, content) in files {
            ensure!(fs::read(recorder.path(name))? == content);
        }
        // without a caster: a unit's recorder waits, and one that ends leaves no file
        let command = format!(
            "INVOCATION_ID=1 exec {RADIO} listen '{}' --record {}",
            *text,
            file.display()
        );
        let mut waits = recorder.spawn("sh", &["-c", &command])?;
        waits.says("waits up to 86400 s for the station on lan0")?;
        ensure!(size("story-4.opus")? > 0, "no file while it waits");
        waits.stop()?;
        holds!(size("story-4.opus").is_err(), "a file without sound stays")
    });
}
