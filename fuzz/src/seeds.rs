//! Seeds of the corpora, written by the project's own code, so that they stay current.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::time::Duration;

use lcradio_core::{
    Announcement, CLOCK_RATE, FRAME, OggWriter, PAYLOAD_TYPE, Profile, RtpHeader, StationKey, describe,
};
use lcroute_engine::SourceFilter;
use lcroute_engine::carry::CarryRequest;
use lcroute_engine::control::{Batch, Element, JoinState, LeafJoin, LeafOffer};
use lcroute_engine::header::{DataHeader, Payload};
use lcroute_node::report::{FlowEdge, GroupFlow, Report};
use lcroute_overlay::Random;
use lcroute_overlay::proof::{ProofKey, RelayReply, prove};
use lcroute_overlay::server::{RelayCredentials, Role, Room, ToNode, ToServer};
use lcstudio_core::{
    Area, CameraPacket, CameraSize, Caption, Deck, DeckWriter, IndexEntry, Part, Piece, Presence, ScreenPacket, SlideId, Turn,
    ivf_frame, ivf_header,
};
use lcsync::block::BlockRef;
use lcsync::tree::{Root, RootKind, Stream};
use librecast::time::UnixTime;
use librecast::cert::{Certificate, Grant, GroupPrefix, Kind, Token};
use librecast::id::OriginId;
use librecast::mld::{self, Query, Record, RecordType};
use librecast::epoch::{Epoch, EpochSecret};
use librecast::reach::{Base58, FromReach, RoomState, State, Value};
use librecast::revocation::Revocation;
use librecast::text::{TextKind, encode};
use librecast::text_network::{TextKey, attest};
use librecast::{igmp, mapped};

use crate::{TODAY, chain, key};

/// Writes the seeds of a target into its corpus, if that exists.
pub fn write(target: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(target);
    if folder.is_dir() {
        for (n, seed) in of(target).into_iter().enumerate() {
            // without them fuzzing only takes longer
            let _ = std::fs::write(folder.join(format!("seed-{n:02}")), seed);
        }
    }
}

fn of(target: &str) -> Vec<Vec<u8>> {
    match target {
        "certificates" => certificates(),
        "datagrams" => datagrams(),
        "dtls" => dtls(),
        "engine" => engine(),
        "engine_codecs" => [control(), vec![header(), udp(), carry()]].concat(),
        "entry_log" => entries(),
        "homeserver" => homeservers(),
        "group_texts" => group_texts(),
        "guest_socket" => guest_socket(),
        "igmp" => igmp_packets(),
        "lan" => lan(),
        "segment" => segment(),
        "leaves" => leaves(),
        "offload" => offload(),
        "presence" => presence(),
        "lcagent" => lcagent_datagrams(),
        "lcsync" => lcsync_blocks(),
        "mld" => mld_packets(),
        "port_mapping" => port_mappings(),
        "private" => vec![udp()],
        "radio_announcements" => radio_announcements(),
        "radio_clock" => radio_clock(),
        "radio_packets" => radio_packets(),
        "streams" => streams(),
        "studio" => studio(),
        "players" => players(),
        "radio_files" => radio_files(),
        "reach_lines" => reach_lines(),
        "parity" => parities(),
        "relay" => relay(),
        "renewal" => renewals(),
        "reports" => reports(),
        "screen_part" => screen(),
        "sctp" => sctp(),
        "sdp" => local_descriptions(),
        "settings" => settings(),
        "signalling" => signalling(),
        "signals" => signals(),
        "srtp" => vec![
            [&[0x80, 0xe0][..], &[7; 40]].concat(),
            [&[0x81, 204, 0, 9][..], &[7; 40]].concat(),
        ],
        "stun" => lcroute_webrtc::address_request([7; 12])
            .into_iter()
            .collect(),
        "text" => texts(),
        "text_record" => vec![text_record(0), text_record(1)],
        "vp8_payload" => camera(),
        "web_bodies" => web_bodies(),
        _ => Vec::new(),
    }
}

/// Joins pieces for [`crate::pieces`], after the target's first bytes.
fn input<const N: usize>(head: &[u8], pieces: [&[u8]; N]) -> Vec<u8> {
    let mut input = head.to_vec();
    for piece in pieces {
        input.extend((piece.len() as u16).to_be_bytes());
        input.extend(piece);
    }
    input
}

