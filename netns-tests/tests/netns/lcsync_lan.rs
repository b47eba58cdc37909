//! lcsync on a plain LAN, without lcroute.

use std::fs::Permissions;

use crate::lcsync_failures::has_received;
use crate::prelude::*;

const MEGABYTE: usize = 1_000_000;

#[test]
fn a_folder_reaches_two_receivers_at_the_cost_of_one() {
    world("lan", |lab| {
        // A rate for both on a busy machine: the test is about sharing, not speed.
        let limit = ["--bwlimit", "30M"];
        let lan = Lan::with_args(lab, &["first", "second"], 6 * MEGABYTE, &limit)?;
        let (_, before) = lan.server.interface_traffic("lan0")?;
        let mut receivers = lan.fetch_all(&["lc:folder", "copy"])?;
        lan.arrive(&mut receivers)?;
        let (_, after) = lan.server.interface_traffic("lan0")?;
        let sent = (after - before).bytes as f64 / (6 * MEGABYTE) as f64;
        holds!(sent < 1.7)
    });
}

#[test]
fn five_percent_of_loss_changes_nothing_but_the_time() {
    world("lan-loss", |lab| {
        let lan = Lan::new(lab, &["first", "second"], 3 * MEGABYTE)?;
        for receiver in &lan.receivers {
            receiver.set_loss("lan0", 5)?;
        }
        let mut receivers = lan.fetch_all(&["lc:folder", "copy"])?;
        lan.arrive(&mut receivers)
    });
}

#[test]
fn the_server_has_no_port_and_is_silent_unless_somebody_listens() {
    world("lan-silent", |lab| {
        let lan = Lan::new(lab, &["first"], MEGABYTE)?;
        lan.server.close_everywhere()?;
        let open = open_sockets(lan.share.pid())?;
        ensure!(open.is_empty(), "the server has open sockets: {open:?}");
        let mut receivers = lan.fetch_all(&["lc:folder", "copy"])?;
        lan.arrive(&mut receivers)?;
        let open = open_sockets(lan.share.pid())?;
        ensure!(open.is_empty(), "the server has opened sockets: {open:?}");
        eventually("the server has fallen silent", || {
            let (_, before) = lan.server.interface_traffic("lan0")?;
            sleep(Duration::from_millis(700));
            let (_, after) = lan.server.interface_traffic("lan0")?;
            // The kernel's own MLD reports may pass; they are few and small.
            let sent = after - before;
            holds!(sent.bytes < 1_000, "it sent {sent:?} in 0.7 s")
        })?;
        holds!(lan.server.refused()?.packets == 0)
    });
}

#[test]
fn a_killed_receiver_fetches_only_what_is_missing() {
    const SIZE: usize = 12 * MEGABYTE;
    world("lan-resume", |lab| {
        let lan = Lan::with_args(lab, &["first"], SIZE, &["--bwlimit", "24M"])?;
        let receiver = &lan.receivers[0];
        let sent = || Ok::<_, anyhow::Error>(lan.server.interface_traffic("lan0")?.1.bytes);
        let before = sent()?;
        let mut first = receiver.spawn("lcsync", &["lc:folder", "copy", "-i", "lan0"])?;
        exceeds(SIZE as u64 / 2, || Ok(sent()? - before))?;
        first.kill()?;
        ensure!(!receiver.path("copy/big.bin").exists());
        let middle = sent()?;
        let mut second = lan.fetch_all(&["lc:folder", "copy"])?;
        lan.arrive(&mut second)?;
        let again = (sent()? - middle) as f64 / SIZE as f64;
        holds!(again < 0.85, "{again:.2} of the folder was sent again")
    });
}

#[test]
fn what_is_there_already_is_not_sent_again() {
    const SIZE: usize = 6 * MEGABYTE;
    world("lan-delta", |lab| {
        let lan = Lan::new(lab, &["first"], SIZE)?;
        let receiver = &lan.receivers[0];
        let mut old = fs::read(lan.folder.join("big.bin"))?;
        old[SIZE / 2] ^= 1;
        receiver.write("copy/big.bin", old)?;
        let (_, before) = lan.server.interface_traffic("lan0")?;
        let mut receivers = lan.fetch_all(&["lc:folder", "copy"])?;
        lan.arrive(&mut receivers)?;
        let (_, after) = lan.server.interface_traffic("lan0")?;
        let sent = (after - before).bytes as f64 / SIZE as f64;
        holds!(sent < 0.5)
    });
}

