//! Worlds made of network namespaces: hosts, links, firewalls, NAT, loss, processes, logs.
//!
//! | file | what |
//! |---|---|
//! | `isolate` | leaving the host behind, before the first thread; what the machine must have |
//! | `namespace` | one anonymous network namespace |
//! | `host` | a namespace with a name, a folder and programs that run in it |
//! | `topology` | the Internet, homes behind NAT, LANs |
//! | `firewall` | closed hosts, loss, cut links, counters |
//! | `forward` | a port of the machine that leads into a world |
//! | `process`, `wait` | running programs; waiting for conditions |
//! | `ports` | which sockets of a process can receive |
//! | `network` | an lcroute network: signalling server, members, daemons, their JSON |
//! | `traffic` | the ordinary programs `mc-send` and `mc-recv` as handles |
//! | `files` | folders to sync: made, compared; small disks |

mod exposition;
mod files;
mod firewall;
mod forward;
mod host;
mod isolate;
mod namespace;
mod network;
mod ports;
mod process;
mod topology;
mod traffic;
mod wait;

use std::cell::{Cell, RefCell};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use anyhow::{Context, Result, ensure};

pub use exposition::Exposition;
pub use files::{Disk, make_folder, noise, same_content};
pub use firewall::Traffic;
pub use forward::ForwardedPort;
pub use host::{Host, offload};
pub use isolate::{check_requirements, exit_on_signals, find_program, isolate, isolate_or_exit};
pub use namespace::Namespace;
pub use network::{Member, Network, SignallingServer, wait_reach};
pub use ports::{OpenSocket, open_sockets};
pub use process::{Output, Process, tail};
pub use topology::{LAN, Site, UPLINK};
pub use traffic::{MldWatch, Receiver, Sent};
pub use wait::{DEADLINE, Hopeless, eventually, within};

/// The programs in the multi-call binary, found by hosts under these names.
pub const APPLETS: [&str; 7] = [
    "lcroute",
    "lcroute-web",
    "lcroute-streams",
    "lcsync",
    "mc-send",
    "mc-recv",
    "bare-relay",
];

/// Worlds at once on the largest machine. There is one for each core: three on two lost packets of tests that count them.
const MAX_WORLDS: usize = 8;

/// Lines of each error log, and of each output, that a failed test shows, and their length.
const LOG_LINES: usize = 100;
const OUTPUT_LINES: usize = 5;
const LOG_LINE: usize = 300;

/// A world of its own: an Internet to which hosts are attached. Gone when dropped.
#[derive(Debug)]
pub struct Lab {
    world: Arc<World>,
    internet: Host,
    attached: Cell<u8>,
    /// Keeps routers and switches alive of which nobody holds a handle.
    hosts: RefCell<Vec<Host>>,
}

/// What all hosts of a world share.
#[derive(Debug)]
struct World {
    folder: PathBuf,
    programs: PathBuf,
}