/// Returns records of another account; the same with an invalid value, as servers may send them.
fn homeservers() -> Vec<Vec<u8>> {
    let name = Base58([7; 32]);
    let until = TODAY + 86_400;
    let content = serde_json::json!({ "records": { (name.to_string()): { "sealed": Value(vec![7; 256]), "until": until } } });
    let content = [&[2, 0, 1][..], content.to_string().as_bytes()].concat();
    let any = [&[3, 0, 1][..], br#"{"next_batch":"s2","rooms":{"join":{"!r:b":{"state":{"events":[{}]}}}}}"#].concat();
    let wait = [&[3, 208, 1][..], br#"{"errcode":"M_LIMIT_EXCEEDED","retry_after_ms":70000}"#].concat();
    let line = FromReach::Kept { account: "@a:b".into(), name, value: Value(vec![7; 256]) };
    vec![
        input(&[], [&[0, 0, 0][..], &content, &content]),
        input(&[], [&[0, 0, 0][..], &any, &wait]),
        serde_json::to_vec(&line).unwrap(),
    ]
}

/// Returns files with a name, and the text of a holding key.
fn group_texts() -> Vec<Vec<u8>> {
    let signer = key(3).peer_id();
    let name = "it's plans";
    let files = [
        &[0, 1, name.len() as u8][..],
        name.as_bytes(),
        &[7; 32],
        signer.public_key(),
    ];
    let holding = [&signer.public_key()[..], &[7; 32]].concat();
    let text = encode(TextKind::HoldingKey, &holding);
    vec![files.concat(), holding, text.as_bytes().to_vec(), b"words".to_vec()]
}

/// Returns leaves that join, filter, leave and return, and send forbidden messages.
fn leaves() -> Vec<Vec<u8>> {
    let joins: Vec<u8> = (0..32_u8).flat_map(|n| [n % 2, n, n, n]).collect();
    let of = |what: u8, bytes: &[u8]| [&[what, 1], bytes].concat();
    let any = control().concat();
    vec![
        input(&[], [&of(4, &joins), &of(0x44, &joins), &of(3, b"data"), &of(0x82, &[])]),
        input(&[], [&of(5, &joins[..64]), &of(0, &any), &of(0x41, &header())]),
    ]
}

/// Returns joins, datagrams, queries, and packets as they are.
fn guest_socket() -> Vec<Vec<u8>> {
    let of = |kind: u8, n: u8, bytes: &[u8]| [&[kind, n], bytes].concat();
    let whole = mld_packets().into_iter().map(|packet| of(0, 0, &packet));
    let packets: Vec<_> = whole.chain([of(0, 0, &udp()), of(0, 0, b"")]).collect();
    let joined = vec![of(3, 1, b""), of(0x43, 2, b""), of(1, 1, b"data"), of(5, 8, b"seconds")];
    let left = vec![of(7, 1, b"a sent one"), of(4, 1, b""), of(0x81, 2, b"data"), of(6, 4, b"x")];
    let framed = |pieces: &[Vec<u8>]| pieces.iter().flat_map(|piece| input(&[], [piece.as_slice()])).collect();
    vec![framed(&[joined.clone(), left].concat()), framed(&[joined, packets].concat())]
}

/// Returns packets of RTP in a wrong order, a source, and a title.
fn players() -> Vec<Vec<u8>> {
    let packet = |sequence: u8| [&[0x80, 33, 0, sequence][..], &[0; 8], &[0x47; 188]].concat();
    let packets = [7, 8, 10, 9].map(packet);
    let proof = "Authorization: Basic c291cmNlOmhhY2ttZQ==\r\n";
    let source = format!("PUT /live HTTP/1.1\r\n{proof}Expect: 100-continue\r\nice-name: Home\r\n\r\nOggS");
    let title = format!("GET /admin/metadata?mode=updinfo&song=Tea+%C3%BC HTTP/1.0\r\n{proof}\r\n");
    vec![
        input(&[], packets.each_ref().map(Vec::as_slice)),
        source.into_bytes(),
        title.into_bytes(),
    ]
}

/// Returns an Ogg file of `lcradio`, and a WAV file.
fn radio_files() -> Vec<Vec<u8>> {
    let wav = [
        &b"RIFF\0\0\0\0WAVELIST\x03\0\0\0abc\0fmt \x10\0\0\0\x01\0\x02\0"[..],
        &CLOCK_RATE.to_le_bytes(),
        &[0; 6],
        &[16, 0],
        b"data\x04\0\0\0abcd",
    ];
    let mut ogg = OggWriter::new(Vec::new(), 7, 2, "seed", CLOCK_RATE).unwrap();
    for packet in [&[0xf8, 1][..], &[0xf8, 2, 3]] {
        ogg.write(packet.to_vec(), 960).unwrap();
    }
    ogg.finish().unwrap();
    vec![
        std::mem::take(ogg.out_mut()),
        wav.concat(),
        input(&[], [&[0xf8, 1][..], &[0xf8, 2, 3], &[7; 300]]),
    ]
}

/// Returns every line of lcroute-reach.
fn reach_lines() -> Vec<Vec<u8>> {
    let (key, value) = (Base58([1; 32]), Value(vec![7; 300]));
    let dropped = std::collections::BTreeMap::from([("malformed".to_owned(), 3)]);
    let room = RoomState {
        open: true,
        values: 2,
        problem: Some("no answer".into()),
        dropped: dropped.clone(),
    };
    let state = State {
        nodes: 9,
        held: 1,
        outer: Some([203, 0, 113, 5].into()),
        dropped,
    };
    let lines = [
        FromReach::Seen { key, value: value.clone() },
        FromReach::Kept { account: "@a:b".into(), name: key, value },
        FromReach::State(state),
        FromReach::Room(room),
    ];
    lines.iter().map(|line| serde_json::to_vec(line).unwrap()).collect()
}

/// Returns a hello and each answer, without their lengths (docs/protocol.md §11).
fn streams() -> Vec<Vec<u8>> {
    let all: [&[u8]; 6] = [
        b"\x01\x01\x02\x04/x/2\x02/y",
        b"\x01\x00\x01\x0a/voice/rtp",
        b"\x00\x01",
        b"\x01\x01\x02/z",
        b"\x02",
        b"\x03",
    ];
    all.map(<[u8]>::to_vec).into()
}

/// Returns requests of a page, and requests of programs to the daemon.
fn web_bodies() -> Vec<Vec<u8>> {
    let all = [
        r#"{"code":"abc","ttl_s":3600,"uses":2,"page":"https://a.example/x/"}"#,
        r#"{"code":"abc","ttl_s":3600,"uses":null,"page":"http://[::1]:7180"}"#,
        r#"{"cmd":"announce","prefix":"ff1e::/16"}"#,
        r#"{"cmd":"reload","exec":true}"#,
        r#"{"cmd":"status"}"#,
    ];
    all.map(|text| text.as_bytes().to_vec()).into()
}

fn invitation_of(day: u64) -> Grant {
    Grant::new("", (day, day + 3_600))
}

/// Returns chains of member 10 to renew: by a token for any number of nodes, for two, for one.
fn renewals() -> Vec<Vec<u8>> {
    let chain = chain(10);
    let request = |uses| {
        let invitation = Grant {
            uses,
            ..invitation_of(TODAY)
        };
        let token = Token::invite(chain.issuer(), &key(2), invitation, Vec::new()).unwrap();
        let chain = token.join(key(10).peer_id(), "node", UnixTime::from_secs(TODAY)).unwrap();
        [&[0][..], &chain.encode()].concat()
    };
    let requests = [None, Some(2), Some(1)].map(request);
    let framed = |piece: &Vec<u8>| [&(piece.len() as u16).to_be_bytes()[..], piece].concat();
    vec![requests.iter().flat_map(framed).collect()]
}

fn port_mappings() -> Vec<Vec<u8>> {
    let description = "<root><URLBase>http://192.0.2.1:5000/</URLBase><service><serviceType>\
        urn:schemas-upnp-org:service:WANIPConnection:1</serviceType><controlURL>/ctl</controlURL></service></root>";
    let found = "HTTP/1.1 200 OK\r\nLOCATION: http://192.0.2.1:5000/rootDesc.xml\r\n\r\n";
    let length = description.len();
    let counted = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{description}");
    let chunked = format!("{length:x}\r\n{description}\r\n0\r\n\r\n");
    let soap = "<s:Envelope><u:r><NewExternalIPAddress>203.0.113.1</NewExternalIPAddress></u:r></s:Envelope>";
    let texts = [(0, found), (1, &counted), (3, &chunked), (1, soap)];
    let seed = |(how, text): (u8, &str)| [&[how], text.as_bytes()].concat();
    texts.into_iter().map(seed).collect()
}

fn local_descriptions() -> Vec<Vec<u8>> {
    let fingerprint = vec!["AB"; 32].join(":");
    let sdp = format!(
        "v=0\r\na=ice-ufrag:abcd\r\na=ice-pwd:0123456789abcdefghijkl\r\na=fingerprint:sha-256 {fingerprint}\r\n\
         a=candidate:1 1 udp 2122260223 192.0.2.7 50000 typ host generation 0\r\n\
         a=candidate:2 1 udp 1686052607 2001:db8::7 50001 typ srflx raddr :: rport 0\r\n"
    );
    vec![sdp.into_bytes()]
}

fn certificates() -> Vec<Vec<u8>> {
    let chain = chain(10);
    let revoked = key(12).peer_id();
    let until = TODAY + 86_400;
    let invitation = invitation_of(TODAY);
    let urls = vec!["wss://signal.example.org".to_owned()];
    let token = Token::invite(chain.issuer(), &key(2), invitation, urls).unwrap();
    let bounded = Grant {
        uses: Some(2),
        ..invitation_of(TODAY)
    };
    let bounded = Token::invite(chain.issuer(), &key(2), bounded, Vec::new()).unwrap();
    let by_bounded = bounded.join(key(10).peer_id(), "node", UnixTime::from_secs(TODAY)).unwrap();
    let by_issuer = Revocation::by_issuer(chain.issuer(), &key(2), revoked, UnixTime::from_secs(TODAY), until);
    let by_network = Revocation::by_network(&key(1), revoked, UnixTime::from_secs(TODAY), until);
    let made = (1, [0; 32], EpochSecret::new([7; 32]));
    let epoch = Epoch::sign(made, by_network.clone().unwrap(), Some(chain.issuer()), &key(2));
    let mut at_epoch = Token::invite(chain.issuer(), &key(2), invitation_of(TODAY), Vec::new()).unwrap();
    at_epoch.epoch = Some((1, EpochSecret::new([7; 32])));
    vec![
        chain.encode(),
        by_bounded.encode(),
        bounded.invitation().as_bytes().to_vec(),
        chain.node().as_bytes().to_vec(),
        by_issuer.unwrap().as_bytes().to_vec(),
        by_network.unwrap().as_bytes().to_vec(),
        epoch.unwrap().as_bytes().to_vec(),
        at_epoch.encode().as_bytes().to_vec(),
        token.encode().as_bytes().to_vec(),
        key(10).peer_id().to_string().into_bytes(),
    ]
}

fn group(n: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xff1e, 0, 0, 0, 0, 0, 0, n)
}

fn mld_packets() -> Vec<Vec<u8>> {
    let host = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
    let source = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);
    let records = (1..=6).filter_map(RecordType::from_code);
    let records: Vec<_> = records
        .map(|kind| Record::new(kind, group(1), vec![source]))
        .collect();
    let query = Query {
        group: Some(group(1)),
        max_response: Duration::from_secs(1),
        suppress_router_processing: false,
        robustness: 2,
        query_interval: Duration::from_secs(125),
        sources: vec![source],
        truncated: false,
        version_1: false,
    };
    let v1 = [true, false].map(|done| mld::v1_packet(host, group(5), done));
    let mut all = mld::report_packets(host, &records, 1_280);
    all.extend(v1);
    all.extend([mld::query_packet(host, &query), mld::query_message(&query)]);
    all
}

