//! Third-party programs, as Debian installs them, without lcroute.

use crate::prelude::*;

pub(crate) const PYTHON_RECEIVER: &str = "
import socket, struct
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
s.bind(('', 5007))
group = socket.inet_pton(socket.AF_INET6, 'ff1e::7')
s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, group + struct.pack('@I', 0))
while True:
    data, sender = s.recvfrom(2000)
    print(data.decode(), 'from', sender[0], flush=True)
";

pub(crate) const PYTHON_SENDER: &str = "
import socket
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
s.sendto(b'hello from python', ('ff1e::7', 5007))
";

#[test]
fn python_sockets() {
    with_members("python", ["a", "b"], |_, [a, b]| {
        let receiver = b.host.spawn("python3", &["-c", PYTHON_RECEIVER])?;
        a.wait_wanted("ff1e::7", b)?;
        a.host.run("python3", &["-c", PYTHON_SENDER])?.success()?;
        let expected = format!("hello from python from {}", a.address()?);
        receiver.prints(&expected)
    });
}

#[test]
fn socat() {
    with_members("socat", ["a", "b"], |_, [a, b]| {
        // Interface 0 leaves the choice to the routes.
        let join = "UDP6-RECV:5008,ipv6-join-group=[ff1e::8]:0";
        let receiver = b.host.spawn("socat", &["-u", join, "STDOUT"])?;
        a.wait_wanted("ff1e::8", b)?;
        let text = a.host.write("text", "hello from socat\n")?;
        let from = format!("OPEN:{}", text.display());
        a.host
            .run("socat", &["-u", &from, "UDP6-SENDTO:[ff1e::8]:5008"])?
            .success()?;
        becomes("hello from socat\n", || Ok(receiver.stdout()))
    });
}

#[test]
fn iperf() {
    with_members("iperf", ["a", "b"], |_, [a, b]| {
        let server = b.host.spawn("iperf", &IPERF_SERVER)?;
        a.wait_wanted("ff1e::9", b)?;
        a.host.run("iperf", &IPERF_CLIENT)?.success()?;
        iperf_got_all(&server)
    });
}

pub(crate) const IPERF_SERVER: [&str; 7] = ["-s", "-u", "-V", "-B", "ff1e::9", "-y", "C"];
pub(crate) const IPERF_CLIENT: [&str; 10] = [
    "-c", "ff1e::9", "-u", "-V", "-b", "2M", "-l", "1000", "-n", "250000",
];

/// Waits until iperf's server reports everything that its client sent.
pub(crate) fn iperf_got_all(server: &Process) -> Result<()> {
    eventually("the iperf server reports", || {
        // date,address,port,address,port,id,interval,bytes,bits/s,jitter,lost,total,...
        let report = server.stdout();
        let line = report.lines().next_back().context("no report yet")?;
        let fields: Vec<&str> = line.split(',').collect();
        let bytes: u64 = fields.get(7).context("no bytes")?.parse()?;
        ensure!(bytes >= 250_000, "{line}");
        holds!(fields.get(10) == Some(&"0"), "packets were lost: {line}")
    })
}
