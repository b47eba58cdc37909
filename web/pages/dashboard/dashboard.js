// The dashboard: the daemon's reports as a map and as tables.

import { lead, openDoor, texts } from "../common/door.js";
import { focusFirst } from "../common/enter.js";
import { Curve, Rates, bits, duration, packets } from "../common/figures.js";
import { Flows } from "../common/flows.js";
import { called, short } from "../common/groups.js";
import { copier, facts, fill, html, say, words } from "../common/html.js";
import { NetworkMap } from "../common/map.js";
import { signs } from "../common/signs.js";
import { NoKey, checks, follow, invite } from "../common/feed.js";
import { PATHS, busy, cost, showDrops, showGroups, showLans, showMapTables, showPeers } from "./tables.js";
import { Share } from "../common/share.js";

// a link of something else that leads here is led on
const linked = lead(location.hash, !texts(location.hash).token);
if (linked?.href?.startsWith("../")) {
    location.replace(linked.href);
    await new Promise(() => {});
}

/** Groups that are listed; of more the busiest. */
const LISTED = 200;
/** Events that are listed. */
const TOLD = 100;
/** How long the latest stands above the page, in milliseconds. */
const NEWS = 20_000;
/** In a network of more nodes the page begins with the busiest group: all together would be a tangle. */
const CROWD = 60;
/** Other nodes learn from this page that somebody looks, and report within this time, in milliseconds: before, nothing is known. */
const REPORTING = 3_000;
/** Events, in words. */
const EVENTS = {
    link_up: ({ name }) => `${name}: linked`,
    link_lost: ({ name, why }) => `${name}: the link is lost${why ? `: ${why}` : ""}`,
    link_ended: ({ name }) => `${name}: this link is not needed any more`,
    node_came: ({ name }) => `${name} has come`,
    node_gone: ({ name }) => `${name} has gone`,
    daemon_gone: () => "this host’s daemon does not answer",
    daemon_back: () => "this host’s daemon answers again",
};
/** These events show a notice above the page. */
const BAD = ["link_lost", "node_gone", "daemon_gone"];
/** These events end the notice. */
const GOOD = { link_up: "link_lost", node_came: "node_gone", daemon_back: "daemon_gone" };
const STATES = {
    starting: "starting",
    connecting: "looking for other nodes",
    expelled: "expelled from the network: join again with a new token",
    stopping: "stopping",
};
const RESULTS = { fail: ["✗", "fails"], warn: ["!", "look at this"], ok: ["✓", "fine"], skipped: ["–", "not tried"] };

const $ = (id) => document.getElementById(id);
const view = { look: null, group: undefined, node: null, rates: new Map() };
const counted = new Rates();
const flows = new Flows();
const curves = [new Curve($("rates"), "groups in", bits), new Curve($("rates"), "groups out", bits)];
const map = new NetworkMap($("map"), { open: openNode });
const rate = (name) => view.rates.get(name) ?? 0;
const named = (group) => called(group, view.look?.names);

$("closer").addEventListener("click", () => map.zoom(1.4));
$("farther").addEventListener("click", () => map.zoom(1 / 1.4));
$("fit").addEventListener("click", () => map.fit());
$("filter").addEventListener("input", () => view.look && showChoice());
$("check").addEventListener("click", checkHost);
$("find").addEventListener("input", () => findNode(false));
$("find").addEventListener("change", () => findNode(true));
$("invite").querySelector("form").addEventListener("submit", (event) => {
    event.preventDefault();
    makeInvitation();
});
$("close").addEventListener("click", closeNode);
$("node").addEventListener("keydown", (event) => event.key === "Escape" && closeNode());
$("as-tables").addEventListener("toggle", () => view.look && showMap());
signs($("signs"));
openDoor($("open"), () => false, { words: $("link-words"), say });
addEventListener("hashchange", () => location.reload());
$("invite-page").value = `${location.origin}/node/`;
follow("/api/watch", take, trouble);
$("people").hash = location.hash;

/** A line of the server. */
function take(line) {
    if (line.error) {
        trouble(new Error(line.error));
    } else if (line.points) {
        begin(line);
    } else if (line.events) {
        line.events.forEach(tell);
    } else {
        look(line);
    }
}

