"""Machines with a real systemd, on which packages are tried: what test-install and test-neighbours share.

The machines are containers of systemd-nspawn on overlays of a cached Debian. They, their network and their file
systems live in namespaces of the process that starts them, and end with it. A test module says what it does in its
docstring, and calls `main`.
"""

import argparse
import concurrent.futures
import contextlib
import hashlib
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

NAME = pathlib.Path(sys.argv[0]).name
HOUSE = pathlib.Path(__file__).resolve().parent.parent
SUITE = "bookworm"
MIRROR = "http://deb.debian.org/debian"
# what the packages depend on, and for the tests: a firewall, addresses, a program that knows nothing of lcroute
INCLUDED = "systemd,systemd-sysv,dbus,udev,libgcc-s1,libasound2,libopus0,nftables,iproute2,socat"
PACKAGES = ["lcroute", "lcroute-signal", "lcroute-lab", "lcroute-web", "lcsync", "lcagent", "lcgroup", "lcradio", "lcstudio", "lcstudio-notes", "librecast-dev"]
CANNOT = 77
# longest wait for anything: the machine may be busy
PATIENCE = 60.0
GROUP, PORT = "ff1e::42", 4242
STARTED = time.monotonic()


class Failed(Exception):
    pass


def say(text):
    print(f"{time.monotonic() - STARTED:6.1f} s  {text}", flush=True)


def removed(cgroup):
    """A cgroup with all below it, if nothing lives in it any more."""
    for folder, _, _ in os.walk(cgroup, topdown=False):
        with contextlib.suppress(OSError):
            os.rmdir(folder)
    return not os.path.exists(cgroup)


