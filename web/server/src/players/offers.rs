//! Everything that is offered: by the configuration, and by announcements of public stations.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{Ipv6Addr, SocketAddr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use lcradio_core::{Directory, SAP_GROUP, SAP_PORT, Station};
use lcroute_control::config::Players;
use librecast::time::UnixTime;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::streams::Wanted;
use crate::hear::{hear, receive};

/// Bytes of a station's announcement: a description of 4,096 with its head.
const MAX_ANNOUNCEMENT: usize = 4_608;
/// Pause before an interface that was not there is tried again, and between two looks at expiries.
const RETRY: Duration = Duration::from_secs(5);
/// Public stations in the list. Chosen: more than a person reads.
const MAX_LISTED: usize = 256;
/// Characters of names in addresses that stay as they are (RFC 3986, 2.3).
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// The offers of a host.
#[derive(Debug)]
pub struct Offers {
    groups: BTreeMap<String, SocketAddr>,
    stations: BTreeMap<String, Station>,
    /// Announced stations, if they are offered.
    announced: Option<Mutex<Directory>>,
}

/// A line of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    pub name: String,
    /// Paths from the root, the preferred one first.
    pub paths: Vec<String>,
    /// The group of a station.
    pub station: Option<Ipv6Addr>,
}

impl Offers {
    /// Reads the configuration.
    pub fn new(config: &Players, now: Instant) -> anyhow::Result<Self> {
        let mut stations = BTreeMap::new();
        for (name, text) in &config.stations {
            let station = Station::decode(&text.0)
                .map_err(|e| anyhow::anyhow!("[players] stations, {name}: {e}"))?;
            stations.insert(name.clone(), station);
        }
        Ok(Self {
            groups: config.groups.clone(),
            stations,
            announced: config.public.then(|| Mutex::new(Directory::new(now))),
        })
    }

