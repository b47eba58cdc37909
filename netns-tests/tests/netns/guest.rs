//! Guests: programs of users without rights, on an lc0 of their own.

use std::sync::{Mutex, PoisonError};

use nix::mount::{MsFlags, mount};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};

use crate::lcsync_lan::share;
use crate::leaves::speak;
use crate::prelude::*;
use crate::radio::{RADIO, cast, key_of, write_chirp};

const GROUP: &str = "ff1e:5::42";
/// The driver's device, for everybody as udev makes it.
const TUN: &str = "/dev/net/tun";
/// Becomes nobody, without a capability and without a way to one.
const NOBODY: [&str; 6] = [
    "--reuid=65534",
    "--regid=65534",
    "--clear-groups",
    "--no-new-privs",
    "--bounding-set=-all",
    "--inh-caps=-all",
];

/// Runs a test of programs that nobody starts as guests of a network.
pub(crate) fn guests(name: &str, test: impl FnOnce(&Lab) -> Result<()>) {
    world(name, |lab| {
        open_driver()?;
        test(lab)
    });
}

/// Opens the driver to everybody in this process's mount namespace.
pub(crate) fn open_driver() -> Result<()> {
    // tests run beside each other: the first makes the device, the others find it
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    if fs::metadata(TUN)?.permissions().mode() & 0o006 == 0o006 {
        return Ok(());
    }
    let own = Path::new("/run/tun");
    if !own.exists() {
        mknod(own, SFlag::S_IFCHR, Mode::empty(), makedev(10, 200))?;
        fs::set_permissions(own, fs::Permissions::from_mode(0o666))?;
    }
    let none = None::<&str>;
    mount(Some(own), TUN, none, MsFlags::MS_BIND, none).context(TUN)
}

/// Returns a token for leaves of these groups, in a file that everybody can read.
fn token(network: &Network, host: &Host, groups: &str) -> Result<(String, String)> {
    let url = network.signalling.url()?;
    let args = ["invite", "--leaf", "--groups", groups, "--signal", &url];
    let token = network.members[0].host.run("lcroute", &args)?.success()?;
    let text = token.stdout.trim().to_owned();
    let file = host.write("token", &text)?.display().to_string();
    Ok((text, file))
}

pub(crate) fn as_nobody<'a>(args: &[&'a str]) -> Vec<&'a str> {
    [&NOBODY[..], &["--"], args].concat()
}

/// The same where no user namespace may be made, as in containers.
pub(crate) fn as_confined<'a>(args: &[&'a str]) -> Vec<&'a str> {
    let confine = "echo 0 >/proc/sys/user/max_user_namespaces && \
         exec setpriv --ambient-caps=-all --inh-caps=-all --bounding-set=-all -- \"$@\"";
    let unshare = ["unshare", "--user", "--map-current-user", "--keep-caps"];
    let shell = ["sh", "-c", confine, "sh"];
    as_nobody(&[&unshare[..], &shell, args].concat())
}

/// Starts `lcroute guest` with this program as nobody.
fn guest(host: &Host, token: &str, program: &[&str]) -> Result<Process> {
    let args = [
        &["lcroute", "guest", "--token-file", token, "--"][..],
        program,
    ]
    .concat();
    host.spawn("setpriv", &as_nobody(&args))
}

/// Returns all processes below this one, itself included.
pub(crate) fn family(pid: u32) -> Vec<u32> {
    let mut found = vec![pid];
    let mut at = 0;
    while let Some(pid) = found.get(at) {
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        let children = children.unwrap_or_default();
        found.extend(
            children
                .split_whitespace()
                .filter_map(|n| n.parse::<u32>().ok()),
        );
        at += 1;
    }
    found
}

fn is_alive(pid: &&u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // a zombie is its parent's
    stat.rsplit_once(')')
        .is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}

pub(crate) fn all_end(family: &[u32]) -> Result<()> {
    eventually("nothing is left", || {
        let left: Vec<_> = family.iter().filter(is_alive).collect();
        holds!(left.is_empty(), "{left:?}")
    })
}

fn audience(lab: &Lab) -> Result<(Network, Host)> {
    open_driver()?;
    let network = lab.closed_network(["a", "b"])?;
    let host = lab.closed_hosts(&["bob"])?.remove(0);
    Ok((network, host))
}

