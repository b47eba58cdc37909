//! The camera of a lecture in tabs: one tab films, others choose it and its size; hosts watch it,
//! keep it, and film for tabs.

use super::node::{dropped, lose, meeting, until_wanted};
use super::present::{look_at, present_by};
use super::studio::until_slide;
use super::{Browser, Kind, Page, Theme, in_each_browser, serve_folder};
use crate::prelude::*;
use crate::studio::{attend, bytes_of_tracks, count_tracks, session};
use crate::studio_camera::{film, groups_of_camera, until_shown, watch};

/// A camera in place of the browser's, once `isNumbered` is set: 16 blocks at the top of each
/// picture, white or black, are its number.
const NUMBERED: &str = r"(() => {
    if (!navigator.mediaDevices) {
        return;
    }
    const real = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
    navigator.mediaDevices.getUserMedia = async (wanted) => {
        if (!window.isNumbered) {
            return real(wanted);
        }
        const source = document.createElement('canvas');
        [source.width, source.height] = [640, 360];
        const context = source.getContext('2d', { alpha: false });
        let number = 0;
        setInterval(() => {
            number += 1;
            context.fillStyle = '#345';
            context.fillRect(0, 0, 640, 360);
            context.fillStyle = '#fa0';
            context.fillRect((number * 7) % 600, 160, 40, 120);
            for (let at = 0; at < 16; at += 1) {
                context.fillStyle = (number >> at) & 1 ? '#fff' : '#000';
                context.fillRect(at * 40, 0, 40, 48);
            }
            window.filmed = number;
        }, 66);
        return source.captureStream(15);
    };
})()";

/// Reads the numbers of shown pictures: `numbers` has each once, with its time.
const READ: &str = r"(() => {
    const copy = Object.assign(document.createElement('canvas'), { width: 640, height: 360 });
    const context = copy.getContext('2d', { alpha: false, willReadFrequently: true });
    window.numbers = [];
    clearInterval(window.reading);
    window.reading = setInterval(() => {
        const shown = document.querySelector('#camera-picture');
        if (!shown) return;
        context.drawImage(shown, 0, 0, 640, 360);
        const { data } = context.getImageData(0, 20, 640, 1);
        let number = 0;
        for (let at = 0; at < 16; at += 1) number |= data[(at * 40 + 20) * 4] > 127 ? 1 << at : 0;
        if (number !== window.numbers.at(-1)?.number) window.numbers.push({ number, at: performance.now() });
    }, 15);
    return true;
})()";

/// Share of time, in thousandths, in which a picture stood for longer than 300 ms, and the pictures
/// a second.
const FROZEN: &str = r"(() => {
    const gaps = numbers.slice(1).map(({ at }, n) => at - numbers[n].at);
    const all = numbers.at(-1).at - numbers[0].at;
    const frozen = gaps.reduce((sum, gap) => sum + Math.max(0, gap - 300), 0);
    return [Math.round((1000 * frozen) / all), Math.round((10 * numbers.length * 1000) / all) / 10];
})()";

/// A function of the shown picture, as a short text.
const SHOWN: &str = r"(() => {
    const shown = document.querySelector('#camera-picture');
    if (!shown) return null;
    const copy = Object.assign(document.createElement('canvas'), { width: 64, height: 36 });
    const context = copy.getContext('2d', { alpha: false });
    context.drawImage(shown, 0, 0, 64, 36);
    let hash = 2166136261;
    for (const byte of context.getImageData(0, 0, 64, 36).data) hash = Math.imul(hash ^ byte, 16777619);
    return `${hash >>> 0}`;
})()";

/// Waits until the picture changes this many times.
fn until_moving(tab: &Page, changes: usize) -> Result<()> {
    for _ in 0..changes {
        let before = tab.eval(SHOWN)?;
        tab.until(&format!("{SHOWN} !== {before}"))?;
    }
    Ok(())
}

fn until_size(tab: &Page, size: &str) -> Result<Duration> {
    let at = "document.querySelector('#camera-picture')?.dataset.size";
    let (_, took) = tab.until(&format!("{at} === '{size}'"))?;
    Ok(took)
}

/// Joins the camera, or leaves it. The picture moves what stands below it: no mouse.
fn choose(tab: &Page) -> Result<()> {
    tab.eval("document.querySelector('#watch').click(), null")
        .map(drop)
}