    fn directory(&self) -> Option<MutexGuard<'_, Directory>> {
        let directory = self.announced.as_ref()?.lock();
        Some(directory.unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns the stream of a group, if it is offered.
    pub fn group(&self, at: SocketAddr) -> Option<Wanted> {
        let is_offered = self.groups.values().any(|offered| *offered == at);
        is_offered.then_some(Wanted::Group(at))
    }

    /// Returns a station with its name, if it is offered: by its name, or a public one by its text.
    pub fn station(&self, name: &str) -> Option<(Station, String)> {
        if let Some(station) = self.stations.get(name) {
            return Some((station.clone(), name.to_owned()));
        }
        let directory = self.directory()?;
        let by_text = Station::decode(name).ok();
        let mut found = directory.stations().into_iter().filter_map(|entry| {
            let description = &entry.description;
            let station = description.station.as_ref()?;
            let is_it = match &by_text {
                Some(wanted) => station == wanted,
                None => description.name == name,
            };
            is_it.then(|| (station.clone(), description.name.clone()))
        });
        let station = found.next()?;
        // one of two with the same name has to be asked for by its text
        found.next().is_none().then_some(station)
    }

    /// Returns the list.
    pub fn list(&self) -> Vec<Offer> {
        let groups = self.groups.iter().map(|(name, at)| Offer {
            name: name.clone(),
            paths: vec![format!("/udp/{}", path_of(*at))],
            station: None,
        });
        let stations = self.stations.iter();
        let stations = stations.map(|(name, station)| station_offer(name, name, station));
        let mut list: Vec<_> = groups.chain(stations).collect();
        if let Some(directory) = self.directory() {
            let all = directory.stations();
            let signed = all.iter().filter_map(|entry| {
                let description = &entry.description;
                Some((&description.name, description.station.as_ref()?))
            });
            let own: Vec<_> = self.stations.values().map(Station::group).collect();
            let further = signed.filter(|(_, station)| !own.contains(&station.group()));
            list.extend(further.take(MAX_LISTED).map(|(name, station)| {
                // names of others may be equal
                station_offer(name, &station.encode(), station)
            }));
        }
        list
    }

    /// Hears announcements of public stations for ever, if they are offered.
    pub async fn hear_announcements(&self, tun: &str) {
        if self.announced.is_none() {
            return;
        }
        let mut datagram = [0; MAX_ANNOUNCEMENT];
        let (mut socket, mut ticks) = (None, tokio::time::interval(RETRY));
        loop {
            if socket.is_none() {
                let opened = hear(tun, (SAP_GROUP, SAP_PORT).into());
                socket = opened
                    .inspect_err(|e| tracing::debug!("no announcements on {tun}: {e:#}"))
                    .ok();
            }
            tokio::select! {
                Some((from, len)) = receive(socket.as_ref(), &mut datagram) => {
                    if let Some(mut directory) = self.directory() {
                        let (now, time) = (Instant::now(), UnixTime::now());
                        directory.handle_datagram(from, &datagram[..len], now, time);
                    }
                }
                _ = ticks.tick() => {
                    if let Some(mut directory) = self.directory() {
                        directory.handle_timeout(Instant::now());
                    }
                }
            }
        }
    }
}

fn station_offer(name: &str, part: &str, station: &Station) -> Offer {
    let part = utf8_percent_encode(part, UNRESERVED);
    Offer {
        name: name.to_owned(),
        paths: ["ogg", "mp3"]
            .map(|form| format!("/station/{part}.{form}"))
            .to_vec(),
        station: Some(station.group()),
    }
}

/// Returns a group as a part of an address, where brackets are not allowed.
fn path_of(at: SocketAddr) -> String {
    at.to_string().replace('[', "%5B").replace(']', "%5D")
}

/// Returns the list for players.
pub fn m3u(list: &[Offer], host: &str) -> String {
    let mut text = "#EXTM3U\n".to_owned();
    for offer in list {
        // names of others have no control characters, or their announcements were dropped
        let name: String = offer.name.chars().filter(|c| !c.is_control()).collect();
        if let Some(path) = offer.paths.first() {
            // a string takes anything
            let _ = writeln!(text, "#EXTINF:-1,{name}\nhttp://{host}{path}");
        }
    }
    text
}

/// Returns the list as a page. `state` is a station's.
pub fn page(list: &[Offer], state: impl Fn(Ipv6Addr) -> Option<String>, foot: &str) -> String {
    let mut text = "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\">\
        <meta name=\"viewport\" content=\"width=device-width\">\
        <title>Groups and stations</title>\n<h1>Groups and stations</h1>\n\
        <p><a href=\"/list.m3u\">The list for players</a></p>\n<ul>\n"
        .to_owned();
    for offer in list {
        let _ = write!(text, "<li>{}", escape(&offer.name));
        if let Some(group) = offer.station {
            let state = state(group).map_or(String::new(), |state| format!(" ({state})"));
            let _ = write!(text, "{}", escape(&state));
            if let Some(path) = offer.paths.first() {
                let player = "<audio controls preload=\"none\"";
                let _ = write!(text, "<br>{player} src=\"{}\"></audio>", escape(path));
            }
        }
        for path in &offer.paths {
            let path = escape(path);
            let _ = write!(text, " <a href=\"{path}\">{path}</a>");
        }
        text.push_str("</li>\n");
    }
    let _ = writeln!(text, "</ul>\n<p>{}</p></html>", escape(foot));
    text
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use lcradio_core::StationKey;
    use lcroute_control::config::StationText;

    use super::*;

    fn offers() -> (Offers, Station) {
        let station = StationKey::from_seed(&[7; 32]).station(false);
        let mut config = Players::default();
        let camera = "[ff1e::42]:5004".parse().unwrap();
        config.groups.insert("camera".into(), camera);
        let text = StationText(station.encode().to_string());
        config.stations.insert("my news".into(), text);
        (Offers::new(&config, Instant::now()).unwrap(), station)
    }

    #[test]
    fn only_named_groups_and_stations_are_offered() {
        let (offers, station) = offers();
        for (at, is_offered) in [
            ("[ff1e::42]:5004", true),
            ("[ff1e::42]:5005", false),
            ("[ff1e::43]:5004", false),
        ] {
            let offered = offers.group(at.parse().unwrap());
            assert_eq!(offered.is_some(), is_offered, "{at}");
        }
        assert!(offers.station("my news").is_some());
        let public = StationKey::from_seed(&[8; 32]).station(true).encode();
        let private = station.encode();
        for name in ["news", "", &private[..], &public[..]] {
            assert!(offers.station(name).is_none(), "{name}");
        }
    }

    #[test]
    fn the_list_has_addresses_without_the_text_of_a_private_station() {
        let (offers, station) = offers();
        let list = offers.list();
        let m3u = m3u(&list, "alpha:7182");
        assert_eq!(
            m3u,
            "#EXTM3U\n#EXTINF:-1,camera\nhttp://alpha:7182/udp/%5Bff1e::42%5D:5004\n\
             #EXTINF:-1,my news\nhttp://alpha:7182/station/my%20news.ogg\n"
        );
        let state = |group| (group == station.group()).then(|| "it has <ended>".to_owned());
        let page = page(&list, state, "1 client");
        assert!(page.contains("my news (it has &lt;ended&gt;)"), "{page}");
        assert!(
            !page.contains("lcr1") && page.contains("/station/my%20news.mp3"),
            "{page}"
        );
    }

    #[test]
    fn a_damaged_text_is_named_and_not_shown() {
        let mut config = Players::default();
        let text = StationText("lcr1secret".into());
        config.stations.insert("news".into(), text);
        let error = Offers::new(&config, Instant::now())
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("news") && !error.contains("secret"),
            "{error}"
        );
    }
}