impl Lab {
    /// A world called `name`. `program` is the multi-call binary its hosts run, `others` what it has besides [`APPLETS`].
    ///
    /// # Errors
    /// The process is not isolated, or the machine lacks something (named).
    pub fn new<'a>(
        name: &str,
        program: &Path,
        others: impl IntoIterator<Item = &'a str>,
    ) -> Result<Lab> {
        let worlds = Path::new(isolate::WORLDS);
        ensure!(
            worlds.is_dir(),
            "{} is missing: isolate() comes first",
            worlds.display()
        );
        check_requirements()?;
        let folder = worlds.join(name);
        let programs = folder.join("bin");
        fs::create_dir_all(&programs).with_context(|| programs.display().to_string())?;
        for applet in APPLETS.into_iter().chain(others) {
            std::os::unix::fs::symlink(program, programs.join(applet))
                .with_context(|| applet.to_owned())?;
        }
        let world = Arc::new(World { folder, programs });
        let internet = Host::new(&world, "internet")?;
        for forwarding in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
            internet.namespace().sysctl(forwarding, "1")?;
        }
        Ok(Lab {
            world,
            internet,
            attached: Cell::new(0),
            hosts: RefCell::default(),
        })
    }

    /// The router in the middle, which forwards between all hosts.
    #[must_use]
    pub fn internet(&self) -> &Host {
        &self.internet
    }

    /// A host by its name, e.g. the router in front of a host behind NAT: `NAME-nat`.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<Host> {
        self.hosts
            .borrow()
            .iter()
            .find(|host| host.name() == name)
            .cloned()
    }

    /// The last lines of everything that ran in this world.
    #[must_use]
    pub fn logs(&self) -> String {
        let mut text = String::new();
        for file in log_files(&self.world.folder) {
            let content = process::read_lossy(&file);
            if content.trim().is_empty() {
                continue;
            }
            let name = file.strip_prefix(&self.world.folder).unwrap_or(&file);
            text += &format!("--- {}\n", name.display());
            let is_output = file.extension().is_some_and(|extension| extension == "out");
            let lines = if is_output { OUTPUT_LINES } else { LOG_LINES };
            for line in tail(&content, lines).lines() {
                text.extend(line.chars().take(LOG_LINE));
                text.push('\n');
            }
        }
        text
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.logs());
        }
        // The tmpfs goes with the process anyway; this only frees memory early.
        let _ = fs::remove_dir_all(&self.world.folder);
    }
}

/// Runs a test in a world of its own as [`Lab::new`] makes it, and shows all logs if it fails.
///
/// # Panics
/// The test returned an error.
pub fn world<'a>(
    name: &str,
    program: &str,
    others: impl IntoIterator<Item = &'a str>,
    test: impl FnOnce(&Lab) -> Result<()>,
) {
    let lab = match Lab::new(name, Path::new(program), others) {
        Ok(lab) => lab,
        Err(error) => panic!("{error:#}"),
    };
    if let Err(error) = test(&lab) {
        panic!("{error:#}"); // the logs come from Lab::drop
    }
}

fn log_files(world: &Path) -> Vec<PathBuf> {
    let entries = |folder: &Path| -> Vec<PathBuf> {
        let listed = fs::read_dir(folder).into_iter().flatten().flatten();
        listed.map(|entry| entry.path()).collect()
    };
    let hosts = entries(world).into_iter();
    let mut files: Vec<PathBuf> = hosts.flat_map(|host| entries(&host.join("logs"))).collect();
    files.sort();
    files
}

/// The right to run a world beside a few others, or alone.
#[derive(Debug)]
pub struct Turn {
    /// Of those that may run at once, how many do not because of this one.
    taken: usize,
}

/// Who takes a turn next.
static FIRST: Mutex<()> = Mutex::new(());
static RUNNING: Mutex<usize> = Mutex::new(0);
static ENDED: Condvar = Condvar::new();

impl Turn {
    /// Waits for one.
    #[must_use]
    pub fn wait() -> Turn {
        Turn::take(1)
    }

    /// Waits until no other world runs: for what is measured, or must not be late.
    #[must_use]
    pub fn alone() -> Turn {
        Turn::take(worlds_at_once())
    }

    fn take(taken: usize) -> Turn {
        // who needs all is not passed by those who need one
        let _first = FIRST.lock().unwrap_or_else(PoisonError::into_inner);
        let running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
        let full = |running: &mut usize| *running + taken > worlds_at_once();
        let waited = ENDED.wait_while(running, full);
        *waited.unwrap_or_else(PoisonError::into_inner) += taken;
        Turn { taken }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *RUNNING.lock().unwrap_or_else(PoisonError::into_inner) -= self.taken;
        ENDED.notify_all();
    }
}

fn worlds_at_once() -> usize {
    std::thread::available_parallelism().map_or(2, |cores| cores.get().clamp(2, MAX_WORLDS))
}
