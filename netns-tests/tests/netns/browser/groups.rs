//! Private groups: a page shows a conversation and takes part.

use super::{Browser, Page, Theme, in_each_browser};
use crate::groups::{invitation, people};
use crate::prelude::*;
use crate::studio_pictures::png;
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
        // addresses of the web are links, and nothing else is
        people[1].say("(https://mill.example/a_(b)), javascript:alert(1) http://x@y.example")?;
        page.until_says("#heard .said", "javascript:alert(1)")?;
        let links = "[...document.querySelectorAll('#heard .said a')].map((a) => [a.href, a.textContent, a.rel])";
        let (address_of, rel) = ("https://mill.example/a_(b)", "noopener noreferrer nofollow");
        ensure!(page.eval(links)? == json!([[address_of, address_of, rel]]));
        // typed by keyboard alone
        page.enter("#words", "and bring the lantern")?;
        page.until_says("#heard .own .said", "and bring the lantern")?;
        eventually("bob reads it", || people[1].has("and bring the lantern"))?;
        page.until("document.querySelector('#words').value === ''")?;
        page.inspect("conversation")?;
        // another group, and the same conversation after a reload
        people[0].ask(&["create", "plans", "--as", "ann"])?;
        page.until("document.querySelectorAll('#groups li').length === 2")?;
        page.click("#groups [data-group=plans] button")?;
        page.until("document.querySelectorAll('#heard [data-n]').length === 0")?;
        page.click("#groups [data-group=team] button")?;
        page.until_says("#heard .said", "and bring the lantern")?;
        page.reload()?;
        page.until("document.querySelectorAll('#heard [data-n]').length === 3")?;
        page.expect_fits_a_phone()?;
        browser.expect_clean(&[address.split('#').next().unwrap_or_default()])?;
        let dark = Browser::start(ann, kind, Theme::Dark)?;
        let page = dark.open("groups", &groups.replace('#', "?group=team#"))?;
        page.until_says("#heard .said", "and bring the lantern")?;
        page.inspect("conversation")?;
        Ok(())
    });
}

#[test]
#[ignore = "`make test-all`: browsers, and what `make web` makes"]
fn a_members_call_rings_until_not_now_and_a_page_calls() {
    in_each_browser("groups-call", |lab, kind| {
        let (network, people) = people(lab, &["ann", "bob"])?;
        let ann = &people[0].host;
        ann.configure("[web]\ngroups = true\n")?;
        let (_pages, address) = serve(ann)?;
        people[0].ask(&["create", "team", "--as", "ann"])?;
        people[1].join(&invitation(&people[0], "1")?)?;
        eventually("bob is a member", || people[1].is("member"))?;
        let browser = Browser::start(ann, kind, Theme::Light)?;
        let page = browser.open("groups", &address.replace("/#", "/groups/#"))?;
        page.until_says("#talk-title", "team")?;
        let called = people[1].ask(&["call", "team"])?;
        let text = called["call"].as_str().context("no call")?;
        ensure!(text.starts_with("lcc1"), "{text}");
        page.until("!document.querySelector('#ring').hidden")?;
        page.until_says("#ring", "bob calls:")?;
        let leads = |at: &str| {
            let href = format!("document.querySelector('{at}')?.getAttribute('href')");
            page.until(&format!("{href} === {}", json!(format!("/call/#{text}"))))
        };
        leads("#ring a")?;
        leads("#heard .said a")?;
        page.until_says("#heard .said", "calls: Join")?;
        page.inspect("ring")?;
        page.click("#ring button")?;
        page.until("document.querySelector('#ring').hidden")?;
        // a page that was told so does not ring again
        people[1].ask(&["call", "team"])?;
        page.until("document.querySelectorAll('#heard .said a').length === 2")?;
        ensure!(page.eval("document.querySelector('#ring').hidden")? == true);
        // a page calls nobody before its caller can come
        page.click("#call button")?;
        page.until_says("#call .answer", "needs an invitation")?;
        ensure!(page.eval("document.querySelector('#heard .own') === null")? == true);
        // it calls, and rings nowhere here
        page.eval(
            "window.open = () => ({ sessionStorage: { setItem: (_, kept) => (window.kept = kept) }, \
             location: { replace: ({ hash }) => (window.went = hash) } }), null",
        )?;
        let token = network.token.trim();
        page.fill("#call-token", token)?;
        page.click("#call button")?;
        page.until(&format!("window.went?.startsWith('#{token},lcc1')"))?;
        ensure!(page.eval("JSON.parse(window.kept).name")? == "ann");
        eventually("bob hears of it", || {
            let said = people[1].said()?;
            let is_hers = |m: &Value| m["call"].is_string() && m["shown"] == "ann";
            holds!(said.iter().any(is_hers), "{said:?}")
        })?;
        page.until("document.querySelectorAll('#heard .own .said a').length === 1")?;
        ensure!(page.eval("document.querySelector('#ring').hidden")? == true);
        let args = ["--control", &people[1].control, "tail", "team"];
        let said = people[1].host.ask("lcgroup", &args)?.success()?.stdout;
        ensure!(said.contains(" ann: calls: lcradio call lcc1"), "{said}");
        // no tab is in a network of a group's own
        people[0].ask(&["create", "away", "--as", "ann", "--outside"])?;
        page.until("document.querySelector('[data-group=away]') !== null")?;
        page.click("[data-group=away] button")?;
        page.until_says("#call-how", "no tab is in it")?;
        page.click("#call button")?;
        page.until_says("#call-how", "lcgroup call away lcc1")?;
        page.until("document.querySelectorAll('#heard .own .said code').length === 1")?;
        Ok(())
    });
}