/// Returns an entry: plain, as a record, in a packet; and each other kind of packet.
fn entries() -> Vec<Vec<u8>> {
    let fields = [
        [7; 8].as_slice(),
        &[0, 0, 0, 2],
        &[0, 0, 0, 1],
        &[9; 6],
        &[16],
        &[5; 16],
    ];
    let entry = [fields.concat().as_slice(), &[0, 3], b"yes", &[4; 64]].concat();
    let head = [&[7; 8][..], &[0, 0, 0, 1, 0, 0, 0, 9], &[3; 16], &[0]].concat();
    let want = [&[7; 8][..], &[0, 0, 0, 1, 2, 0xff, 1]].concat();
    let packets = [
        [&[1][..], &entry, &entry].concat(),
        [&[2, 1][..], &[6; 8], &head, &head].concat(),
        [&[3][..], &want, &want].concat(),
        [&[4][..], b"let me in"].concat(),
        [&[5][..], &[7; 8], &[9; 6], &[4], b"here", &[4; 64]].concat(),
    ];
    let records = [[&[1][..], &entry].concat(), [&[2][..], &[7; 12]].concat()];
    packets.into_iter().chain(records).chain([entry]).collect()
}

/// Returns sources, with losses and parities by a map.
fn parities() -> Vec<Vec<u8>> {
    let one = |count: u8, size: u8, map: u8| {
        let bytes = (0..usize::from(count) * usize::from(size)).map(|at| (at * 7) as u8);
        [count, size].into_iter().chain([map; 16]).chain(bytes).collect()
    };
    vec![one(3, 20, 0b11), one(16, 9, 0x55), one(128, 2, 0xff), one(129, 1, 1)]
}

