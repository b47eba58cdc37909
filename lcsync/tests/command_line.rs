//! The program from its user's view: refusals, output, exit codes.

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::program;

fn lcsync(folder: &Path, args: &[&str]) -> Output {
    let command = Command::new(env!("CARGO_BIN_EXE_lcsync"));
    output(command, folder, args)
}

fn output(mut command: Command, folder: &Path, args: &[&str]) -> Output {
    command.current_dir(folder).args(args);
    command.env("XDG_RUNTIME_DIR", folder.join("run"));
    command.env_remove("RUNTIME_DIRECTORY");
    command.stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap().wait_with_output().unwrap()
}

/// Runs it as a user who may not read everything.
fn as_nobody(folder: &Path, args: &[&str]) -> Output {
    const NOBODY: u32 = 65_534;
    // other users may not enter the folder of the build
    let program = folder.join("program");
    program::install(&program);
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = Command::new(&program);
    if nix::unistd::geteuid().is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    output(command, folder, args)
}

fn ends(output: &Output, code: i32, said: &str) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    assert!(stderr.contains(said), "{said:?} is not said: {stderr}");
}

#[test]
fn unknown_flags_and_impossible_names_are_wrong_usage() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["new\nline", "a#b"] {
        fs::write(dir.path().join(name), "x").unwrap();
    }
    for args in [
        &["--frobnicate"][..],
        &["share", "--frobnicate", "x"],
        &["hash", "--frobnicate", "x"],
        &["lc:x", "dest", "--timeout", "soon"],
        &["lc:x#12", "dest"],
        &["share", "new\nline"],
        &["share", "a#b"],
    ] {
        ends(&lcsync(dir.path(), args), 2, "");
    }
}

#[test]
fn an_option_that_would_be_ignored_is_wrong_usage_and_says_why() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("src")).unwrap();
    for (option, value) in [
        ("--trust", Some("foo")),
        ("--seed", None),
        ("--json", None),
        ("--keyfile", Some("k")),
        ("--timeout", Some("3s")),
    ] {
        let args: Vec<&str> = ["-a", "src/", "d", option]
            .into_iter()
            .chain(value)
            .collect();
        let said = format!("{option} is for shares");
        ends(&lcsync(dir.path(), &args), 2, &said);
        assert!(!dir.path().join("d").exists());
    }
}

#[test]
fn who_types_what_rsync_understands_is_understood_or_told_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("src")).unwrap();
    fs::write(dir.path().join("src/f"), "words").unwrap();
    let dry = lcsync(dir.path(), &["--archive", "--dry-run", "src/", "d"]);
    ends(&dry, 0, "");
    assert_eq!(dry.stdout, b"f\n");
    ends(&lcsync(dir.path(), &["--archive", "src/", "d"]), 0, "");
    assert!(dir.path().join("d/f").exists());
    for (option, said) in [
        ("-az", "-z: nothing is compressed"),
        ("-aP", "-P: progress is shown"),
        ("--progress", "progress is shown"),
        ("--filter=- x", "use --exclude"),
        ("--append", "files are compared"),
        ("--backup", "one version is kept"),
    ] {
        ends(&lcsync(dir.path(), &[option, "src/", "d"]), 2, said);
    }
    ends(
        &lcsync(dir.path(), &["holiday", "d"]),
        1,
        "lcsync lc:holiday d",
    );
    ends(&lcsync(dir.path(), &["lcr1x", "d"]), 1, "lcradio listen");
}

#[test]
fn a_secret_key_is_not_trusted_and_the_public_one_is_named() {
    let dir = tempfile::tempdir().unwrap();
    ends(
        &lcsync(dir.path(), &["keygen", "--sign", "other.key"]),
        0,
        "",
    );
    let args = ["lc:x", "d", "--trust", "other.key"];
    ends(&lcsync(dir.path(), &args), 2, "use other.key.pub");
}

