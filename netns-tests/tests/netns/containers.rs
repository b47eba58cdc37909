//! Programs in containers of two hosts, as in docs/guide/containers.md.

use std::process::{Command, Output, Stdio};

use crate::foreign::root;
use crate::prelude::*;
use crate::recipes::blocks;

const PAGE: &str = include_str!("../../../docs/guide/containers.md");
const PACKAGING: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../packaging");

const GROUP: &str = "ff1e::42";
/// Timeout for a gateway, which probes for some seconds before it forwards.
const SETTLED: Duration = Duration::from_secs(30);
/// Rights of the daemon's container; its files are read only.
const MAY: &[&str] = &[
    "--cap-drop=all",
    "--cap-add=NET_ADMIN",
    "--cap-add=NET_RAW",
    "--device=/dev/net/tun",
    "--read-only",
    "--tmpfs=/run",
];
/// Higher limits are not permitted where tests run.
const LIMITS: &[&str] = &["--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024"];

/// The containers of one host; removed when dropped.
struct Engine<'a> {
    host: &'a Host,
    image: String,
    /// A settings file of podman that is not the default.
    settings: Option<String>,
}

impl<'a> Engine<'a> {
    /// Creates an engine with the image in its store.
    fn new(host: &'a Host, archive: &Path, image: &str) -> Result<Engine<'a>> {
        let engine = Engine {
            host,
            image: format!("localhost/{image}"),
            settings: None,
        };
        let archive = archive.display().to_string();
        engine.ask(&["load", "--quiet", "--input", &archive])?;
        Ok(engine)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.host.namespace().path()));
        let settings = self
            .settings
            .iter()
            .map(|file| format!("CONTAINERS_CONF={file}"));
        command.arg("env").args(settings);
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

    /// Returns the output of podman, or of the program in a container.
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

    /// Starts the daemon on the host's own network; its state stays.
    fn start_daemon(&self, options: &[&str]) -> Result<()> {
        let own = ["--network=host", "--volume=lcroute:/var/lib/lcroute"];
        self.start("lcroute", &[&own[..], MAY, options].concat(), &[])?;
        eventually("the daemon answers", || {
            self.ask(&["exec", "lcroute", "lcroute", "status"])
        })
        .map(drop)
    }

    /// Starts a daemon in a container of its own, beside which programs run. It stores nothing.
    fn start_beside(&self, name: &str, options: &[&str]) -> Result<()> {
        let own = [
            "--cap-drop=all",
            "--cap-add=NET_ADMIN",
            "--device=/dev/net/tun",
            "--read-only",
            "--tmpfs=/run",
            "--tmpfs=/var/lib/lcroute",
            "--sysctl=net.ipv6.conf.all.disable_ipv6=0",
            "--publish=14250:14250/udp",
        ];
        self.start(name, &[&own[..], options].concat(), &[])?;
        eventually("the daemon answers", || {
            self.ask(&["exec", name, "lcroute", "status"])
        })
        .map(drop)
    }

    /// Starts CycloneDDS's own program beside that daemon, as its users do in a container.
    fn start_dds(&self, name: &str, args: &str) -> Result<()> {
        let foreign = root()?.display().to_string();
        let folder = "usr/lib/x86_64-linux-gnu";
        let options = [
            "--network=container:net".to_owned(),
            format!("--volume={foreign}:/foreign:ro"),
            // the image's libc is this machine's
            format!("--volume=/{folder}:/libraries:ro"),
            format!("--env=LD_LIBRARY_PATH=/foreign/{folder}:/libraries"),
            format!("--env=CYCLONEDDS_URI={LC0_FOR_DDS}"),
            "--entrypoint=/foreign/usr/bin/ddsperf".to_owned(),
        ];
        let options: Vec<_> = options.iter().map(String::as_str).collect();
        let args: Vec<_> = args.split_whitespace().collect();
        self.start(name, &options, &args)
    }

    /// Waits until a container has ended by itself; returns its exit code.
    fn wait(&self, name: &str) -> Result<String> {
        within(Duration::from_secs(60), "the program ends", || {
            let format = "--format={{.State.Status}} {{.State.ExitCode}}";
            let state = self.ask(&["inspect", format, name])?;
            let code = state.trim().strip_prefix("exited ");
            code.map(str::to_owned).with_context(|| state.clone())
        })
    }

    fn id(&self) -> Result<String> {
        self.ask(&["exec", "lcroute", "lcroute", "id"])
    }

