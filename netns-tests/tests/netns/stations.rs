//! Stations in networks of their own: with the text, anyone listens, without network, daemon, root.

use std::os::unix::fs::{chown, symlink};

use lcradio_core::StationKey;

use crate::guest::{all_end, as_confined, as_nobody, family};
use crate::outside_dht::with_dht;
use crate::prelude::*;
use crate::radio::{RADIO, key_of, last_status, station_of, write_chirp};
use crate::reach::swarm;

/// The user without rights.
const NOBODY: u32 = 65_534;
/// Bytes of a second of sound.
const SECOND: usize = 48_000 * 4;

/// A public signalling server that belongs to nobody here.
pub(crate) fn public_server(lab: &Lab) -> Result<(SignallingServer, String)> {
    let mut server = lab.signalling_server()?;
    server.kill()?;
    server.args = ["--no-relay", "--public"].map(str::to_owned).to_vec();
    server.start()?;
    let url = server.url()?;
    Ok((server, url))
}

/// Makes a key that nobody may read.
pub(crate) fn station(host: &Host, name: &str) -> Result<(String, StationKey)> {
    let (path, _, key) = key_of(host, name)?;
    chown(&path, Some(NOBODY), Some(NOBODY))?;
    Ok((path, key))
}

/// Casts a chirp in the station's own network, as nobody.
pub(crate) fn cast(host: &Host, key: &str, args: &str) -> Result<Process> {
    let chirp = host.path("chirp.raw").display().to_string();
    if fs::metadata(&chirp).is_err() {
        fs::rename(write_chirp(host, 60)?, &chirp)?;
    }
    let command = format!("exec {RADIO} --json cast --key {key} --outside {args} - <{chirp}");
    host.spawn("setpriv", &as_nobody(&["sh", "-c", &command]))
}

pub(crate) fn text_of(cast: &Process) -> Result<String> {
    eventually("it prints its text", || {
        station_of(cast).with_context(|| cast.stderr())
    })
}

/// Listens by this text, as nobody; sound goes to standard output.
pub(crate) fn listen(host: &Host, text: &str, args: &[&str]) -> Result<Process> {
    let all = [&[RADIO, "--json", "listen", text, "-"], args].concat();
    host.spawn("setpriv", &as_nobody(&all))
}

/// Waits for seconds of sound more than there are.
pub(crate) fn hears(listener: &Process, seconds: usize) -> Result<()> {
    let before = listener.stdout().len();
    eventually("it hears", || {
        let heard = listener.stdout().len() - before;
        let status = last_status(&listener.stderr())?;
        holds!(
            heard >= seconds * SECOND && status["level_dbfs"].is_number(),
            "{heard} bytes: {}",
            listener.stderr()
        )
    })
}

/// Closes a host's firewall, but for multicast DNS and this port.
pub(crate) fn open_port(host: &Host, port: &str) -> Result<()> {
    host.nft(&format!(
        "flush ruleset\ntable inet f {{\n chain in {{\n  type filter hook input priority 0; policy drop;\n  \
         iif lo accept\n  ct state established,related accept\n  ip6 nexthdr icmpv6 accept\n  \
         udp dport {{ 5353, {port} }} accept\n }}\n}}\n"
    ))
}

/// Ends the guest of a program at once, with all that it has started.
pub(crate) fn kill_all(process: &Process) -> Result<()> {
    let family = family(process.pid());
    kill(
        Pid::from_raw(i32::try_from(process.pid())?),
        Signal::SIGKILL,
    )?;
    all_end(&family)
}

