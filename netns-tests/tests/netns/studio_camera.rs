//! A presenter's camera: in layers for who joined, no byte for all others, kept as it came.

use lcstudio_core::{CameraSpace, Layer, SessionKey, TrackName, ivf_frame, ivf_header};

use crate::foreign::foreign;
use crate::prelude::*;
use crate::studio::{
    attend, bytes_of_tracks, count_tracks, groups, keygen, network, present, session, told, turn_on,
};

/// Three seconds of VP8 in two layers of time, a key frame each second.
pub(crate) const FILM: &[u8] = include_bytes!("../../../lcstudio/core/testdata/two-layers.ivf");
/// Milliseconds of a frame of it.
const FRAME_MS: u64 = 100;

/// A frame of an IVF: its time, and its bytes.
type Frame = (u64, Vec<u8>);

/// Returns the frames of an IVF; the last one may be incomplete, and is left out.
fn frames(ivf: &[u8]) -> Vec<Frame> {
    let (mut rest, mut frames) = (ivf.get(32..).unwrap_or_default(), Vec::new());
    while let Some((head, after)) = rest.split_first_chunk::<12>() {
        let [a, b, c, d, time @ ..] = *head;
        let length = u32::from_le_bytes([a, b, c, d]) as usize;
        let Some((frame, next)) = after.split_at_checked(length) else {
            break;
        };
        frames.push((u64::from_le_bytes(time), frame.to_vec()));
        rest = next;
    }
    frames
}

fn is_key(frame: &[u8]) -> bool {
    frame[0] & 1 == 0
}

/// The film in a loop, for this many seconds.
pub(crate) fn film(seconds: u64) -> Vec<u8> {
    let frames = frames(FILM);
    let count = seconds * 1_000 / FRAME_MS;
    let all = frames.iter().cycle().zip(0..count);
    let all = all.flat_map(|((_, frame), at)| ivf_frame(at * FRAME_MS, frame));
    ivf_header((64, 36)).into_iter().chain(all).collect()
}

/// Checks that frames are those of the film, in order, from a key frame on. Returns how many are
/// left out.
fn check(shown: &[Frame]) -> Result<usize> {
    let film = frames(FILM);
    let first = &shown.first().context("no frame")?.1;
    ensure!(is_key(first), "it begins with a key frame");
    let mut at = film
        .iter()
        .position(|(_, f)| f == first)
        .context("no frame of the film")?;
    let mut left_out = 0;
    for (_, frame) in &shown[1..] {
        at += 1;
        while *frame != film[at % film.len()].1 {
            at += 1;
            left_out += 1;
            ensure!(left_out < 1_000, "no frame of the film");
        }
    }
    ensure!(shown.windows(2).all(|pair| pair[0].0 < pair[1].0));
    Ok(left_out)
}

/// The groups of the camera, by names of counters.
pub(crate) fn groups_of_camera(key: &str) -> Result<BTreeMap<String, Ipv6Addr>> {
    let secret = SessionKey::from_seed(&SecretKey::load(Path::new(key))?.seed());
    let owner = secret.track_key(&TrackName::Camera).peer_id();
    let space = CameraSpace::new(&secret.session().space(owner));
    let layers = [
        ("base", Layer::Base),
        ("repair", Layer::Repair),
        ("smooth", Layer::Smooth),
        ("large", Layer::Large),
        ("large-repair", Layer::LargeRepair),
    ];
    let groups = layers.map(|(name, layer)| (name.to_owned(), space.group(layer)));
    Ok(groups.into())
}

/// Makes a session with a camera.
fn with_camera(stage: &Host) -> Result<(PathBuf, String, String)> {
    let (folder, key, lcs) = session(stage, None)?;
    turn_on(&folder, "camera")?;
    Ok((folder, key, lcs))
}

/// Shows a file of frames as a camera.
fn show(stage: &Host, folder: &Path, key: &str, film: &Path, args: &str) -> Result<Process> {
    let (folder, film) = (folder.display(), film.display());
    let command =
        format!("exec lcstudio camera {folder} --key {key} -i lc0 --log info {args} - <{film}");
    stage.spawn("sh", &["-c", &command])
}

pub(crate) fn watch(host: &Host, lcs: &str, file: &Path, args: &str) -> Result<Process> {
    let file = file.display();
    let command = format!("exec lcstudio watch {lcs} camera -i lc0 {args} - >{file}");
    host.spawn("sh", &["-c", &command])
}