    /// Returns the process id of a container's program.
    fn pid(&self, name: &str) -> Result<String> {
        let pid = self.ask(&["inspect", "--format={{.State.Pid}}", name])?;
        Ok(pid.trim().to_owned())
    }

    /// Starts one of our own programs in the network of a container.
    fn inside(&self, pid: &str, program: &str, args: &[&str]) -> Result<Process> {
        let net = format!("--net=/proc/{pid}/ns/net");
        let all = [&[net.as_str(), program][..], args].concat();
        self.host.spawn("nsenter", &all)
    }

    /// Starts a program on a network: it listens, and can send.
    fn talker(&self, network: &str) -> Result<()> {
        let network = format!("--network={network}");
        self.start("talker", &[&network], &["listen", GROUP])
    }

    fn say(&self, words: &str) -> Result<()> {
        let args = ["exec", "talker", "lcroute", "say", GROUP, words];
        self.ask(&args).map(drop)
    }

    /// Returns the program's received messages.
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

/// Configuration of ROS 2 in packaging/ros2/compose.yaml.
const LC0_FOR_DDS: &str = "<CycloneDDS><Domain><General><Interfaces><NetworkInterface name=\"lc0\"/></Interfaces></General></Domain></CycloneDDS>";

/// Makes the image from the build; returns its path and name.
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
        // equal programs give equal bytes
        let (again, _) = image(&network.members[0].host.path("again"))?;
        ensure!(fs::read(&archive)? == fs::read(again)?);

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
        let [a, b] = crate::each(&engines)?;
        let linked = || {
            within(SETTLED, "the daemons link", || {
                let peers = a.ask(&["exec", "lcroute", "lcroute", "peers"])?;
                holds!(peers.contains("connected"), "{peers}")
            })
        };
        linked()?;

        // on the hosts' networks; and on bridges behind the hosts as gateways
        for network in ["host", "net"] {
            a.talker(network)?;
            b.talker(network)?;
            let words = format!("hello from {network}");
            within(SETTLED, "a container hears the other host's", || {
                a.say(&words)?;
                let heard = b.heard()?;
                let standing = |engine: &Engine| engine.ask(&["exec", "lcroute", "lcroute", "lan"]);
                holds!(
                    heard.contains(&words),
                    "{words}: {heard}; {}; {}",
                    standing(a)?,
                    standing(b)?
                )
            })?;
            for engine in &engines {
                engine.ask(&["rm", "--force", "--time=1", "talker"])?;
            }
        }

        // a restart keeps the member, and peers get a goodbye; a stop ends it
        let id = b.id()?;
        b.ask(&["restart", "--time=10", "lcroute"])?;
        becomes(id, || b.id())?;
        linked()?;
        b.ask(&["stop", "--time=10", "lcroute"])?;
        let code = b.ask(&["inspect", "--format={{.State.ExitCode}}", "lcroute"])?;
        holds!(code.trim() == "0", "exit code {code}")
    });
}

