//! Pictures of a lecture in tabs, also from a tab that presents.

use super::node::{meeting, until_wanted, visited};
use super::present::{go_on_air, open, write};
use super::studio::until_slide;
use super::{Browser, Kind, Page, Theme, in_each_browser};
use crate::prelude::*;
use crate::studio::{present, session};
use crate::studio_pictures::{group_of, png};

/// The second slide's pictures never come: missing, of a refused kind, undecodable, remote.
const SLIDES: &str = "# How bees talk\n\n![A bee that runs in a figure of eight](images/waggle.png)\n\n---\n\n## The others\n\n\
                      ![nowhere](images/gone.png) ![drawn](images/drawn.svg) ![broken](images/broken.png) \
                      ![far](https://far.example/p.png)\n";

/// Waits until the slide shows a picture of this width in pixels.
fn until_shown(page: &Page, alt: &str, width: u32) -> Result<()> {
    let js = format!(
        "[...document.querySelectorAll('#slide img')].some((img) => img.alt === '{alt}' && img.complete && img.naturalWidth === {width} && img.src.startsWith('blob:'))"
    );
    page.until(&js).map(drop)
}

#[test]
#[ignore = "needs browsers; make test-all"]
fn a_tab_shows_pictures_that_a_terminal_presents_until_they_are_dropped() {
    visited("studio-pictures", |kind, meeting, [a, _], visitor| {
        let (folder, key, lcs) = session(&a.host, None)?;
        let images = folder.join("images");
        fs::write(folder.join("slides.md"), SLIDES)?;
        fs::write(images.join("waggle.png"), png(400, 225, 0xff))?;
        fs::write(images.join("drawn.svg"), "<svg/>")?;
        let mut broken = png(50, 50, 1);
        // an invalid number of bits per sample
        broken[24] = 99;
        fs::write(images.join("broken.png"), broken)?;
        let group = group_of(&key, "pictures")?.to_string();
        let mut presenter = present(&a.host, &folder, &key)?;
        let browser = Browser::start(&visitor.host, kind, Theme::Dark)?;
        let token = &meeting.network.token;
        let link = format!("{}/studio/#{token},{lcs}", visitor.origin);
        let page = browser.open("studio", &link)?;
        page.click("#enter")?;
        until_slide(&page, "How bees talk")?;
        until_wanted(a, &group, true)?;
        let alt = "A bee that runs in a figure of eight";
        until_shown(&page, alt, 400)?;
        for width in [320, 390, 1_280] {
            page.expect_fits(width, 900)?;
            page.inspect(&format!("picture-{width}"))?;
        }
        // missing and undecodable pictures show their descriptions
        presenter.types("2")?;
        until_slide(&page, "The others")?;
        page.click("[data-panel=tracks]")?;
        page.until_says("[data-track=pictures]", "2 of 2 here")?;
        for words in ["nowhere", "drawn", "broken"] {
            page.until(&format!(
                "[...document.querySelectorAll('#slide .picture')].some((span) => span.textContent === 'Picture {words}')"
            ))?;
        }
        page.until("document.querySelectorAll('#slide img').length === 0")?;
        page.shot("words")?;
        // dropped: the page leaves the group, and gets no further picture
        page.click("[data-track=pictures] input")?;
        until_wanted(a, &group, false)?;
        presenter.types("1")?;
        page.until_says("#slide .picture", alt)?;
        page.until_says("[data-track=pictures]", "dropped")?;
        let had = page.eval("document.querySelector('[data-track=pictures]').textContent")?;
        fs::write(images.join("waggle.png"), png(320, 180, 0x3f))?;
        presenter.types("c once it has been sent")?;
        page.until_says("#log", "once it has been sent")?;
        // the choice outlives a reload
        page.reload()?;
        until_slide(&page, "How bees talk")?;
        page.until_says("#slide .picture", alt)?;
        page.click("[data-panel=tracks]")?;
        page.until_says("[data-track=pictures]", "not joined")?;
        until_wanted(a, &group, false)?;
        ensure!(
            had.as_str().is_some_and(|had| had.contains("dropped")),
            "{had}"
        );
        // joined again: the present picture
        page.click("[data-track=pictures] input")?;
        until_wanted(a, &group, true)?;
        until_shown(&page, alt, 320)?;
        page.inspect("tracks")?;
        meeting.expect_clean(&browser, visitor)
    });
}

#[test]
#[ignore = "needs browsers; make test-all"]
fn a_tab_presents_pictures_and_has_them_still_after_it_was_killed() {
    in_each_browser("studio-presents-pictures", |lab, kind| {
        let meeting = meeting(lab, &["here", "there"], false)?;
        let [here, there] = [0, 1].map(|n| &meeting.visitors[n]);
        let [small, drawn] = ["waggle.png", "drawn.svg"].map(|name| here.host.path(name));
        fs::write(&small, png(300, 200, 0xff))?;
        fs::write(&drawn, "<svg/>")?;
        let browser = Browser::start(&here.host, kind, Theme::Light)?;
        let page = open(&meeting, &browser, here, "ann")?;
        page.click("#create")?;
        page.fill("#lecture", "Bees")?;
        write(&page, SLIDES)?;
        page.until_says("#problems", "picture images/waggle.png: add its file")?;
        page.upload("#images", &small)?;
        page.until("document.querySelector('#seen img')?.naturalWidth === 300")?;
        page.until("!document.querySelector('#problems').textContent.includes('waggle')")?;
        page.upload("#images", &drawn)?;
        page.until_says("#problem", "drawn.svg: no PNG, JPEG, WebP or GIF")?;
        for width in [320, 1_280] {
            page.expect_fits(width, 900)?;
            page.inspect(&format!("prepare-{width}"))?;
        }
        let lcs = go_on_air(&page)?;
        page.until_says("#pictures", "1 of 1 are sent")?;
        let other = Browser::start(&there.host, kind, Theme::Light)?;
        let link = format!("{}/studio/#{},{lcs}", there.origin, meeting.network.token);
        let tab = other.open("dora", &link)?;
        tab.click("#enter")?;
        until_slide(&tab, "How bees talk")?;
        until_shown(&tab, "A bee that runs in a figure of eight", 300)?;
        page.shot("live")?;
        // SIGKILL for the browser; the picture is in its store
        drop(browser);
        let browser = Browser::start(&here.host, kind, Theme::Light)?;
        let page = open(&meeting, &browser, here, "again")?;
        page.click("#lectures .primary")?;
        page.until("document.querySelector('#text').value.includes('waggle')")?;
        page.eval("document.querySelector('#text').setSelectionRange(0, 0), document.querySelector('#text').click(), true")?;
        page.until("document.querySelector('#seen img')?.naturalWidth === 300")?;
        ensure!(go_on_air(&page)? == lcs);
        page.until_says("#pictures", "1 of 1 are sent")?;
        // a picture added during the lecture
        let gone = here.host.path("gone.png");
        fs::write(&gone, png(40, 30, 0x1f))?;
        page.click("#edit")?;
        page.upload("#images", &gone)?;
        page.click("#edit")?;
        page.press("PageDown")?;
        until_slide(&tab, "The others")?;
        until_shown(&tab, "nowhere", 40)?;
        if kind == Kind::Chromium {
            tab.shot("attends")?;
        }
        meeting.expect_clean(&browser, here)
    });
}
