//! The page of a call: tabs and terminals talk with each other.

use std::sync::{Arc, Mutex};
use std::thread;

use super::leaves::{audience, token};
use super::node::{dropped, lose, visited};
use super::radio::{loudspeakers, write_wav};
use super::{Browser, Page, Theme, in_each_browser};
use crate::prelude::*;
use crate::radio::{RADIO, RATE};
use crate::radio_call::{Heard, One, feed, fifo, next_sound, packets, read, share, tone, voice};

/// Records played samples of the page.
const PLAYED: &str = r#"(() => {
    window.played = [];
    const { connect } = AudioNode.prototype;
    AudioNode.prototype.connect = function (to, ...rest) {
        if (to instanceof AudioDestinationNode && this instanceof GainNode) {
            const tap = this.context.createScriptProcessor(4096, 2, 1);
            tap.onaudioprocess = ({ inputBuffer }) => played.push(inputBuffer.getChannelData(0).slice());
            connect.call(this, tap);
            connect.call(tap, this.context.destination);
        }
        return connect.call(this, to, ...rest);
    };
    return true;
})()"#;

/// The others in the page's list, as `NAME: STATE`.
const PEOPLE: &str = "[...document.querySelectorAll('#people li')].map((li) => `${li.querySelector('b').textContent}: ${li.querySelector('small').textContent}`)";

/// Waits until the list has a line.
fn until_shown(page: &Page, line: &str) -> Result<()> {
    page.until(&format!("{PEOPLE}.includes({})", json!(line)))
        .map(drop)
}

/// Waits until others are listed, and nobody else.
fn until_only(page: &Page, names: &[&str]) -> Result<()> {
    let all = "[...document.querySelectorAll('#people b')].map((b) => b.textContent).sort().join()";
    let mut names = names.to_vec();
    names.sort_unstable();
    page.until(&format!("{all} === {}", json!(names.join(","))))
        .map(drop)
}

/// Waits until a terminal sees others, and nobody else.
fn until_others(of: &One, names: &[&str]) -> Result<()> {
    eventually("the others are here", || {
        let (mut others, _) = of.others()?;
        others.sort();
        holds!(others == names, "{others:?}")
    })
}

/// Waits until a terminal shows a state of the only other participant.
fn until_is(of: &One, state: &str, wanted: bool) -> Result<()> {
    eventually(state, || {
        let status = of.status()?;
        let all = status["participants"].as_array().context("nobody")?;
        holds!(
            all.len() == 1 && all[0][state] == wanted,
            "{state}: {status}"
        )
    })
}

/// Opens the link of a call, and joins.
fn join<'a>(browser: &'a Browser, tab: &'a str, link: &str, name: &str) -> Result<Page<'a>> {
    let page = browser.open(tab, link)?;
    page.until("document.querySelector('#enter')?.textContent === 'Join'")?;
    page.eval(PLAYED)?;
    page.fill("#name", name)?;
    page.click("#enter")?;
    page.until_says("#standing", "You are in the call")?;
    Ok(page)
}

