//! The call page: a tab and a terminal talk with each other.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use lcroute_lab::lab::eventually;

use super::node::meeting;
use super::radio::{loudspeakers, write_wav};
use super::{Browser, Theme, in_each_browser};
use crate::radio_call::{One, TONES, strength, tone};

#[test]
#[ignore = "needs browsers; make test-all"]
fn a_tab_and_a_terminal_talk_with_each_other() {
    in_each_browser("call", |lab, kind| {
        let meeting = meeting(lab, &["visitor"], false)?;
        let [a, _] = meeting.network.nodes()?;
        let visitor = &meeting.visitors[0];
        let wav = write_wav(&visitor.host, 60)?;
        let (_server, output) = loudspeakers(&visitor.host)?;
        let (theme, wav) = (Theme::Dark, Some(wav.as_path()));
        let browser = Browser::start_with(&visitor.host, kind, theme, wav, Some(&output))?;
        let link = format!("{}/call/#{}", visitor.origin, meeting.network.token);
        let page = browser.open("call", &link)?;
        page.until("document.querySelector('#enter')?.textContent === 'New call'")?;
        page.expect_open_to_all()?;
        page.shot("door")?;
        page.fill("#name", "A tab")?;
        page.click("#enter")?;
        page.until_says("#standing", "can be heard")?;
        let link = page.eval("document.querySelector('#share button').value")?;
        let text = link.as_str().and_then(|link| link.split_once('#'));
        let (_, text) = text.context("a link")?;
        ensure!(text.starts_with("lcc1"), "{text}");
        let begun = Instant::now();
        let ann = One::new(&a.host, Some(text), "-i lc0", begun, tone(TONES[1]))?;
        let status = |name: &str| -> Result<bool> {
            let status = ann.status()?;
            let tab = &status["participants"][0];
            ensure!(tab["name"] == "A tab", "{status}");
            tab[name].as_bool().context("a participant")
        };
        eventually("the terminal hears the tab", || {
            ensure!(status("speaks")? && !status("muted")?);
            Ok(())
        })?;
        page.until("document.querySelector('#people li')?.dataset.speaks === 'true'")?;
        page.expect_open_to_all()?;
        page.shot("talking")?;
        // not itself, by way of the tab's echo: its loudspeakers are silent
        let sound = ann.next_sound(2)?;
        ensure!(strength(&sound, TONES[1]) < 500.0);
        // by keyboard: the space bar, and the button
        page.eval("document.activeElement.blur()")?;
        page.press(" ")?;
        page.until_says("#standing", "muted")?;
        eventually("the tab is muted", || {
            ensure!(status("muted")?);
            Ok(())
        })?;
        page.click("#mute")?;
        eventually("the tab talks", || {
            ensure!(status("speaks")?);
            Ok(())
        })?;
        page.click("#people button")?;
        page.until_says("#people small", "turned off here")?;
        page.click("#people button")?;
        page.until("document.querySelector('#people li')?.dataset.speaks === 'true'")?;
        let figures = page.eval("document.querySelector('#figures').textContent")?;
        eprintln!(
            "{kind}: {}; {}",
            figures.as_str().unwrap_or_default(),
            ann.status()?
        );
        page.expect_fits_a_phone()?;
        page.click("#hang-up")?;
        eventually("the tab is gone", || {
            let (others, _) = ann.others()?;
            ensure!(others.is_empty(), "{others:?}");
            Ok(())
        })?;
        meeting.expect_clean(&browser, visitor)
    });
}
