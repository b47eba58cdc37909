//! Calls by the session's message bus, as the D-Bus Specification describes them: as much of it as
//! notifications need.

use std::env;
use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Longest wait for the bus. Chosen: it may have to start the program that answers.
const TIMEOUT: Duration = Duration::from_secs(20);
/// Bytes of a line during authentication. Chosen: far above the usual 40.
const MAX_LINE: u64 = 512;
/// Bytes of a message behind its first 16. Chosen: answers have some hundred.
const MAX_MESSAGE: usize = 64 * 1_024;
/// Messages before the answer to a call. Chosen: the bus sends one or two by itself.
const MAX_OTHERS: usize = 256;

const ERROR: u8 = 3;
const METHOD_CALL: u8 = 1;
const METHOD_RETURN: u8 = 2;

/// A method, and where it is.
pub struct Method {
    pub destination: &'static str,
    pub path: &'static str,
    pub interface: &'static str,
    pub member: &'static str,
}

impl Method {
    /// A method of the bus itself.
    pub const fn of_bus(member: &'static str) -> Self {
        Self {
            destination: "org.freedesktop.DBus",
            path: "/org/freedesktop/DBus",
            interface: "org.freedesktop.DBus",
            member,
        }
    }
}

/// A message as it arrived.
#[derive(Debug)]
pub struct Received {
    kind: u8,
    is_little: bool,
    body: Vec<u8>,
}

impl Received {
    /// The number at this place of the body.
    pub fn number(&self, at: usize) -> Option<u32> {
        let bytes = self.body.get(at..)?.first_chunk()?;
        Some(number(self.is_little, *bytes))
    }

    /// The string at the beginning of the body.
    fn string(&self) -> Option<String> {
        let length = self.number(0)? as usize;
        let bytes = self.body.get(4..4_usize.checked_add(length)?)?;
        Some(String::from_utf8_lossy(bytes).into_owned())
    }
}

fn number(is_little: bool, bytes: [u8; 4]) -> u32 {
    match is_little {
        true => u32::from_le_bytes(bytes),
        false => u32::from_be_bytes(bytes),
    }
}

/// A connection to the bus.
#[derive(Debug)]
pub struct Bus {
    stream: BufReader<UnixStream>,
    serial: u32,
}

impl Bus {
    /// Connects to the bus of this session.
    pub fn of_session() -> io::Result<Self> {
        let named = env::var("DBUS_SESSION_BUS_ADDRESS").ok();
        let runtime = || Some(PathBuf::from(env::var_os("XDG_RUNTIME_DIR")?).join("bus"));
        let stream = match named.filter(|address| !address.is_empty()) {
            Some(addresses) => connect(&addresses)?,
            None => match runtime().filter(|path| path.is_absolute()) {
                Some(path) => UnixStream::connect(path)?,
                None => {
                    let text = "neither DBUS_SESSION_BUS_ADDRESS nor XDG_RUNTIME_DIR is set";
                    return Err(io::Error::new(io::ErrorKind::NotFound, text));
                }
            },
        };
        Self::over(stream)
    }

    /// Connects to the bus at the other end of a socket.
    pub fn over(stream: UnixStream) -> io::Result<Self> {
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        let stream = BufReader::new(stream);
        let mut bus = Self { stream, serial: 0 };
        // the bus asks the kernel for this user, which also holds in a user namespace
        bus.write(b"\0AUTH EXTERNAL\r\n")?;
        bus.expect("DATA")?;
        bus.write(b"DATA\r\n")?;
        bus.expect("OK ")?;
        bus.write(b"BEGIN\r\n")?;
        bus.call(&Method::of_bus("Hello"), &Out::default())?;
        Ok(bus)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes)
    }

    fn expect(&mut self, beginning: &str) -> io::Result<()> {
        let mut line = Vec::new();
        let mut limited = (&mut self.stream).take(MAX_LINE);
        limited.read_until(b'\n', &mut line)?;
        match line.starts_with(beginning.as_bytes()) {
            true => Ok(()),
            false => Err(io::Error::other("the message bus refuses this user")),
        }
    }

    /// Calls a method, and returns its answer.
    pub fn call(&mut self, method: &Method, arguments: &Out) -> io::Result<Received> {
        self.serial += 1;
        let target = [
            (1, "o", method.path),
            (2, "s", method.interface),
            (3, "s", method.member),
            (6, "s", method.destination),
        ];
        self.send(METHOD_CALL, &target, None, arguments)?;
        for _ in 0..MAX_OTHERS {
            let (received, _) = receive(&mut self.stream)?;
            match received.kind {
                METHOD_RETURN => return Ok(received),
                ERROR => {
                    let why = received.string().unwrap_or_else(|| "an error".to_owned());
                    return Err(io::Error::other(why));
                }
                _ => {}
            }
        }
        Err(io::Error::other("the message bus gives no answer"))
    }

    /// Sends a message with these strings in its header.
    fn send(
        &mut self,
        kind: u8,
        strings: &[(u8, &str, &str)],
        answers: Option<u32>,
        arguments: &Out,
    ) -> io::Result<()> {
        let mut header = Out::default();
        for (code, signature, value) in strings {
            header.field(*code, signature).string(value);
        }
        if let Some(serial) = answers {
            header.field(5, "u").number(serial);
        }
        if !arguments.signature.is_empty() {
            header.field(8, "g").signature(&arguments.signature);
        }
        let mut out = Out::default();
        out.bytes.extend([b'l', kind, 0, 1]);
        out.number(arguments.bytes.len() as u32)
            .number(self.serial)
            .number(header.bytes.len() as u32);
        out.bytes.extend(header.bytes);
        out.pad(8);
        out.bytes.extend(&arguments.bytes);
        self.write(&out.bytes)
    }
}

