//! lcsync with keys: sealed shares, and signed versions.

use lcsync::server::rivals::SERVERS_CHANNEL;
use librecast::channel::SharePrefix;
use librecast_program::keyfile::SharedKey;

use crate::lcsync_failures::has_received;
use crate::lcsync_lan::share;
use crate::prelude::*;

const MEGABYTE: usize = 1_000_000;

/// Writes every frame of lan0 into a file.
const SNIFFER: &str = "
import socket, sys
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
s.setsockopt(socket.SOL_SOCKET, 33, 1 << 26)
s.bind(('lan0', 0))
out = open(sys.argv[1], 'wb', buffering=0)
print('ready', flush=True)
while True:
    out.write(s.recv(1 << 16))
";

/// Writes datagrams of a group on lan0 into a file, one a line.
const EAR: &str = "
import socket, struct, sys
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(('::', 14242))
lan = struct.pack('@I', socket.if_nametoindex('lan0'))
s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, socket.inet_pton(socket.AF_INET6, sys.argv[1]) + lan)
s.setsockopt(socket.IPPROTO_IPV6, 29, 0)
out = open(sys.argv[2], 'w', buffering=1)
while True:
    out.write(s.recv(1 << 16).hex() + '\\n')
";

/// Sends the datagrams of such a file to a group.
const SAY_AGAIN: &str = "
import socket, struct, sys
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, struct.pack('@I', socket.if_nametoindex('lan0')))
for line in open(sys.argv[2]):
    s.sendto(bytes.fromhex(line), (sys.argv[1], 14242))
";

const SECRET: &str = "nobody but us is to read this line, nor to know the name of its file. ";
const NAME: &str = "plan-of-the-year.txt";

#[test]
fn a_sealed_share_is_found_and_read_with_its_key_only() {
    world("key", |lab| {
        let [server, right, wrong, none] =
            &crate::all(lab.lan(&["server", "right", "wrong", "none"])?)?;
        let folder = secret_folder(server)?;
        for host in [server, wrong] {
            let made = host.call("lcsync keygen team.key")?;
            ensure!(made.stdout.is_empty(), "keygen shows {}", made.stdout);
        }
        give(server, "team.key", right)?;
        let serve = ["folder", "-i", "lan0", "--keyfile", "team.key"];
        let (_share, _) = share(server, &serve)?;

        let keyless = ["lc:folder", "copy", "-i", "lan0"];
        let with_key = [&keyless[..], &["--keyfile", "team.key"]].concat();
        right.run("lcsync", &with_key)?.success()?;
        same_content(&folder, &right.path("copy"))?;
        for (host, args, tells) in [(wrong, &with_key[..], true), (none, &keyless[..], false)] {
            let done = host.run("lcsync", &[args, &["--timeout", "2s"]].concat())?;
            done.exits(3)?;
            let told = done.stderr.contains("the key may be wrong");
            ensure!(told == tells, "{}", done.stderr);
            ensure!(!host.path("copy").exists(), "something was made");
        }
        // as ssh does
        fs::set_permissions(right.path("team.key"), fs::Permissions::from_mode(0o644))?;
        right.run("lcsync", &with_key)?.exits(4)
    });
}

#[test]
fn stretches_bring_many_blocks_by_few_joins_sealed_ones_too() {
    world("stretches", |lab| {
        let hosts = lab.lan(&["server", "receiver"])?;
        let (server, receiver) = (&hosts[0], &hosts[1]);
        server.call("lcsync keygen team.key")?;
        give(server, "team.key", receiver)?;
        // one file of some thirty blocks
        let bytes = noise(1, 6_000_000);
        fs::write(server.path("file"), &bytes)?;
        for (name, key) in [("plain", &[][..]), ("sealed", &["--keyfile", "team.key"])] {
            let serve = ["file", "--name", name, "-i", "lan0"];
            let (_share, _) = share(server, &[&serve[..], key].concat())?;
            let source = format!("lc:{name}");
            let fetch = [&source, name, "-i", "lan0", "--json"];
            let said = receiver
                .run("lcsync", &[&fetch[..], key].concat())?
                .success()?;
            ensure!(fs::read(receiver.path(name))? == bytes, "{name} differs");
            let done = said.stdout.lines().last().context("no line")?;
            let done: Value = serde_json::from_str(done)?;
            let count = |what: &str| done["stats"][what].as_u64().unwrap_or(0);
            // a lone receiver joins sixteen blocks at a time
            let (blocks, channels) = (count("blocks_fetched"), count("channels"));
            ensure!(
                blocks > 24 && (1..8).contains(&channels),
                "{name}: {blocks} blocks by {channels} channels"
            );
        }
        Ok(())
    });
}