#[test]
#[ignore = "needs browsers; make test-all"]
fn a_tab_and_a_terminal_talk_and_the_tab_mutes_holds_and_leaves() {
    visited("call-talks", |kind, meeting, [a, b], visitor| {
        let mut ann = One::new(&a.host, None, "-i lc0", Instant::now(), tone(500.0))?;
        let text = ann.text()?;
        let (_server, output) = loudspeakers(&visitor.host)?;
        let wav = write_wav(&visitor.host, 60)?;
        let (theme, wav) = (Theme::Light, Some(wav.as_path()));
        let browser = Browser::start_with(&visitor.host, kind, theme, wav, Some(&output))?;
        let link = format!("{}/node/#{},{text}", visitor.origin, meeting.network.token);
        let page = browser.open("call", &link)?;
        page.until("location.pathname === '/call/' && document.querySelector('#enter')?.textContent === 'Join'")?;
        page.until_says("#offer", "This is a call")?;
        ensure!(page.eval("location.hash === ''")? == true, "a secret");
        page.click("#devices summary")?;
        page.click("#test")?;
        page.until_says("#test-words", "The microphone brings sound")?;
        page.expect_open_to_all()?;
        page.click("#devices summary")?;
        page.eval(PLAYED)?;
        page.inspect("door")?;
        let name = "Bea <b>";
        page.enter("#name", name)?;
        let begun = Instant::now();
        page.until_says("#standing", "You are in the call, and can be heard")?;
        page.until("played.some((plane) => plane.some((s) => Math.abs(s) > 0.02))")?;
        eprintln!("{kind}: sound {:?} after the click", begun.elapsed());
        until_shown(&page, "a: speaks")?;
        until_others(&ann, &[name])?;
        until_is(&ann, "speaks", true)?;
        page.inspect("talking")?;

        // muted by the space bar: not a packet, and the others see it
        ann.process.signal(Signal::SIGUSR2)?;
        until_shown(&page, "a: muted")?;
        let told = ann.told()?;
        let group = told["group"].as_str().context("no group")?;
        let loud = packets(&b.host, "lc0", group, None)?;
        ensure!((60..=260).contains(&loud), "{loud} packets in two seconds");
        page.until("document.activeElement.id === 'mute'")?;
        page.press(" ")?;
        page.until_says("#mute", "Muted")?;
        until_is(&ann, "muted", true)?;
        let silent = packets(&b.host, "lc0", group, None)?;
        ensure!(silent == 0, "{silent} packets in two seconds");
        page.press(" ")?;
        until_is(&ann, "muted", false)?;
        until_is(&ann, "speaks", true)?;

        // held by the space bar, and released whatever happens
        page.click("#push")?;
        until_is(&ann, "muted", true)?;
        page.hold(" ", true)?;
        until_is(&ann, "muted", false)?;
        page.hold(" ", false)?;
        until_is(&ann, "muted", true)?;
        page.hold(" ", true)?;
        until_is(&ann, "muted", false)?;
        page.eval("window.dispatchEvent(new Event('blur'))")?;
        until_is(&ann, "muted", true)?;
        page.hold(" ", false)?;
        page.click("#push")?;
        until_is(&ann, "muted", false)?;

        // on hold, the place is kept
        page.click("#hold")?;
        page.until_says("#standing", "On hold")?;
        until_is(&ann, "away", true)?;
        until_only(&page, &[])?;
        let silent = packets(&b.host, "lc0", group, None)?;
        ensure!(silent == 0, "{silent} packets in two seconds");
        page.click("#hold")?;
        until_is(&ann, "away", false)?;
        until_is(&ann, "speaks", true)?;
        ann.process.signal(Signal::SIGUSR1)?;
        until_shown(&page, "a: speaks")?;

        // one's sound off, for this tab alone
        page.click("#people button")?;
        until_shown(&page, "a: you do not hear")?;
        page.until("(window.played.length = 0, true)")?;
        page.until("played.length > 20")?;
        let quiet = "played.slice(-5).every((plane) => plane.every((s) => Math.abs(s) < 0.001))";
        page.until(quiet)?;
        page.click("#people button")?;
        until_shown(&page, "a: speaks")?;
        // screen readers hear of others only where that is wanted
        let live = |wanted: &str| {
            let js = "document.querySelector('#news').getAttribute('aria-live')";
            page.until(&format!("{js} === {}", json!(wanted))).map(drop)
        };
        live("off")?;
        page.click("#aloud")?;
        live("polite")?;

        page.click("#leave")?;
        page.until_says("#notice", "You have left the call")?;
        until_others(&ann, &[])?;
        page.until("document.querySelector('#enter').textContent === 'Join'")?;
        page.click("#enter")?;
        until_others(&ann, &[name])?;
        // a closed page says farewell
        let begun = Instant::now();
        page.reload()?;
        until_others(&ann, &[])?;
        eprintln!("{kind}: free {:?} after the reload", begun.elapsed());
        page.until("document.querySelector('#enter')?.textContent === 'Join'")?;
        page.click("#enter")?;
        until_others(&ann, &[name])?;
        until_shown(&page, "a: speaks")?;
        // a killed participant's place is free soon
        ann.process.kill()?;
        until_only(&page, &[])?;
        page.expect_open_to_all()?;
        page.expect_fits_a_phone()?;
        meeting.expect_clean(&browser, visitor)
    });
}

