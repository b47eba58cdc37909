//! Kernel, device, capabilities, clock, MLD: lcroute's requirements of a host.

use std::io::ErrorKind;
use std::path::Path;

use lcroute_control::status::{self, Clocks};
use nix::libc;

use super::{Check, Patient, is_root, read};
use crate::clock;
use librecast::time::UnixTime;

/// Oldest supported kernel.
const OLDEST: (u32, u32) = (5, 10);
const TUN: &str = "/dev/net/tun";
/// Number of the capability that lcroute needs (linux/capability.h).
const CAP_NET_ADMIN: u32 = 12;
/// Recommended `optmem_max` in bytes, which bounds a socket's memberships: 2,340 with this value,
/// 365 with that of older kernels.
const OPTMEM: u64 = 131_072;
/// Default of the kernel for sources of one filter.
const SOURCES: u64 = 64;

pub(super) fn checks(patient: &Patient) -> Vec<Check> {
    vec![
        kernel(),
        ipv6(),
        device(patient),
        capabilities(patient),
        clock(patient),
        mld(&patient.config.tun.name),
    ]
}

fn kernel() -> Check {
    const NAME: &str = "kernel";
    let Ok(release) = read("/proc/sys/kernel/osrelease") else {
        return Check::skipped(NAME, "/proc is not there");
    };
    match version(&release) {
        Some(version) if version < OLDEST => {
            let detail = format!("Linux {release}; nothing before 5.10 was tried");
            Check::warn(NAME, detail, "use a kernel of 2021 or later")
        }
        _ => Check::ok(NAME, format!("Linux {release}")),
    }
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

fn ipv6() -> Check {
    const NAME: &str = "ipv6";
    if !Path::new("/proc/net/if_inet6").exists() {
        let remedy =
            "remove ipv6.disable=1 from the kernel's command line and start the machine anew";
        return Check::fail(NAME, "the kernel has no IPv6", remedy);
    }
    match read("/proc/sys/net/ipv6/conf/default/disable_ipv6").as_deref() {
        // lcroute enables it for its own interface, if permitted
        Ok("1") => {
            let detail = "new interfaces get no IPv6 (net.ipv6.conf.default.disable_ipv6 = 1)";
            let remedy = "sysctl -w net.ipv6.conf.default.disable_ipv6=0, and in /etc/sysctl.d; in a container: --sysctl net.ipv6.conf.all.disable_ipv6=0";
            Check::warn(NAME, detail, remedy)
        }
        _ => Check::ok(NAME, "the kernel has it"),
    }
}

fn device(patient: &Patient) -> Check {
    const NAME: &str = "tun device";
    let opened = std::fs::File::options().read(true).write(true).open(TUN);
    match opened {
        Ok(_) => Check::ok(NAME, format!("{TUN} can be opened")),
        Err(_) if patient.daemon.is_some() => Check::ok(NAME, "the daemon has it"),
        Err(e)
            if matches!(e.kind(), ErrorKind::NotFound)
                || e.raw_os_error() == Some(libc::ENODEV) =>
        {
            let remedy =
                "modprobe tun; in a container, give it the host's device (--device /dev/net/tun)";
            Check::fail(NAME, format!("{TUN}: {e}"), remedy)
        }
        Err(e) if e.kind() == ErrorKind::PermissionDenied && !is_root() => {
            Check::skipped(NAME, format!("{TUN}: {e}: only root can tell"))
        }
        Err(e) => {
            let remedy = "let the daemon open it (with systemd: DeviceAllow=/dev/net/tun rw)";
            Check::fail(NAME, format!("{TUN}: {e}"), remedy)
        }
    }
}

fn capabilities(patient: &Patient) -> Check {
    const NAME: &str = "capabilities";
    let pid = patient.daemon.as_ref().and_then(|d| d.pid);
    let (whose, of) = match pid {
        Some(pid) => ("the daemon", pid.to_string()),
        None => ("who runs this", "self".to_owned()),
    };
    let status = read(Path::new("/proc").join(&of).join("status")).ok();
    let effective = status.as_deref().and_then(effective);
    let filter = match status.as_deref().is_some_and(has_filter) {
        true => ", behind a seccomp filter",
        false => "",
    };
    match effective {
        None => Check::skipped(NAME, format!("/proc does not tell what {whose} may do")),
        Some(set) if set & (1 << CAP_NET_ADMIN) != 0 => {
            Check::ok(NAME, format!("{whose} has CAP_NET_ADMIN{filter}"))
        }
        Some(_) if pid.is_none() && !is_root() => {
            Check::skipped(NAME, "not root here: the daemon needs CAP_NET_ADMIN")
        }
        Some(_) => {
            let remedy =
                "run lcroute as root or by its systemd unit; in a container: --cap-add NET_ADMIN";
            Check::fail(NAME, format!("{whose} has no CAP_NET_ADMIN"), remedy)
        }
    }
}

fn effective(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|l| l.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

/// Whether a seccomp filter may refuse calls that capabilities permit.
fn has_filter(status: &str) -> bool {
    let mode = status.lines().find_map(|l| l.strip_prefix("Seccomp:"));
    mode.is_some_and(|mode| mode.trim() == "2")
}

/// Certificates have a validity period: a clock error of up to a day is tolerated.
fn clock(patient: &Patient) -> Check {
    const NAME: &str = "clock";
    let remedy = "timedatectl set-ntp true, or run chrony";
    let peers = patient
        .daemon
        .as_ref()
        .map(|daemon| daemon.peers.as_slice());
    match status::clocks(peers.unwrap_or_default(), UnixTime::now()) {
        Clocks::Agree => {}
        Clocks::ThisDiffers(detail) => {
            let remedy = format!("{remedy}; then links come up by themselves");
            return Check::fail(NAME, detail, remedy);
        }
        Clocks::OthersDiffer(detail) => return Check::warn(NAME, detail, "set the clock there"),
    }
    match clock::is_synchronised() {
        Ok(true) => Check::ok(NAME, "kept in time (NTP)"),
        Ok(false) => Check::warn(NAME, "the kernel's clock is not synchronised", remedy),
        Err(e) => Check::skipped(NAME, format!("adjtimex: {e}")),
    }
}

fn mld(tun: &str) -> Check {
    const NAME: &str = "mld";
    let sysctl = |name: &str| {
        read(Path::new("/proc/sys").join(name))
            .ok()?
            .parse::<u64>()
            .ok()
    };
    for interface in ["all", tun] {
        if sysctl(&format!("net/ipv6/conf/{interface}/force_mld_version")) == Some(1) {
            let key = format!("net.ipv6.conf.{interface}.force_mld_version");
            let detail = format!("{key} = 1: joins with sources are not reported");
            let remedy = format!("sysctl -w {key}=0, and in /etc/sysctl.d");
            return Check::fail(NAME, detail, remedy);
        }
    }
    let optmem = sysctl("net/core/optmem_max");
    let sources = sysctl("net/ipv6/mld_max_msf");
    if let Some(optmem) = optmem.filter(|n| *n < OPTMEM) {
        let detail = format!(
            "net.core.optmem_max = {optmem}: a program can join some hundred groups at a time"
        );
        let remedy = format!("sysctl -w net.core.optmem_max={OPTMEM}, and in /etc/sysctl.d");
        return Check::warn(NAME, detail, remedy);
    }
    if let Some(sources) = sources.filter(|n| *n < SOURCES) {
        let detail = format!("net.ipv6.mld_max_msf = {sources}: a join can name no more sources");
        let remedy = format!("sysctl -w net.ipv6.mld_max_msf={SOURCES}");
        return Check::warn(NAME, detail, remedy);
    }
    Check::ok(
        NAME,
        "version 2, room for some thousand memberships a program",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_and_capabilities_are_read() {
        assert_eq!(version("6.1.0-13-amd64"), Some((6, 1)));
        assert!(version("5.4.0").unwrap() < OLDEST && version("5.10").unwrap() >= OLDEST);
        assert_eq!(version("x"), None);
        let status = "Name:\tx\nCapEff:\t0000000000003000\nCapBnd:\t000001ffffffffff\n";
        assert_eq!(effective(status), Some(0x3000));
    }
}