#[test]
fn a_guest_without_rights_hears_what_its_token_says_and_nothing_of_it_is_left() {
    world("guest", |lab| {
        let (network, host) = audience(lab)?;
        let (_, file) = token(&network, &host, "ff1e:5::/32")?;
        let speaker = speak(&network.members[0].host)?;
        let links = host.run("ip", &["-br", "link"])?.stdout;
        let script = format!(
            "sleep 1000 & grep CapEff /proc/self/status; ip link set lc0 down && printf 'went%s' down; \
             tr '\\0' ' ' </proc/$PPID/cmdline; lcroute listen {GROUP} --json"
        );
        // a program receives, with another one that it has started; then each of them is killed
        for victim in [0, 1, 2] {
            let listens = guest(&host, &file, &["sh", "-c", &script])?;
            listens.prints("\"text\":")?;
            let told = listens.stdout();
            ensure!(told.contains("CapEff:\t0000000000002000"), "{told}");
            ensure!(
                !told.contains("wentdown") && !told.contains("lct1"),
                "{told}"
            );
            ensure!(host.run("ip", &["-br", "link"])?.stdout == links);
            let family = family(listens.pid());
            ensure!(family.len() == 5, "{family:?}");
            kill(Pid::from_raw(family[victim].try_into()?), Signal::SIGKILL)?;
            all_end(&family)?;
        }
        drop(speaker);
        eventually("its routers have no leaf any more", || {
            for member in &network.members {
                let linked = &member.status()?["leaves"]["linked"];
                ensure!(*linked == 0, "{linked}");
            }
            Ok(())
        })
    });
}

#[test]
fn a_guest_ends_as_its_program_does_and_says_why_it_is_refused() {
    world("guest-ends", |lab| {
        let (network, host) = audience(lab)?;
        let (text, file) = token(&network, &host, "ff1e:5::/32")?;
        let ends = |program: &[&str], code: i32, said: &str| -> Result<()> {
            let mut guest = guest(&host, &file, program)?;
            let ended = guest.wait(DEADLINE)?;
            ensure!(ended == code, "{program:?}: {ended}: {}", guest.stderr());
            holds!(guest.stderr().contains(said), "{}", guest.stderr())
        };
        ends(&["sh", "-c", "sleep 1000 & exit 7"], 7, "")?;
        ends(&["sh", "-c", "kill -TERM $$"], 143, "")?;
        ends(&["no-such-program"], 127, "no-such-program")?;
        ends(&["lcroute", "listen", "ff1e:6::1"], 4, "ff1e:6::1")?;
        // a signal to the guest is for its program
        let script = "trap 'echo caught; exit 3' TERM; echo ready; while :; do sleep 0.1; done";
        let mut traps = guest(&host, &file, &["sh", "-c", script])?;
        traps.prints("ready")?;
        traps.signal(Signal::SIGTERM)?;
        traps.expect_exit(DEADLINE, 3)?;
        // a member's token makes a guest that speaks
        let member = host.write("member", &network.token)?.display().to_string();
        let hears = network.members[1]
            .host
            .spawn("lcroute", &["listen", GROUP])?;
        let words = format!("while sleep 0.1 && kill -0 $$; do lcroute say {GROUP} guest; done");
        let mut speaks = guest(&host, &member, &["sh", "-c", &words])?;
        hears.prints("guest")?;
        speaks.signal(Signal::SIGTERM)?;
        speaks.expect_exit(DEADLINE, 143)?;
        drop(hears);
        // a token of another kind, and one that is revoked while it is used
        host.run("lcroute", &["guest", "lcr1abc", "--", "true"])?
            .fails(2, "lcr1")?;
        let speaker = speak(&network.members[1].host)?;
        let listen = ["lcroute", "listen", GROUP, "--json"];
        let mut listens = guest(&host, &file, &listen)?;
        listens.prints("\"text\":")?;
        let founder = &network.members[0].host;
        let revoke = ["revoke", "--token", &text];
        founder.run("lcroute", &revoke)?.success()?;
        listens.expect_exit(DEADLINE, 4)?;
        ensure!(listens.stderr().contains("revoked"), "{}", listens.stderr());
        drop(speaker);
        Ok(())
    });
}