#[test]
fn a_change_on_the_server_is_what_the_next_receiver_gets() {
    world("lan-change", |lab| {
        let lan = Lan::new(lab, &["first"], MEGABYTE)?;
        let mut receivers = lan.fetch_all(&["lc:folder", "copy"])?;
        lan.arrive(&mut receivers)?;
        fs::write(lan.folder.join("notes.txt"), "new words")?;
        fs::write(lan.folder.join("new file"), noise(99, 70_000))?;
        fs::remove_file(lan.folder.join("one byte"))?;
        lan.share.says("lc:folder has a new version: ")?;
        eventually("the receiver has the new content", || {
            let done =
                lan.receivers[0].run("lcsync", &["lc:folder", "copy", "--delete", "-i", "lan0"])?;
            ensure!(done.code == 0, "exit code {}: {}", done.code, done.stderr);
            same_content(&lan.folder, &lan.receivers[0].path("copy"))
        })
    });
}

#[test]
fn a_file_or_folder_of_a_share_is_fetched_without_the_rest() {
    world("lan-part", |lab| {
        let lan = Lan::new(lab, &["first"], 2 * MEGABYTE)?;
        for n in 0..200 {
            fs::create_dir_all(lan.folder.join("small/deep"))?;
            fs::write(lan.folder.join(format!("small/{n}")), noise(n, 900))?;
        }
        fs::write(lan.folder.join("small/deep/words"), "some words")?;
        lan.share.says("lc:folder has a new version: ")?;
        let receiver = &lan.receivers[0];
        let get = |what: &str, dest: &str| {
            let args = ["get", what, dest, "-i", "lan0"];
            receiver.run("lcsync", &args)
        };
        let sent = || -> Result<u64> { Ok(lan.server.interface_traffic("lan0")?.1.bytes) };
        let before = sent()?;
        eventually("the folder in the share has come", || {
            let done = get("lc:folder/small", "part")?;
            ensure!(done.code == 0, "{}", done.stderr);
            same_content(&lan.folder.join("small"), &receiver.path("part"))
        })?;
        let done = get("lc:folder/small/deep/words", "words")?;
        ensure!(done.code == 0, "{}", done.stderr);
        ensure!(fs::read(receiver.path("words"))? == b"some words");
        let done = get("lc:folder/small/deep/words", "part")?;
        ensure!(done.code == 0, "{}", done.stderr);
        ensure!(fs::read(receiver.path("part/words"))? == b"some words");
        let bytes = sent()? - before;
        ensure!(
            bytes < MEGABYTE as u64,
            "{bytes} bytes were sent for 180,000"
        );
        let missing = get("lc:folder/nothing", "part")?;
        let said = "the share has no nothing";
        missing.fails(1, said)?;
        // present files are not fetched again, and unwanted ones go
        fs::write(receiver.path("part/extra"), "x")?;
        let args = crate::words("get lc:folder/small part -i lan0 --delete --stats");
        let again = receiver.run("lcsync", &args)?;
        ensure!(again.code == 0, "{}", again.stderr);
        same_content(&lan.folder.join("small"), &receiver.path("part"))
    });
}

#[test]
fn who_watches_has_each_change_until_stopped() {
    world("lan-watch", |lab| {
        let lan = Lan::new(lab, &["first"], MEGABYTE)?;
        let args = crate::words("lc:folder copy --delete --watch --timeout 2s");
        let mut watching = lan.fetch_all(&args)?.remove(0);
        let copy = lan.receivers[0].path("copy");
        let followed = |what: &str| eventually(what, || same_content(&lan.folder, &copy));
        followed("the share has come")?;
        fs::write(lan.folder.join("notes.txt"), "new words")?;
        followed("a changed file has come")?;
        fs::remove_file(lan.folder.join("one byte"))?;
        fs::write(lan.folder.join("new file"), noise(99, 70_000))?;
        followed("a new file has come and another is gone")?;
        let code = watching.stop()?;
        holds!(code == 0, "exit code {code}: {}", watching.stderr())
    });
}

