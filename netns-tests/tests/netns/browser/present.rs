//! The page that presents: a tab gives a lecture to tabs and terminals, and continues after a kill.

use super::node::{Meeting, Visitor, meeting, visited};
use super::notes::{open_notes, until_on_disk, write_at};
use super::radio::{TAP, loudspeakers, write_wav};
use super::studio::until_slide;
use super::{Browser, Page, Theme, in_each_browser};
use crate::prelude::*;
use crate::studio::{Typed, attend, keygen, present, session, until_told};

/// The second slide has content that the page must omit.
const SLIDES: &str = "# Bees\n\nThey *dance*.\n\n<!--\nbreathe out\n\nthen wave\n-->\n\n---\n\n## The waggle\n\n![](images/dance.png) <script>window.wasRun = true</script>\n\n---\n\n## How far\n\n| metres | seconds |\n|--:|:-:|\n| 100 | 0.5 |\n";

/// Opens a tab for presenting, with an invitation link.
pub(super) fn open<'a>(
    meeting: &Meeting,
    browser: &'a Browser,
    visitor: &Visitor,
    tab: &'a str,
) -> Result<Page<'a>> {
    let token = &meeting.network.token;
    let page = browser.open(
        tab,
        &format!("{}/studio/present.html#{token}", visitor.origin),
    )?;
    page.until("document.querySelector('#create')?.checkVisibility()")?;
    Ok(page)
}

/// Replaces the text of the slides, as typing does.
pub(super) fn write(page: &Page, text: &str) -> Result<()> {
    let js = format!(
        "(() => {{ const text = document.querySelector('#text'); text.value = {}; \
         text.setSelectionRange(0, 0); text.dispatchEvent(new Event('input', {{ bubbles: true }})); return true; }})()",
        json!(text)
    );
    page.eval(&js).map(drop)
}

/// Presents by the key of a session.
pub(super) fn present_by(page: &Page, key: &str) -> Result<String> {
    page.until("document.querySelector('#create')?.checkVisibility()")?;
    page.eval("document.querySelector('#choose details').open = true, null")?;
    page.upload("#key", key.as_ref())?;
    page.until("document.querySelector('#lecture').checkVisibility()")?;
    page.fill("#lecture", "Bees")?;
    go_on_air(page)
}

/// Goes on air, with at least one link; returns the session.
pub(super) fn go_on_air(page: &Page) -> Result<String> {
    // slides that nobody wrote are asked about
    let is_example = page.eval("document.querySelector('#text').value.startsWith('# Title')")?;
    page.click("#go")?;
    if is_example == true {
        page.until_says("#problem", "still the example")?;
        page.click("#go")?;
    }
    page.until("/^on air, \\d+ link/.test(document.querySelector('#state').textContent)")?;
    let text = page.eval("[...document.querySelectorAll('#texts dd span')].at(-1).textContent")?;
    let text = text.as_str().context("no session")?.to_owned();
    ensure!(text.starts_with("lcs1"), "{text}");
    Ok(text)
}

/// Checks the page at several widths: no barriers, and no sideways scrolling.
pub(super) fn look_at(page: &Page, name: &str) -> Result<()> {
    for width in [320, 390, 1_280] {
        page.expect_fits(width, 900)?;
        page.inspect(&format!("{name}-{width}"))?;
    }
    Ok(())
}

/// Presses a key, with no field in focus.
fn press(page: &Page, key: &str) -> Result<()> {
    page.eval("document.activeElement.blur()")?;
    page.press(key)
}

