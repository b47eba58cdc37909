//! Kill, restart, replacement and stop of the daemon.

use std::io::Write;

use lcroute_demo::lab::Disk;

use crate::offload::execute_anew;
use crate::prelude::*;

/// Documented bound for the end of a stopped daemon.
const LEAVES_WITHIN: Duration = Duration::from_secs(2);

#[test]
fn a_killed_receiver_daemon_adopts_lc0_and_its_joins_when_it_comes_back() {
    world("kill-receiver", |lab| {
        let mut network = lab.closed_network(["a", "b"])?;
        let receiver = network.members[1].host.receive("ff1e::42", &[])?;
        let _sender = network.members[0].host.send_for_ever("ff1e::42")?;
        receiver.expect_more("the receiver hears the sender")?;
        let before = index_of_lc0(&network.members[1].host)?;
        network.members[1].daemon()?.kill()?;
        network.members[0].wait_links(0)?;
        ensure!(index_of_lc0(&network.members[1].host)? == before);
        network.members[1].start()?;
        ensure!(index_of_lc0(&network.members[1].host)? == before);
        receiver.expect_more("the same program hears the sender again")?;
        receiver.expect_no_duplicates()
    });
}

#[test]
fn a_killed_sender_daemon_goes_on_where_it_was() {
    world("kill-sender", |lab| {
        let mut network = lab.closed_network(["a", "b"])?;
        let receiver = network.members[1].host.receive("ff1e::42", &[])?;
        let _sender = network.members[0].host.send_for_ever("ff1e::42")?;
        receiver.expect_more("the receiver hears the sender")?;
        network.members[0].daemon()?.kill()?;
        network.members[1].wait_links(0)?;
        network.members[0].start()?;
        receiver.expect_more("the receiver hears the same program again")?;
        receiver.expect_no_duplicates()
    });
}

#[test]
fn a_daemon_that_executes_itself_anew_keeps_lc0_and_the_joins() {
    world("anew", |lab| {
        let mut network = lab.closed_network(["a", "b"])?;
        let receiver = network.members[1].host.receive("ff1e::42", &[])?;
        let _sender = network.members[0].host.send_for_ever("ff1e::42")?;
        receiver.expect_more("the receiver hears the sender")?;
        let index = index_of_lc0(&network.members[1].host)?;
        execute_anew(&mut network.members[1])?;
        ensure!(network.members[1].daemon()?.is_running());
        ensure!(index_of_lc0(&network.members[1].host)? == index);
        network.wait_linked()?;
        receiver.expect_more("the same program hears the sender again")
    });
}

#[test]
fn sigterm_and_sigint_take_lc0_away_and_end_with_0() {
    world("sigterm", |lab| {
        let mut network = lab.closed_network(["a", "b", "c"])?;
        for (stopped, signal) in [(2, Signal::SIGTERM), (1, Signal::SIGINT)] {
            let member = &mut network.members[stopped];
            ensure!(
                member.host.has_interface("lc0"),
                "no lc0 on {}",
                member.host.name()
            );
            let begin = Instant::now();
            member.daemon()?.signal(signal)?;
            let code = member.daemon()?.wait(Duration::from_secs(20))?;
            ensure!(code == 0, "exit code {code} after {signal}");
            ensure!(
                begin.elapsed() < LEAVES_WITHIN,
                "took {:?} after {signal}",
                begin.elapsed()
            );
            ensure!(
                !member.host.has_interface("lc0"),
                "lc0 is still there after {signal}"
            );
            network.members[0].wait_links(stopped - 1)?;
        }
        Ok(())
    });
}

#[test]
fn a_reload_keeps_links_and_joins() {
    with_members("reload", ["a", "b"], |_, [a, b]| {
        let receiver = a.known_receiver(b, "ff1e::42", &[])?;
        b.host.call("lcroute reload")?;
        a.host.send("ff1e::42", 200, &[])?;
        receiver.expect_exactly(200)
    });
}

