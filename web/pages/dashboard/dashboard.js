// The dashboard: what the daemon says, as a map and as tables.

import { Curve, Rates, bits, duration, packets } from "../common/figures.js";
import { Flows } from "../common/flows.js";
import { facts, fill, html, say, words } from "../common/html.js";
import { NetworkMap } from "../common/map.js";
import { signs } from "../common/signs.js";
import { checks, follow } from "./feed.js";
import { busy, cost, showDrops, showGroups, showLans, showMapTables, showPeers } from "./tables.js";

/** Groups that are listed; of more the busiest. */
const LISTED = 200;
/** How often changes are said, in milliseconds: who listens to a page hears no stammering. */
const SAY = 5000;
const STATES = {
    starting: "starting",
    connecting: "looking for other nodes",
    expelled: "expelled from the network: join again with a new token",
    stopping: "stopping",
};
const RESULTS = { fail: ["✗", "fails"], warn: ["!", "look at this"], ok: ["✓", "fine"], skipped: ["–", "not tried"] };

const $ = (id) => document.getElementById(id);
const view = { look: null, group: null, node: null, said: 0, rates: new Map() };
const counted = new Rates();
const flows = new Flows();
const curves = [new Curve($("rates"), "in", bits), new Curve($("rates"), "out", bits)];
const map = new NetworkMap($("map"), { open: openNode });
const rate = (name) => view.rates.get(name) ?? 0;

$("closer").addEventListener("click", () => map.zoom(1.4));
$("farther").addEventListener("click", () => map.zoom(1 / 1.4));
$("fit").addEventListener("click", () => map.fit());
$("filter").addEventListener("input", () => view.look && showChoice());
$("check").addEventListener("click", checkHost);
$("close").addEventListener("click", closeNode);
$("node").addEventListener("keydown", (event) => event.key === "Escape" && closeNode());
$("as-tables").addEventListener("toggle", () => view.look && showMap());
signs($("signs"));
addEventListener("hashchange", () => location.reload());
follow(look, trouble);

function look(line) {
    if (line.error) {
        trouble(line.error);
        return;
    }
    view.look = line;
    view.rates = counted.next(line.at, counts(line));
    flows.next(line);
    document.body.classList.remove("stale", "blank");
    $("problem").hidden = true;
    $("age").hidden = true;
    showState(line);
    showChoice();
    showMap();
    showNode();
    showPeers(line, rate);
    showGroups(line, rate);
    showDrops(line, rate);
    showLans(line);
    tellChanges(line);
}

