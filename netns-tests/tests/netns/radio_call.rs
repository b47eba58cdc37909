//! Calls by pipes: each participant hears the others and not itself, in little time.
//!
//! A feeder writes each 10 ms of sound when it has passed, as a microphone does. A participant
//! writes samples into a pipe at their time, so the least delay of a second's frames is their time,
//! whatever the load of the machine.

use std::f64::consts::TAU;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use crate::prelude::*;
use crate::radio::{RADIO, RATE, last_status};

/// Samples of 10 ms, and bytes of a sample of both channels.
const FRAME: usize = RATE / 100;
const SAMPLE: usize = 4;

/// What one participant hears.
#[derive(Default)]
pub(crate) struct Heard {
    pub sound: Vec<f64>,
    /// The least time of sample 0 by the frames of each second.
    least: BTreeMap<u64, f64>,
}

/// One participant.
pub(crate) struct One {
    pub process: Process,
    heard: Arc<Mutex<Heard>>,
    /// The time of the first sample that was fed.
    fed_at: Arc<Mutex<Option<f64>>>,
}

pub(crate) fn fifo(host: &Host, name: &str) -> Result<PathBuf> {
    let path = host.path(name);
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU)?;
    Ok(path)
}

/// Feeds sound for as long as it is read.
pub(crate) fn feed(
    pipe: PathBuf,
    sound: impl Fn(usize) -> i16,
    begun: Instant,
    at: &Mutex<Option<f64>>,
) {
    let Ok(mut pipe) = OpenOptions::new().write(true).open(pipe) else {
        return;
    };
    let first = Instant::now();
    let since = (first - begun).as_secs_f64();
    *at.lock().unwrap_or_else(PoisonError::into_inner) = Some(since);
    for frame in 0.. {
        let samples = frame * FRAME..(frame + 1) * FRAME;
        let made = first + Duration::from_millis(10) * (frame as u32 + 1);
        sleep(made.saturating_duration_since(Instant::now()));
        let both = samples.flat_map(|n| [sound(n); 2]);
        let bytes: Vec<u8> = both.flat_map(i16::to_le_bytes).collect();
        if pipe.write_all(&bytes).is_err() {
            return;
        }
    }
}

pub(crate) fn read(pipe: PathBuf, begun: Instant, heard: &Mutex<Heard>) {
    let Ok(mut pipe) = File::open(pipe) else {
        return;
    };
    let (mut bytes, mut buffer) = (Vec::new(), vec![0; 64 * 1_024]);
    while let Ok(length @ 1..) = pipe.read(&mut buffer) {
        let at = begun.elapsed().as_secs_f64();
        bytes.extend_from_slice(&buffer[..length]);
        let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
        if heard.sound.len().is_multiple_of(FRAME) {
            let since = heard.sound.len() as f64 / RATE as f64;
            let least = heard.least.entry(since as u64).or_insert(f64::MAX);
            *least = (at - since).min(*least);
        }
        let (frames, rest) = bytes.as_chunks::<SAMPLE>();
        let left = frames
            .iter()
            .map(|f| f64::from(i16::from_le_bytes([f[0], f[1]])));
        heard.sound.extend(left);
        bytes = rest.to_vec();
    }
}

impl One {
    /// Takes part in a call, or begins one; speaks `sound` of each sample's number.
    pub fn new(
        host: &Host,
        call: Option<&str>,
        args: &str,
        begun: Instant,
        sound: impl Fn(usize) -> i16 + Send + 'static,
    ) -> Result<Self> {
        let text = match call {
            Some(text) => format!("--call-file {}", host.write("call.txt", text)?.display()),
            None => String::new(),
        };
        let name = host.name();
        let command = format!("exec {RADIO} --json call {text} --name {name} {args}");
        Self::by(host, &command, begun, sound)
    }

