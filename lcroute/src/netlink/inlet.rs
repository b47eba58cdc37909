//! An interface whose frames arrive on another one (tc-mirred(8)).

use std::io;

use librecast::ethernet::MacAddress;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{AfSpecInet6, AfSpecUnspec, In6AddrGenMode, LinkAttribute};
use netlink_packet_route::tc::{
    TcAction, TcActionAttribute, TcActionMirror, TcActionMirrorOption, TcActionOption,
    TcActionType, TcAttribute, TcFilterU32, TcFilterU32Option, TcHandle, TcMessage, TcMirror,
    TcMirrorActionType, TcOption, TcU32Key, TcU32Selector, TcU32SelectorFlags,
};
use nix::libc;
use rtnetlink::LinkUnspec;
use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_EXCL};

use super::Connection;

/// Kind of the queueing discipline for received frames.
const INGRESS: &str = "ingress";

/// Makes frames that arrive on the interface of this name arrive on another one instead, as from
/// its wire. `mac` is the Ethernet address of that interface; `alias` names the maker to users.
///
/// # Errors
/// The refused part, and the reason.
pub fn redirect(
    name: &str,
    mac: MacAddress,
    to: u32,
    alias: &str,
) -> Result<(), (&'static str, io::Error)> {
    let mut netlink = Connection::open().map_err(|e| ("netlink", e))?;
    let question = LinkUnspec::new_with_name(name).build();
    let found = netlink.get(RouteNetlinkMessage::GetLink(question));
    let index = match found.map_err(|e| ("a tap", e))? {
        RouteNetlinkMessage::NewLink(link) => link.header.index,
        _ => return Err(("a tap", io::ErrorKind::NotFound.into())),
    };
    // no address of its own, and no word of the kernel on it
    let inet6 = AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)]);
    let settings = LinkUnspec::new_with_index(index)
        .arp(false)
        .address(mac.0.to_vec())
        .alias(alias)
        .append_extra_attribute(LinkAttribute::AfSpecUnspec(vec![inet6]))
        .build();
    let new = NLM_F_CREATE | NLM_F_EXCL;
    let mut change = |what, message, flags| {
        let done = netlink.change(message, flags);
        done.map_err(|e| (what, e))
    };
    change("a tap", RouteNetlinkMessage::SetLink(settings), 0)?;
    // before it is up: no frame arrives on the tap itself
    change(
        "sch_ingress",
        RouteNetlinkMessage::NewQueueDiscipline(discipline(index)),
        new,
    )?;
    change(
        "cls_u32 and act_mirred",
        RouteNetlinkMessage::NewTrafficFilter(filter(index, to)),
        new,
    )?;
    let up = LinkUnspec::new_with_index(index).up().build();
    change("a tap", RouteNetlinkMessage::SetLink(up), 0)
}

/// `tc qdisc add dev INDEX ingress`
fn discipline(index: u32) -> TcMessage {
    // an index is below 2^31
    let mut message = TcMessage::with_index(index as i32);
    message.header.parent = TcHandle::INGRESS;
    message.header.handle = TcHandle {
        major: u16::MAX,
        minor: 0,
    };
    message.attributes.push(TcAttribute::Kind(INGRESS.into()));
    message
}

/// `tc filter add dev INDEX ingress protocol all u32 match u32 0 0 action mirred ingress redirect
/// dev TO`: of the filters for all frames, every kernel has u32.
fn filter(index: u32, to: u32) -> TcMessage {
    let mut all = TcU32Selector::default();
    all.flags = TcU32SelectorFlags::Terminal;
    all.nkeys = 1;
    all.keys = vec![TcU32Key::default()];
    let mut redirect = TcMirror::default();
    redirect.generic.action = TcActionType::Stolen;
    redirect.eaction = TcMirrorActionType::IngressRedir;
    redirect.ifindex = to;
    let redirect = TcActionOption::Mirror(TcActionMirrorOption::Parms(redirect));
    let mut action = TcAction::default();
    action.attributes = vec![
        TcActionAttribute::Kind(TcActionMirror::KIND.into()),
        TcActionAttribute::Options(vec![redirect]),
    ];
    let options = [
        TcFilterU32Option::Selector(all),
        TcFilterU32Option::Action(vec![action]),
    ];
    let mut message = TcMessage::with_index(index as i32);
    message.header.parent = TcHandle {
        major: u16::MAX,
        minor: 0,
    };
    let all_protocols = (libc::ETH_P_ALL as u16).to_be();
    message.header.info = 1 << 16 | u32::from(all_protocols);
    message.attributes = vec![
        TcAttribute::Kind(TcFilterU32::KIND.into()),
        TcAttribute::Options(options.into_iter().map(TcOption::U32).collect()),
    ];
    message
}
