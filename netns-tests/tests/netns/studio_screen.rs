//! A presenter's screen: exact for who loses packets and who comes late, no byte for all others.

use std::io::Cursor;

use image_webp::{ColorType, WebPDecoder, WebPEncoder};
use lcstudio_core::{ScreenSpace, SessionKey, TrackName};

use crate::prelude::*;
use crate::studio::{
    Typed, attend, bytes_of_tracks, count_tracks, groups, keygen, network, present, session, told,
    turn_on,
};
use crate::studio_pictures::hold;

const WIDTH: usize = 640;
const HEIGHT: usize = 360;

/// Pixels of a screen: red, green and blue of each.
#[derive(Clone, PartialEq, Eq)]
struct Pixels(Vec<u8>);

impl Pixels {
    /// A page of words that differ by its number.
    fn page(number: u32) -> Self {
        let mut page = Self(vec![250; WIDTH * HEIGHT * 3]);
        for line in 0..16 {
            for word in 0..10 {
                page.write(
                    8 + word * 62,
                    8 + line * 22,
                    number * 1_000 + (line * 10 + word) as u32,
                );
            }
        }
        page
    }

    /// Writes a word: letters of 5 x 7 random pixels.
    fn write(&mut self, x: usize, y: usize, word: u32) {
        let mut random = u64::from(word) * 2_654_435_761 + 88_172_645_463_325_252;
        for letter in 0..8 {
            for dot in 0..35 {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                let at = (y + dot / 5) * WIDTH + x + letter * 7 + dot % 5;
                self.0[at * 3..at * 3 + 3].fill(if random & 1 == 0 { 20 } else { 250 });
            }
        }
    }

    fn encode(&self) -> Result<Vec<u8>> {
        let mut file = Vec::new();
        let encoder = WebPEncoder::new(&mut file);
        encoder.encode(&self.0, WIDTH as u32, HEIGHT as u32, ColorType::Rgb8)?;
        Ok(file)
    }

    /// Draws the pictures of a holder, in the order of their names; the names say where.
    fn kept(folder: &str) -> Result<Self> {
        let mut names = Vec::new();
        for entry in fs::read_dir(Path::new(folder).join("screen"))? {
            names.push(entry?.path());
        }
        names.sort();
        let mut drawn = Self(vec![0; WIDTH * HEIGHT * 3]);
        let mut run = String::new();
        for path in names.iter().filter(|path| path.extension().is_some()) {
            let name = path.file_stem().context("no name")?.to_string_lossy();
            let parts: Vec<&str> = name.split('-').collect();
            let [of, _, size, x, y] = parts[..] else {
                bail!("{name}");
            };
            ensure!(size == format!("{WIDTH}x{HEIGHT}"), "{name}");
            if run != of {
                of.clone_into(&mut run);
                drawn.0.fill(0);
            }
            let (x, y): (usize, usize) = (x.parse()?, y.parse()?);
            let mut decoder = WebPDecoder::new(Cursor::new(fs::read(path)?))?;
            let width = decoder.dimensions().0 as usize;
            let mut pixels = vec![0; decoder.output_buffer_size().context("too large")?];
            decoder.read_image(&mut pixels)?;
            for (row, pixels) in pixels.chunks_exact(width * 3).enumerate() {
                let begin = ((y + row) * WIDTH + x) * 3;
                drawn.0[begin..begin + width * 3].copy_from_slice(pixels);
            }
        }
        Ok(drawn)
    }
}

fn until_exact(folder: &str, pixels: &Pixels) -> Result<()> {
    eventually("each pixel is as it was sent", || {
        let kept = Pixels::kept(folder)?;
        let differ = kept.0.iter().zip(&pixels.0).filter(|(a, b)| a != b).count();
        holds!(differ == 0, "{differ} bytes differ")
    })
}

/// The groups of the screen, by names of counters.
pub(crate) fn groups_of_screen(key: &str) -> Result<BTreeMap<String, Ipv6Addr>> {
    let secret = SessionKey::from_seed(&SecretKey::load(Path::new(key))?.seed());
    let owner = secret.track_key(&TrackName::Screen).peer_id();
    let space = ScreenSpace::new(&secret.session().space(owner));
    Ok([
        ("live".to_owned(), space.live()),
        ("carousel".to_owned(), space.carousel()),
    ]
    .into())
}

