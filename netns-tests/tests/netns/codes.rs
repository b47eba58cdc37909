//! Files, stations and lectures under four words: nobody is root, no daemon runs, and hosts do not
//! know each other.

use std::os::unix::ffi::OsStrExt;

use librecast::cert::Token;
use librecast::channel::{ROOT_CHANNEL, SharePrefix};
use librecast::code::Code;
use librecast::code::beacon::beacon_group;

use crate::guest::{all_end, as_confined, as_nobody, family, open_driver};
use crate::prelude::*;
use crate::radio::{RADIO, RATE, read_samples, sounding, write_chirp};
use crate::reach::closed_lan;
use crate::uplink::limit;

const MEGABYTE: usize = 1_000_000;
/// Time within which a receiver prints that nobody sends, as the documents promise.
const PROMISED: Duration = Duration::from_secs(15);

/// Makes a folder of the host that everybody may write to.
fn open_folder(host: &Host, name: &str) -> Result<PathBuf> {
    let path = host.path(name);
    fs::create_dir_all(&path)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o777))?;
    Ok(path)
}

/// A file, and a folder with an empty file and names that are not text.
pub(crate) fn make_files(host: &Host, size: usize) -> Result<[PathBuf; 2]> {
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

/// Starts `lcsync` as nobody, with LCROUTE_SIGNAL set to `servers`.
pub(crate) fn lcsync(host: &Host, servers: &str, args: &[&str]) -> Result<Process> {
    let signal = format!("LCROUTE_SIGNAL={servers}");
    let args = [&["env", &signal, "lcsync"][..], args].concat();
    host.spawn("setpriv", &as_nobody(&args))
}

/// Sends the host's files as nobody; returns the code.
pub(crate) fn send(host: &Host, servers: &str, paths: &[PathBuf]) -> Result<(Process, String)> {
    let paths: Vec<String> = paths.iter().map(|p| p.display().to_string()).collect();
    let args: Vec<&str> = paths.iter().map(String::as_str).collect();
    let sends = lcsync(host, servers, &[&["send"][..], &args].concat())?;
    let code = words_of(&sends)?;
    Ok((sends, code))
}

pub(crate) fn receive(host: &Host, servers: &str, code: &str) -> Result<Process> {
    let dest = open_folder(host, "dest")?.display().to_string();
    lcsync(host, servers, &["receive", code, &dest])
}

fn arrived(mut receives: Process, host: &Host, sent: &[PathBuf; 2]) -> Result<()> {
    receives.expect_exit(DEADLINE, 0)?;
    let dest = host.path("dest");
    let [file, folder] = sent;
    ensure!(fs::read(dest.join("report.pdf"))? == fs::read(file)?);
    same_content(folder, &dest.join("photos"))?;
    let left = fs::read_dir(&dest)?.count();
    holds!(left == 2, "{left} entries, and two were sent")
}

/// Returns a number of the environment, for measurements.
fn number(variable: &str, default: usize) -> usize {
    let given = std::env::var(variable).ok();
    given.map_or(default, |text| text.parse().expect(variable))
}

fn ends(process: &mut Process, code: i32, said: &str) -> Result<()> {
    process.fails(DEADLINE, code, said)
}

#[test]
fn four_words_bring_files_to_whoever_says_them_on_a_lan_without_a_server() {
    guests("codes-lan", |lab| {
        let [ann, bob, cy, dan] = &crate::all(closed_lan(lab, &["ann", "bob", "cy", "dan"])?)?;
        let sent = make_files(ann, 3 * MEGABYTE)?;
        let links = ann.run("ip", &["-br", "link"])?.stdout;
        let (sends, code) = send(ann, "", &sent)?;
        ensure!(code.split('-').count() == 4, "{code}");
        let first = receive(bob, "", &code)?;
        // as somebody types them after a phone call
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
        sends.says("left")?;
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
        holds!(ann.run("ip", &["-br", "link"])?.stdout == links)
    });
}

#[test]
fn a_text_is_printed_and_standard_input_arrives_as_a_file() {
    guests("codes-text", |lab| {
        let hosts = closed_lan(lab, &["ann", "bob"])?;
        let [ann, bob] = crate::each(&hosts)?;
        let text = lcsync(ann, "", &["send", "--text", "see you at 8"])?;
        let code = words_of(&text)?;
        text.says("hosts of this LAN alone")?;
        let mut prints = lcsync(bob, "", &["receive", &code])?;
        ends(&mut prints, 0, "text.txt")?;
        ensure!(prints.stdout() == "see you at 8\n", "{}", prints.stdout());
        drop(text);
        // one process, so it ends with the world
        let script = "exec lcsync send - --name boot.log <<END\nline\nline\nline\nEND";
        let args = ["env", "LCROUTE_SIGNAL=", "sh", "-c", script];
        let piped = ann.spawn("setpriv", &as_nobody(&args))?;
        let code = words_of(&piped)?;
        let mut prints = lcsync(bob, "", &["receive", &code, "-"])?;
        ends(&mut prints, 0, "boot.log")?;
        ensure!(prints.stdout() == "line\n".repeat(3), "{}", prints.stdout());
        let mut receives = receive(bob, "", &code)?;
        ends(&mut receives, 0, "boot.log")?;
        let log = fs::read(bob.path("dest/boot.log"))?;
        holds!(log == b"line\nline\nline\n", "{log:?}")
    });
}

#[test]
fn four_words_bring_a_token_to_the_first_host_that_says_them() {
    guests("codes-token", |lab| {
        let hosts = closed_lan(lab, &["ann", "bob", "eve"])?;
        let [ann, bob, eve] = &hosts[..] else {
            unreachable!("three hosts");
        };
        let network_of = |host: &Host| -> Result<Value> {
            let id = host.call("lcroute id --json")?.stdout;
            let id: Value = serde_json::from_str(&id)?;
            Ok(id["network"].clone())
        };
        ann.call("lcroute init --name ann")?;
        let mut invites = ann.spawn("lcroute", &["invite", "--code"])?;
        let code = words_of(&invites)?;
        invites.says("hosts of this LAN alone")?;
        let words: Vec<&str> = code.split('-').collect();
        let args = [&["join"][..], &words, &["--name", "bob"]].concat();
        bob.run("lcroute", &args)?.success()?;
        ends(&mut invites, 0, "bob has the token")?;
        ensure!(network_of(bob)? == network_of(ann)?);
        // the words are used up, and a member uses up none
        let mut late = eve.spawn("lcroute", &["join", &code])?;
        ends(&mut late, 3, "nobody is here")?;
        ensure!(!eve.state_dir().join("membership.toml").exists());
        let mut again = bob.spawn("lcroute", &["join", &code])?;
        ends(&mut again, 1, "another network already")?;
        // where no namespace may be made, as in containers
        let mut invites = ann.spawn("lcroute", &["invite", "--code"])?;
        let code = words_of(&invites)?;
        let state = open_folder(eve, "own")?.join("lcroute");
        let state = state.display().to_string();
        let args = format!("lcroute join {code} --name eve --state-dir {state}");
        let args = crate::words(&args);
        ends(&mut eve.spawn("setpriv", &as_confined(&args))?, 0, "")?;
        ends(&mut invites, 0, "eve has the token")?;
        let mut unheard = ann.spawn("lcroute", &["invite", "--code", "--for", "1s"])?;
        ends(&mut unheard, 3, "no longer good")
    });
}

#[test]
fn wrong_words_and_two_senders_are_said_and_nothing_is_received() {
    guests("codes-wrong", |lab| {
        let [ann, bob, eve] = &crate::all(closed_lan(lab, &["ann", "bob", "eve"])?)?;
        let sent = make_files(ann, 100_000)?;
        let (mut sends, code) = send(ann, "", &sent)?;
        let began = Instant::now();
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
        // a member that only watches is not a sender
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
        inside.prints("in")?;
        arrived(receive(bob, "", &code)?, bob, &sent)?;
        sends.signal(Signal::SIGINT)?;
        sends.expect_exit(DEADLINE, 130)?;
        drop(inside);
        Ok(())
    });
}

#[test]
fn hidden_names_and_links_are_not_touched_unless_the_receiver_asks_for_it() {
    guests("codes-hidden", |lab| {
        let [ann, bob] = &crate::all(closed_lan(lab, &["ann", "bob"])?)?;
        let sent = make_files(ann, 10_000)?;
        let (_sends, code) = send(ann, "", &sent)?;
        let dest = open_folder(bob, "dest")?;
        std::os::unix::fs::symlink("elsewhere", dest.join("photos"))?;
        let path = dest.display().to_string();
        let args = ["receive", &code, &path, "--overwrite"];
        ends(
            &mut lcsync(bob, "", &args)?,
            1,
            "photos/: nothing was received",
        )?;
        ensure!(fs::read_dir(&dest)?.count() == 1);
        fs::remove_file(dest.join("photos"))?;
        fs::create_dir_all(sent[1].join(".ssh"))?;
        fs::write(sent[1].join(".ssh/authorized_keys"), b"evil")?;
        let hidden = "photos/.ssh/authorized_keys: nothing was received";
        // until the sender has read the change, it offers the former files
        eventually("hidden names are refused", || {
            let mut receives = receive(bob, "", &code)?;
            receives.fails(DEADLINE, 1, hidden)
        })?;
        ensure!(!dest.join("photos/.ssh").exists());
        let mut taken = lcsync(bob, "", &["receive", &code, &path, "--hidden"])?;
        taken.expect_exit(DEADLINE, 0)?;
        arrived(taken, bob, &sent)
    });
}

#[test]
fn a_corrected_file_arrives_beside_one_that_never_rests() {
    guests("codes-restless", |lab| {
        let [ann, bob] = &crate::all(closed_lan(lab, &["ann", "bob"])?)?;
        let sent = make_files(ann, 10_000)?;
        let (_sends, code) = send(ann, "", &sent)?;
        let state = sent[1].join("state").display().to_string();
        let rewrites = format!("while :; do date >'{state}'; sleep 2; done");
        let _rewrites = ann.spawn("sh", &["-c", &rewrites])?;
        fs::write(&sent[0], b"corrected")?;
        let dest = open_folder(bob, "dest")?;
        let path = dest.display().to_string();
        eventually("the corrected file", || {
            let args = ["receive", &code, &path, "--overwrite"];
            let mut receives = lcsync(bob, "", &args)?;
            receives.expect_exit(DEADLINE, 0)?;
            holds!(fs::read(dest.join("report.pdf"))? == b"corrected")
        })
    });
}

#[test]
#[ignore = "long: `make test-all`"]
fn a_killed_receiver_of_codes_goes_on_and_hostile_beacons_change_nothing() {
    const SIZE: usize = 12 * MEGABYTE;
    guests("codes-resume", |lab| {
        let [ann, bob, eve] = &crate::all(closed_lan(lab, &["ann", "bob", "eve"])?)?;
        let sent = make_files(ann, SIZE)?;
        let paths = sent.each_ref().map(|p| p.display().to_string());
        let args = ["send", "--bwlimit", "24M", &paths[0], &paths[1]];
        let sends = lcsync(ann, "", &args)?;
        sends.prints("-")?;
        let code = sends.stdout().trim().to_owned();
        // a holder of the words sends datagrams of all kinds to the group of beacons
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
        hostile.prints("in")?;
        let receives = receive(bob, "", &code)?;
        let dest = bob.path("dest");
        exceeds(SIZE as u64 / 4, || size_below(&dest))?;
        let family = family(receives.pid());
        receives.signal(Signal::SIGKILL)?;
        all_end(&family)?;
        let mut again = receive(bob, "", &code)?;
        again.expect_exit(DEADLINE, 0)?;
        same_content(&sent[1], &dest.join("photos"))?;
        let told = again.stderr();
        let line = told.lines().find(|line| line.contains("fetched in"));
        let line = line.context(told.clone())?;
        holds!(!line.contains("12.") && !line.contains("11."), "{line}")
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
        let [ann, bob] = &crate::all(lab.closed_hosts(&["ann", "bob"])?)?;
        let sent = make_files(ann, MEGABYTE)?;
        let (_sends, code) = send(ann, &url, &sent)?;
        ensure!(code.contains('@'), "{code}");
        arrived(receive(bob, "", &code)?, bob, &sent)
    });
}

/// Of `RECEIVERS`, the fifth begins 8 s after the others; the files have `MB` megabytes, and 30 Mbit/s
/// leave each host.
#[test]
#[ignore = "long: `make test-all`"]
fn five_receivers_of_a_code_cost_less_than_five_uploads() {
    /// Files that leave the sender at most: a copy for each, without losses. Measured: 3.5 to 4.2.
    const MOST: f64 = 5.0;
    let megabytes = number("MB", 40);
    let receivers = number("RECEIVERS", 5).clamp(1, 5);
    world("codes-upload", |lab: &Lab| {
        open_driver()?;
        let server = lab.signalling_server()?;
        let url = server.url()?;
        let names = ["ann", "bob", "cy", "dan", "eve", "fay"];
        let hosts = lab.closed_hosts(&names[..=receivers])?;
        hosts.iter().try_for_each(|host| limit(host, 30))?;
        let (ann, others) = hosts.split_first().context("hosts")?;
        let sent = make_files(ann, megabytes * MEGABYTE)?;
        let (_sends, code) = send(ann, &url, &sent)?;
        let left = || Ok::<_, anyhow::Error>(ann.uplink_traffic()?.1.bytes);
        let (before, start) = (left()?, Instant::now());
        let at_once = others.len().min(4);
        let mut fetches = Vec::new();
        for (n, host) in others.iter().enumerate() {
            if n == at_once {
                sleep(Duration::from_secs(8));
            }
            fetches.push((host, receive(host, "", &code)?));
        }
        for (host, receives) in fetches {
            arrived(receives, host, &sent)?;
            println!("{}: {:.1} s", host.name(), start.elapsed().as_secs_f64());
        }
        let files = (left()? - before) as f64 / (megabytes * MEGABYTE) as f64;
        println!("{files:.2} files of {megabytes} MB left the sender");
        holds!(files < MOST, "{files:.2} files")
    });
}

/// Starts a command of a shell as nobody, without a server.
fn shell(host: &Host, command: &str) -> Result<Process> {
    let args = ["env", "LCROUTE_SIGNAL=", "sh", "-c", command];
    host.spawn("setpriv", &as_nobody(&args))
}

/// Returns the words that a sender prints first.
fn words_of(sends: &Process) -> Result<String> {
    eventually("the words", || {
        let said = sends.stdout();
        let line = said.lines().next().map(str::to_owned);
        let line = line.filter(|line| line.split('-').count() == 4);
        line.with_context(|| format!("{said}{}", sends.stderr()))
    })
}

#[test]
#[ignore = "long: `make test-all`"]
fn a_station_goes_by_four_words_and_two_senders_are_refused() {
    guests("codes-station", |lab| {
        let [ann, bob, eve] = &crate::all(closed_lan(lab, &["ann", "bob", "eve"])?)?;
        let chirp = write_chirp(ann, 60)?.display().to_string();
        let sends = shell(ann, &format!("exec {RADIO} cast --code - <{chirp}"))?;
        let code = words_of(&sends)?;
        let nobody = format!("{RADIO} listen abandon-abandon-abandon-zoo -");
        ends(&mut shell(bob, &nobody)?, 3, "lcradio cast --code")?;
        let heard = open_folder(bob, "heard")?.join("samples");
        let (typed, file) = (code.replace('-', " "), heard.display());
        let listens = shell(bob, &format!("exec {RADIO} listen '{typed}' - >{file}"))?;
        exceeds(2 * 4 * RATE, || Ok(fs::metadata(&heard)?.len() as usize))?;
        listens.signal(Signal::SIGINT)?;
        // how well it sounds is a matter of other tests, and of what else this machine does
        let samples = read_samples(&heard)?;
        let loud = sounding(&samples).len();
        ensure!(loud > RATE, "{loud} samples are not silent");
        // the offer is not a file, and holders of the words make no second station of them
        ends(&mut receive(bob, "", &code)?, 1, "lcradio listen")?;
        let second = format!("lcroute guest {code} -- {RADIO} cast --code - <{chirp}");
        let chirp_of_eve = write_chirp(eve, 5)?.display().to_string();
        let second = second.replace(&chirp, &chirp_of_eve);
        ends(
            &mut shell(eve, &second)?,
            4,
            "sends under these words already",
        )
    });
}

#[test]
#[ignore = "long: `make test-all`"]
fn a_lecture_goes_by_four_words() {
    guests("codes-lecture", |lab| {
        let [ann, bob] = &crate::all(closed_lan(lab, &["ann", "bob"])?)?;
        let home = open_folder(ann, "home")?.display().to_string();
        let made = format!(
            "cd {home} && lcstudio keygen k && lcstudio new talk --key k --title Bees && printf '# Bees\\n\\nThey dance.\\n' >talk/slides.md"
        );
        let ended = shell(ann, &made)?.wait(DEADLINE)?;
        ensure!(ended == 0, "{ended}");
        // an input that stays open
        let present = "mkfifo in && exec lcstudio present talk --key k --code <>in";
        let sends = shell(ann, &format!("cd {home} && {present}"))?;
        let code = words_of(&sends)?;
        let home = open_folder(bob, "home")?.display().to_string();
        let attend = format!("exec lcstudio attend {code} <>in");
        let attends = shell(bob, &format!("cd {home} && mkfifo in && {attend}"))?;
        attends.prints("They dance.")?;
        ends(&mut receive(bob, "", &code)?, 1, "lcstudio attend")
    });
}

#[test]
#[ignore = "long: `make test-all`"]
fn of_two_who_send_under_a_code_receivers_take_none() {
    guests("codes-two", |lab| {
        let [ann, bob, eve] = &crate::all(closed_lan(lab, &["ann", "bob", "eve"])?)?;
        let sent = make_files(ann, 100_000)?;
        let (sends, code) = send(ann, "", &sent)?;
        // offers of a thousand senders, each whole, and garbage between them
        let script = "import socket,random,sys,time\n\
            s=socket.socket(socket.AF_INET6,socket.SOCK_DGRAM)\n\
            s.setsockopt(socket.IPPROTO_IPV6,socket.IPV6_MULTICAST_IF,socket.if_nametoindex('lc0'))\n\
            print('in',flush=True)\n\
            for n in range(10**6):\n\
            \x20 line=b'12D3%d'%(n%1000)\n\
            \x20 d=bytes([1,1,3])+b'eve'+bytes(16)+len(line).to_bytes(2,'big')+line\n\
            \x20 s.sendto(random.choice([d,d[:random.randrange(len(d))],random.randbytes(600)]),(sys.argv[1],14247))\n\
            \x20 time.sleep(0.01)\n";
        let script = eve.write("second.py", script)?.display().to_string();
        let group = beacon_group(&code.parse::<Code>()?.keys().beacon).to_string();
        let args = ["lcroute", "guest", &code, "--", "python3", &script, &group];
        let hostile = eve.spawn("setpriv", &as_nobody(&args))?;
        hostile.prints("in")?;
        let mut refused = receive(bob, "", &code)?;
        ends(&mut refused, 4, "two send under these words")?;
        ensure!(fs::read_dir(bob.path("dest"))?.count() == 0);
        sends.says("somebody else, eve, sends under these words")
    });
}

#[test]
fn a_public_link_lets_leaves_receive_and_nobody_else_send() {
    world("codes-public", |lab: &Lab| {
        open_driver()?;
        let server = lab.signalling_server()?;
        let url = server.url()?;
        let [ann, bob, eve] = &crate::all(lab.closed_hosts(&["ann", "bob", "eve"])?)?;
        let sent = make_files(ann, MEGABYTE)?;
        let paths = sent.each_ref().map(|p| p.display().to_string());
        let mut without = lcsync(ann, "", &["send", "--public", &paths[0]])?;
        ends(&mut without, 2, "needs a signalling server")?;
        let args = ["send", "--public", &paths[0], &paths[1]];
        let mut sends = lcsync(ann, &url, &args)?;
        let link = eventually("the link", || {
            let line = sends.stdout().lines().next().map(str::to_owned);
            line.with_context(|| sends.stderr())
        })?;
        let (token, share) = link.split_once(',').context("no link")?;
        ensure!(share == "lc:files", "{link}");
        let token: Token = token.parse()?;
        ensure!(token.invitation().grant().leaf);
        // a reader of the page has the link
        let root = SharePrefix::of_name(b"", "files").group(ROOT_CHANNEL);
        let script = "import socket,random,sys,time\n\
            s=socket.socket(socket.AF_INET6,socket.SOCK_DGRAM)\n\
            s.setsockopt(socket.IPPROTO_IPV6,socket.IPV6_MULTICAST_IF,socket.if_nametoindex('lc0'))\n\
            print('in',flush=True)\n\
            while True:\n\
            \x20 s.sendto(random.randbytes(600),(sys.argv[1],14242)); time.sleep(0.01)\n";
        let script = eve.write("hostile.py", script)?.display().to_string();
        let (given, group) = (token.encode().to_string(), root.to_string());
        let args = ["lcroute", "guest", &given, "--", "python3", &script, &group];
        let hostile = eve.spawn("setpriv", &as_nobody(&args))?;
        hostile.prints("in")?;
        let dest = open_folder(bob, "dest")?.display().to_string();
        arrived(lcsync(bob, "", &[&link, &dest])?, bob, &sent)?;
        hostile.says("goes nowhere")?;
        sends.says("1 node receives")?;
        sends.signal(Signal::SIGINT)?;
        sends.expect_exit(DEADLINE, 130)
    });
}

#[test]
#[ignore = "long: `make test-all`"]
fn both_ends_of_a_code_do_without_namespaces() {
    world("codes-pair", |lab| {
        let [ann, bob] = &crate::all(closed_lan(lab, &["ann", "bob"])?)?;
        let sent = make_files(ann, 3 * MEGABYTE)?;
        let paths = sent.each_ref().map(|p| p.display().to_string());
        let env = ["env", "LCROUTE_SIGNAL=", "lcsync"];
        let args = [&env[..], &["send", &paths[0], &paths[1]]].concat();
        let sends = ann.spawn("setpriv", &as_confined(&args))?;
        let code = words_of(&sends)?;
        let dest = open_folder(bob, "dest")?.display().to_string();
        let args = [&env[..], &["receive", &code, &dest]].concat();
        arrived(bob.spawn("setpriv", &as_confined(&args))?, bob, &sent)?;
        let family = family(sends.pid());
        sends.signal(Signal::SIGKILL)?;
        all_end(&family)
    });
}