/** What was seen last stays, and is said to be old. */
function trouble(text) {
    say($("problem"), text);
    $("problem").hidden = false;
    if (view.look) {
        document.body.classList.add("stale");
        say($("age"), `as of ${new Date(view.look.at * 1000).toLocaleTimeString()}`);
        $("age").hidden = false;
        say($("state"), "no news");
        $("state").dataset.state = "stale";
        document.title = `${view.look.status.name}: no news`;
    }
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

function tellChanges({ nodes }) {
    if (performance.now() - view.said < SAY) {
        return;
    }
    const now = { state: $("state").textContent, names: new Map(nodes.slice(1).map((node) => [node.id, node.name ?? node.id])) };
    const before = view.told ?? now;
    const missing = (these, those) => [...these.names].filter(([id]) => !those.names.has(id)).map(([, name]) => name);
    const list = (names, verb) => (names.length > 3 ? [`${names.length} nodes ${verb}`] : names.map((name) => `${name} ${verb}`));
    const changes = [...list(missing(now, before), "has come"), ...list(missing(before, now), "has gone"), ...(now.state === before.state ? [] : [now.state])];
    if (changes.length > 0) {
        $("changes").textContent = changes.join(", ");
    }
    view.told = now;
    view.said = performance.now();
}

function showState({ status, nodes }) {
    const peers = `${status.peers} ${status.peers === 1 ? "peer" : "peers"}`;
    const state = STATES[status.state] ?? `${status.state}, ${peers}`;
    document.title = `${status.name}: ${status.state}, ${peers}`;
    say($("name"), status.name);
    say($("state"), state);
    $("state").dataset.state = status.state;
    const doors = status.doors.map((door) => (door.open ? door.at : `${door.at} (✗ not connected)`));
    const rows = [
        ["Address", status.address],
        ["Interface", status.tun],
        ["Up for", duration(status.uptime_s)],
        ["Nodes", String(nodes.length)],
        ["Found by", doors.join(", ") || "pasted texts only"],
    ];
    if (status.relay.address) {
        rows.push(["Relay", status.relay.url ?? status.relay.address]);
    }
    if (status.mapping.address) {
        rows.push(["Mapped port", status.mapping.address]);
    }
    facts($("facts"), rows);
    $("blocked").hidden = status.inbound !== "blocked";
    say($("blocked"), `This host’s firewall drops what arrives on ${status.tun}: programs here receive nothing. “Check this host” says what to do.`);
    curves[0].add(rate("in"));
    curves[1].add(rate("out"));
}

/** All groups that somebody is known to listen or send to, the busiest first. */
function summary() {
    const groups = new Set([...flows.groups(), ...(view.group === null ? [] : [view.group])]);
    const rows = [...groups].map((group) => ({
        group,
        rate: Math.max(rate(`${group} packets`), ...flows.edges(group).map((edge) => edge.packets)),
        listeners: flows.listeners(group).size,
    }));
    return rows.sort((a, b) => busy(b.rate) - busy(a.rate) || (a.group < b.group ? -1 : 1));
}

function showChoice() {
    const wanted = $("filter").value.trim().toLowerCase();
    const all = summary();
    const shown = all.filter(({ group }) => group.includes(wanted)).slice(0, LISTED);
    $("no-groups").hidden = all.length > 0;
    $("filter").parentElement.hidden = all.length < 8;
    const most = Math.max(1, ...all.map((row) => row.rate));
    const host = $("choose");
    const known = new Map([...host.children].map((label) => [label.dataset.group, label]));
    const labels = [{ group: null }, ...shown].map(({ group, rate: packetsS, listeners }) => {
        const label = known.get(group ?? "") ?? choice(group);
        label.querySelector("input").checked = view.group === group;
        if (group !== null) {
            say(label.querySelector("small"), listeners === 1 ? "1 node listens" : `${listeners} nodes listen`);
            say(label.querySelector(".rate"), packetsS > 0 ? packets(packetsS) : "silent");
            label.querySelector("i").style.width = `${(100 * Math.log2(1 + packetsS)) / Math.log2(1 + most)}%`;
        }
        return label;
    });
    if (labels.length !== host.children.length || labels.some((label, i) => host.children[i] !== label)) {
        const active = document.activeElement;
        fill(host, labels);
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
    const text = [html("b", {}, group ?? "All groups"), html("span", { class: "rate" }), html("small", {}, group === null ? "what goes over each link" : ""), ...(group === null ? [] : [html("i", { "aria-hidden": "true" })])];
    const label = html("label", {}, input, html("span", {}, ...text));
    label.dataset.group = group ?? "";
    return label;
}

function showMap() {
    const { group, look: now } = view;
    const edges = group === null ? flows.allEdges() : flows.edges(group);
    const shown = edges.map((edge) => ({ from: edge.from, to: edge.to, rate: edge.packets, text: edge.packets > 0 ? packets(edge.packets) : "" }));
    const [listeners, senders] = group === null ? [new Set(), new Set()] : [flows.listeners(group), flows.senders(group)];
    say($("map-title"), group === null ? "The network" : `The tree of ${group}`);
    const silent = now.nodes.filter((node) => !node.reports).length;
    const unknown = silent === now.nodes.length - 1 ? "Only what this node sends is known: `[web] report = true` lets other nodes report" : `${silent} of ${now.nodes.length} nodes do not report: what they send is not known`;
    const limits = [silent > 0 && unknown, now.left_out > 0 && `${now.left_out} links, flows and groups are not shown: there are too many`].filter(Boolean);
    $("known").hidden = limits.length === 0;
    say($("known"), limits.join(". "));
    $("alone").hidden = now.nodes.length > 1 || now.status.state === "expelled";
    map.update(now, shown, { listeners, senders, chosen: group !== null });
    if ($("as-tables").open) {
        showMapTables(now, flows, group);
    }
}

function openNode(id) {
    view.node = id;
    map.choose(id);
    showNode();
    $("node").focus({ preventScroll: innerWidth > 900 });
}

function closeNode() {
    const node = map.nodes.get(view.node);
    view.node = null;
    map.choose(null);
    showNode();
    node?.group.focus({ preventScroll: true });
}

function showNode() {
    const { nodes, links, flows: sent } = view.look;
    const at = nodes.findIndex((node) => node.id === view.node);
    $("node").hidden = view.node === null;
    if (view.node === null) {
        return;
    }
    if (at < 0) {
        facts($("node").querySelector("dl"), [["State", "✗ gone: no way leads to it any more"]]);
        return;
    }
    const node = nodes[at];
    const name = (place) => nodes[place].name ?? nodes[place].id;
    const mine = links.filter(([a, b]) => a === at || b === at).sort((a, b) => a[2] - b[2]);
    const neighbours = mine.map(([a, b, units]) => `${name(a === at ? b : a)} (${cost(units)})`);
    const heard = sent.filter((flow) => flow.node === at && flow.local).map((flow) => flow.group);
    say($("node-name"), name(at));
    facts($("node").querySelector("dl"), [
        ["Address", node.address ?? "not known"],
        ["PeerId", node.peer_id ?? "not known"],
        [`Links (${mine.length})`, neighbours.slice(0, 30).join(", ") || "none"],
        ["Listens to", node.reports ? heard.slice(0, 20).join(", ") || "no group" : "It does not say. `[web] report = true` in its configuration lets it."],
    ]);
}

async function checkHost() {
    const button = $("check");
    button.disabled = true;
    fill($("findings"), [html("p", { class: "hint" }, "Checking. This takes some seconds.")]);
    try {
        const order = Object.keys(RESULTS);
        const found = (await checks()).sort((a, b) => order.indexOf(a.state) - order.indexOf(b.state));
        const items = found.map(({ state, name, detail, remedy }) => {
            const [sign, word] = RESULTS[state] ?? ["–", state];
            const rest = remedy ? [html("p", { class: "hint" }, "→ ", ...words(remedy))] : [];
            return html("li", { class: state }, html("b", {}, `${sign} ${name}`, html("span", { class: "unseen" }, `: ${word}`)), ...words(detail), ...rest);
        });
        fill($("findings"), [html("ul", { class: "findings" }, ...items)]);
    } catch (error) {
        fill($("findings"), [html("p", { class: "problem" }, error.message)]);
    }
    button.disabled = false;
}
