//! Pictures of a lecture: a track of their own, for its listeners, later attenders, and files.

use lcstudio_core::{SessionKey, TrackName};

use crate::prelude::*;
use crate::studio::{attend, count_tracks, groups, network, present, session, until_told};

/// CRC-32 of PNG (ISO 3309).
fn checksum(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = crc >> 1 ^ (0xedb8_8320 * (crc & 1));
        }
    }
    !crc
}

fn chunk(name: &[u8; 4], content: &[u8]) -> Vec<u8> {
    let named = [&name[..], content].concat();
    let length = (content.len() as u32).to_be_bytes();
    [&length[..], &named, &checksum(&named).to_be_bytes()].concat()
}

/// Returns a PNG for browsers: a red ground with stripes, uncompressed (RFC 1950, 1951).
pub(crate) fn png(width: u32, height: u32, stripes: u8) -> Vec<u8> {
    let mut rows = Vec::new();
    for row in 0..height {
        rows.push(0);
        for column in 0..width {
            let blue = (row ^ column) as u8 & stripes;
            rows.extend([200, 30, blue]);
        }
    }
    let (mut a, mut b) = (1_u32, 0_u32);
    for byte in &rows {
        a = (a + u32::from(*byte)) % 65_521;
        b = (b + a) % 65_521;
    }
    let mut stored = vec![0x78, 1];
    let blocks = rows.chunks(65_535);
    let last = blocks.len() - 1;
    for (at, block) in blocks.enumerate() {
        let length = block.len() as u16;
        stored.push(u8::from(at == last));
        stored.extend([length.to_le_bytes(), (!length).to_le_bytes()].concat());
        stored.extend(block);
    }
    stored.extend((b << 16 | a).to_be_bytes());
    let size = [width.to_be_bytes(), height.to_be_bytes()].concat();
    let head = [&size[..], &[8, 2, 0, 0, 0]].concat();
    let chunks = [
        chunk(b"IHDR", &head),
        chunk(b"IDAT", &stored),
        chunk(b"IEND", b""),
    ];
    [&b"\x89PNG\r\n\x1a\n"[..], &chunks.concat()].concat()
}

/// Returns the group of a track.
pub(crate) fn group_of(key: &str, track: &str) -> Result<std::net::Ipv6Addr> {
    let secret = SessionKey::from_seed(&SecretKey::load(Path::new(key))?.seed());
    let owner = secret.track_key(&track.parse::<TrackName>()?).peer_id();
    Ok(secret.session().space(owner).group())
}

const SLIDES: &str = "# Bees\n\n![two bees that dance](images/dance.png)\n\n---\n\n![where they go](images/map.png)\n\n---\n\n\
                      ![gone](images/gone.png) ![drawn](images/drawn.svg) ![much too large](images/large.png)\n";

pub(crate) fn hold(host: &Host, folder: &str, session: &str) -> Result<Process> {
    host.spawn(
        "lcstudio",
        &["hold", session, folder, "--no-sound", "-i", "lc0"],
    )
}

/// Exports a held session as a page; first stops the holder.
fn exported(host: &Host, held: &str, to: &str, holder: &mut Process) -> Result<()> {
    holder.signal(Signal::SIGTERM)?;
    holder.expect_exit(DEADLINE, 0)?;
    let out = host.path(to).display().to_string();
    host.run("lcstudio", &["export", held, &out])?.success()?;
    Ok(())
}

/// Returns the size of a track on a holder's disk.
fn held_bytes(folder: &str, track: &str) -> u64 {
    let file = Path::new(folder).join("log").join(track);
    fs::metadata(file).map_or(0, |file| file.len())
}

/// Returns the size of a picture on disk: 118 bytes an entry, and docs/protocol.md's formats.
fn stored(name: &str, bytes: &[u8]) -> u64 {
    let parts = bytes.len().div_ceil(980);
    let named = 118 + 32 + 4 + 1 + name.len();
    (named + parts * (118 + 8 + 2) + bytes.len()) as u64
}

fn until_held(folder: &str, bytes: u64) -> Result<()> {
    becomes(bytes, || Ok(held_bytes(folder, "pictures")))
}

