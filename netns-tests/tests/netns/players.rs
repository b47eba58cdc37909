//! `[players]`: groups and stations of lc0 over HTTP, for programs that know nothing of lcroute.

use lcradio_core::{CLOCK_RATE, OggWriter};

use crate::prelude::*;
use crate::radio::{RADIO, cast, key_of, write_chirp};
use crate::web::serve;

const PLAYERS: &str = "127.0.0.1:7182";
const ICECAST: &str = "127.0.0.1:8000";
const GROUP: &str = "ff1e::42";
/// The group, as the kernel prints it.
const PRINTED: &str = "ff1e0000000000000000000000000042";
/// Bytes of a packet of MPEG-TS.
const TS_PACKET: usize = 188;

/// Sends numbered packets of MPEG-TS by RTP.
const SENDER: &str = r"
import socket, sys, time
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
to, n = (sys.argv[1], 5004, 0, socket.if_nametoindex('lc0')), 0
while True:
    rtp = b'\x80\x21' + (n & 0xffff).to_bytes(2, 'big') + bytes(4) + b'\0\0\0\7'
    s.sendto(rtp + b'\x47' + n.to_bytes(4, 'big') + bytes(183), to)
    n += 1
    time.sleep(0.005)
";

/// Starts a client that writes what it gets to a file.
fn curl(host: &Host, path: &str, to: &str) -> Result<(Process, PathBuf)> {
    let file = host.path(to);
    let url = format!("http://{PLAYERS}{path}");
    let name = file.display().to_string();
    Ok((host.spawn("curl", &["-sgfN", "-o", &name, &url])?, file))
}

/// Returns status and body of a short answer.
fn ask(host: &Host, path: &str) -> Result<(String, String)> {
    let url = format!("http://{PLAYERS}{path}");
    let said = host.ask("curl", &["-sg", "-w", "\n%{http_code}", &url])?;
    let said = said.success()?.stdout;
    let (body, status) = said.rsplit_once('\n').context("no status")?;
    Ok((status.to_owned(), body.to_owned()))
}

fn has_bytes(file: &Path, least: u64) -> Result<()> {
    let size = fs::metadata(file).map_or(0, |m| m.len());
    ensure!(size >= least, "{}: {size} bytes", file.display());
    Ok(())
}

/// Returns the number of sockets that have joined the group on lc0.
fn joins(host: &Host) -> Result<u64> {
    let joined = host.ask("cat", &["/proc/net/igmp6"])?.success()?.stdout;
    let mut lines = joined
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>());
    let line = lines.find(|words| words.get(2) == Some(&PRINTED));
    line.map_or(Ok(0), |words| Ok(words.get(3).context("users")?.parse()?))
}

#[test]
fn players_get_a_group_by_one_join_and_without_clients_there_is_none() {
    world("players", |lab| {
        let hosts = lab.hosts_in_a_row(&["a", "b"])?;
        let named = format!("groups = {{ camera = \"[{GROUP}]:5004\" }}");
        for host in &hosts {
            host.configure(&format!("[players]\nlisten = \"{PLAYERS}\"\n{named}\n"))?;
        }
        let mut network = lab.network(hosts)?;
        network.members.iter_mut().try_for_each(Member::start)?;
        let [a, b] = network.nodes()?;
        a.wait_links(1)?;
        let (_pages, _) = serve(&b.host)?;
        let _sender = a.host.spawn("python3", &["-c", SENDER, GROUP])?;
        ensure!(joins(&b.host)? == 0, "nobody listens");
        let path = format!("/udp/[{GROUP}]:5004");
        let mut clients = ["first", "second", "third"]
            .iter()
            .map(|to| {
                curl(
                    &b.host,
                    &path.replace("udp", if *to == "third" { "rtp" } else { "udp" }),
                    to,
                )
            })
            .collect::<Result<Vec<_>>>()?;
        a.wait_wanted(GROUP, b)?;
        for (_, file) in &clients {
            eventually("packets", || has_bytes(file, 300 * TS_PACKET as u64))?;
            let bytes = fs::read(file)?;
            let packets = bytes.chunks_exact(TS_PACKET);
            let numbers = packets.map(|packet| {
                (
                    packet[0],
                    u32::from_be_bytes([packet[1], packet[2], packet[3], packet[4]]),
                )
            });
            let numbers: Vec<_> = numbers.collect();
            ensure!(numbers.iter().all(|(sync, _)| *sync == 0x47));
            let gaps = numbers.windows(2).filter(|pair| pair[1].1 != pair[0].1 + 1);
            ensure!(
                gaps.count() == 0,
                "{}: in order, without gaps",
                file.display()
            );
        }
        ensure!(joins(&b.host)? == 1, "one join for three clients");
        let (status, list) = ask(&b.host, "/list.m3u")?;
        ensure!(
            status == "200" && list.contains("camera\nhttp://127.0.0.1:7182/udp/"),
            "{list}"
        );
        let (status, told) = ask(&b.host, "/udp/[ff1e::43]:5004")?;
        ensure!(
            status == "404" && told.contains("/udp/%5Bff1e::42%5D:5004"),
            "{status}: {told}"
        );
        let (status, _) = ask(&b.host, "/api/watch")?;
        ensure!(status == "404", "{status}");
        for (client, _) in &mut clients {
            client.kill()?;
        }
        eventually("no client, no join", || {
            let joins = joins(&b.host)?;
            ensure!(joins == 0, "{joins}");
            Ok(())
        })?;
        a.wait_unwanted(GROUP, b)
    });
}

