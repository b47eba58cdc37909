//! What a station says of itself: beacons, also behind their signature and seal, announcements (SAP), descriptions (SDP), texts.
#![no_main]

use std::net::Ipv6Addr;
use std::time::Instant;

use lcradio_core::{Announcement, Beacon, Directory, Station, StationKey, read_description};
use libfuzzer_sys::fuzz_target;
use librecast::id::{SecretKey, derive};

const SEED: [u8; 32] = [1; 32];

fuzz_target!(init: lcroute_fuzz::seeds::write("radio_announcements"), |data: &[u8]| {
    let key = StationKey::from_seed(&SEED);
    for public in [true, false] {
        let _ = Beacon::decode(data, &key.station(public));
    }
    // the same behind the signature of the station: what follows version and key
    let signing = SecretKey::from_seed(&derive("lcradio 2026 signing key", &[&SEED]));
    let station = key.station(true);
    let mut signed = [&[1], &station.key().public_key()[..], data].concat();
    let signature = signing.sign("lcradio 2026 beacon", &signed);
    signed.extend(signature);
    if let Ok(beacon) = Beacon::decode(&signed, &station) {
        let again = beacon.encode(&key, &station, [0; 16]).expect("it was read");
        assert_eq!(Beacon::decode(&again, &station), Ok(beacon));
    }
    if let Ok(announcement) = Announcement::read(data) {
        let again = announcement.write();
        assert_eq!(Announcement::read(&again), Ok(announcement));
    }
    if let Ok(description) = read_description(data) {
        assert!(description.group.is_multicast() && description.port != 0);
    }
    let mut directory = Directory::new(Instant::now());
    directory.handle_datagram(Ipv6Addr::LOCALHOST, data, Instant::now());
    if let Ok(station) = std::str::from_utf8(data).map(Station::decode)
        && let Ok(station) = station
    {
        assert_eq!(Station::decode(&station.encode()), Ok(station));
    }
});