#[test]
#[ignore = "needs browsers; make test-all"]
fn a_tab_presents_to_tabs_and_terminals_and_goes_on_after_it_was_killed() {
    in_each_browser("studio-presents", |lab, kind| {
        let meeting = meeting(lab, &["here", "there"], false)?;
        let [a, _] = meeting.network.nodes()?;
        let [here, there] = [0, 1].map(|n| &meeting.visitors[n]);
        let browser = Browser::start(&here.host, kind, Theme::Light)?;
        let page = open(&meeting, &browser, here, "ann")?;
        look_at(&page, "door")?;
        page.click("#create")?;
        page.fill("#lecture", "Bees")?;
        page.fill("#presenter", "Ann")?;
        page.fill("#languages", "en")?;
        let (eve_key, _, eve) = keygen(&a.host, "eve.key")?;
        page.click("#settings summary")?;
        page.fill("#writers", &format!("de {eve} Eve"))?;
        page.click("#notes")?;
        let file = here.host.path("bees.md");
        fs::write(&file, SLIDES)?;
        page.upload("#file", &file)?;
        page.until_says("#seen :is(h2, h3)", "Bees")?;
        page.until_says("#problems", "has no alt text")?;
        page.until_says("#problems", "HTML is shown as text")?;
        page.until_says("#seen-notes", "breathe out")?;
        look_at(&page, "prepare")?;
        let lcs = go_on_air(&page)?;
        page.until_says("#listeners", "Nobody listens yet.")?;
        page.until_says("#own-notes", "breathe out")?;
        // a terminal and another browser
        let mut bob = attend(&a.host, "bob", &lcs, "--name Bob")?;
        let other = Browser::start(&there.host, kind, Theme::Dark)?;
        let link = format!("{}/node/#{},{lcs}", there.origin, meeting.network.token);
        let tab = other.open("dora", &link)?;
        tab.until("document.querySelector('#enter')?.checkVisibility()")?;
        tab.click("#enter")?;
        until_slide(&tab, "Bees")?;
        let bob_got =
            |event: &str, key: &str, value: Value| until_told(&bob.process, event, key, &value);
        bob_got("slide", "number", 1.into())?;
        page.until_says("#listeners", "Somebody listens")?;
        // private comments
        let got = tab.eval("document.body.textContent.includes('breathe')")?;
        ensure!(got == false && !bob.process.stdout().contains("breathe"));
        // by keyboard, as clickers do, and by the list
        press(&page, "PageDown")?;
        until_slide(&tab, "The waggle")?;
        bob_got("slide", "number", 2.into())?;
        let ran = "window.wasRun === undefined && !document.querySelector('#slide script')";
        ensure!(page.eval(ran)? == true && tab.eval(ran)? == true);
        press(&page, "ArrowLeft")?;
        until_slide(&tab, "Bees")?;
        // a caption, and its correction
        page.enter("#words", "god evening")?;
        tab.until_says("#log", "god evening")?;
        page.enter("#words", "^ good evening")?;
        tab.until_says("#log .corrected", "good evening")?;
        bob_got("caption", "text", "good evening".into())?;
        page.until_says("#lines", "good evening")?;
        // by a captioner that this lecture permits
        let command = format!("lcstudio caption {lcs} --key {eve_key} --lang de -i lc0 -");
        let mut eve = Typed::start(&a.host, "eve", &command)?;
        eve.types("guten Abend")?;
        page.until_says("#lines", "guten Abend")?;
        // a question, from a terminal
        bob.types("how far do they fly?")?;
        page.until_says("#asked", "Bob: how far do they fly?")?;
        page.click("#asked button")?;
        tab.until_says("#asked", "how far do they fly?")?;
        page.until_says("#asked button", "All see it")?;
        let bob_got =
            |event: &str, key: &str, value: Value| until_told(&bob.process, event, key, &value);
        bob_got("question", "text", "how far do they fly?".into())?;
        look_at(&page, "live")?;
        // a request to write notes is granted without a click
        open_notes(&tab)?;
        write_at(&tab, 0, "A second is a kilometre.")?;
        // a grant, and the text
        until_on_disk(&tab, 2, 0)?;
        tab.click("[data-close=notes]")?;
        // other slides, sent once the presenter releases them
        page.click("#edit")?;
        write(
            &page,
            &SLIDES.replace("They *dance*", "They dance in the dark"),
        )?;
        page.until_says("#seen", "in the dark")?;
        look_at(&page, "edit")?;
        let early = tab.eval("document.body.textContent.includes('in the dark')")?;
        ensure!(early == false, "what is being written was sent");
        page.click("#publish")?;
        tab.until_says("#slide", "in the dark")?;
        page.click("#edit")?;
        meeting.expect_clean(&browser, here)?;
        // SIGKILL for the browser and its processes
        drop(browser);
        let browser = Browser::start(&here.host, kind, Theme::Light)?;
        // without the token: the browser has kept it
        let page = browser.open("again", &format!("{}/studio/present.html", here.origin))?;
        page.until_says("#lectures", "Bees")?;
        look_at(&page, "lectures")?;
        page.click("#lectures .primary")?;
        page.until("document.querySelector('#text').value.includes('in the dark')")?;
        page.until("document.querySelector('#kept-token').checkVisibility() && document.querySelector('#token').value === ''")?;
        ensure!(go_on_air(&page)? == lcs);
        page.until_says("#lines", "good evening")?;
        press(&page, "End")?;
        until_slide(&tab, "How far")?;
        bob_got("slide", "number", 3.into())?;
        page.enter("#words", "as I said")?;
        bob_got("caption", "text", "as I said".into())?;
        // a key is used in one place at a time
        let second = open(&meeting, &browser, here, "second")?;
        second.click("#lectures .primary")?;
        second.until_says("#problem", "Another tab of this browser")?;
        // the same member, after a reload
        page.reload()?;
        page.until("/^on air, \\d+ link/.test(document.querySelector('#state').textContent)")?;
        until_slide(&page, "How far")?;
        page.until_says("#texts", "Link for others")?;
        page.click("#forget-token-now")?;
        page.until("!document.querySelector('#texts').textContent.includes('Link for others') && document.querySelector('#forget-token-now').hidden")?;
        page.click("#end")?;
        tab.until_says("#state", "has ended")?;
        bob.process.expect_exit(DEADLINE, 0)?;
        let shown = tab.eval("document.querySelector('#problem').textContent")?;
        ensure!(shown == "", "{shown}");
        meeting.expect_clean(&browser, here)
    });
}

