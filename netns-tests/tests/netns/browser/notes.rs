//! Notes of a lecture: tabs write one document, also without a network, without loss.

use super::node::{Meeting, Visitor, meeting};
use super::present::{BROKEN, FULL};
use super::{Browser, Page, Theme, in_each_browser};
use crate::prelude::*;
use crate::studio::{Typed, present, session, turn_on};
use crate::studio_notes::NotesFile;

const TEXT: &str = "document.querySelector('#text').value";

/// Expression for the numbers of records and drafts of notes on this browser's disk.
const DISK: &str = "(async () => { \
    const done = (request) => new Promise((resolve) => (request.onsuccess = () => resolve(request.result))); \
    const database = await done(indexedDB.open('lcroute studio')); \
    const disk = database.transaction(['records', 'drafts']); \
    const [records, drafts] = await Promise.all([done(disk.objectStore('records').getAll()), done(disk.objectStore('drafts').count())]); \
    database.close(); \
    return [records.filter(({ kind }) => kind === 1).length, drafts]; })()";

/// Waits until this number of records and drafts is on disk.
pub(super) fn until_on_disk(page: &Page, records: usize, drafts: usize) -> Result<()> {
    let js = format!("{DISK}.then((found) => found[0] >= {records} && found[1] === {drafts})");
    page.until(&js).map(drop)
}

/// A session with notes that all may write, on air; another host holds it.
struct Lecture {
    meeting: Meeting,
    presenter: Typed,
    _holder: Process,
    lcs: String,
}

impl Lecture {
    fn begin(lab: &Lab, visitors: &[&str]) -> Result<Self> {
        let meeting = meeting(lab, visitors, false)?;
        let [a, b] = meeting.network.nodes()?;
        let (folder, key, lcs) = session(&a.host, None)?;
        turn_on(&folder, "notes")?;
        let presenter = present(&a.host, &folder, &key)?;
        let holder = hold(&b.host, &lcs)?;
        Ok(Self {
            meeting,
            presenter,
            _holder: holder,
            lcs,
        })
    }

    /// Opens a tab that attends.
    fn attend<'a>(
        &self,
        browser: &'a Browser,
        visitor: &Visitor,
        tab: &'a str,
    ) -> Result<Page<'a>> {
        let token = &self.meeting.network.token;
        // by name: at http://[::1] Firefox has no store for service workers
        let origin = visitor.origin.replace("[::1]", "localhost");
        let link = format!("{origin}/studio/#{token},{}", self.lcs);
        let page = browser.open(tab, &link)?;
        page.until("document.querySelector('#enter')?.checkVisibility()")?;
        page.click("#enter")?;
        Ok(page)
    }
}

fn hold(host: &Host, lcs: &str) -> Result<Process> {
    let kept = host.path("kept").display().to_string();
    host.spawn("lcstudio", &["hold", lcs, &kept, "--no-sound", "-i", "lc0"])
}

pub(super) fn open_notes(page: &Page) -> Result<()> {
    page.until("!document.querySelector('[data-panel=notes]').hidden")?;
    page.click("[data-panel=notes]")?;
    until_open(page)
}

fn until_open(page: &Page) -> Result<()> {
    page.until("!document.querySelector('#text').readOnly")
        .map(drop)
}

/// Types at a place in the text; a negative one counts from the end.
pub(super) fn write_at(page: &Page, place: i32, text: &str) -> Result<()> {
    page.eval(&format!(
        "(() => {{ const text = document.querySelector('#text'); const at = {place} < 0 ? text.value.length + 1 + {place} : {place}; \
         text.focus(); text.setSelectionRange(at, at); return true; }})()"
    ))?;
    page.ask("type", json!({ "at": "#text", "text": text }))
        .map(drop)
}

/// Types in place of these words.
fn rewrite(page: &Page, words: &str, text: &str) -> Result<()> {
    page.eval(&format!(
        "(() => {{ const text = document.querySelector('#text'); const at = text.value.indexOf({0}); \
         text.focus(); text.setSelectionRange(at, at + {0}.length); return true; }})()",
        json!(words)
    ))?;
    page.ask("type", json!({ "at": "#text", "text": text }))
        .map(drop)
}