    /// Takes part by this command, which takes more options of lcradio.
    pub fn by(
        host: &Host,
        command: &str,
        begun: Instant,
        sound: impl Fn(usize) -> i16 + Send + 'static,
    ) -> Result<Self> {
        let (input, output) = (fifo(host, "spoken")?, fifo(host, "heard")?);
        let command = format!(
            "{command} --input - --output - <{} >{}",
            input.display(),
            output.display()
        );
        let process = host.spawn("sh", &["-c", &command])?;
        let (heard, fed_at) = (Arc::default(), Arc::default());
        let (to, at) = (Arc::clone(&heard), Arc::clone(&fed_at));
        thread::spawn(move || feed(input, sound, begun, &at));
        thread::spawn(move || read(output, begun, &to));
        Ok(Self {
            process,
            heard,
            fed_at,
        })
    }

    /// Returns the first line of JSON: the text, and the group.
    pub fn told(&self) -> Result<Value> {
        let told = self.process.stderr();
        let line = told.lines().find(|line| line.starts_with('{'));
        Ok(serde_json::from_str(line.context("nothing told")?)?)
    }

    pub fn text(&self) -> Result<String> {
        eventually("it has a text", || self.told().map(drop))?;
        let told = self.told()?;
        let text = told["call"].as_str().context("no text")?;
        ensure!(text.starts_with("lcc1"), "{text}");
        Ok(text.to_owned())
    }

    pub fn status(&self) -> Result<Value> {
        last_status(&self.process.stderr())
    }

    /// Returns the names of the others, and of those that are not muted.
    pub fn others(&self) -> Result<(Vec<String>, Vec<String>)> {
        let status = self.status()?;
        let all = status["participants"].as_array().context("no others")?;
        let name = |p: &Value| p["name"].as_str().unwrap_or_default().to_owned();
        let open = all.iter().filter(|p| p["muted"] == false);
        Ok((all.iter().map(name).collect(), open.map(name).collect()))
    }

    pub fn next_sound(&self, seconds: usize) -> Result<Vec<f64>> {
        next_sound(&self.heard, seconds)
    }
}

/// Returns the sound of the next seconds.
pub(crate) fn next_sound(heard: &Mutex<Heard>, seconds: usize) -> Result<Vec<f64>> {
    let sound = || {
        let heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.sound.clone()
    };
    let from = sound().len();
    at_least(from + seconds * RATE, || Ok(sound().len()))?;
    Ok(sound()[from..from + seconds * RATE].to_vec())
}

pub(crate) fn tone(hz: f64) -> impl Fn(usize) -> i16 + Send + 'static {
    move |n| ((n as f64 * hz * TAU / RATE as f64).sin() * 6_000.0) as i16
}

/// Returns the mean strength of a tone in windows of 50 ms: a call may be played 0.5 % faster.
pub(crate) fn strength(sound: &[f64], hz: f64) -> f64 {
    let windows = sound.chunks(5 * FRAME).map(|window| {
        let (sin, cos) = window
            .iter()
            .enumerate()
            .fold((0.0, 0.0), |(sin, cos), (n, s)| {
                let phase = n as f64 * hz * TAU / RATE as f64;
                (sin + s * phase.sin(), cos + s * phase.cos())
            });
        2.0 * f64::hypot(sin, cos) / window.len() as f64
    });
    let count = sound.len().div_ceil(5 * FRAME).max(1);
    windows.sum::<f64>() / count as f64
}

/// Returns the share of windows of 20 ms in which a tone is as strong as in most.
pub(crate) fn share(sound: &[f64], hz: f64) -> f64 {
    let windows = sound.chunks_exact(2 * FRAME).map(|w| strength(w, hz));
    let windows: Vec<f64> = windows.collect();
    let mut sorted = windows.clone();
    sorted.sort_by(f64::total_cmp);
    let most = sorted[sorted.len() / 2];
    let whole = windows.iter().filter(|s| **s > 0.5 * most).count();
    whole as f64 / windows.len() as f64
}

