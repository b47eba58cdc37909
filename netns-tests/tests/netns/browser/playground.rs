//! The playground, from a file and from a server.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{Browser, Page, Theme, built, in_each_browser, serve_folder};

/// What a line of the list of what happens says after each step of the tour.
const TOUR: [&[&str]; 9] = [
    &["Click a router"],
    &["Lisbon sends. Nobody listens"],
    &["The JOIN of Oslo goes"],
    &["Lisbon", "reaches Oslo"],
    &["The JOIN of Athens goes", "Dublin", "Helsinki"],
    &["Lisbon", "reaches", "Oslo", "Athens", "Dublin", "Helsinki"],
    &["The PART of Oslo goes"],
    &["Lisbon", "reaches", "Athens", "Dublin", "Helsinki"],
    &[],
];

/// Lines of the list of what happens that hold this.
fn told(page: &Page, words: &str) -> Result<Vec<String>> {
    let js = format!(
        "[...document.querySelectorAll('#story li')].map((li) => li.lastChild.textContent).filter((t) => t.includes({}))",
        json!(words)
    );
    Ok(serde_json::from_value(page.eval(&js)?)?)
}

fn expect_ready(page: &Page) -> Result<()> {
    page.until_says("#story", "Ready.").map(drop)
}

/// The tour, to its end; it goes on by itself where nobody clicks.
fn take_the_tour(page: &Page) -> Result<()> {
    page.click("#begin")?;
    page.until("!document.querySelector('#tour').hidden")?;
    let at = "(document.querySelector('#tour').hidden ? 99 : parseInt(document.querySelector('#tour .count').textContent))";
    for (step, words) in TOUR.iter().enumerate() {
        let step = step + 1;
        page.until(&format!("{at} >= {step}"))?;
        page.until(&format!(
            "[...document.querySelectorAll('#story li')].some((li) => {}.every((word) => li.textContent.includes(word)))",
            json!(words)
        ))?;
        // to the end of what moves, as people look at it
        page.until(&format!(
            "{at} > {step} || document.querySelector('#pace').textContent === 'real time'"
        ))?;
        if page.eval(&format!("{at} === {step}"))? == true {
            let clicked = page.click("#tour .next");
            ensure!(clicked.is_ok() || page.eval(at)? != step, "{clicked:?}");
        }
    }
    page.until("document.querySelector('#tour').hidden")?;
    let last = told(page, "A packet of Lisbon")?;
    let last = last.first().context("no packet")?;
    ensure!(
        !last.contains("Oslo")
            && ["Athens", "Helsinki", "Dublin"]
                .iter()
                .all(|c| last.contains(c)),
        "{last}"
    );
    Ok(())
}

fn router(name: &str) -> String {
    format!("#maps .node[aria-label^=\"{name}:\"]")
}

fn label(page: &Page, at: &str) -> Result<String> {
    let label = page.eval(&format!(
        "document.querySelector({}).getAttribute('aria-label')",
        json!(at)
    ))?;
    Ok(label.as_str().context("a label")?.to_owned())
}

/// Joins, sends and leaves by clicks on the map.
fn play_with_the_mouse(page: &Page) -> Result<()> {
    let palermo = router("Palermo");
    page.click(&format!("{palermo} .hit"))?;
    page.until_says("#story", "The JOIN of Palermo goes")?;
    ensure!(
        label(page, &palermo)?.contains("listens"),
        "{}",
        label(page, &palermo)?
    );
    page.click("input[name=tool][value=send] + span")?;
    page.click(&format!("{} .hit", router("Lisbon")))?;
    page.until("[...document.querySelectorAll('#story li')].some((li) => /A packet of Lisbon .*Palermo/.test(li.textContent))")?;
    page.click("input[name=tool][value=listen] + span")?;
    page.click(&format!("{palermo} .hit"))?;
    page.until_says("#story", "The PART of Palermo goes")
        .map(drop)
}

/// The same without a mouse.
fn play_with_the_keyboard(page: &Page) -> Result<()> {
    page.eval("document.activeElement.blur(), scrollTo(0, 0), null")?;
    page.press_until("Tab", "#maps .node")?;
    page.press("ArrowRight")?;
    let name = page.eval("document.activeElement.getAttribute('aria-label').split(':')[0]")?;
    let name = name.as_str().context("a name")?;
    for (does, is) in [("joins Radio", true), ("leaves Radio", false)] {
        page.press("Enter")?;
        page.until_says("#story", &format!("{name} {does}."))?;
        let says = label(page, &router(name))?;
        ensure!(says.contains("listens") == is, "{says}");
    }
    Ok(())
}

#[test]
#[ignore = "`make test-all`: browsers, and the module of `make web`"]
fn the_playground_explains_join_and_part_from_a_file() {
    in_each_browser("playground-file", |lab, kind| {
        let host = lab.host("a")?;
        let browser = Browser::start(&host, kind, Theme::Light)?;
        let file = format!("file://{}", built("web/playground.html")?.display());
        let page = browser.open("playground", &file)?;
        expect_ready(&page)?;
        page.expect_open_to_all()?;
        take_the_tour(&page)?;
        page.shot("after-the-tour")?;
        play_with_the_mouse(&page)?;
        page.expect_open_to_all()?;
        page.expect_fits_a_phone()?;
        let violation = page.eval("document.querySelector('#violation').textContent")?;
        ensure!(violation == "", "{violation}");
        browser.expect_clean(&[&file])
    });
}

#[test]
#[ignore = "`make test-all`: browsers, and the module of `make web`"]
fn the_playground_runs_from_a_server_in_the_dark() {
    in_each_browser("playground-server", |lab, kind| {
        let host = lab.host("a")?;
        let (_server, at) = serve_folder(&host, &built("web")?, 8000)?;
        let browser = Browser::start(&host, kind, Theme::Dark)?;
        let page = browser.open("playground", &format!("{at}playground/"))?;
        expect_ready(&page)?;
        ensure!(page.eval("matchMedia('(prefers-color-scheme: dark)').matches")? == true);
        play_with_the_keyboard(&page)?;
        page.expect_open_to_all()?;
        page.shot("played")?;
        // on a phone the map is tapped
        page.expect_fits_a_phone()?;
        let module = page.eval("performance.getEntriesByType('resource').map((r) => r.name).filter((n) => n.endsWith('.wasm'))")?;
        ensure!(
            module == Value::from(vec![format!("{at}playground/playground.wasm")]),
            "{module}"
        );
        browser.expect_clean(&[&at])
    });
}