/// DDS programs in containers with lc0 on two hosts find each other and exchange unicast.
/// Containers without state return as new members; the old ones are forgotten.
#[test]
#[ignore = "`make test-all`: podman and buildah, which netns-tests/setup all installs; six minutes"]
fn programs_beside_a_container_have_its_lc0_and_its_restarts_leave_nothing_behind() {
    world("beside", |lab| {
        ensure!(
            compose()?.contains(LC0_FOR_DDS),
            "the recipe has another file"
        );
        let hosts = lab.closed_hosts(&["a", "b"])?;
        let mut network: Network = lab.network_invited(hosts, &["--ephemeral"])?;
        network.members[0].start()?;
        let folder = network.members[0].host.path("image");
        let (archive, name) = image(&folder)?;
        let settings = fs::read_to_string(format!("{PACKAGING}/ros2/lcroute.toml"))?;
        let shown = blocks(PAGE)
            .into_iter()
            .find(|b| b.language == "toml" && b.lines[0] == "[ice]");
        let shown = shown.context("settings in the guide")?.lines.join("\n");
        ensure!(settings.contains(&shown), "{settings}; {shown}");

        let mut engines = Vec::new();
        for member in &network.members {
            let config = member.host.write("beside/lcroute.toml", &settings)?;
            let etc = config.parent().context("a folder")?.display();
            let engine = Engine::new(&member.host, &archive, &name)?;
            let options = [
                format!("--volume={etc}:/etc/lcroute:ro"),
                format!("--env=LCROUTE_TOKEN={}", network.token),
                format!("--env=LCROUTE_NAME=in-{}", member.host.name()),
            ];
            engine.start_beside("net", &options.each_ref().map(String::as_str))?;
            engines.push((engine, options));
        }
        let [(a, _), (b, of_b)] = &engines[..] else {
            unreachable!("two hosts");
        };

        // three more starts of a crashing container
        let is_seen = |gone: usize| {
            eventually("the issuer sees one of them", || {
                let members = known(&network)?.into_iter().filter(|m| m["name"] == "in-b");
                let (present, away): (Vec<_>, Vec<_>) = members.partition(|m| m["present"] == true);
                ensure!(
                    present.len() == 1 && away.len() == gone,
                    "{present:?} {away:?}"
                );
                holds!(present[0]["labels"]["lifetime"] == "ephemeral")
            })
        };
        for gone in 0..3 {
            is_seen(gone)?;
            b.ask(&["rm", "--force", "--time=0", "net"])?;
            b.start_beside("net", &of_b.each_ref().map(String::as_str))?;
        }
        is_seen(3)?;

        for (speaks, listens) in [(a, b), (b, a)] {
            for engine in [speaks, listens] {
                within(SETTLED, "it has links, and lc0 its IPv4 address", || {
                    let ask = |verb| engine.ask(&["exec", "net", "lcroute", verb, "--json"]);
                    let peers: Vec<Value> = serde_json::from_str(&ask("peers")?)?;
                    let status: Value = serde_json::from_str(&ask("status")?)?;
                    let linked = peers.iter().filter(|p| p["state"] == "connected").count();
                    holds!(
                        linked == 2 && status["ipv4"].is_string(),
                        "{peers:?} {status}"
                    )
                })?;
            }
            listens.start_dds("listener", "-D 10 -Q minmatch:1 -Q samples:150 sub")?;
            speaks.start_dds("talker", "-D 10 -Q minmatch:1 pub 50Hz size 1000")?;
            for (engine, name) in [(listens, "listener"), (speaks, "talker")] {
                let code = engine.wait(name)?;
                ensure!(
                    code == "0",
                    "{name}: {code}: {}",
                    engine.ask(&["logs", name])?
                );
                engine.ask(&["rm", name])?;
            }
        }

        let all = |members: Vec<Value>| {
            let names = members.iter().map(|m| m["name"].to_string());
            let mut names: Vec<_> = names.collect();
            names.sort();
            names.join(" ")
        };
        within(FORGOTTEN, "who has gone is forgotten", || {
            let names = all(known(&network)?);
            // b's own daemon never started
            ensure!(names == "\"a\" \"in-a\" \"in-b\"", "{names}");
            let seen = a.ask(&["exec", "net", "lcroute", "members", "--json"])?;
            let names = all(serde_json::from_str(&seen)?);
            holds!(names == "\"a\" \"in-a\" \"in-b\"", "{names}")
        })
    });
}

/// Five minutes, and time for the observer.
const FORGOTTEN: Duration = Duration::from_secs(360);

/// Returns the members that the first host, an issuer, knows.
fn known(network: &Network) -> Result<Vec<Value>> {
    let members = network.members[0]
        .host
        .run("lcroute", &["members", "--json"])?;
    Ok(serde_json::from_str(&members.success()?.stdout)?)
}

/// Returns the file for ROS 2.
fn compose() -> Result<String> {
    Ok(fs::read_to_string(format!(
        "{PACKAGING}/ros2/compose.yaml"
    ))?)
}

/// Starts two hosts that are gateways of their containers' bridges.
fn gateways(lab: &Lab) -> Result<Network> {
    let hosts = lab.closed_hosts(&["a", "b"])?;
    let mut network = lab.network_invited(hosts, &["--gateway", "any"])?;
    for member in &network.members {
        let settings = "[[lan]]\ninterface = \"podman*\"\n";
        member.host.configure(settings)?;
    }
    network.start()?;
    Ok(network)
}

/// Makes on two hosts a container network `net`, with the image, built in `folder`.
fn bridges<'a>(hosts: &'a [Host; 2], folder: &Path) -> Result<[Engine<'a>; 2]> {
    let (archive, name) = image(folder)?;
    let engine = |n: usize| {
        let engine = Engine::new(&hosts[n], &archive, &name)?;
        let v6 = format!("--subnet=fd10:{n}::/64");
        let v4 = format!("--subnet=10.89.{n}.0/24");
        engine.ask(&["network", "create", "--ipv6", &v6, &v4, "net"])?;
        Ok::<_, anyhow::Error>(engine)
    };
    Ok([engine(0)?, engine(1)?])
}

