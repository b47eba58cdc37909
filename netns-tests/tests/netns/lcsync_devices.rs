//! A shared file to a block device, and to a pipe.

use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::process::Command;

use crate::lcsync_lan::share;
use crate::prelude::*;

const MEGABYTE: usize = 1 << 20;
/// Bytes of a device: whole sectors, and more than the image.
const DISK: usize = 24 * MEGABYTE;

/// Bytes without repetition, different for each seed.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

/// An image of a disk: data, a hole, and an end that fills no sector.
fn image() -> Vec<u8> {
    [
        noise(1, 12 * MEGABYTE),
        vec![0; 8 * MEGABYTE],
        noise(2, MEGABYTE + 321),
    ]
    .concat()
}

/// Starts a server of the files that `make` makes; returns a receiver, the server, and its root
/// hash.
fn sharing(
    lab: &Lab,
    name: &str,
    make: impl FnOnce(&Path) -> Result<()>,
) -> Result<(Host, Process, String)> {
    let [server, receiver] = lab
        .lan(&["server", "receiver"])?
        .try_into()
        .ok()
        .context("two hosts")?;
    make(&server.path(name))?;
    let (share, root) = share(&server, &[name])?;
    Ok((receiver, share, root))
}

/// A receiver, and a server of the image.
struct Room {
    receiver: Host,
    _share: Process,
    image: Vec<u8>,
    root: String,
}

impl Room {
    fn new(lab: &Lab) -> Result<Self> {
        let image = image();
        let (receiver, share, root) =
            sharing(lab, "disk.img", |path| Ok(fs::write(path, &image)?))?;
        Ok(Self {
            receiver,
            _share: share,
            image,
            root,
        })
    }
}

/// A block device over a file; dropping it detaches it.
struct Loop {
    node: PathBuf,
    file: PathBuf,
}

impl Loop {
    /// `None` where this process may make no loop device, as in a container.
    fn new(file: PathBuf, content: &[u8]) -> Result<Option<Self>> {
        fs::write(&file, content)?;
        let made = Command::new("losetup")
            .args(["-f", "--show"])
            .arg(&file)
            .output();
        let made = made.context("losetup")?;
        if !made.status.success() {
            let why = String::from_utf8_lossy(&made.stderr);
            eprintln!("no loop device here, so none is written to: {why}");
            return Ok(None);
        }
        let node = String::from_utf8(made.stdout)?.trim().into();
        Ok(Some(Self { node, file }))
    }

    fn path(&self) -> String {
        self.node.display().to_string()
    }

    /// Checks that the node is still a device, whose first bytes are `content`.
    fn expect(&self, content: &[u8]) -> Result<()> {
        let is_device = fs::symlink_metadata(&self.node)?
            .file_type()
            .is_block_device();
        ensure!(is_device, "{}: replaced", self.path());
        let mut there = vec![0; content.len()];
        fs::File::open(&self.node)?.read_exact_at(&mut there, 0)?;
        holds!(there == content, "{}: other bytes", self.path())
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        // the kernel keeps a read-only mark of a detached device
        let mut writable = Command::new("blockdev");
        let _ = writable.arg("--setrw").arg(&self.node).status();
        let _ = Command::new("losetup").arg("-d").arg(&self.node).status();
        let _ = fs::remove_file(&self.file);
    }
}

fn refused(receiver: &Host, args: &[&str], why: &str) -> Result<()> {
    receiver.run("lcsync", args)?.fails(1, why)
}

#[test]
fn a_file_is_written_into_a_device_in_place_and_only_when_wanted() {
    world("devices", |lab| {
        let room = Room::new(lab)?;
        let (receiver, image) = (&room.receiver, &room.image);
        let old = noise(9, DISK);
        let Some(device) = Loop::new(receiver.path("disk"), &old)? else {
            return Ok(());
        };
        let path = device.path();
        refused(receiver, &["lc:disk.img", &path], "--write-devices")?;
        let local = receiver.path("file").display().to_string();
        fs::write(&local, "words")?;
        refused(receiver, &[&local, &path], "is a device")?;
        device.expect(&old)?;
        let fetch = ["lc:disk.img", &path, "--write-devices"];
        receiver
            .run("lcsync", &fetch)?
            .success()?
            .says(&room.root)?;
        device.expect(&[image, &old[image.len()..]].concat())?;
        // a part has changed since: the rest is neither fetched nor written
        let file = fs::OpenOptions::new().write(true).open(&device.node)?;
        file.write_all_at(&noise(5, 100), 3 * MEGABYTE as u64)?;
        file.sync_all()?;
        drop(file);
        let dry = receiver.run("lcsync", &[&fetch[..], &["-n"]].concat())?;
        ensure!(dry.success()?.stderr.contains("to fetch of"), "no forecast");
        let mended = receiver.run("lcsync", &[&fetch[..], &["--json"]].concat())?;
        let last = mended.success()?.stdout;
        let last: Value = serde_json::from_str(last.lines().last().context(last.clone())?)?;
        let fetched = last["fetched_bytes"].as_u64().context("no number")?;
        ensure!(
            last["event"] == "done" && fetched < MEGABYTE as u64,
            "{last}"
        );
        device.expect(image)
    });
}