#[test]
fn pictures_come_to_who_joined_them_to_who_is_late_and_into_exports() {
    world("studio-pictures", |lab| {
        let (mut network, hosts) = network(lab, &["stage", "text", "kept", "late"])?;
        let [stage, text, kept, late] = crate::each(&hosts)?;
        let (folder, key, lcs) = session(stage, None)?;
        let images = folder.join("images");
        let [dance, map] = [(180, 120, 0xff), (120, 100, 0x7f)].map(|(w, h, of)| png(w, h, of));
        fs::write(folder.join("slides.md"), SLIDES)?;
        fs::write(images.join("dance.png"), &dance)?;
        fs::write(images.join("map.png"), &map)?;
        fs::write(images.join("drawn.svg"), "<svg/>")?;
        fs::write(images.join("large.png"), vec![0; (1 << 20) + 1])?;
        let group = group_of(&key, "pictures")?;
        count_tracks(text, &[("pictures".to_owned(), group)].into())?;
        let held = [kept, late].map(|host| host.path("held").display().to_string());
        let mut holder = hold(kept, &held[0], &lcs)?;
        let mut presenter = present(stage, &folder, &key)?;
        let begun = Instant::now();
        // problems are reported by name before the session is on air
        let said = presenter.process.stderr();
        for (line, problem) in [
            (11, "picture images/gone.png: No such file"),
            (11, "picture images/drawn.svg: no PNG, JPEG, WebP or GIF"),
            (
                11,
                "picture images/large.png: 1048577 bytes, at most 1048576 are sent",
            ),
        ] {
            let line = format!("slides.md:{line}: {problem}");
            ensure!(said.contains(&line), "{line}: {said}");
        }
        // a terminal has the alt text, and gets no packet of the pictures
        let attender = attend(text, "text", &lcs, "")?;
        until_told(&attender.process, "slide", "number", &1.into())?;
        let two = stored("images/dance.png", &dance) + stored("images/map.png", &map);
        until_held(&held[0], two)?;
        println!(
            "{} bytes of pictures held {:?} after it was on",
            dance.len() + map.len(),
            begun.elapsed()
        );
        // another picture by the same name, as slides change
        let other = png(90, 60, 0x3f);
        fs::write(images.join("map.png"), &other)?;
        let all = two + stored("images/map.png", &other);
        until_held(&held[0], all)?;
        presenter.types("2")?;
        until_told(&attender.process, "slide", "number", &2.into())?;
        let counted = text.counter("tracks", "of_pictures")?.bytes;
        ensure!(counted == 0, "{counted} bytes came to who did not join");
        ensure!(!groups(text)?.contains(&group.to_string()));
        // the presenter has left: the holder supplies the pictures to a later attender
        presenter.types("q")?;
        presenter.process.expect_exit(DEADLINE, 0)?;
        network.members[0].stop()?;
        let begun = Instant::now();
        let mut second = hold(late, &held[1], &lcs)?;
        until_held(&held[1], all)?;
        eventually("the rest is held, too", || {
            for track in ["index", "slides", "turn"] {
                let [wanted, here] = [0, 1].map(|n| held_bytes(&held[n], track));
                ensure!(here == wanted, "{track}: {here} of {wanted} bytes");
            }
            Ok(())
        })?;
        println!("held by who was late after {:?}", begun.elapsed());
        exported(kept, &held[0], "talk.html", &mut holder)?;
        exported(late, &held[1], "talk", &mut second)?;
        let page = fs::read_to_string(kept.path("talk.html"))?;
        let late_page = fs::read_to_string(late.path("talk/session.html"))?;
        let differs = page.lines().zip(late_page.lines()).find(|(a, b)| a != b);
        ensure!(
            page == late_page,
            "{} and {} bytes: {differs:?}",
            page.len(),
            late_page.len()
        );
        ensure!(page.contains("<img src=\"data:image/png;base64,"), "{page}");
        ensure!(
            page.contains("alt=\"two bees that dance\"") && page.contains("alt=\"where they go\"")
        );
        for (name, bytes) in [("dance", &dance), ("map", &other)] {
            let written = fs::read(late.path(&format!("talk/images/{name}.png")));
            ensure!(written.context(name)? == *bytes, "{name} is another one");
        }
        Ok(())
    });
}