fn shown(file: &Path) -> Result<Vec<Frame>> {
    Ok(frames(&fs::read(file)?))
}

pub(crate) fn until_shown(file: &Path, count: usize) -> Result<()> {
    at_least(count, || Ok(shown(file)?.len()))
}

/// Returns the count of frames in a WebM by their blocks' heads.
fn blocks(webm: &[u8]) -> usize {
    let is_head =
        |bytes: &&[u8]| bytes[0] == 0xa3 && bytes[1..6] == [1, 0, 0, 0, 0] && bytes[9] == 0x81;
    webm.windows(13).filter(is_head).count()
}

#[test]
fn a_camera_comes_to_who_watches_and_costs_others_no_byte() {
    world("studio-camera", |lab| {
        let (_network, hosts) = network(lab, &["stage", "text", "kept", "late"])?;
        let [stage, text, kept, late] = crate::each(&hosts)?;
        let (folder, key, lcs) = with_camera(stage)?;
        let counted = groups_of_camera(&key)?;
        for host in [text, late] {
            count_tracks(host, &counted)?;
        }
        let _presenter = present(stage, &folder, &key)?;
        let held = kept.path("held");
        let hold = [
            "hold",
            &lcs,
            &held.display().to_string(),
            "--no-sound",
            "-i",
            "lc0",
        ];
        let mut holder = kept.spawn("lcstudio", &hold)?;
        let attender = attend(text, "text", &lcs, "")?;
        let joined = json!(["turn", "slides", "questions", "captions/en"]);
        eventually("the camera is named", || {
            told(&attender.process, "session", "joined", &joined)?;
            let said = attender.process.stdout();
            holds!(said.contains("\"camera\""), "{said}")
        })?;
        let watched = kept.path("watched.ivf");
        let watcher = watch(kept, &lcs, &watched, "")?;
        let base = counted["base"].to_string();
        eventually("the camera is watched and kept", || {
            let joined = groups(kept)?;
            ensure!(joined.contains(&base), "{joined:?}");
            holds!(held.join("log").exists(), "no log")
        })?;

        let film = stage.write("film.ivf", film(60))?;
        let mut camera = show(stage, &folder, &key, &film, "")?;
        until_shown(&watched, 25)?;
        let left_out = check(&shown(&watched)?)?;
        ensure!(left_out == 0, "{left_out} frames left out");
        // not one byte to who did not join
        for host in [text, late] {
            let bytes = bytes_of_tracks(host, &counted)?;
            ensure!(bytes.values().all(|bytes| *bytes == 0), "{bytes:?}");
        }

        // who comes late begins with the next key frame, and joins no repair
        let (begun, file) = (Instant::now(), late.path("late.ivf"));
        let late_watcher = watch(late, &lcs, &file, "")?;
        until_shown(&file, 1)?;
        println!(
            "first picture {} ms after the program began",
            begun.elapsed().as_millis()
        );
        until_shown(&file, 10)?;
        check(&shown(&file)?)?;
        let bytes = bytes_of_tracks(late, &counted)?;
        println!("late: {bytes:?} bytes");
        ensure!(bytes["base"] > 0 && bytes["smooth"] > 0, "{bytes:?}");
        drop((late_watcher, watcher));

        // killed, and begun again: another file of it, and a large picture for who asks for it
        camera.kill()?;
        let first = held.join("camera.webm");
        let large = format!("--large {}", film.display());
        let mut again = show(stage, &folder, &key, &film, &large)?;
        let second = held.join("camera-2.webm");
        exceeds(1_000, || Ok(fs::metadata(&second)?.len()))?;
        let file = late.path("large.ivf");
        let late_watcher = watch(late, &lcs, &file, "--large")?;
        until_shown(&file, 25)?;
        let of_large = counted["large"].to_string();
        eventually("the large picture takes the place of the small one", || {
            let joined = groups(late)?;
            let is_large = joined.contains(&of_large) && !joined.contains(&base);
            holds!(is_large, "{joined:?}")
        })?;
        let before = bytes_of_tracks(late, &counted)?;
        let shown_before = shown(&file)?.len();
        until_shown(&file, shown_before + 10)?;
        let bytes = bytes_of_tracks(late, &counted)?;
        ensure!(bytes["large"] > before["large"], "{bytes:?}");
        for name in ["base", "smooth"] {
            ensure!(bytes[name] == before[name], "{name}: {bytes:?}");
        }
        drop(late_watcher);
        again.signal(Signal::SIGINT)?;
        again.expect_exit(DEADLINE, 130)?;
        holder.signal(Signal::SIGTERM)?;
        holder.expect_exit(DEADLINE, 0)?;
        let (first, seen) = (fs::read(first)?, shown(&watched)?.len());
        println!("{} frames kept, {seen} watched", blocks(&first));
        ensure!(
            blocks(&first) >= seen,
            "{} and {seen} frames",
            blocks(&first)
        );
        ensure!(blocks(&fs::read(second)?) > 0);

        let out = kept.path("out").display().to_string();
        let held = held.display().to_string();
        kept.run("lcstudio", &["export", &held, &out])?.success()?;
        ensure!(fs::read(Path::new(&out).join("camera.webm"))? == first);
        let bytes = bytes_of_tracks(text, &counted)?;
        ensure!(bytes.values().all(|bytes| *bytes == 0), "{bytes:?}");
        refused(stage, &folder, &key)
    });
}

