//! A station's descriptions: beacons, also with a valid signature, by its own key and by a grant;
//! announcements (SAP), descriptions (SDP), texts.
#![no_main]

use std::net::Ipv6Addr;
use std::time::Instant;

use lcradio_core::{Announcement, Beacon, Directory, Grant, Station, StationKey, read_description};
use libfuzzer_sys::fuzz_target;
use librecast::time::UnixTime;
use librecast::id::{SecretKey, derive};
use librecast::text::{TextKind, decode};

const SEED: [u8; 32] = [1; 32];
const CASTER: [u8; 32] = [2; 32];

fuzz_target!(init: lcroute_fuzz::seeds::write("radio_announcements"), |data: &[u8]| {
    let key = StationKey::from_seed(&SEED);
    for public in [true, false] {
        let _ = Beacon::decode(data, &key.station(public));
    }
    // the same with a signature: the fields after version and key
    let station = key.station(true);
    let caster = StationKey::from_seed(&CASTER);
    let grant = Grant::new(&key, true, &caster.id(), u64::MAX).encode();
    let grant = decode(TextKind::CastingGrant, &grant, 200).expect("it was written");
    let granted = [data.get(..data.len().saturating_sub(2)).unwrap_or_default(), &[0, 104], &grant[..104]].concat();
    for (seed, signer, data) in [(&SEED, &key, data), (&CASTER, &caster, &granted)] {
        let signing = SecretKey::from_seed(&derive("lcradio 2026 signing key", &[seed]));
        let mut signed = [&[1], &station.key().public_key()[..], data].concat();
        let signature = signing.sign("lcradio 2026 beacon", &signed);
        signed.extend(signature);
        if let Ok(beacon) = Beacon::decode(&signed, &station) {
            assert_eq!(beacon.grant.is_some(), *seed == CASTER);
            let again = beacon.encode(signer, &station, [0; 16]).expect("it was read");
            assert_eq!(Beacon::decode(&again, &station), Ok(beacon));
        }
    }
    if let Ok(announcement) = Announcement::read(data) {
        let again = announcement.write();
        assert_eq!(Announcement::read(&again), Ok(announcement));
    }
    if let Ok(description) = read_description(data) {
        assert!(description.group.is_multicast() && description.port != 0);
    }
    let mut directory = Directory::new(Instant::now());
    directory.handle_datagram(Ipv6Addr::LOCALHOST, data, Instant::now(), UnixTime::from_millis(lcroute_fuzz::TODAY * 1_000));
    if let Ok(station) = std::str::from_utf8(data).map(Station::decode)
        && let Ok(station) = station
    {
        assert_eq!(Station::decode(&station.encode()), Ok(station));
    }
    if let Ok(grant) = std::str::from_utf8(data).map(Grant::decode)
        && let Ok(grant) = grant
    {
        assert_eq!(Grant::decode(&grant.encode()), Ok(grant));
    }
});
