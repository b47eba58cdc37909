//! Studio: an attender gets the chosen tracks, and no other.

use std::fs::{File, OpenOptions};
use std::io::Write;

use lcradio_core::StationKey;
use lcstudio_core::{SessionKey, TrackName};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use crate::prelude::*;
use crate::radio::{cast, write_chirp};

/// The program that casts; lcroute-lab has no codec.
const RADIO: &str = env!("CARGO_BIN_EXE_radio");

const SLIDES: &str = "# Bees\n\nThey dance.\n\n---\n\n## Why\n\n![two bees that dance](images/dance.png)\n\n---\n\nThree\n";

/// Caption lines during the measurement of rates.
const LINES: u32 = 4;

/// A network behind closed firewalls, on the air.
pub(crate) fn network(lab: &Lab, names: &[&str]) -> Result<(Network, Vec<Host>)> {
    let mut network = lab.network(lab.closed_hosts(names)?)?;
    network.start_at_once()?;
    let hosts = network.members.iter().map(|member| member.host.clone());
    let hosts = hosts.collect();
    Ok((network, hosts))
}

/// A program with standard input from the test.
pub(crate) struct Typed {
    pub process: Process,
    input: File,
}

impl Typed {
    pub fn start(host: &Host, name: &str, command: &str) -> Result<Self> {
        let pipe = host.path(&format!("{name}.in"));
        if !pipe.exists() {
            mkfifo(&pipe, Mode::S_IRWXU)?;
        }
        // open for both: neither end waits for the other
        let input = OpenOptions::new().read(true).write(true).open(&pipe)?;
        let command = format!("exec {command} <{}", pipe.display());
        let process = host.spawn("sh", &["-c", &command])?;
        Ok(Self { process, input })
    }

    pub fn types(&mut self, line: &str) -> Result<()> {
        Ok(writeln!(self.input, "{line}")?)
    }

    pub fn writes(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.input.write_all(bytes)?)
    }
}

/// Makes a key; returns its path, its session's text, and its public half.
pub(crate) fn keygen(host: &Host, name: &str) -> Result<(String, String, String)> {
    let path = host.path(name).display().to_string();
    let said = host.call(&format!("lcstudio --json keygen {path}"))?.stdout;
    let told: Value = serde_json::from_str(&said)?;
    let of = |key: &str| Ok::<_, anyhow::Error>(told[key].as_str().context("no text")?.to_owned());
    Ok((path, of("session")?, of("public")?))
}

/// Lets a session have a track that it does not have by default.
pub(crate) fn turn_on(folder: &Path, track: &str) -> Result<()> {
    let settings = folder.join("session.toml");
    let written = fs::read_to_string(&settings)?;
    let off = format!("\n{track} = false\n");
    ensure!(written.contains(&off), "{written}");
    let on = written.replace(&off, &format!("\n{track} = true\n"));
    Ok(fs::write(settings, on)?)
}

/// Makes a session for presenting; returns its folder, its key, and its text.
pub(crate) fn session(host: &Host, captioner: Option<&str>) -> Result<(PathBuf, String, String)> {
    let (key, text, _) = keygen(host, "talk.key")?;
    let folder = host.path("talk");
    let path = folder.display().to_string();
    let args = [
        "new", &path, "--key", &key, "--title", "Bees", "--lang", "en", "--lang", "de",
    ];
    host.run("lcstudio", &args)?.success()?;
    fs::write(folder.join("slides.md"), SLIDES)?;
    if let Some(public) = captioner {
        let mut settings = OpenOptions::new()
            .append(true)
            .open(folder.join("session.toml"))?;
        writeln!(
            settings,
            "[[captions]]\nlanguage = \"en\"\nkey = \"{public}\""
        )?;
    }
    Ok((folder, key, text))
}

pub(crate) fn present(host: &Host, folder: &Path, key: &str) -> Result<Typed> {
    let folder = folder.display();
    let started = Typed::start(
        host,
        "present",
        &format!("lcstudio --json present {folder} --key {key} -i lc0"),
    )?;
    started.process.prints("\"on\"")?;
    Ok(started)
}

pub(crate) fn attend(host: &Host, name: &str, session: &str, args: &str) -> Result<Typed> {
    Typed::start(
        host,
        name,
        &format!("lcstudio --json attend {session} {args} -i lc0"),
    )
}