#[test]
fn a_sniffer_reads_a_plain_share_and_nothing_of_a_sealed_one() {
    world("key-sniffer", |lab| {
        let hosts = lab.lan(&["server", "receiver"])?;
        let folder = secret_folder(&hosts[0])?;
        hosts[0].call("lcsync keygen team.key")?;
        give(&hosts[0], "team.key", &hosts[1])?;
        for (key, visible) in [(&[][..], true), (&["--keyfile", "team.key"][..], false)] {
            let capture = hosts[1].path(if visible { "plain" } else { "sealed" });
            let mut sniffer =
                hosts[1].spawn("python3", &["-c", SNIFFER, &capture.to_string_lossy()])?;
            sniffer.prints("ready")?;
            let (mut server, _) = share(&hosts[0], &[&["folder", "-i", "lan0"], key].concat())?;
            let copy = format!("copy-{visible}");
            let fetch = [&["lc:folder", &copy, "-i", "lan0"], key].concat();
            hosts[1].run("lcsync", &fetch)?.success()?;
            same_content(&folder, &hosts[1].path(&copy))?;
            server.stop()?;
            sniffer.kill()?;
            let frames = fs::read(&capture)?;
            ensure!(frames.len() > 50_000, "{} bytes sniffed", frames.len());
            for text in [SECRET.as_bytes(), NAME.as_bytes()] {
                let seen = frames.windows(text.len()).any(|w| w == text);
                let text = String::from_utf8_lossy(text);
                ensure!(seen == visible, "{text:?} seen: {seen}, with {key:?}");
            }
        }
        Ok(())
    });
}

#[test]
fn who_trusts_a_key_takes_nothing_of_a_forger() {
    world("signed", |lab| {
        let [owner, forger, receiver] = &crate::all(lab.lan(&["owner", "forger", "receiver"])?)?;
        let folder = secret_folder(owner)?;
        make_folder(&forger.path("folder"), 300_000)?;
        for host in [owner, forger] {
            host.call("lcsync keygen --sign own.key")?;
        }
        give(owner, "own.key.pub", receiver)?;
        let signed = ["folder", "-i", "lan0", "--sign", "own.key"];
        let (_unsigned, _) = share(forger, &signed[..3])?;
        let (_forged, _) = share(forger, &signed)?;
        let fetch = ["lc:folder", "copy", "-i", "lan0", "--trust", "own.key.pub"];
        receiver
            .run("lcsync", &[&fetch[..], &["--timeout", "5s"]].concat())?
            .fails(3, "signed by 12D3KooW")?;
        ensure!(!receiver.path("copy").exists(), "something was made");

        let (_share, _) = share(owner, &signed)?;
        let done = receiver.run("lcsync", &fetch)?.success()?;
        same_content(&folder, &receiver.path("copy"))?;
        let told = done.stderr.matches("has not signed").count();
        holds!(told == 1, "said {told} times: {}", done.stderr)
    });
}

#[test]
fn what_was_recorded_long_ago_is_not_taken_by_who_has_had_a_later_version() {
    on_a_lan("rollback", ["owner", "receiver"], |[owner, receiver]| {
        let folder = secret_folder(owner)?;
        owner.call("lcsync keygen team.key")?;
        give(owner, "team.key", receiver)?;
        let sealed = ["-i", "lan0", "--keyfile", "team.key"];
        let (_share, root) = share(owner, &[&["folder"], &sealed[..]].concat())?;
        let fetch = |source: &str| {
            let args = [&[source, "copy", "--timeout", "3s"], &sealed[..]].concat();
            receiver.run("lcsync", &args)
        };
        fetch("lc:folder")?.success()?;
        let [kept] = &crate::all(walk(&receiver.path("."), ".generation")?)?;
        // simulates a later version, and a replay of this recorded one
        let text = fs::read_to_string(kept)?;
        let (name, generation) = text.trim().rsplit_once(' ').context("a generation")?;
        let later = generation.parse::<u64>()? + 3_600_000;
        fs::write(kept, format!("{name} {later}\n"))?;
        fs::remove_dir_all(receiver.path("copy"))?;
        let refused = fetch("lc:folder")?;
        refused.exits(3)?;
        let file = kept.file_name().context("its name")?.to_string_lossy();
        ensure!(
            refused.stderr.contains("older versions only") && refused.stderr.contains(&*file),
            "{}",
            refused.stderr
        );
        ensure!(!receiver.path("copy").exists(), "something was made");
        // a user can name the old version explicitly
        fetch(&format!("lc:folder#{root}"))?.success()?;
        same_content(&folder, &receiver.path("copy"))?;
        fs::remove_file(kept)?;
        fetch("lc:folder")?.success()?;
        Ok(())
    });
}

