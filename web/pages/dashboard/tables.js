// The map's contents and the daemon's reports as tables.

import { bits, duration, packets, short } from "../common/figures.js";
import { called } from "../common/groups.js";
import { table } from "../common/html.js";

/** Rows of a table; of more the first. */
const MOST = 500;
export const PATHS = {
    host: "direct",
    mapped: "direct, by a mapped port",
    reflexive: "direct, through NAT",
    relay: "by a relay",
    tcp: "by a relay, over TCP",
};
const CARRIERS = { server: "signalling server", overlay: "other nodes", lan: "LAN", spool: "shared folder", text: "pasted text", straight: "earlier address", dht: "DHT", matrix: "Matrix room" };
/** Of private prefixes: whether this host can read them. */
const SEALED = { sealed: "sealed", no_key: "sealed, no key at this host" };
const STATES = { connected: "✓ connected", connecting: "… connecting", lost: "✗ lost", refused: "✗ refused" };
/** Signs of trouble come first. */
const ORDER = Object.keys(STATES).reverse();
/** Busy ones first, in steps: rows that change places with each packet cannot be read. */
export const busy = (rate) => Math.ceil(Math.log10(1 + rate));

/** Of a link: costs are in units of 100 us, and at least 10. */
export const cost = (units) => (units <= 10 ? "≤ 1 ms" : `${(units / 10).toFixed(1)} ms`);

const headed = (name, rows) => (rows.length > MOST ? `${name} (${MOST} of ${rows.length})` : name);
/** A PeerId where there is no name; addresses stay. */
const brief = (id) => (id.includes(":") ? id : `…${id.slice(-6)}`);
const number = (head) => [head, "number"];
/** With the whole address behind a name. */
const whole = (group, names) => {
    const { title, isNamed } = called(group, names);
    return isNamed ? `${title}: ${group}` : group;
};
const noted = (text, ...notes) => {
    const said = notes.filter(Boolean).join("; ");
    return said === "" ? text : `${text} (${said})`;
};

export function showPeers({ peers }, rate) {
    const sorted = [...peers].sort((a, b) => ORDER.indexOf(a.state) - ORDER.indexOf(b.state) || ((a.name ?? "~") < (b.name ?? "~") ? -1 : 1));
    const rows = sorted.map((p) => [
        p.name ?? brief(p.peer_id),
        `${STATES[p.state] ?? p.state}${p.reason ? `: ${p.reason}` : ""}`,
        PATHS[p.path] ?? "–",
        CARRIERS[p.carrier] ?? "–",
        p.rtt_ms === null ? "–" : `${p.rtt_ms.toFixed(1)} ms`,
        p.loss === null ? "–" : `${(p.loss * 100).toFixed(1)} %`,
        bits(rate(`${p.peer_id} rx`)),
        bits(rate(`${p.peer_id} tx`)),
        duration(p.since_s),
    ]);
    const heads = ["Node", "State", "Path", "Found by", number("Round trip"), number("Loss"), number("In, all of UDP"), number("Out, all of UDP"), number("Since")];
    const none = "No other node is linked yet. `lcroute invite` here prints a token; `lcroute up TOKEN` there uses it.";
    table(document.getElementById("peers"), headed("Links of this node", rows), heads, rows.slice(0, MOST), none);
}

export function showGroups({ groups, lans, names, nodes, peers }, rate) {
    const name = (address) => nodes.find((node) => node.address === address)?.name ?? address;
    const peer = (id) => peers.find((p) => p.peer_id === id)?.name ?? brief(id);
    const joined = (g) => {
        const hosts = lans.flatMap((lan) => lan.listeners.filter((l) => l.group === g.group).map((l) => `${l.hosts} on ${lan.interface}`));
        return [g.local && "this host", ...hosts].filter(Boolean).join(", ") || "–";
    };
    const of = (g) => rate(`${g.group} packets`);
    const sorted = [...groups].sort((a, b) => busy(of(b)) - busy(of(a)) || (a.group < b.group ? -1 : 1));
    const rows = sorted.map((g) => [
        noted(whole(g.group, names), SEALED[g.private], g.refused && `refused: ${g.refused}`),
        joined(g),
        g.links.map(peer).join(", ") || "–",
        g.sources.map(name).join(", ") || "–",
        packets(of(g)),
        bits(rate(`${g.group} bytes`)),
    ]);
    const heads = ["Group", "Joined by", "Wanted by", "Senders", number("Packets"), number("Bits")];
    table(document.getElementById("groups"), headed("Groups at this node", rows), heads, rows.slice(0, MOST), "No program has joined a group.");
}

