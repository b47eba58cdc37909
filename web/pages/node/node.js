// The node page: by a token this tab becomes a member, listens, says, and sees the network.

import { Curve, Rates, bits, packets } from "../common/figures.js";
import { Flows } from "../common/flows.js";
import { facts, fill, html, say, table } from "../common/html.js";
import { NetworkMap } from "../common/map.js";
import { signs } from "../common/signs.js";
import { showMapTables, showPeers } from "../dashboard/tables.js";
import { Member } from "./member.js";
import { forgetVisit, keepVisit, keptVisit, random, takeToken } from "./visit.js";

/** How often the page is drawn, in milliseconds. */
const DRAW = 1000;
/** Messages that are shown, and how often they are, in milliseconds. */
const SHOWN = 100;
const SHOW = 200;
/** Longest text of a message that is shown, in bytes. */
const LONGEST = 400;
/** Port of `lcroute say` and `lcroute listen`. */
const TALK = 14244;
const CONTROL = /[\0-\x08\x0e-\x1f\x7f]/;

const $ = (id) => document.getElementById(id);
const text = new TextDecoder("utf-8", { fatal: true });
const counted = new Rates();
const flows = new Flows();
const curves = [new Curve($("rates"), "in", bits), new Curve($("rates"), "out", bits)];
const view = { member: null, group: null, heard: new Map(), counts: new Map(), names: new Map(), rates: new Map() };
const map = new NetworkMap($("map"), { open: () => {} });
const rate = (name) => view.rates.get(name) ?? 0;

$("become").addEventListener("submit", (event) => {
    event.preventDefault();
    begin({ token: $("token").value, name: $("call").value.trim() });
});
$("listen").addEventListener("submit", (event) => {
    event.preventDefault();
    attempt(() => listen($("group").value.trim()));
});
$("say").addEventListener("submit", (event) => {
    event.preventDefault();
    attempt(() => {
        view.member.send($("to").value.trim(), Number($("port").value), new TextEncoder().encode($("words").value));
        tell({ source: null, group: $("to").value.trim(), port: Number($("port").value), words: $("words").value });
        $("words").value = "";
    });
});
$("leave").addEventListener("click", () => {
    forgetVisit();
    end("You have left the network.");
});
$("closer").addEventListener("click", () => map.zoom(1.4));
$("farther").addEventListener("click", () => map.zoom(1 / 1.4));
$("fit").addEventListener("click", () => map.fit());
$("as-tables").addEventListener("toggle", () => view.member && draw());
signs($("signs"));
// peers learn at once that this tab goes
addEventListener("pagehide", () => view.member?.end());
setInterval(() => view.member && draw(), DRAW);
setInterval(showHeard, SHOW);

$("call").value = `browser-${random(3).toLowerCase()}`;
$("token").value = takeToken();
const kept = await keptVisit();
if (kept.visit) {
    begin({ visit: kept.visit, name: "" });
} else if (kept.problem) {
    problem(kept.problem);
}

async function begin({ token, visit, name }) {
    problem(null);
    const start = { token, visit, name, key: random(32), seed: random(32), incarnation: Math.floor(Date.now() / 1000), report: $("report").checked };
    try {
        view.member = await Member.begin(start, { datagram: hear, sealed: hearSealed, keep: keepVisit, change: drawSoon });
    } catch (error) {
        forgetVisit();
        problem(error.message);
        return;
    }
    $("token").value = "";
    view.member.look(true);
    show(true);
    draw();
}

function end(why) {
    view.member.end();
    view.member = null;
    Object.assign(view, { group: null, heard: new Map(), counts: new Map() });
    show(false);
    problem(why);
}

function show(isMember) {
    $("door").hidden = isMember;
    $("inside").hidden = !isMember;
    if (!isMember) {
        say($("name"), "A node in this page");
        state("starting", "not a member of a network");
        facts($("facts"), []);
    }
    (isMember ? $("group") : $("token")).focus({ preventScroll: true });
}

function attempt(action) {
    try {
        problem(null);
        action();
        draw();
    } catch (error) {
        problem(error.message);
    }
}

function problem(words) {
    $("problem").hidden = words === null;
    say($("problem"), words ?? "");
}

