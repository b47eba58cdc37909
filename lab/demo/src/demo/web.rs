//! `lcroute demo --web`: keeps the demo's network up, for a local browser to see and join.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv6Addr, SocketAddr, TcpStream};
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::narrator::{Narrator, Step};
use crate::lab::{ForwardedPort, Lab, Member, Network, Process, eventually};

/// The server of pages.
pub const PROGRAM: &str = "lcroute-web";
/// Addresses of `lcroute web` and `lcroute signal` in their own namespaces.
const PAGES: SocketAddr = SocketAddr::new(std::net::IpAddr::V6(Ipv6Addr::LOCALHOST), 7180);
const SIGNALLING: u16 = 7117;
/// Groups of the packets, and of the words.
const PACKETS: &str = "ff1e::42";
const WORDS: &str = "ff1e::1";
/// Interval of alpha's words.
const PAUSE: Duration = Duration::from_secs(2);

/// Ports of the machine that lead into the demo; opened before the demo leaves the machine.
#[derive(Debug)]
pub struct Ports {
    pages: ForwardedPort,
    signalling: ForwardedPort,
}

impl Ports {
    /// Opens two free ports.
    pub fn open() -> Result<Ports> {
        Ok(Ports {
            pages: ForwardedPort::open()?,
            signalling: ForwardedPort::open()?,
        })
    }
}

/// Serves the pages and keeps traffic flowing; returns only on an error.
pub fn run(lab: &Lab, network: &mut Network, ports: Ports, narrator: &mut Narrator) -> Result<()> {
    let mut running = Vec::new();
    narrator.step("Pages for a browser of this machine", |step| {
        running = serve(lab, network, ports, step)?;
        Ok(())
    })?;
    let alpha = &network.members[0];
    let mut say = alpha.host.command("lcroute")?;
    say.args(["say", WORDS]).stdin(Stdio::piped());
    let mut say = say.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    let mut words = say.stdin.take().context("a pipe that was asked for")?;
    for count in 1_u64.. {
        thread::sleep(PAUSE);
        writeln!(words, "alpha says hello, for the {count}. time").context("lcroute say")?;
        for process in &mut running {
            process.must_run()?;
        }
        for member in &mut network.members {
            member.daemon()?.must_run()?;
        }
    }
    Ok(())
}

fn serve(lab: &Lab, network: &Network, ports: Ports, step: &mut Step) -> Result<Vec<Process>> {
    let [alpha, others @ ..] = &network.members[..] else {
        unreachable!("a demo has two members at least");
    };
    // the step with lcsync left a host that accepts nothing
    alpha.host.nft("delete table inet closed")?;
    alpha.host.close_uplink()?;
    for member in &network.members {
        let name = member.host.name();
        eventually(&format!("{name} is back at the signalling server"), || {
            let servers = member.status()?["signal_servers"].as_u64();
            ensure!(servers >= Some(1), "{servers:?}");
            Ok(())
        })?;
    }
    for member in others.iter().take(2) {
        listen(member, "mc-recv", PACKETS)?;
    }
    hear(&others[0])?;
    let sender = ["--count", "1000000000", "--rate", "20", "--size", "200"];
    let sender = alpha
        .host
        .spawn("mc-send", &[&[PACKETS][..], &sender].concat())?;

    step.command("alpha", "lcroute web");
    let mut pages = alpha
        .host
        .spawn(PROGRAM, &["web", "--listen", &PAGES.to_string()])?;
    let key = eventually("the pages have an address", || {
        pages.must_run()?;
        let said = pages.stdout();
        let key = said.trim().split_once("/#").map(|(_, key)| key.to_owned());
        key.context("not yet")
    })?;
    let url = format!("ws://127.0.0.1:{}", ports.signalling.port());
    step.command("alpha", &format!("lcroute invite --signal {url}"));
    let invited = alpha.host.run("lcroute", &["invite", "--signal", &url])?;
    let token = invited.success()?.stdout;

    let own = format!("http://127.0.0.1:{}", ports.pages.port());
    ports.pages.lead(alpha.host.namespace(), PAGES);
    let server = SocketAddr::from((network.signalling.host.v4()?, SIGNALLING));
    ports.signalling.lead(lab.internet().namespace(), server);
    let (dashboard, node) = (
        format!("{own}/#{key}"),
        format!("{own}/node/?group={WORDS}#{}", token.trim()),
    );
    step.say("To see the network, and what flows in it:");
    step.say(&format!("  {dashboard}"));
    if has_module(alpha)? {
        step.say("To be a node of it, in a tab:");
        step.say(&format!("  {node}"));
        step.fact("node", node);
    } else {
        step.say("A tab can be a node of it as well, once `make web` has made what that needs.");
    }
    step.say(&format!("alpha sends to {PACKETS}, and says something to {WORDS} now and then. What others say there, {} prints here.", others[0].host.name()));
    step.say("Ctrl-C ends it all.");
    step.fact("token", token.trim());
    step.fact("dashboard", dashboard);
    Ok(vec![sender, pages])
}

/// Returns whether the pages have the WebAssembly of a node.
fn has_module(alpha: &Member) -> Result<bool> {
    const ASKED: &[u8] = b"HEAD /node/node.wasm HTTP/1.0\r\nHost: localhost\r\n\r\n";
    let mut answer = Vec::new();
    alpha.host.namespace().run(|| {
        let mut stream = TcpStream::connect(PAGES)?;
        stream.write_all(ASKED)?;
        Ok(stream.read_to_end(&mut answer)?)
    })?;
    let status = answer.split(|byte| *byte == b' ').nth(1);
    Ok(status == Some(b"200"))
}

/// Starts a permanent listener without output, which would fill the memory.
fn listen(member: &Member, program: &str, group: &str) -> Result<()> {
    let mut listener = member.host.command(program)?;
    listener.arg(group).stdin(Stdio::null());
    listener
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    Ok(())
}

/// Prints words of all nodes but alpha on standard error.
fn hear(member: &Member) -> Result<()> {
    let mut listener = member.host.command("lcroute")?;
    listener.args(["listen", WORDS]).stdin(Stdio::null());
    let mut listener = listener
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let heard = listener
        .stdout
        .take()
        .context("a pipe that was asked for")?;
    let name = member.host.name().to_owned();
    thread::spawn(move || {
        let lines = BufReader::new(heard).lines().map_while(Result::ok);
        for line in lines.filter(|line| !line.contains("alpha says hello")) {
            eprintln!("    {name:<11}{line}");
        }
        listener.wait()
    });
    Ok(())
}
