//! Worlds made of network namespaces: hosts, links, firewalls, NAT, loss, processes, logs.
//!
//! | file | content |
//! |---|---|
//! | `isolate` | leaving the host's namespaces before the first thread; needs of the machine |
//! | `namespace` | one anonymous network namespace |
//! | `host` | a namespace with a name, a folder and programs that run in it |
//! | `topology` | the Internet, homes behind NAT, LANs |
//! | `firewall` | closed hosts, loss, cut links, counters |
//! | `forward` | a port of the machine that leads into a world |
//! | `process`, `wait` | running programs; waiting for conditions |
//! | `ports` | sockets of a process that can receive |
//! | `network` | an lcroute network: signalling server, members, daemons, their JSON |
//! | `traffic` | the ordinary programs `mc-send` and `mc-recv` as handles |
//! | `files` | folders to sync: made, compared; small disks |
//! | `usage` | processor time and memory of a process |

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
mod usage;
mod wait;

use std::cell::{Cell, RefCell};
use std::fs;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

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
pub use usage::{cpu_seconds, resident_bytes};
pub use wait::{DEADLINE, Hopeless, eventually, within};

/// Maximum number of worlds at once.
const MAX_WORLDS: usize = 8;

/// Worlds that wait until no other one runs, and then come first. Chosen: threads of tests are left for the others.
const ALONE_TOGETHER: usize = 3;

/// Maximum number of lines of each error log and output of a failed test, and maximum line length.
const LOG_LINES: usize = 100;
const OUTPUT_LINES: usize = 5;
const LOG_LINE: usize = 300;

/// A world: an Internet with attached hosts. Gone when dropped.
#[derive(Debug)]
pub struct Lab {
    world: Arc<World>,
    internet: Host,
    attached: Cell<u8>,
    /// Keeps routers and switches without another handle alive.
    hosts: RefCell<Vec<Host>>,
}

/// State that all hosts of a world share.
#[derive(Debug)]
struct World {
    folder: PathBuf,
    programs: PathBuf,
}

impl Lab {
    /// Makes a world called `name`, in which hosts find `programs`, all of them in the binary `binary`.
    ///
    /// # Errors
    /// The process is not isolated, or the machine lacks something (named).
    pub fn new(name: &str, binary: &Path, programs: &[&str]) -> Result<Lab> {
        let worlds = Path::new(isolate::WORLDS);
        ensure!(
            worlds.is_dir(),
            "{} is missing: isolate() comes first",
            worlds.display()
        );
        check_requirements()?;
        let folder = worlds.join(name);
        let found = folder.join("bin");
        fs::create_dir_all(&found).with_context(|| found.display().to_string())?;
        let binary = isolate::entered_by_all(binary)?;
        for program in programs {
            link(&binary, &found.join(program))?;
        }
        let world = Arc::new(World {
            folder,
            programs: found,
        });
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

    /// Lets hosts find one more program, a binary of its own.
    pub fn add_program(&self, binary: &Path) -> Result<()> {
        let name = binary.file_name().context("a program without a name")?;
        link(
            &isolate::entered_by_all(binary)?,
            &self.world.programs.join(name),
        )
    }

    /// Returns the router in the middle, which forwards between all hosts.
    #[must_use]
    pub fn internet(&self) -> &Host {
        &self.internet
    }

    /// Returns a host by name, e.g. the router in front of a host behind NAT: `NAME-nat`.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<Host> {
        self.hosts
            .borrow()
            .iter()
            .find(|host| host.name() == name)
            .cloned()
    }

    /// Returns the last lines of all logs of this world.
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
        // The tmpfs ends with the process anyway; this frees memory earlier.
        let _ = fs::remove_dir_all(&self.world.folder);
    }
}

/// Runs a test in its own world ([`Lab::new`]), and shows all logs if it fails.
///
/// # Panics
/// The test returned an error.
pub fn world(name: &str, binary: &str, programs: &[&str], test: impl FnOnce(&Lab) -> Result<()>) {
    let lab = match Lab::new(name, Path::new(binary), programs) {
        Ok(lab) => lab,
        Err(error) => panic!("{error:#}"),
    };
    if let Err(error) = test(&lab) {
        panic!("{error:#}"); // the logs come from Lab::drop
    }
}

fn link(binary: &Path, place: &Path) -> Result<()> {
    std::os::unix::fs::symlink(binary, place).with_context(|| place.display().to_string())
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

/// Permission to run a world beside a few other worlds, or alone.
#[derive(Debug)]
pub struct Turn(());

/// Worlds that run and wait.
#[derive(Debug)]
struct Turns {
    running: usize,
    waiting: usize,
    /// Worlds that wait until no other one runs.
    alone: usize,
    /// Whether these come first.
    alone_first: bool,
}

static TURNS: Mutex<Turns> = Mutex::new(Turns {
    running: 0,
    waiting: 0,
    alone: 0,
    alone_first: false,
});
static ENDED: Condvar = Condvar::new();

impl Turn {
    /// Waits for a place.
    #[must_use]
    pub fn wait() -> Turn {
        let mut turns = turns();
        turns.waiting += 1;
        let full = |turns: &mut Turns| turns.alone_first || turns.running >= worlds_at_once();
        let waited = ENDED.wait_while(turns, full);
        let mut turns = waited.unwrap_or_else(PoisonError::into_inner);
        turns.waiting -= 1;
        turns.running += 1;
        Turn(())
    }

    /// Waits until no other world runs, for measurements and for tests with deadlines.
    #[must_use]
    pub fn alone() -> Turn {
        let mut turns = turns();
        turns.alone += 1;
        // one after the other: places are empty while the last other worlds end
        let busy = |turns: &mut Turns| {
            let others = turns.running + turns.waiting;
            turns.alone_first |= turns.alone >= ALONE_TOGETHER || others == 0;
            !turns.alone_first || turns.running > 0
        };
        let waited = ENDED.wait_while(turns, busy);
        let mut turns = waited.unwrap_or_else(PoisonError::into_inner);
        turns.alone -= 1;
        turns.running += 1;
        Turn(())
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut turns = turns();
        turns.running -= 1;
        turns.alone_first &= turns.alone > 0;
        ENDED.notify_all();
    }
}

fn turns() -> MutexGuard<'static, Turns> {
    TURNS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn worlds_at_once() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    // they wait more than they compute: two on two cores leave three quarters of the time idle
    (2 * cores).clamp(2, MAX_WORLDS)
}
