//! The playground, from a file and from a server.

use super::{Browser, Page, Theme, built, in_each_browser, serve_folder};
use crate::prelude::*;

/// Words in the event list after each step of the tour.
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

/// Returns the lines of the event list with these words.
fn told(page: &Page, words: &str) -> Result<Vec<String>> {
    let js = format!(
        "[...document.querySelectorAll('#story li')].map((li) => li.lastChild.textContent).filter((t) => t.includes({}))",
        json!(words)
    );
    Ok(serde_json::from_value(page.eval(&js)?)?)
}

/// Checks that the map shows the engine's tree: at any moment, also at rest.
fn expect_the_tree_of_the_engine(page: &Page) -> Result<()> {
    let links = page.eval(
        "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => { \
            const edges = playground.first.world.group(playground.group.address).edges; \
            const between = ([a, b]) => `${Math.min(a, b)} ${Math.max(a, b)}`; \
            done([document.querySelectorAll('#maps .tree.on').length, new Set(edges.map(between)).size]); })))",
    )?;
    holds!(links[0] == links[1], "drawn, and in the engine: {links}")
}

fn expect_ready(page: &Page) -> Result<()> {
    page.until_says("#story", "Ready.").map(drop)
}

/// Takes the tour to its end; it continues without clicks.
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
        // until the end of all movements, at their pace
        page.until(&format!(
            "{at} > {step} || document.querySelector('#pace').textContent === 'real time'"
        ))?;
        expect_the_tree_of_the_engine(page)?;
        if page.eval(&format!("{at} === {step}"))? == true {
            let clicked = page.click("#tour .next");
            ensure!(clicked.is_ok() || page.eval(at)? != step, "{clicked:?}");
        }
    }
    page.until("document.querySelector('#tour').hidden")?;
    let cost = page.eval("document.querySelector('.cost').textContent.match(/: (\\d+) links, once eachOne by one: (\\d+) link crossings/).slice(1).map(Number)")?;
    ensure!(cost[0].as_u64() < cost[1].as_u64(), "{cost}");
    let last = told(page, "A packet of Lisbon")?;
    let last = last.first().context("no packet")?;
    holds!(
        !last.contains("Oslo")
            && ["Athens", "Helsinki", "Dublin"]
                .iter()
                .all(|c| last.contains(c)),
        "{last}"
    )
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

/// Follows a JOIN step by step to its last hop.
fn go_by_steps(page: &Page) -> Result<()> {
    let moves = "playground.moving()";
    page.until(&format!("!{moves}"))?;
    page.click("#play")?;
    page.click(&format!("{} .hit", router("Istanbul")))?;
    ensure!(page.eval(moves)? == true, "a JOIN is on its way");
    while page.eval(moves)? == true {
        page.click("#step")?;
        expect_the_tree_of_the_engine(page)?;
    }
    page.click("#play")
}

/// Checks that the page's address restores listeners and streams in another page.
fn share(page: &Page, browser: &Browser, address: &str) -> Result<()> {
    page.click("input[name=tool][value=stream] + span")?;
    page.click(&format!("{} .hit", router("Madrid")))?;
    page.click("#share")?;
    page.until("location.hash !== ''")?;
    let hash = page.eval("location.hash")?;
    let other = browser.open(
        "shared",
        &format!("{address}{}", hash.as_str().context("a hash")?),
    )?;
    for (name, words) in [("Palermo", "listens"), ("Madrid", "streams")] {
        other.until(&format!(
            "document.querySelector({})?.getAttribute('aria-label').includes({})",
            json!(router(name)),
            json!(words)
        ))?;
    }
    page.click("input[name=tool][value=listen] + span")
}

/// Checks that listeners and cuts outlast another choice of links.
fn choose_other_links(page: &Page) -> Result<()> {
    page.eval("playground.cut(...playground.first.network.links[0].ends), null")?;
    for links in ["four", "cables"] {
        page.eval(&format!(
            "(() => {{ const links = document.querySelector('#topology'); links.value = '{links}'; \
             links.dispatchEvent(new Event('change')); return true; }})()"
        ))?;
        expect_ready(page)?;
        page.until(&format!(
            "document.querySelector({})?.getAttribute('aria-label').includes('listens')",
            json!(router("Palermo"))
        ))?;
        let cuts = page.eval("playground.first.network.cuts.length")?;
        ensure!(cuts == 1, "{links}: {cuts} cuts");
    }
    Ok(())
}