#[test]
#[ignore = "`make test-all`: browsers, and what `make web` makes"]
fn a_page_sends_a_file_and_shows_and_saves_the_file_of_another() {
    in_each_browser("groups-files", |lab, kind| {
        let (_network, people) = people(lab, &["ann", "bob"])?;
        let ann = &people[0].host;
        ann.configure("[web]\ngroups = true\n")?;
        let (_pages, address) = serve(ann)?;
        people[0].ask(&["create", "team", "--as", "ann"])?;
        people[1].join(&invitation(&people[0], "1")?)?;
        eventually("bob is a member", || people[1].is("member"))?;
        let browser = Browser::start(ann, kind, Theme::Light)?;
        let page = browser.open("groups", &address.replace("/#", "/groups/#"))?;
        page.until_says("#talk-title", "team")?;
        let plan = ann.write("Plän.txt", b"to the mill")?;
        page.upload("#file", &plan)?;
        page.click("#attach button")?;
        page.until_says("#heard .own .file b", "Plän.txt")?;
        page.until("document.querySelector('#file').value === ''")?;
        let got = people[1].host.path("got").display().to_string();
        eventually("bob has it", || {
            people[1].ask(&["get", "team", "Plän.txt", &got]).map(drop)
        })?;
        ensure!(fs::read(&got)? == b"to the mill");

        // a picture is shown, another file with such a name is not, and both can be saved
        page.eval("HTMLAnchorElement.prototype.click = function () { window.saved = this.download; }, null")?;
        let bob = &people[1];
        for (name, bytes) in [
            ("waggle.png", png(400, 225, 0xff)),
            (
                "other.png",
                b"<svg onload='window.wasRun = true'/>".to_vec(),
            ),
        ] {
            let path = bob.host.write(name, &bytes)?.display().to_string();
            bob.ask(&["send", "team", "--file", &path])?;
            page.until_says("#heard .words .file b", name)?;
        }
        page.until("document.querySelector('#heard .file img')?.naturalWidth === 400")?;
        for name in ["waggle.png", "other.png"] {
            page.click(&format!("#heard [aria-label='Save {name}']"))?;
            page.until(&format!("window.saved === {}", json!(name)))?;
        }
        let shown = "document.querySelectorAll('#heard .file img').length === 1 && window.wasRun === undefined";
        ensure!(page.eval(shown)? == true);
        page.expect_open_to_all()?;
        page.expect_fits_a_phone()?;
        page.shot("files").map(drop)
    });
}

/// A thousand members, with names that are longer than lcgroup lets them be.
const CROWD: &str = r"
const real = window.fetch;
const named = (i) => ({ author: `k${i}`, shown: `<b>member ${i}</b>`.padEnd(10000, 'x'), owner: i === 0, me: false });
window.fetch = (path, ...more) => String(path).endsWith('/members')
    ? Promise.resolve(new Response(JSON.stringify([...Array(1000).keys()].map(named))))
    : real(path, ...more);
";

/// Fills in a form that is folded away, and sends it.
fn send(page: &Page<'_>, form: &str, fields: &[(&str, &str)]) -> Result<()> {
    let open = format!("document.querySelector('{form}').open");
    if page.eval(&open)? != true {
        page.click(&format!("{form} summary"))?;
    }
    for (field, text) in fields {
        page.fill(&format!("{form} [name={field}]"), text)?;
    }
    page.click(&format!("{form} form button.primary"))
}

fn say(page: &Page<'_>, words: &str) -> Result<()> {
    page.enter("#words", words)?;
    page.until_says("#heard .own .said", words).map(drop)
}