def run(*command, **more):
    done = subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **more)
    if done.returncode != 0:
        raise Failed(f"{' '.join(map(str, command))}: {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def eventually(what, condition, patience=PATIENCE):
    """Waits until the condition holds, and returns what it has said."""
    end = time.monotonic() + patience
    last = None
    while True:
        try:
            if value := condition():
                return value
            last = value
        except Failed as why:
            last = why
        if time.monotonic() > end:
            raise Failed(f"{what}: not within {patience:.0f} s; the last was: {last}")
        time.sleep(0.05)


# --- what this machine must have ------------------------------------------------------------------------------------


def missing():
    """What stands between us and machines of our own."""
    found = []
    if os.geteuid() != 0:
        return ["root"]
    for program, package in [
        ("systemd-nspawn", "systemd-container"), ("debootstrap", "debootstrap"), ("nsenter", "util-linux"),
        ("unshare", "util-linux"), ("ip", "iproute2"), ("dpkg-deb", "dpkg"),
    ]:
        if not shutil.which(program):
            found.append(f"{program} (Debian: {package})")
    if not os.path.exists("/dev/net/tun"):
        found.append("/dev/net/tun (modprobe tun)")
    if not found and subprocess.run(["unshare", "--mount", "--net", "--pid", "--fork", "true"]).returncode:
        found.append("the right to make namespaces (in a container: --privileged)")
    if not hierarchies():
        found.append("a cgroup of systemd's that can be written")
    return found


def hierarchies():
    """Where machines get cgroups of their own: both systemd's own v1 hierarchy and v2, as far as they are there."""
    places = ["/sys/fs/cgroup/systemd", "/sys/fs/cgroup/unified", "/sys/fs/cgroup"]
    return [p for p in places if os.path.exists(f"{p}/cgroup.procs") and os.access(p, os.W_OK)]


def cannot(reasons):
    print(f"{NAME}: no machines can be had here; what is missing:", file=sys.stderr)
    for reason in reasons:
        print(f"  - {reason}", file=sys.stderr)
    return CANNOT


def cached_root(more):
    """A Debian as debootstrap makes it, with packages that it cannot set up: made once."""
    key = hashlib.sha256(f"{SUITE} {INCLUDED} {more}".strip().encode()).hexdigest()[:12]
    home = os.environ.get("XDG_CACHE_HOME") or (os.path.expanduser("~/.cache") if "HOME" in os.environ else "")
    cache = pathlib.Path(home or HOUSE / "target") / "librecast"
    root = cache / f"{SUITE}-{key}"
    if root.exists():
        return root
    base = cached_root("") if more else None
    say(f"{SUITE} {more} into {root}, once")
    cache.mkdir(parents=True, exist_ok=True)
    new = pathlib.Path(tempfile.mkdtemp(dir=cache, prefix="new-"))
    try:
        if more:
            run("cp", "-a", f"{base}/.", str(new))
            inside = ["systemd-nspawn", "--quiet", "-D", str(new), "--register=no", "--keep-unit", "--console=pipe",
                      "--resolv-conf=copy-host", "--setenv=DEBIAN_FRONTEND=noninteractive"]
            run(*inside, "apt-get", "update", stdin=subprocess.DEVNULL)
            run(*inside, "apt-get", "install", "-y", "--no-install-recommends", *more.split(), stdin=subprocess.DEVNULL)
        else:
            run("debootstrap", "--variant=minbase", f"--include={INCLUDED}", SUITE, str(new), MIRROR)
        shutil.rmtree(new / "var/cache/apt", ignore_errors=True)
        new.chmod(0o755)
        new.rename(root)
    except Failed as why:
        shutil.rmtree(new, ignore_errors=True)
        sys.exit(cannot([f"a Debian: {why}"]))
    return root


# --- machines -------------------------------------------------------------------------------------------------------


class Machine:
    def __init__(self, name, base, work):
        self.name = name
        self.work = work / name
        self.root = self.work / "root"
        for folder in ["upper", "work", "root"]:
            (self.work / folder).mkdir(parents=True)
        overlay = f"lowerdir={base},upperdir={self.work}/upper,workdir={self.work}/work"
        run("mount", "-t", "overlay", "overlay", "-o", overlay, str(self.root))
        self.write("etc/machine-id", "")
        self.write("etc/hostname", name)
        (self.root / "var/log/journal").mkdir(parents=True, exist_ok=True)
        # no name is looked up, and packages take their answers from nobody
        (self.root / "etc/resolv.conf").unlink(missing_ok=True)
        self.process, self.init = None, None
        self.cgroups = [f"{place}/{work.name}-{name}" for place in hierarchies()]

    def networkd(self, address):
        """An administrator who has networkd look after whatever there is."""
        self.write("etc/systemd/network/20-all.network", f"""
            [Match]
            Name=!lo
            [Network]
            Address={address}
            LinkLocalAddressing=ipv6
            IPv6AcceptRA=no
            """)
        self.enable("systemd-networkd")

    def firewall(self, *more):
        """Nothing new comes in."""
        self.write("etc/nftables.conf", """
            flush ruleset
            table inet filter {
                chain input {
                    type filter hook input priority 0; policy drop;
                    iifname "lo" accept
                    ct state established,related accept
                    icmpv6 type != echo-request accept
                    %s
                }
            }
            """ % "\n".join(more))
        self.enable("nftables")

    def enable(self, *units):
        """Before it boots."""
        run("systemctl", f"--root={self.root}", "enable", *units)

    def disable(self, *units):
        run("systemctl", f"--root={self.root}", "disable", *units)

    def write(self, path, text):
        lines = text.strip("\n").splitlines()
        margin = min((len(l) - len(l.lstrip()) for l in lines if l.strip()), default=0)
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(l[margin:].rstrip() + "\n" for l in lines))

    def boot(self, tun):
        for cgroup in self.cgroups:
            os.mkdir(cgroup)

        def enter():
            for cgroup in self.cgroups:
                with open(f"{cgroup}/cgroup.procs", "w") as procs:
                    procs.write("0")

        self.console = open(self.work / "console", "wb")
        self.process = subprocess.Popen(
            ["systemd-nspawn", "--quiet", "-D", str(self.root), f"--machine={self.name}", f"--hostname={self.name}",
             "--boot", "--private-network", "--network-bridge=lan", "--register=no", "--keep-unit", "--console=pipe",
             f"--bind={tun}:/dev/net/tun"],
            stdin=subprocess.DEVNULL, stdout=self.console, stderr=self.console, preexec_fn=enter)
        self.init = eventually(f"{self.name} starts", self.find_init)
        eventually(f"{self.name} has booted", lambda: self.out("systemctl", "is-system-running").strip() in
                   ("running", "degraded"))
        state = self.out("systemctl", "is-system-running").strip()
        if state != "running":
            raise Failed(f"{self.name} is {state}: {self.out('systemctl', '--failed', '--no-pager')}")

    def find_init(self):
        if self.process.poll() is not None:
            # waiting would not help
            raise SystemExit(f"{NAME}: nspawn ended: {(self.work / 'console').read_text()}")
        for task in pathlib.Path(f"/proc/{self.process.pid}/task").iterdir():
            if children := (task / "children").read_text().split():
                # as long as it is nspawn's own stub it is not in a network of its own
                if os.readlink(f"/proc/{children[0]}/ns/pid") != os.readlink("/proc/self/ns/pid"):
                    with contextlib.suppress(OSError):
                        if pathlib.Path(f"/proc/{children[0]}/comm").read_text().strip() == "systemd":
                            return children[0]
        return None

    def command(self, *command):
        return ["nsenter", "-t", self.init, "-m", "-p", "-u", "-n", "-i", "-C", "--",
                "env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LC_ALL=C.UTF-8",
                "DEBIAN_FRONTEND=noninteractive", *command]

    def __call__(self, *command, **more):
        """Runs a command on the machine; what it says, if it ends with 0."""
        try:
            return run(*self.command(*command), timeout=PATIENCE, **more)
        except subprocess.TimeoutExpired as late:
            raise Failed(f"{self.name}: {late}") from None
        except Failed as why:
            raise Failed(f"{self.name}: {why}") from None

    def out(self, *command):
        """What a command says, however it ends."""
        return subprocess.run(self.command(*command), text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT).stdout

    def start(self, *command, **more):
        # it ends when nsenter is killed
        return subprocess.Popen(self.command("setpriv", "--pdeathsig", "KILL", *command), text=True, **more)

    def show(self, unit, what):
        return self("systemctl", "show", "--value", "-p", what, unit).strip()

    def active(self, unit):
        eventually(f"{self.name}: {unit} is active", lambda: self.show(unit, "ActiveState") == "active")
        return int(self.show(unit, "MainPID"))

    def install(self, *files):
        inside = []
        for file in files:
            shutil.copy(file, self.root / "root")
            inside.append(f"/root/{pathlib.Path(file).name}")
        return self("dpkg", "--install", "--force-confold", *inside)

    def journal(self):
        return subprocess.run(
            ["journalctl", "-D", str(self.root / "var/log/journal"), "--no-pager", "-o", "short-monotonic", "-n", "400"],
            text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT).stdout

    def power_off(self):
        with contextlib.suppress(Failed):
            self("systemctl", "poweroff")
        try:
            if (code := self.process.wait(PATIENCE)) != 0:
                raise Failed(f"{self.name}: nspawn ended with {code}")
        except subprocess.TimeoutExpired:
            raise Failed(f"{self.name} does not power off") from None

    def clean_up(self):
        if self.process and self.process.poll() is None:
            # all of its processes go with its first
            os.kill(int(self.init or self.process.pid), signal.SIGKILL)
            self.process.kill()
            self.process.wait()
        with contextlib.suppress(Failed):
            # its last processes may be on their way out
            eventually("cgroups are gone", lambda: all([removed(cgroup) for cgroup in self.cgroups]), 10)

    def left(self):
        """All that a package could leave behind."""
        # what dpkg, shadow and the machine itself write, whoever was installed
        ignored = re.compile(r"/(proc|sys|dev|tmp|root|var/log|var/tmp|var/cache/ldconfig|var/lib/systemd/(random-seed|catalog|timers|linger|credential\.secret)"
                             r"|var/lib/dpkg|var/lib/private|run/(log|systemd|udev|dbus|lock|user|credentials|host|initctl|mount|utmp|sudo))(/|$)|"
                             r"/etc/(passwd|group|shadow|gshadow|subuid|subgid)-$|/etc/\.pwd\.lock$|/etc/ld\.so\.cache$")
        listed = self("find", "/", "-xdev", "-printf", r"%p %l\n", "-o", "-path", "/proc", "-prune").splitlines()
        listed += self("find", "/run", "-xdev", "-printf", r"%p %l\n").splitlines()
        found = {line.strip() for line in listed if not ignored.search(line.split(" ")[0])}
        for file in ["passwd", "group"]:
            found |= {f"{file}: {l}" for l in (self.root / "etc" / file).read_text().splitlines()}
        found |= {f"unit: {l}" for l in self("systemctl", "list-unit-files", "--no-legend", "--no-pager").splitlines()
                  if l.startswith("lc")}
        return found