#[test]
fn who_has_only_the_text_of_a_station_hears_it_through_closed_firewalls() {
    guests("station", |lab| {
        let (_server, url) = public_server(lab)?;
        let [caster, early, confined] =
            &crate::all(lab.closed_hosts(&["caster", "early", "confined"])?)?;
        let (path, key) = station(caster, "station.key")?;
        let text = format!("{}@{url}", *key.station(false).encode());
        // before somebody casts
        let waits = listen(early, &text, &["--timeout", "60s"])?;
        waits.says("looking for the sender at")?;
        let casts = cast(caster, &path, &format!("--at {url}"))?;
        ensure!(text_of(&casts)? == text, "{}", casts.stdout());
        hears(&waits, 2)?;
        // without a namespace, under its own name: other programs are refused
        let own = confined.path("lcradio");
        symlink(RADIO, &own)?;
        let own = own.display().to_string();
        let args = [&own, "--json", "listen", &text, "-"];
        let second = confined.spawn("setpriv", &as_confined(&args))?;
        hears(&second, 1)?;
        // the text is in the arguments of no process
        for process in [&casts, &waits] {
            for pid in family(process.pid()) {
                let shown = fs::read_to_string(format!("/proc/{pid}/cmdline"))?;
                ensure!(!shown.contains(&text[8..60]), "{shown}");
            }
        }
        kill_all(&casts)?;
        let again = cast(caster, &path, &format!("--at {url}"))?;
        text_of(&again)?;
        hears(&waits, 2)?;
        hears(&second, 2)?;
        again.signal(Signal::SIGINT)?;
        Ok(())
    });
}

#[test]
fn wrong_texts_of_stations_are_refused_and_nobody_under_a_text_is_said() {
    guests("station-wrong", |lab| {
        let (_server, url) = public_server(lab)?;
        let host = lab.host("bob")?;
        let station = StationKey::from_seed(&[7; 32]).station(false);
        let text = station.encode();
        for (wrong, said) in [
            (format!("{}@{url}", &text[..60]), "damaged"),
            (format!("{}@", *text), "a place is HOST"),
            (format!("{}@a b", *text), "a place is HOST"),
            (
                "lcs1abc@meet.example".to_owned(),
                "this is a session of Studio",
            ),
        ] {
            let mut refused = listen(&host, &wrong, &[])?;
            let code = refused.wait(DEADLINE)?;
            let told = refused.stderr();
            ensure!(code == 2 && told.contains(said), "{wrong}: {code}: {told}");
        }
        // a station that does not cast
        let mut nobody = listen(&host, &format!("{}@{url}", *text), &["--timeout", "4s"])?;
        nobody.fails(DEADLINE, 3, "nothing came for 4 s")?;
        let (path, _) = self::station(&host, "station.key")?;
        let places = ["a", "b", "c", "d"].map(|place| format!("--at {place}"));
        let mut many = cast(&host, &path, &places.join(" "))?;
        many.expect_exit(DEADLINE, 2)
    });
}

#[test]
#[ignore = "long: `make test-all`"]
fn a_station_on_a_lan_needs_no_server_and_says_what_is_closed() {
    guests("station-lan", |lab| {
        let [caster, listener] = &crate::all(lab.lan(&["caster", "listener"])?)?;
        let (path, _) = station(caster, "station.key")?;
        let casts = cast(caster, &path, "")?;
        let text = text_of(&casts)?;
        ensure!(!text.contains('@'), "{text}");
        let told = eventually("it says what to do", || {
            let told = casts.stderr();
            ensure!(told.contains("closed: forward UDP port"), "{told}");
            Ok(told)
        })?;
        let args = [RADIO, "--json", "listen", "--outside", &text, "-"];
        let mut hearing = listener.spawn("setpriv", &as_nobody(&args))?;
        hears(&hearing, 2)?;
        // the port that it has named is enough, and stays the same
        let port = told.split("UDP port ").nth(1).context("no port")?;
        let port = port.split(',').next().context("no port")?;
        kill_all(&casts)?;
        open_port(caster, port)?;
        let again = cast(caster, &path, "")?;
        text_of(&again)?;
        hears(&hearing, 2)?;
        hearing.signal(Signal::SIGINT)?;
        hearing.expect_exit(DEADLINE, 130)
    });
}

