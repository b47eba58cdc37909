//! One agent, and the effects of operators and strangers on it.

use std::collections::BTreeMap;
use std::io;
use std::net::Ipv6Addr;
use std::time::{Duration, Instant};

use lcagent::agent::core::{Agent, Ingress, Settings, Store};
use lcagent::agent::output::{Kept, Output, Start};
use lcagent::agent::policy::Allow;
use lcagent::agent::reasons::{Dropped, Reason, Refused};
use lcagent::agent::revoked::{MAX_OF_ONE, Principal, Revocations};
use lcagent::answer::Segment;
use lcagent::certificate::Certificate;
use lcagent::datagram::{JobId, Kind, MAX_AHEAD_S, MAX_BEHIND_S, StreamId};
use lcagent::envelope::{Command, Signed};
use lcagent::pattern::Pattern;
use lcagent::record::{NodeInfo, Record};
use lcagent::replay::{ReplayWindow, WINDOW};
use lcagent::request::{Request, Run, What};
use lcagent::sealed::seal_request;
use librecast::id::{PeerId, SecretKey};
use librecast::time::UnixTime;

const CLOCK: u64 = 1_800_000_000;
const ADMIN: u16 = 1;
const LOW: u16 = 2;
const AGENT: u16 = 3;

fn key(n: u16) -> SecretKey {
    let mut seed = [5; 32];
    seed[..2].copy_from_slice(&n.to_be_bytes());
    SecretKey::from_seed(&seed)
}

fn id(n: u16) -> PeerId {
    key(n).peer_id()
}

struct Nothing;

impl Store for Nothing {
    fn read(&mut self, _: JobId, _: u32, length: u32) -> io::Result<Vec<u8>> {
        Ok(vec![0; length as usize])
    }
}

fn run(words: &[&str], stdin: usize) -> What {
    What::Run(Run {
        arguments: words.iter().map(Into::into).collect(),
        script: None,
        stdin: vec![7; stdin],
        time: Duration::from_secs(60),
        memory: None,
        user: None,
        folder: None,
        variables: Vec::new(),
    })
}

fn request(what: What) -> Vec<u8> {
    let request = Request {
        spread_ms: 0,
        window: 4,
        only: Vec::new(),
        what,
    };
    request.encode().unwrap()
}

/// An agent that allows ADMIN everything and to revoke keys, and LOW `uptime`.
struct Bench {
    agent: Agent,
    now: Instant,
    sequence: u64,
    source: Ipv6Addr,
}

impl Bench {
    fn new() -> Self {
        Self::with(Revocations::default())
    }

    fn with(revoked: Revocations) -> Self {
        Self::on_disk((ReplayWindow::new(), revoked))
    }

    fn remembering(replay: ReplayWindow) -> Self {
        Self::on_disk((replay, Revocations::default()))
    }

    fn on_disk(disk: (ReplayWindow, Revocations)) -> Self {
        let allow = |n: u16, commands: &[&str]| Allow {
            key: id(n),
            name: None,
            commands: commands
                .iter()
                .map(|c| Pattern::parse(c).unwrap())
                .collect(),
            user: None,
            time: None,
            output: None,
            memory: None,
            labels: BTreeMap::new(),
        };
        let settings = Settings {
            node: NodeInfo {
                name: "node".into(),
                ..NodeInfo::default()
            },
            policy: vec![allow(ADMIN, &["*", "revoke:*"]), allow(LOW, &["uptime"])],
        };
        let now = Instant::now();
        let mut bench = Self {
            agent: Agent::new(key(AGENT), settings, disk, 1, now),
            now: now + Duration::from_secs(60),
            sequence: 0,
            source: "fe80::1".parse().unwrap(),
        };
        bench
            .agent
            .handle_timeout(bench.now, UnixTime::from_secs(CLOCK));
        bench.outputs();
        bench
    }

