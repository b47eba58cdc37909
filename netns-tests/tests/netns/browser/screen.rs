//! The screen of a lecture in tabs: a tab shows one, others choose it. No browser without a window
//! starts `getDisplayMedia`, so a canvas stands in for the screen.

use super::node::{lose, meeting, until_wanted};
use super::present::{look_at, present_by};
use super::studio::until_slide;
use super::{Browser, Kind, Page, Theme, in_each_browser};
use crate::prelude::*;
use crate::studio::session;
use crate::studio_screen::groups_of_screen;

/// A screen of words. `turn(n)` shows another page, `word(n)` writes one word, `photo(n)` shows
/// noise, as a photograph has it. Chromium gets each picture at once, also while its tab is hidden.
const STAND_IN: &str = r"(() => {
    // the empty page before it has no secure context
    if (!navigator.mediaDevices) {
        return;
    }
    const source = document.createElement('canvas');
    [source.width, source.height] = [1280, 720];
    const context = source.getContext('2d', { alpha: false });
    let seed = 1;
    const random = (below) => {
        seed = (Math.imul(seed, 1103515245) + 12345) >>> 0;
        return Math.floor((seed / 2 ** 32) * below);
    };
    const letters = () => Array.from({ length: 3 + random(7) }, () => String.fromCharCode(97 + random(26))).join('');
    let frame = () => {};
    window.word = (n) => {
        seed = n * 7919;
        context.fillStyle = '#fff';
        context.fillRect(600, 300, 90, 24);
        context.fillStyle = '#123';
        context.fillText(letters(), 602, 318);
        frame();
    };
    window.turn = (n) => {
        seed = n;
        context.fillStyle = '#fff';
        context.fillRect(0, 0, 1280, 720);
        context.font = '16px sans-serif';
        context.fillStyle = '#123';
        for (let line = 0; line < 34; line += 1) {
            for (let x = 12; x < 1200; x += 75) {
                context.fillText(letters(), x, 26 + line * 20);
            }
        }
        window.word(n);
    };
    window.photo = (n) => {
        seed = n;
        const noise = context.createImageData(1280, 720);
        // four bits a pixel: without loss half a megabyte
        for (let at = 0; at < noise.data.length; at += 4) {
            noise.data.set([120 + random(16), 100, 60, 255], at);
        }
        context.putImageData(noise, 0, 0);
        frame();
    };
    window.source = source;
    navigator.mediaDevices.getDisplayMedia = async () => {
        if (!window.MediaStreamTrackGenerator) {
            // Firefox captures a canvas only once it is drawn on: a pixel, as it is
            const stream = source.captureStream(5);
            const drawn = setInterval(() => context.drawImage(source, 0, 0, 1, 1, 0, 0, 1, 1), 200);
            const [track] = stream.getTracks();
            const stop = track.stop.bind(track);
            track.stop = () => {
                clearInterval(drawn);
                stop();
            };
            return stream;
        }
        const track = new MediaStreamTrackGenerator({ kind: 'video' });
        const writer = track.writable.getWriter();
        let time = 0;
        frame = () => writer.write(new VideoFrame(source, { timestamp: (time += 100_000) })).catch(() => {});
        frame();
        const again = setInterval(frame, 500);
        const stop = track.stop.bind(track);
        track.stop = () => {
            clearInterval(again);
            window.hasStopped = true;
            stop();
        };
        return new MediaStream([track]);
    };
    window.turn(1);
})()";

/// A function of size and pixels of a canvas, as a short text.
fn pixels(canvas: &str) -> String {
    format!(
        "(() => {{ const canvas = {canvas}; const {{ width, height }} = canvas; \
         const {{ data }} = canvas.getContext('2d').getImageData(0, 0, width, height); let hash = 2166136261; \
         for (const byte of data) hash = Math.imul(hash ^ byte, 16777619); return `${{width}}x${{height}} ${{hash >>> 0}}`; }})()"
    )
}

fn sent() -> String {
    pixels("document.querySelector('#screen-seen')")
}

fn shown() -> String {
    pixels("document.querySelector('#screen-picture')")
}

/// Waits until this page draws each pixel that the presenter's page has read last.
fn until_exact(presenter: &Page, tab: &Page) -> Result<Duration> {
    let wanted = presenter.eval(&sent())?;
    let (_, took) = tab.until(&format!("{} === {wanted}", shown()))?;
    Ok(took)
}