#[test]
fn a_guest_says_that_no_router_has_room_and_that_its_clock_is_wrong() {
    const SKEWED: &str = env!("CARGO_BIN_EXE_lcroute-skewed");
    const HOUR: i64 = 3_600;
    guests("guest-refused", |lab| {
        let mut network = lab.closed_network(["a"])?;
        let host = lab.closed_hosts(&["bob"])?.remove(0);
        let (text, file) = token(&network, &host, "ff1e:5::/32")?;
        let ends = |clock: i64, program: &[&str]| {
            host.write("clock-offset", clock.to_string())?;
            let args = [&[SKEWED, "guest", "--token-file", &file, "--"][..], program].concat();
            let mut guest = host.spawn("setpriv", &as_nobody(&args))?;
            Ok::<_, anyhow::Error>((guest.wait(DEADLINE)?, guest.stderr()))
        };
        let speaker = speak(&network.members[0].host)?;
        let one = format!("lcroute listen {GROUP} --json | head -1");
        // a minute is no matter
        let (code, told) = ends(-60, &["sh", "-c", &one])?;
        ensure!(code == 0, "{code}: {told}");
        drop(speaker);
        let (code, told) = ends(26 * HOUR, &["sleep", "1000"])?;
        ensure!(
            code == 4 && told.contains("more than a day"),
            "{code}: {told}"
        );
        // so early that the token is not valid yet
        let (code, told) = ends(-26 * HOUR, &["sleep", "1000"])?;
        ensure!(
            code == 4 && told.contains("not valid yet"),
            "{code}: {told}"
        );
        network.members[0].host.configure("[leaf]\nmax = 0\n")?;
        network.members[0].stop()?;
        network.members[0].start()?;
        let mut refused = guest(&host, &file, &["sleep", "1000"])?;
        refused.expect_exit(DEADLINE, 4)?;
        ensure!(refused.stderr().contains("no router has room"));
        let leaf = ["leaf", GROUP, "--count", "3", "--token", &text];
        let mut refused = host.spawn("lcroute", &leaf)?;
        refused.fails(DEADLINE, 4, "no router has room")
    });
}

#[test]
fn lcsync_enters_a_network_by_a_token_before_the_share() {
    world("guest-lcsync", |lab| {
        let (network, host) = audience(lab)?;
        let (text, _) = token(&network, &host, "ff1e::/16")?;
        let server = &network.members[0].host;
        make_folder(&server.path("folder"), 1_000_000)?;
        let (shares, _) = share(server, &["folder"])?;
        let dest = host.path("dest");
        fs::create_dir(&dest)?;
        fs::set_permissions(&dest, fs::Permissions::from_mode(0o777))?;
        let (what, to) = (format!("{text},lc:folder"), dest.join("copy"));
        let to = to.display().to_string();
        let args = ["lcsync", &what, &to];
        let mut fetches = host.spawn("setpriv", &as_nobody(&args))?;
        fetches.expect_exit(Duration::from_secs(120), 0)?;
        drop(shares);
        same_content(&server.path("folder"), Path::new(&to))
    });
}

/// Fetches of a member and of a leaf, in turn. `NETNS_PAIRS` sets their number.
#[test]
#[ignore = "long: `make test-all`"]
fn lcsync_loses_no_more_by_a_leaf_than_by_a_member() {
    world_alone("guest-losses", |lab| {
        let pairs = std::env::var("NETNS_PAIRS").ok();
        let pairs: usize = pairs.and_then(|pairs| pairs.parse().ok()).unwrap_or(2);
        let (network, host) = audience(lab)?;
        let (text, _) = token(&network, &host, "ff1e::/16")?;
        let [a, b] = network.nodes()?;
        make_folder(&a.host.path("folder"), 20_000_000)?;
        let (shares, _) = share(&a.host, &["folder"])?;
        let dest = host.path("dest");
        fs::create_dir(&dest)?;
        fs::set_permissions(&dest, fs::Permissions::from_mode(0o777))?;
        let by_leaf = format!("{text},lc:folder");
        let (mut received, mut lost) = ([0, 0], [0, 0]);
        for pair in 0..pairs {
            let to = dest.join(pair.to_string()).display().to_string();
            let of_member = b.host.path(&pair.to_string()).display().to_string();
            let leaf = ["lcsync", &by_leaf, &to, "--stats", "--json"];
            let as_nobody = as_nobody(&leaf);
            let fetches = [
                (
                    &b.host,
                    "lcsync",
                    &["lc:folder", &of_member, "--stats", "--json"][..],
                ),
                (&host, "setpriv", &as_nobody),
            ];
            for (n, (at, program, args)) in fetches.into_iter().enumerate() {
                let fetched = at.run(program, args)?.success()?;
                let last = fetched.stdout.lines().last().unwrap_or_default();
                let stats: Value = serde_json::from_str(last)?;
                let stats = &stats["stats"];
                println!("{}: {stats}", ["member", "leaf"][n]);
                received[n] += stats["symbols"].as_u64().context("symbols")?;
                lost[n] += stats["lost"].as_u64().context("lost")?;
            }
        }
        drop(shares);
        let mut dropped = 0;
        for member in [a, b] {
            dropped += member.counter("drops/leaf_rate").unwrap_or(0);
        }
        println!("lost by member and leaf: {lost:?} of {received:?}; leaf_rate {dropped}");
        // a full link loses eight
        holds!(100 * lost[1] <= 3 * received[1], "{lost:?} of {received:?}")
    });
}