    fn sign(&mut self, n: u16, certificate: Option<&Certificate>, payload: Vec<u8>) -> Signed {
        self.sequence += 1;
        let command = Command {
            selector: "all".parse().unwrap(),
            issued: CLOCK,
            not_after: CLOCK + 600,
            sequence: self.sequence,
            nonce: [6; 16],
            payload,
        };
        command.sign_as(&key(n), certificate).unwrap()
    }

    fn hear(&mut self, datagram: &[u8]) {
        self.hear_at(datagram, CLOCK);
    }

    fn hear_at(&mut self, datagram: &[u8], clock: u64) {
        let ingress = Ingress {
            via: 3,
            source: self.source,
        };
        self.agent
            .handle_datagram(datagram, ingress, self.now, UnixTime::from_secs(clock));
    }

    fn outputs(&mut self) -> Vec<Output> {
        let agent = &mut self.agent;
        std::iter::from_fn(|| agent.poll_output(&mut Nothing, self.now)).collect()
    }

    /// Returns the outputs for a command in one datagram.
    fn command(&mut self, n: u16, certificate: Option<&Certificate>, what: What) -> Vec<Output> {
        let signed = self.sign(n, certificate, request(what));
        assert!(signed.parts.is_empty());
        self.hear(&signed.envelope);
        self.outputs()
    }

    fn count(&self, reason: impl Into<Reason>) -> u64 {
        self.agent
            .counters()
            .get(&reason.into())
            .copied()
            .unwrap_or(0)
    }
}

fn started(outputs: &[Output]) -> Option<&Start> {
    outputs.iter().find_map(|output| match output {
        Output::Start(start) => Some(&**start),
        _ => None,
    })
}

/// Returns the last record of an answer in one segment.
fn answered(outputs: &[Output]) -> Option<Record> {
    outputs.iter().find_map(|output| {
        let Output::Answers { datagram, .. } = output else {
            return None;
        };
        let (kind, r) = Kind::read(datagram).unwrap();
        let segment = Segment::decode(datagram, kind, r).unwrap();
        assert!(segment.verify());
        let mut rest = segment.content;
        let mut last = None;
        while let Some((length, record)) = Record::decode(rest).unwrap() {
            last = record;
            rest = &rest[length..];
        }
        last
    })
}

fn is_refused(outputs: &[Output]) -> bool {
    matches!(answered(outputs), Some(Record::Refused(_)))
}

fn certify(by: u16, operator: u16) -> Certificate {
    Certificate::sign(&key(by), &id(operator), CLOCK - 1, CLOCK + 999, &[]).unwrap()
}

#[test]
fn who_has_many_keys_revoked_does_not_keep_his_own_from_being_revoked() {
    let mut bench = Bench::new();
    let mut refused = 0;
    for n in 0..1_100 {
        let outputs = bench.command(LOW, None, What::Revoke(id(1_000 + n)));
        refused += usize::from(is_refused(&outputs));
    }
    assert_eq!(refused, 1_100 - MAX_OF_ONE);
    // revocations by keys that he has certified count as his
    let certificate = certify(LOW, 500);
    let own = bench.command(500, Some(&certificate), What::Revoke(id(500)));
    assert!(is_refused(&own));
    let revoked = bench.command(ADMIN, None, What::Revoke(id(LOW)));
    assert_eq!(answered(&revoked), Some(Record::Done));
    assert!(bench.command(LOW, None, run(&["uptime"], 0)).is_empty());
    assert_eq!(bench.count(Refused::Revoked), 1);
    // other keys have lost no room
    let other = bench.command(ADMIN, None, What::Revoke(id(9_000)));
    assert_eq!(answered(&other), Some(Record::Done));
}