#[test]
fn shares_that_want_it_are_listed_to_who_asks_and_has_their_key() {
    world("lan-ls", |lab| {
        let lan = Lan::with_args(lab, &["first"], MEGABYTE, &["--listed"])?;
        let (receiver, server) = (&lan.receivers[0], &lan.server);
        ensure!(server.run("lcsync", &["keygen", "team.key"])?.code == 0);
        fs::copy(server.path("team.key"), receiver.path("team.key"))?;
        server.write("hidden/f", "x")?;
        server.write("sealed/f", "secret")?;
        let _hidden = share(server, &["hidden", "-i", "lan0"])?;
        let sealed = ["sealed", "--listed", "--keyfile", "team.key", "-i", "lan0"];
        let _sealed = share(server, &sealed)?;
        let ls = |args: &[&str]| -> Result<Value> {
            let said = receiver.run("lcsync", &[&["ls", "--json", "-i", "lan0"], args].concat())?;
            ensure!(said.code == 0, "{}", said.stderr);
            Ok(serde_json::from_str(&said.stdout)?)
        };
        let names = |list: &Value| -> Vec<String> {
            let names = list.as_array().into_iter().flatten();
            names.map(|share| share["name"].to_string()).collect()
        };
        let open = ls(&[])?;
        ensure!(names(&open) == ["\"folder\""], "{open}");
        ensure!(open[0]["servers"][0]["interface"] == "lan0", "{open}");
        ensure!(open[0]["bytes"].as_u64() > Some(MEGABYTE as u64), "{open}");
        let with_key = ls(&["--keyfile", "team.key"])?;
        ensure!(names(&with_key) == ["\"sealed\""], "{with_key}");
        let said = receiver.run("lcsync", &["ls", "-i", "lan0"])?;
        let root = open[0]["root"].as_str().unwrap_or_default();
        let line = &said.stdout;
        ensure!(
            line.starts_with("lc:folder ") && line.trim_end().ends_with(root),
            "{line}"
        );
        // without receivers the server sends nothing
        eventually("the server has heard it", || {
            let before = lan.server.interface_traffic("lan0")?.1.bytes;
            sleep(Duration::from_millis(1_500));
            let after = lan.server.interface_traffic("lan0")?.1.bytes;
            holds!(after - before < 300, "{} bytes", after - before)
        })
    });
}

#[test]
fn a_server_says_who_fetches_what_from_it_and_how_fast() {
    world("lan-status", |lab| {
        let lan = Lan::with_args(lab, &["first"], 2 * MEGABYTE, &["--listed"])?;
        let server = &lan.server;
        let status = |name: &str| -> Result<Value> {
            let said = server.ask("lcsync", &["status", "--json", name])?;
            ensure!(said.code == 0, "{}", said.stderr);
            Ok(serde_json::from_str(&said.stdout)?)
        };
        let seen = status("folder")?;
        let (name, path) = (&seen["name"], &seen["path"]);
        ensure!(name == "folder" && *path == *lan.folder.to_string_lossy());
        ensure!(
            lan.share
                .stdout()
                .contains(seen["root"].as_str().context("root")?)
        );
        ensure!(seen["process"]["pid"] == lan.share.pid(), "{seen}");
        ensure!(seen["listeners"] == 0 && seen["sent_bytes"] == 0, "{seen}");
        ensure!(seen["interfaces"] == json!(["lan0"]) && seen["listed"] == true);

        let watch = server.spawn("lcsync", &["status", "--watch", "--json", "folder"])?;
        let slow = lan.fetch_all(&["lc:folder", "copy", "--bwlimit", "2M"])?;
        let seen = eventually("the slow receiver is seen", || {
            let seen = status("lc:folder")?;
            ensure!(seen["listeners"] == 1, "{seen}");
            ensure!(seen["channels_joined"].as_u64() > Some(0), "{seen}");
            ensure!(seen["rate_bps"].as_u64() > Some(0), "{seen}");
            ensure!(seen["sent_bytes"].as_u64() > Some(0), "{seen}");
            Ok(seen)
        })?;
        ensure!(seen["hosts"][0]["interface"] == "lan0", "{seen}");
        ensure!(seen["channels"][0]["listeners"] == 1, "{seen}");
        let shown = server.ask("lcsync", &["status"])?.success()?.stdout;
        ensure!(
            shown.lines().any(|l| l.starts_with("lc:folder ")),
            "{shown}"
        );
        let whole = server
            .ask("lcsync", &["status", "folder"])?
            .success()?
            .stdout;
        ensure!(whole.contains(" on lan0: "), "{whole}");
        watch.prints("\"listeners\":1,")?;
        drop(slow);
        eventually("nobody listens any more", || {
            let seen = status("folder")?;
            ensure!(
                seen["listeners"] == 0 && seen["channels_joined"] == 0,
                "{seen}"
            );
            holds!(seen["rate_bps"] == 0, "{seen}")
        })
    });
}

