//! The page that sends files under four words: to a host, and to another page.

use std::fs;

use anyhow::{Context, Result, ensure};
use lcroute_demo::lab::{DEADLINE, Lab, noise};
use librecast::code::Host;

use super::node::Visitor;
use super::{Kind, Page, Theme, in_each_browser};
use crate::codes::receive;
use crate::guest::open_driver;

/// A share menu posts a file, which the service worker keeps for the page.
const SHARE: &str = r#"(async () => {
    const form = new FormData();
    form.append("files", new File(["hello"], "shared.txt"));
    return (await fetch("/send/", { method: "POST", body: form })).ok;
})()"#;

/// Checks that the page can be installed, and takes files of the share menu.
fn takes_shared_files(page: &Page) -> Result<()> {
    let manifest = "fetch('../manifest.webmanifest').then((answer) => answer.json())";
    let target = page.eval(&format!(
        "{manifest}.then((all) => all.share_target.action)"
    ))?;
    ensure!(target == "./send/", "{target}");
    page.until("navigator.serviceWorker.controller !== null")?;
    ensure!(page.eval(SHARE)? == true, "nobody takes the file");
    page.reload()?;
    page.until_says("#chosen-words", "1 file, 5 B")?;
    page.until_says("#chosen", "shared.txt")?;
    // only files of pages are stored
    let stored = "caches.open('lcroute pages').then((cache) => cache.keys()).then((all) => all.map(({ url }) => url))";
    page.until(&format!(
        "{stored}.then((all) => all.some((url) => url.endsWith('/send/')) && !all.some((url) => url.includes('/api/')))"
    ))?;
    Ok(())
}

#[test]
#[ignore = "`make test-all`: browsers, and the module of `make web`"]
fn a_tab_sends_files_to_a_host_and_to_another_tab() {
    in_each_browser("send", |lab: &Lab, kind| {
        open_driver()?;
        let server = lab.signalling_server()?;
        let url = server.url()?;
        let [ann, visitor] = &crate::all(lab.closed_hosts(&["ann", "visitor"])?)?;
        let visitor = Visitor::new(visitor.clone())?;
        let origin = &visitor.origin;
        let browser = super::Browser::start(&visitor.host, kind, Theme::Light)?;
        if kind == Kind::Chromium {
            takes_shared_files(&browser.open("shared", &format!("{origin}/send/"))?)?;
        }
        let page = browser.open("send", &format!("{origin}/send/"))?;
        page.expect_open_to_all()?;
        let sent = [
            ("report.pdf", noise(2, 300_000)),
            ("video", noise(1, 5_000_000)),
        ];
        for (n, (name, bytes)) in (1..).zip(&sent) {
            let path = visitor.host.path(name);
            fs::write(&path, bytes)?;
            page.upload("#files", &path)?;
            page.until_says("#chosen-words", &format!("{n} file"))?;
        }
        let host = Host::of_url(&url).context("a host")?.to_string();
        page.eval("document.querySelector('#more').open = true")?;
        page.fill("#server", &host)?;
        page.click("#send")?;
        page.until_says("#words-title", "Four words")?;
        page.expect_fits_a_phone()?;
        let words = page.eval("document.querySelector('#words').textContent")?;
        let words = words.as_str().context("words")?;
        ensure!(words.ends_with(&format!("@{host}")), "{words}");
        let mut receives = receive(ann, &url, words)?;
        page.until_says("#sent", "Somebody receives")?;
        receives.expect_exit(DEADLINE, 0)?;
        for (name, bytes) in &sent {
            ensure!(fs::read(ann.path("dest").join(name))? == *bytes, "{name}");
        }
        // the page is the only router of its network now
        let other = browser.open("get", &format!("{origin}/get/#{words}"))?;
        other.until_says("#sent-title", "From browser")?;
        other.click("#all")?;
        other.until_says("#sent", "received and verified")?;
        let as_http = url.replace("ws:", "http:");
        browser.expect_clean(&[origin, &url, &as_http])
    });
}