/// Returns the files below `folder` whose names end with `end`.
fn walk(folder: &Path, end: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() && !path.is_symlink() {
            found.extend(walk(&path, end)?);
        } else if path.to_string_lossy().ends_with(end) {
            found.push(path);
        }
    }
    Ok(found)
}

#[test]
fn the_higher_signed_generation_wins_in_the_middle_of_a_transfer() {
    world("signed-newer", |lab| {
        let [old, new, receiver] = &crate::all(lab.lan(&["old", "new", "receiver"])?)?;
        make_folder(&old.path("folder"), 4_000_000)?;
        let newest = secret_folder(new)?;
        let public = old.call("lcsync keygen --sign own.key")?;
        give(old, "own.key", new)?;
        let signed = ["folder", "-i", "lan0", "--sign", "own.key"];
        let slow = [&signed[..], &["--bwlimit", "2M"]].concat();
        let (_old, _) = share(old, &slow)?;
        let trust = ["--delete", "--trust", public.stdout.trim()];
        let fetch = [&["lc:folder", "copy", "-i", "lan0"], &trust[..]].concat();
        let mut fetch = receiver.spawn("lcsync", &fetch)?;
        has_received(receiver, 200_000)?;
        let (_new, _) = share(new, &signed)?;
        fetch.expect_exit(Duration::from_secs(60), 0)?;
        same_content(&newest, &receiver.path("copy"))
    });
}

#[test]
fn a_configuration_is_read_again_without_dropping_what_stays() {
    world("share-config", |lab| {
        let [server, receiver] = &crate::all(lab.lan(&["server", "receiver"])?)?;
        make_folder(&server.path("one"), 2_000_000)?;
        let folder = secret_folder(server)?;
        let one = "[[share]]\npath = \"one\"\nbwlimit = \"4M\"\n";
        let and = |name: &str| format!("{one}[[share]]\npath = \"folder\"\nname = \"{name}\"\n");
        server.write("lcsync.toml", and("two"))?;
        let config = ["--config", "lcsync.toml", "-i", "lan0"];
        let (process, _) = share(server, &config)?;
        let fetch = |name: &str| {
            let name = format!("lc:{name}");
            receiver.run("lcsync", &[&name, "copy", "-i", "lan0", "--timeout", "3s"])
        };
        eventually("the second share is served", || fetch("two")?.success())?;
        same_content(&folder, &receiver.path("copy"))?;

        let began = Instant::now();
        let mut running = receiver.spawn("lcsync", &["lc:one", "one", "-i", "lan0"])?;
        let (before, _) = receiver.interface_traffic("lan0")?;
        eventually("the transfer runs", || {
            let (received, _) = receiver.interface_traffic("lan0")?;
            holds!((received - before).bytes > 200_000, "{received:?}")
        })?;
        server.write("lcsync.toml", and("three"))?;
        process.signal(Signal::SIGHUP)?;
        eventually("the new share is served", || {
            ensure!(process.stdout().contains("lc:three "));
            fetch("three")?.success()
        })?;
        ensure!(fetch("two")?.code == 3, "what is gone is still served");
        running.expect_exit(Duration::from_secs(60), 0)?;
        same_content(&server.path("one"), &receiver.path("one"))?;
        // 2 MB at its 4 Mbit/s
        let took = began.elapsed();
        ensure!(took > Duration::from_secs(3));
        let served = process.stdout().matches("lc:one ").count();
        ensure!(
            served == 1,
            "what stays was started anew: {}",
            process.stdout()
        );

        server.write("lcsync.toml", format!("{one}nmae = \"x\"\n"))?;
        process.signal(Signal::SIGHUP)?;
        eventually("the mistake is told", || {
            let told = process.stderr().contains("lcsync.toml:4: nmae: ");
            holds!(told, "{}", process.stderr())
        })?;
        fetch("three")?.success()?;
        Ok(())
    });
}