/// Returns a state and frames of a camera: a key in two pieces, with their parities; the same lost; a smooth one.
fn camera() -> Vec<Vec<u8>> {
    let packet = |number, base, piece: Option<(bool, bool, u32, u8, Vec<u8>)>| {
        let packet = CameraPacket {
            size: CameraSize::Small,
            run: 1_790_000_000_000,
            number,
            base,
            time: number * 66,
            has_ended: false,
            has_large: true,
            piece: piece.map(|(is_key, is_base, length, piece, bytes)| Piece { is_key, is_base, length, piece, bytes }),
        };
        packet.sign(&key(1))[64..].to_vec()
    };
    let mut frame = vec![0x10, 0, 0, 0x9d, 1, 0x2a, 64, 1, 180, 0];
    frame.resize(1_500, 7);
    let chunks: Vec<&[u8]> = frame.chunks(750).collect();
    let parity = |number| librecast::parity::parity(number, chunks.iter().copied()).unwrap();
    let part = |piece, bytes: &[u8]| packet(1, 1, Some((true, true, 1_500, piece, bytes.to_vec())));
    let smooth = packet(2, 1, Some((false, false, 20, 0, [&[0x11, 2, 0][..], &[0; 17]].concat())));
    let (first, second) = (part(0, chunks[0]), part(1, chunks[1]));
    let (third, fourth) = (part(2, &parity(0)), part(3, &parity(1)));
    let state = packet(2, 1, None);
    let file = [&ivf_header((320, 180))[..], &ivf_frame(40, &frame)].concat();
    vec![
        input(&[], [&state[..], &first, &second, &smooth]),
        input(&[], [&fourth[..], &third, &smooth, &state]),
        input(&[], [&frame[..], &smooth[25..]]),
        file,
    ]
}

/// A whole screen of two parts, a changed area, and a state, without their signatures.
fn screen() -> Vec<Vec<u8>> {
    let area = |x, y, width, height| Area { x, y, width, height };
    let picture = |area: Area, length| {
        let bits = u32::from(area.width - 1) | u32::from(area.height - 1) << 14;
        let mut bytes = b"RIFF\0\0\0\0WEBPVP8L\0\0\0\0\x2f".to_vec();
        bytes.extend(bits.to_le_bytes());
        bytes.resize(length, 0);
        bytes
    };
    let packet = |part: Option<(u32, Area, u16, u16, &[u8])>| {
        let packet = ScreenPacket {
            run: 1_790_000_000_000,
            latest: 2,
            is_paused: false,
            has_ended: false,
            part: part.map(|(number, area, part, parts, bytes)| Part {
                number,
                screen: (64, 48),
                area,
                is_exact: true,
                part,
                parts,
                bytes: bytes.to_vec(),
            }),
        };
        packet.sign(&key(1))[64..].to_vec()
    };
    let (all, word) = (area(0, 0, 64, 48), area(9, 9, 20, 8));
    let (whole, changed) = (picture(all, 1_500), picture(word, 200));
    let packets = [
        packet(Some((1, all, 0, 2, &whole[..1_000]))),
        packet(Some((1, all, 1, 2, &whole[1_000..]))),
        packet(Some((2, word, 0, 1, &changed))),
        packet(None),
    ];
    vec![input(b"", packets.each_ref().map(Vec::as_slice))]
}

