//! Files under four words: nobody is root, no daemon runs, and hosts do not know each other.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lcroute_lab::lab::{DEADLINE, Host, Lab, Process, eventually, noise, same_content};
use librecast::code::Code;
use librecast::code::beacon::beacon_group;
use nix::sys::signal::Signal;

use crate::guest::{all_end, as_nobody, family, open_driver, says};
use crate::reach::closed_lan;
use crate::world;

const MEGABYTE: usize = 1_000_000;
/// Time within which a receiver says that nobody sends, as the documents promise.
const PROMISED: Duration = Duration::from_secs(15);

/// Makes a folder of the host that everybody may write to.
fn open_folder(host: &Host, name: &str) -> Result<PathBuf> {
    let path = host.path(name);
    fs::create_dir_all(&path)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o777))?;
    Ok(path)
}

/// A file, and a folder with an empty file and names that are no text.
fn make_files(host: &Host, size: usize) -> Result<[PathBuf; 2]> {
    let folder = host.path("photos");
    fs::create_dir_all(folder.join("sub"))?;
    fs::write(folder.join("empty"), b"")?;
    fs::write(folder.join("sub/big"), noise(1, size))?;
    let odd = std::ffi::OsStr::from_bytes(b"od\xffd\x1b[2J");
    fs::write(folder.join(odd), b"odd")?;
    let file = host.path("report.pdf");
    fs::write(&file, noise(2, 300_000))?;
    Ok([file, folder])
}

/// Starts `lcsync` as nobody, where `servers` is what LCROUTE_SIGNAL says.
fn lcsync(host: &Host, servers: &str, args: &[&str]) -> Result<Process> {
    let signal = format!("LCROUTE_SIGNAL={servers}");
    let args = [&["env", &signal, "lcsync"][..], args].concat();
    host.spawn("setpriv", &as_nobody(&args))
}

/// Sends the host's files as nobody; returns the code.
fn send(host: &Host, servers: &str, paths: &[PathBuf]) -> Result<(Process, String)> {
    let paths: Vec<String> = paths.iter().map(|p| p.display().to_string()).collect();
    let args: Vec<&str> = paths.iter().map(String::as_str).collect();
    let sends = lcsync(host, servers, &[&["send"][..], &args].concat())?;
    let code = eventually("the words", || {
        let line = sends.stdout().lines().next().map(str::to_owned);
        line.with_context(|| sends.stderr())
    })?;
    Ok((sends, code))
}

fn receive(host: &Host, servers: &str, code: &str) -> Result<Process> {
    let dest = open_folder(host, "dest")?.display().to_string();
    lcsync(host, servers, &["receive", code, &dest])
}

fn arrived(mut receives: Process, host: &Host, sent: &[PathBuf; 2]) -> Result<()> {
    let code = receives.wait(DEADLINE)?;
    ensure!(code == 0, "{code}: {}", receives.stderr());
    let dest = host.path("dest");
    let [file, folder] = sent;
    ensure!(fs::read(dest.join("report.pdf"))? == fs::read(file)?);
    same_content(folder, &dest.join("photos"))?;
    let left = fs::read_dir(&dest)?.count();
    ensure!(left == 2, "{left} entries, and two were sent");
    Ok(())
}

fn ends(process: &mut Process, code: i32, said: &str) -> Result<()> {
    let ended = process.wait(DEADLINE)?;
    let told = process.stderr();
    ensure!(ended == code && told.contains(said), "{ended}: {told}");
    Ok(())
}

#[test]
fn four_words_bring_files_to_whoever_says_them_on_a_lan_without_a_server() {
    world("codes-lan", |lab| {
        open_driver()?;
        let hosts = closed_lan(lab, &["ann", "bob", "cy", "dan"])?;
        let [ann, bob, cy, dan] = &hosts[..] else {
            unreachable!("four hosts");
        };
        let sent = make_files(ann, 3 * MEGABYTE)?;
        let links = ann.run("ip", &["-br", "link"])?.stdout;
        let (sends, code) = send(ann, "", &sent)?;
        ensure!(code.split('-').count() == 4, "{code}");
        let first = receive(bob, "", &code)?;
        // as somebody types them who has heard them
        let typed = code.replace('-', " ").to_uppercase();
        let second = receive(cy, "", &typed)?;
        arrived(first, bob, &sent)?;
        arrived(second, cy, &sent)?;
        // late, and beside a file that is another one
        let dest = open_folder(dan, "dest")?;
        fs::write(dest.join("report.pdf"), b"mine")?;
        let mut refused = receive(dan, "", &code)?;
        ends(&mut refused, 1, "report.pdf")?;
        ensure!(fs::read(dest.join("report.pdf"))? == b"mine");
        fs::remove_file(dest.join("report.pdf"))?;
        arrived(receive(dan, "", &code)?, dan, &sent)?;
        says_at_last(&sends, "left")?;
        // the words are in no command line, and nothing is left
        let family = family(sends.pid());
        let words: Vec<&str> = code.split('-').collect();
        for pid in &family {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).into_owned();
            ensure!(
                !line.contains(words[0]) || !line.contains(words[3]),
                "{line}"
            );
        }
        ensure!(family.len() >= 3, "{family:?}");
        sends.signal(Signal::SIGKILL)?;
        all_end(&family)?;
        ensure!(ann.run("ip", &["-br", "link"])?.stdout == links);
        Ok(())
    });
}

fn says_at_last(process: &Process, text: &str) -> Result<()> {
    eventually(text, || {
        let told = process.stderr();
        ensure!(told.contains(text), "{told}");
        Ok(())
    })
}