fn press(tab: &Page, at: &str) -> Result<()> {
    tab.eval(&format!("document.querySelector('{at}').click(), null"))
        .map(drop)
}

#[test]
#[ignore = "needs browsers; make test-all"]
fn a_tab_films_for_tabs_and_hosts_that_chose_it_and_a_host_for_tabs() {
    in_each_browser("studio-camera-page", |lab, kind| {
        let meeting = meeting(lab, &["here", "there"], false)?;
        let [a, b] = meeting.network.nodes()?;
        let [here, there] = [0, 1].map(|n| &meeting.visitors[n]);
        let (_, key, _) = session(&a.host, None)?;
        let counted = groups_of_camera(&key)?;
        let [base, smooth, large] =
            ["base", "smooth", "large"].map(|name| counted[name].to_string());
        for node in [a, b] {
            count_tracks(&node.host, &counted)?;
        }
        let devices = Some(Path::new("-"));
        let browser = Browser::start_with(&here.host, kind, Theme::Light, devices, None)?;
        let token = &meeting.network.token;
        let url = format!("{}/studio/present.html#{token}", here.origin);
        let page = browser.open_prepared("ann", NUMBERED, &url)?;
        let lcs = present_by(&page, &key)?;
        page.until_says("#camera-state", "Nobody sees your camera.")?;
        let other = Browser::start(&there.host, kind, Theme::Dark)?;
        let link = format!("{}/studio/#{token},{lcs}", there.origin);
        let tab = other.open("dora", &link)?;
        tab.click("#enter")?;
        until_slide(&tab, "Title")?;
        ensure!(tab.eval("document.querySelector('#watch').hidden")? == true);
        let _bob = attend(&b.host, "bob", &lcs, "")?;

        page.fill("#camera-words", "Ann at a desk")?;
        page.click("#camera")?;
        page.until_says("#on-air", "On air: camera")?;
        page.until("document.title.includes('Camera on air')")?;
        page.until("document.querySelector('#camera-seen').videoWidth > 0")?;
        look_at(&page, "camera")?;
        // it is listed, and not a byte of it comes
        tab.until("document.querySelector('#watch').checkVisibility()")?;
        page.until_says("#camera-state", "Nobody sees it yet")?;
        until_wanted(a, &base, false)?;
        tab.click("[data-panel=tracks]")?;
        tab.until_says("[data-track=camera]", "not joined: nothing of it comes")?;
        tab.click("[data-close=tracks]")?;

        // chosen
        choose(&tab)?;
        let (_, took) = tab.until("document.querySelector('#camera-view').checkVisibility()")?;
        println!("{kind}: the first picture came {took:?} after the click");
        until_moving(&tab, 10)?;
        until_wanted(a, &base, true)?;
        page.until_says("#camera-state", "Somebody sees it.")?;
        tab.until("document.querySelector('#camera-picture').getAttribute('aria-label').includes('Ann at a desk')")?;
        for width in [320, 1_280] {
            tab.expect_fits(width, 900)?;
            tab.inspect(&format!("camera-{width}"))?;
        }

        // a host watches it, and keeps it
        let file = a.host.path("watched.ivf");
        let watcher = watch(&a.host, &lcs, &file, "")?;
        let held = a.host.path("held");
        let text = held.display().to_string();
        let hold = ["hold", &lcs, &text, "--no-sound", "-i", "lc0"];
        let mut holder = a.host.spawn("lcstudio", &hold)?;
        until_shown(&file, 45)?;
        let bytes = bytes_of_tracks(&a.host, &counted)?;
        println!("{kind}: a host that watches got {bytes:?} bytes");
        ensure!(bytes["base"] > 0 && bytes["smooth"] > 0, "{bytes:?}");
        drop(watcher);

        // the large picture, and nothing of the small one
        press(&tab, "#camera-large")?;
        let took = until_size(&tab, "640x360")?;
        println!("{kind}: the large picture came {took:?} after it was asked for");
        until_wanted(a, &large, true)?;
        page.until_says("#camera-state", "in the large picture")?;
        for group in [&base, &smooth] {
            until_wanted(a, group, false)?;
        }
        until_moving(&tab, 10)?;
        // a pause leaves all of it
        press(&tab, "#camera-pause")?;
        until_wanted(a, &large, false)?;
        tab.until_says("#camera-state", "Paused here")?;
        // who holds the lecture has the small one
        page.until_says("#camera-state", "Somebody sees it.")?;
        press(&tab, "#camera-pause")?;
        until_wanted(a, &large, true)?;
        until_moving(&tab, 5)?;
        press(&tab, "#camera-small")?;
        until_wanted(a, &large, false)?;
        until_moving(&tab, 5)?;

        // the presenter looks at another window: her tab is hidden
        browser.open("over", &format!("{}/playground/", here.origin))?;
        browser.ask("front", "over", json!({}))?;
        page.until("document.hidden")?;
        until_moving(&tab, 30)?;
        browser.ask("front", "ann", json!({}))?;
        page.until("!document.hidden")?;

        // off, and on again with numbers, for who chose it
        press(&page, "#camera-stop")?;
        tab.until_says("#camera-state", "camera is off")?;
        page.eval("window.isNumbered = true, null")?;
        page.click("#camera")?;
        tab.until("document.querySelector('#camera-view').checkVisibility()")?;
        tab.eval(READ)?;
        eventually("numbers are shown", || {
            let filmed = page.eval("window.filmed ?? 0")?.as_i64();
            let shown = tab.eval("window.numbers.at(-1)?.number ?? -1000")?.as_i64();
            let (filmed, shown) = filmed.zip(shown).context("numbers")?;
            holds!(filmed > 60 && filmed - shown < 60, "{filmed}, {shown}")
        })?;
        for loss in [0, 5] {
            lose(&there.host, loss)?;
            tab.eval(READ)?;
            tab.until("numbers.length > 150")?;
            let ordered = "numbers.slice(1).every(({ number }, at) => number > numbers[at].number)";
            ensure!(tab.eval(ordered)? == true, "{}", tab.eval("numbers")?);
            let late = page.eval("filmed")?.as_u64();
            let late = late.zip(tab.eval("numbers.at(-1).number")?.as_u64());
            let (of, lost) = (tab.eval(FROZEN)?, dropped(&there.host)?);
            println!(
                "{kind}: {lost} datagrams lost: {of} of 1000 frozen and pictures a second; {late:?} filmed and shown"
            );
        }
        lose(&there.host, 0)?;
        press(&page, "#camera-stop")?;
        page.until("document.querySelector('#on-air').hidden && !document.title.includes('air')")?;
        tab.until_says("#camera-state", "camera is off")?;

        // the same key films on a host
        let ivf = a.host.write("film.ivf", film(60))?;
        let command = format!(
            "exec lcstudio camera {lcs} --key {key} -i lc0 - <{}",
            ivf.display()
        );
        let mut camera = a.host.spawn("sh", &["-c", &command])?;
        until_size(&tab, "64x36")?;
        until_moving(&tab, 10)?;
        camera.signal(Signal::SIGINT)?;
        camera.expect_exit(DEADLINE, 130)?;
        tab.until_says("#camera-state", "camera is off")?;
        choose(&tab)?;
        tab.until("document.querySelector('#camera').hidden")?;
        until_wanted(a, &base, false)?;

        // hosts that did not choose it got nothing
        let bytes = bytes_of_tracks(&b.host, &counted)?;
        ensure!(bytes.values().all(|bytes| *bytes == 0), "{bytes:?}");
        page.click("#end")?;
        tab.until_says("#state", "has ended")?;
        meeting.expect_clean(&browser, here)?;
        meeting.expect_clean(&other, there)?;

        // the held film plays
        holder.signal(Signal::SIGTERM)?;
        holder.expect_exit(DEADLINE, 0)?;
        plays(&a.host, kind, &held)
    });
}

/// Plays a kept film in a browser.
fn plays(host: &Host, kind: Kind, held: &Path) -> Result<()> {
    let (_server, url) = serve_folder(host, held, 8_000)?;
    let browser = Browser::start(host, kind, Theme::Light)?;
    let tab = browser.open("film", &url)?;
    tab.eval(
        "(() => { const film = Object.assign(document.createElement('video'), { muted: true, src: 'camera.webm' }); \
         document.body.append(film); film.play(); return true; })()",
    )?;
    eventually("the film plays", || {
        let at = tab.eval("document.querySelector('video').currentTime")?;
        holds!(at.as_f64().context("a time")? > 1.0, "at {at} s")
    })?;
    let size = tab.eval("document.querySelector('video').videoHeight")?;
    holds!(size == 180, "{size}")
}