fn until_text(page: &Page, text: &str) -> Result<()> {
    page.until(&format!("{TEXT} === {}", json!(text))).map(drop)
}

/// Waits until both tabs show the same text, with all of these words.
fn until_equal(pages: [&Page; 2], words: &[&str]) -> Result<String> {
    let mut text = String::new();
    eventually("the same text in both tabs", || {
        let [one, other] = [pages[0].eval(TEXT)?, pages[1].eval(TEXT)?];
        ensure!(one == other, "{one}\n{other}");
        text = one.as_str().unwrap_or_default().to_owned();
        let lacking: Vec<_> = words.iter().filter(|word| !text.contains(**word)).collect();
        holds!(lacking.is_empty(), "{text} lacks {lacking:?}")
    })?;
    Ok(text)
}

/// Waits until the state of the notes begins with these words.
fn until_said(page: &Page, words: &str) -> Result<()> {
    page.until_says("#notes-state", words).map(drop)
}

#[test]
#[ignore = "needs browsers; make test-all"]
fn tabs_and_a_host_write_one_text_also_without_a_network_and_who_comes_late_gets_it() {
    in_each_browser("notes-offline", |lab, kind| {
        let mut lecture = Lecture::begin(lab, &["here", "there"])?;
        let [here, there] = [0, 1].map(|n| &lecture.meeting.visitors[n]);
        let browsers = [
            Browser::start(&here.host, kind, Theme::Light)?,
            Browser::start(&there.host, kind, Theme::Dark)?,
        ];
        let one = lecture.attend(&browsers[0], here, "one")?;
        let other = lecture.attend(&browsers[1], there, "other")?;
        let asked = one.eval(
            "performance.getEntriesByType('resource').some(({ name }) => name.includes('loro'))",
        )?;
        ensure!(asked == false, "Loro came before anybody opened the notes");
        open_notes(&one)?;
        open_notes(&other)?;
        write_at(&one, 0, "Bees dance.")?;
        until_text(&other, "Bees dance.")?;
        // both at once: each text stays in its place
        write_at(&other, 0, "# Notes\n\n")?;
        write_at(&one, -1, "\nA second is a kilometre.")?;
        let words = ["# Notes", "Bees dance.", "A second is a kilometre."];
        let live = until_equal([&one, &other], &words)?;
        ensure!(
            live == "# Notes\n\nBees dance.\nA second is a kilometre.",
            "{live}"
        );
        until_said(&one, "All who attend read this")?;
        let [_, b] = lecture.meeting.network.nodes()?;
        let host = NotesFile::start(&b.host, &lecture.lcs, "lc0")?;
        host.until(&live)?;
        look_at(&one)?;
        let server = lecture.meeting.network.signalling.url()?;
        let as_http = server.replace("ws:", "http:");
        browsers[0].expect_clean(&["http://localhost:7180", &server, &as_http])?;
        // all hosts are cut off
        for cut in [&here.host, &there.host, &b.host] {
            cut.cut_uplink()?;
        }
        for page in [&one, &other] {
            until_said(page, "Offline")?;
        }
        write_at(&one, 0, "written here 🐝\n")?;
        write_at(&other, -1, "\nwritten there")?;
        let dance = "Bees dance, written on a host.";
        fs::write(&host.path, live.replace("Bees dance.", dance))?;
        host.until_kept("written on a host")?;
        for page in [&one, &other] {
            page.until("/Offline, \\d+ changes? kept here/.test(document.querySelector('#notes-state').textContent)")?;
        }
        one.shot("offline")?;
        let apart = [one.eval(TEXT)?, other.eval(TEXT)?];
        ensure!(apart[0] != apart[1], "{apart:?}");
        for cut in [&here.host, &there.host, &b.host] {
            cut.heal_uplink()?;
        }
        let words = ["written here 🐝", "written there", dance];
        let text = until_equal([&one, &other], &words)?;
        host.until(&text)?;
        for page in [&one, &other] {
            until_said(page, "All who attend read this")?;
        }
        // the same words of one line, in both tabs
        for cut in [&here.host, &there.host] {
            cut.cut_uplink()?;
        }
        for page in [&one, &other] {
            until_said(page, "Offline")?;
        }
        rewrite(&one, "# Notes", "# Bees, and flowers")?;
        rewrite(&other, "# Notes", "# All of the honey")?;
        for page in [&one, &other] {
            page.until("/Offline, \\d+ changes? kept here/.test(document.querySelector('#notes-state').textContent)")?;
        }
        for cut in [&here.host, &there.host] {
            cut.heal_uplink()?;
        }
        for (page, own) in [
            (&one, "# Bees, and flowers"),
            (&other, "# All of the honey"),
        ] {
            let found = "[...document.querySelectorAll('#apart:not([hidden]) q')].map((q) => q.textContent).sort().join()";
            page.until(&format!(
                "{found} === '# All of the honey,# Bees, and flowers'"
            ))?;
            page.until(&format!(
                "[...document.querySelectorAll('#apart li li')].some((item) => item.textContent.startsWith('you{own}'))"
            ))?;
        }
        eventually("the file has both lines", || {
            let there = host.read()?;
            let marks = [
                "[1 of 2, by ",
                "[2 of 2, by ",
                "] # Bees, and flowers\n",
                "] # All of the honey\n",
            ];
            holds!(marks.iter().all(|mark| there.contains(mark)), "{there}")
        })?;
        one.eval("document.querySelector('#apart').scrollIntoView()")?;
        one.inspect("written-at-once")?;
        one.expect_fits_a_phone()?;
        one.eval("[...document.querySelectorAll('#apart li li')].find((item) => item.textContent.includes('honey')).querySelector('button').click()")?;
        let text = text.replace("# Notes", "# All of the honey");
        for page in [&one, &other] {
            until_text(page, &text)?;
            page.until("document.querySelector('#apart').hidden")?;
        }
        host.until(&text)?;
        // all authors leave; a later tab gets the text from the host that holds it
        lecture.presenter.types("q")?;
        lecture.presenter.process.expect_exit(DEADLINE, 0)?;
        drop(browsers);
        let profile = there.host.path(&format!("{kind}-light"));
        ensure!(!profile.exists(), "this browser knows nothing yet");
        let late = Browser::start(&there.host, kind, Theme::Light)?;
        let page = lecture.attend(&late, there, "late")?;
        open_notes(&page)?;
        until_text(&page, &text)
    });
}

