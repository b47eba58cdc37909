//! The page that receives files under four words, or by a public link.

use super::node::Visitor;
use super::{Page, Theme, in_each_browser};
use crate::codes::{lcsync, make_files, send};
use crate::guest::open_driver;
use crate::prelude::*;

/// Keeps the files that the page gives the browser to save.
const TAP: &str = r#"(() => {
    window.saved = [];
    const { createObjectURL } = URL;
    URL.createObjectURL = (blob) => {
        saved.push(blob);
        return createObjectURL.call(URL, blob);
    };
})()"#;

/// Hashes of saved files, in order of their digits.
const HASHES: &str = r#"Promise.all(saved.map(async (blob) => {
    const hash = await crypto.subtle.digest("SHA-256", await blob.arrayBuffer());
    return [...new Uint8Array(hash)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
})).then((all) => all.sort())"#;

fn hashes(host: &Host, sent: &[PathBuf; 2]) -> Result<Vec<String>> {
    let paths = sent.each_ref().map(|path| path.display().to_string());
    let find = format!("find '{}' '{}' -type f -print0", paths[0], paths[1]);
    let command = format!("{find} | xargs -0 sha256sum | cut -c-64 | tr -d '\\\\' | sort");
    let said = host.sh(&command)?.success()?.stdout;
    Ok(said.lines().map(str::to_owned).collect())
}

fn receives(page: &Page, expected: &[String]) -> Result<()> {
    page.click("#all")?;
    page.until(&format!("saved.length === {}", expected.len()))?;
    page.until_says("#sent", "received and verified")?;
    let saved = page.eval(HASHES)?;
    holds!(saved == json!(expected), "{saved} {expected:?}")
}

#[test]
#[ignore = "`make test-all`: browsers, and the module of `make web`"]
fn a_tab_receives_files_by_words_and_by_a_public_link() {
    in_each_browser("get", |lab: &Lab, kind| {
        open_driver()?;
        let server = lab.signalling_server()?;
        let url = server.url()?;
        let [ann, cy, visitor] = &crate::all(lab.closed_hosts(&["ann", "cy", "visitor"])?)?;
        let sent = make_files(ann, 3_000_000)?;
        let expected = hashes(ann, &sent)?;
        let (_sends, code) = send(ann, &url, &sent)?;
        let (words, host) = code.split_once('@').context("a host")?;
        let visitor = Visitor::new(visitor.clone())?;
        let browser = super::Browser::start(&visitor.host, kind, Theme::Light)?;
        let origin = &visitor.origin;
        let page = browser.open_prepared("words", TAP, &format!("{origin}/get/#{code}"))?;
        page.until_says("#sent-title", "From nobody")?;
        page.until_says("#sent", &format!("{} files", expected.len()))?;
        page.inspect("offered")?;
        receives(&page, &expected)?;
        page.expect_fits_a_phone()?;
        // as somebody types them, and words of nobody
        let typed = browser.open_prepared("typed", TAP, &format!("{origin}/get/"))?;
        typed.expect_open_to_all()?;
        typed.fill("#words", "abandon-abandon-abandon-zooo")?;
        typed.click("#receive")?;
        typed.until_says("#problem", "is no word of a code")?;
        typed.fill("#words", &format!("abandon-abandon-abandon-zoo@{host}"))?;
        typed.click("#receive")?;
        typed.until_says("#sent", "Nobody is here under these words yet")?;
        typed.click("#leave")?;
        let upper = words.replace('-', " ").to_uppercase();
        typed.fill("#words", &format!("{upper}@{host}"))?;
        typed.click("#receive")?;
        typed.until_says("#sent-title", "From nobody")?;
        // somebody else's files, by a link that may be public
        let others = make_files(cy, 200_000)?;
        let paths = others.each_ref().map(|path| path.display().to_string());
        let args = ["send", "--public", &paths[0], &paths[1]];
        let sends = lcsync(cy, &url, &args)?;
        sends.prints(",lc:files")?;
        let link = sends.stdout().trim().to_owned();
        let public = browser.open_prepared("public", TAP, &format!("{origin}/get/#{link}"))?;
        public.until_says("#sent", " files")?;
        receives(&public, &hashes(cy, &others)?)?;
        let as_http = url.replace("ws:", "http:");
        browser.expect_clean(&[origin, &url, &as_http])
    });
}