#[test]
#[ignore = "long: `make test-all`"]
fn a_private_station_is_heard_by_a_token_before_its_text() {
    const TIMEOUT: Duration = Duration::from_secs(6);
    world_alone("guest-radio", |lab| {
        let (network, host) = audience(lab)?;
        let (text, _) = token(&network, &host, "ff1e::/16")?;
        let caster = &network.members[0].host;
        let (key, station, _) = key_of(caster, "station.key")?;
        let chirp = write_chirp(caster, 60)?;
        let casts = cast(caster, &chirp, &format!("--key {key}"))?;
        let what = format!("{text},{}", *station.encode());
        let args = [RADIO, "listen", &what, "--timeout", "6s", "-"];
        let listens = host.spawn("setpriv", &as_nobody(&args))?;
        exceeds(100_000, || Ok(listens.stdout().len()))?;
        let family = family(listens.pid());
        // a suspended program is not one that hears nothing
        let all = |signal| {
            let pids = family.iter().map(|pid| Pid::from_raw(*pid as i32));
            pids.into_iter().try_for_each(|pid| kill(pid, signal))
        };
        all(Signal::SIGSTOP)?;
        sleep(TIMEOUT + Duration::from_secs(1));
        all(Signal::SIGCONT)?;
        let before = listens.stdout().len();
        exceeds(1_000_000, || Ok(listens.stdout().len() - before))?;
        listens.signal(Signal::SIGKILL)?;
        drop(casts);
        all_end(&family)
    });
}

#[test]
fn programs_of_ours_need_no_namespace_and_others_say_so() {
    world("guest-pair", |lab| {
        let (network, host) = audience(lab)?;
        let (text, file) = token(&network, &host, "ff1e::/16")?;
        let server = &network.members[0].host;
        let links = host.run("ip", &["-br", "link"])?.stdout;
        let foreign = ["lcroute", "guest", "--token-file", &file, "--", "true"];
        let mut refused = host.spawn("setpriv", &as_confined(&foreign))?;
        refused.fails(DEADLINE, 4, "lcsync, lcradio, lcstudio")?;
        make_folder(&server.path("folder"), 3_000_000)?;
        let (shares, _) = share(server, &["folder"])?;
        let dest = host.path("dest");
        fs::create_dir(&dest)?;
        fs::set_permissions(&dest, fs::Permissions::from_mode(0o777))?;
        let (what, to) = (format!("{text},lc:folder"), dest.join("copy"));
        let to = to.display().to_string();
        let mut fetches = host.spawn("setpriv", &as_confined(&["lcsync", &what, &to]))?;
        fetches.expect_exit(Duration::from_secs(120), 0)?;
        same_content(&server.path("folder"), Path::new(&to))?;
        drop(shares);
        // under its own name, as others are refused
        let own = host.path("lcradio");
        std::os::unix::fs::symlink(RADIO, &own)?;
        let own = own.display().to_string();
        let (key, station, _) = key_of(server, "station.key")?;
        let chirp = write_chirp(server, 30)?;
        let casts = cast(server, &chirp, &format!("--key {key}"))?;
        let what = format!("{text},{}", *station.encode());
        let listens = host.spawn("setpriv", &as_confined(&[&own, "listen", &what, "-"]))?;
        exceeds(100_000, || Ok(listens.stdout().len()))?;
        ensure!(host.run("ip", &["-br", "link"])?.stdout == links);
        let family = family(listens.pid());
        listens.signal(Signal::SIGKILL)?;
        drop(casts);
        all_end(&family)
    });
}