/// Checks that a killed node notices nothing, and that a new network has no past.
fn kill_and_start_over(page: &Page) -> Result<()> {
    page.click("input[name=tool][value=kill] + span")?;
    page.click(&format!("{} .hit", router("Warsaw")))?;
    page.until_says("#story", "noticed:")?;
    let noticed = told(page, "noticed:")?.join("\n");
    ensure!(noticed.contains("to Warsaw"), "{noticed}");
    let (who, _) = noticed.split_once("noticed:").context("who")?;
    ensure!(!who.contains("Warsaw"), "{noticed}");
    page.click("#again")?;
    expect_ready(page)?;
    ensure!(told(page, "noticed:")?.is_empty(), "the story goes on");
    page.click("input[name=tool][value=listen] + span")
}

/// Plays by keyboard.
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

/// Compares four policies by keyboard.
fn compare_with_the_keyboard(page: &Page) -> Result<()> {
    page.eval("document.activeElement.blur(), scrollTo(0, 0), null")?;
    page.press_until("Tab", "#compare select")?;
    ensure!(page.eval("document.querySelector('#compare select').value")? == "20");
    page.press("Tab")?;
    page.press("Enter")?;
    page.until_says("#compare [role=status]", "Tree: 20 routers start.")?;
    page.until_says("#compare [role=status]", "Mesh: 20 routers start.")?;
    page.until_says("#compare [role=status]", "All four are measured.")?;
    let rows = page.eval(
        "[...document.querySelectorAll('#compare tbody tr')].map((row) => [...row.cells].map((cell) => cell.textContent))",
    )?;
    let rows: Vec<Vec<String>> = serde_json::from_value(rows)?;
    ensure!(
        rows.len() == 7 && rows.iter().flatten().all(|cell| cell != "–"),
        "{rows:?}"
    );
    let [_, tree, fractal, regular, mesh] = &rows[0][..] else {
        bail!("four policies: {rows:?}");
    };
    ensure!(mesh == "19.0 (19)", "a mesh of 20: {mesh}");
    ensure!(
        tree.starts_with("1.9") && fractal != tree && fractal != regular,
        "{rows:?}"
    );
    let drawn = page.eval(
        "[...document.querySelectorAll('#compare svg')].map((svg) => [svg.getAttribute('aria-label'), svg.querySelector('.wires').getAttribute('d').split('M').length - 1, svg.querySelector('.dots').getAttribute('d').split('M').length - 1])",
    )?;
    ensure!(
        drawn[0] == json!(["Tree: 19 links", 19, 20])
            && drawn[3] == json!(["Mesh: 190 links", 190, 20]),
        "{drawn}"
    );
    page.shot("compared").map(drop)
}

#[test]
#[ignore = "`make test-all`: browsers, and the module of `make web`"]
fn the_playground_shows_topologies_beside_each_other() {
    in_each_browser("playground-compare", |lab, kind| {
        let host = lab.host("a")?;
        let browser = Browser::start(&host, kind, Theme::Light)?;
        let file = format!("file://{}", built("web/playground.html")?.display());
        let page = browser.open("playground", &file)?;
        expect_ready(&page)?;
        compare_with_the_keyboard(&page)?;
        page.expect_open_to_all()?;
        page.expect_fits_a_phone()?;
        // the comparison can be stopped
        page.click("#compare button")?;
        page.until_says("#compare button", "Stop")?;
        page.click("#compare button")?;
        page.until_says("#compare [role=status]", "Stopped.")?;
        browser.expect_clean(&[&file])
    });
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
        page.expect_fits(1_280, 800)?;
        let end = page.eval("document.querySelector('.legend').getBoundingClientRect().bottom")?;
        ensure!(end.as_f64() < Some(500.0), "the legend ends at {end}");
        page.expect_open_to_all()?;
        take_the_tour(&page)?;
        page.shot("after-the-tour")?;
        play_with_the_mouse(&page)?;
        go_by_steps(&page)?;
        kill_and_start_over(&page)?;
        page.click(&format!("{} .name", router("Palermo")))?;
        page.until_says("#story", "Palermo joins")?;
        choose_other_links(&page)?;
        share(&page, &browser, &file)?;
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
        page.inspect("played")?;
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