/// Checks that the program printed an event with `value` under `key`.
pub(crate) fn told(process: &Process, event: &str, key: &str, value: &Value) -> Result<()> {
    let said = process.stdout();
    let mut lines = said
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let found = lines.any(|line| line["event"] == event && line[key] == *value);
    holds!(
        found,
        "no {event} with {key} {value}: {said}{}",
        process.stderr()
    )
}

/// Waits until the program has printed this event.
pub(crate) fn until_told(process: &Process, event: &str, key: &str, value: &Value) -> Result<()> {
    eventually(&format!("{event} with {key} {value}"), || {
        told(process, event, key, value)
    })
}

/// Returns the groups that programs of this host have joined.
pub(crate) fn groups(host: &Host) -> Result<Vec<String>> {
    let said = host
        .ask("lcroute", &["groups", "--json"])?
        .success()?
        .stdout;
    let all: Vec<Value> = serde_json::from_str(&said)?;
    let joined = all.iter().filter(|group| group["local"] == true);
    let names = joined.filter_map(|group| Some(group["group"].as_str()?.to_owned()));
    Ok(names.collect())
}

/// Returns the bytes that lc0 has delivered to programs of this host.
fn incoming(host: &Host) -> Result<u64> {
    Ok(host.interface_traffic("lc0")?.0.bytes)
}

#[test]
fn who_chooses_captions_gets_captions_and_who_comes_late_gets_all() {
    world("studio", |lab| {
        let (mut network, hosts) = network(lab, &["stage", "text", "all", "kept"])?;
        let [stage, text, all, kept] = crate::each(&hosts)?;
        let (ann, _, public) = keygen(all, "ann.key")?;
        let (folder, key, lcs) = session(stage, Some(&public))?;
        let mut presenter = present(stage, &folder, &key)?;
        let kept_in = kept.path("kept").display().to_string();
        let mut holder = kept.spawn(
            "lcstudio",
            &["hold", &lcs, &kept_in, "--no-sound", "-i", "lc0"],
        )?;
        let captions = attend(text, "captions", &lcs, "--tracks captions/en")?;
        let mut bob = attend(
            all,
            "all",
            &lcs,
            "--tracks slides,questions,captions/en --name Bob",
        )?;
        until_told(&bob.process, "slide", "number", &1.into())?;
        let mut writer = Typed::start(
            all,
            "caption",
            &format!("lcstudio caption {lcs} --key {ann} --lang en --speaker Ann -i lc0 -"),
        )?;
        writer.types("they dance to tell where")?;
        let words = "they dance to tell where".into();
        until_told(&captions.process, "caption", "text", &words)?;
        presenter.types("")?;
        until_told(&bob.process, "slide", "number", &2.into())?;
        // the presenter gets a question, and all get it once he shows it
        bob.types("how far do they fly?")?;
        let words: Value = "how far do they fly?".into();
        until_told(&presenter.process, "question", "text", &words)?;
        presenter.types("a 1")?;
        until_told(&bob.process, "question", "text", &words)?;
        // sound flows to its listeners, slides change: captions alone stay below the bound
        let noise = stage.write("noise.raw", vec![0x55_u8; 48_000 * 4 * 60])?;
        let sound = format!(
            "exec {RADIO} cast --key {}/audio-en.key --profile voice -i lc0 - <{}",
            folder.display(),
            noise.display()
        );
        let _cast = stage.spawn("sh", &["-c", &sound])?;
        let programs = all.path("programs");
        fs::create_dir(&programs)?;
        std::os::unix::fs::symlink(RADIO, programs.join("lcradio"))?;
        let recorder = format!(
            "PATH={}:$PATH exec lcstudio hold {lcs} {} -i lc0",
            programs.display(),
            all.path("sound").display()
        );
        let mut recorder = all.spawn("sh", &["-c", &recorder])?;
        eventually("sound flows", || {
            let recorded = fs::metadata(all.path("sound/audio-en.opus"))?.len();
            holds!(recorded > 0, "nothing is recorded")
        })?;
        // the pace of speech: some 24 lines a minute
        let (begun, before) = (Instant::now(), [incoming(text)?, incoming(all)?]);
        for number in 0..LINES {
            writer.types(&format!("line {number} of what is said in this lecture"))?;
            let mut slides = SLIDES.to_owned();
            slides += &format!("\n---\n\n# More {number}\n\n{}\n", "word ".repeat(100));
            fs::write(folder.join("slides.md"), slides)?;
            sleep(Duration::from_millis(2_500));
        }
        let rate = |host: &Host, before: u64| {
            Ok::<_, anyhow::Error>(
                (incoming(host)? - before) as f64 * 8.0 / begun.elapsed().as_secs_f64(),
            )
        };
        let (thin, thick) = (rate(text, before[0])?, rate(all, before[1])?);
        println!("captions alone {thin:.0} bit/s, all tracks with sound {thick:.0} bit/s");
        ensure!(thin < 10_000.0, "captions alone take {thin} bit/s");
        ensure!(thick > 3.0 * thin, "{thick} and {thin} bit/s");
        let joined = groups(text)?;
        ensure!(joined.len() == 2, "index and captions: {joined:?}");
        recorder.signal(Signal::SIGTERM)?;
        recorder.expect_exit(DEADLINE, 0)?;
        let recording = all.path("sound/audio-en.opus");
        ensure!(
            fs::metadata(&recording)?.len() > 1_000,
            "{}",
            recording.display()
        );
        // a PART ends the named track
        bob.types("/part slides")?;
        eventually("it has left", || {
            let joined = groups(all)?;
            holds!(joined.len() <= 3, "{joined:?}")
        })?;
        // all authors are gone: the holder supplies the entries
        let last = format!("line {} of what is said in this lecture", LINES - 1).into();
        until_told(&captions.process, "caption", "text", &last)?;
        presenter.types("q")?;
        presenter.process.expect_exit(DEADLINE, 0)?;
        for (name, mut gone) in [("captions", captions.process), ("all", bob.process)] {
            ensure!(gone.wait(DEADLINE)? == 0, "{name}: {}", gone.stderr());
        }
        writer.process.kill()?;
        network.members[0].stop()?;
        let late = text.sh(&format!("lcstudio --json attend {lcs} -i lc0 </dev/null"))?;
        let late = late.success()?.stdout;
        for words in [
            "they dance to tell where",
            "line 3 of what",
            "how far do they fly?",
            "two bees that dance",
        ] {
            ensure!(late.contains(words), "{words}: {late}");
        }
        holder.signal(Signal::SIGTERM)?;
        holder.expect_exit(DEADLINE, 0)?;
        let page = kept.path("talk.html");
        let out = page.display().to_string();
        kept.call(&format!("lcstudio export {kept_in} {out}"))?;
        let page = fs::read_to_string(page)?;
        shows_all(&page, &["they dance to tell where", "They dance."])
    });
}