#[test]
fn what_is_remembered_for_many_commands_is_written_once() {
    let mut bench = Bench::new();
    for n in 0..50 {
        let signed = bench.sign(LOW, None, request(What::Revoke(id(1_000 + n))));
        bench.hear(&signed.envelope);
    }
    let outputs = bench.outputs();
    let written = |what: &Output| outputs.iter().filter(|o| *o == what).count();
    assert_eq!(written(&Output::Remember), 1);
    assert_eq!(written(&Output::RememberRevoked), 1);
    assert_eq!(outputs[0], Output::Remember);
    let told = |o: &Output| matches!(o, Output::Audit { .. } | Output::Answers { .. });
    let first = outputs.iter().position(told).unwrap();
    let revoked = outputs.iter().position(|o| *o == Output::RememberRevoked);
    assert!(revoked.unwrap() < first, "before anything is told");
    // and again for the next one
    let next = bench.command(LOW, None, What::Revoke(id(1)));
    assert!(next.contains(&Output::Remember));
}

#[test]
fn with_a_certifier_all_that_goes_under_his_certificates_ends() {
    let mut bench = Bench::new();
    let certificate = certify(ADMIN, 10);
    let outputs = bench.command(10, Some(&certificate), run(&["sleep", "8"], 0));
    let job = started(&outputs).unwrap().job;
    assert_eq!(
        started(&outputs).unwrap().principal.certifier,
        Some(id(ADMIN))
    );
    // a payload in the middle of its parts
    let large = bench.sign(10, Some(&certificate), request(run(&["cat"], 5_000)));
    bench.hear(&large.envelope);
    for part in &large.parts[1..] {
        bench.hear(part);
    }
    assert!(started(&bench.outputs()).is_none());
    let outputs = bench.command(ADMIN, None, What::Revoke(id(ADMIN)));
    assert!(outputs.contains(&Output::Cancel(job)), "{outputs:?}");
    bench.hear(&large.parts[0]);
    bench.hear(&large.envelope);
    bench.hear(&large.parts[0]);
    assert!(started(&bench.outputs()).is_none());
    // the agent sends its answer to nobody
    bench.agent.handle_stream(job, 100, true, bench.now);
    let outputs = bench.outputs();
    assert!(outputs.contains(&Output::Forget(job)), "{outputs:?}");
    let told = |o: &Output| matches!(o, Output::Answers { operator, .. } if *operator == id(10));
    assert!(!outputs.iter().any(told));
    // nor after a restart
    let revoked = Revocations::decode(&bench.agent.revoked().encode()).unwrap();
    let mut bench = Bench::with(revoked);
    let principal = Principal {
        operator: id(10),
        certifier: Some(id(ADMIN)),
    };
    let kept = Kept {
        principal,
        seal: None,
        stream: StreamId([0; 8]),
        delivered: false,
    };
    bench.agent.restore(job, kept, bench.now);
    assert!(bench.outputs().contains(&Output::Cancel(job)));
}

#[test]
fn a_revocation_as_certifier_leaves_what_another_has_certified() {
    let mut bench = Bench::new();
    let outputs = bench.command(10, Some(&certify(LOW, 10)), run(&["uptime"], 0));
    let of_low = started(&outputs).unwrap().job;
    let outputs = bench.command(10, Some(&certify(ADMIN, 10)), run(&["uptime"], 0));
    let of_admin = started(&outputs).unwrap().job;
    let outputs = bench.command(LOW, None, What::Revoke(id(10)));
    assert!(outputs.contains(&Output::Cancel(of_low)));
    assert!(!outputs.contains(&Output::Cancel(of_admin)));
}

#[test]
fn a_payload_that_is_whole_after_its_command_has_expired_is_not_run() {
    let mut bench = Bench::new();
    let large = bench.sign(ADMIN, None, request(run(&["cat"], 5_000)));
    bench.hear(&large.envelope);
    let ingress = Ingress {
        via: 3,
        source: bench.source,
    };
    for part in &large.parts {
        let late = CLOCK + 601 + MAX_BEHIND_S;
        bench
            .agent
            .handle_datagram(part, ingress, bench.now, UnixTime::from_secs(late));
    }
    let outputs = bench.outputs();
    assert!(started(&outputs).is_none() && is_refused(&outputs));
    assert_eq!(bench.count(Refused::Expired), 1);
}