#[test]
fn a_server_is_found_until_it_ends_however_it_ends() {
    world("lan-status-end", |lab| {
        let mut lan = Lan::new(lab, &["seed"], MEGABYTE)?;
        let server = lan.server.clone();
        let says = |host: &Host, args: &[&str], code: i32, part: &str| -> Result<()> {
            let said = host.ask("lcsync", &[&["status"], args].concat())?;
            let text = said.stdout + &said.stderr;
            holds!(
                said.code == code && text.contains(part),
                "{}: {text}",
                said.code
            )
        };
        let sockets =
            |host: &Host| -> Result<usize> { Ok(fs::read_dir(host.path("run/lcsync"))?.count()) };
        says(
            &server,
            &["other"],
            3,
            "lc:other is not shared on this host",
        )?;
        // a seeding receiver has one as well
        let args = ["lc:folder", "copy", "--seed"];
        let mut seed = lan.fetch_all(&args)?.remove(0);
        let receiver = &lan.receivers[0];
        eventually("the seed is seen", || {
            seed.must_run()?;
            says(receiver, &["folder"], 0, "a receiver that serves on")?;
            says(receiver, &["folder"], 0, "1 version since the start")?;
            holds!(seed.stderr().contains("serving lc:folder on"))
        })?;
        ensure!(seed.stop()? == 0, "{}", seed.stderr());
        ensure!(sockets(receiver)? == 0, "the seed's socket stays behind");
        says(receiver, &["folder"], 3, "lc:folder is not shared")?;

        // the sockets of services and of root are in this folder
        let mode =
            |path: &str| -> Result<u32> { Ok(fs::metadata(path)?.permissions().mode() & 0o777) };
        let unset = "umask 077; unset XDG_RUNTIME_DIR; exec lcsync share notes.txt -i lan0";
        server.write("notes.txt", "words")?;
        let mut by_root = server.spawn("sh", &["-c", unset])?;
        eventually("root's is seen", || {
            says(&server, &["notes.txt"], 0, "notes.txt")
        })?;
        ensure!(mode("/run/lcsync")? == 0o755);
        let socket = format!("/run/lcsync/{}.sock", by_root.pid());
        ensure!(mode(&socket)? == 0o600);
        ensure!(by_root.stop()? == 0 && !PathBuf::from(socket).exists());
        let folder = format!("/run/lcsync/test-{}", std::process::id());
        let unit =
            format!("export RUNTIME_DIRECTORY={folder}; exec lcsync share notes.txt -i lan0");
        let mut service = server.spawn("sh", &["-c", &unit])?;
        eventually("a service's is seen", || {
            says(&server, &["notes.txt"], 0, "notes.txt")
        })?;
        ensure!(mode(&folder)? == 0o700);
        ensure!(service.stop()? == 0);
        fs::remove_dir(folder)?;

        says(&server, &[], 0, "lc:folder ")?;
        lan.share.kill()?;
        ensure!(sockets(&server)? == 1, "a killed process cleans nothing up");
        says(&server, &["folder"], 3, "lc:folder is not shared")?;
        ensure!(sockets(&server)? == 0, "who asks does");
        let (_share, _) = share(&server, &["folder", "-i", "lan0"])?;
        says(&server, &[], 0, "lc:folder ")
    });
}