/// Returns the last output of `mc-recv`.
fn last_line(listener: &Process) -> Result<Value> {
    let said = listener.stdout();
    let line = said.lines().last().context("a line")?;
    Ok(serde_json::from_str(line)?)
}

/// Containers on bridges of two hosts receive each other once, also a single source. Packets
/// without listeners stay. A restarted gateway serves them again. lcsync shares across.
#[test]
#[ignore = "`make test-all`: podman and buildah, which netns-tests/setup all installs"]
fn containers_on_bridges_have_what_hosts_of_lans_have() {
    world("bridges", |lab| {
        let mut network = gateways(lab)?;
        let hosts = network.nodes()?.map(|member| member.host.clone());
        let [a, b] = &bridges(&hosts, &hosts[0].path("image"))?;
        a.talker("net")?;
        b.talker("net")?;
        within(SETTLED, "both bridges are served", || {
            a.say("served")?;
            let heard = b.heard()?;
            holds!(heard.contains("served"), "{heard}")
        })?;

        // one source
        let format = "--format={{range .NetworkSettings.Networks}}{{.GlobalIPv6Address}}{{end}}";
        let source = a.ask(&["inspect", format, "talker"])?;
        let (speaker, pid) = (a.pid("talker")?, b.pid("talker")?);
        let listen = |source: &str| b.inside(&pid, "mc-recv", &[SSM, "--source", source]);
        let (of_it, of_another) = (listen(source.trim())?, listen("fd10:9::9")?);
        let stream = [SSM, "--rate", "50", "--count", "20000", "--size", "200"];
        let mut sender = a.inside(&speaker, "mc-send", &stream)?;
        eventually("who named the source hears it", || {
            let line = last_line(&of_it)?;
            ensure!(line["packets"].as_u64() > Some(50), "{line}");
            holds!(line["duplicates"] == 0, "{line}")
        })?;
        let line = last_line(&of_another)?;
        ensure!(line["packets"] == 0, "{line}");
        sender.stop()?;

        // no listener
        let unheard = crate::words("ff1e::99 --rate 100 --count 50 --size 200");
        eventually("nothing leaves the host for nobody", || {
            let before = network.members[0].counter("link_tx_packets")?;
            let sent = a.inside(&speaker, "mc-send", &unheard)?.output()?;
            ensure!(sent.code == 0, "{}", sent.stderr);
            let after = network.members[0].counter("link_tx_packets")?;
            holds!(before == after, "{before} {after}")
        })?;
        // except the first eight, which the first-packet buffer holds
        let dropped = network.members[0].counter("drops/no_listener")?;
        ensure!(dropped >= 42, "{dropped} packets had no listener");

        // a server without an open port, and a receiver behind the other gateway
        let (shared, folder) = (a.host.path("shared"), b.host.path("fetched"));
        make_folder(&shared, 1 << 20)?;
        fs::create_dir_all(&folder)?;
        let volume = format!("--volume={}:/shared:ro", shared.display());
        let server = ["--network=net", "--cap-add=NET_RAW", LCSYNC, &volume];
        a.start("server", &server, &["share", "/shared"])?;
        let volume = format!("--volume={}:/fetched", folder.display());
        let run = ["run", "--rm", "--network=net", LCSYNC, &volume];
        b.ask(&[&run[..], LIMITS, &[&b.image, "lc:shared", "/fetched/copy"]].concat())?;
        same_content(&shared, &folder.join("copy"))?;

        network.members[1].stop()?;
        network.members[1].start()?;
        within(
            SETTLED,
            "a gateway that starts again serves its bridge",
            || {
                a.say("served again")?;
                let heard = b.heard()?;
                holds!(heard.contains("served again"), "{heard}")
            },
        )?;
        Ok(())
    });
}

/// A group of one source.
const SSM: &str = "ff3e::42";
const LCSYNC: &str = "--entrypoint=/usr/bin/lcsync";

/// Containers that join at once.
const MANY: usize = 100;
/// Limits of each of them. Chosen: a test machine can run all.
const EACH: [&str; 2] = ["--memory=64m", "--read-only"];