#[test]
#[ignore = "long: `make test-all`"]
fn a_station_without_a_server_is_found_by_a_dht_if_its_port_is_open() {
    guests("station-dht", |lab| {
        let (_swarm, enters) = swarm(lab)?;
        let hosts = lab.closed_hosts(&["caster", "listener"])?;
        let [caster, listener] = crate::each(&hosts)?;
        hosts.iter().try_for_each(|host| with_dht(host, &enters))?;
        let (path, key) = station(caster, "station.key")?;
        let text = key.station(false).encode().to_string();
        let casts = cast(caster, &path, "")?;
        ensure!(text_of(&casts)? == text, "{}", casts.stdout());
        let told = eventually("it names its port", || {
            let told = casts.stderr();
            shows_all(&told, &["by the DHT", "UDP port "])?;
            Ok(told)
        })?;
        let port = told.split("UDP port ").nth(1).context("no port")?;
        let port = port.split(',').next().context("no port")?;
        open_port(caster, port)?;
        let args = [RADIO, "--json", "listen", "--outside", &text, "-"];
        let hearing = listener.spawn("setpriv", &as_nobody(&args))?;
        hears(&hearing, 2)?;
        // another key's items are others
        let other = StationKey::from_seed(&[9; 32]).station(false).encode();
        let args = format!("{RADIO} --json listen --outside {} - --timeout 8s", *other);
        let args = crate::words(&args);
        let mut nothing = listener.spawn("setpriv", &as_nobody(&args))?;
        nothing.expect_exit(DEADLINE, 3)?;
        kill_all(&casts)
    });
}

#[test]
#[ignore = "long: `make test-all`"]
fn stations_of_one_host_and_its_own_network_hear_nothing_of_each_other() {
    guests("station-two", |lab| {
        let network = lab.closed_network(["caster", "member"])?;
        // it serves any network
        let url = network.signalling.url()?;
        let bob = lab.host("bob")?;
        let [caster, member] = crate::each(&network.members)?;
        let groups = |host: &Host| -> Result<Value> {
            let shown = host.ask("lcroute", &["groups", "--json"])?.success()?;
            Ok(serde_json::from_str(&shown.stdout)?)
        };
        let before = groups(&caster.host)?;
        let mut running = Vec::new();
        let mut stations = Vec::new();
        for name in ["one.key", "two.key"] {
            let (path, key) = station(&caster.host, name)?;
            let casts = cast(&caster.host, &path, &format!("--at {url}"))?;
            stations.push((text_of(&casts)?, key.station(false)));
            running.push(casts);
        }
        let hearing: Vec<_> = stations
            .iter()
            .map(|(text, _)| listen(&bob, text, &[]))
            .collect::<Result<_>>()?;
        for listener in &hearing {
            hears(listener, 3)?;
            let status = last_status(&listener.stderr())?;
            ensure!(status["casters"].as_array().map(Vec::len) == Some(1));
        }
        // the host's network has no group more, and a member with the text hears nothing
        ensure!(groups(&caster.host)? == before, "{}", groups(&caster.host)?);
        for (_, station) in &stations {
            let text = station.encode().to_string();
            let args = ["--json", "listen", &text, "-", "--timeout", "5s"];
            member.host.run(RADIO, &args)?.exits(3)?;
        }
        for process in running {
            kill_all(&process)?;
        }
        Ok(())
    });
}

#[test]
#[ignore = "long: `make test-all`"]
fn whoever_has_a_grant_casts_in_a_station_s_own_network() {
    guests("station-granted", |lab| {
        let (_server, url) = public_server(lab)?;
        let [ann, dee, bob] = &crate::all(lab.closed_hosts(&["ann", "dee", "bob"])?)?;
        let (path, _) = station(ann, "station.key")?;
        let (own, key) = station(dee, "dee.key")?;
        let public = key.station(true).encode();
        let args = ["grant", &path, &public, "--outside", "--at", &url];
        let granted = ann.run(RADIO, &args)?.success()?;
        let grant = dee.write("dee.grant", &granted.stdout)?;
        let casts = cast(ann, &path, &format!("--at {url}"))?;
        let text = text_of(&casts)?;
        let chirp = write_chirp(dee, 60)?;
        let command = format!(
            "exec {RADIO} --json cast --key {own} --grant {} - <{}",
            grant.display(),
            chirp.display()
        );
        let second = dee.spawn("setpriv", &as_nobody(&["sh", "-c", &command]))?;
        let listener = listen(bob, &text, &[])?;
        eventually("it hears both", || {
            let status = last_status(&listener.stderr())?;
            let casters = status["casters"].as_array().map(Vec::len);
            holds!(casters == Some(2), "{status} {}", second.stderr())
        })?;
        hears(&listener, 2)?;
        // the grant is for no other key
        let (other, _) = station(bob, "other.key")?;
        let copy = bob
            .write("dee.grant", &granted.stdout)?
            .display()
            .to_string();
        let refused = format!("{RADIO} cast --key {other} --grant {copy} - </dev/null");
        bob.sh(&refused)?.exits(4)
    });
}