# --- traffic --------------------------------------------------------------------------------------------------------


class Listener:
    """An ordinary program that has joined the group, and names no interface."""

    def __init__(self, machine, group=GROUP):
        self.machine = machine
        self.file = machine.work / f"heard-{time.monotonic_ns()}"
        self.process = machine.start("socat", "-u", f"UDP6-RECV:{PORT},ipv6-join-group=[{group}]:0", "STDOUT",
                                     stdout=open(self.file, "w"))

    def heard(self):
        return [int(line) for line in self.file.read_text().split("\n")[:-1]]

    def hears_news(self, what, patience=PATIENCE):
        """Waits for something that was sent after now."""
        before = len(self.heard())
        # the first may have been under way
        return eventually(f"{self.machine.name} hears {what}", lambda: len(self.heard()) > before + 3, patience)

    def stop(self):
        self.process.kill()
        self.process.wait()


class Sender:
    """An ordinary program that sends a number every 10 ms; started again when it ends, as a firewall may make it do."""

    def __init__(self, machine, group=GROUP):
        self.machine, self.unit = machine, f"sender-{group.replace(':', '-')}.service"
        count = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.01; done"
        send = f"while :; do socat -u STDIN 'UDP6-SENDTO:[{group}]:{PORT}'; sleep 0.1; done"
        machine("systemd-run", "--quiet", "--collect", f"--unit={self.unit}", "sh", "-c", f"({count}) | ({send})")

    def stop(self):
        self.machine("systemctl", "stop", self.unit)


