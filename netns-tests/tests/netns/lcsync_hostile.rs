//! lcsync on a LAN with a forger.

use std::fs::Permissions;
use std::time::SystemTime;

use crate::lcsync_lan::{Lan, share};
use crate::prelude::*;

const MEGABYTE: usize = 1_000_000;

#[test]
fn a_corrupt_source_is_named_and_the_folder_comes_from_the_server() {
    world("hostile-source", |lab| {
        let lan = with_corrupt_source(lab, &["symbols"])?;
        let said = fetch(&lan)?;
        ensure!(
            said.contains("fd00:1::3 sends symbols that do not make the block"),
            "the corrupt source is not named: {said}"
        );
        holds!(
            !said.contains("fd00:1::1 sends symbols"),
            "the server is named: {said}"
        )
    });
}

#[test]
fn a_corrupt_source_under_the_servers_number_is_told_from_it() {
    world("hostile-number", |lab| {
        let lan = with_corrupt_source(lab, &["symbols", "--imitate"])?;
        let said = fetch(&lan)?;
        holds!(
            said.contains("fd00:1::3 sends symbols") && !said.contains("fd00:1::1 sends symbols"),
            "{said}"
        )
    });
}

#[test]
fn a_corrupt_source_with_a_new_number_in_each_symbol_does_not_stop_a_fetch() {
    world("hostile-numbers", |lab| {
        let lan = with_corrupt_source(lab, &["symbols", "--many"])?;
        let said = fetch(&lan)?;
        holds!(!said.contains("fd00:1::1 sends symbols"), "{said}")
    });
}

#[test]
fn garbage_on_every_channel_changes_nothing() {
    world("hostile-garbage", |lab| {
        let lan = with_corrupt_source(lab, &["garbage"])?;
        let said = fetch(&lan)?;
        holds!(!said.contains("sends symbols"), "somebody is named: {said}")
    });
}

#[test]
fn a_newer_version_that_nobody_serves_does_not_stop_a_fetch() {
    world("hostile-root", |lab| {
        fetch(&with_corrupt_source(lab, &["roots"])?).map(drop)
    });
}

#[test]
fn a_newer_version_under_the_servers_number_does_not_stop_a_fetch() {
    world("hostile-root-number", |lab| {
        fetch(&with_corrupt_source(lab, &["roots", "--imitate"])?).map(drop)
    });
}

#[test]
fn of_two_folders_under_one_name_one_comes_whole_and_the_other_is_reported() {
    world("hostile-name", |lab| {
        let lan = Lan::new(lab, &["receiver", "other"], 2 * MEGABYTE)?;
        let [receiver, other] = crate::each(&lan.receivers)?;
        make_folder(&other.path("folder"), MEGABYTE)?;
        let (_other, root) = share(other, &["folder", "-i", "lan0"])?;
        let first = root_of(&lan.share)?;
        let done = receiver.run("lcsync", &["lc:folder", "copy", "-i", "lan0"])?;
        ensure!(done.code == 0, "exit code {}: {}", done.code, done.stderr);
        let hash = receiver.call("lcsync hash copy")?.stdout;
        let (taken, refused) = if hash.contains(&root) {
            (other.path("folder"), first)
        } else {
            (lan.folder.clone(), root)
        };
        same_content(&taken, &receiver.path("copy"))?;
        holds!(
            done.stderr.contains("shares something else") && done.stderr.contains(&refused),
            "{refused} is not reported: {}",
            done.stderr
        )
    });
}

#[test]
fn a_root_hash_brings_neither_modes_nor_times_of_whoever_answers() {
    world("hostile-modes", |lab| {
        let [forger, receiver] = &crate::all(lab.lan(&["forger", "receiver"])?)?;
        // the owner's files, with wider permissions
        forger.write("folder/key", "of the owner")?;
        forger.write("folder/sub/f", "words")?;
        for (name, mode) in [("key", 0o666), ("sub/f", 0o4777), ("sub", 0o777)] {
            let path = forger.path("folder").join(name);
            fs::set_permissions(&path, Permissions::from_mode(mode))?;
        }
        let long_ago = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        let key = fs::File::options()
            .write(true)
            .open(forger.path("folder/key"))?;
        key.set_modified(long_ago)?;
        let (_share, root) = share(forger, &["folder", "-i", "lan0"])?;
        let source = format!("lc:folder#{root}");
        let fetch = ["-c", "umask 022; exec \"$@\"", "sh", "lcsync"];
        let fetch = [&fetch[..], &[&source, "copy", "-a", "-i", "lan0"]].concat();
        let done = receiver.run("sh", &fetch)?.success()?;
        done.says("covers neither modes nor times")?;
        for (name, mode) in [("key", 0o644), ("sub/f", 0o755), ("sub", 0o755)] {
            let there = fs::metadata(receiver.path("copy").join(name))?;
            let got = there.permissions().mode() & 0o7777;
            ensure!(got == mode, "{name} has {got:o}");
            ensure!(there.modified()? != long_ago, "the time of {name}");
        }
        Ok(())
    });
}

/// Returns the root hash that a share has printed.
fn root_of(share: &Process) -> Result<String> {
    let line = share.stdout();
    Ok(line
        .split_whitespace()
        .nth(1)
        .context("no root hash")?
        .to_owned())
}

/// A server, a receiver, and a third host that forges.
struct Besieged {
    lan: Lan,
    receiver: Host,
    forger: Process,
}

fn with_corrupt_source(lab: &Lab, forge: &[&str]) -> Result<Besieged> {
    // A rate for all three on a busy machine.
    let args = ["--bwlimit", "30M"];
    let lan = Lan::with_args(lab, &["receiver", "forger"], 3 * MEGABYTE, &args)?;
    let forger = lan.receivers[1].spawn("lcsync-forge", forge)?;
    let receiver = lan.receivers[0].clone();
    Ok(Besieged {
        lan,
        receiver,
        forger,
    })
}

/// Fetches, checks the result and that there were forgeries; returns the receiver's messages.
fn fetch(besieged: &Besieged) -> Result<String> {
    let Besieged {
        lan,
        receiver,
        forger,
    } = besieged;
    let mut fetch = receiver.spawn("lcsync", &["lc:folder", "copy", "-i", "lan0"])?;
    fetch.expect_exit(Duration::from_secs(60), 0)?;
    same_content(&lan.folder, &receiver.path("copy"))?;
    eventually("something was forged", || {
        let forged = forger.stdout().lines().count();
        // powers of two
        holds!(forged >= 3, "{}", forger.stderr())
    })?;
    Ok(fetch.stderr())
}