/// Suffix of the group with copies of sound packets, for lossy listeners.
const COPY: &str = "-copy";

/// Returns a session's groups by the names of their tracks.
fn groups_of_tracks(key: &str) -> Result<BTreeMap<String, Ipv6Addr>> {
    let seed = SecretKey::load(Path::new(key))?.seed();
    let secret = SessionKey::from_seed(&seed);
    let session = secret.session();
    let mut groups = BTreeMap::from([("index".to_owned(), session.index().group())]);
    for name in ["slides", "turn", "questions", "captions/en", "captions/de"] {
        let owner = secret.track_key(&name.parse::<TrackName>()?).peer_id();
        groups.insert(name.to_owned(), session.space(owner).group());
    }
    let station = StationKey::from_seed(&secret.station_seed(&"en".parse()?)).station(false);
    groups.insert("audio/en".to_owned(), station.group());
    groups.insert(format!("audio/en{COPY}"), station.copy_group());
    Ok(groups)
}

/// Returns the name of a track's counter in nftables.
fn counter(track: &str) -> String {
    format!("of_{}", track.replace(['/', '-'], "_"))
}

/// Counts packets from lc0 to programs of this host, by track.
pub(crate) fn count_tracks(host: &Host, groups: &BTreeMap<String, Ipv6Addr>) -> Result<()> {
    let mut script = String::from("add table inet tracks\n");
    script += "add chain inet tracks in { type filter hook prerouting priority 0; }\n";
    for (name, group) in groups {
        let counter = counter(name);
        script += &format!("add counter inet tracks {counter}\n");
        script += &format!(
            "add rule inet tracks in iifname lc0 ip6 daddr {group} counter name {counter}\n"
        );
    }
    host.nft(&script)
}