/// Checks the page at several widths: no barriers, and no sideways scrolling.
fn look_at(page: &Page) -> Result<()> {
    page.expect_open_to_all()?;
    for width in [320, 390, 1_280] {
        page.expect_fits(width, 900)?;
        page.shot(&width.to_string())?;
    }
    Ok(())
}

#[test]
#[ignore = "needs browsers; make test-all"]
fn a_tab_that_is_killed_between_writing_and_sending_loses_nothing() {
    in_each_browser("notes-killed", |lab, kind| {
        let lecture = Lecture::begin(lab, &["here", "there"])?;
        let [here, there] = [0, 1].map(|n| &lecture.meeting.visitors[n]);
        let browser = Browser::start(&here.host, kind, Theme::Light)?;
        let page = lecture.attend(&browser, here, "one")?;
        open_notes(&page)?;
        write_at(&page, 0, "sent.")?;
        // a grant, and the text
        until_on_disk(&page, 2, 0)?;
        page.until("caches.open('lcroute studio').then(async (cache) => (await cache.keys()).some(({ url }) => url.endsWith('loro.wasm')))")?;
        here.host.cut_uplink()?;
        until_said(&page, "Offline")?;
        // like a paste, so that one change has all of it
        page.eval("(() => { const text = document.querySelector('#text'); text.focus(); text.setSelectionRange(5, 5); \
            return document.execCommand('insertText', false, ' kept.'); })()")?;
        until_said(&page, "Offline, 1 change kept here")?;
        until_on_disk(&page, 2, 1)?;
        // SIGKILL for the browser and its processes; the server of the page is gone as well
        drop(browser);
        here.stop_pages()?;
        let browser = Browser::start(&here.host, kind, Theme::Light)?;
        let page = lecture.attend(&browser, here, "again")?;
        page.until_says("#title", "Bees")?;
        // notes with drafts open by themselves
        until_open(&page)?;
        until_text(&page, "sent. kept.")?;
        page.click("[data-panel=notes]")?;
        until_said(&page, "kept here")?;
        page.shot("again")?;
        // another tab of this browser is another author
        let third = lecture.attend(&browser, here, "third")?;
        open_notes(&third)?;
        until_text(&third, "sent.")?;
        here.host.heal_uplink()?;
        let other = Browser::start(&there.host, kind, Theme::Light)?;
        let far = lecture.attend(&other, there, "far")?;
        open_notes(&far)?;
        until_text(&far, "sent. kept.")?;
        write_at(&third, 0, "third ")?;
        let text = until_equal([&page, &far], &["third ", "sent. kept."])?;
        until_text(&third, &text)?;
        let said = lecture.presenter.process.stderr();
        holds!(!said.contains("two hosts"), "{said}")
    });
}