/// Draws on the screen, and waits until the presenter's page has read it.
fn change(presenter: &Page, js: &str) -> Result<()> {
    let before = presenter.eval(&sent())?;
    presenter.eval(&format!("{js}, null"))?;
    presenter
        .until(&format!("{} !== {before}", sent()))
        .map(drop)
}

/// Joins the screen, or leaves it.
fn choose(tab: &Page) -> Result<()> {
    tab.eval("document.querySelector('#see').click(), null")
        .map(drop)
}

/// How many pixels of the screen differ from those that the presenter's page has read: a capture
/// may change colours, what follows may not.
fn captured(presenter: &Page) -> Result<Value> {
    presenter.eval(
        "(() => { const [a, b] = [source, document.querySelector('#screen-seen')].map((c) => c.getContext('2d').getImageData(0, 0, 1280, 720).data); \
         let count = 0; for (let at = 0; at < a.length; at += 4) count += a[at] !== b[at] || a[at + 1] !== b[at + 1] || a[at + 2] !== b[at + 2]; return count; })()",
    )
}

#[test]
#[ignore = "needs browsers; make test-all"]
fn a_tab_shows_its_screen_exactly_to_tabs_that_chose_it() {
    in_each_browser("studio-screen-page", |lab, kind| {
        let meeting = meeting(lab, &["here", "there"], false)?;
        let [a, _] = meeting.network.nodes()?;
        let [here, there] = [0, 1].map(|n| &meeting.visitors[n]);
        let (_, key, _) = session(&a.host, None)?;
        let groups = groups_of_screen(&key)?;
        let [live, carousel] = ["live", "carousel"].map(|name| groups[name].to_string());
        let browser = Browser::start(&here.host, kind, Theme::Light)?;
        let token = &meeting.network.token;
        let url = format!("{}/studio/present.html#{token}", here.origin);
        let page = browser.open_prepared("ann", STAND_IN, &url)?;
        let lcs = present_by(&page, &key)?;
        page.until_says("#screen-state", "Nobody sees your screen.")?;
        ensure!(page.eval("document.querySelector('#screen-lint').checkVisibility()")? == true);
        let other = Browser::start(&there.host, kind, Theme::Dark)?;
        let link = format!("{}/studio/#{token},{lcs}", there.origin);
        let tab = other.open("dora", &link)?;
        tab.click("#enter")?;
        until_slide(&tab, "Title")?;
        ensure!(tab.eval("document.querySelector('#see').hidden")? == true);

        page.click("#screen")?;
        page.until_says("#on-air", "On air: screen")?;
        page.until_says("#screen-state", "1280 × 720 pixels, each pixel as it is")?;
        page.until("document.title.includes('Screen on air')")?;
        println!(
            "{kind}: {} pixels differ from the screen in the capture",
            captured(&page)?
        );
        // it is listed, and not a byte of it comes
        tab.until("document.querySelector('#see').checkVisibility()")?;
        change(&page, "turn(2)")?;
        page.until_says("#screen-state", "Nobody sees it yet")?;
        until_wanted(a, &live, false)?;
        tab.click("[data-panel=tracks]")?;
        tab.until_says("[data-track=screen]", "not joined: nothing of it comes")?;
        tab.click("[data-close=tracks]")?;

        // chosen: each pixel, and the carousel is left
        choose(&tab)?;
        let (_, took) = tab.until("document.querySelector('#screen-view').checkVisibility()")?;
        println!("{kind}: the first picture came {took:?} after the click");
        until_exact(&page, &tab)?;
        until_wanted(a, &live, true)?;
        until_wanted(a, &carousel, false)?;
        page.until_says("#screen-state", "Somebody sees it")?;
        for n in 1..5 {
            change(&page, &format!("word({n})"))?;
            println!("{kind}: a word came after {:?}", until_exact(&page, &tab)?);
        }
        page.fill("#screen-words", "a page of words")?;
        page.eval("document.querySelector('#screen-words').blur(), null")?;
        tab.until("document.querySelector('#screen-picture').getAttribute('aria-label').includes('a page of words')")?;
        ensure!(page.eval("document.querySelector('#screen-lint').hidden")? == true);
        look_at(&page, "screen")?;

        // its reader: larger, with and without a mouse, and a pause
        for width in [320, 1_280] {
            tab.expect_fits(width, 900)?;
            tab.inspect(&format!("screen-{width}"))?;
        }
        // one part of the stage is large, by a click the slides, and again the screen
        for (large, small) in [("stage", "screen"), ("screen", "stage")] {
            tab.click(&format!("[data-enlarge={large}]"))?;
            tab.until(&format!(
                "document.querySelector('#{large}').matches('.large') && !document.querySelector('#{small}').matches('.large') \
                 && document.querySelector('#{large}').offsetWidth > 2 * document.querySelector('#{small}').offsetWidth"
            ))?;
            tab.expect_fits(390, 844)?;
            tab.expect_open_to_all()?;
            tab.expect_fits(1_280, 900)?;
        }
        tab.eval("document.querySelector('#screen-view').focus(), null")?;
        for (key, width) in [
            ("+", 1_280),
            ("+", 2_560),
            ("+", 3_840),
            ("+", 5_120),
            ("+", 5_120),
            ("-", 3_840),
        ] {
            tab.press(key)?;
            tab.until(&format!(
                "document.querySelector('#screen-picture').getBoundingClientRect().width === {width}"
            ))?;
        }
        tab.expect_fits(320, 900)?;
        tab.expect_open_to_all()?;
        tab.expect_fits(1_280, 900)?;
        tab.press("0")?;
        tab.click("#screen-pause")?;
        until_wanted(a, &live, false)?;
        tab.until_says("#screen-state", "Paused here")?;
        let before = tab.eval(&shown())?;
        change(&page, "turn(3)")?;
        page.until_says("#screen-state", "Nobody sees it yet")?;
        ensure!(tab.eval(&shown())? == before, "it moved in a pause");
        tab.click("#screen-pause")?;
        until_exact(&page, &tab)?;

        // who comes late, and loses a fifth of what comes
        lose(&there.host, 20)?;
        let late = other.open("tim", &link)?;
        late.click("#enter")?;
        // chosen in this browser before
        late.until("document.querySelector('#screen-view').checkVisibility()")?;
        println!(
            "{kind}: late, at a fifth of loss, after {:?}",
            until_exact(&page, &late)?
        );
        change(&page, "turn(4)")?;
        until_exact(&page, &late)?;
        until_exact(&page, &tab)?;
        lose(&there.host, 0)?;
        // the picture moves what stands below it: no mouse
        choose(&late)?;
        late.until("document.querySelector('#screen').hidden")?;

        if kind == Kind::Chromium {
            hidden(&browser, &page, &tab, &here.origin)?;
        }

        // left by its reader, within a moment
        choose(&tab)?;
        until_wanted(a, &live, false)?;
        choose(&tab)?;
        until_exact(&page, &tab)?;
        // the end
        page.click("#screen-stop")?;
        page.until(
            "document.querySelector('#on-air').hidden && !document.title.includes('Screen')",
        )?;
        if kind == Kind::Chromium {
            page.until("window.hasStopped")?;
        }
        tab.until_says("#screen-state", "shows no screen any more")?;
        ensure!(tab.eval("document.querySelector('#screen-view').checkVisibility()")? == false);
        // and once more, on a lecture that goes on
        page.click("#screen")?;
        tab.until("document.querySelector('#screen-view').checkVisibility()")?;
        until_exact(&page, &tab)?;
        page.click("#end")?;
        tab.until_says("#state", "has ended")?;
        page.until("document.querySelector('#on-air').hidden")?;
        meeting.expect_clean(&browser, here)?;
        meeting.expect_clean(&other, there)
    });
}

/// The presenter looks at another window: her tab is hidden, and its timers are slow.
fn hidden(browser: &Browser, page: &Page, tab: &Page, origin: &str) -> Result<()> {
    browser.open("over", &format!("{origin}/playground/"))?;
    browser.ask("front", "over", json!({}))?;
    page.until("document.hidden")?;
    change(page, "turn(5)")?;
    println!("hidden: a page came after {:?}", until_exact(page, tab)?);
    change(page, "word(77)")?;
    println!("hidden: a word came after {:?}", until_exact(page, tab)?);
    // a photograph: with losses at first, and each pixel once it rests
    change(page, "photo(1)")?;
    let before = tab.eval(&shown())?;
    eventually("the photograph is coming", || {
        holds!(tab.eval(&shown())? != before, "not yet")
    })?;
    until_exact(page, tab)?;
    page.until_says("#screen-state", "each pixel as it is")?;
    change(page, "turn(6)")?;
    until_exact(page, tab)?;
    browser.ask("front", "ann", json!({}))?;
    page.until("!document.hidden")
        .map(drop)
        .context("seen again")
}