#[test]
fn a_reload_takes_over_what_it_can_and_names_what_waits() {
    world("reload-waits", |lab| {
        let hosts = lab.closed_hosts(&["a"])?;
        // the daemon reads this file again
        hosts[0].configure("")?;
        let mut network = lab.network(hosts)?;
        network.start()?;
        let host = &network.members[0].host;
        let reload = |verb: &str, settings: &str| -> Result<String> {
            host.configure(settings)?;
            Ok(host.run("lcroute", &[verb])?.success()?.stderr)
        };
        let serves = |port: u16| {
            let url = format!("[::1]:{port}").parse::<std::net::SocketAddr>();
            host.namespace()
                .run(|| Ok(std::net::TcpStream::connect(url?).is_ok()))
        };
        let settings = |port| format!("[signal]\nlisten = \"[::]:{port}\"\n[tun]\nmtu = 1400\n");
        let told = reload("reload", &settings(7117))?;
        ensure!(told.contains("now in use: [signal] listen"), "{told}");
        ensure!(
            told.contains("[tun] mtu will hold after `lcroute reload --exec`"),
            "{told}"
        );
        ensure!(serves(7117)?, "the port is closed");
        // `up` beside a daemon reads the file as well
        let told = reload("up", &settings(7118))?;
        shows_all(&told, &["runs already", "[signal] listen"])?;
        ensure!(serves(7118)? && !serves(7117)?, "it serves where it did");
        // an address in use: nothing changes
        let taken = host
            .namespace()
            .run(|| Ok(std::net::TcpListener::bind("[::]:7119")?))?;
        host.configure(&settings(7119))?;
        for verb in [&["reload"][..], &["reload", "--exec"]] {
            let refused = host.run("lcroute", verb)?;
            ensure!(
                refused.code == 1 && refused.stderr.contains("[signal] listen"),
                "{verb:?}: {}",
                refused.stderr
            );
        }
        ensure!(serves(7118)?, "the old port is closed");
        drop(taken);
        let told = reload("reload", "")?;
        ensure!(!told.contains("[tun] mtu"), "it holds what it has: {told}");
        holds!(!serves(7118)?, "it serves still")
    });
}

fn index_of_lc0(host: &Host) -> Result<u32> {
    host.namespace()
        .run(|| nix::net::if_::if_nametoindex("lc0").context("lc0"))
}

#[test]
fn a_disk_that_takes_nothing_keeps_no_daemon_from_upgrade_and_start() {
    world("full-disk", |lab| {
        const SIZE: usize = 256 << 10;
        let hosts = lab.closed_hosts(&["a", "b"])?;
        let state = hosts[1].state_dir();
        let disk = Disk::new(state.clone(), SIZE)?;
        let mut network = lab.network(hosts)?;
        network.start()?;
        let incarnation = || -> Result<u32> {
            let text = fs::read_to_string(state.join("incarnation"))?;
            Ok(text.trim().parse()?)
        };
        let mut file = fs::File::create(state.join("ballast"))?;
        while file.write_all(&[1; 512]).is_ok() {}

        let before = incarnation()?;
        execute_anew(&mut network.members[1])?;
        network.wait_linked()?;
        network.members[1].daemon()?.kill()?;
        network.members[0].wait_links(0)?;
        network.members[1].start()?;
        network.wait_linked()?;
        ensure!(incarnation()? == before + 2, "{before}, {}", incarnation()?);

        network.members[1].daemon()?.kill()?;
        network.members[0].wait_links(0)?;
        drop(file);
        // a process of another test has our files open until it executes
        eventually("nobody writes there", || disk.make_read_only(SIZE))?;
        network.members[1].start()?;
        network.wait_linked()?;
        let log = network.members[1].daemon()?.stderr();
        holds!(log.contains("incarnation: Read-only file system"), "{log}")
    });
}

#[test]
fn a_state_folder_has_one_daemon_and_a_second_is_told_whose_it_is() {
    world("one-owner", |lab| {
        let mut network = lab.closed_network(["a", "b"])?;
        let refused = |member: &Member| -> Result<()> {
            let control = member.host.path("other.sock");
            let control = control.to_str().context("path")?;
            let run = ["run", "--tun", "lc9", "--control", control];
            let done = member.host.run("lcroute", &run)?;
            let lock = fs::read_to_string(member.host.state_dir().join("lock"))?;
            let said = format!("used by another lcroute (pid {lock})");
            done.fails(1, &said)?;
            holds!(!member.host.has_interface("lc9"))
        };
        refused(&network.members[1])?;
        execute_anew(&mut network.members[1])?;
        refused(&network.members[1])?;
        network.wait_linked()
    });
}