export function showDrops({ status, meanings }, rate) {
    const drops = Object.entries(status.counters.drops).sort(([, n], [, m]) => m - n);
    const rows = drops.map(([reason, n]) => [reason, short(n), packets(rate(`drop ${reason}`)), meanings[reason] ?? ""]);
    table(document.getElementById("drops"), "Dropped since the start", ["Reason", number("Packets"), number("Now"), "What it means"], rows, "Nothing was dropped.");
}

export function showLans({ lans, peers, status }) {
    const host = document.getElementById("lans");
    host.hidden = lans.length === 0;
    const who = (id) => (id === "self" || id === status.peer_id ? "this node" : (peers.find((p) => p.peer_id === id)?.name ?? (id ? brief(id) : "–")));
    const rows = lans.map((lan) => [
        lan.interface,
        lan.problem ? `✗ ${lan.role}: ${lan.problem}${lan.remedy ? ` → ${lan.remedy}` : ""}` : `✓ ${lan.role}${lan.note ? `: ${lan.note}` : ""}`,
        who(lan.forwarder),
        lan.querier_ipv4 ? `${who(lan.querier)}, IPv4 ${lan.querier_ipv4 === "self" ? "this node" : lan.querier_ipv4}` : who(lan.querier),
        lan.listeners.map((l) => `${l.group} (${l.hosts})`).join(", ") || "–",
        lan.sources.map((s) => s.address).join(", ") || "–",
    ]);
    table(host, "LANs that this node is a gateway of", ["Interface", "Role", "Forwarder", "Querier", "Listeners (hosts)", "Senders"], rows, "");
}

/** The map's contents. */
export function showMapTables({ names, nodes, links, flows: sent }, flows, group) {
    const name = (id) => flows.nodes.get(id)?.name ?? id;
    const title = (of) => called(of, names).title;
    const edges = group === null ? flows.allEdges() : flows.edges(group);
    const over = edges.sort((a, b) => busy(b.packets) - busy(a.packets) || (a.from + a.to < b.from + b.to ? -1 : 1)).map((edge) => [name(edge.from), name(edge.to), packets(edge.packets), bits(edge.bytes)]);
    const what = group === null ? "all groups" : title(group);
    table(document.getElementById("edges"), headed(`What flows over links: ${what}`, over), ["From", "To", number("Packets"), number("Bits")], over.slice(0, MOST), "Nothing flows.");
    const senders = new Map(flows.groups().map((g) => [g, flows.senders(g)]));
    const near = nodes.map(() => []);
    for (const [a, b, units] of links) {
        near[a].push(`${name(nodes[b].id)} (${cost(units)})`);
        near[b].push(`${name(nodes[a].id)} (${cost(units)})`);
    }
    const heard = nodes.map(() => []);
    sent.filter((flow) => flow.local).forEach((flow) => heard[flow.node].push(title(flow.group)));
    const rows = nodes.map((node, at) => [
        `${name(node.id)}${at === 0 ? " (this node)" : ""}${node.stub ? " (browser tab)" : ""}`,
        node.address ?? "–",
        near[at].join(", ") || "–",
        node.reports ? heard[at].join(", ") || "–" : "does not report",
        [...senders].filter(([, ids]) => ids.has(node.id)).map(([g]) => title(g)).join(", ") || "–",
    ]);
    table(document.getElementById("nodes"), headed("Nodes", rows), ["Node", "Address", "Links", "Listens to", "Sends to"], rows.slice(0, MOST), "");
}