/// A hundred containers on one bridge join within a second: all receive another host's.
#[test]
#[ignore = "`make test-all`: podman and buildah, which netns-tests/setup all installs; three minutes"]
fn a_hundred_containers_that_join_at_once_all_hear() {
    world("hundred", |lab| {
        let network = gateways(lab)?;
        let folder = network.members[0].host.path("image");
        let hosts = network.nodes()?.map(|member| member.host.clone());
        let [a, b] = &bridges(&hosts, &folder)?;
        // one root for all of them, without copies
        let files = folder.join("image").display().to_string();
        let names: Vec<_> = (0..MANY).map(|n| format!("c{n}")).collect();
        for name in &names {
            let run = ["run", "--detach", "--network=net", "--name", name];
            let program = ["--rootfs", &files, "/usr/bin/lcroute", "listen", "ff1e::43"];
            b.ask(&[&run[..], LIMITS, &EACH, &program].concat())?;
        }
        a.talker("net")?;
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        let pids = b.ask(&[&["inspect", "--format={{.State.Pid}}"][..], &names].concat())?;
        // until the bridges are served: a container receives
        within(SETTLED, "both bridges are served", || {
            a.ask(&["exec", "talker", "lcroute", "say", "ff1e::43", "served"])?;
            let heard = b.ask(&["logs", "c0"])?;
            holds!(heard.contains("served"), "{heard}")
        })?;
        let steady = ["--rate", "100", "--count", "3000", "--size", "200", GROUP];
        let mut sender = a.inside(&a.pid("talker")?, "mc-send", &steady)?;
        let begun = Instant::now();
        let listeners = pids.lines().map(|pid| b.inside(pid, "mc-recv", &[GROUP]));
        let listeners: Vec<Process> = listeners.collect::<Result<_>>()?;
        ensure!(listeners.len() == MANY);
        let has = |process: &Process, heard: bool| {
            let line = last_line(process);
            line.is_ok_and(|line| !heard || line["packets"].as_u64() > Some(0))
        };
        let count = |heard| listeners.iter().filter(|p| has(p, heard)).count();
        let mut joined = None;
        let all = within(SETTLED, "all have heard", || {
            if joined.is_none() && count(false) == MANY {
                joined = Some(begun.elapsed());
            }
            match count(true) {
                MANY => Ok(begun.elapsed()),
                some => bail!("{some} of {MANY}"),
            }
        })?;
        for listener in &listeners {
            let line = last_line(listener)?;
            ensure!(line["duplicates"] == 0, "{line}");
        }
        println!(
            "{MANY} containers: all had joined after {:?}, and heard after {all:?}",
            joined.unwrap_or(all)
        );
        sender.stop()?;
        Ok(())
    });
}

/// Returns packaging/kubernetes/gateway's configuration of `bridge`, as a list of one plugin.
fn plugin() -> Result<Value> {
    let file = fs::read_to_string(format!("{PACKAGING}/kubernetes/gateway/network.yaml"))?;
    let (_, config) = file.split_once("config: |").context("a configuration")?;
    let mut plugin: Value = serde_json::from_str(config)?;
    let fields = plugin.as_object_mut().context("fields")?;
    let taken = ["cniVersion", "name"].map(|name| fields.remove(name).unwrap_or_default());
    Ok(json!({ "cniVersion": taken[0], "name": taken[1], "plugins": [plugin] }))
}

/// Containers that the plugin of packaging/kubernetes attaches to a bridge get addresses of its
/// gateway, and receive those of another host.
#[test]
#[ignore = "`make test-all`: podman, buildah and plugins, which netns-tests/setup all installs"]
fn containers_on_the_bridge_of_the_stock_plugin_hear_each_other() {
    world("cni", |lab| {
        let hosts = lab.closed_hosts(&["a", "b"])?;
        let mut network: Network = lab.network_invited(hosts, &["--gateway", "any"])?;
        let settings = fs::read_to_string(format!("{PACKAGING}/kubernetes/gateway/lcroute.toml"))?;
        for member in &network.members {
            member.host.configure(&settings)?;
        }
        network.start()?;
        let (archive, name) = image(&network.members[0].host.path("image"))?;
        let mut engines = Vec::new();
        for member in &network.members {
            let host = &member.host;
            host.write(
                "containers-networks/lcroute.conflist",
                plugin()?.to_string(),
            )?;
            let backend =
                "[network]\nnetwork_backend = \"cni\"\ncni_plugin_dirs = [\"/usr/lib/cni\"]\n";
            let backend = host.write("containers.conf", backend)?;
            let mut engine = Engine::new(host, &archive, &name)?;
            engine.settings = Some(backend.display().to_string());
            engine.talker("lcroute")?;
            engines.push(engine);
        }
        let [a, b] = crate::each(&engines)?;
        for (speaks, listens) in [(a, b), (b, a)] {
            let words = format!("hello from {}", speaks.host.name());
            within(SETTLED, "a container hears the other host's", || {
                speaks.say(&words)?;
                let heard = listens.heard()?;
                let lan = network.members[0].host.ask("lcroute", &["lan"])?;
                holds!(
                    heard.contains(&words),
                    "{heard}; {}{}",
                    lan.stdout,
                    lan.stderr
                )
            })?;
        }
        Ok(())
    });
}