/// Returns a session with a title, a shown slide and a caption; a file of slides.
fn studio() -> Vec<Vec<u8>> {
    let title = IndexEntry::Session {
        title: "Bees".to_owned(),
        presenter: "Ann".to_owned(),
    };
    let slide = "# Bees";
    let turn = Turn {
        number: 1,
        id: SlideId::of(slide),
    };
    let caption = Caption {
        replaces: 0,
        speaker: "Ann".to_owned(),
        text: "they dance".to_owned(),
    };
    let mut entries = vec![(0, title.encode().expect("it fits"))];
    let deck = DeckWriter::entries(&Deck::default(), &[slide]).expect("it fits");
    entries.extend(deck.into_iter().map(|made| (1, made)));
    entries.extend([(2, turn.encode()), (4, caption.encode().expect("it fits"))]);
    let entries = entries
        .into_iter()
        .map(|(place, (kind, body))| [&[place, kind, body.len() as u8][..], &body].concat());
    let slides = "# A\n\n- one\n  1. two\n\n---\n\n> [x](https://h.example) ![alt](p.png) <b>\n\n| a | b |\n|---|---|\n| 1 | 2 |\n";
    let presence = Presence {
        name: "Ann".to_owned(),
        writes: true,
        cursor: vec![7; 22],
    };
    vec![
        entries.collect::<Vec<_>>().concat(),
        presence.encode().expect("it fits"),
        slides.as_bytes().to_vec(),
    ]
}

/// Returns a signed announcement, its description, a beacon's fields after the key, and texts.
fn radio_announcements() -> Vec<Vec<u8>> {
    let key = StationKey::from_seed(&[1; 32]);
    let source = Ipv6Addr::LOCALHOST;
    let sdp = describe(&key, None, "seed", Profile::Music, TODAY * 1_000, source);
    let announcement = Announcement {
        hash: 7,
        source: source.into(),
        is_deletion: false,
        description: sdp.as_bytes(),
    };
    let time = (TODAY * 1_000).to_be_bytes();
    let beacon = [
        &[7; 16][..],
        &time,
        &time,
        &source.octets(),
        &[0; 10],
        &[1, 1, 0, 1, b'n', 1, b't', 0, 0],
    ];
    let texts = [true, false].map(|public| key.station(public).encode().as_bytes().to_vec());
    let caster = StationKey::from_seed(&[2; 32]);
    let grant = lcradio_core::Grant::new(&key, true, &caster.id(), u64::MAX);
    let granted = describe(&caster, Some(&grant), "seed", Profile::Voice, TODAY * 1_000, source);
    let all = [
        announcement.write(),
        sdp.into_bytes(),
        granted.into_bytes(),
        grant.encode().as_bytes().to_vec(),
        beacon.concat(),
    ];
    all.into_iter().chain(texts).collect()
}

/// Returns a question, and an answer up to its signature, for a public station.
fn radio_clock() -> Vec<Vec<u8>> {
    let question = [&[0, 25, 1, 16][..], &7_u64.to_be_bytes()].concat();
    let times = [0, 0, 0, 0, 59, 154, 202, 0];
    let answer = [
        &[1, 25, 1, 17][..],
        &[7; 16],
        &[0, 150, 0, 0, 0, 9],
        &times,
        &[0; 4],
        &times,
        &[1],
        &7_u64.to_be_bytes(),
        &times,
        &[0; 64],
    ];
    vec![input(&[0], [&question[..], &answer.concat()])]
}

/// Returns packets for each kind of listener, 20 ms apart; the second has CSRC, extension, padding.
fn radio_packets() -> Vec<Vec<u8>> {
    let packet = |n: u16| {
        let header = RtpHeader {
            marker: n == 0,
            payload_type: PAYLOAD_TYPE,
            sequence: n,
            timestamp: u32::from(n) * FRAME % CLOCK_RATE,
            ssrc: 0,
            padded: n == 1,
        };
        let mut packet = [&[0, 5][..], &header.write()].concat();
        if n == 1 {
            packet[2] |= 0x11;
            packet.extend([0, 0, 0, 9, 0xbe, 0xde, 0, 1, 1, 2, 3, 4]);
        }
        packet.extend([31 << 3, 1, 2, 3, 0, 2]);
        packet
    };
    let packets = [0, 1, 3, 2, 5].map(packet);
    let pieces = packets.each_ref().map(Vec::as_slice);
    (0..3).map(|which| input(&[which], pieces)).collect()
}

fn igmp_packets() -> Vec<Vec<u8>> {
    let host = Ipv4Addr::new(10, 77, 1, 2);
    let group = mapped::name(Ipv4Addr::new(239, 1, 2, 3));
    let records = (1..=6).filter_map(RecordType::from_code);
    let records: Vec<_> = records
        .map(|kind| Record::new(kind, group, vec![mapped::name(host)]))
        .collect();
    let query = Query {
        group: Some(group),
        max_response: Duration::from_secs(1),
        suppress_router_processing: false,
        robustness: 2,
        query_interval: Duration::from_secs(125),
        sources: vec![mapped::name(host)],
        truncated: false,
        version_1: false,
    };
    let mut all = igmp::report_packets(host, &records, 1_280);
    all.extend(igmp::query_packet(host, &query));
    // version 2 and 1: leave, report
    for kind in [0x17, 0x16, 0x12] {
        let mut old = all[0][..24].to_vec();
        old.extend([kind, 0, 0, 0, 239, 1, 2, 3]);
        all.push(old);
    }
    all
}

fn control() -> Vec<Vec<u8>> {
    let hello = Element::Hello {
        incarnation: 1,
        salt: 7,
    };
    let state = JoinState {
        root: OriginId(1),
        prefix: GroupPrefix::group(group(1)),
        join: Some(SourceFilter::all()),
        source_active: true,
    };
    let mut batch = Batch::default();
    batch.push(&hello);
    batch.push(&Element::JoinState(state));
    batch.push(&Element::LeafJoin(LeafJoin {
        group: GroupPrefix::group(group(1)),
        join: Some(SourceFilter::all()),
    }));
    batch.push(&Element::LeafOffer(LeafOffer {
        uplink: true,
        isolated: true,
        spare: true,
        groups: 64,
        room: 9,
        others: vec![key(1).peer_id()],
    }));
    batch.finish().into_iter().map(Vec::from).collect()
}