fn show(host: &Host, name: &str, folder: &Path, key: &str) -> Result<Typed> {
    let folder = folder.display();
    let command = format!("lcstudio screen {folder} --key {key} -i lc0 --log info -");
    Typed::start(host, name, &command)
}

#[test]
fn a_screen_is_exact_for_who_joined_and_no_byte_for_others() {
    world("studio-screen", |lab| {
        let (_network, hosts) = network(lab, &["stage", "text", "kept", "late"])?;
        let [stage, text, kept, late] = crate::each(&hosts)?;
        let (folder, key, lcs) = session(stage, None)?;
        turn_on(&folder, "screen")?;
        let counted = groups_of_screen(&key)?;
        for host in [text, late] {
            count_tracks(host, &counted)?;
        }
        // a fifth of what lc0 delivers to this host is lost
        kept.nft(
            "add table inet lossy\n\
             add chain inet lossy in { type filter hook prerouting priority 0; }\n\
             add rule inet lossy in iifname lc0 meta l4proto udp numgen random mod 100 < 20 drop",
        )?;
        // presented once before: that end is not this session's
        let mut before = present(stage, &folder, &key)?;
        before.types("q")?;
        before.process.wait(DEADLINE)?;
        let _presenter = present(stage, &folder, &key)?;
        let [held, held_late] = [kept, late].map(|host| host.path("held").display().to_string());
        let _holder = hold(kept, &held, &lcs)?;
        let attender = attend(text, "text", &lcs, "")?;
        let joined = json!(["turn", "slides", "questions", "captions/en"]);
        eventually("the screen is named", || {
            told(&attender.process, "session", "joined", &joined)?;
            let said = attender.process.stdout();
            holds!(said.contains("\"screen\""), "{said}")
        })?;

        let mut screen = show(stage, "screen", &folder, &key)?;
        let mut pixels = Pixels::page(1);
        screen.writes(&pixels.encode()?)?;
        until_exact(&held, &pixels)?;
        for word in 0..6 {
            pixels.write(8 + word * 62, 8 + word * 44, 77 + word as u32);
            screen.writes(&pixels.encode()?)?;
            until_exact(&held, &pixels)?;
        }
        // not one byte to who did not join
        for host in [text, late] {
            let bytes = bytes_of_tracks(host, &counted)?;
            ensure!(bytes.values().all(|bytes| *bytes == 0), "{bytes:?}");
        }

        // a late attender has the screen as it is, and leaves the carousel
        let _late = hold(late, &held_late, &lcs)?;
        until_exact(&held_late, &pixels)?;
        let (live, carousel) = (counted["live"].to_string(), counted["carousel"].to_string());
        eventually("the carousel is left", || {
            let joined = groups(late)?;
            holds!(
                joined.contains(&live) && !joined.contains(&carousel),
                "{joined:?}"
            )
        })?;
        let before = bytes_of_tracks(late, &counted)?;
        pixels.write(70, 30, 4_711);
        screen.writes(&pixels.encode()?)?;
        until_exact(&held_late, &pixels)?;
        let after = bytes_of_tracks(late, &counted)?;
        ensure!(after["carousel"] == before["carousel"]);
        println!("late: {before:?}, with one more word {after:?} bytes");
        println!("{}", screen.process.stderr());

        // killed, and begun again: another run, from its first picture on
        screen.process.kill()?;
        let mut again = show(stage, "again", &folder, &key)?;
        let page = Pixels::page(2);
        again.writes(&page.encode()?)?;
        for folder in [&held, &held_late] {
            until_exact(folder, &page)?;
        }
        again.process.signal(Signal::SIGINT)?;
        again.process.expect_exit(DEADLINE, 130)?;

        let bytes = bytes_of_tracks(text, &counted)?;
        ensure!(bytes.values().all(|bytes| *bytes == 0), "{bytes:?}");
        refused(stage, &folder, &key)
    });
}

/// Another key, and pipes without pictures.
fn refused(stage: &Host, folder: &Path, key: &str) -> Result<()> {
    let (other, _, _) = keygen(stage, "other.key")?;
    for (key, input, code, told) in [
        (other.as_str(), "", 4, "presents another session"),
        (key, "GIF89a, and so on", 1, "no PNG or WebP begins here"),
    ] {
        let mut process = show(stage, &format!("wrong{code}"), folder, key)?;
        process.writes(input.as_bytes())?;
        process.process.fails(DEADLINE, code, told)?;
    }
    Ok(())
}