function state(name, words) {
    say($("state"), words);
    $("state").dataset.state = name;
}

function listen(group) {
    view.member.join(group);
    choose(group);
    $("to").value = group;
}

function choose(group) {
    view.group = group;
}

// --- messages ---

function hear({ source, group, port, data }) {
    const count = view.counts.get(group) ?? view.counts.set(group, { packets: 0 }).get(group);
    count.packets += 1;
    tell({ source, group, port, bytes: data.length, words: readable(data) });
}

function hearSealed({ source, group }) {
    tell({ source, group, port: TALK, bytes: 0, words: "sealed: a page has no keys of private groups" });
}

/** Of what comes faster than it can be read, the last is shown, and how many it were. */
function tell(message) {
    const key = `${message.source} ${message.group} ${message.port} ${message.words === null || view.heard.size >= SHOWN ? "" : message.words}`;
    const same = view.heard.get(key);
    view.heard.delete(key);
    view.heard.set(key, { ...message, at: new Date(), times: (same?.times ?? 0) + 1 });
}

/** Text, if it is some. */
function readable(data) {
    if (data.length > LONGEST) {
        return null;
    }
    try {
        const words = text.decode(data).trim();
        return CONTROL.test(words) ? null : words;
    } catch {
        return null;
    }
}

function showHeard() {
    if (view.heard.size === 0) {
        return;
    }
    if ([...view.heard.values()].some(({ source }) => source !== null && !view.names.has(source))) {
        draw();
    }
    const items = [...view.heard.values()].map(({ at, source, group, port, words, bytes, times }) => {
        const who = source === null ? "this page" : (view.names.get(source) ?? source);
        const where = port === TALK ? group : `${group} port ${port}`;
        const item = html("li", { class: source === null ? "own" : words === null ? "data" : "words" });
        item.append(html("span", { class: "when" }, at.toLocaleTimeString()), html("p", {}, html("b", {}, who), html("small", {}, ` to ${where}`)), html("p", {}, words ?? `${bytes} bytes`, times > 1 ? html("small", {}, ` × ${times}`) : ""));
        item.dataset.run = words === null ? `${source} ${where}` : "";
        item.times = times;
        return item;
    });
    view.heard.clear();
    for (const item of items) {
        const latest = $("heard").firstChild;
        if (item.dataset.run && latest?.dataset.run === item.dataset.run) {
            item.times += latest.times;
            item.lastChild.lastChild.remove();
            item.lastChild.append(html("small", {}, ` × ${item.times.toLocaleString("en")}`));
            latest.remove();
        }
        $("heard").prepend(item);
    }
    while ($("heard").children.length > SHOWN) {
        $("heard").lastChild.remove();
    }
    $("nothing").hidden = true;
}

// --- how things stand ---

function draw() {
    const status = view.member.status();
    if (status.state === "expelled") {
        forgetVisit();
        const why = status.token_uses ? `The token was for ${status.token_uses === 1 ? "1 node" : `${status.token_uses} nodes`}, and others came by it first: this node has been expelled.`
            : "This node, or the token it came by, has been expelled from the network.";
        end(`${why} Ask for a new token: \`lcroute invite\` prints one.`);
        return;
    }
    if (status.not_after < Date.now() / 1000) {
        forgetVisit();
        end("The membership of this page has expired. Ask for a new token: `lcroute invite` prints one.");
        return;
    }
    const look = { ...status, groups: status.groups.map((group) => ({ group, links: [], sources: [] })) };
    view.names = new Map(status.nodes.map((node) => [node.address, node.name ?? node.id]));
    flows.next(look);
    view.rates = counted.next(Date.now() / 1000, counts(status));
    showState(status);
    showGroups(status);
    showMap(look);
    showPeers({ peers: status.peers }, rate);
    showServers(status);
}

/** A link that comes or goes shows at once. */
function drawSoon() {
    view.soon ??= setTimeout(() => {
        view.soon = null;
        view.member && draw();
    }, SHOW);
}

