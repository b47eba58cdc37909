//! Helpers of stations in networks of their own: routers with a good uplink, for a caster without.

use crate::guest::as_nobody;
use crate::prelude::*;
use crate::radio::{RADIO, write_chirp};
use crate::stations::{cast, hears, kill_all, listen, public_server, station, text_of};

/// Time for which the uplink is measured.
const MEASURED: Duration = Duration::from_secs(5);
/// Bound for listeners to leave the caster: each asks for a second link within 30 s.
const RELEASED: Duration = Duration::from_secs(90);

/// Makes a token for a helper.
fn invite(host: &Host, key: &str, name: &str, args: &[&str]) -> Result<String> {
    let args = [&["invite", key, name], args].concat();
    let token = host.run(RADIO, &args)?.success()?.stdout;
    Ok(token.trim().to_owned())
}

/// Helps by this token, as nobody.
fn help(host: &Host, token: &str) -> Result<Process> {
    let args = [RADIO, "--json", "helper", token];
    host.spawn("setpriv", &as_nobody(&args))
}

/// Returns the last figures of a helper.
fn figures(helper: &Process) -> Result<Value> {
    let shown = helper.stdout();
    let whole = &shown[..shown.rfind('\n').with_context(|| helper.stderr())?];
    Ok(serde_json::from_str(
        whole.lines().next_back().context("no line")?,
    )?)
}

/// Waits until a helper is linked with the caster, and has this many listeners.
fn serves(helper: &Process, listeners: usize, timeout: Duration) -> Result<()> {
    within(timeout, "the helper serves listeners", || {
        let shown = figures(helper)?;
        let is_there = shown["casters"] == 1 && shown["listeners"] == listeners;
        holds!(is_there, "{shown} {}", helper.stderr())
    })
}

/// Returns the bytes that hosts have sent on their uplinks meanwhile.
fn sent(hosts: [&Host; 2]) -> Result<[u64; 2]> {
    let bytes = || -> Result<[u64; 2]> {
        let [a, b] = hosts.map(Host::uplink_traffic);
        Ok([a?.1.bytes, b?.1.bytes])
    };
    let before = bytes()?;
    sleep(MEASURED);
    let after = bytes()?;
    Ok([after[0] - before[0], after[1] - before[1]])
}

#[test]
#[ignore = "long: `make test-all`"]
fn sound_crosses_the_uplink_of_the_caster_once_for_a_helper_and_goes_on_without_it() {
    guests("helper", |lab| {
        let (_server, url) = public_server(lab)?;
        let [ann, eve, early, bob, cy] =
            &crate::all(lab.closed_hosts(&["ann", "eve", "early", "bob", "cy"])?)?;
        let (path, _) = station(ann, "station.key")?;
        let token = invite(ann, &path, "eve", &["--at", &url])?;
        // sound until the end of the test
        fs::rename(write_chirp(ann, 300)?, ann.path("chirp.raw"))?;
        // before somebody casts
        let helper = help(eve, &token)?;
        helper.says("waiting for the caster")?;
        let casts = cast(ann, &path, &format!("--at {url}"))?;
        let text = text_of(&casts)?;
        serves(&helper, 0, DEADLINE)?;
        casts.says("a helper is here")?;
        // a helper that is not reached keeps no listener out
        eve.cut_from([early])?;
        let first = listen(early, &text, &[])?;
        hears(&first, 2)?;
        serves(&helper, 0, DEADLINE)?;
        let mut listeners = Vec::new();
        for host in [bob, cy] {
            listeners.push(listen(host, &text, &[])?);
        }
        for listener in &listeners {
            hears(listener, 2)?;
        }
        casts.says("listeners reach a helper")?;
        // nor, while others reach it, one that is here, or a new one
        serves(&helper, 2, RELEASED)?;
        hears(&first, 2)?;
        kill_all(&first)?;
        let began = Instant::now();
        let again = listen(early, &text, &[])?;
        hears(&again, 2)?;
        println!("hears the caster {:.1?} after its start", began.elapsed());
        serves(&helper, 2, DEADLINE)?;
        listeners.push(again);
        eve.heal_uplink()?;
        within(RELEASED, "the caster has released its listeners", || {
            let [by_caster, by_helper] = sent([ann, eve])?;
            println!("{by_caster} bytes of the caster, {by_helper} of its helper");
            // three copies, with what each link costs
            holds!(2 * by_caster < by_helper, "{by_caster} {by_helper}")
        })?;
        serves(&helper, 3, DEADLINE)?;
        // the secret is in the arguments of no process
        let shown = fs::read_to_string(format!("/proc/{}/cmdline", helper.pid()))?;
        ensure!(!shown.contains(&token[8..60]), "{shown}");

        let began = Instant::now();
        kill_all(&helper)?;
        for listener in &listeners {
            hears(listener, 1)?;
        }
        println!("all hear again {:.1?} after its end", began.elapsed());
        // it takes them back
        let helper = help(eve, &token)?;
        within(RELEASED, "the caster has released its listeners", || {
            let [by_caster, by_helper] = sent([ann, eve])?;
            holds!(2 * by_caster < by_helper, "{by_caster} {by_helper}")
        })?;
        serves(&helper, 3, DEADLINE)?;
        for listener in &listeners {
            hears(listener, 1)?;
        }

        // the caster withdraws it
        kill_all(&casts)?;
        let again = cast(ann, &path, &format!("--at {url} --without eve"))?;
        text_of(&again)?;
        let mut helper = helper;
        helper.fails(DEADLINE, 4, "takes no help by this token")?;
        for listener in &listeners {
            hears(listener, 1)?;
        }
        again.signal(Signal::SIGINT)?;
        Ok(())
    });
}

#[test]
fn by_tokens_of_other_kinds_nobody_helps() {
    guests("helper-wrong", |lab| {
        let host = lab.host("eve")?;
        let (path, _) = station(&host, "station.key")?;
        let (_, other) = station(&host, "other.key")?;
        let public = other.station(true).encode();
        let grant = ["grant", &path, &public, "--outside", "--at", "127.0.0.1:9"];
        let grant = host.run(RADIO, &grant)?.success()?.stdout;
        let (member, _) = grant.split_once(',').context("a token before the grant")?;
        let expired = invite(&host, &path, "eve", &["--ttl", "1s"])?;
        sleep(Duration::from_secs(2));
        for (token, code, said) in [
            (member, 4, "by this token nobody helps"),
            (&expired, 4, "the token is not accepted"),
            ("lct1damaged", 2, "lcradio: "),
        ] {
            let mut refused = help(&host, token)?;
            refused.fails(DEADLINE, code, said)?;
        }
        // nobody is there, and no place answers
        let alone = invite(&host, &path, "eve", &["--at", "ws://127.0.0.1:9"])?;
        let mut waits = help(&host, &alone)?;
        waits.says("ws://127.0.0.1:9 does not answer")?;
        waits.signal(Signal::SIGINT)?;
        waits.expect_exit(DEADLINE, 130)
    });
}