fn header() -> Vec<u8> {
    let header = DataHeader {
        payload: Payload::Ipv6,
        flags: 0,
        hop_limit: 64,
        root: OriginId(1),
        origin: OriginId(2),
        incarnation: 1,
        sequence: 1,
    };
    [&header.encode()[..], &udp()].concat()
}

/// A CARRY for a prefix and a group.
fn carry() -> Vec<u8> {
    let parts = ["ff1e:1:2:3:8000::/68", "ff1e::8/127"];
    let parts = parts.iter().filter_map(|part| part.parse().ok());
    let request = CarryRequest {
        incarnation: 1,
        sequence: 2,
        parts: parts.collect(),
    };
    request.encode(OriginId(7), |_| [3; 64]).0.to_vec()
}

fn udp() -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0, 0, 12, 17, 8];
    packet.extend(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1).octets());
    packet.extend(group(1).octets());
    packet.extend([0x13, 0x88, 0x13, 0x88, 0, 12, 0, 0, 1, 2, 3, 4]);
    packet
}

fn engine() -> Vec<Vec<u8>> {
    let with = |what: u8, bytes: &[u8]| [&[what, 1][..], bytes].concat();
    let (control, data, own) = (with(0, &control()[0]), with(1, &header()), with(2, &udp()));
    let report = with(2, &mld_packets()[0]);
    vec![input(&[], [&control, &report, &own, &data, &with(3, &[])])]
}

fn lan() -> Vec<Vec<u8>> {
    let of_host = |what: u8, bytes: &[u8]| [&[what, 9, 1][..], bytes].concat();
    let question = [
        &[0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0][..],
        b"\x01a\x05local\0",
        &[0, 28, 0x80, 1],
    ]
    .concat();
    let reports = mld_packets();
    vec![
        input(&[], [&of_host(0, &udp()), &of_host(0, &reports[0])]),
        input(&[], [&of_host(1, &question), &of_host(1, &question)]),
        // recorded by a host, and from the gateway's own address; a flag changed
        input(&[], [&[3, 9, 50], &[3, 2, 50], &[7, 2, 0]]),
        input(&[], [&[&[3, 2, 0][..], &[0; 45], &[1]].concat()]),
        input(&[], [&of_host(2, &[1; 72])]),
    ]
}

/// Returns an ARP request for a host elsewhere, its HERE and GONE, and a broadcast of each side.
fn segment() -> Vec<Vec<u8>> {
    let of = |what: u8, bytes: &[u8]| [&[what, 9, 30][..], bytes].concat();
    let arp = [
        &[0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 9, 192, 168, 1, 9][..],
        &[0, 0, 0, 0, 0, 0, 192, 168, 1, 99],
    ]
    .concat();
    let message = |kind: u8| {
        let name = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 168, 1, 99];
        [&[kind, 0, 2, 0, 0, 0, 0, 99][..], &[0; 8], &name].concat()
    };
    let broadcast = librecast::ipv4::udp_packet(
        [192, 168, 1, 9].into(),
        [255; 4].into(),
        (5_004, 1),
        b"anyone",
    );
    let [asked, here, gone, ask] = [of(0, &arp), of(4, &message(2)), of(4, &message(3)), of(4, &message(1))];
    let [out, all, one] = [3, 5, 1].map(|what| of(what, &broadcast));
    vec![
        input(&[], [&asked, &here, &gone, &ask]),
        input(&[], [&out, &all, &one]),
    ]
}

/// Returns a packet with an incomplete checksum, and three datagrams in one.
fn offload() -> Vec<Vec<u8>> {
    let header = |kind: u8, segment: u16| {
        let [s0, s1] = segment.to_ne_bytes();
        let [[h0, h1], [c0, c1], [o0, o1]] = [62u16, 54, 6].map(u16::to_ne_bytes);
        [1, kind, h0, h1, s0, s1, c0, c1, o0, o1]
    };
    vec![
        [&header(0, 0)[..], &udp()].concat(),
        [&header(5, 2)[..], &udp()].concat(),
    ]
}

/// Returns a record with an address, signed or not; a message in two parts, and one that opens.
/// Returns the content of a text's record, with routers.
fn text_record(routers: u8) -> Vec<u8> {
    let (network, issuer) = (key(9), key(8));
    let grant = |leaf| Grant {
        leaf,
        ..Grant::new("", (TODAY - 60, TODAY + 60))
    };
    let id = network.peer_id();
    let above = Certificate::sign(Kind::Issuer, id, issuer.peer_id(), grant(false), &network);
    let above = above.expect("it is well formed");
    let token = Token::invite_with(&above, &issuer, key(7), grant(true), vec!["ws://a".into()]);
    let token = token.expect("it is well formed").to_bytes();
    let router = [
        key(11).peer_id().public_key(),
        &[1, 0, 4, 192, 0, 2, 9, 0x1b, 0x58][..],
    ]
    .concat();
    [
        &[1][..],
        &TODAY.to_be_bytes(),
        &(TODAY + 3_600).to_be_bytes(),
        &attest(&key(10), &TextKey::new(key(10).peer_id(), [7; 32]), &id),
        &(token.len() as u16).to_be_bytes(),
        &token,
        &[routers],
        &router.repeat(routers.into()),
    ]
    .concat()
}

