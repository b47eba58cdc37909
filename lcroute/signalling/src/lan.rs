//! Nodes on one LAN find each other by multicast DNS (RFC 6762) and service discovery (RFC 6763).
//!
//! A host firewall that admits mDNS, as those of Debian and Fedora can, is enough: both sides learn
//! each other's presence record, and their next messages open both firewalls. The record is sealed
//! in TXT strings; its name changes daily. The host's own name is not claimed, so there is no
//! conflict with avahi and systemd-resolved.
//!
//! The crate `mdns-sd` does the work in its own thread. It stores all announcements of the LAN,
//! without a bound: if they exceed `MOST_CACHED`, it is restarted after a pause.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lcroute_overlay::{CarrierId, CarrierKind, Published};
use mdns_sd::{
    IfKind, IfPredicate, ResolvedService, ServiceDaemon, ServiceEvent, ServiceInfo, TxtProperty,
};
use socket2::{Domain, Socket, Type};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, interval, timeout};

use crate::carrier::{Carrier, CarrierEvent, Pace};

const SERVICE: &str = "_lcroute._udp.local.";
/// Bytes of a record in one string of TXT, which holds 255 with its key.
const STRING: usize = 240;
/// Keys of these strings.
pub(crate) type Keys = [&'static str; 3];
/// Keys of a presence record's strings.
pub(crate) const PRESENCE: Keys = ["r0", "r1", "r2"];
/// Keys of the strings of a text's record: nodes that look for presence records skip it.
pub(crate) const TEXT: Keys = ["t0", "t1", "t2"];
/// Bytes that the strings hold.
pub const MAX_LAN_RECORD: usize = 3 * STRING;
/// Interval of checks of interfaces and memory, in seconds.
const LOOK: u32 = 2;
/// Number of cached records that counts as a flood. Chosen: a thousand nodes have some five each.
const MOST_CACHED: i64 = 10_000;
/// Pause before mDNS is started again.
const PAUSE: Duration = Duration::from_secs(60);
/// Time limit for the goodbye.
const GOODBYE: Duration = Duration::from_secs(1);
/// Run time below which an end by itself counts as a failure.
const SOON: Duration = Duration::from_secs(10);

/// UDP port of multicast DNS (RFC 6762 §3).
const MDNS_PORT: u16 = 5_353;

/// Returns whether another program has the UDP port of multicast DNS for itself, for IPv4 or IPv6:
/// most share it. Nodes are found by the other family alone.
pub fn is_mdns_taken() -> bool {
    is_taken(MDNS_PORT)
}

fn is_taken(port: u16) -> bool {
    let bind = |domain, any: IpAddr| {
        let socket = Socket::new(domain, Type::DGRAM, None)?;
        if any.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(true)?;
        socket.bind(&SocketAddr::new(any, port).into())
    };
    let both = [
        bind(Domain::IPV4, Ipv4Addr::UNSPECIFIED.into()),
        bind(Domain::IPV6, Ipv6Addr::UNSPECIFIED.into()),
    ];
    let is_in_use = |e: io::Error| e.kind() == io::ErrorKind::AddrInUse;
    both.into_iter().any(|bound| bound.is_err_and(is_in_use))
}

/// Presence records by their name.
type Announced = BTreeMap<[u8; 32], Published>;

/// The LANs of this host, as a carrier.
#[derive(Debug)]
pub struct Lan {
    records: watch::Sender<Announced>,
    interfaces: Arc<Mutex<BTreeSet<String>>>,
    task: JoinHandle<()>,
}

impl Lan {
    /// Works on the interfaces of [`Self::set_interfaces`]; to be called within a tokio runtime.
    #[must_use]
    pub fn start(carrier: CarrierId, port: u16, events: mpsc::Sender<CarrierEvent>) -> Self {
        Self::of(PRESENCE, carrier, port, events)
    }

    /// Does the same for records whose strings have these keys.
    pub(crate) fn of(
        keys: Keys,
        carrier: CarrierId,
        port: u16,
        events: mpsc::Sender<CarrierEvent>,
    ) -> Self {
        let (announced, records) = watch::channel(Announced::new());
        let interfaces = Arc::default();
        let session = Session {
            keys,
            carrier,
            port,
            interfaces: Arc::clone(&interfaces),
            records,
            events,
        };
        Self {
            records: announced,
            interfaces,
            task: tokio::spawn(session.run()),
        }
    }

    /// Ends it, with a goodbye for all that it announces.
    pub async fn end(self) {
        let Self { records, task, .. } = self;
        // dropping the channel ends the task
        drop(records);
        let _ = timeout(GOODBYE, task).await;
    }

    pub(crate) fn interfaces(&self) -> BTreeSet<String> {
        let known = self.interfaces.lock();
        known.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Announces these records, and no other.
    pub fn announce(&self, records: impl Iterator<Item = Published>) {
        let records: Announced = records.map(|record| (record.name, record)).collect();
        self.records.send_if_modified(|announced| {
            let is_new = *announced != records;
            *announced = records;
            is_new
        });
    }

    /// Sets the interfaces that are LANs; takes effect within seconds.
    pub fn set_interfaces(&self, names: BTreeSet<String>) {
        *self
            .interfaces
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = names;
    }
}

impl Carrier for Lan {
    fn pace(&self) -> Pace {
        Pace::Slow
    }

    fn publish(&self, record: &Published) {
        self.announce([record.clone()].into_iter());
    }
}

struct Session {
    keys: Keys,
    carrier: CarrierId,
    port: u16,
    interfaces: Arc<Mutex<BTreeSet<String>>>,
    records: watch::Receiver<Announced>,
    events: mpsc::Sender<CarrierEvent>,
}

/// The reason for which a run of mDNS has ended.
enum Ended {
    Dropped,
    /// Its thread has ended, or does not respond.
    Failed(String),
    Flooded,
}

impl Session {
    async fn run(mut self) {
        while !self.is_dropped() {
            let begun = Instant::now();
            let why = match self.daemon() {
                Ok(daemon) => {
                    let why = self.work(&daemon).await;
                    // it sends goodbyes for all registrations
                    if let Ok(ended) = daemon.shutdown() {
                        let _ = timeout(GOODBYE, ended.recv_async()).await;
                    }
                    why
                }
                Err(e) => Ended::Failed(e.to_string()),
            };
            match why {
                Ended::Dropped => return,
                Ended::Flooded => {
                    tracing::warn!(
                        "mDNS: more is announced on the LAN than is remembered; not looking there for {PAUSE:?}"
                    );
                    self.pause().await;
                }
                Ended::Failed(why) => {
                    tracing::warn!("mDNS: {why}; beginning anew");
                    if begun.elapsed() < SOON {
                        self.pause().await;
                    }
                }
            }
        }
    }

    fn is_dropped(&self) -> bool {
        self.records.has_changed().is_err()
    }

    /// Waits before mDNS is started again, or until the carrier is dropped.
    async fn pause(&mut self) {
        let dropped = async { while self.records.changed().await.is_ok() {} };
        // both outcomes end the pause
        let _ = timeout(PAUSE, dropped).await;
    }

    fn daemon(&self) -> mdns_sd::Result<ServiceDaemon> {
        if is_mdns_taken() {
            tracing::warn!(
                "mDNS: another program has UDP port {MDNS_PORT} for itself: nodes on LANs are found by IPv4 or IPv6 alone, or not at all (avahi-daemon: disallow-other-stacks=no)"
            );
        }
        let daemon = ServiceDaemon::new()?;
        daemon.set_ip_check_interval(LOOK)?;
        daemon.disable_interface(IfKind::All)?;
        let interfaces = Arc::clone(&self.interfaces);
        let is_lan = IfPredicate::new(move |interface| {
            let names = interfaces.lock().unwrap_or_else(PoisonError::into_inner);
            names.contains(&interface.name)
        });
        daemon.enable_interface(IfKind::Predicate(is_lan))?;
        Ok(daemon)
    }

    async fn work(&mut self, daemon: &ServiceDaemon) -> Ended {
        let found = match daemon.browse(SERVICE) {
            Ok(found) => found,
            Err(e) => return Ended::Failed(e.to_string()),
        };
        let mut look = interval(Duration::from_secs(LOOK.into()));
        // records with their names in mDNS
        let mut registered: BTreeMap<[u8; 32], (Published, String)> = BTreeMap::new();
        self.records.mark_changed();
        loop {
            tokio::select! {
                _ = self.records.changed() => {
                    // a record published before the end is a change too
                    if self.is_dropped() {
                        return Ended::Dropped;
                    }
                    let records = self.records.borrow_and_update().clone();
                    for (name, record) in &records {
                        if registered.get(name).is_some_and(|(before, _)| before == record) {
                            continue;
                        }
                        match self.register(daemon, record) {
                            Err(e) => return Ended::Failed(e.to_string()),
                            Ok(instance) => {
                                registered.insert(*name, (record.clone(), instance));
                            }
                        }
                    }
                    // such as the name of the day before
                    registered.retain(|name, (_, instance)| {
                        let stays = records.contains_key(name);
                        if !stays {
                            let _ = daemon.unregister(instance);
                        }
                        stays
                    });
                }
                event = found.recv_async() => match event {
                    Ok(event) => self.tell(event).await,
                    Err(_) => return Ended::Failed("it has ended".into()),
                },
                _ = look.tick() => {
                    let Ok(metrics) = daemon.get_metrics() else { continue };
                    let Ok(metrics) = metrics.recv_async().await else { continue };
                    let cached = metrics.iter().filter(|(name, _)| name.starts_with("cached-"));
                    if cached.map(|(_, count)| *count).sum::<i64>() > MOST_CACHED {
                        return Ended::Flooded;
                    }
                }
            }
        }
    }

    /// Announces this node's record; returns its name.
    fn register(&self, daemon: &ServiceDaemon, record: &Published) -> mdns_sd::Result<String> {
        let instance = instance_name(&record.name);
        let host = format!("{instance}.local.");
        let strings = strings_of(&self.keys, &record.sealed);
        let mut info =
            ServiceInfo::new(SERVICE, &instance, &host, "", self.port, strings)?.enable_addr_auto();
        // the name comes from a key, so it is unique
        info.set_requires_probe(false);
        let name = info.get_fullname().to_owned();
        daemon.register(info)?;
        Ok(name)
    }

    async fn tell(&self, event: ServiceEvent) {
        let carrier = self.carrier;
        let event = match event {
            ServiceEvent::ServiceResolved(service) => {
                let Some(sealed) = record_of(&self.keys, &service) else {
                    tracing::debug!("mDNS: no record in {:?}", service.get_fullname());
                    return;
                };
                CarrierEvent::Record {
                    carrier,
                    kind: CarrierKind::Lan,
                    name: service.get_fullname().to_owned(),
                    sealed,
                }
            }
            ServiceEvent::ServiceRemoved(_, name) => CarrierEvent::RecordGone { carrier, name },
            _ => return,
        };
        // fails only while the daemon ends
        let _ = self.events.send(event).await;
    }
}

/// Returns sixteen letters and digits of a record's name: the label of its instance.
pub fn instance_name(name: &[u8; 32]) -> String {
    const DIGITS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let digits = name[..16].iter().map(|byte| DIGITS[usize::from(byte & 31)]);
    digits.map(char::from).collect()
}

fn strings_of(keys: &Keys, sealed: &[u8]) -> Vec<TxtProperty> {
    let strings = keys.iter().copied().zip(sealed.chunks(STRING));
    strings.map(TxtProperty::from).collect()
}

fn record_of(keys: &Keys, service: &ResolvedService) -> Option<Vec<u8>> {
    let strings = keys.iter();
    let strings = strings.map_while(|key| service.get_property_val(key).flatten());
    let sealed = strings.collect::<Vec<_>>().concat();
    (!sealed.is_empty() && sealed.len() <= MAX_LAN_RECORD).then_some(sealed)
}

#[cfg(test)]
mod tests {
    use std::future::{Future, poll_fn};
    use std::task::Poll;

    use lcroute_overlay::Rendezvous;
    use librecast::id::SecretKey;

    use super::*;

    #[test]
    fn a_record_fits_into_the_strings_of_txt() {
        const { assert!(MAX_LAN_RECORD >= lcroute_overlay::MAX_RECORD) };
        let sealed: Vec<u8> = (0..MAX_LAN_RECORD).map(|n| n as u8).collect();
        let strings = strings_of(&TEXT, &sealed);
        let info = ServiceInfo::new(SERVICE, "a", "a.local.", "192.0.2.1", 7, strings).unwrap();
        let service = info.as_resolved_service();
        assert_eq!(record_of(&TEXT, &service), Some(sealed));
        assert_eq!(record_of(&PRESENCE, &service), None);
    }

    #[tokio::test]
    async fn a_carrier_that_is_dropped_in_a_pause_announces_nothing_any_more() {
        let (announced, records) = watch::channel(Announced::new());
        let (events, _told) = mpsc::channel(1);
        let mut session = Session {
            keys: PRESENCE,
            carrier: CarrierId(1),
            port: 7,
            interfaces: Arc::default(),
            records,
            events,
        };
        let record = Published {
            name: [1; 32],
            sealed: vec![1; 256].into(),
            until: 9,
            epoch: Rendezvous::new(SecretKey::from_seed(&[9; 32]).peer_id()),
        };
        announced.send_replace(Announced::from([(record.name, record)]));
        drop(announced);
        session.pause().await;
        // mDNS is not started: that takes more than one poll
        let mut run = Box::pin(session.run());
        let ended = poll_fn(|cx| Poll::Ready(run.as_mut().poll(cx).is_ready()));
        assert!(ended.await);
    }

    #[test]
    fn a_port_that_another_program_does_not_share_is_told_from_one_that_it_does() {
        let alone = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
        assert!(is_taken(alone.local_addr().unwrap().port()));
        let shared = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
        shared.set_reuse_address(true).unwrap();
        shared.set_reuse_port(true).unwrap();
        let any = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0);
        shared.bind(&any.into()).unwrap();
        let at = shared.local_addr().unwrap().as_socket().unwrap();
        assert!(!is_taken(at.port()));
    }

    #[test]
    fn an_instance_is_a_label_of_dns() {
        let name = instance_name(&[0xff; 32]);
        assert_eq!(name, "7".repeat(16));
    }
}