/// Expression for the number of keys for notes on this browser's disk.
const KEYS: &str = "new Promise((resolve) => { indexedDB.open('lcroute studio').onsuccess = ({ target }) => { \
    target.result.transaction('keys').objectStore('keys').count().onsuccess = (counted) => { \
        target.result.close(); resolve(counted.target.result); }; }; })";

#[test]
#[ignore = "needs browsers; make test-all"]
fn a_browser_that_is_full_says_so_and_what_is_written_goes_on() {
    in_each_browser("notes-full", |lab, kind| {
        let lecture = Lecture::begin(lab, &["here"])?;
        let here = &lecture.meeting.visitors[0];
        let browser = Browser::start(&here.host, kind, Theme::Light)?;
        let tabs = ["reads", "full", "broken"];
        let [reads, full, broken] = tabs.map(|tab| lecture.attend(&browser, here, tab));
        let [reads, full, broken] = [reads?, full?, broken?];
        for page in [&reads, &full, &broken] {
            open_notes(page)?;
        }
        ensure!(full.eval(KEYS)? == 3, "each tab has a key");
        write_at(&full, 0, "kept.")?;
        until_text(&reads, "kept.")?;
        full.eval(FULL)?;
        write_at(&full, -1, " sent.")?;
        full.until_says("#notes-warning", "its storage is full")?;
        until_text(&reads, "kept. sent.")?;
        ensure!(full.eval(KEYS)? == 2, "a key that would repeat numbers");
        full.expect_open_to_all()?;
        // a disk that cannot delete either: nothing leaves
        until_text(&broken, "kept. sent.")?;
        broken.eval(FULL)?;
        broken.eval(BROKEN)?;
        write_at(&broken, 0, "lost ")?;
        broken.until_says("#notes-state", "keeps nothing any more")?;
        write_at(&full, -1, " And more.")?;
        until_text(&reads, "kept. sent. And more.")
    });
}

/// Shows this reader to the other attenders under a name.
fn show_self(page: &Page, name: &str) -> Result<()> {
    page.click("#here summary")?;
    page.ask("type", json!({ "at": "#my-name", "text": name }))?;
    page.click("#show-me").map(drop)
}

/// Waits until the list of present attenders is this: number, name, line, whether they write.
fn until_present(page: &Page, words: &str) -> Result<()> {
    let list = "[...document.querySelectorAll('#present button')].map((one) => one.textContent).join(' | ')";
    page.until(&format!("{list} === {}", json!(words)))
        .map(drop)
}

/// Puts this reader's cursor at a place.
fn go_to(page: &Page, place: u32) -> Result<()> {
    page.eval(&format!(
        "(() => {{ const text = document.querySelector('#text'); text.focus(); text.setSelectionRange({place}, {place}); return true; }})()"
    ))
    .map(drop)
}

/// Puts the page behind another one, or in front again.
fn be_visible(page: &Page, state: &str) -> Result<()> {
    page.eval(&format!(
        "Object.defineProperty(document, 'visibilityState', {{ value: '{state}', configurable: true }}), \
         document.dispatchEvent(new Event('visibilitychange'))"
    ))
    .map(drop)
}