/// Receives a message, and the fields of its header.
fn receive(stream: &mut impl Read) -> io::Result<(Received, Vec<u8>)> {
    let mut head = [0; 16];
    stream.read_exact(&mut head)?;
    let is_little = head[0] == b'l';
    let [_, body, _, fields] = [0, 4, 8, 12].map(|at| {
        let bytes = [head[at], head[at + 1], head[at + 2], head[at + 3]];
        number(is_little, bytes) as usize
    });
    if body > MAX_MESSAGE || fields > MAX_MESSAGE {
        return Err(io::Error::other("the message bus sends too much"));
    }
    let mut fields = vec![0; fields.next_multiple_of(8)];
    stream.read_exact(&mut fields)?;
    let mut bytes = vec![0; body];
    stream.read_exact(&mut bytes)?;
    let received = Received {
        kind: head[1],
        is_little,
        body: bytes,
    };
    Ok((received, fields))
}

/// Connects to the first of these addresses that answers.
fn connect(addresses: &str) -> io::Result<UnixStream> {
    let mut last = io::Error::other(format!("{addresses:?} names no Unix socket"));
    for address in addresses.split(';') {
        let Some(pairs) = address.strip_prefix("unix:") else {
            continue;
        };
        for (key, value) in pairs.split(',').filter_map(|pair| pair.split_once('=')) {
            let value = unescaped(value);
            let connected = match key {
                "path" => UnixStream::connect(Path::new(&OsString::from_vec(value))),
                "abstract" => SocketAddr::from_abstract_name(value)
                    .and_then(|address| UnixStream::connect_addr(&address)),
                _ => continue,
            };
            match connected {
                Ok(stream) => return Ok(stream),
                Err(e) => last = e,
            }
        }
    }
    Err(last)
}

/// The bytes of a value in an address, where `%2f` is a slash.
fn unescaped(value: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = value.as_bytes();
    while let Some((first, others)) = rest.split_first() {
        let code = others
            .get(..2)
            .and_then(|code| std::str::from_utf8(code).ok());
        let code = code.and_then(|code| u8::from_str_radix(code, 16).ok());
        match code.filter(|_| *first == b'%') {
            Some(byte) => {
                bytes.push(byte);
                rest = &others[2..];
            }
            None => {
                bytes.push(*first);
                rest = others;
            }
        }
    }
    bytes
}

/// Values in the order of a message, each aligned to its size.
#[derive(Debug, Default)]
pub struct Out {
    bytes: Vec<u8>,
    signature: String,
}

impl Out {
    /// Values of this signature.
    pub fn of(signature: &str) -> Self {
        Self {
            bytes: Vec::new(),
            signature: signature.to_owned(),
        }
    }

    pub fn pad(&mut self, to: usize) -> &mut Self {
        self.bytes.resize(self.bytes.len().next_multiple_of(to), 0);
        self
    }

    pub fn number(&mut self, value: u32) -> &mut Self {
        self.pad(4).bytes.extend(value.to_le_bytes());
        self
    }

    /// A string, up to the first zero byte: none may have one.
    pub fn string(&mut self, value: &str) -> &mut Self {
        let value = value.split('\0').next().unwrap_or_default();
        self.number(value.len() as u32);
        self.bytes.extend(value.as_bytes());
        self.bytes.push(0);
        self
    }