/// Returns kubectl's output for a folder of packaging/kubernetes.
fn manifests(folder: &str) -> Result<String> {
    let folder = format!("{PACKAGING}/kubernetes/{folder}");
    let made = Command::new("kubectl")
        .args(["kustomize", &folder])
        .output()?;
    ensure!(
        made.status.success(),
        "{}",
        String::from_utf8_lossy(&made.stderr)
    );
    Ok(String::from_utf8(made.stdout)?)
}

/// Validates manifests against the published schemas of a version of Kubernetes.
fn validate(manifests: &str, version: &str) -> Result<String> {
    let file = tempfile::Builder::new().suffix(".yaml").tempfile()?;
    fs::write(file.path(), manifests)?;
    let done = Command::new("python3")
        .env("PYTHONPATH", root()?.join("kubernetes"))
        .args(["-m", "kubernetes_validate", "--strict", "-k", version])
        .arg(file.path())
        .output()?;
    let said = [done.stdout, done.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    ensure!(done.status.success(), "{version}: {said}");
    Ok(said)
}

/// A program in the pod of lcroute shares only its network: an attacker in the program has no
/// socket of the daemon, to stop it or sign with its key.
#[test]
fn the_program_beside_a_sidecar_has_neither_its_sockets_nor_its_account() -> Result<()> {
    let file = fs::read_to_string(format!("{PACKAGING}/kubernetes/sidecar/deployment.yaml"))?;
    let containers = file.split_once("\n      containers:\n");
    let containers = containers.and_then(|(_, rest)| rest.split_once("\n      volumes:\n"));
    let (program, _) = containers.context("containers, then volumes")?;
    ensure!(!program.contains("volumeMounts"), "{program}");
    holds!(program.contains("runAsNonRoot: true"), "{program}")
}

/// The first version with native sidecars, and the last known one.
const VERSIONS: [&str; 2] = ["1.29.0", "1.37.0"];

#[test]
#[ignore = "`make test-all`: kubectl and the schemas, which netns-tests/setup all fetches"]
fn manifests_are_as_the_schemas_of_kubernetes_say() -> Result<()> {
    for (folder, kinds) in [
        ("sidecar", &["deployment/lcroute-listener"][..]),
        (
            "gateway",
            &[
                "daemonset/lcroute-gateway",
                "deployment/lcroute-bridge-listener",
            ],
        ),
    ] {
        let manifests = manifests(folder)?;
        for version in VERSIONS {
            let said = validate(&manifests, version)?;
            for kind in kinds {
                let passed = format!("passed for resource {kind}");
                ensure!(said.contains(&passed), "{folder}: {said}");
            }
        }
        // an unknown key, and a value of another type
        for (good, bad) in [
            ("capabilities:", "capability:"),
            ("memory: 256Mi", "memory: [1]"),
        ] {
            let wrong = manifests.replace(good, bad);
            ensure!(wrong != manifests, "{folder}: no {good}");
            ensure!(
                validate(&wrong, VERSIONS[0]).is_err(),
                "{folder}: {bad} is taken"
            );
        }
        // `containers_on_the_bridge_of_the_stock_plugin_...` covers the plugin's file
        let image = format!("image: lcroute:{}", env!("CARGO_PKG_VERSION"));
        ensure!(manifests.contains(&image), "{folder}: {manifests}");
    }
    // kubectl does not read this file
    let image = format!("lcroute:{}}}", env!("CARGO_PKG_VERSION"));
    holds!(
        compose()?.contains(&image),
        "packaging/ros2 has another version"
    )
}