/// Expression for the line number of the mark, by heights: it must be its letter's line.
const MARKED_LINE: &str = "(() => { const [mark] = document.querySelectorAll('#marks span'); const field = document.querySelector('#text'); \
    const style = getComputedStyle(field); const height = parseFloat(style.lineHeight); \
    const top = mark.getBoundingClientRect().top - field.getBoundingClientRect().top - parseFloat(style.paddingTop) + field.scrollTop; \
    return 1 + Math.round(top / height); })()";

#[test]
#[ignore = "needs browsers; make test-all"]
fn who_writes_where_is_seen_if_he_likes_and_gone_when_he_goes() {
    in_each_browser("notes-presence", |lab, kind| {
        let lecture = Lecture::begin(lab, &["here", "there"])?;
        let [here, there] = [0, 1].map(|n| &lecture.meeting.visitors[n]);
        let one_browser = Browser::start(&here.host, kind, Theme::Light)?;
        let other_browser = Browser::start(&there.host, kind, Theme::Dark)?;
        let one = lecture.attend(&one_browser, here, "one")?;
        let other = lecture.attend(&other_browser, there, "other")?;
        for page in [&one, &other] {
            open_notes(page)?;
        }
        let [_, b] = lecture.meeting.network.nodes()?;
        let host = NotesFile::start(&b.host, &lecture.lcs, "lc0")?;
        write_at(&one, 0, "Bees dance.\n")?;
        until_text(&other, "Bees dance.\n")?;
        // a reader without entries
        show_self(&other, "\u{202e}Dora")?;
        other.until_says(
            "#here-state",
            "Nobody else shows himself. They see you once you have written",
        )?;
        write_at(&other, -1, "They fly.\n")?;
        until_text(&one, "Bees dance.\nThey fly.\n")?;
        go_to(&other, 15)?;
        until_present(&one, "1Dora, line 2")?;
        one.until_says("#here-state", "One other is here. Others do not see you.")?;
        other.until_says("#here-state", "Nobody else shows himself.")?;
        host.until_said(r#""event":"present","names":["Dora"]"#)?;
        // the mark stays with its letter while another attender writes
        write_at(&one, 0, "# Notes\n\n")?;
        until_present(&one, "1Dora, line 4")?;
        ensure!(one.eval(MARKED_LINE)? == 4, "{}", one.eval(MARKED_LINE)?);
        one.click("#present button")?;
        one.until("document.querySelector('#text').selectionStart === 24 && document.activeElement.id === 'text'")?;
        // while he writes
        let writes = "(() => { const text = document.querySelector('#text'); window.typing = setInterval(() => { text.focus(); \
            document.execCommand('insertText', false, 'x'); }, 300); return true; })()";
        other.eval(writes)?;
        until_present(&one, "1Dora, line 4, writes")?;
        other.eval("clearInterval(window.typing), true")?;
        until_present(&one, "1Dora, line 4")?;
        // both
        show_self(&one, "Ann")?;
        other.until("document.querySelector('#present')?.textContent.startsWith('1Ann, line')")?;
        one.expect_open_to_all()?;
        for preset in ["system", "easy", "contrast", "captions"] {
            one.eval(&format!(
                "document.querySelector('[name=preset][value={preset}]').click(), true"
            ))?;
            one.expect_open_to_all()?;
            for width in [320, 390, 1_280] {
                one.expect_fits(width, 900)?;
                if width != 320 {
                    one.shot(&format!("{preset}-{width}"))?;
                }
            }
        }
        // behind another tab; in front again
        be_visible(&other, "hidden")?;
        until_present(&one, "")?;
        be_visible(&other, "visible")?;
        one.until("document.querySelector('#present')?.textContent.startsWith('1Dora')")?;
        // a reader can hide other attenders
        one.click("#show-others")?;
        until_present(&one, "")?;
        one.until_says("#here-state", "You do not see others.")?;
        one.click("#show-others")?;
        one.until("document.querySelector('#present')?.textContent.startsWith('1Dora')")?;
        // a reader can hide from other attenders
        other.click("#show-me")?;
        until_present(&one, "")?;
        other.click("#show-me")?;
        one.until("document.querySelector('#present')?.textContent.startsWith('1Dora')")?;
        // a killed browser sends no more
        drop(other_browser);
        until_present(&one, "")
    });
}
