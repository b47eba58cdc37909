// The dashboard: what the daemon says, as a map and as tables.

import { checks, follow } from "./feed.js";
import { Curve, Rates, bits, duration, packets, short } from "../common/figures.js";
import { fill, html, table } from "../common/html.js";
import { NetworkMap } from "../common/map.js";

/** Groups that are listed; of more the busiest. */
const LISTED = 200;
/** How often changes are said, in milliseconds: who listens to a page hears no stammering. */
const SAY = 5000;
const PATHS = {
    host: "direct",
    mapped: "direct, by a mapped port",
    reflexive: "direct, through NAT",
    relay: "by a relay",
    tcp: "by a relay, over TCP",
};
const CARRIERS = { server: "signalling server", overlay: "other nodes", lan: "LAN", spool: "shared folder", text: "pasted text", straight: "earlier address" };
const RESULTS = { fail: "✗ fails", warn: "! look at this", ok: "✓ fine", skipped: "– not tried" };

const $ = (id) => document.getElementById(id);
const view = { look: null, group: null, node: null, names: new Set(), said: 0 };
const counted = new Rates();
const curves = [
    new Curve($("rates"), "in", bits),
    new Curve($("rates"), "out", bits),
];
const map = new NetworkMap($("map"), { open: (id) => openNode(id) });

$("closer").addEventListener("click", () => map.zoom(1.4));
$("farther").addEventListener("click", () => map.zoom(1 / 1.4));
$("fit").addEventListener("click", () => map.fit());
$("filter").addEventListener("input", () => view.look && showChoice());
$("check").addEventListener("click", checkHost);
addEventListener("hashchange", () => location.reload());
follow(look, trouble);

function look(line) {
    if (line.error) {
        trouble(line.error);
        return;
    }
    $("problem").hidden = true;
    document.body.classList.remove("stale");
    view.look = line;
    view.rates = counted.next(line.at, counts(line));
    tellChanges(line);
    showState(line);
    showChoice();
    showMap();
    showPeers(line);
    showGroups(line);
    showDrops(line);
    showLans(line);
    if (view.node) {
        showNode();
    }
}

function trouble(words) {
    const since = view.look && ` What you see is of ${new Date(view.look.at * 1000).toLocaleTimeString()}.`;
    $("problem").textContent = words + (since ?? "");
    $("problem").hidden = false;
    document.body.classList.toggle("stale", view.look !== null);
}

/** All that is counted, by name. */
function counts({ status, peers, groups }) {
    const { counters } = status;
    const list = [
        ["in", counters.link_rx_bytes],
        ["out", counters.link_tx_bytes],
        ...Object.entries(counters.drops).map(([reason, n]) => [`drop ${reason}`, n]),
        ...peers.flatMap((p) => [
            [`${p.peer_id} rx`, p.rx_bytes],
            [`${p.peer_id} tx`, p.tx_bytes],
        ]),
        ...groups.flatMap((g) => [
            [`${g.group} packets`, g.packets],
            [`${g.group} bytes`, g.bytes],
        ]),
    ];
    return new Map(list);
}

const rate = (name) => view.rates.get(name) ?? 0;

function tellChanges({ nodes }) {
    const names = new Set(nodes.slice(1).map((node) => node.name ?? node.id));
    const came = [...names].filter((name) => !view.names.has(name));
    const went = [...view.names].filter((name) => !names.has(name));
    const isDue = performance.now() - view.said > SAY;
    if (view.said && isDue && came.length + went.length > 0) {
        const say = (list, verb) => (list.length > 3 ? [`${list.length} nodes ${verb}`] : list.map((name) => `${name} ${verb}`));
        $("changes").textContent = [...say(came, "has come"), ...say(went, "has gone")].join(", ");
    }
    if (!view.said || isDue) {
        view.names = names;
        view.said = performance.now();
    }
}

function showState({ status, nodes }) {
    const peers = `${status.peers} ${status.peers === 1 ? "peer" : "peers"}`;
    document.title = `${status.name}: ${status.state}, ${peers}`;
    $("name").textContent = status.name;
    const words = {
        starting: "starting",
        connecting: "looking for other nodes",
        connected: `connected, ${peers}`,
        expelled: "expelled from the network: join again with a new token",
        stopping: "stopping",
    };
    $("state").textContent = words[status.state] ?? status.state;
    $("state").dataset.state = status.state;
    const doors = status.doors.map((door) => (door.open ? door.at : `${door.at} (not connected)`));
    const facts = [
        ["Address", status.address],
        ["Interface", status.tun],
        ["Up", duration(status.uptime_s)],
        ["Nodes", String(nodes.length)],
        ["Found by", doors.join(", ") || "pasted texts only"],
    ];
    if (status.inbound === "blocked") {
        facts.push(["Firewall", `this host drops what arrives on ${status.tun}: programs here receive nothing`]);
    }
    if (status.relay.address) {
        facts.push(["Relay", status.relay.url]);
    }
    if (status.mapping.address) {
        facts.push(["Mapped port", status.mapping.address]);
    }
    fill($("facts"), facts.map(([name, value]) => html("div", {}, html("dt", {}, name), html("dd", {}, value))));
    curves[0].add(rate("in"));
    curves[1].add(rate("out"));
}

