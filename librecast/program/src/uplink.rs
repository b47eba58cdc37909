//! How long packets for lc0 wait in this host: lcroute writes it into a file, and programs that send
//! bulk hold back while it is long, instead of having packets dropped.
//!
//! ```text
//! index of lc0 32 | 0 32 | wait 16, in 100 us; time 48, in us of CLOCK_MONOTONIC      native order
//! ```
//!
//! The daemon's file is beside its control socket. A guest's is in memory, and the program inherits
//! its descriptor. Wait and time are one word, which a reader finds whole.

use std::env;
use std::fs::{File, OpenOptions, Permissions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use librecast::announce::control_sockets;
use nix::libc;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::time::{ClockId, clock_gettime};

/// Environment variable with the number of the descriptor in a guest.
pub const UPLINK_FD: &str = "LCROUTE_GUEST_UPLINK";
/// Bytes of the file.
const LENGTH: usize = 16;
/// Age from which on nothing is known. Chosen.
const STALE: Duration = Duration::from_millis(500);
/// Unit of the wait, in microseconds.
const UNIT: u64 = 100;
/// Bits of the time.
const TIME_BITS: u32 = 48;

/// Time of CLOCK_MONOTONIC, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Micros(u64);

impl Micros {
    /// Returns the present time.
    #[must_use]
    pub fn now() -> Self {
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from);
        Self(u64::try_from(now.as_micros()).unwrap_or(0) & ((1 << TIME_BITS) - 1))
    }

    fn after(self, time: Duration) -> Self {
        Self(
            self.0
                .saturating_add(u64::try_from(time.as_micros()).unwrap_or(u64::MAX)),
        )
    }

    /// Returns the time since `earlier`; none if that is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Option<Duration> {
        self.0.checked_sub(earlier.0).map(Duration::from_micros)
    }
}

/// The file, for its one writer.
#[derive(Debug)]
pub struct UplinkPage {
    file: File,
    interface: u32,
    /// Until when no wait is written as well; `None`: it says that packets do not wait.
    busy_until: Option<Micros>,
}

impl UplinkPage {
    /// Makes the file beside the daemon's control socket, for an interface of this index.
    ///
    /// # Errors
    /// Those of the system.
    pub fn beside(control: &Path, interface: u32) -> io::Result<Self> {
        let path = path_beside(control);
        // a reader of an earlier file finds it old
        match std::fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let mut options = OpenOptions::new();
        let file = options.write(true).create_new(true).open(path)?;
        // whatever the umask
        file.set_permissions(Permissions::from_mode(0o644))?;
        Self::of(file, interface)
    }

    /// Makes a file in memory.
    ///
    /// # Errors
    /// Those of the system.
    pub fn in_memory(interface: u32) -> io::Result<Self> {
        let file = memfd_create(c"lcroute-uplink", MFdFlags::MFD_CLOEXEC)?;
        Self::of(File::from(file), interface)
    }

    fn of(file: File, interface: u32) -> io::Result<Self> {
        let mut page = [0; LENGTH];
        page[..4].copy_from_slice(&interface.to_ne_bytes());
        file.write_all_at(&page, 0)?;
        Ok(Self {
            file,
            interface,
            busy_until: None,
        })
    }

    /// Returns its descriptor, for the program in a guest.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Sets the index of lc0.
    ///
    /// # Errors
    /// Those of the system.
    pub fn set_interface(&mut self, interface: u32) -> io::Result<()> {
        self.interface = interface;
        self.file.write_all_at(&interface.to_ne_bytes(), 0)
    }

    /// Writes the wait, if there is one or was one lately: all that programs sent before `at` is
    /// counted.
    pub fn write(&mut self, wait: Duration, at: Micros) {
        if !wait.is_zero() {
            self.busy_until = Some(at.after(STALE));
        }
        let Some(until) = self.busy_until else {
            return;
        };
        let units = u64::try_from(wait.as_micros()).unwrap_or(u64::MAX);
        let units = units.div_ceil(UNIT).min(u64::from(u16::MAX));
        let word = match at < until {
            true => units << TIME_BITS | at.0,
            false => {
                self.busy_until = None;
                0
            }
        };
        // a memory file takes it; without it programs send as ever
        let _ = self.file.write_all_at(&word.to_ne_bytes(), 8);
    }
}

/// A wait that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Uplink {
    /// Index of lc0.
    pub interface: u32,
    /// How long packets wait.
    pub wait: Duration,
    /// All packets that programs sent before are counted.
    pub at: Micros,
}

/// The file, for its readers.
#[derive(Debug)]
pub struct UplinkWait(File);