#[test]
fn special_files_are_refused_at_once_and_left_out_of_folders() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::create_dir(at("folder")).unwrap();
    fs::write(at("folder/f"), "words").unwrap();
    let before = lcsync(dir.path(), &["hash", "folder"]).stdout;
    let mode = nix::sys::stat::Mode::S_IRWXU;
    nix::unistd::mkfifo(&at("folder/pipe"), mode).unwrap();
    let _socket = UnixListener::bind(at("folder/socket")).unwrap();
    for special in ["folder/pipe", "folder/socket", "/dev/null"] {
        let refused = lcsync(dir.path(), &["hash", special]);
        ends(&refused, 1, "neither a file nor a folder");
        let stderr = String::from_utf8_lossy(&refused.stderr);
        assert_eq!(stderr.matches("neither").count(), 1, "{stderr}");
    }
    let after = lcsync(dir.path(), &["hash", "folder"]);
    for skipped in ["folder/pipe", "folder/socket"] {
        ends(&after, 0, &format!("left out: {skipped}: neither"));
        let copied = lcsync(dir.path(), &["-r", "folder", "copy"]);
        ends(
            &copied,
            0,
            &format!("skipping non-regular file \"{skipped}\""),
        );
    }
    assert_eq!(after.stdout, before);
}

#[test]
fn names_of_any_bytes_are_copied_and_shown_on_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("source");
    fs::create_dir(&source).unwrap();
    for name in [&b"new\nline"[..], b"bad\xff", b"\x1b[31mred"] {
        fs::write(source.join(OsStr::from_bytes(name)), name).unwrap();
    }
    symlink("/etc/passwd", source.join("out")).unwrap();
    let copied = lcsync(dir.path(), &["-av", "source/", "copy"]);
    ends(&copied, 0, "");
    assert_eq!(copied.stdout.split(|b| *b == b'\n').count(), 4 + 1);
    assert!(
        !copied.stdout.contains(&0x1b),
        "an escape reaches the terminal"
    );
    let hash = |path| lcsync(dir.path(), &["hash", path]).stdout;
    assert_eq!(hash("source"), hash("copy"));
    let link = fs::read_link(dir.path().join("copy/out")).unwrap();
    assert_eq!(
        link,
        Path::new("/etc/passwd"),
        "links are copied, not followed"
    );
}

#[test]
fn what_cannot_be_read_has_no_hash_and_deletes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::create_dir_all(at("source/closed")).unwrap();
    fs::write(at("source/closed/f"), "words").unwrap();
    fs::write(at("source/open"), "words").unwrap();
    fs::create_dir(at("dest")).unwrap();
    fs::set_permissions(at("dest"), fs::Permissions::from_mode(0o777)).unwrap();
    ends(&as_nobody(dir.path(), &["-r", "source/", "dest"]), 0, "");
    fs::set_permissions(at("source/closed"), fs::Permissions::from_mode(0o000)).unwrap();
    let hash = as_nobody(dir.path(), &["hash", "source"]);
    ends(&hash, 1, "could not be read");
    assert_eq!(hash.stdout, b"");
    let copied = as_nobody(dir.path(), &["-r", "--delete", "source/", "dest"]);
    ends(&copied, 1, "nothing is deleted");
    assert_eq!(fs::read(at("dest/closed/f")).unwrap(), b"words");
    ends(
        &as_nobody(dir.path(), &["hash", "source/closed"]),
        1,
        "Permission denied",
    );
    // tempfile must be able to remove it
    fs::set_permissions(at("source/closed"), fs::Permissions::from_mode(0o700)).unwrap();
}

#[test]
fn without_the_right_to_write_a_fetch_ends_before_it_asks() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("closed")).unwrap();
    let mode = fs::Permissions::from_mode(0o555);
    fs::set_permissions(dir.path().join("closed"), mode).unwrap();
    let args = ["lc:nobody-has-this", "closed/dest", "--timeout", "20s"];
    ends(
        &as_nobody(dir.path(), &args),
        1,
        "closed: cannot be written to",
    );
}