/// Voice without pauses: harmonics of 120 Hz. libopus conceals a pure tone badly.
pub(crate) fn voice(n: usize) -> i16 {
    let t = n as f64 / RATE as f64;
    let harmonics =
        (1..25).map(|k| (120.0 * f64::from(k) * TAU * t).sin() / f64::from(k).powf(0.7));
    (1_500.0 * harmonics.sum::<f64>()) as i16
}

const TONES: [f64; 3] = [500.0, 900.0, 1_400.0];

/// Counts packets of sound on a host in two seconds: those from an address, or all.
pub(crate) fn packets(on: &Host, interface: &str, group: &str, of: Option<&str>) -> Result<u64> {
    let of = of.map_or("True".to_owned(), |of| format!("source == '{of}'"));
    let count = format!(
        "import socket, struct, time\ns = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)\n\
         s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)\ns.bind(('', 5004))\n\
         group = socket.inet_pton(socket.AF_INET6, '{group}')\n\
         index = struct.pack('@I', socket.if_nametoindex('{interface}'))\n\
         s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, group + index)\n\
         n, end = 0, time.monotonic() + 2\n\
         while (left := end - time.monotonic()) > 0:\n  s.settimeout(left)\n  try:\n    \
         source = s.recvfrom(2000)[1][0].split('%')[0]\n    n += {of}\n  except TimeoutError:\n    break\n\
         print(n)"
    );
    let output = on.run("python3", &["-c", &count])?.success()?;
    Ok(output.stdout.trim().parse()?)
}

#[test]
fn each_of_three_hears_the_two_others_until_they_are_muted_killed_or_gone() {
    on_a_lan("radio-call", ["ann", "bob", "cy"], |[ann, bob, cy]| {
        let begun = Instant::now();
        let mut a = One::new(ann, None, "", begun, tone(TONES[0]))?;
        let text = a.text()?;
        let b = One::new(bob, Some(&text), "", begun, tone(TONES[1]))?;
        let mut c = One::new(cy, Some(&text), "", begun, tone(TONES[2]))?;
        for (one, names) in [
            (&a, ["bob", "cy"]),
            (&b, ["ann", "cy"]),
            (&c, ["ann", "bob"]),
        ] {
            eventually("all are here", || {
                let (mut others, open) = one.others()?;
                others.sort();
                holds!(others == names && open.len() == 2, "{others:?} {open:?}")
            })?;
        }
        for (own, one) in [&a, &b, &c].into_iter().enumerate() {
            let sound = one.next_sound(2)?;
            for (at, hz) in TONES.into_iter().enumerate() {
                let strength = strength(&sound[RATE..], hz);
                eprintln!("{own} hears {hz} Hz: {strength:.0}");
                ensure!(
                    (strength > 3_000.0) == (at != own),
                    "{own}, {hz}: {strength}"
                );
            }
        }
        // who is muted sends no packet of sound, and the others see it
        let told = a.told()?;
        let group = told["group"].as_str().context("no group")?;
        let loud = packets(cy, LAN, group, Some("fd00:1::1"))?;
        ensure!((100..=260).contains(&loud), "{loud} packets in two seconds");
        a.process.signal(Signal::SIGUSR2)?;
        eventually("it is muted", || {
            let (_, open) = b.others()?;
            holds!(open == ["cy"], "{open:?}")
        })?;
        let silent = packets(cy, LAN, group, Some("fd00:1::1"))?;
        ensure!(silent == 0, "{silent} packets in two seconds");
        a.process.signal(Signal::SIGUSR1)?;
        // killed: the place is free after 5 s; gone: at once
        c.process.kill()?;
        eventually("the killed one is gone", || {
            let (others, _) = b.others()?;
            holds!(others == ["ann"], "{others:?}")
        })?;
        a.process.signal(Signal::SIGINT)?;
        a.process.expect_exit(DEADLINE, 130)?;
        eventually("nobody else is here", || {
            let (others, _) = b.others()?;
            holds!(others.is_empty(), "{others:?}")
        })
    });
}