#[test]
fn an_interrupted_device_is_continued() {
    world("devices-again", |lab| {
        let room = Room::new(lab)?;
        let (receiver, image) = (&room.receiver, &room.image);
        let old = noise(9, DISK);
        let Some(device) = Loop::new(receiver.path("disk"), &old)? else {
            return Ok(());
        };
        let path = device.path();
        let fetch = ["lc:disk.img", &path, "--write-devices"];
        let slowly = [&fetch[..], &["--bwlimit", "16M"]].concat();
        let mut first = receiver.spawn("lcsync", &slowly)?;
        eventually("a part is on the device", || {
            let there = fs::read(&device.node)?;
            let same = there.chunks(4_096).zip(image.chunks(4_096));
            let same = same
                .take(2_000)
                .filter(|(there, wanted)| there == wanted)
                .count();
            holds!(same > 500, "{same} pages")
        })?;
        first.signal(nix::sys::signal::Signal::SIGINT)?;
        first.fails(Duration::from_secs(10), 130, "continues")?;
        let rest = receiver
            .run("lcsync", &[&fetch[..], &["--json"]].concat())?
            .success()?;
        let start: Value = serde_json::from_str(rest.stdout.lines().next().context("nothing")?)?;
        let missing = start["missing_bytes"].as_u64().context("no number")?;
        ensure!(missing < 12 * MEGABYTE as u64, "{start}");
        device.expect(image)
    });
}

#[test]
fn a_device_in_use_read_only_or_too_small_is_refused() {
    world("devices-refused", |lab| {
        let room = Room::new(lab)?;
        let receiver = &room.receiver;
        let old = noise(9, DISK);
        let Some(device) = Loop::new(receiver.path("disk"), &old)? else {
            return Ok(());
        };
        let path = device.path();
        let fetch = ["lc:disk.img", &path, "--write-devices"];
        // as a mount, swap, device mapper and another lcsync hold it
        let held = fs::OpenOptions::new()
            .read(true)
            .custom_flags(nix::libc::O_EXCL)
            .open(&device.node)?;
        refused(receiver, &fetch, "is in use")?;
        drop(held);
        let folder = receiver.path("mounted");
        fs::create_dir(&folder)?;
        // a child that another test forked meanwhile holds it until it executes
        eventually("mkfs.ext4 has the device", || {
            let mut format = Command::new("mkfs.ext4");
            let made = format.arg("-q").arg(&device.node).output()?;
            holds!(made.status.success(), "{made:?}")
        })?;
        let mounted = Command::new("mount")
            .arg(&device.node)
            .arg(&folder)
            .status()?;
        ensure!(mounted.success(), "mount");
        let shown = format!("is mounted on {}", folder.display());
        let said = refused(receiver, &fetch, "is in use");
        let named = refused(receiver, &fetch, &shown);
        nix::mount::umount(&folder)?;
        said.and(named)?;
        let small = Loop::new(receiver.path("small"), &old[..MEGABYTE])?.context("one more")?;
        let small_path = small.path();
        refused(
            receiver,
            &["lc:disk.img", &small_path, "--write-devices"],
            "is too small",
        )?;
        small.expect(&old[..MEGABYTE])?;
        let locked = Command::new("blockdev")
            .arg("--setro")
            .arg(&small.node)
            .status()?;
        ensure!(locked.success(), "blockdev");
        refused(
            receiver,
            &["lc:disk.img", &small_path, "--write-devices"],
            "is read-only",
        )?;
        for (dest, why) in [
            ("/dev/null", "no block device"),
            ("/dev/no-such", "makes no file"),
        ] {
            refused(receiver, &["lc:disk.img", dest, "--write-devices"], why)?;
        }
        holds!(!Path::new("/dev/no-such").exists(), "it was made")
    });
}

/// A shell's line whose exit code is that of the first program of its pipe.
fn pipe(receiver: &Host, line: &str) -> Result<(i32, String, String)> {
    let line = format!("{line}; exit ${{PIPESTATUS[0]}}");
    let done = receiver.run("bash", &["-c", &line])?;
    Ok((done.code, done.stdout, done.stderr))
}

#[test]
fn a_file_goes_to_a_pipe_in_order_and_nothing_else_does() {
    world("pipes", |lab| {
        let room = Room::new(lab)?;
        let (receiver, image) = (&room.receiver, &room.image);
        for line in [
            "lcsync lc:disk.img - | cat > out",
            "lcsync lc:disk.img - -v --stats | (sleep 2; cat) > out",
            "lcsync lc:disk.img - > out",
        ] {
            let line = format!("cd {}; {line}", receiver.path("").display());
            let (code, stdout, stderr) = pipe(receiver, &line)?;
            ensure!(code == 0 && stdout.is_empty(), "{line}: {code}: {stderr}");
            ensure!(
                fs::read(receiver.path("out"))? == *image,
                "{line}: other bytes"
            );
        }
        let (code, stdout, stderr) = pipe(receiver, "lcsync lc:disk.img - | head -c 9 | wc -c")?;
        ensure!(
            (code, stdout.trim()) == (1, "9") && !stderr.contains("panic"),
            "{code}: {stderr}"
        );
        let (code, _, stderr) = pipe(receiver, "lcsync lc:disk.img - > /dev/full")?;
        ensure!(
            code == 1 && stderr.contains("No space left"),
            "{code}: {stderr}"
        );
        receiver
            .run("lcsync", &["lc:disk.img", "-", "--json"])?
            .exits(2)?;
        holds!(!receiver.path("-").exists(), "a file of this name")
    });
}

#[test]
fn a_folder_goes_to_no_pipe_but_a_file_of_it_does() {
    world("pipes-folder", |lab| {
        let (receiver, _share, _) = sharing(lab, "folder", |folder| {
            fs::create_dir(folder)?;
            // both in one block
            fs::write(folder.join("a"), "words")?;
            Ok(fs::write(folder.join("b"), "others")?)
        })?;
        refused(&receiver, &["lc:folder", "-"], "is a folder")?;
        let done = receiver.call("lcsync get lc:folder/b -")?;
        holds!(done.stdout == "others", "{done:?}")
    });
}