#[test]
fn wrong_words_and_two_senders_are_said_and_nothing_is_received() {
    world("codes-wrong", |lab| {
        open_driver()?;
        let hosts = closed_lan(lab, &["ann", "bob", "eve"])?;
        let [ann, bob, eve] = &hosts[..] else {
            unreachable!("three hosts");
        };
        let sent = make_files(ann, 100_000)?;
        let (mut sends, code) = send(ann, "", &sent)?;
        let began = std::time::Instant::now();
        let mut nobody = receive(bob, "", "abandon-abandon-abandon-zoo")?;
        ends(&mut nobody, 3, "nobody is here")?;
        ensure!(began.elapsed() < PROMISED, "{:?}", began.elapsed());
        let mut unknown = receive(bob, "", "abandon-abandon-abandon-zooo")?;
        ends(&mut unknown, 2, "zoo")?;
        // somebody with the words offers something else, behind Ann's back
        let evil = make_files(eve, 100_000)?;
        let file = evil[0].display().to_string();
        let args = ["lcroute", "guest", &code, "--", "lcsync", "send", &file];
        let mut refused = eve.spawn("setpriv", &as_nobody(&args))?;
        ends(&mut refused, 4, "sends under these words already")?;
        // a member who only watches is no sender
        let args = [
            "lcroute",
            "guest",
            &code,
            "--",
            "sh",
            "-c",
            "echo in; exec sleep 1000",
        ];
        let inside = eve.spawn("setpriv", &as_nobody(&args))?;
        says(&inside, "in")?;
        arrived(receive(bob, "", &code)?, bob, &sent)?;
        sends.signal(Signal::SIGINT)?;
        ensure!(sends.wait(DEADLINE)? == 130, "{}", sends.stderr());
        drop(inside);
        Ok(())
    });
}

#[test]
#[ignore = "long: `make test-all`"]
fn a_killed_receiver_of_codes_goes_on_and_hostile_beacons_change_nothing() {
    const SIZE: usize = 12 * MEGABYTE;
    world("codes-resume", |lab| {
        open_driver()?;
        let hosts = closed_lan(lab, &["ann", "bob", "eve"])?;
        let [ann, bob, eve] = &hosts[..] else {
            unreachable!("three hosts");
        };
        let sent = make_files(ann, SIZE)?;
        let paths = sent.each_ref().map(|p| p.display().to_string());
        let args = ["send", "--bwlimit", "24M", &paths[0], &paths[1]];
        let sends = lcsync(ann, "", &args)?;
        says(&sends, "-")?;
        let code = sends.stdout().trim().to_owned();
        // whoever has the words sends datagrams of all kinds to the group of beacons
        let script = "import socket,random,sys,time\n\
            s=socket.socket(socket.AF_INET6,socket.SOCK_DGRAM)\n\
            s.setsockopt(socket.IPPROTO_IPV6,socket.IPV6_MULTICAST_IF,socket.if_nametoindex('lc0'))\n\
            print('in',flush=True)\n\
            while True:\n\
            \x20 d=bytes([random.choice([0,1,2]),random.choice([0,9,255])])+random.randbytes(random.randrange(900))\n\
            \x20 s.sendto(d,(sys.argv[1],14247)); time.sleep(0.005)\n";
        let script = eve.write("hostile.py", script)?.display().to_string();
        let group = beacon_group(&code.parse::<Code>()?.keys().beacon).to_string();
        let args = ["lcroute", "guest", &code, "--", "python3", &script, &group];
        let hostile = eve.spawn("setpriv", &as_nobody(&args))?;
        says(&hostile, "in")?;
        let receives = receive(bob, "", &code)?;
        let dest = bob.path("dest");
        eventually("some of it", || {
            let there = size_below(&dest)?;
            ensure!(there > SIZE as u64 / 4, "{there}: {}", receives.stderr());
            Ok(())
        })?;
        let family = family(receives.pid());
        receives.signal(Signal::SIGKILL)?;
        all_end(&family)?;
        let mut again = receive(bob, "", &code)?;
        let ended = again.wait(DEADLINE)?;
        ensure!(ended == 0, "{ended}: {}", again.stderr());
        same_content(&sent[1], &dest.join("photos"))?;
        let told = again.stderr();
        let line = told.lines().find(|line| line.contains("fetched in"));
        let line = line.context(told.clone())?;
        ensure!(!line.contains("12.") && !line.contains("11."), "{line}");
        Ok(())
    });
}

/// Returns the bytes on disk below a folder.
fn size_below(folder: &Path) -> Result<u64> {
    use std::os::unix::fs::MetadataExt;
    let mut all = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let found = match entry.metadata() {
            Ok(found) => found,
            // renamed meanwhile
            Err(_) => continue,
        };
        all += match found.is_dir() {
            true => size_below(&entry.path())?,
            false => found.blocks() * 512,
        };
    }
    Ok(all)
}

#[test]
#[ignore = "long: `make test-all`"]
fn a_code_with_a_host_leads_through_closed_firewalls() {
    world("codes-server", |lab: &Lab| {
        open_driver()?;
        let server = lab.signalling_server()?;
        let url = server.url()?;
        let hosts = lab.closed_hosts(&["ann", "bob"])?;
        let [ann, bob] = &hosts[..] else {
            unreachable!("two hosts");
        };
        let sent = make_files(ann, MEGABYTE)?;
        let (_sends, code) = send(ann, &url, &sent)?;
        ensure!(code.contains('@'), "{code}");
        arrived(receive(bob, "", &code)?, bob, &sent)
    });
}
