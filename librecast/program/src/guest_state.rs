//! What `lcroute guest` tells the program inside of a network that words or a run have made: a file
//! in memory, whose descriptor the program inherits.
//!
//! ```text
//! GuestState as JSON, and spaces up to 4,096 bytes; written anew at changes
//! ```
//!
//! A reader may find half of a change: it reads again.

use std::env;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;

use librecast::code::BeaconKey;
use nix::libc;
use nix::sys::memfd::{MFdFlags, memfd_create};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// Environment variable with the number of the descriptor.
pub const STATE_FD: &str = "LCROUTE_GUEST_STATE";
/// Bytes of the file.
const LENGTH: usize = 4_096;

/// The state of a guest whose network is one of a code, or of a run. Holds secrets.
#[derive(Clone, Default, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
pub struct GuestState {
    /// The code as text; empty: the network has none.
    pub code: String,
    /// A token for leaves, which may be public; empty: the network is one of a code.
    pub leaf_token: String,
    /// The text that leads to the network; empty: none does.
    pub text: String,
    /// Where the network of a text meets, as it stands behind the text; empty: on LANs alone.
    pub place: String,
    /// Key of the beacons.
    pub beacon: [u8; 32],
    /// Whether this guest has made the network.
    pub founds: bool,
    /// Name of the guest's node.
    pub name: String,
    /// Other members that are reachable, and links with leaves.
    pub present: usize,
    /// Members that were reachable.
    pub left: usize,
    /// Of a helper of a station; none: this guest is none.
    pub helper: Option<HelperState>,
}

/// What a helper does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, Zeroize)]
pub struct HelperState {
    /// Links with listeners.
    pub leaves: usize,
    /// Free places for listeners.
    pub room: usize,
    /// Links with casters.
    pub casters: usize,
    /// Bytes of packets sent on links since the start.
    pub sent_bytes: u64,
}

impl std::fmt::Debug for GuestState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "GuestState: {} present", self.present)
    }
}

impl GuestState {
    /// Returns the key of the beacons.
    pub fn beacon_key(&self) -> BeaconKey {
        BeaconKey(self.beacon)
    }
}

/// The file.
#[derive(Debug)]
pub struct StateFile(File);

impl StateFile {
    /// Makes it.
    ///
    /// # Errors
    /// Those of the system; a text is too long.
    pub fn new(state: &GuestState) -> io::Result<Self> {
        let file = memfd_create(c"lcroute-guest", MFdFlags::MFD_CLOEXEC)?;
        let file = Self(File::from(file));
        file.write(state)?;
        Ok(file)
    }

    /// Writes the present state.
    pub fn write(&self, state: &GuestState) -> io::Result<()> {
        let mut text = Zeroizing::new(serde_json::to_vec(state)?);
        if text.len() > LENGTH {
            return Err(io::Error::other("the state of the guest is too long"));
        }
        text.resize(LENGTH, b' ');
        self.0.write_all_at(&text, 0)
    }

    /// Returns its descriptor, for the program.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The file, seen from inside.
#[derive(Debug)]
pub struct Inside(File);

impl Inside {
    /// Returns it if this program runs in a guest with a code.
    ///
    /// # Errors
    /// The variable is set, and the descriptor is not open.
    pub fn of_environment() -> io::Result<Option<Self>> {
        let Some(number) = env::var_os(STATE_FD) else {
            return Ok(None);
        };
        let number = number.to_str().and_then(|number| number.parse().ok());
        let number = number.filter(|number: &i32| *number > libc::STDERR_FILENO);
        let number =
            number.ok_or_else(|| io::Error::other(format!("{STATE_FD}: no descriptor")))?;
        File::open(format!("/proc/self/fd/{number}")).map(|file| Some(Self(file)))
    }

    /// Reads the present state.
    ///
    /// # Errors
    /// It is being written, or the file is another one.
    pub fn read(&self) -> io::Result<GuestState> {
        let mut text = Zeroizing::new([0; LENGTH]);
        self.0.read_exact_at(text.as_mut(), 0)?;
        Ok(serde_json::from_slice(text.as_slice())?)
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn the_program_inside_reads_what_the_guest_has_written() {
        let mut state = GuestState::default();
        state.code = "abandon-zoo-quality-lemon@meet.example".into();
        state.name = "ann".into();
        state.helper = Some(HelperState {
            leaves: 12,
            ..HelperState::default()
        });
        let file = StateFile::new(&state).unwrap();
        let path = format!("/proc/self/fd/{}", file.fd().as_raw_fd());
        let inside = Inside(File::open(path).unwrap());
        assert_eq!(inside.read().unwrap().code, state.code);
        assert_eq!(inside.read().unwrap().helper, state.helper);
        (state.present, state.left) = (12, 3);
        file.write(&state).unwrap();
        state.present = 1;
        file.write(&state).unwrap();
        let read = inside.read().unwrap();
        assert_eq!((read.present, read.left), (1, 3));
        assert!(!format!("{read:?}").contains("zoo"));
        state.code = "a".repeat(LENGTH);
        assert!(file.write(&state).is_err());
    }
}