#[test]
#[ignore = "takes half a minute; make test-all"]
fn a_call_behind_closed_firewalls_hears_the_others_and_a_listener_is_seen_by_nobody() {
    world_alone("radio-call-lc0", |lab| {
        let network = lab.closed_network(["ann", "bob", "cy"])?;
        let [ann, bob, cy] = network.nodes()?;
        let begun = Instant::now();
        let a = One::new(&ann.host, None, "-i lc0", begun, tone(TONES[0]))?;
        let text = a.text()?;
        let b = One::new(&bob.host, Some(&text), "-i lc0", begun, tone(TONES[1]))?;
        let (pipe, heard) = (
            fifo(&cy.host, "heard")?,
            Arc::new(Mutex::new(Heard::default())),
        );
        let file = cy.host.write("call.txt", &text)?;
        let command = format!(
            "exec {RADIO} --json call --call-file {} --listen --output - -i lc0 >{}",
            file.display(),
            pipe.display()
        );
        let listens = cy.host.spawn("sh", &["-c", &command])?;
        let to = Arc::clone(&heard);
        thread::spawn(move || read(pipe, begun, &to));
        eventually("the listener hears both", || {
            let status = last_status(&listens.stderr())?;
            let count = status["participants"].as_array().map_or(0, Vec::len);
            ensure!(count == 2 && status["standing"] == "listens", "{status}");
            let heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
            let sound = heard.sound.len().checked_sub(RATE).context("no sound")?;
            let sound = &heard.sound[sound..];
            let strengths = [TONES[0], TONES[1]].map(|hz| strength(sound, hz));
            holds!(strengths.iter().all(|s| *s > 3_000.0), "{strengths:?}")
        })?;
        for (one, other) in [(&a, "bob"), (&b, "ann")] {
            let (others, _) = one.others()?;
            ensure!(others == [other], "{others:?}");
        }
        let sound = a.next_sound(2)?;
        holds!(strength(&sound, TONES[1]) > 3_000.0 && strength(&sound, TONES[0]) < 300.0)
    });
}

/// A click in the middle of each second.
fn clicks(n: usize) -> i16 {
    match (n % RATE).checked_sub(RATE / 2) {
        Some(n) if n < 2 * FRAME => {
            let t = n as f64 / RATE as f64;
            ((t * 1_000.0 * TAU).sin() * (-t * 480.0).exp() * 16_000.0) as i16
        }
        _ => 0,
    }
}

/// Returns the delay of each click between the microphone and the ear, in milliseconds.
fn delays(heard: &Heard, fed_at: f64) -> Vec<f64> {
    let (sound, mut delays, mut next) = (&heard.sound, Vec::new(), 0);
    while let Some(first) = sound[next..].iter().position(|s| s.abs() > 3_000.0) {
        let at = next + first;
        let all = at..(at + 2 * FRAME).min(sound.len());
        let loudest = all.max_by(|a, b| sound[*a].abs().total_cmp(&sound[*b].abs()));
        let since = loudest.unwrap_or(at) as f64 / RATE as f64;
        if let Some(begin) = heard.least.get(&(since as u64)) {
            // the loudest sample of a click is a quarter of a millisecond in
            let spoken = (begin + since - fed_at - 0.5).rem_euclid(1.0);
            delays.push(spoken * 1e3);
        }
        next = (at + RATE / 2).min(sound.len());
    }
    delays
}

fn report(what: &str, mut delays: Vec<f64>) -> Result<[f64; 2]> {
    delays.sort_by(f64::total_cmp);
    let last = delays.len().checked_sub(1).context("no click")?;
    let figures = [delays[last / 2], delays[last * 95 / 100]];
    eprintln!(
        "{what}: {} clicks, {:.1} ms in the middle, 95 % {:.1}, least {:.1}, most {:.1}",
        delays.len(),
        figures[0],
        figures[1],
        delays[0],
        delays[last]
    );
    Ok(figures)
}

