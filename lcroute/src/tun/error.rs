//! Errors of `lc0`, with remedies.

use std::io;
use std::net::Ipv6Addr;

use librecast_program::cli::{Exit, ExitError};
use nix::libc;

use super::{MIN_MTU, Mode, Prefix};

/// Why `lc0` could not be made, adopted or kept.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The driver is missing.
    #[error(
        "/dev/net/tun is missing: load the driver with `modprobe tun`; in a container, --device \
         /dev/net/tun"
    )]
    NoDriver,

    /// The device file exists but may not be opened.
    #[error(
        "not permitted to open /dev/net/tun: run as root, or give this user access to it (with \
         systemd: DeviceAllow=/dev/net/tun rw; in a container: --device /dev/net/tun)"
    )]
    DriverDenied,

    /// A capability is missing.
    #[error(
        "not permitted to {action}: this needs CAP_NET_ADMIN in the user namespace of this network \
         namespace; run as root, or give the capability (with systemd: \
         AmbientCapabilities=CAP_NET_ADMIN and no PrivateUsers=; in a container: --cap-add NET_ADMIN)"
    )]
    NotPermitted {
        /// The attempted action.
        action: &'static str,
    },

    /// The capability is present, but a system call is refused.
    #[error(
        "not permitted to {action}, although this process has CAP_NET_ADMIN: a seccomp filter refuses it (in a \
         container: leave the engine's own profile, or --security-opt seccomp=unconfined), or the network \
         belongs to another user namespace (with systemd: no PrivateUsers=)"
    )]
    Filtered {
        /// The attempted action.
        action: &'static str,
    },

    /// Another process has the device open.
    #[error(
        "interface {name} is in use by another program, perhaps another lcroute: stop that one, or \
         choose another name with --tun NAME"
    )]
    InUse {
        /// Interface name.
        name: String,
    },

    /// The name belongs to an interface of another kind.
    #[error(
        "{name} exists and is {kind}, not a {mode} device of lcroute: choose another name with \
         --tun NAME, or remove it with `ip link delete {name}`"
    )]
    OtherKind {
        /// Interface name.
        name: String,
        /// Its kind, as in `ip -details link`.
        kind: String,
        /// The wanted mode.
        mode: Mode,
    },

    /// The interface was removed, or moved to another namespace, under the running daemon.
    #[error("the interface has been removed by another program: restart lcroute")]
    Vanished,

    /// The inherited descriptor is not the wanted device.
    #[error("the inherited device is {found}, not the {mode} device {name} that is wanted now")]
    Inherited {
        /// The inherited device.
        found: String,
        /// The wanted interface name.
        name: String,
        /// The wanted mode.
        mode: Mode,
    },

    /// This kernel has no IPv6.
    #[error(
        "this kernel has no IPv6 (perhaps ipv6.disable=1 on its command line): lcroute needs it on \
         {name}"
    )]
    NoIpv6 {
        /// Interface name.
        name: String,
    },

    /// IPv6 is disabled and the daemon cannot enable it.
    #[error(
        "IPv6 is switched off on {name} and may not be switched on from here: run `sysctl \
         net.ipv6.conf.default.disable_ipv6=0` first; in a container: --sysctl \
         net.ipv6.conf.all.disable_ipv6=0"
    )]
    Ipv6Disabled {
        /// Interface name.
        name: String,
    },

    /// Not an interface name.
    #[error("{name:?} is not an interface name: 1 to 15 visible ASCII characters without / % :")]
    Name {
        /// The given name.
        name: String,
    },

    /// The MTU is too small for IPv6.
    #[error("an MTU of {mtu} is too small: IPv6 needs at least {MIN_MTU}")]
    Mtu {
        /// The given MTU, in bytes.
        mtu: u16,
    },

    /// Not a node's pair of addresses.
    #[error("{address} and {link_local} are not a unique local and a link-local address")]
    Address {
        /// The given node address.
        address: Ipv6Addr,
        /// The given link-local address.
        link_local: Ipv6Addr,
    },

    /// Not a multicast prefix.
    #[error("{route} is not an IPv6 multicast prefix: a route is for example ff1e::/16")]
    Route {
        /// The given prefix.
        route: Prefix,
    },

    /// The kernel refuses a route.
    #[error("the kernel refuses the multicast route {route} metric {metric}: {source}")]
    RouteRefused {
        /// Its prefix.
        route: Prefix,
        /// Its metric.
        metric: u32,
        /// The kernel's error.
        source: io::Error,
    },

    /// Any other refusal of the kernel.
    #[error("cannot {action}: {source}")]
    Io {
        /// The attempted action.
        action: &'static str,
        /// The kernel's error.
        source: io::Error,
    },
}