#[test]
#[ignore = "needs browsers; make test-all"]
fn a_tab_whose_key_presents_on_a_terminal_as_well_says_so_and_ends() {
    visited("studio-presents-twice", |kind, meeting, [a, _], here| {
        let (folder, key, lcs) = session(&a.host, None)?;
        let browser = Browser::start(&here.host, kind, Theme::Dark)?;
        let page = open(meeting, &browser, here, "ann")?;
        let (public, ..) = keygen(&here.host, "other.key")?;
        page.eval("document.querySelector('#choose details').open = true, null")?;
        page.upload("#key", format!("{public}.pub").as_ref())?;
        page.until_says("#problem", "This file is no key")?;
        page.upload("#key", key.as_ref())?;
        page.until("document.querySelector('#lecture').checkVisibility()")?;
        page.fill("#lecture", "Bees")?;
        ensure!(go_on_air(&page)? == lcs, "the session of another key");
        let presenter = present(&a.host, &folder, &key)?;
        page.until_says("#problem", "Another host presents this session")?;
        page.until_says("#state", "not on air")?;
        let said = presenter.process.stderr();
        holds!(!said.contains("two hosts"), "{said}")
    });
}

#[test]
#[ignore = "needs browsers; make test-all"]
fn a_tab_that_presents_is_heard_by_who_chooses_its_sound() {
    in_each_browser("studio-presents-sound", |lab, kind| {
        let meeting = meeting(lab, &["here", "there"], false)?;
        let [here, there] = [0, 1].map(|n| &meeting.visitors[n]);
        let wav = write_wav(&here.host, 60)?;
        let (_quiet, silent) = loudspeakers(&here.host)?;
        let (theme, microphone) = (Theme::Light, Some(wav.as_path()));
        let browser = Browser::start_with(&here.host, kind, theme, microphone, Some(&silent))?;
        let page = open(&meeting, &browser, here, "ann")?;
        page.click("#create")?;
        page.fill("#lecture", "Bees")?;
        page.fill("#languages", "en")?;
        let lcs = go_on_air(&page)?;
        let (_server, output) = loudspeakers(&there.host)?;
        let other = Browser::start_with(&there.host, kind, theme, None, Some(&output))?;
        let token = &meeting.network.token;
        let tab = other.open("dora", &format!("{}/studio/#{token},{lcs}", there.origin))?;
        tab.eval(TAP)?;
        tab.click("#enter")?;
        until_slide(&tab, "Title")?;
        page.click("#microphone")?;
        page.until_says("#voice-state", "Listeners hear you")?;
        look_at(&page, "sound")?;
        tab.click("[data-panel=tracks]")?;
        tab.click("[data-track='audio/en'] input")?;
        tab.until_says("[data-track='audio/en']", "playing")?;
        let sounds = "played.slice(-8).some((plane) => plane.some((s) => Math.abs(s) > 0.02))";
        tab.until(sounds)?;
        page.click("#mute")?;
        page.until_says("#voice-state", "Listeners hear silence")?;
        tab.until(&format!("played.length > 8 && !{sounds}"))?;
        page.click("#mute")?;
        tab.until(sounds)?;
        page.click("#microphone")?;
        page.until_says("#voice-state", "Nobody hears you")?;
        tab.until_says("[data-track='audio/en']", "the sound has ended")?;
        meeting.expect_clean(&browser, here)
    });
}

