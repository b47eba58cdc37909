//! Every reason for which a packet or message is dropped, with its count.

librecast::drop_reasons! {
    /// Why a packet or a message was dropped.
    pub enum DropReason {
    /// Not an IP packet, or one that ends within its headers, has no valid source, or has a source route.
    Malformed = "malformed",
    /// Unicast, where one of both ends has it switched off.
    UnicastOff = "unicast_off",
    /// To a group that stays on its host or link: scopes 0 to 4, except listed ones of scope 2.
    ScopeNotCarried = "scope_not_carried",
    /// Neighbour or router discovery, redirect, PIM, MLD or IGMP: never carried, whatever its destination.
    LinkControl = "link_control",
    /// IPv6, or MLD, to a group or address that is the name of an IPv4 one inside.
    ReservedGroup = "reserved_group",
    /// IPv4 to all hosts of a link, or to all addresses of the network.
    Broadcast = "broadcast",
    /// From `lc0` with a source that is not this node's, or its link-local one beyond scope 2.
    ForeignSource = "foreign_source",
    /// From a link with a source that is not its origin's.
    ForgedSource = "forged_source",
    /// To a group outside the prefixes that the sender's certificate permits.
    NotPermitted = "not_permitted",
    /// Of a private prefix, from a link, and not sealed.
    NotSealed = "not_sealed",
    /// Sealed with the key of a private prefix, as it says, and changed or invented by somebody without it.
    NotAuthentic = "not_authentic",
    /// Of a private prefix, where this node has no key: of a program, or sealed with a key of others.
    NoGroupKey = "no_group_key",
    /// Nobody in the network listens.
    NoListener = "no_listener",
    /// Arrived, but no program on this host has joined it from this source.
    NotJoined = "not_joined",
    /// A sequence number seen before, or behind the duplicate window.
    Duplicate = "duplicate",
    /// Sent by another run of its origin's daemon than the one that said HELLO.
    OldIncarnation = "old_incarnation",
    /// Arrived over a link behind which its origin or its tree's root does not lie.
    ReversePath = "reverse_path",
    /// A data header that is too short or of a kind this version does not know.
    BadHeader = "bad_header",
    /// The overlay's hop limit is used up.
    HopLimit = "hop_limit",
    /// For or from a link that is not up.
    UnknownLink = "unknown_link",
    /// A control message that cannot be read, or that comes out of turn.
    BadControl = "bad_control",
    /// An MLD or IGMP message that RFC 9777 or RFC 9776 tells us to ignore.
    BadMld = "bad_mld",
    /// An MLD report from the unspecified address.
    MldUnspecifiedSource = "mld_unspecified_source",
    /// A local join beyond the bound of the group table.
    GroupLimit = "group_limit",
    /// Join state of a neighbour beyond its bounds; it was refused, and is sent again later.
    JoinRefused = "join_refused",
    /// Join state that waits: the neighbour has no more room for those who want it.
    JoinWithheld = "join_withheld",
    /// More changes of join state than a neighbour may make; they were refused, and are sent again later.
    JoinLimited = "join_limited",
    /// More LSAs or summaries than a router may send; the newest waits.
    FloodLimited = "flood_limited",
    /// An LSA that cannot be read.
    BadLsa = "bad_lsa",
    /// An LSA that its router, or the network, did not sign.
    ForgedLsa = "forged_lsa",
    /// Certificates in an LSA that do not count: forged, expired, or not valid yet.
    CredentialRefused = "credential_refused",
    /// An LSA of, or by, a key that was revoked.
    Revoked = "revoked",
    /// Certificates of a second key with the origin of a router that is known.
    OriginClash = "origin_clash",
    /// An advertisement of a router whose certificates are not known.
    UnknownRouter = "unknown_router",
    /// A router or revocation beyond the bound of the link state database.
    DatabaseFull = "database_full",
    /// A router beyond those that its invitation is for.
    InvitationFull = "invitation_full",
    /// A router announces groups outside its certificate.
    AnnouncementNotPermitted = "announcement_not_permitted",
    /// No route leads to its destination.
    NoRoute = "no_route",
    /// Longer than the far side takes, or than an echo may be.
    TooBig = "too_big",
    /// For others, beyond `[network] pass_on`.
    PassOnLimited = "pass_on_limited",
    /// More bytes of messages from router to router than a neighbour may pass on.
    RoutedLimited = "routed_limited",
    /// A CARRY that cannot be read, is old, or was not signed by the router that it names.
    CarryRefused = "carry_refused",
    /// From a LAN of which another gateway is the forwarder, or for such a LAN.
    LanStandby = "lan_standby",
    /// From a LAN host whose address no prefix of the LAN contains.
    LanForeignSource = "lan_foreign_source",
    /// From a link-local address of a LAN, which means nothing elsewhere.
    LanLinkLocal = "lan_link_local",
    /// From a LAN host for which this node's certificate does not let it speak.
    LanNotPermitted = "lan_not_permitted",
    /// From or to a LAN, of a group or in a direction that its configuration leaves out.
    LanNotConfigured = "lan_not_configured",
    /// From the Ethernet address of a gateway: the packet has been in the network already.
    LanGatewayFrame = "lan_gateway_frame",
    /// From a second Ethernet address with the source of a host that sent a moment ago.
    LanSourceMoved = "lan_source_moved",
    /// From more hosts of a LAN than are kept.
    LanSourceLimit = "lan_source_limit",
    /// Beyond the rate that hosts of a LAN may send at, or that is sent into it.
    LanRate = "lan_rate",
    /// Longer than a LAN takes, or than a host of a LAN may send.
    LanTooBig = "lan_too_big",
    /// From a LAN of a segment, or for it, by a gateway whose certificate does not permit the segment.
    SegmentNotPermitted = "segment_not_permitted",
    /// In a segment: of a router or a DHCP server, or a query for one; each LAN keeps its own.
    SegmentRouter = "segment_router",
    /// In a segment: of a link between two nodes of the network, which would lead through itself.
    SegmentOwnLink = "segment_own_link",
    /// In a segment: for a host that no LAN has.
    SegmentUnknownHost = "segment_unknown_host",
    /// In a segment: from a host whose address answers on another of its LANs.
    SegmentConflict = "segment_conflict",
    /// In a segment: broadcast, link-local groups and questions beyond their rate.
    SegmentStorm = "segment_storm",
    /// In a segment: beyond the bounds of its tables.
    SegmentFull = "segment_full",
    /// From a LAN host: a part of an IPv4 packet, of which only the first has ports.
    LanFragment = "lan_fragment",
    /// From a LAN host: IPv4 other than UDP.
    LanNotUdp = "lan_not_udp",
    /// From a LAN host: IPv4, which goes out under this node's own IPv4 address, and it has none.
    LanNoIpv4 = "lan_no_ipv4",
    /// For a LAN on which its source lies itself.
    LanOwnSource = "lan_own_source",
    /// For a LAN that its source reaches on another path.
    LanOtherPath = "lan_other_path",
    /// A join that is not reported on a LAN: more groups than switches may have room for.
    LanReportLimit = "lan_report_limit",
    /// More changes of joins than one LAN host may make in a second.
    LanJoinLimited = "lan_join_limited",
    /// From or to a LAN: multicast DNS that cannot be read, or that wants an answer by unicast.
    LanBadMdns = "lan_bad_mdns",
    /// From or to a LAN: multicast DNS that was said there within the last second.
    LanMdnsRepeated = "lan_mdns_repeated",
    /// A PROBE that cannot be read, is not signed by a member, or was sent before.
    LanBadProbe = "lan_bad_probe",
    /// A packet of a leaf, which may listen and no more.
    LeafSent = "leaf_sent",
    /// A packet of a leaf to a group that is private or no asking group, or that its certificate does not permit.
    LeafUplinkGroup = "leaf_uplink_group",
    /// A packet of a leaf to an asking group, beyond the rate of a leaf, of the group or of this router.
    LeafUplinkRate = "leaf_uplink_rate",
    /// A join of a leaf outside the groups that its certificate permits, or of a group that is not carried.
    LeafNotPermitted = "leaf_not_permitted",
    /// A join of a leaf beyond its share of the bounds of all leaves together: groups, sources, changes.
    LeafJoinLimited = "leaf_join_limited",
    /// For leaves, beyond the rate that all of them together get.
    LeafRate = "leaf_rate",
    /// A neighbour advertised other join state than was received: it is advertised again.
    AuditDiffers = "audit_differs",
    }
}