/** All groups that somebody is known to listen or send to, the busiest first. */
function summary() {
    const groups = new Map();
    const of = (group) => {
        if (!groups.has(group)) {
            groups.set(group, { group, rate: 0, listeners: 0 });
        }
        return groups.get(group);
    };
    for (const { group } of view.look.groups) {
        of(group).rate = rate(`${group} packets`);
    }
    for (const flow of view.look.flows) {
        const known = of(flow.group);
        known.listeners += flow.local ? 1 : 0;
        known.rate = Math.max(known.rate, ...flow.edges.map((edge) => edge.packets_s));
    }
    return [...groups.values()].sort((a, b) => b.rate - a.rate || b.listeners - a.listeners || (a.group < b.group ? -1 : 1));
}

function showChoice() {
    const wanted = $("filter").value.trim().toLowerCase();
    const all = summary();
    const shown = all.filter(({ group }) => group.includes(wanted)).slice(0, LISTED);
    $("no-groups").hidden = all.length > 0;
    $("filter").parentElement.hidden = all.length < 8;
    const rows = [{ group: null }, ...shown];
    const host = $("choose");
    const known = new Map([...host.children].map((label) => [label.dataset.group, label]));
    const labels = rows.map(({ group, rate: packetsS, listeners }) => {
        const key = group ?? "";
        const label = known.get(key) ?? choice(group);
        label.querySelector("input").checked = view.group === group;
        const ears = listeners === 1 ? "1 listener" : `${listeners} listeners`;
        label.querySelector("small").textContent = group === null ? "what goes over each link" : `${packets(packetsS)}, ${ears}`;
        return label;
    });
    if (labels.length !== host.children.length || labels.some((label, i) => host.children[i] !== label)) {
        const active = document.activeElement;
        host.replaceChildren(...labels);
        if (host.contains(active)) {
            active.focus();
        }
    }
}

function choice(group) {
    const input = html("input", { type: "radio", name: "group" });
    input.addEventListener("change", () => {
        view.group = group;
        showMap();
    });
    const label = html("label", {}, input, html("span", {}, html("b", {}, group ?? "All groups"), html("small", {})));
    label.dataset.group = group ?? "";
    return label;
}

function showMap() {
    const { nodes, flows, groups } = view.look;
    const edges = new Map();
    const [listeners, senders] = [new Set(), new Set()];
    const into = new Set();
    for (const flow of flows.filter((f) => view.group === null || f.group === view.group)) {
        const from = nodes[flow.node];
        if (flow.local && view.group !== null) {
            listeners.add(from.id);
        }
        for (const edge of flow.edges) {
            const to = nodes[edge.to];
            const key = `${from.id} ${to.id}`;
            const sum = edges.get(key) ?? { from: from.id, to: to.id, rate: 0 };
            sum.rate += edge.packets_s;
            edges.set(key, sum);
            into.add(to.id);
        }
    }
    const shown = [...edges.values()].filter((edge) => edge.rate > 0);
    shown.forEach((edge) => (edge.text = packets(edge.rate)));
    if (view.group !== null) {
        // where packets come out and none go in, and what this node knows itself
        shown.filter((edge) => !into.has(edge.from)).forEach((edge) => senders.add(edge.from));
        const sources = groups.find((g) => g.group === view.group)?.sources ?? [];
        nodes.filter((node) => sources.includes(node.address)).forEach((node) => senders.add(node.id));
    }
    $("map-title").textContent = view.group === null ? "The network" : `The tree of ${view.group}`;
    map.update(view.look, shown, { listeners, senders, chosen: view.group !== null });
}

function openNode(id) {
    view.node = id;
    showNode();
}