impl UplinkWait {
    /// Opens that of the guest in which this program runs, else that of the host's daemon.
    #[must_use]
    pub fn open() -> Option<Self> {
        let path = match env::var_os(UPLINK_FD) {
            Some(number) => {
                let number: i32 = number.to_str()?.parse().ok()?;
                let is_ours = number > libc::STDERR_FILENO;
                is_ours.then(|| PathBuf::from(format!("/proc/self/fd/{number}")))?
            }
            None if crate::guest::is_inside() => return None,
            None => {
                let mut paths = control_sockets().into_iter().map(|c| path_beside(&c));
                paths.find(|path| path.exists())?
            }
        };
        Self::at(&path)
    }

    fn at(path: &Path) -> Option<Self> {
        // no pipe in its place makes this wait
        let mut options = OpenOptions::new();
        let options = options.read(true).custom_flags(libc::O_NONBLOCK);
        options.open(path).ok().map(Self)
    }

    /// Returns the index of lc0.
    #[must_use]
    pub fn interface(&self) -> Option<u32> {
        let mut index = [0; 4];
        self.0.read_exact_at(&mut index, 0).ok()?;
        Some(u32::from_ne_bytes(index)).filter(|index| *index > 0)
    }

    /// Reads the wait, if packets wait now or did so lately.
    #[must_use]
    pub fn read(&self) -> Option<Uplink> {
        let mut page = [0; LENGTH];
        self.0.read_exact_at(&mut page, 0).ok()?;
        let interface = u32::from_ne_bytes(page[..4].try_into().ok()?);
        let word = u64::from_ne_bytes(page[8..].try_into().ok()?);
        let at = Micros(word & ((1 << TIME_BITS) - 1));
        let wait = Duration::from_micros((word >> TIME_BITS) * UNIT);
        let age = Micros::now().since(at)?;
        (age < STALE).then_some(Uplink {
            interface,
            wait,
            at,
        })
    }
}

/// Returns the daemon's file, beside its control socket.
fn path_beside(control: &Path) -> PathBuf {
    match control.file_name() {
        Some(name) if name == "control.sock" => control.with_file_name("uplink"),
        name => {
            let mut name = name.unwrap_or_default().to_owned();
            name.push(".uplink");
            control.with_file_name(name)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn a_reader_finds_the_wait_until_it_is_old_or_over() {
        let folder = tempfile::tempdir().unwrap();
        let control = folder.path().join("control.sock");
        let mut page = UplinkPage::beside(&control, 7).unwrap();
        let reader = UplinkWait::at(&folder.path().join("uplink")).unwrap();
        assert_eq!(reader.read(), None);
        let (wait, at) = (Duration::from_micros(12_300), Micros::now());
        page.write(wait, at);
        let found = Uplink {
            interface: 7,
            wait,
            at,
        };
        assert_eq!(reader.read(), Some(found));
        page.write(Duration::from_secs(60), Micros::now());
        assert!(
            reader
                .read()
                .is_some_and(|found| found.wait > Duration::from_secs(6))
        );
        page.write(Duration::ZERO, Micros::now());
        let wait_of = |found: Option<Uplink>| found.map(|found| found.wait);
        assert_eq!(wait_of(reader.read()), Some(Duration::ZERO));
        page.write(Duration::ZERO, Micros::now().after(STALE * 2));
        assert_eq!(reader.read(), None, "over");
        page.write(Duration::ZERO, Micros::now());
        assert_eq!(reader.read(), None, "still over");
        let old = Micros(at.0.saturating_sub(500_000));
        for other in [old, Micros(at.0 + 60_000_000)] {
            page.write(wait, other);
            assert_eq!(reader.read(), None, "{other:?}");
        }
        page.write(wait, Micros::now());
        page.set_interface(9).unwrap();
        assert_eq!(reader.read().map(|found| found.interface), Some(9));
        page.file.set_len(8).unwrap();
        assert_eq!(reader.read(), None, "cut short");
    }

    #[test]
    fn a_new_daemon_has_a_new_file_and_a_guest_one_in_memory() {
        let folder = tempfile::tempdir().unwrap();
        let control = folder.path().join("other.sock");
        let (wait, path) = (
            Duration::from_millis(5),
            folder.path().join("other.sock.uplink"),
        );
        let mut old = UplinkPage::beside(&control, 1).unwrap();
        let reader = UplinkWait::at(&path).unwrap();
        let mut new = UplinkPage::beside(&control, 2).unwrap();
        new.write(wait, Micros::now());
        assert_eq!(reader.read(), None);
        let found = UplinkWait::at(&path).and_then(|reader| reader.read());
        assert_eq!(found.map(|found| found.interface), Some(2));
        old.write(wait, Micros::now());
        assert_eq!(reader.read().map(|found| found.interface), Some(1));
        let mut page = UplinkPage::in_memory(3).unwrap();
        page.write(wait, Micros::now());
        let path = format!("/proc/self/fd/{}", page.fd().as_raw_fd());
        let found = UplinkWait::at(Path::new(&path)).and_then(|reader| reader.read());
        assert_eq!(found.map(|found| found.interface), Some(3));
    }
}