/// Another key, pipes without VP8, and a picture that is too large.
fn refused(stage: &Host, folder: &Path, key: &str) -> Result<()> {
    let (other, _, _) = keygen(stage, "other.key")?;
    let mut large = film(1);
    large[32 + 12 + 6..][..4].fill(0xff);
    let mut vp9 = film(1);
    vp9[11] = b'9';
    for (name, key, input, code, told) in [
        (
            "key",
            other.as_str(),
            &film(1)[..],
            4,
            "presents another session",
        ),
        (
            "gif",
            key,
            b"GIF89a and so on, and so on, and so on",
            1,
            "no IVF begins here",
        ),
        ("empty", key, b"", 1, "no IVF"),
        ("vp9", key, &vp9, 1, "the codec is not VP8"),
        ("large", key, &large, 1, "16383 x 16383 pixels"),
    ] {
        let file = stage.write(name, input)?;
        let mut process = show(stage, folder, key, &file, "")?;
        let exit = process.wait(DEADLINE)?;
        let said = process.stderr();
        ensure!(
            exit == code && said.contains(told),
            "{name}: {exit}: {said}"
        );
    }
    Ok(())
}

/// Width of the blocks that number a picture, in pixels; 16 of them.
const BLOCK: usize = 20;

/// Starts a camera whose pictures are numbered: 15 a second, in two layers, a key each 2 s.
fn show_numbered(stage: &Host, folder: &Path, key: &str, seconds: u32) -> Result<Process> {
    let blocks = format!(
        "format=gray,geq=lum='if(lt(Y,16),255*mod(floor(N/pow(2,floor(X/{BLOCK}))),2),lum(X,Y))'"
    );
    let source = format!("testsrc2=size=320x180:rate=15,{blocks}");
    let seconds = seconds.to_string();
    let layers = "ts_number_layers=2:ts_target_bitrate=90,150:ts_rate_decimator=2,1:ts_periodicity=2:ts_layer_id=0,1:ts_layering_mode=2";
    let args = format!(
        "-v error -re -f lavfi -i {source} -t {seconds} -pix_fmt yuv420p -c:v libvpx -deadline realtime -cpu-used 8 -b:v 150k -g 30 -error-resilient 1 -ts-parameters {layers} -f ivf -"
    );
    let args = crate::words(&args);
    let quoted = foreign("ffmpeg", &args)?
        .into_iter()
        .map(|arg| format!("\"{arg}\""));
    let encode = quoted.collect::<Vec<_>>().join(" ");
    let folder = folder.display();
    let command =
        format!("env {encode} | lcstudio camera {folder} --key {key} -i lc0 --log info -");
    stage.spawn("sh", &["-c", &command])
}

/// Decodes a file; returns the number of each picture.
fn decode(host: &Host, file: &Path) -> Result<Vec<u32>> {
    let (from, to) = (
        file.display().to_string(),
        host.path("decoded.raw").display().to_string(),
    );
    let args =
        format!("-v error -y -i {from} -fps_mode passthrough -pix_fmt gray -f rawvideo {to}");
    let args = crate::words(&args);
    let args = foreign("ffmpeg", &args)?;
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    host.run("env", &args)?.success()?;
    let number = |picture: &[u8]| {
        let is_white = |at: usize| picture[8 * 320 + at * BLOCK + BLOCK / 2] > 127;
        (0..16).filter(|at| is_white(*at)).map(|at| 1 << at).sum()
    };
    Ok(fs::read(&to)?.chunks_exact(320 * 180).map(number).collect())
}