#[test]
#[ignore = "needs browsers; make test-all"]
fn a_tab_begins_a_call_two_more_and_a_terminal_join_and_a_full_call_says_so() {
    visited("call-tabs", |kind, meeting, [a, _], visitor| {
        let (_server, output) = loudspeakers(&visitor.host)?;
        let wav = write_wav(&visitor.host, 60)?;
        let (theme, wav) = (Theme::Dark, Some(wav.as_path()));
        let browser = Browser::start_with(&visitor.host, kind, theme, wav, Some(&output))?;
        let first = browser.open("first", &format!("{}/call/", visitor.origin))?;
        first.until("document.querySelector('#offer')?.textContent.includes('You need')")?;
        first.fill("#token", &meeting.network.token)?;
        first.until("document.querySelector('#enter').textContent === 'New call' && !document.querySelector('#enter').disabled")?;
        first.fill("#name", "one")?;
        first.click("#enter")?;
        first.until_says("#standing", "You are in the call")?;
        first.until_says("#nobody", "Nobody else is here")?;
        let (link, _) = first.until("document.querySelector('#share button').value")?;
        let link = link.as_str().context("a link")?;
        ensure!(link.contains(&meeting.network.token), "two parts: {link}");
        let text = link.rsplit(',').next().context("a call")?;
        ensure!(text.starts_with("lcc1"), "{text}");
        let second = join(&browser, "second", link, "two")?;
        let third = join(&browser, "third", link, "three")?;
        let ann = One::new(&a.host, Some(text), "-i lc0", Instant::now(), tone(500.0))?;
        until_others(&ann, &["one", "three", "two"])?;
        until_only(&first, &["two", "three", "a"])?;
        until_only(&second, &["one", "three", "a"])?;
        until_only(&third, &["one", "two", "a"])?;
        for page in [&first, &second, &third] {
            until_shown(page, "a: speaks")?;
        }
        until_shown(&first, "two: speaks")?;
        eventually("all three are heard", || {
            let status = ann.status()?;
            let all = status["participants"].as_array().context("nobody")?;
            holds!(all.iter().all(|one| one["speaks"] == true), "{status}")
        })?;
        // five more take part from a terminal, so the second tab finds no place any more
        second.click("#leave")?;
        until_only(&first, &["three", "a"])?;
        let file = a.host.write("call.txt", text)?;
        let muted = |n: u8| -> Result<Process> {
            let command = format!(
                "exec {RADIO} --json call --call-file {} --name more{n} --push-to-talk --input - --output - -i lc0 </dev/zero >/dev/null",
                file.display()
            );
            a.host.spawn("sh", &["-c", &command])
        };
        let mut more = (0..5).map(muted).collect::<Result<Vec<_>>>()?;
        first.until(&format!("{PEOPLE}.length === 7"))?;
        second.until("document.querySelector('#enter').textContent === 'Join' && !document.querySelector('#enter').disabled")?;
        second.click("#enter")?;
        second.until_says("#standing", "The call is full: eight talk")?;
        second.shot("full")?;
        // a place becomes free
        more[0].kill()?;
        second.until_says("#standing", "You are in the call")?;
        // a killed tab is gone for the others
        second.ask("close", json!({}))?;
        first.until(&format!("{PEOPLE}.length === 6"))?;
        meeting.expect_clean(&browser, visitor)
    });
}

#[test]
#[ignore = "needs browsers; make test-all"]
fn a_tab_by_a_token_for_leaves_only_listens() {
    in_each_browser("call-leaf", |lab, kind| {
        let (network, visitor) = audience(lab, &["a", "b", "c"])?;
        let token = token(&network, "ff1e::/16")?;
        let host = &network.members[1].host;
        let ann = One::new(host, None, "-i lc0", Instant::now(), tone(500.0))?;
        let text = ann.text()?;
        let (_server, output) = loudspeakers(&visitor.host)?;
        let browser = Browser::start_with(&visitor.host, kind, Theme::Light, None, Some(&output))?;
        let page = browser.open("call", &format!("{}/call/#{token}", visitor.origin))?;
        page.until_says("#offer", "It cannot begin a call")?;
        page.until("document.querySelector('#enter').disabled")?;
        let page = browser.open(
            "listens",
            &format!("{}/call/#{token},{text}", visitor.origin),
        )?;
        page.until("document.querySelector('#enter')?.textContent === 'Only listen' && !document.querySelector('#enter').disabled")?;
        page.until("!document.querySelector('#name').checkVisibility()")?;
        page.click("#enter")?;
        page.until_says("#standing", "You listen, and nobody sees you")?;
        until_shown(&page, "b: speaks")?;
        page.until("!document.querySelector('#mute').checkVisibility()")?;
        page.expect_open_to_all()?;
        until_others(&ann, &[])
    });
}

