//! Private groups: a page shows a conversation and takes part.

use lcroute_lab::lab::eventually;

use super::{Browser, Theme, in_each_browser};
use crate::groups::{invitation, people};
use crate::web::serve;

#[test]
#[ignore = "`make test-all`: browsers, and what `make web` makes"]
fn a_page_shows_a_conversation_and_speaks_in_it() {
    in_each_browser("groups", |lab, kind| {
        let (_network, people) = people(lab, &["ann", "bob"])?;
        let ann = &people[0].host;
        ann.configure("[web]\ngroups = true\n")?;
        let (_pages, address) = serve(ann)?;
        let groups = address.replace("/#", "/groups/#");
        let browser = Browser::start(ann, kind, Theme::Light)?;
        let page = browser.open("groups", &groups)?;
        page.until("!document.querySelector('#none').hidden")?;
        people[0].ask(&["create", "team", "--as", "ann", "--topic", "our team"])?;
        page.until_says("#groups b", "team")?;
        people[1].join(&invitation(&people[0], "1")?)?;
        eventually("bob is a member", || people[1].is("member"))?;
        people[1].say("meet at the <b>old mill</b>\nat nine")?;
        page.until_says("#heard .said", "meet at the <b>old mill</b>\nat nine")?;
        page.until_says("#heard b", "bob")?;
        // typed by keyboard alone
        page.fill("#words", "and bring the lantern")?;
        page.press("Enter")?;
        page.until_says("#heard .own .said", "and bring the lantern")?;
        eventually("bob reads it", || people[1].has("and bring the lantern"))?;
        page.until("document.querySelector('#words').value === ''")?;
        page.expect_open_to_all()?;
        page.shot("conversation")?;
        // another group, and the same conversation after a reload
        people[0].ask(&["create", "plans", "--as", "ann"])?;
        page.until("document.querySelectorAll('#groups li').length === 2")?;
        page.click("#groups [data-group=plans] button")?;
        page.until("document.querySelectorAll('#heard li').length === 0")?;
        page.click("#groups [data-group=team] button")?;
        page.until_says("#heard .said", "and bring the lantern")?;
        page.reload()?;
        page.until("document.querySelectorAll('#heard li').length === 2")?;
        page.expect_fits_a_phone()?;
        browser.expect_clean(&[address.split('#').next().unwrap_or_default()])?;
        let dark = Browser::start(ann, kind, Theme::Dark)?;
        let page = dark.open("groups", &groups.replace('#', "?group=team#"))?;
        page.until_says("#heard .said", "and bring the lantern")?;
        page.expect_open_to_all()?;
        page.shot("conversation")?;
        Ok(())
    });
}