/// Two hosts with a wire between them.
///
/// ```text
///   ann ── switch ── wire ~~ delay, jitter, loss ~~ bob
/// ```
fn over_a_wire(lab: &Lab, args: &[&str]) -> Result<(Host, Host, (Host, Process))> {
    let [ann, wire] = crate::all(lab.lan(&["ann", "wire"])?)?;
    let (bob, slow) = behind_a_wire(lab, &wire, "bob", args)?;
    Ok((ann, bob, (wire, slow)))
}

/// Makes a host that a slow wire joins to a LAN.
pub(crate) fn behind_a_wire(
    lab: &Lab,
    wire: &Host,
    name: &str,
    args: &[&str],
) -> Result<(Host, Process)> {
    let far = lab.detached_host(name)?;
    let peer = far.namespace().path();
    wire.ip(&format!(
        "link add far0 type veth peer name {LAN} netns {peer}\nlink set far0 up"
    ))?;
    far.ip(&format!(
        "addr add fd00:1::9/64 dev {LAN} nodad\nlink set {LAN} up"
    ))?;
    let slow = wire.spawn("slow-wire", &[&[LAN, "far0"], args].concat())?;
    slow.prints("joined")?;
    Ok((far, slow))
}

#[test]
#[ignore = "takes a minute; make test-all"]
fn clicks_from_mouth_to_ear_are_measured() {
    for (delay, jitter) in [("0ms", "0ms"), ("30ms", "3ms")] {
        world_alone("radio-call-delay", |lab| {
            let args = ["--delay", delay, "--jitter", jitter, "--loss", "0"];
            let (ann, bob, _wire) = over_a_wire(lab, &args)?;
            let begun = Instant::now();
            let a = One::new(&ann, None, "", begun, clicks)?;
            let b = One::new(&bob, Some(&a.text()?), "", begun, clicks)?;
            eventually("both are here", || {
                let (others, _) = b.others()?;
                holds!(others == ["ann"] && a.others()?.0 == ["bob"], "{others:?}")
            })?;
            // a while, so that clicks are many
            for _ in 0..5 {
                b.next_sound(4)?;
            }
            let mut most = f64::MIN;
            for (one, other) in [(&a, &b), (&b, &a)] {
                let fed_at = *other.fed_at.lock().unwrap_or_else(PoisonError::into_inner);
                let heard = one.heard.lock().unwrap_or_else(PoisonError::into_inner);
                let delays = delays(&heard, fed_at.context("nothing was fed")?);
                let [_, p95] = report(&format!("wire of {delay}"), delays)?;
                most = most.max(p95);
            }
            let wire: f64 = delay.trim_end_matches("ms").parse()?;
            // a busy host counts as jitter: as much as the longest delay of a call, and the rest
            holds!(most <= wire + 600.0, "{most} ms")
        });
    }
}

#[test]
#[ignore = "takes half a minute; make test-all"]
fn a_twentieth_lost_leaves_nearly_all_sound() {
    world_alone("radio-call-loss", |lab| {
        let args = ["--delay", "10ms", "--jitter", "2ms", "--loss", "0.05"];
        let (ann, bob, _wire) = over_a_wire(lab, &args)?;
        let begun = Instant::now();
        let a = One::new(&ann, None, "", begun, voice)?;
        let b = One::new(&bob, Some(&a.text()?), "", begun, voice)?;
        eventually("both are here", || {
            let (others, _) = b.others()?;
            holds!(others == ["ann"] && a.others()?.0 == ["bob"], "{others:?}")
        })?;
        b.next_sound(3)?;
        let mut sound = b.next_sound(5)?;
        for _ in 0..3 {
            sound.extend(b.next_sound(5)?);
        }
        let (share, status) = (share(&sound, 240.0), b.status()?);
        eprintln!("{:.2} % of the windows; {status}", 100.0 * share);
        holds!(
            share >= 0.9 && status["lost"].as_u64() > Some(20),
            "{share} {status}"
        )
    });
}
