//! Programs in containers of two hosts, by the image that `packaging/image` makes, in the shapes of docs/guide/containers.md.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lcroute_lab::lab::{Host, Network, eventually, within};

use crate::world;

const GROUP: &str = "ff1e::42";
/// A gateway looks around for some seconds before it forwards.
const SETTLED: Duration = Duration::from_secs(30);
/// What the daemon's container may do; its files are read only.
const MAY: &[&str] = &[
    "--cap-drop=all",
    "--cap-add=NET_ADMIN",
    "--cap-add=NET_RAW",
    "--device=/dev/net/tun",
    "--read-only",
    "--tmpfs=/run",
];
/// More is not permitted where tests run.
const LIMITS: &[&str] = &["--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024"];

/// Containers of one host. Gone when dropped.
struct Engine<'a> {
    host: &'a Host,
    image: String,
}

impl<'a> Engine<'a> {
    /// With the image in its store.
    fn new(host: &'a Host, archive: &Path, image: &str) -> Result<Engine<'a>> {
        let engine = Engine {
            host,
            image: format!("localhost/{image}"),
        };
        let archive = archive.display().to_string();
        engine.ask(&["load", "--quiet", "--input", &archive])?;
        Ok(engine)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.host.namespace().path()));
        command.args(["podman", "--cgroup-manager=cgroupfs", "--runtime=runc"]);
        command.args(["--storage-driver=vfs", "--events-backend=none"]);
        for (option, folder) in [
            ("--root", "containers"),
            ("--runroot", "containers-run"),
            ("--network-config-dir", "containers-networks"),
        ] {
            command.arg(option).arg(self.host.path(folder));
        }
        command.args(args).stdin(Stdio::null());
        command
    }

    /// What podman, or the program that it has run, says.
    fn ask(&self, args: &[&str]) -> Result<String> {
        let done = self.command(args).output().context("podman")?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let Output { status, stdout, .. } = &done;
        ensure!(status.success(), "podman {args:?}: {}", text(&done.stderr));
        Ok(text(stdout))
    }

    /// Starts a container.
    fn start(&self, name: &str, options: &[&str], program: &[&str]) -> Result<()> {
        let run = ["run", "--detach", "--name", name];
        let args = [&run[..], LIMITS, options, &[&self.image], program].concat();
        self.ask(&args).map(drop)
    }

    /// The daemon, on the host's own network; its state stays.
    fn start_daemon(&self, options: &[&str]) -> Result<()> {
        let own = ["--network=host", "--volume=lcroute:/var/lib/lcroute"];
        self.start("lcroute", &[&own[..], MAY, options].concat(), &[])?;
        eventually("the daemon answers", || {
            self.ask(&["exec", "lcroute", "lcroute", "status"])
        })
        .map(drop)
    }

    fn id(&self) -> Result<String> {
        self.ask(&["exec", "lcroute", "lcroute", "id"])
    }

    /// A program on one of its networks: it listens, and says what it is told to.
    fn talker(&self, network: &str) -> Result<()> {
        let network = format!("--network={network}");
        self.start("talker", &[&network], &["listen", GROUP])
    }

    fn say(&self, words: &str) -> Result<()> {
        let args = ["exec", "talker", "lcroute", "say", GROUP, words];
        self.ask(&args).map(drop)
    }

    /// What it has heard.
    fn heard(&self) -> Result<String> {
        self.ask(&["logs", "talker"])
    }
}

impl Drop for Engine<'_> {
    fn drop(&mut self) {
        let _ = self
            .command(&["rm", "--force", "--all", "--time=0"])
            .output();
    }
}

/// Makes the image of what was built, and says where it is, and its name.
fn image(folder: &Path) -> Result<(PathBuf, String)> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../packaging/image");
    let made = Command::new(script)
        .args(["--profile", "dev"])
        .arg(folder)
        .output()?;
    let said = String::from_utf8_lossy(&made.stderr);
    ensure!(made.status.success(), "packaging/image: {said}");
    let made = String::from_utf8(made.stdout)?;
    let (_, archive) = made.trim().split_once(" bytes in ").context("an archive")?;
    Ok((
        archive.into(),
        format!("lcroute:{}", env!("CARGO_PKG_VERSION")),
    ))
}

#[test]
#[ignore = "`make test-all`: podman and buildah, which netns-tests/setup all installs"]
fn containers_of_two_hosts_hear_each_other() {
    world("containers", |lab| {
        let hosts = lab.closed_hosts(&["a", "b"])?;
        let network: Network = lab.network_invited(hosts, &["--gateway", "any"])?;
        let folder = network.members[0].host.path("image");
        let (archive, name) = image(&folder)?;
        // the same programs give the same bytes
        let (again, _) = image(&network.members[0].host.path("again"))?;
        ensure!(std::fs::read(&archive)? == std::fs::read(again)?);

        let mut engines = Vec::new();
        for (n, member) in network.members.iter().enumerate() {
            let host = &member.host;
            let engine = Engine::new(host, &archive, &name)?;
            let subnets = [
                format!("--subnet=fd10:{n}::/64"),
                format!("--subnet=10.89.{n}.0/24"),
            ];
            engine.ask(&[
                "network",
                "create",
                "--ipv6",
                &subnets[0],
                &subnets[1],
                "net",
            ])?;
            let config = host.write("etc/lcroute.toml", "[[lan]]\ninterface = \"podman*\"\n")?;
            let etc = config.parent().context("a folder")?.display();
            let options = [
                format!("--volume={etc}:/etc/lcroute:ro"),
                format!("--env=LCROUTE_TOKEN={}", network.token),
                format!("--env=LCROUTE_NAME=in-{}", host.name()),
            ];
            engine.start_daemon(&options.each_ref().map(String::as_str))?;
            engines.push(engine);
        }
        let [a, b] = &engines[..] else {
            unreachable!("two hosts");
        };
        let linked = || {
            within(SETTLED, "the daemons link", || {
                let peers = a.ask(&["exec", "lcroute", "lcroute", "peers"])?;
                ensure!(peers.contains("connected"), "{peers}");
                Ok(())
            })
        };
        linked()?;

        // on the network of their hosts; and on bridges, behind their hosts as gateways
        for network in ["host", "net"] {
            a.talker(network)?;
            b.talker(network)?;
            let words = format!("hello from {network}");
            within(SETTLED, "a container hears the other host's", || {
                a.say(&words)?;
                let heard = b.heard()?;
                let standing = |engine: &Engine| engine.ask(&["exec", "lcroute", "lcroute", "lan"]);
                ensure!(
                    heard.contains(&words),
                    "{words}: {heard}; {}; {}",
                    standing(a)?,
                    standing(b)?
                );
                Ok(())
            })?;
            for engine in &engines {
                engine.ask(&["rm", "--force", "--time=1", "talker"])?;
            }
        }

        // the same member after a restart, which is told to others; the end is one
        let id = b.id()?;
        b.ask(&["restart", "--time=10", "lcroute"])?;
        eventually("the same member", || {
            let now = b.id()?;
            ensure!(now == id, "{now}");
            Ok(())
        })?;
        linked()?;
        b.ask(&["stop", "--time=10", "lcroute"])?;
        let code = b.ask(&["inspect", "--format={{.State.ExitCode}}", "lcroute"])?;
        ensure!(code.trim() == "0", "exit code {code}");
        Ok(())
    });
}