#[test]
fn what_is_private_at_the_source_is_private_at_the_destination() {
    world("lan-private", |lab| {
        let hosts = lab.lan(&["server", "receiver"])?;
        hosts[0].write("folder/key", "secret")?;
        hosts[0].write("folder/open/f", "words")?;
        hosts[0].write("folder/private/f", "words")?;
        let of = |host: &Host, name: &str| host.path(name);
        for (name, mode) in [("key", 0o600), ("open/f", 0o666), ("private", 0o700)] {
            let path = of(&hosts[0], "folder").join(name);
            fs::set_permissions(path, Permissions::from_mode(mode))?;
        }
        let (_share, _) = share(&hosts[0], &["folder", "-i", "lan0"])?;
        let fetch = ["-c", "umask 022; exec lcsync lc:folder copy -i lan0"];
        let modes = || -> Result<Vec<String>> {
            let names = ["key", "open/f", "private"];
            let copy = of(&hosts[1], "copy");
            let mode = |name| {
                let mode = fs::metadata(copy.join(name))?.permissions().mode();
                Ok(format!("{:o}", mode & 0o777))
            };
            names.into_iter().map(mode).collect()
        };
        hosts[1].run("sh", &fetch)?.success()?;
        ensure!(modes()? == ["600", "644", "700"], "{:?}", modes()?);
        // a mode that became stricter applies, and a stricter local one stays
        let file = of(&hosts[0], "folder/open/f");
        fs::set_permissions(&file, Permissions::from_mode(0o640))?;
        let folder = of(&hosts[1], "copy/private");
        fs::set_permissions(&folder, Permissions::from_mode(0o500))?;
        eventually("the new mode has come", || {
            hosts[1].run("sh", &fetch)?.success()?;
            holds!(modes()? == ["600", "640", "500"], "{:?}", modes()?)
        })
    });
}

#[test]
fn who_waits_is_told_for_what_and_waiting_is_no_part_of_the_speed() {
    world("lan-waiting", |lab| {
        let hosts = lab.lan(&["server", "receiver"])?;
        hosts[0].write("later/f", "words")?;
        let began = Instant::now();
        let fetch = ["lc:later", "copy", "-i", "lan0"];
        let mut said = hosts[1].spawn("lcsync", &fetch)?;
        let other = ["lc:later", "other", "-i", "lan0", "--json"];
        let mut json = hosts[1].spawn("lcsync", &other)?;
        eventually("both say that they wait", || {
            let told = said.stderr();
            let line = "waiting for lc:later on lan0; gives up in ";
            ensure!(told.matches(line).count() == 1, "{told}");
            let waiting = json.stdout().matches("\"event\":\"waiting\"").count();
            holds!(waiting >= 3, "{}", json.stdout())
        })?;
        let waited = began.elapsed();
        let (_share, _) = share(&hosts[0], &["later", "-i", "lan0"])?;
        for fetch in [&mut said, &mut json] {
            fetch.expect_exit(Duration::from_secs(60), 0)?;
        }
        let last = json.stdout().lines().last().context("no line")?.to_owned();
        let done: Value = serde_json::from_str(&last)?;
        let seconds = done["seconds"].as_f64().context("seconds")?;
        let rest = began.elapsed().saturating_sub(waited);
        holds!(seconds <= rest.as_secs_f64(), "{seconds} s of {rest:?}")
    });
}

#[test]
fn a_file_becomes_the_destination_or_lands_in_its_folder() {
    world("lan-file", |lab| {
        let hosts = lab.lan(&["server", "receiver"])?;
        let content = noise(5, 300_000);
        hosts[0].write("image.iso", &content)?;
        let (_share, root) = share(&hosts[0], &["image.iso", "-i", "lan0"])?;
        hosts[1].write("folder/other", "stays")?;
        for (destination, expected) in [("got.iso", "got.iso"), ("folder", "folder/image.iso")] {
            let done = hosts[1].run("lcsync", &["lc:image.iso", destination, "-i", "lan0"])?;
            done.success()?;
            let got = fs::read(hosts[1].path(expected)).context(expected)?;
            ensure!(got == content, "{expected} differs");
            let hash = hosts[1].run("lcsync", &["hash", expected])?.success()?;
            ensure!(hash.stdout.contains(&root), "{} is not {root}", hash.stdout);
        }
        Ok(())
    });
}

#[test]
fn a_pinned_root_is_the_only_one_that_is_taken() {
    world("lan-pinned", |lab| {
        let lan = Lan::new(lab, &["first"], 200_000)?;
        let root = lan
            .share
            .stdout()
            .split_whitespace()
            .nth(1)
            .context("no root")?
            .to_owned();
        let other = root.chars().rev().collect::<String>();
        for (pinned, succeeds) in [(other, false), (root, true)] {
            let source = format!("lc:folder#{pinned}");
            let fetch = [source.as_str(), "copy", "-i", "lan0", "--timeout", "3s"];
            let done = lan.receivers[0].run("lcsync", &fetch)?;
            ensure!(
                (done.code == 0) == succeeds,
                "exit code {} for {source}: {}",
                done.code,
                done.stderr
            );
            ensure!(
                lan.receivers[0].path("copy").exists() == succeeds,
                "DEST after {source}"
            );
        }
        same_content(&lan.folder, &lan.receivers[0].path("copy"))
    });
}