#[test]
fn a_seed_takes_over_when_the_server_is_killed_and_follows_a_new_version() {
    world("seed", |lab| {
        let [origin, seed, late] = &crate::all(lab.lan(&["origin", "seed", "late"])?)?;
        let folder = origin.path("folder");
        make_folder(&folder, 3_000_000)?;
        origin.call("lcsync keygen --sign own.key")?;
        origin.call("lcsync keygen team.key")?;
        for host in [seed, late] {
            give(origin, "own.key.pub", host)?;
            give(origin, "team.key", host)?;
        }
        let sealed = ["-i", "lan0", "--keyfile", "team.key"];
        let serve = [&["folder", "--sign", "own.key"], &sealed[..]].concat();
        let (mut server, _) = share(origin, &serve)?;
        let fetch = [
            &["lc:folder", "copy", "--trust", "own.key.pub"],
            &sealed[..],
        ]
        .concat();
        seed.write("copy/of its own", "is not served")?;
        let mut seeding = seed.spawn("lcsync", &[&fetch[..], &["--seed"]].concat())?;
        eventually("the seed has everything", || {
            ensure!(seeding.is_running(), "{}", seeding.stderr());
            holds!(seeding.stderr().contains("serving lc:folder on"))
        })?;
        // a new version, for the seed to fetch and serve
        fs::write(folder.join("notes.txt"), "new words")?;
        eventually("the seed follows", || {
            let got = fs::read(seed.path("copy/notes.txt"))?;
            ensure!(got == b"new words", "{got:?}");
            let rounds = seeding.stderr().matches("serving lc:folder on").count();
            holds!(rounds >= 2, "{}", seeding.stderr())
        })?;

        let slow = [&fetch[..], &["--bwlimit", "8M", "-a"]].concat();
        let mut transfer = late.spawn("lcsync", &slow)?;
        let (before, _) = late.interface_traffic("lan0")?;
        eventually("the transfer runs", || {
            let (received, _) = late.interface_traffic("lan0")?;
            holds!((received - before).bytes > 300_000, "{received:?}")
        })?;
        server.kill()?;
        transfer.expect_exit(Duration::from_secs(90), 0)?;
        same_content(&folder, &late.path("copy"))?;
        let code = seeding.stop()?;
        holds!(
            code == 0,
            "the seed ended with {code}: {}",
            seeding.stderr()
        )
    });
}

#[test]
fn two_half_filled_seeds_complete_each_other_after_the_server_has_gone() {
    world("seed-half", |lab| {
        let hosts = lab.lan(&["origin", "first", "second"])?;
        let [origin, seeds @ ..] = &hosts[..] else {
            unreachable!("three were asked for")
        };
        // each has more than half of the file, and lacks the other's rest
        let big = noise(8, 5 * MEGABYTE);
        origin.write("big.bin", &big)?;
        seeds[0].write("copy.bin", &big[2 * MEGABYTE..])?;
        seeds[1].write("copy.bin", &big[..3 * MEGABYTE])?;
        let (mut server, _) = share(origin, &["big.bin", "-i", "lan0", "--bwlimit", "1M"])?;
        let fetch = ["lc:big.bin", "copy.bin", "-i", "lan0", "--seed"];
        let mut running = seeds
            .iter()
            .map(|seed| seed.spawn("lcsync", &fetch))
            .collect::<Result<Vec<_>>>()?;
        eventually("both know the tree", || {
            for seed in seeds {
                let mut names = fs::read_dir(seed.path("."))?.flatten();
                let partial = ".lcsync-partial";
                ensure!(
                    names.any(|n| n.file_name().to_string_lossy().starts_with(partial)),
                    "{} has not begun",
                    seed.name()
                );
            }
            Ok(())
        })?;
        server.kill()?;
        eventually("the seeds have completed each other", || {
            for seed in seeds {
                let got = fs::read(seed.path("copy.bin"))?;
                ensure!(got == big, "{} has something else", seed.name());
            }
            Ok(())
        })?;
        for seed in &mut running {
            let code = seed.stop()?;
            ensure!(code == 0, "a seed ended with {code}: {}", seed.stderr());
        }
        Ok(())
    });
}