#[test]
#[ignore = "`make test-all`: browsers, and what `make web` makes"]
fn people_make_a_group_invite_join_and_talk_in_their_pages() {
    in_each_browser("groups-alone", |lab, kind| {
        let (_network, mut people) = people(lab, &["ann", "bob"])?;
        let hosts: Vec<_> = people.iter().map(|person| person.host.clone()).collect();
        let mut served = Vec::new();
        for host in &hosts {
            host.configure("[web]\ngroups = true\n")?;
            served.push(serve(host)?);
        }
        let address = |at: usize| served[at].1.replace("/#", "/groups/#");
        let browsers = [
            Browser::start(&hosts[0], kind, Theme::Light)?,
            Browser::start(&hosts[1], kind, Theme::Dark)?,
        ];
        let ann = browsers[0].open("groups", &address(0))?;
        let bob = browsers[1].open("groups", &address(1))?;
        // a refusal of lcgroup stands beside the form, and the form stays
        ann.until("!document.querySelector('#none').hidden")?;
        let hidden = "\u{202e}nna";
        send(&ann, "#create", &[("group", "team"), ("name", hidden)])?;
        ann.until_says(
            "#create .answer",
            "1 to 64 bytes of characters that are seen",
        )?;
        let own = [("name", "Ann"), ("topic", "our <b>team</b>")];
        send(&ann, "#create", &own)?;
        ann.until_says("#talk-title", "team")?;
        ann.until_says("#topic", "our <b>team</b>")?;
        send(&ann, "#invite", &[])?;
        ann.until("document.querySelector('#invited .qr') !== null")?;
        ann.until_says("#invited p", "For one person, until ")?;
        let (line, _) = ann.until("document.querySelector('#invited code.line').textContent")?;
        let line = line.as_str().context("an invitation")?.to_owned();
        ensure!(line.starts_with("lcg1"), "{line}");
        ann.expect_open_to_all()?;
        // one that is withdrawn is shown no more, and the other stays
        let row = "#invite .persons li";
        ann.until(&format!("document.querySelectorAll('{row}').length === 1"))?;
        let (first, _) = ann.until(&format!(
            "document.querySelector('{row} small').textContent"
        ))?;
        send(&ann, "#invite", &[])?;
        ann.until(&format!("document.querySelectorAll('{row}').length === 2"))?;
        ann.inspect("invitation")?;
        ann.expect_fits_a_phone()?;
        ann.eval(&format!(
            "[...document.querySelectorAll('{row}')].find((e) => !e.textContent.includes({first})).querySelector('button').click()"
        ))?;
        ann.until(&format!("document.querySelectorAll('{row}').length === 1"))?;
        ann.until_says(row, first.as_str().context("an id")?)?;
        ann.until("document.querySelector('#invited').children.length === 0")?;
        ann.until_says("#invite > .hint", "Withdrawn: nobody")?;

        // a joiner sees the reason for the wait
        let damaged = &line[..line.len() - 1];
        send(&bob, "#join", &[("invitation", damaged), ("name", "bob")])?;
        bob.until_says("#join .answer", "Damaged: copy the whole line")?;
        people[0].daemon()?.stop()?;
        ann.until_says("#problem", "lcgroup run")?;
        let fields = [("invitation", &*line), ("name", "<i>bob</i>")];
        send(&bob, "#join", &fields)?;
        bob.until_says("#standing", "It waits for the group's owner")?;
        bob.until_says("#standing", "(On lc0.)")?;
        bob.until_says("#groups small", "waits for the owner’s answer")?;
        ensure!(bob.eval("document.querySelector('#say').hidden")? == true);
        bob.inspect("waits")?;
        people[0].start()?;
        ann.until("document.querySelector('#problem').hidden")?;
        bob.until_says("#groups small", "2 members, a member")?;
        bob.until("document.querySelector('#standing').hidden")?;
        let name = "our--b-team--b-";
        bob.until_says("#talk-title", name)?;
        send(&bob, "#join", &fields)?;
        bob.until_says("#join .answer", "This host is in that group already")?;

        say(&ann, "meet at the mill")?;
        bob.until_says("#heard .words .said", "meet at the mill")?;
        say(&bob, "at nine")?;
        ann.until_says("#heard .words .said", "at nine")?;
        ann.until_says("#heard .words b", "<i>bob</i>")?;
        ann.until("document.title === 'team'")?;
        ann.click("#members summary")?;
        ann.until_says(".persons li", "Annthis host, owner · spoke last")?;
        ann.until_says(".persons li", "<i>bob</i>spoke last")?;

        // meanwhile elsewhere: what was not read is counted, and a line stands where the reading
        // stopped
        send(&bob, "#create", &[("group", "plans"), ("name", "bob")])?;
        bob.until_says("#talk-title", "plans")?;
        let long = format!("<b>\u{202e}{}</b>", "0123456789".repeat(1_000));
        people[0].say("bring the lantern")?;
        people[0].say(&long)?;
        bob.until_says(&format!("[data-group='{name}'] .unread"), "2 new")?;
        bob.until("document.title === '(2) plans'")?;
        bob.inspect("unread")?;
        bob.click(&format!("[data-group='{name}'] button"))?;
        bob.until("document.querySelector('#heard .new')?.nextElementSibling?.textContent.includes('bring the lantern')")?;
        bob.until("document.title === 'our--b-team--b-'")?;
        bob.until("document.querySelector('.groups .unread').hidden")?;
        let height = bob.eval("document.querySelector('#heard').lastChild.offsetHeight")?;
        ensure!(height.as_u64() < Some(900), "{height} pixels of a message");
        bob.click("#heard .said button")?;
        bob.until(&format!(
            "[...document.querySelectorAll('#heard .said')].some((e) => e.textContent === {})",
            json!(long.replace('\u{202e}', "\u{fffd}"))
        ))?;
        bob.inspect("conversation")?;
        bob.expect_fits_a_phone()?;
        // messages read in one tab are read in the other
        bob.click("[data-group=plans] button")?;
        people[0].say("and bread")?;
        bob.until("document.title === '(1) plans'")?;
        let other = address(1).replace('#', &format!("?group={name}#"));
        let second = browsers[1].open("second", &other)?;
        second.until_says("#heard .said", "and bread")?;
        bob.until("document.title === 'plans'")?;

        // a tab that nobody sees reads nothing
        bob.click(&format!("[data-group='{name}'] button"))?;
        bob.until_says("#heard .said", "and bread")?;
        second.click("[data-group=plans] button")?;
        second.until("document.title === 'plans'")?;
        people[0].say("and salt")?;
        bob.until(&format!("document.title === '(1) {name}'"))?;
        bob.click("#words")?;
        bob.until(&format!("document.title === '{name}'"))?;
        bob.until("document.querySelector('#heard .new')?.nextElementSibling?.textContent.includes('and salt')")?;
        second.click(&format!("[data-group='{name}'] button"))?;
        second.until_says("#heard .said", "and salt")?;

        // days, after a start with messages of two days ago
        people[1].daemon()?.stop()?;
        let path = people[1]
            .folder()
            .join("groups")
            .join(name)
            .join("messages");
        let said = fs::read_to_string(&path)?;
        let (first, rest) = said.split_once('\n').context("messages")?;
        let mut first: Value = serde_json::from_str(first)?;
        let time = first["time"].as_u64().context("a time")?;
        first["time"] = (time - 2 * 24 * 3_600_000).into();
        fs::write(&path, format!("{first}\n{rest}"))?;
        second.until_says("#problem", "lcgroup does not run here")?;
        second.shot("stopped")?;
        people[1].start()?;
        second.until("document.querySelector('#problem').hidden")?;
        people[0].say("after the start")?;
        second.until_says("#heard .said", "after the start")?;
        second.reload()?;
        second.until("document.querySelectorAll('#heard .day').length === 2")?;
        second.until("document.querySelectorAll('#heard [data-n]').length === 7")?;

        // the end stays in sight where the window becomes narrow
        second.expect_fits(390, 844)?;
        second.until("((list) => list.scrollHeight > list.clientHeight && list.scrollHeight - list.scrollTop - list.clientHeight < 2)(document.querySelector('#heard'))")?;
        second.expect_fits(1280, 900)?;

        // words wait where nobody else is there, and nobody speaks after a removal
        for person in &mut people {
            person.daemon()?.stop()?;
        }
        people[1].start()?;
        second.until_says("#standing", "What is said waits for any other member")?;
        say(&second, "is anybody there?")?;
        second.shot("alone")?;
        people[0].start()?;
        second.until("document.querySelector('#standing').hidden")?;
        eventually("it is read", || people[0].has("is anybody there?"))?;
        people[0].ask(&["remove", "team", "<i>bob</i>", "--tell"])?;
        second.until_says("#standing", "The owner removed this member")?;
        second.until_says("#groups small", "not a member any more")?;
        second.until("document.querySelector('#say').hidden")?;
        second.inspect("removed")?;

        // more members than there are hosts here
        let plans = address(1).replace('#', "?group=plans#");
        let crowd = browsers[1].open_prepared("crowd", CROWD, &plans)?;
        crowd.click("#members summary")?;
        crowd.until("document.querySelectorAll('.persons li').length === 100")?;
        crowd.until_says("#members .hint", "And 900 more")?;
        crowd.until("document.querySelector('.persons b').textContent.length === 128")?;
        crowd.fill("#find-member", "member 99")?;
        crowd.until("document.querySelectorAll('.persons li').length === 11")?;
        crowd.expect_open_to_all()?;
        crowd.expect_fits_a_phone()?;
        Ok(())
    });
}