/// Makes the browser's store full; the second one makes deletion fail.
pub(super) const FULL: &str = "IDBObjectStore.prototype.put = () => { throw new DOMException('full', 'QuotaExceededError'); }, null";
pub(super) const BROKEN: &str = "IDBObjectStore.prototype.delete = () => { throw new DOMException('gone', 'UnknownError'); }, null";

/// Refuses all storage, as in some private windows.
const REFUSED: &str = "IDBFactory.prototype.open = () => { throw new DOMException('not in this window', 'SecurityError'); }";

/// Expression for the number of lectures on this browser's disk.
const LECTURES: &str = "new Promise((resolve) => { indexedDB.open('lcroute presents').onsuccess = ({ target }) => { \
    target.result.transaction('lectures').objectStore('lectures').count().onsuccess = (counted) => { \
        target.result.close(); resolve(counted.target.result); }; }; })";

#[test]
#[ignore = "needs browsers; make test-all"]
fn a_tab_whose_store_fails_forgets_its_key_or_sends_nothing_more() {
    visited("studio-presents-full", |kind, meeting, [a, _], here| {
        let browser = Browser::start(&here.host, kind, Theme::Dark)?;
        let begin = |tab| -> Result<(Page, String)> {
            let page = open(meeting, &browser, here, tab)?;
            page.click("#create")?;
            page.fill("#lecture", "Bees")?;
            let lcs = go_on_air(&page)?;
            Ok((page, lcs))
        };
        let say = |page: &Page, words: &str| page.enter("#words", words);
        // full: the key is not used again, and the lecture continues
        let (page, lcs) = begin("full")?;
        let bob = attend(&a.host, "bob", &lcs, "")?;
        ensure!(page.eval(LECTURES)? == 1);
        page.eval(FULL)?;
        say(&page, "they dance")?;
        page.until_says("#notice", "its storage is full")?;
        until_told(&bob.process, "caption", "text", &"they dance".into())?;
        ensure!(page.eval(LECTURES)? == 0, "the key is still there");
        page.expect_open_to_all()?;
        // broken: nothing leaves any more
        let (page, lcs) = begin("broken")?;
        let eve = attend(&a.host, "eve", &lcs, "")?;
        until_told(&eve.process, "slide", "number", &1.into())?;
        page.eval(FULL)?;
        page.eval(BROKEN)?;
        say(&page, "nobody reads this")?;
        page.until_says("#problem", "Nothing more is sent")?;
        page.until_says("#state", "not on air")?;
        let said = eve.process.stdout();
        ensure!(!said.contains("nobody reads this"), "{said}");
        // refused from the start: a lecture of this tab alone
        let token = &meeting.network.token;
        let url = format!("{}/studio/present.html#{token}", here.origin);
        let page = browser.open_prepared("refused", REFUSED, &url)?;
        page.until_says("#notice", "keeps no lectures: not in this window")?;
        let key = here.host.path("other.key");
        fs::write(&key, [9; 32])?;
        page.click("#choose summary")?;
        page.upload("#key", &key)?;
        page.until_says(
            "#problem",
            "needs a browser that keeps what was sent with it",
        )?;
        page.click("#create")?;
        page.until_says("#where-kept", "A reload ends it")?;
        page.fill("#lecture", "Wasps")?;
        let lcs = go_on_air(&page)?;
        page.until_says("#notice", "keeps nothing of this lecture")?;
        let tim = attend(&a.host, "tim", &lcs, "")?;
        say(&page, "they sting")?;
        until_told(&tim.process, "caption", "text", &"they sting".into())
    });
}
