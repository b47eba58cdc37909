//! A caster sends only on lcroute's interface by default, and on a LAN only while it has listeners.

use crate::prelude::*;
use crate::radio::{RATE, cast, key_of, listen, read_samples, sounding, write_chirp};

/// Returns the bytes that a host has sent on its LAN.
fn sent(host: &Host) -> Result<u64> {
    let (_, sent) = host.interface_traffic(LAN)?;
    Ok(sent.bytes)
}

#[test]
#[ignore = "long: `make test-all`"]
fn a_caster_sends_on_a_lan_only_while_somebody_listens_there() {
    world_alone("radio-consent", |lab| {
        let [caster, listener] = &crate::all(lab.lan(&["caster", "listener"])?)?;
        let (key, station, _) = key_of(caster, "station.key")?;
        let file = write_chirp(caster, 4)?;
        let args = format!("--key {key} --public");
        let before = sent(caster)?;
        let mut unheard = cast(caster, &file, &args)?;
        unheard.expect_exit(DEADLINE, 0)?;
        let bytes = sent(caster)? - before;
        ensure!(bytes < 6_000, "{bytes} bytes for nobody");
        let told = unheard.stderr();
        ensure!(told.contains("while somebody listens there"), "{told}");

        // an early listener hears all of it; a later one, the rest
        let private = format!("--key {key}");
        let (mut first, heard) = listen(listener, &station.encode(), "heard", "")?;
        first.says("target_ms")?;
        let mut casts = cast(caster, &file, &private)?;
        for process in [&mut casts, &mut first] {
            process.expect_exit(DEADLINE, 0)?;
        }
        let seconds = sounding(&read_samples(&heard)?).len() as f64 / RATE as f64;
        ensure!(seconds > 3.9, "{seconds} s");
        let long = write_chirp(caster, 30)?;
        let casts = cast(caster, &long, &private)?;
        casts.says("sends on")?;
        // also on the same host, which gets no reports from elsewhere
        for host in [listener, caster] {
            let (_later, heard) = listen(host, &station.encode(), "later", "")?;
            at_least(1, || Ok(sounding(&read_samples(&heard)?).len() / RATE))?;
        }
        Ok(())
    });
}

#[test]
fn a_caster_with_lcroute_sends_on_its_interface_alone_unless_it_names_others() {
    world("radio-interfaces", |lab| {
        let network = lab.closed_network(["caster", "listener"])?;
        let [caster, listener] = network.nodes()?;
        let file = write_chirp(&caster.host, 20)?;
        let (key, station, _) = key_of(&caster.host, "station.key")?;
        let interfaces = |args: &str| -> Result<(Value, String)> {
            let casts = cast(&caster.host, &file, &format!("--key {key} {args}"))?;
            casts.prints("}")?;
            let said = casts.stdout();
            let told: Value = serde_json::from_str(said.lines().next().context("no line")?)?;
            Ok((told["interfaces"].clone(), casts.stderr()))
        };
        let (alone, told) = interfaces("")?;
        ensure!(alone == json!(["lc0"]), "{alone}");
        ensure!(told.contains("sends on lc0 alone"), "{told}");
        let (both, _) = interfaces("-i lc0 -i eth0")?;
        ensure!(both.as_array().is_some_and(|all| all.len() == 2), "{both}");
        let _casts = cast(&caster.host, &file, &format!("--key {key}"))?;
        let (_hears, heard) = listen(&listener.host, &station.encode(), "heard", "")?;
        at_least(1, || Ok(sounding(&read_samples(&heard)?).len() / RATE))
    });
}