impl Error {
    /// Whether a permission or capability is missing (exit code 4).
    pub fn is_permission(&self) -> bool {
        matches!(
            self,
            Self::NoDriver | Self::DriverDenied | Self::NotPermitted { .. } | Self::Filtered { .. }
        )
    }

    /// Whether the settings are wrong (exit code 2).
    pub fn is_configuration(&self) -> bool {
        matches!(
            self,
            Self::Name { .. } | Self::Mtu { .. } | Self::Address { .. } | Self::Route { .. }
        )
    }

    /// Maps an I/O error of the kernel's configuration interfaces to its meaning.
    pub(super) fn kernel(action: &'static str, source: io::Error) -> Self {
        match source.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) if is_filtered(&status()) => Self::Filtered { action },
            Some(libc::EPERM | libc::EACCES) => Self::NotPermitted { action },
            Some(libc::ENODEV) => Self::Vanished,
            _ => Self::Io { action, source },
        }
    }
}

impl From<Error> for ExitError {
    fn from(e: Error) -> Self {
        let exit = match &e {
            e if e.is_permission() => Exit::NotPermitted,
            e if e.is_configuration() => Exit::Usage,
            _ => Exit::Failed,
        };
        Self::new(exit, e.to_string())
    }
}

/// Bit of CAP_NET_ADMIN in a set of capabilities.
const CAP_NET_ADMIN: u32 = 12;

/// Returns the kernel's status of this process; an empty string without /proc.
fn status() -> String {
    std::fs::read_to_string("/proc/self/status").unwrap_or_default()
}

/// Whether a process has CAP_NET_ADMIN, and a seccomp filter (mode 2) that may refuse the call.
fn is_filtered(status: &str) -> bool {
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name));
    let effective = field("CapEff:").and_then(|set| u64::from_str_radix(set.trim(), 16).ok());
    let may = effective.is_some_and(|set| set & (1 << CAP_NET_ADMIN) != 0);
    may && field("Seccomp:").is_some_and(|mode| mode.trim() == "2")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_capability_is_told_from_a_fault() {
        let denied = Error::kernel("try", io::Error::from_raw_os_error(libc::EPERM));
        assert!(denied.is_permission());
        assert!(denied.to_string().contains("CAP_NET_ADMIN"));
        let fault = Error::kernel("try", io::Error::from_raw_os_error(libc::ENOBUFS));
        assert!(!fault.is_permission());
        assert!(!fault.is_configuration());
        let gone = Error::kernel("try", io::Error::from_raw_os_error(libc::ENODEV));
        assert!(matches!(gone, Error::Vanished));
    }

    #[test]
    fn a_seccomp_filter_is_told_from_a_missing_capability() {
        let status = |effective: &str, mode: u8| {
            format!("Name:\tx\nCapEff:\t{effective}\nSeccomp:\t{mode}\n")
        };
        assert!(is_filtered(&status("0000000000001000", 2)));
        assert!(!is_filtered(&status("0000000000001000", 0)));
        assert!(!is_filtered(&status("0000000000000001", 2)));
        assert!(!is_filtered(""));
    }
}