/// Opens the socket of a server of this user, with this answer.
fn server_that_says(folder: &Path, said: &'static str) -> UnixListener {
    let sockets = folder.join("run/lcsync");
    fs::create_dir_all(&sockets).unwrap();
    let socket = sockets.join(format!("{}.sock", std::process::id()));
    let listener = UnixListener::bind(socket).unwrap();
    let serving = listener.try_clone().unwrap();
    std::thread::spawn(move || {
        for stream in serving.incoming() {
            // the reader may have hung up
            let _ = stream.unwrap().write_all(said.as_bytes());
        }
    });
    listener
}

/// A name that no server of this host has.
const UNSHARED: &str = "a name of the tests of lcsync status";

#[test]
fn a_status_is_found_shown_on_one_line_and_commands_no_terminal() {
    let dir = tempfile::tempdir().unwrap();
    let said = r#"{"process":{"pid":7,"version":"1","uptime_s":1,"seed":false},"shares":[{"name":"\u001b[2J\nred",
        "path":"/p","state":"pending","sealed":false,"signed":false,"listed":false,"interfaces":[],"rate_bps":0,
        "average_bps":0,"sent_bytes":0,"sent_symbols":0,"sent_blocks":0,"listeners":0,"more_listeners":false,
        "hosts":[],"rivals":[],"channels_joined":0,"channels_sending":0,"channels_waiting":0,"channels":[]}]}"#;
    let _listener = server_that_says(dir.path(), said);
    let shown = lcsync(dir.path(), &["status"]);
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.contains("\nlc:\\#033[2J\\#012red "), "{shown}");
    let json = lcsync(dir.path(), &["status", "lc:\u{1b}[2J\nred", "--json"]);
    ends(&json, 0, "");
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(
        (&json["state"], &json["process"]["pid"]),
        (&"pending".into(), &7.into())
    );
}

#[test]
fn a_server_that_may_not_be_asked_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let _listener = server_that_says(dir.path(), "");
    let socket = format!("run/lcsync/{}.sock", std::process::id());
    let path = dir.path().join(&socket);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
    let refused = as_nobody(dir.path(), &["status", UNSHARED]);
    ends(
        &refused,
        4,
        &format!("lc:{UNSHARED} is not shared on this host"),
    );
    ends(
        &refused,
        4,
        &format!("{socket}: permission denied: be root"),
    );
}

#[test]
fn a_server_that_says_nothing_of_use_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let _listener = server_that_says(dir.path(), "{}");
    let silent = lcsync(dir.path(), &["status", UNSHARED]);
    let said = String::from_utf8(silent.stderr).unwrap();
    assert!(
        !silent.status.success() && said.contains("sock: not one of this version"),
        "{said}"
    );
}

#[test]
fn a_file_takes_the_place_of_no_device_fifo_or_socket() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::write(at("file"), "words").unwrap();
    fs::create_dir(at("folder")).unwrap();
    nix::unistd::mkfifo(&at("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    nix::unistd::mkfifo(&at("folder/file"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let _socket = UnixListener::bind(at("socket")).unwrap();
    symlink("fifo", at("link")).unwrap();
    symlink("/dev/null", at("device")).unwrap();
    let node = |name: &str| fs::symlink_metadata(at(name)).unwrap().ino();
    for (dest, kept, kind) in [
        ("fifo", "fifo", "FIFO"),
        ("link", "link", "FIFO"),
        ("folder", "folder/file", "FIFO"),
        ("socket", "socket", "socket"),
        ("device", "device", "device"),
    ] {
        let before = node(kept);
        let refused = format!("is a {kind}; lcsync replaces only files");
        for source in ["file", "lc:nobody-has-this"] {
            // the name of a shared file in a folder is known once a server answers
            if (source, dest) == ("lc:nobody-has-this", "folder") {
                continue;
            }
            let args = [source, dest, "--timeout", "20s"];
            let args = &args[..if source == "file" { 2 } else { 4 }];
            ends(&lcsync(dir.path(), args), 1, &refused);
            assert_eq!(node(kept), before, "{dest}");
        }
    }
}