fn why(outputs: &[Output]) -> String {
    match answered(outputs) {
        Some(Record::Refused(why)) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn who_may_do_something_is_told_that_clocks_differ_and_not_without_end() {
    let behind = format!("expired: your clock is {} s behind", 600 + MAX_BEHIND_S + 1);
    let ahead = format!("your clock is {} s ahead", MAX_AHEAD_S + 1);
    for (clock, expected) in [
        (CLOCK + 600 + MAX_BEHIND_S + 1, behind),
        (CLOCK - MAX_AHEAD_S - 1, ahead),
    ] {
        for certifier in [None, Some(ADMIN)] {
            let mut bench = Bench::new();
            let certificate = certifier.map(|by| {
                Certificate::sign(&key(by), &id(50), CLOCK - 9_999, CLOCK + 9_999, &[]).unwrap()
            });
            let by = if certifier.is_some() { 50 } else { ADMIN };
            let mut told = 0;
            for _ in 0..20 {
                let signed = bench.sign(by, certificate.as_ref(), request(run(&["true"], 0)));
                bench.hear_at(&signed.envelope, clock);
                let outputs = bench.outputs();
                assert!(started(&outputs).is_none());
                if !outputs.is_empty() {
                    let why = why(&outputs);
                    assert!(why.starts_with(&expected), "{why}");
                    told += 1;
                }
            }
            assert!((1..=4).contains(&told), "{told}");
            // an unlisted key gets no such answer
            let foreign = bench.sign(77, None, request(run(&["true"], 0)));
            bench.now += Duration::from_secs(100);
            bench.hear_at(&foreign.envelope, clock);
            assert!(bench.outputs().is_empty());
        }
    }
}

#[test]
fn a_clock_that_is_minutes_behind_keeps_no_command_out_and_nothing_runs_twice() {
    for late in [1, 8, 90, MAX_BEHIND_S] {
        let mut bench = Bench::new();
        let signed = bench.sign(ADMIN, None, request(run(&["true"], 0)));
        let clock = CLOCK + 600 + late;
        bench.hear_at(&signed.envelope, clock);
        let outputs = bench.outputs();
        let start = started(&outputs).unwrap();
        let preamble = String::from_utf8_lossy(&start.preamble);
        assert!(preamble.contains("clock is"), "{preamble}");
        // recorded and sent again, also to a restarted agent
        let replay = bench.agent.replay().clone();
        bench.agent = Bench::new().agent;
        bench.hear_at(&signed.envelope, clock);
        assert!(started(&bench.outputs()).is_some(), "it would run there");
        bench.agent = Bench::remembering(replay).agent;
        for later in [0, 1, MAX_BEHIND_S, 2 * MAX_BEHIND_S] {
            bench.hear_at(&signed.envelope, clock + later);
            assert!(bench.outputs().is_empty(), "{later} s later");
        }
    }
}

#[test]
fn who_is_listed_is_told_why_a_command_is_not_accepted() {
    // a certificate that has expired
    let mut bench = Bench::new();
    let certificate = Certificate::sign(&key(ADMIN), &id(50), CLOCK - 9, CLOCK - 1, &[]).unwrap();
    let signed = bench.sign(50, Some(&certificate), request(run(&["true"], 0)));
    bench.hear(&signed.envelope);
    assert_eq!(why(&bench.outputs()), "your certificate: expired");
    // a number far below the window: a machine with a slow clock
    bench.sequence = 1_000_000;
    for _ in 0..=WINDOW {
        bench.command(ADMIN, None, What::Facts);
    }
    bench.sequence = 1;
    let low = bench.command(ADMIN, None, run(&["true"], 0));
    assert!(
        why(&low).starts_with("its number is below"),
        "{}",
        why(&low)
    );
    // more payloads at once than are collected
    let mut outputs = Vec::new();
    bench.sequence = 2_000_000;
    for _ in 0..5 {
        let large = bench.sign(ADMIN, None, request(run(&["cat"], 5_000)));
        bench.hear(&large.envelope);
        outputs = bench.outputs();
        bench.now += Duration::from_millis(1);
    }
    assert!(
        why(&outputs).contains("are coming in here already"),
        "{}",
        why(&outputs)
    );
    // a forged signature under a listed key gets no answer
    let mut bench = Bench::new();
    let mut forged = bench
        .sign(50, Some(&certificate), request(run(&["true"], 0)))
        .envelope;
    let last = forged.len() - 1 - request(run(&["true"], 0)).len();
    forged[last] ^= 1;
    bench.hear(&forged);
    assert!(bench.outputs().is_empty());
}

#[test]
fn who_announces_payloads_that_never_come_keeps_no_other_out() {
    let mut bench = Bench::new();
    let announce = |bench: &mut Bench, n: u16, certificate: Option<&Certificate>| {
        let large = bench.sign(n, certificate, request(run(&["uptime"], 5_000)));
        bench.hear(&large.envelope);
        large
    };
    for _ in 0..20 {
        announce(&mut bench, LOW, None);
    }
    // payloads of keys that he has certified count as his
    for n in 100..120 {
        announce(&mut bench, n, Some(&certify(LOW, n)));
    }
    assert!(bench.count(Dropped::TooManyPayloads) >= 36);
    let large = announce(&mut bench, ADMIN, None);
    for part in &large.parts {
        bench.hear(part);
    }
    assert!(started(&bench.outputs()).is_some());
    // an incomplete payload is dropped
    bench.now += Duration::from_secs(200);
    bench
        .agent
        .handle_timeout(bench.now, UnixTime::from_secs(CLOCK));
    let before = bench.count(Dropped::TooManyPayloads);
    announce(&mut bench, LOW, None);
    assert_eq!(bench.count(Dropped::TooManyPayloads), before);
}

#[test]
fn who_leaves_many_commands_open_gives_way_to_others() {
    let mut bench = Bench::new();
    for _ in 0..100 {
        bench.command(LOW, None, run(&["no"], 0));
    }
    let mine = bench.sign(ADMIN, None, request(run(&["true"], 0)));
    bench.hear(&mine.envelope);
    bench.outputs();
    bench.now += Duration::from_secs(10);
    let hello = lcagent::datagram::hello(&id(7));
    bench.hear(&hello);
    bench.now += Duration::from_secs(10);
    bench
        .agent
        .handle_timeout(bench.now, UnixTime::from_secs(CLOCK));
    let repeated =
        |o: &Output| matches!(o, Output::Channel { datagram, .. } if *datagram == mine.envelope);
    assert!(bench.outputs().iter().any(repeated));
}

#[test]
fn jobs_of_one_key_leave_room_for_those_of_others() {
    let mut bench = Bench::new();
    let runs = |bench: &mut Bench, n: u16| {
        let outputs = bench.command(n, None, run(&["uptime"], 0));
        started(&outputs).is_some()
    };
    let low = (0..200).filter(|_| runs(&mut bench, LOW)).count();
    assert_eq!(low, 64);
    assert!(runs(&mut bench, ADMIN));
}

#[test]
fn what_is_sealed_is_in_no_log() {
    let mut bench = Bench::new();
    for (n, words) in [(ADMIN, &["echo", "secret"]), (LOW, &["echo", "secret"])] {
        let plain = request(run(words, 0));
        let (payload, _) = seal_request(&plain, &id(n), &[id(AGENT)]).unwrap();
        let signed = bench.sign(n, None, payload);
        bench.hear(&signed.envelope);
        let outputs = bench.outputs();
        for output in &outputs {
            if let Output::Audit { what, .. } = output {
                assert_eq!(what, "(sealed)");
            }
        }
        match started(&outputs) {
            Some(start) => {
                assert_eq!(start.run.line_for_logs(start.seal.is_some()), "(sealed)");
            }
            None => assert_eq!(n, LOW),
        }
    }
}

#[test]
fn forged_commands_are_verified_within_a_budget_and_genuine_ones_are_heard_beside_them() {
    let mut bench = Bench::new();
    bench.command(ADMIN, None, run(&["true"], 0));
    let operator = bench.source;
    let mut forged = bench.sign(ADMIN, None, request(run(&["true"], 0))).envelope;
    for n in 0..20_000_u16 {
        bench.source = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 1, n);
        // another command each time, with an invalid signature
        forged[58..60].copy_from_slice(&n.to_be_bytes());
        bench.hear(&forged);
    }
    assert!(
        bench.count(Refused::Signature) <= 300,
        "{:?}",
        bench.agent.counters()
    );
    assert!(bench.count(Refused::TooManyForged) > 19_000);
    bench.source = operator;
    let outputs = bench.command(ADMIN, None, run(&["true"], 0));
    assert!(started(&outputs).is_some());
}

#[test]
fn forged_parts_and_acknowledgements_are_verified_within_the_same_budget() {
    let mut bench = Bench::new();
    let large = bench.sign(ADMIN, None, request(run(&["cat"], 5_000)));
    bench.hear(&large.envelope);
    bench.source = "fe80::2".parse().unwrap();
    let mut forged = large.parts[0].clone();
    let last = forged.len() - 1;
    forged[last] ^= 1;
    for _ in 0..1_000 {
        bench.hear(&forged);
    }
    assert!(bench.count(Refused::TooManyForged) > 900);
    bench.source = "fe80::1".parse().unwrap();
    for part in &large.parts {
        bench.hear(part);
    }
    assert!(started(&bench.outputs()).is_some());
}

#[test]
fn an_operator_whose_key_is_not_known_is_told_so_and_makes_nobody_talk_much() {
    let mut bench = Bench::new();
    let stranger = 77;
    let outputs = bench.command(stranger, None, run(&["true"], 0));
    let Some(Output::Answers {
        operator, datagram, ..
    }) = outputs.first()
    else {
        panic!("nothing is said: {outputs:?}");
    };
    assert_eq!((outputs.len(), *operator), (1, id(stranger)));
    assert!(is_refused(&outputs));
    let told = datagram.len();
    // never longer than his own datagram
    let asked = bench
        .sign(stranger, None, request(run(&["true"], 0)))
        .envelope;
    assert!(told <= asked.len(), "{told} bytes for {}", asked.len());
    // all unknown operators together
    let mut answers = 1;
    for n in 0..1_000 {
        answers += bench.command(1_000 + n % 5, None, run(&["true"], 0)).len();
    }
    assert!(answers <= 4, "{answers}");
    bench.now += Duration::from_secs(3_600);
    for n in 0..1_000 {
        answers += bench.command(1_000 + n % 5, None, run(&["true"], 0)).len();
    }
    assert!(answers <= 8, "{answers}");
    assert!(
        !bench
            .agent
            .counters()
            .contains_key(&Dropped::Malformed.into())
    );
}

#[test]
fn what_a_stranger_has_not_signed_is_answered_to_nobody() {
    let mut bench = Bench::new();
    let mut forged = bench.sign(77, None, request(run(&["true"], 0))).envelope;
    forged[58] ^= 1;
    bench.hear(&forged);
    assert!(bench.outputs().is_empty());
    // nor by a revoked key
    bench.command(ADMIN, None, What::Revoke(id(LOW)));
    assert!(bench.command(LOW, None, run(&["uptime"], 0)).is_empty());
}