/// Sound devices of a host: what the page plays comes by a pipe, and what it records goes by one.
struct Devices {
    _processes: Vec<Process>,
    server: String,
    heard: Arc<Mutex<Heard>>,
}

impl Devices {
    fn start(
        host: &Host,
        begun: Instant,
        sound: impl Fn(usize) -> i16 + Send + 'static,
    ) -> Result<Self> {
        let socket = host.path("pulse/native");
        fs::create_dir_all(host.path("pulse"))?;
        let protocol = format!(
            "module-native-protocol-unix auth-anonymous=1 socket={}",
            socket.display()
        );
        let sink = |name: &str| format!("module-null-sink sink_name={name} rate={RATE}");
        let source = "module-remap-source source_name=mic master=mouth.monitor".to_owned();
        let (ears, own) = (sink("ears"), sink("mouth"));
        let lines = [&protocol, &ears, &own, &source];
        let mut args = crate::words(
            "-n --daemonize=no --exit-idle-time=-1 --use-pid-file=no --disable-shm=yes",
        );
        args.extend(lines.iter().flat_map(|line| ["-L", line.as_str()]));
        let pulse = host.spawn("pulseaudio", &args)?;
        let server = format!("unix:{}", socket.display());
        eventually("PulseAudio has its devices", || {
            let set = format!(
                "pactl -s {server} set-default-sink ears && pactl -s {server} set-default-source mic"
            );
            host.sh(&set)?.success()?;
            Ok(())
        })?;
        let (played, recorded) = (fifo(host, "ears")?, fifo(host, "mouth")?);
        let format = "--raw --format=s16le --rate=48000 --channels=2 --latency-msec=5";
        let ears = format!(
            "exec parec -s {server} -d ears.monitor {format} >{}",
            played.display()
        );
        let mouth = format!(
            "exec pacat -s {server} -d mouth {format} <{}",
            recorded.display()
        );
        let processes = vec![
            pulse,
            host.spawn("sh", &["-c", &ears])?,
            host.spawn("sh", &["-c", &mouth])?,
        ];
        let heard: Arc<Mutex<Heard>> = Arc::default();
        let to = Arc::clone(&heard);
        thread::spawn(move || read(played, begun, &to));
        thread::spawn(move || feed(recorded, sound, begun, &Mutex::default()));
        Ok(Self {
            _processes: processes,
            server,
            heard,
        })
    }
}

#[test]
#[ignore = "needs browsers; make test-all"]
fn the_sound_of_a_call_where_datagrams_get_lost_is_measured() {
    visited("call-loss", |kind, meeting, [a, _], visitor| {
        let begun = Instant::now();
        let ann = One::new(&a.host, None, "-i lc0", begun, voice)?;
        let devices = Devices::start(&visitor.host, begun, voice)?;
        let (theme, output) = (Theme::Light, Some(&*devices.server));
        let device = Some(Path::new("device"));
        let browser = Browser::start_with(&visitor.host, kind, theme, device, output)?;
        let text = ann.text()?;
        let link = format!("{}/call/#{},{text}", visitor.origin, meeting.network.token);
        let page = join(&browser, "call", &link, "tab")?;
        until_shown(&page, "a: speaks")?;
        for (percent, least) in [(0, 0.7), (5, 0.7), (20, 0.6)] {
            lose(&visitor.host, percent)?;
            next_sound(&devices.heard, 10)?;
            let mut sound = next_sound(&devices.heard, 5)?;
            for _ in 0..3 {
                sound.extend(next_sound(&devices.heard, 5)?);
            }
            let share = share(&sound, 240.0);
            let figures = page.eval("document.querySelector('#figures').textContent")?;
            eprintln!(
                "{kind}, {percent} %: {:.1} % of the windows have their sound; dropped to the page {}; {}",
                share * 100.0,
                dropped(&visitor.host)?,
                figures.as_str().unwrap_or_default()
            );
            ensure!(share >= least, "{share}");
        }
        Ok(())
    });
}