fn presence() -> Vec<Vec<u8>> {
    let record = [
        &[1][..],
        key(11).peer_id().public_key(),
        &TODAY.to_be_bytes(),
        &(TODAY + 3_600).to_be_bytes(),
        &[
            2, 0, 4, 192, 0, 2, 9, 0x1b, 0x58, 0, 4, 127, 0, 0, 1, 0x1b, 0x58,
        ],
    ]
    .concat();
    let all = |how: u8, bytes: &[u8]| [&[how, 1][..], bytes].concat();
    vec![
        input(&[], [&all(2, &record), &all(2, &record)]),
        input(&[], [&all(1, &record), &all(0, &record)]),
        input(
            &[],
            [
                &all(4, &[0x02, 0, 0, 0, 1, 9]),
                &all(4, &[0x12, 0, 0, 0, 1, 9]),
            ],
        ),
        input(&[], [&all(6, &[2; 140]), &all(4, &[1, 9, 9])]),
    ]
}

fn reports() -> Vec<Vec<u8>> {
    let flow = |n, edges: u64| GroupFlow {
        group: group(n),
        local: n == 1,
        edges: (0..edges)
            .map(|to| FlowEdge {
                to: OriginId(to),
                packets: 50,
                bytes: 60_000,
            })
            .collect(),
    };
    let report = |second, groups| Report {
        second,
        interval_ms: 1_000,
        groups,
    };
    let [one, more] = [
        report(7, vec![flow(1, 3), flow(2, 0)]),
        report(8, vec![flow(3, 100)]),
    ]
    .map(|report| report.encode());
    vec![
        input(&[], [&one[0]]),
        input(&[], [&more[0], &more[1]]),
        input(&[], [&one[0], &one[0], &more[0]]),
    ]
}

fn dtls() -> Vec<Vec<u8>> {
    let alert = [21, 254, 253, 0, 0, 0, 0, 0, 0, 0, 9, 0, 2, 1, 0];
    let record = [&[0, 0][..], &alert].concat();
    (0..9)
        .flat_map(|stage| {
            [0, 1].map(|side| input(&[stage, side], [&[65, 0, 1], &[1, 10], &record]))
        })
        .collect()
}

fn sctp() -> Vec<Vec<u8>> {
    let chunk = |kind: u8, flags: u8, value: &[u8]| {
        let length = (value.len() as u16 + 4).to_be_bytes();
        [&[0, kind, flags, length[0], length[1]][..], value].concat()
    };
    let chunks = [
        chunk(0, 3, &[0, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0, 53, 1, 2, 3, 4]),
        chunk(1, 0, &[0, 0, 0, 9, 0, 1, 0, 0, 0, 9, 0, 9, 0, 0, 0, 1]),
        chunk(
            3,
            0,
            &[0, 0, 0, 1, 0, 1, 0, 0, 0, 1, 0, 1, 0, 2, 0, 3, 0, 0, 0, 9],
        ),
        chunk(4, 0, &[0, 1, 0, 8, 1, 2, 3, 4]),
        chunk(6, 0, &[0, 12, 0, 8, 1, 2, 3, 4]),
        chunk(7, 0, &[0, 0, 0, 1]),
        chunk(8, 0, &[]),
        chunk(9, 0, &[0, 1, 0, 8, 0, 1, 0, 0]),
        chunk(10, 0, &[1, 2, 3, 4]),
        chunk(
            130,
            0,
            &[0, 13, 0, 18, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 1, 0, 0],
        ),
        chunk(192, 0, &[0, 0, 0, 9, 0, 1, 0, 1]),
    ];
    chunks
        .iter()
        .flat_map(|chunk| [0, 5].map(|mode| input(&[mode], [chunk, chunk])))
        .collect()
}

fn signals() -> Vec<Vec<u8>> {
    let mut description = vec![8];
    description.extend(b"abcdefgh");
    description.push(32);
    description.extend([b'p'; 32]);
    description.extend([7; 32]);
    // lanes, one candidate: host, IPv4
    description.extend([3, 1, 0, 4, 192, 0, 2, 9, 27, 88]);
    let request = [&[3, 1][..], &[0]].concat();
    let offer = [&[3, 2, 0][..], &[5; 32], &description].concat();
    let answer = [&[7, 3, 0][..], &[5; 32], &[6; 32], &description].concat();
    let refusal = [3, 4, 1];
    let all = |mode: u8| input(&[mode], [&request, &offer, &answer, &refusal]);
    let one = |mode: u8| input(&[mode], [&request, &answer, &offer]);
    vec![
        all(0),
        all(1),
        one(0),
        one(1),
        input(&[0], [&request, &request]),
    ]
}

/// Returns requests of a relay's user: kind, user, time since the last one; attributes.
fn relay() -> Vec<Vec<u8>> {
    let udp = [3, 4, 17, 0, 0, 0];
    // 8.8.8.1 port 7, encoded with the cookie
    let peer = [0, 8, 0, 1, 0x21, 0x15, 0x29, 0x1a, 0xac, 0x43];
    let allocate = [&[1, 0, 0][..], &udp].concat();
    let permit = [&[13, 0, 1][..], &peer].concat();
    let bind = [&[19, 0, 1][..], &peer, &[1, 4, 0x40, 0, 0, 0]].concat();
    let send = [&[25, 0, 1][..], &peer, &[5, 3], b"abc"].concat();
    let refresh = [7, 0, 200, 2, 4, 0, 0, 0, 0];
    let (channel, received) = ([3, 0, 1, 1, 2, 3], [4, 1, 1, 1, 2, 3]);
    let later = [5, 0, 201];
    let of = |who: u8, piece: &[u8]| {
        let mut piece = piece.to_vec();
        piece[1] = who;
        piece
    };
    let all = (0..4).map(|who| {
        let [a, p, b, s] = [&allocate, &permit, &bind, &send].map(|piece| of(who, piece));
        input(
            &[],
            [
                &a,
                &p,
                &b,
                &s,
                &of(who, &channel),
                &received,
                &later,
                &of(who, &refresh),
            ],
        )
    });
    let raw = [&[0, 1, 1][..], &[0x40, 0, 0, 3, 1, 2, 3, 0]].concat();
    all.chain([input(&[], [&allocate, &raw, &permit, &received, &later])])
        .collect()
}

