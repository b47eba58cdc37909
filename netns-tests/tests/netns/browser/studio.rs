//! The page of a lecture: a tab attends a host's lecture, and its reader chooses its look.

use lcradio_core::StationKey;
use lcstudio_core::{SessionKey, TrackName};

use super::node::{until_wanted, visited};
use super::radio::{TAP, loudspeakers};
use super::{Browser, Kind, Page, Theme};
use crate::prelude::*;
use crate::radio::{cast, write_chirp};
use crate::studio::{Typed, keygen, present, session};

/// The third slide has content that the page must not execute.
const SLIDES: &str = r##"# How bees talk

They *dance*, and others read it:

- where: the angle to the sun
- how far: the length of the run
- how good: how often it is repeated

![A bee that runs in a figure of eight](images/waggle.png)

---

## The waggle dance

> The discovery of the dance is one of the great stories of biology.

| metres | seconds |
|-------:|:-------:|
| 100    | 0.5     |
| 1,000  | 1.4     |

See [the dance](https://bee.example/dance).

---

<script>window.wasRun = true</script>

<img src="x" onerror="window.wasRun = true">

[click](javascript:window.wasRun=true) ![far](https://far.example/p.png) <b>bold</b>

---

# Questions?
"##;

/// Sizes at which axe-core checks each preset, in percent.
const SIZES: [u32; 2] = [100, 400];

/// Waits until the shown slide has this heading.
pub(super) fn until_slide(page: &Page, heading: &str) -> Result<()> {
    page.until_says("#slide :is(h2, h3)", heading).map(drop)
}

/// Sets a field of the form, as a user does.
fn choose(page: &Page, field: &str, value: &str) -> Result<()> {
    let js = format!(
        "(() => {{ const field = document.querySelector({}); field.value = {}; \
         field.dispatchEvent(new Event('input', {{ bubbles: true }})); return true; }})()",
        json!(field),
        json!(value)
    );
    page.eval(&js).map(drop)
}

/// Checks each preset, small and large: no sideways scrolling, no serious barrier.
fn expect_each_preset_open_to_all(page: &Page, kind: Kind) -> Result<()> {
    for preset in ["system", "easy", "contrast", "captions"] {
        page.eval("document.querySelector('#looks').hidden && document.querySelector('[data-panel=looks]').click(), true")?;
        page.eval(&format!(
            "document.querySelector('[name=preset][value={preset}]').click(), true"
        ))?;
        page.expect_open_to_all()?;
        page.expect_fits(1_280, 900)?;
        page.shot(&format!("{preset}-looks"))?;
        page.eval("document.querySelector('[data-close=looks]').click(), true")?;
        page.shot(&format!("{preset}-1280"))?;
        page.expect_fits(390, 844)?;
        page.shot(&format!("{preset}-390"))?;
        let size = page.eval("document.querySelector('#size').value")?;
        for percent in SIZES {
            choose(page, "#size", &percent.to_string())?;
            page.expect_open_to_all()
                .with_context(|| format!("{kind}, {preset}, {percent} %"))?;
            for width in [320, 1_280] {
                page.expect_fits(width, 844)?;
            }
        }
        page.shot(&format!("{preset}-400"))?;
        choose(page, "#size", size.as_str().context("a number")?)?;
    }
    Ok(())
}

/// Checks that the system's settings take precedence.
fn expect_system_first(page: &Page) -> Result<()> {
    let media = |features: Value| page.ask("media", json!({ "features": features }));
    let palette = "document.documentElement.dataset.palette";
    page.eval("document.querySelector('[name=preset][value=system]').click(), true")?;
    page.until(&format!("{palette} === 'light'"))?;
    let scheme = |value: &str| json!({ "name": "prefers-color-scheme", "value": value });
    media(json!([scheme("dark")]))?;
    page.until(&format!("{palette} === 'dark'"))?;
    let more = json!({ "name": "prefers-contrast", "value": "more" });
    media(json!([scheme("light"), more]))?;
    page.until(&format!("{palette} === 'white'"))?;
    media(json!([{ "name": "forced-colors", "value": "active" }]))?;
    page.until("!document.querySelector('#forced').hidden && document.querySelector('[name=colours]').disabled")?;
    page.shot("forced")?;
    media(json!([]))?;
    page.until("document.querySelector('#forced').hidden")
        .map(drop)
}

#[test]
#[ignore = "needs browsers; make test-all"]
fn a_tab_attends_and_its_reader_decides_what_comes_and_how_it_looks() {
    visited("studio-attends", |kind, meeting, [a, _], visitor| {
        let (ann, _, public) = keygen(&a.host, "ann.key")?;
        let (folder, key, lcs) = session(&a.host, Some(&public))?;
        fs::write(folder.join("slides.md"), SLIDES)?;
        let mut presenter = present(&a.host, &folder, &key)?;
        let seed: [u8; 32] = fs::read(Path::new(&key))?
            .try_into()
            .ok()
            .context("a key")?;
        let secret = SessionKey::from_seed(&seed);
        let group = |name: &str| -> Result<String> {
            let owner = secret.track_key(&name.parse::<TrackName>()?).peer_id();
            Ok(secret.session().space(owner).group().to_string())
        };
        let mut writer = Typed::start(
            &a.host,
            "caption",
            &format!("lcstudio caption {lcs} --key {ann} --lang en --speaker Ann -i lc0 -"),
        )?;
        writer.types("good evening, and welcome")?;
        let browser = Browser::start(&visitor.host, kind, Theme::Light)?;
        // one link for all pages that are members
        let link = format!("{}/node/#{},{lcs}", visitor.origin, meeting.network.token);
        let page = browser.open("studio", &link)?;
        page.until(
            "location.pathname === '/studio/' && !document.querySelector('#invited')?.hidden",
        )?;
        ensure!(page.eval("location.hash === ''")? == true);
        page.inspect("door")?;
        page.click("#enter")?;
        until_slide(&page, "How bees talk")?;
        page.until_says("#log", "good evening, and welcome")?;
        page.until_says("#title", "Bees")?;
        until_wanted(a, &group("captions/en")?, true)?;
        until_wanted(a, &group("captions/de")?, false)?;
        // a correction, and lines that arrive while the page is read
        writer.types("bees dance, and others read it")?;
        page.until_says("#log", "bees dance")?;
        writer.types("^ bees dance, and other bees read it")?;
        page.until_says("#log .corrected", "other bees read it")?;
        // the presenter turns, and the page follows
        presenter.types("")?;
        until_slide(&page, "The waggle dance")?;
        page.until_says("#announce", "Slide 2 of 4: The waggle dance")?;
        page.shot("table")?;
        presenter.types("3")?;
        page.until("document.querySelector('#slide').textContent.includes('<script>')")?;
        let made = "document.querySelectorAll('#slide :is(script, img, b, a)').length";
        ensure!(page.eval(made)? == 0, "the slide has made something");
        ensure!(page.eval("window.wasRun === undefined")? == true);
        // on its own, by keyboard, and back
        page.eval("document.activeElement.blur()")?;
        page.press("ArrowLeft")?;
        until_slide(&page, "The waggle dance")?;
        presenter.types("4")?;
        page.until_says("#return", "Back to slide 4")?;
        until_slide(&page, "The waggle dance")?;
        // not around the page: Firefox without a window does not return into it
        page.eval("document.querySelector('#before').focus(), true")?;
        page.press_until("Tab", "#return")?;
        page.press("Enter")?;
        until_slide(&page, "Questions?")?;
        ensure!(page.eval("document.querySelector('#return').hidden")? == true);
        presenter.types("1")?;
        until_slide(&page, "How bees talk")?;
        // a question
        page.click("[data-panel=asking]")?;
        page.fill("#asker", "Bob")?;
        page.fill("#question", "how far do they fly?")?;
        page.click("#ask .primary")?;
        presenter.process.prints("how far do they fly?")?;
        presenter.types("a 1")?;
        page.until_says("#asked", "how far do they fly?")?;
        page.shot("asked")?;
        page.click("[data-close=asking]")?;
        // German beside English, then captions are dropped
        page.click("[data-panel=tracks]")?;
        page.click("[data-track='captions/de'] input")?;
        until_wanted(a, &group("captions/de")?, true)?;
        presenter.types("c as she said")?;
        page.until_says("#log", "as she said")?;
        page.inspect("tracks")?;
        for track in ["captions/en", "captions/de"] {
            page.click(&format!("[data-track='{track}'] input"))?;
            until_wanted(a, &group(track)?, false)?;
        }
        page.until("document.querySelector('#said').hidden")?;
        writer.types("nobody here reads this")?;
        presenter.types("2")?;
        until_slide(&page, "The waggle dance")?;
        page.until_says("[data-track='captions/en']", "dropped")?;
        let shown = page.eval("document.body.textContent.includes('nobody here reads this')")?;
        ensure!(shown == false, "what was dropped came all the same");
        // a rejoined track includes the lines since the PART
        page.click("[data-track='captions/en'] input")?;
        page.until_says("#log", "nobody here reads this")?;
        page.until_says("#log", "good evening, and welcome")?;
        page.click("[data-close=tracks]")?;
        presenter.types("1")?;
        until_slide(&page, "How bees talk")?;
        for line in [
            "the angle to the sun is the angle on the comb",
            "and the length of the run says how far they have to fly",
            "a second is about a kilometre",
        ] {
            writer.types(line)?;
        }
        page.until_says("#log", "about a kilometre")?;
        expect_each_preset_open_to_all(&page, kind)?;
        // a single line on request
        choose(&page, "#place", "single")?;
        page.until("!document.querySelector('#single').hidden")?;
        page.click("#line-after")?;
        page.until_says("#line", "good evening, and welcome")?;
        page.shot("single")?;
        // a pair of colours, with its contrast shown
        page.eval("document.querySelector('[name=colours][value=own]').click(), true")?;
        choose(&page, "#ink", "#767676")?;
        choose(&page, "#ground", "#ffffff")?;
        page.until_says("#ratio", "4.5 : 1. Enough")?;
        choose(&page, "#ink", "#777777")?;
        page.until_says("#ratio", "4.4 : 1. Too little")?;
        choose(&page, "#ink", "#10243f")?;
        if kind == Kind::Chromium {
            expect_system_first(&page)?;
        }
        choose(&page, "#size", "180")?;
        // the same member, with the same tracks and looks
        page.reload()?;
        until_slide(&page, "How bees talk")?;
        page.until("document.querySelector('#size').value === '180'")?;
        page.until_says("#log", "about a kilometre")?;
        presenter.types("q")?;
        page.until_says("#state", "has ended")?;
        presenter.process.expect_exit(DEADLINE, 0)?;
        writer.process.signal(Signal::SIGTERM)?;
        until_slide(&page, "How bees talk")?;
        meeting.expect_clean(&browser, visitor)
    });
}

#[test]
#[ignore = "needs browsers; make test-all"]
fn a_tab_that_gets_nothing_says_why_and_what_helps() {
    visited("studio-waits", |kind, meeting, [a, _], visitor| {
        let (folder, key, lcs) = session(&a.host, None)?;
        let browser = Browser::start(&visitor.host, kind, Theme::Dark)?;
        visitor.host.cut_uplink()?;
        let token = &meeting.network.token;
        let link = format!("{}/studio/#{token},{lcs}", visitor.origin);
        let page = browser.open("studio", &link)?;
        page.click("#enter")?;
        page.until_says("#slide", "no signalling server of the token answers")?;
        page.until_says("#slide", "This tab tries again by itself")?;
        page.expect_fits(390, 844)?;
        page.inspect("no-server-390")?;
        visitor.host.heal_uplink()?;
        page.until_says("#slide", "nobody there presents or holds this session")?;
        page.expect_fits(1_280, 900)?;
        page.shot("nobody-1280")?;
        let mut presenter = present(&a.host, &folder, &key)?;
        until_slide(&page, "Bees")?;
        let shown = page.eval("document.querySelector('#notice').hidden")?;
        ensure!(shown == true);
        // it goes with the link, and comes back with it
        visitor.host.cut_uplink()?;
        page.until_says("#notice", "All links to other nodes are lost.")?;
        until_slide(&page, "Bees")?;
        visitor.host.heal_uplink()?;
        page.until("document.querySelector('#notice').hidden")?;
        presenter.types("q")?;
        page.until_says("#state", "has ended").map(drop)
    });
}

#[test]
#[ignore = "needs browsers; make test-all"]
fn a_tab_plays_the_sound_of_a_lecture_until_it_is_dropped() {
    visited("studio-sound", |kind, meeting, [a, _], visitor| {
        let (folder, key, lcs) = session(&a.host, None)?;
        let mut presenter = present(&a.host, &folder, &key)?;
        let file = write_chirp(&a.host, 300)?;
        let key = folder.join("audio-en.key");
        let args = format!("--key {} --profile voice -i lc0", key.display());
        let _cast = cast(&a.host, &file, &args)?;
        let seed = SecretKey::load(&key)?.seed();
        let station = StationKey::from_seed(&seed).station(false);
        let group = station.group().to_string();
        let (_server, output) = loudspeakers(&visitor.host)?;
        let browser = Browser::start_with(&visitor.host, kind, Theme::Light, None, Some(&output))?;
        let token = &meeting.network.token;
        let link = format!("{}/studio/#{token},{lcs}", visitor.origin);
        let page = browser.open("studio", &link)?;
        page.eval(TAP)?;
        page.click("#enter")?;
        until_slide(&page, "Bees")?;
        until_wanted(a, &group, false)?;
        page.click("[data-panel=tracks]")?;
        page.click("[data-track='audio/en'] input")?;
        until_wanted(a, &group, true)?;
        page.until_says("[data-track='audio/en']", "playing")?;
        page.until("played.some((plane) => plane.some((s) => Math.abs(s) > 0.02))")?;
        page.inspect("sound")?;
        page.click("[data-track='audio/en'] input")?;
        until_wanted(a, &group, false)?;
        page.until_says("[data-track='audio/en']", "not joined")?;
        page.until("document.querySelector('#sound').hidden")?;
        // and once more, in this tab
        page.click("[data-track='audio/en'] input")?;
        until_wanted(a, &group, true)?;
        page.until_says("[data-track='audio/en']", "playing")?;
        presenter.types("q")?;
        page.until_says("#state", "has ended")?;
        meeting.expect_clean(&browser, visitor)
    });
}