#[test]
fn two_servers_with_one_key_hear_of_each_other_and_no_server_takes_its_own_past_for_another() {
    world("key-rivals", |lab| {
        let [first, second, receiver] = &crate::all(lab.lan(&["first", "second", "receiver"])?)?;
        first.call("lcsync keygen team.key")?;
        give(first, "team.key", second)?;
        give(first, "team.key", receiver)?;
        let key = SharedKey::load(&first.path("team.key"))?;
        let group = SharePrefix::of_name(key.bytes(), "folder").group(SERVERS_CHANNEL);
        let hex: String = group.octets().iter().map(|b| format!("{b:02x}")).collect();
        let is_member = |host: &Host| -> Result<bool> {
            let members = host.call("cat /proc/net/igmp6")?.stdout;
            Ok(members.contains(&hex))
        };
        first.write("folder/f", "before")?;
        second.write("folder/f", "something else")?;
        let serve = ["folder", "-i", "lan0", "--keyfile", "team.key"];
        let (mut server, _) = share(first, &serve)?;
        ensure!(!is_member(first)?, "nobody listens");

        let (at, heard) = (group.to_string(), receiver.path("heard"));
        let ear = ["-c", EAR, &at, "heard"];
        let _ear = receiver.spawn("python3", &ear)?;
        let follow = crate::words("lc:folder copy -i lan0 --keyfile team.key --watch");
        let mut follower = receiver.spawn("lcsync", &follow)?;
        let lines = || -> Result<usize> { Ok(fs::read_to_string(&heard)?.lines().count()) };
        exceeds(0, &lines)?;
        server.stop()?;
        let said = fs::read_to_string(&heard)?;
        receiver.write("said", &said)?;

        // the same server with other files, and a replay of its datagrams
        first.write("folder/f", "after")?;
        let (server, _) = share(first, &serve)?;
        let wait_for_more = |more: usize| {
            let before = lines()?;
            at_least(before + more, &lines)
        };
        wait_for_more(1)?;
        receiver
            .run("python3", &["-c", SAY_AGAIN, &at, "said"])?
            .success()?;
        // before each record it reads pending datagrams
        wait_for_more(said.lines().count() + 2)?;
        let status = |host: &Host| -> Result<Value> {
            let said = host
                .ask("lcsync", &["status", "--json", "folder"])?
                .success()?;
            Ok(serde_json::from_str(&said.stdout)?)
        };
        let alarm = "publishes something else under its name and key";
        ensure!(!server.stderr().contains(alarm), "{}", server.stderr());
        let rivals = status(first)?["rivals"].clone();
        ensure!(rivals == json!([]), "{rivals}");

        let (copied, _) = share(second, &serve)?;
        for (host, process, other) in [
            (first, &server, "fd00:1::2"),
            (second, &copied, "fd00:1::1"),
        ] {
            eventually("both are told", || {
                let told = format!("{other} on lan0 {alarm}");
                let said = process.stderr();
                shows_all(&said, &[&told, "lcsync keygen"])?;
                let seen = status(host)?;
                ensure!(seen["rivals"][0]["address"] == other, "{seen}");
                let shown = host.ask("lcsync", &["status"])?.success()?.stdout;
                shows_all(&shown, &[&told, "lcsync keygen"])
            })?;
        }
        // the second server gets the same files: both serve one share
        second.write("folder/f", "after")?;
        eventually("nobody is told of any more", || {
            for host in [first, second] {
                let rivals = status(host)?["rivals"].clone();
                ensure!(rivals == json!([]), "{rivals}");
            }
            Ok(())
        })?;
        follower.stop()?;
        eventually("nobody listens, and no server does", || {
            holds!(!is_member(first)? && !is_member(second)?, "still a member")
        })
    });
}

/// Makes a folder with recognizable contents.
fn secret_folder(host: &Host) -> Result<PathBuf> {
    host.write(&format!("folder/{NAME}"), SECRET.repeat(3_000))?;
    Ok(host.path("folder"))
}

/// Copies a file to another host, as if by hand.
fn give(from: &Host, name: &str, to: &Host) -> Result<()> {
    // the copy keeps the mode
    fs::copy(from.path(name), to.path(name))?;
    Ok(())
}
