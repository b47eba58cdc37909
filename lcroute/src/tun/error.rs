//! What may stand in the way of `lc0`, and what to do about it.

use std::io;
use std::net::Ipv6Addr;

use librecast_program::cli::{Exit, ExitError};
use nix::libc;

use super::{MIN_MTU, Mode, Prefix};

/// Why `lc0` could not be made, adopted or kept.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The driver is not there.
    #[error(
        "/dev/net/tun is missing: load the driver with `modprobe tun`; in a container, --device \
         /dev/net/tun"
    )]
    NoDriver,

    /// The device file is there but may not be opened.
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
        /// What was tried.
        action: &'static str,
    },

    /// The capability is there, and a system call is refused all the same.
    #[error(
        "not permitted to {action}, although this process has CAP_NET_ADMIN: a seccomp filter refuses it (in a \
         container: leave the engine's own profile, or --security-opt seccomp=unconfined), or the network \
         belongs to another user namespace (with systemd: no PrivateUsers=)"
    )]
    Filtered {
        /// What was tried.
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
        /// What it is, as `ip -details link` says it.
        kind: String,
        /// What was wanted.
        mode: Mode,
    },

    /// The interface was removed, or moved to another namespace, under the running daemon.
    #[error("the interface has been removed by another program: restart lcroute")]
    Vanished,

    /// The descriptor handed over by the previous program image is not what is wanted now.
    #[error("the inherited device is {found}, not the {mode} device {name} that is wanted now")]
    Inherited {
        /// What it is.
        found: String,
        /// Interface name wanted.
        name: String,
        /// What was wanted.
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

    /// IPv6 is switched off and cannot be switched on from here.
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
    #[error("{name:?} is no interface name: 1 to 15 visible ASCII characters without / % :")]
    Name {
        /// What was given.
        name: String,
    },

    /// The MTU is too small for IPv6.
    #[error("an MTU of {mtu} is too small: IPv6 needs at least {MIN_MTU}")]
    Mtu {
        /// What was given, in bytes.
        mtu: u16,
    },

    /// Not a node's pair of addresses.
    #[error("{address} and {link_local} are not a unique local and a link-local address")]
    Address {
        /// Given as the node address.
        address: Ipv6Addr,
        /// Given as the link-local address.
        link_local: Ipv6Addr,
    },

    /// Not a multicast prefix.
    #[error("{route} is not an IPv6 multicast prefix: a route is for example ff1e::/16")]
    Route {
        /// What was given.
        route: Prefix,
    },

    /// The kernel does not take a route.
    #[error("the kernel refuses the multicast route {route} metric {metric}: {source}")]
    RouteRefused {
        /// To where.
        route: Prefix,
        /// With this metric.
        metric: u32,
        /// What the kernel said.
        source: io::Error,
    },

    /// Anything else that the kernel refused.
    #[error("cannot {action}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

impl Error {
    /// Whether a missing permission or capability is the reason (exit code 4), not a fault.
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

    /// Names what an I/O error of the kernel's configuration interfaces means.
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

/// CAP_NET_ADMIN's place in a set of capabilities.
const CAP_NET_ADMIN: u32 = 12;

/// What the kernel says of this process; nothing where /proc is not there.
fn status() -> String {
    std::fs::read_to_string("/proc/self/status").unwrap_or_default()
}

/// Whether a process has CAP_NET_ADMIN, and a seccomp filter in mode 2 that may refuse all the same.
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