/// Returns the share of time, in thousandths, for which a picture stood longer than 300 ms.
fn frozen(frames: &[Frame]) -> u64 {
    let gaps = frames.windows(2).map(|pair| pair[1].0 - pair[0].0);
    let frozen: u64 = gaps.map(|gap| gap.saturating_sub(300)).sum();
    let all = frames.last().map_or(0, |last| last.0) - frames.first().map_or(0, |first| first.0);
    frozen * 1_000 / all.max(1)
}

#[test]
#[ignore = "`make test-all`: ffmpeg, and a minute of film"]
fn a_camera_freezes_less_than_three_per_cent_of_the_time_where_five_are_lost() {
    world_alone("studio-camera-lossy", |lab| {
        let (_network, hosts) = network(lab, &["stage", "whole", "five", "twenty"])?;
        let [stage, whole, five, twenty] = crate::each(&hosts)?;
        let (folder, key, lcs) = with_camera(stage)?;
        let counted = groups_of_camera(&key)?;
        for (host, loss) in [(whole, 0), (five, 5), (twenty, 20)] {
            count_tracks(host, &counted)?;
            // of what lc0 delivers to programs: links have repaired by then
            host.nft(&format!(
                "add table inet lossy\n\
                 add chain inet lossy in {{ type filter hook prerouting priority 0; }}\n\
                 add rule inet lossy in iifname lc0 meta l4proto udp numgen random mod 100 < {loss} drop"
            ))?;
        }
        let _presenter = present(stage, &folder, &key)?;
        let held = whole.path("held").display().to_string();
        let hold = ["hold", &lcs, &held, "--no-sound", "-i", "lc0"];
        let mut holder = whole.spawn("lcstudio", &hold)?;
        let mut watching = Vec::new();
        for host in [whole, five, twenty] {
            watching.push(watch(host, &lcs, &host.path("watched.ivf"), "")?);
        }
        let base = counted["base"].to_string();
        eventually("all watch", || {
            for host in [whole, five, twenty] {
                ensure!(groups(host)?.contains(&base), "not yet");
            }
            Ok(())
        })?;
        sleep(Duration::from_secs(1));
        let mut camera = show_numbered(stage, &folder, &key, 90)?;
        camera.expect_exit(Duration::from_secs(150), 0)?;
        let said = camera.stderr();
        println!("{said}");
        let sent: usize = said
            .split_once(" frames sent")
            .and_then(|(before, _)| before.rsplit(' ').next()?.parse().ok())
            .context("the count of sent frames")?;
        let mut shares = Vec::new();
        for (host, loss) in [(whole, 0), (five, 5), (twenty, 20)] {
            let file = host.path("watched.ivf");
            let frames = shown(&file)?;
            let numbers = decode(host, &file)?;
            ensure!(
                numbers.windows(2).all(|pair| pair[0] < pair[1]),
                "{numbers:?}"
            );
            ensure!(numbers.len() == frames.len(), "each frame can be decoded");
            let share = frozen(&frames);
            let bytes = bytes_of_tracks(host, &counted)?;
            println!(
                "{loss} %: {} of {sent} frames, {share} of 1000 frozen, {bytes:?}",
                frames.len()
            );
            shares.push(share);
            if loss == 0 {
                ensure!(bytes["repair"] == 0, "{bytes:?}");
            }
        }
        ensure!(shares[1] < 30, "{shares:?}");

        holder.signal(Signal::SIGTERM)?;
        holder.expect_exit(DEADLINE, 0)?;
        let webm = format!("{held}/camera.webm");
        let args = format!(
            "-v error -count_frames -show_entries stream=codec_name,width,height,nb_read_frames -of csv=p=0 {webm}"
        );
        let args = crate::words(&args);
        let probe = foreign("ffprobe", &args)?;
        let probe: Vec<&str> = probe.iter().map(String::as_str).collect();
        let probed = whole.run("env", &probe)?.success()?;
        println!("{}{}", probed.stdout, probed.stderr);
        let kept = blocks(&fs::read(&webm)?);
        ensure!(
            probed.stdout.trim() == format!("vp8,320,180,{kept}"),
            "{kept}: {}",
            probed.stdout
        );
        let numbers = decode(whole, Path::new(&webm))?;
        ensure!(numbers.len() == kept && kept <= sent, "{kept} of {sent}");
        println!("kept {kept} of {sent} sent");
        Ok(())
    });
}