fn signalling() -> Vec<Vec<u8>> {
    let (peer, room) = (key(10).peer_id(), Room::of(&key(1).peer_id()));
    let server = ProofKey::new([7; 32]);
    let proof = prove(&chain(10), &server.public(), &mut Random::new([3; 32]));
    let credentials = RelayCredentials {
        user: "9:n".into(),
        password: "p".into(),
    };
    let lifetime = 7;
    let to_node = [
        ToNode::Challenge([3; 32]),
        ToNode::Present(peer),
        ToNode::Gone(peer),
        ToNode::Refused("no".into()),
        ToNode::Relay {
            lifetime,
            credentials,
        },
        ToNode::Deliver {
            from: peer,
            bytes: vec![7],
        },
        ToNode::In {
            own: peer,
            message: Box::new(ToNode::Present(peer)),
        },
    ];
    let to_server = [
        ToServer::register(&key(10), room, Role::Router, &[4; 32]),
        ToServer::register(&key(10), room, Role::Leaf, &[4; 32]),
        ToServer::Send {
            to: peer,
            bytes: vec![7],
        },
        ToServer::enter(&key(10), room, &[4; 32]),
        ToServer::Leave(peer),
        ToServer::SendIn {
            own: peer,
            to: peer,
            bytes: vec![7],
        },
    ];
    let texts = proof.into_iter().map(|proof| proof.encode().into_bytes());
    let replies = [RelayReply::Prove([7; 32]), RelayReply::Refused("no".into())];
    let to_node = to_node.iter().map(ToNode::encode);
    let to_server = to_server.iter().map(ToServer::encode);
    let replies = replies.iter().map(|reply| reply.encode().into_bytes());
    let binary = to_node.chain(to_server).chain([chain(10).encode()]);
    binary.chain(texts).chain(replies).collect()
}

fn datagrams() -> Vec<Vec<u8>> {
    let stages = [0, 4, 8, 12, 16, 20, 24, 28, 32, 36, 40, 44];
    let change = [1, 128, 1];
    let cut = [2, 200, 0];
    let stun = [
        &[0, 0][..],
        &lcroute_webrtc::address_request([7; 12]).unwrap_or_default(),
    ]
    .concat();
    let all = |stage: u8, mode: u8| {
        input(
            &[mode, stage],
            [&change, &cut, &stun, &[3, 9, 1, 2], &change],
        )
    };
    stages
        .into_iter()
        .flat_map(|stage| (0..4).map(move |mode| all(stage, mode)))
        .collect()
}

fn lcsync_blocks() -> Vec<Vec<u8>> {
    let block = BlockRef::of(b"a block");
    let stream = Stream {
        length: 7,
        depth: 0,
        top: Some(block),
    };
    let root = Root {
        kind: RootKind::File { executable: false },
        entries: 0,
        listing: Stream::default(),
        content: stream,
        incomplete: false,
    };
    let child = [
        &[1, 0, 0, 7][..],
        &block.hash.0,
        &[0, 0, 0, 7],
        &[0, 0, 0, 0, 0, 0, 0, 7],
    ]
    .concat();
    let symbols = input(
        &[0, 0, 8, 0],
        [&[0x80, 0, 0, 0], &[0x80, 0, 0, 5], &[0, 0, 0, 1, 9]],
    );
    vec![root.encode(), child, symbols]
}

fn lcagent_datagrams() -> Vec<Vec<u8>> {
    let job = lcagent::datagram::JobId([7; 8]);
    let texts = [&b"role=db & !name=alpha"[..], b"systemctl restart *"];
    let mut all = vec![
        lcagent::datagram::hello(&key(10).peer_id()),
        lcagent::part::ask(job, &[(0, 3)]),
    ];
    all.extend(texts.map(Vec::from));
    all
}

fn settings() -> Vec<Vec<u8>> {
    let texts = [
        r#"{"cmd":"ping","node":"alpha","timeout_ms":9}"#,
        r#"{"cmd":"announce","prefix":"ff1e:1::/32"}"#,
        "name = \"alpha\"\nstate_dir = \"/s\"\n[tun]\nmode = \"tap\"\n[ice]\nport = 7\n[live]\nqueue_ms = 20\n",
        "name = \"alpha\"\n[labels]\nrole = \"db\"\n[[allow]]\nkey = \"x\"\ncommands = [\"uptime\"]\n",
        "10 MB",
        "1h 30min",
    ];
    texts.map(Vec::from).to_vec()
}

fn texts() -> Vec<Vec<u8>> {
    let block = lcroute_control::text::write(&[7; 20], &[("Good-Until", "2026-11-24 10:00 UTC")]);
    let html = block.replace('\n', "<br>=\n").replace(' ', "&nbsp;");
    let line = lcroute_control::text::line(&[8; 20]);
    [block, html, line].map(String::into_bytes).into()
}