    fn signature(&mut self, value: &str) -> &mut Self {
        self.bytes.push(value.len() as u8);
        self.bytes.extend(value.as_bytes());
        self.bytes.push(0);
        self
    }

    /// The beginning of a field in a header, without its value.
    fn field(&mut self, code: u8, signature: &str) -> &mut Self {
        self.pad(8).bytes.push(code);
        self.signature(signature)
    }

    /// A dictionary of one string.
    pub fn dictionary(&mut self, key: &str, value: &str) -> &mut Self {
        self.number(0);
        let length = self.bytes.len() - 4;
        self.pad(8);
        let begins = self.bytes.len();
        self.string(key).signature("s").string(value);
        let count = (self.bytes.len() - begins) as u32;
        self.bytes[length..length + 4].copy_from_slice(&count.to_le_bytes());
        self
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub mod tests {
    use std::process::{Child, Command, Stdio};

    use super::*;

    /// A message bus for a test, which ends with it.
    pub struct Daemon {
        child: Child,
        pub address: String,
    }

    impl Daemon {
        pub fn start() -> Self {
            let mut child = Command::new("dbus-daemon")
                .args(["--session", "--nofork", "--nopidfile", "--print-address=1"])
                .stdout(Stdio::piped())
                .spawn()
                .expect("dbus-daemon: netns-tests/setup installs it");
            let mut address = String::new();
            let out = child.stdout.take().unwrap();
            BufReader::new(out).read_line(&mut address).unwrap();
            let address = address.trim().to_owned();
            Self { child, address }
        }

        pub fn connect(&self) -> Bus {
            Bus::over(connect(&self.address).unwrap()).unwrap()
        }
    }

    impl Drop for Daemon {
        fn drop(&mut self) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }

    impl Bus {
        /// Takes a name on the bus.
        pub fn own(&mut self, name: &str) {
            let mut arguments = Out::of("su");
            arguments.string(name).number(4);
            let owned = self.call(&Method::of_bus("RequestName"), &arguments);
            assert_eq!(owned.unwrap().number(0), Some(1));
        }

        /// Receives a call, and answers with a number; returns the strings of its body.
        pub fn answer(&mut self, number: u32) -> Vec<u8> {
            let (call, fields) = loop {
                let (received, fields) = receive(&mut self.stream).unwrap();
                if received.kind == METHOD_CALL {
                    break (received, fields);
                }
            };
            // the caller's name, which the bus adds
            let fields = String::from_utf8_lossy(&fields);
            let sender = fields.find(":1.").map(|at| &fields[at..]).unwrap();
            let sender = sender.split('\0').next().unwrap().to_owned();
            let mut arguments = Out::of("u");
            arguments.number(number);
            // its second call: the first was Hello
            self.serial += 1;
            let to = [(6, "s", &sender[..])];
            self.send(METHOD_RETURN, &to, Some(number + 1), &arguments)
                .unwrap();
            call.body
        }
    }

    #[test]
    fn the_bus_answers_and_says_what_is_wrong() {
        let daemon = Daemon::start();
        let mut bus = daemon.connect();
        let id = bus.call(&Method::of_bus("GetId"), &Out::default()).unwrap();
        assert_eq!(id.string().unwrap().len(), 32);
        let refused = bus.call(&Method::of_bus("NoSuchMethod"), &Out::default());
        let refused = refused.unwrap_err().to_string();
        assert!(refused.contains("NoSuchMethod"), "{refused}");
        let id = bus.call(&Method::of_bus("GetId"), &Out::default());
        assert!(id.is_ok());
    }

    #[test]
    fn addresses_name_paths_and_abstract_sockets() {
        assert_eq!(unescaped("/run/%75ser%2F1%"), b"/run/user/1%");
        for bad in [
            "",
            "tcp:host=x",
            "unix:guid=1",
            "unix:path=/no/such/bus;unix:path=/nor/this",
        ] {
            assert!(connect(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_a_bus_sends_is_bounded() {
        for said in [
            &b"REJECTED\r\n"[..],
            b"DATA\r\nOK 1\r\nl\x02\0\x01\xff\xff\xff\xff\x01\0\0\0\0\0\0\0",
            b"",
            &[b'x'; 5_000],
        ] {
            let (ours, mut theirs) = UnixStream::pair().unwrap();
            theirs.write_all(said).unwrap();
            theirs.shutdown(std::net::Shutdown::Write).unwrap();
            assert!(Bus::over(ours).is_err());
        }
    }
}