/// Returns the received bytes of each track, with headers of IPv6 and UDP.
pub(crate) fn bytes_of_tracks(
    host: &Host,
    groups: &BTreeMap<String, Ipv6Addr>,
) -> Result<BTreeMap<String, u64>> {
    let names = groups.keys();
    let bytes = names.map(|name| {
        let counted = host.counter("tracks", &counter(name))?;
        Ok((name.clone(), counted.bytes))
    });
    bytes.collect()
}

/// The choices of eight attenders, with the tracks that they get.
const CHOICES: [(&str, &[&str]); 8] = [
    ("captions/en", &["captions/en"]),
    ("captions/en", &["captions/en"]),
    ("captions/de", &["captions/de"]),
    ("slides", &["slides", "turn"]),
    ("slides,questions", &["slides", "turn", "questions"]),
    ("slides,captions/en", &["slides", "turn", "captions/en"]),
    ("audio/en", &["audio/en"]),
    (
        "slides,captions/en,audio/en",
        &["slides", "turn", "captions/en", "audio/en"],
    ),
];

#[test]
fn eight_who_attend_get_what_they_chose_and_nothing_else() {
    world("studio-eight", |lab| {
        let names = crate::words("stage one two three four five six seven eight");
        let (_network, hosts) = network(lab, &names)?;
        let (stage, hall) = hosts.split_first().context("hosts")?;
        let (folder, key, lcs) = session(stage, None)?;
        let groups = groups_of_tracks(&key)?;
        let mut presenter = present(stage, &folder, &key)?;
        let mut attending = Vec::new();
        for (host, (tracks, _)) in hall.iter().zip(CHOICES) {
            count_tracks(host, &groups)?;
            // sound is recorded, as no host has a loudspeaker
            let sound = host.path("sound.opus");
            let radio = format!(
                "#!/bin/sh\nexec {RADIO} \"$@\" --record {}\n",
                sound.display()
            );
            let radio = host.write("programs/lcradio", radio)?;
            fs::set_permissions(&radio, fs::Permissions::from_mode(0o755))?;
            let programs = host.path("programs").display().to_string();
            let attend = format!(
                "env PATH={programs}:$PATH lcstudio --json attend {lcs} --tracks {tracks} -i lc0"
            );
            attending.push(Typed::start(host, "attend", &attend)?);
        }
        let sound = write_chirp(stage, 60)?;
        let args = format!(
            "--key {}/audio-en.key --profile voice -i lc0",
            folder.display()
        );
        let _cast = cast(stage, &sound, &args)?;
        let count = |host: &Host| bytes_of_tracks(host, &groups);
        // each gets a part of all its tracks
        for line in ["c good evening", "c and welcome"] {
            presenter.types(line)?;
        }
        let has_all = |host: &Host, chosen: &[&str]| {
            let bytes = count(host)?;
            let quiet = ["captions/de", "questions"];
            let missing = chosen
                .iter()
                .find(|track| bytes[**track] == 0 && !quiet.contains(track));
            holds!(missing.is_none(), "{}: {bytes:?}", host.name())
        };
        for (host, (_, chosen)) in hall.iter().zip(CHOICES) {
            eventually("all that was chosen comes", || has_all(host, chosen))?;
        }
        let before: Vec<_> = hall.iter().map(count).collect::<Result<_>>()?;
        let begun = Instant::now();
        for number in 0..LINES {
            presenter.types(&format!("c line {number} of what is said in this lecture"))?;
            let mut slides = SLIDES.to_owned();
            slides += &format!("\n---\n\n# More {number}\n\n{}\n", "word ".repeat(100));
            fs::write(folder.join("slides.md"), slides)?;
            sleep(Duration::from_millis(2_500));
        }
        let took = begun.elapsed().as_secs_f64();
        for ((host, (tracks, chosen)), before) in hall.iter().zip(CHOICES).zip(&before) {
            let after = count(host)?;
            let rate = |name: &String| (after[name] - before[name]) as f64 * 8.0 / took;
            let rates: Vec<_> = after
                .keys()
                .map(|name| (name.clone(), rate(name)))
                .collect();
            let shown = rates.iter().filter(|(_, rate)| *rate > 0.0);
            let shown: Vec<_> = shown
                .map(|(name, rate)| format!("{name} {rate:.0}"))
                .collect();
            println!("{tracks}: {} bit/s", shown.join(", "));
            for (name, bytes) in &after {
                let of = name.trim_end_matches(COPY);
                let is_chosen = name == "index" || chosen.contains(&of);
                ensure!(
                    is_chosen || *bytes == 0,
                    "{tracks}: {bytes} bytes of {name}"
                );
            }
            let all: f64 = rates.iter().map(|(_, rate)| rate).sum();
            let is_thin = chosen.iter().all(|track| track.starts_with("captions"));
            // captions at 24 lines a minute, and the index of a deck that changes as often
            ensure!(!is_thin || all <= 12_000.0, "{tracks}: {all} bit/s");
        }
        // a PART of sound ends sound alone
        let (host, last) = (&hall[7], attending.last_mut().context("the eighth")?);
        last.types("/part audio/en")?;
        let sound = groups.iter().filter(|(name, _)| name.starts_with("audio"));
        let sound: Vec<String> = sound.map(|(_, group)| group.to_string()).collect();
        eventually("it has left", || {
            let joined = self::groups(host)?;
            holds!(
                !joined.iter().any(|group| sound.contains(group)),
                "{joined:?}"
            )
        })?;
        let left = count(host)?["audio/en"];
        presenter.types("c after the sound")?;
        until_told(&last.process, "caption", "text", &"after the sound".into())?;
        eventually("sound flows to the other", || {
            let bytes = count(&hall[6])?["audio/en"];
            holds!(bytes > before[6]["audio/en"] + 20_000, "{bytes}")
        })?;
        // packets under way
        let now = count(host)?["audio/en"];
        ensure!(now - left < 4_000, "{} bytes after the PART", now - left);
        presenter.types("q")?;
        presenter.process.expect_exit(DEADLINE, 0)
    });
}