function showNode() {
    const { nodes, links, flows } = view.look;
    const at = nodes.findIndex((node) => node.id === view.node);
    const host = $("node");
    host.hidden = at < 0;
    if (at < 0) {
        return;
    }
    const node = nodes[at];
    const name = (place) => nodes[place].name ?? nodes[place].id;
    const mine = links.filter(([a, b]) => a === at || b === at);
    const neighbours = mine.map(([a, b, cost]) => `${name(a === at ? b : a)} (${(cost / 10).toFixed(1)} ms)`);
    const heard = flows.filter((flow) => flow.node === at && flow.local).map((flow) => flow.group);
    const close = html("button", { type: "button" }, "Close");
    close.addEventListener("click", () => {
        view.node = null;
        host.hidden = true;
    });
    const listens = node.reports ? heard.slice(0, 20).join(", ") || "no group" : "it does not say: [web] report = true in its configuration";
    const facts = [
        ["PeerId", node.peer_id ?? "not known"],
        ["Address", node.address ?? "not known"],
        [`Links (${mine.length})`, neighbours.slice(0, 30).join(", ")],
        ["Listens to", listens],
    ];
    fill(host, [html("h2", {}, name(at)), html("dl", { class: "facts" }, ...facts.map(([key, value]) => html("div", {}, html("dt", {}, key), html("dd", {}, value)))), close]);
}

function showPeers({ peers }) {
    const rows = peers.map((p) => [
        p.name ?? "?",
        p.reason ? `${p.state}: ${p.reason}` : p.state,
        PATHS[p.path] ?? "–",
        CARRIERS[p.carrier] ?? "–",
        p.rtt_ms === null ? "–" : `${p.rtt_ms.toFixed(1)} ms`,
        p.loss === null ? "–" : `${(p.loss * 100).toFixed(1)} %`,
        bits(rate(`${p.peer_id} rx`)),
        bits(rate(`${p.peer_id} tx`)),
        duration(p.since_s),
    ]);
    const none = "No other node is linked yet. `lcroute invite` here prints a token; `lcroute up TOKEN` there uses it.";
    table($("peers"), "Links", ["Node", "State", "Path", "Met by", "Round trip", "Loss", "In", "Out", "Since"], rows, none);
}

function showGroups({ groups, nodes, peers }) {
    const name = (address) => nodes.find((node) => node.address === address)?.name ?? address;
    const peer = (id) => peers.find((p) => p.peer_id === id)?.name ?? id.slice(-6);
    const sorted = [...groups].sort((a, b) => rate(`${b.group} packets`) - rate(`${a.group} packets`));
    const rows = sorted.slice(0, LISTED).map((g) => [
        g.refused ? `${g.group} (refused: ${g.refused})` : g.group,
        g.local ? "yes" : "no",
        g.links.map(peer).join(", ") || "–",
        g.sources.map(name).join(", ") || "–",
        packets(rate(`${g.group} packets`)),
        bits(rate(`${g.group} bytes`)),
    ]);
    table($("groups"), "Groups at this node", ["Group", "Joined here", "Wanted by", "Senders", "Packets", "Bits"], rows, "No program has joined a group.");
}

function showDrops({ status, meanings }) {
    const drops = Object.entries(status.counters.drops).sort(([a, n], [b, m]) => rate(`drop ${b}`) - rate(`drop ${a}`) || m - n);
    const rows = drops.map(([reason, n]) => [reason, short(n), packets(rate(`drop ${reason}`)), meanings[reason] ?? ""]);
    table($("drops"), "Dropped since the start", ["Reason", "Packets", "Now", "What it means"], rows, "Nothing was dropped.");
}

function showLans({ lans }) {
    $("lans").hidden = lans.length === 0;
    const rows = lans.map((lan) => [
        lan.interface,
        lan.problem ? `${lan.role}: ${lan.problem}. ${lan.remedy ?? ""}` : lan.role,
        lan.forwarder ?? "–",
        lan.querier ?? "–",
        lan.listeners.map((l) => `${l.group} (${l.hosts})`).join(", ") || "–",
        lan.sources.map((s) => s.address).join(", ") || "–",
    ]);
    table($("lans"), "LANs", ["Interface", "Role", "Forwarder", "Querier", "Listeners (hosts)", "Senders"], rows, "");
}

async function checkHost() {
    const button = $("check");
    button.disabled = true;
    fill($("findings"), [html("p", { class: "hint" }, "Checking. This takes some seconds.")]);
    try {
        const order = Object.keys(RESULTS);
        const found = (await checks()).sort((a, b) => order.indexOf(a.state) - order.indexOf(b.state));
        const items = found.map((check) =>
            html("li", { class: check.state }, html("b", {}, RESULTS[check.state] ?? check.state), ` ${check.name}: ${check.detail}`, ...(check.remedy ? [html("p", { class: "hint" }, check.remedy)] : [])),
        );
        fill($("findings"), [html("ul", { class: "findings" }, ...items)]);
    } catch (error) {
        fill($("findings"), [html("p", { class: "problem" }, error.message)]);
    }
    button.disabled = false;
}