function counts({ peers, groups }) {
    const sum = (key) => peers.reduce((total, peer) => total + peer[key], 0);
    return new Map([
        ["in", sum("rx_bytes")],
        ["out", sum("tx_bytes")],
        ...peers.flatMap((p) => [
            [`${p.peer_id} rx`, p.rx_bytes],
            [`${p.peer_id} tx`, p.tx_bytes],
        ]),
        ...groups.map((group) => [`${group} packets`, view.counts.get(group)?.packets ?? 0]),
    ]);
}

function showState(status) {
    const up = status.peers.filter((peer) => peer.state === "connected").length;
    const open = status.servers.filter((server) => server.connected);
    const links = `${up} ${up === 1 ? "link" : "links"}`;
    document.title = `${status.name}: ${links}`;
    say($("name"), status.name);
    state(status.state, words());
    facts($("facts"), [
        ["Address", status.address],
        ["Nodes", String(status.nodes.length)],
        ["Member until", new Date(status.not_after * 1000).toLocaleString([], { dateStyle: "medium", timeStyle: "short" })],
        ["Met by", open.map(({ url }) => url).join(", ") || "no signalling server answers"],
    ]);
    curves[0].add(rate("in"));
    curves[1].add(rate("out"));

    function words() {
        if (up > 0) {
            return `connected, ${links}`;
        }
        const refusal = status.peers.find((peer) => peer.state === "refused");
        if (refusal) {
            return `refused: ${refusal.reason}`;
        }
        if (open.length === 0) {
            return `no signalling server answers. ${view.member.problem() ?? ""}`;
        }
        return status.peers.length > 0 ? "making links" : "alone so far: no other node is there";
    }
}

function showGroups({ groups }) {
    const known = new Map([...$("joined").children].map((item) => [item.dataset.group, item]));
    const items = groups.map((group) => {
        const item = known.get(group) ?? row(group);
        const { packets: n = 0 } = view.counts.get(group) ?? {};
        say(item.querySelector("small"), `${n.toLocaleString("en")} ${n === 1 ? "packet" : "packets"}, ${packets(rate(`${group} packets`))}`);
        item.querySelector("input").checked = view.group === group;
        return item;
    });
    if (items.length !== known.size || items.some((item, i) => $("joined").children[i] !== item)) {
        fill($("joined"), items);
    }
}

function row(group) {
    const input = html("input", { type: "checkbox", "aria-label": `Show the tree of ${group}` });
    input.addEventListener("change", () => {
        choose(input.checked ? group : null);
        draw();
    });
    const leave = html("button", { type: "button", "aria-label": `Leave ${group}` }, "Leave");
    leave.addEventListener("click", () => {
        attempt(() => view.member.leave(group));
        $("group").focus();
    });
    const item = html("li", {}, html("label", {}, input, html("span", {}, html("b", {}, group), html("small"))), leave);
    item.dataset.group = group;
    return item;
}

function showMap(look) {
    const group = look.groups.some((g) => g.group === view.group) ? view.group : null;
    const edges = group === null ? flows.allEdges() : flows.edges(group);
    const shown = edges.map((edge) => ({ from: edge.from, to: edge.to, rate: edge.packets, text: edge.packets > 0 ? packets(edge.packets) : "" }));
    const [listeners, senders] = group === null ? [new Set(), new Set()] : [flows.listeners(group), flows.senders(group)];
    say($("map-title"), group === null ? "The network" : `The tree of ${group}`);
    const silent = look.nodes.filter((node) => !node.reports).length;
    const unknown = `${silent} of ${look.nodes.length} nodes do not report: what they send is not known`;
    const limits = [silent > 0 && unknown, look.left_out > 0 && `${look.left_out} links, flows and groups are not shown: there are too many`].filter(Boolean);
    $("known").hidden = limits.length === 0;
    say($("known"), limits.join(". "));
    map.update(look, shown, { listeners, senders, chosen: group !== null });
    if ($("as-tables").open) {
        showMapTables(look, flows, group);
    }
}

function showServers({ servers }) {
    const rows = servers.map(({ url, connected, refused }, number) => [url, connected ? "✓ connected" : `✗ ${refused ?? view.member.problem(number) ?? "connecting"}`]);
    table($("servers"), "Signalling servers", ["Server", "State"], rows, "The token names none.");
}