#[test]
fn without_a_server_it_ends_with_3_and_leaves_nothing() {
    world("lan-nobody", |lab| {
        let host = lab.lan(&["alone"])?.remove(0);
        let ended = host.run(
            "lcsync",
            &["lc:nothing", "copy", "-i", "lan0", "--timeout", "1s"],
        )?;
        ended.exits(3)?;
        ended.says("nothing")?;
        holds!(!host.path("copy").exists(), "an empty destination was left")
    });
}

#[test]
fn an_interrupted_fetch_ends_with_130_and_a_stopped_server_with_0() {
    world("lan-stop", |lab| {
        let mut lan = Lan::with_args(lab, &["first"], 4 * MEGABYTE, &["--bwlimit", "2M"])?;
        let mut fetch = lan.receivers[0].spawn("lcsync", &["lc:folder", "copy", "-i", "lan0"])?;
        has_received(&lan.receivers[0], 200_000)?;
        fetch.signal(nix::sys::signal::Signal::SIGINT)?;
        let code = fetch.wait(Duration::from_secs(20))?;
        ensure!(code == 130, "the interrupted receiver ended with {code}");
        let code = lan.share.stop()?;
        holds!(
            code == 0,
            "the stopped server ended with {code}: {}",
            lan.share.stderr()
        )
    });
}

/// A server that shares a folder, and receivers, on one Ethernet.
pub struct Lan {
    pub server: Host,
    pub receivers: Vec<Host>,
    pub folder: PathBuf,
    pub share: Process,
}

impl Lan {
    pub fn new(lab: &Lab, receivers: &[&str], bytes: usize) -> Result<Lan> {
        Lan::with_args(lab, receivers, bytes, &[])
    }

    pub fn with_args(lab: &Lab, receivers: &[&str], bytes: usize, args: &[&str]) -> Result<Lan> {
        let mut hosts = lab.lan(&[&["server"], receivers].concat())?;
        let receivers = hosts.split_off(1);
        let server = hosts.remove(0);
        let folder = server.path("folder");
        make_folder(&folder, bytes)?;
        let (share, _) = share(&server, &[&["folder", "-i", "lan0"], args].concat())?;
        Ok(Lan {
            server,
            receivers,
            folder,
            share,
        })
    }

    /// Starts `lcsync ARGS -i lan0` on all receivers.
    pub fn fetch_all(&self, args: &[&str]) -> Result<Vec<Process>> {
        let args = [args, &["-i", "lan0"]].concat();
        self.receivers
            .iter()
            .map(|receiver| receiver.spawn("lcsync", &args))
            .collect()
    }

    /// Waits until all fetches have succeeded, and compares the results with the share.
    pub fn arrive(&self, fetches: &mut [Process]) -> Result<()> {
        for (fetch, receiver) in fetches.iter_mut().zip(&self.receivers) {
            let code = fetch.wait(Duration::from_secs(120))?;
            ensure!(
                code == 0,
                "{}: exit code {code}: {}",
                receiver.name(),
                fetch.stderr()
            );
            same_content(&self.folder, &receiver.path("copy"))?;
        }
        Ok(())
    }
}

/// Starts `lcsync share ARGS` and waits until it serves; returns the process and the root hash.
pub fn share(host: &Host, args: &[&str]) -> Result<(Process, String)> {
    let mut process = host.spawn("lcsync", &[&["share"], args].concat())?;
    let line = within(Duration::from_secs(60), "the share is ready", || {
        ensure!(
            process.is_running(),
            "lcsync share ended: {}",
            process.stderr()
        );
        let said = process.stdout();
        let line = said
            .lines()
            .find(|line| line.starts_with("lc:"))
            .context("no line lc:NAME")?;
        Ok(line.to_owned())
    });
    let line = line?;
    let root = line
        .split_whitespace()
        .nth(1)
        .with_context(|| format!("no root hash in {line:?}"))?;
    Ok((process, root.to_owned()))
}