/** The server's memory, and whether it makes invitations. */
function begin({ points, events, invites }) {
    $("invite").hidden = !invites;
    curves.forEach((curve, i) => curve.begin(points.map(({ at, rates }) => [at, rates[i]])));
    fill($("events"), []);
    events.forEach((event) => list(event));
}

function look(line) {
    view.begun ??= performance.now();
    view.look = line;
    view.rates = counted.next(line.at, counts(line));
    flows.next(line);
    document.body.classList.remove("stale", "blank");
    $("problem").hidden = true;
    $("open").hidden = true;
    $("age").hidden = true;
    showState(line);
    showChoice();
    showMap();
    showNode();
    showPeers(line, rate);
    showGroups(line, rate);
    showDrops(line, rate);
    showLans(line);
    showFind(line);
}

/** The last reports stay, and are marked as old. */
function trouble(error) {
    say($("problem"), error.message);
    $("problem").hidden = false;
    if (error instanceof NoKey) {
        say($("state"), "no access");
        if ($("open").hidden) {
            $("open").hidden = false;
            // conversations, for holders of the key
            $("doctor").hidden = true;
            focusFirst($("open"));
        }
        $("state").dataset.state = "stale";
    }
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

/** An event of now: it is listed, read out, and if it is bad stands above the page for a while. */
function tell(event) {
    const text = list(event);
    if (BAD.includes(event.kind)) {
        say($("notice"), `${new Date(event.at * 1000).toLocaleTimeString()}: ${text}`);
        $("notice").hidden = false;
        view.told = event;
        clearTimeout(view.news);
        view.news = setTimeout(() => ($("notice").hidden = true), NEWS);
    } else {
        $("changes").textContent = text;
        if (view.told?.kind === GOOD[event.kind] && view.told?.name === event.name) {
            $("notice").hidden = true;
        }
    }
}

function list(event) {
    const text = EVENTS[event.kind]?.(event) ?? event.kind;
    const at = new Date(event.at * 1000);
    $("events").prepend(html("li", { class: BAD.includes(event.kind) ? "bad" : "" }, html("time", { class: "when", datetime: at.toISOString() }, at.toLocaleTimeString()), text));
    while ($("events").children.length > TOLD) {
        $("events").lastChild.remove();
    }
    $("quiet").hidden = true;
    return text;
}

function showState({ status, nodes }) {
    const peers = `${status.peers} ${status.peers === 1 ? "peer" : "peers"}`;
    const state = STATES[status.state] ?? `${status.state}, ${peers}`;
    document.title = `${status.name}: ${status.state}, ${peers}`;
    say($("name"), status.name);
    say($("state"), state);
    $("state").dataset.state = status.state;
    const doors = status.doors.map((door) => (door.open ? door.at : `${door.at} (✗ ${door.note || "not connected"})`));
    const rows = [
        ["Address", status.address, true],
        ["PeerId", status.peer_id, true],
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
    // the first look has nothing before it
    ["in", "out"].forEach((name, i) => view.rates.has(name) && curves[i].add(view.look.at, rate(name)));
}

/** All groups that somebody is known to listen or send to, the busiest first. */
function summary() {
    const groups = new Set([...flows.groups(), ...(view.group ? [view.group] : [])]);
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
    // as soon as it is known which one that is
    if (view.group === undefined && all.some((row) => row.rate > 0)) {
        view.group = view.look.nodes.length > CROWD ? all[0].group : null;
    }
    const found = ({ group }) => group.includes(wanted) || named(group).title.toLowerCase().includes(wanted);
    const shown = all.filter(found).slice(0, LISTED);
    $("no-groups").hidden = all.length > 0 || performance.now() - view.begun <= REPORTING;
    $("filter").parentElement.hidden = all.length < 8;
    const most = Math.max(1, ...all.map((row) => row.rate));
    const host = $("choose");
    const known = new Map([...host.children].map((label) => [label.dataset.group, label]));
    const labels = [{ group: null }, ...shown].map(({ group, rate: packetsS, listeners }) => {
        const label = known.get(group ?? "") ?? choice(group);
        label.querySelector("input").checked = (view.group ?? null) === group;
        if (group !== null) {
            const { title, about, isNamed } = named(group);
            const isKnown = performance.now() - view.begun > REPORTING;
            const listen = listeners === 1 ? "1 node listens" : listeners > 0 || isKnown ? `${listeners} nodes listen` : "asking the nodes";
            say(label.querySelector("b"), title);
            label.title = group;
            say(label.querySelector("small"), [about, isNamed && short(group), listen].filter(Boolean).join(", "));
            say(label.querySelector(".rate"), packetsS > 0 ? packets(packetsS) : isKnown ? "silent" : "");
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
    const text = [html("b", {}, group === null ? "All groups" : ""), html("span", { class: "rate" }), html("small", {}, group === null ? "what goes over each link" : ""), ...(group === null ? [] : [html("i", { "aria-hidden": "true" })])];
    const label = html("label", {}, input, html("span", {}, ...text));
    label.dataset.group = group ?? "";
    return label;
}

function showMap() {
    const now = view.look;
    const group = view.group ?? null;
    const edges = group === null ? flows.allEdges() : flows.edges(group);
    const shown = edges.map((edge) => ({ from: edge.from, to: edge.to, rate: edge.packets, text: edge.packets > 0 ? packets(edge.packets) : "" }));
    say($("map-title"), group === null ? "The network" : `The tree of ${named(group).title}`);
    const silent = now.nodes.filter((node) => !node.reports).length;
    const unknown = silent === now.nodes.length - 1 ? "Only what this node sends is known: `[web] report = true` lets other nodes report" : `${silent} of ${now.nodes.length} nodes do not report: what they send is not known`;
    const isKnown = performance.now() - view.begun > REPORTING;
    const limits = [silent > 0 && isKnown && unknown, now.left_out > 0 && `${now.left_out} links, flows and groups are not shown: there are too many`].filter(Boolean);
    $("known").hidden = limits.length === 0;
    say($("known"), limits.join(". "));
    $("alone").hidden = now.nodes.length > 1 || now.status.state === "expelled";
    map.update(now, shown, flows.marks(group));
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
    const near = links.filter(([a, b]) => a === at || b === at).sort((a, b) => a[2] - b[2]);
    const neighbours = near.map(([a, b, units]) => [nodes[a === at ? b : a], units]);
    const heard = sent.filter((flow) => flow.node === at && flow.local).map((flow) => flow.group);
    const sum = (edges) => edges.reduce((total, edge) => total + edge.packets, 0);
    const all = flows.allEdges();
    const [into, out] = [all.filter((edge) => edge.to === node.id), all.filter((edge) => edge.from === node.id)];
    const peer = view.look.peers.find((p) => p.peer_id === node.peer_id);
    const peerFacts = !peer ? [] : [
        ["Link from here", `${PATHS[peer.path] ?? peer.state}, ${peer.rtt_ms === null ? "" : `${peer.rtt_ms.toFixed(1)} ms, `}${peer.loss === null ? "" : `${(peer.loss * 100).toFixed(1)} % lost`}`],
        ["Over it, all of UDP", `in ${bits(rate(`${peer.peer_id} rx`))}, out ${bits(rate(`${peer.peer_id} tx`))}`],
    ];
    say($("node-name"), nodeName(node));
    facts($("node").querySelector("dl"), [
        ["Address", node.address ?? "not known", !!node.address],
        ["PeerId", node.peer_id ?? "not known", !!node.peer_id],
        ["Version", (at === 0 ? view.look.status.version : node.version) ?? (node.reports ? "not known" : "It does not say.")],
        ...peerFacts,
        ["Packets of groups, as far as nodes report", `gets ${packets(sum(into))}, sends ${packets(sum(out))}`],
        ["Listens to", node.reports ? heard.slice(0, 20).map((group) => named(group).title).join(", ") || "no group" : "It does not say. `[web] report = true` in its configuration lets it."],
    ]);
    say($("node").querySelector("h3"), `Links (${near.length})`);
    const known = $("near").dataset.of === node.id ? new Map([...$("near").children].map((item) => [item.dataset.id, item])) : new Map();
    $("near").dataset.of = node.id;
    const items = neighbours.map(([other, units]) => {
        const item = known.get(other.id) ?? neighbour(other.id);
        say(item.firstChild, nodeName(other));
        say(item.lastChild, cost(units));
        return item;
    });
    if (items.length !== $("near").children.length || items.some((item, i) => $("near").children[i] !== item)) {
        fill($("near"), items);
    }
}

const nodeName = (node) => node.name ?? node.id;

function neighbour(id) {
    const button = html("button", { type: "button", class: "link-to" });
    button.addEventListener("click", () => openNode(id));
    const item = html("li", {}, button, html("small"));
    item.dataset.id = id;
    return item;
}

/** Names that can be found. */
function showFind({ nodes }) {
    const names = nodes.map(nodeName).sort();
    if (view.names !== names.join()) {
        view.names = names.join();
        fill($("names"), names.map((name) => html("option", { value: name })));
    }
}

/** The node of this name; `isWhole`: or the first whose name has this in it. */
function findNode(isWhole) {
    const wanted = $("find").value.trim().toLowerCase();
    const nodes = wanted === "" ? [] : (view.look?.nodes ?? []);
    const found = nodes.find((node) => nodeName(node).toLowerCase() === wanted) ?? (isWhole && nodes.find((node) => [nodeName(node), node.address, node.peer_id].some((text) => text?.toLowerCase().includes(wanted))));
    if (found) {
        openNode(found.id);
        $("find").value = "";
    } else if (isWhole && wanted !== "") {
        $("changes").textContent = `No node is called ${wanted}.`;
    }
}

async function makeInvitation() {
    const [made, form] = [$("invited"), $("invite").querySelector("form")];
    const { code, ttl, uses, page } = form.elements;
    try {
        const { token, link, not_after: until } = await invite({ code: code.value.trim(), ttl_s: Number(ttl.value), uses: uses.value === "" ? null : Number(uses.value), page: page.value.trim() });
        const isOwn = ["localhost", "127.0.0.1", "[::1]"].includes(new URL(page.value).hostname);
        const other = `Only this computer can open that link. For others, set \`[web] listen = "[::]:${location.port || 443}"\`, and write an address of this host that they reach in place of ${new URL(page.value).hostname}.`;
        const note = html("p", { class: "notice" });
        isOwn && say(note, other);
        const words = `For ${uses.value === "" ? "any number of nodes" : uses.value === "1" ? "one node" : `${uses.value} nodes`}, until ${new Date(until * 1000).toLocaleString()}. Whoever has it can join.`;
        const place = html("div");
        new Share(place, "Link of the invitation").value = link;
        fill(made, [place, html("p", {}, words), ...(isOwn ? [note] : []), html("p", { class: "row" }, copier(token, "Copy the token"))]);
    } catch (error) {
        fill(made, [html("p", { class: "problem" }, ...words(error.message))]);
    }
}

async function checkHost() {
    const button = $("check");
    button.disabled = true;
    fill($("findings"), [html("p", { class: "hint" }, "Checking. This takes some seconds.")]);
    try {
        const order = Object.keys(RESULTS);
        const found = (await checks()).sort((a, b) => order.indexOf(a.state) - order.indexOf(b.state));
        const item = ({ state, name, detail, remedy }) => {
            const [sign, word] = RESULTS[state] ?? ["–", state];
            const rest = remedy ? [html("p", { class: "hint" }, "→ ", ...words(remedy))] : [];
            return html("li", { class: state }, html("b", {}, `${sign} ${name}`, html("span", { class: "unseen" }, `: ${word}`)), ...words(detail), ...rest);
        };
        const [bad, good] = [true, false].map((isBad) => found.filter(({ state }) => ["fail", "warn"].includes(state) === isBad));
        const line = bad.length === 0 ? "all is fine" : bad.map(({ state, name }) => `${RESULTS[state][0]} ${name}`).join(", ");
        say($("verdict"), `: ${line}`);
        const rest = html("details", {}, html("summary", {}, `${good.length} are fine, or were not tried`), html("ul", { class: "findings" }, ...good.map(item)));
        fill($("findings"), [html("ul", { class: "findings" }, ...bad.map(item)), rest]);
    } catch (error) {
        fill($("findings"), [html("p", { class: "problem" }, error.message)]);
    }
    button.disabled = false;
}