class Page:
    """A page of `lcroute web`: what a browser would get of the address that `--open` prints."""

    def __init__(self, machine, path, address, key=None):
        host = address.split("/")[2]
        self.process = machine.start("timeout", str(int(PATIENCE)), "socat", "STDIO", f"TCP6:{host}",
                                     stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        request = [f"GET {path} HTTP/1.1", f"Host: {host}"]
        if key is not None:
            request.append(f"Authorization: Bearer {key}")
        self.process.stdin.write("\r\n".join(request + ["", ""]))
        self.process.stdin.flush()
        self.status = int(self.line(lambda line: line.startswith("HTTP/")).split()[1])

    def line(self, is_meant):
        for line in self.process.stdout:
            if is_meant(line):
                return line
        raise Failed("the page ended")

    def json(self, key):
        """The next object that has this key."""
        return json.loads(self.line(lambda line: line.startswith("{") and f'"{key}":' in line))

    def close(self):
        self.process.kill()
        self.process.wait()


def check(condition, what):
    if not condition:
        raise Failed(what)


# --- a test ---------------------------------------------------------------------------------------------------------


class Lab:
    """Where machines are: a folder in memory, and a bridge `lan`."""

    def __init__(self, base, packages):
        self.base, self.packages, self.machines = base, packages, []
        self.work = pathlib.Path(tempfile.mkdtemp(prefix=f"{NAME}-"))
        run("mount", "--make-rprivate", "/")
        run("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", str(self.work))
        run("ip", "link", "set", "lo", "up")
        run("ip", "link", "add", "lan", "type", "bridge", "mcast_snooping", "0")
        run("ip", "link", "set", "lan", "up")
        # a node of our own: that of this machine keeps its mode
        self.tun = self.work / "tun"
        os.mknod(self.tun, 0o666 | 0o020000, os.makedev(10, 200))
        self.tun.chmod(0o666)

    def machine(self, name):
        self.machines.append(Machine(name, self.base, self.work))
        return self.machines[-1]

    def boot(self):
        with concurrent.futures.ThreadPoolExecutor() as pool:
            list(pool.map(lambda machine: machine.boot(self.tun), self.machines))
        say(f"{len(self.machines)} machines run")

    def power_off(self):
        for machine in self.machines:
            machine.power_off()
        say("powered off")

    def clean_up(self):
        for machine in self.machines:
            machine.clean_up()
        run("umount", "-l", str(self.work))
        self.work.rmdir()


def packages_in(given, kind, revision=1):
    """The packages in a folder, by default those of what `cargo build` makes of this work tree."""
    folder = given or HOUSE / f"target/packages/test-{revision}"
    if not given and "MACHINES_INSIDE" not in os.environ:
        build = [HOUSE / "packaging/build", f"--{kind}", "--profile", "dev", "--revision", str(revision), folder]
        subprocess.run(build, check=True, stdout=subprocess.DEVNULL)
        say("packages built")
    separator = {"deb": "_", "rpm": "-"}[kind]
    found = {p: next(iter(sorted(folder.glob(f"{p}{separator}[0-9]*.{kind}"))), None) for p in PACKAGES}
    if None in found.values():
        print(f"{NAME}: {folder} lacks packages: {found}", file=sys.stderr)
        sys.exit(2)
    return found


def judged(lab, test, keep):
    try:
        test(lab)
        return 0
    except Failed as why:
        for machine in lab.machines:
            print(f"\n===== journal of {machine.name}\n{machine.journal()}")
        print(f"\n{NAME}: {why}", file=sys.stderr)
        return 1
    finally:
        if keep:
            for machine in lab.machines:
                print(f"{machine.name}: {' '.join(machine.command('bash'))}")
            input("return ends the machines ")
        lab.clean_up()


def main(doc, test, more="", kind="deb", upgrade=False):
    """What a test script is: `test(lab)` on a Debian with the packages `more`; its exit code."""
    words = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--packages", type=pathlib.Path, help="what packaging/build has made")
    words.add_argument("--keep", action="store_true", help="leave the machines running at the end")
    arguments = words.parse_args()
    if reasons := missing():
        return cannot(reasons)
    # what may need this machine's own network
    packages = packages_in(arguments.packages, kind)
    newer = packages_in(None, kind, revision=2) if upgrade else {}
    base = cached_root(more)
    if "MACHINES_INSIDE" not in os.environ:
        # Mounts, network and processes of our own: all end with us. The shell reaps what nsenter leaves: a machine cannot
        # end before its last process is gone.
        os.environ["MACHINES_INSIDE"] = "1"
        os.execvp("unshare", ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc",
                              "sh", "-c", '"$@"; exit $?', "sh", sys.executable, *sys.argv])
    # whoever may run a program in a container has no excuse when a machine does not boot
    probe = subprocess.run(["systemd-nspawn", "--quiet", "-D", str(base), "--volatile=overlay", "--private-network",
                            "--register=no", "--keep-unit", "--console=pipe", "true"],
                           stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if probe.returncode:
        return cannot([f"systemd-nspawn: {probe.stdout}"])
    global STARTED
    STARTED = time.monotonic()
    lab = Lab(base, packages)
    lab.newer = newer
    result = judged(lab, test, arguments.keep)
    say(f"{NAME}: " + ("all as it should be" if result == 0 else "FAILED"))
    return result