#[test]
fn a_station_is_one_chain_of_ogg_that_ends_with_it() {
    world("players-station", |lab| {
        let hosts = lab.hosts_in_a_row(&["a", "b"])?;
        let (key, station, _) = key_of(&hosts[0], "station.key")?;
        let text = station.encode();
        hosts[1].configure(&format!(
            "[players]\nlisten = \"{PLAYERS}\"\nstations = {{ news = \"{}\" }}\n",
            *text
        ))?;
        let mut network = lab.network(hosts)?;
        network.members.iter_mut().try_for_each(Member::start)?;
        let [a, b] = network.nodes()?;
        a.wait_links(1)?;
        let (_pages, _) = serve(&b.host)?;
        let chirp = write_chirp(&a.host, 60)?;
        let mut caster = cast(&a.host, &chirp, &format!("--key {key} -i lc0"))?;
        let (mut client, file) = curl(&b.host, "/station/news.ogg", "news.ogg")?;
        eventually("seconds of sound", || has_bytes(&file, 40_000))?;
        caster.stop()?;
        let code = client.wait(DEADLINE)?;
        ensure!(code == 0, "the answer ends with the station: {code}");
        let bytes = fs::read(&file)?;
        let begins = bytes
            .windows(6)
            .filter(|w| w[..4] == *b"OggS" && w[5] & 2 != 0);
        ensure!(begins.count() == 1, "one chain");
        ensure!(bytes.windows(8).any(|w| w == b"OpusHead"), "Opus");
        let ends = bytes
            .windows(6)
            .filter(|w| w[..4] == *b"OggS" && w[5] & 4 != 0);
        ensure!(ends.count() == 1, "with an end");
        eventually("the list says so", || {
            let (_, page) = ask(&b.host, "/list/")?;
            ensure!(page.contains("news (it has ended)"), "{page}");
            ensure!(!page.contains(text.as_str()), "the text is a secret");
            Ok(())
        })
    });
}

/// Returns a song whose packets have numbers.
fn song(packets: u16) -> Result<Vec<u8>> {
    let mut song = OggWriter::new(Vec::new(), 7, 2, "Tea", CLOCK_RATE)?;
    for n in 0..packets {
        let [high, low] = n.to_be_bytes();
        song.write(vec![31 << 3, b'P', b'K', high, low], 960)?;
    }
    song.finish()?;
    Ok(std::mem::take(song.out_mut()))
}

/// Returns the numbers in a stream.
fn numbers(file: &Path) -> Vec<u16> {
    let bytes = fs::read(file).unwrap_or_default();
    let found = bytes.windows(5).filter(|w| w[..3] == [31 << 3, b'P', b'K']);
    found.map(|w| u16::from_be_bytes([w[3], w[4]])).collect()
}

#[test]
fn sound_for_icecast_comes_to_players_as_it_was_sent() {
    world("players-icecast", |lab| {
        let hosts = lab.hosts_in_a_row(&["a", "b"])?;
        let (key, station, _) = key_of(&hosts[0], "station.key")?;
        let text = station.encode();
        hosts[1].configure(&format!(
            "[players]\nlisten = \"{PLAYERS}\"\nstations = {{ news = \"{}\" }}\n",
            *text
        ))?;
        let mut network = lab.network(hosts)?;
        network.members.iter_mut().try_for_each(Member::start)?;
        let [a, b] = network.nodes()?;
        a.wait_links(1)?;
        let (_pages, _) = serve(&b.host)?;
        let password = a.host.write("password", "hackme\n")?;
        fs::set_permissions(&password, PermissionsExt::from_mode(0o600))?;
        let password = password.display().to_string();
        let args = ["cast", "--key", &key, "-i", "lc0", "--icecast", ICECAST];
        let args = [&args[..], &["--icecast-password", &password[..]]].concat();
        let caster = a.host.spawn(RADIO, &args)?;
        eventually("it waits for a source", || {
            let told = caster.stderr();
            ensure!(told.contains("waits for a source"), "{told}");
            Ok(())
        })?;
        let title = format!("http://{ICECAST}/admin/metadata?mode=updinfo&song=x");
        let wrong = ["-s", "-w", "%{http_code}", "-u", "source:guess", &title];
        let told = a.host.ask("curl", &wrong)?.success()?.stdout;
        ensure!(told == "401", "{told}");
        let song = a.host.write("song.opus", song(3_000)?)?;
        let song = song.display().to_string();
        let url = format!("http://{ICECAST}/live");
        let _source = a
            .host
            .spawn("curl", &["-s", "-u", "source:hackme", "-T", &song, &url])?;
        let (_client, file) = curl(&b.host, "/station/news.ogg", "news.ogg")?;
        eventually("two seconds of packets", || {
            let numbers = numbers(&file);
            ensure!(numbers.len() > 100, "{} packets", numbers.len());
            let gaps = numbers.windows(2).filter(|pair| pair[1] != pair[0] + 1);
            ensure!(gaps.count() == 0, "{numbers:?}");
            Ok(())
        })?;
        let (_, page) = ask(&b.host, "/list/")?;
        ensure!(page.contains("news (on air: Tea)"), "{page}");
        Ok(())
    });
}