#[test]
fn a_presenter_that_was_killed_goes_on_and_strangers_write_nothing() {
    world("studio-bad", |lab| {
        let (_network, hosts) = network(lab, &["stage", "hall"])?;
        let [stage, hall] = crate::each(&hosts)?;
        let (folder, key, lcs) = session(stage, None)?;
        let mut presenter = present(stage, &folder, &key)?;
        let attender = attend(hall, "hall", &lcs, "--tracks slides,captions/en")?;
        presenter.types("2")?;
        presenter.types("c before it was killed")?;
        let said = "before it was killed".into();
        until_told(&attender.process, "slide", "number", &2.into())?;
        until_told(&attender.process, "caption", "text", &said)?;
        // twice with one folder
        let path = folder.display().to_string();
        let twice = stage.sh(&format!("lcstudio present {path} --key {key} </dev/null"))?;
        twice.fails(1, "used by another")?;
        presenter.process.kill()?;
        let mut presenter = present(stage, &folder, &key)?;
        presenter.types("c after it came back")?;
        let said = "after it came back".into();
        until_told(&attender.process, "caption", "text", &said)?;
        ensure!(!presenter.process.stderr().contains("two hosts"));
        // a key without permission, a session without a presenter, invalid texts
        let (mallory, other, _) = keygen(hall, "mallory.key")?;
        let refused = hall.sh(&format!(
            "echo lies | lcstudio caption {lcs} --key {mallory} --lang en --timeout 2s -i lc0 -"
        ))?;
        refused.fails(4, "session.toml")?;
        let nobody = hall.sh(&format!("lcstudio attend {other} --timeout 2s </dev/null"))?;
        nobody.exits(3)?;
        for (args, code) in [
            ("attend lct1abc", 2),
            ("attend nofile", 2),
            ("present /nowhere --key nokey", 4),
        ] {
            let wrong = hall.sh(&format!("lcstudio {args} </dev/null"))?;
            ensure!(wrong.code == code, "{args}: {wrong:?}");
        }
        ensure!(!attender.process.stdout().contains("lies"));
        // the attender's clock is off by an hour, and Ctrl-C ends it
        attender.process.signal(Signal::SIGINT)?;
        let mut gone = attender.process;
        gone.expect_exit(DEADLINE, 130)?;
        // a second host presents a copy of the folder: the first one ends, with the reason
        let copy = hall.path("copy");
        let to = copy.display().to_string();
        hall.run("cp", &["-r", &path, &to])?.success()?;
        let mut second = present(hall, &copy, &key)?;
        presenter
            .process
            .fails(DEADLINE, 1, "another host presents")?;
        second.process.signal(Signal::SIGTERM)?;
        second.process.expect_exit(DEADLINE, 0)
    });
}
