// The node page: by a token this tab becomes a member, listens, says, and sees the network.

import { Curve, Rates, bits, packets } from "../common/figures.js";
import { Flows } from "../common/flows.js";
import { canonical, purpose } from "../common/groups.js";
import { facts, fill, html, say, table } from "../common/html.js";
import { NetworkMap } from "../common/map.js";
import { signs } from "../common/signs.js";
import { notice, problem, state } from "../common/standing.js";
import { showMapTables, showPeers } from "../dashboard/tables.js";
import { Member } from "./member.js";
import { Talk } from "./talk.js";
import { forgetVisit, isSession, isStation, keepTalk, keepVisit, keptTalk, keptVisit, random, takeLink } from "./visit.js";

// a link with a station in it is a radio, one with a session a lecture
const linked = location.hash.split(/[^A-Za-z0-9]+/);
const page = linked.some(isStation) ? "radio" : linked.some(isSession) ? "studio" : null;
if (page) {
    location.replace(`../${page}/${location.hash}`);
    await new Promise(() => {});
}

/** How often the page is drawn, in milliseconds. */
const DRAW = 1000;
/** How often messages are shown, in milliseconds. */
const SHOW = 200;
/** After this time it is known whether somebody listens, in milliseconds: for a second the first packets wait for that. */
const PATIENCE = 1200;
/** Port of `lcroute say` and `lcroute listen`. */
const TALK = 14244;
/** Groups of others that are listed; of more the busiest. */
const LISTED = 50;

const $ = (id) => document.getElementById(id);
const counted = new Rates();
const curves = [new Curve($("rates"), "in, all of UDP", bits), new Curve($("rates"), "out, all of UDP", bits)];
const view = { member: null, flows: new Flows(), group: null, counts: new Map(), names: new Map(), rates: new Map() };
const map = new NetworkMap($("map"));
const rate = (name) => view.rates.get(name) ?? 0;
const talk = new Talk($("heard"), $("unread"), (address) => view.names.get(address));

$("become").addEventListener("submit", (event) => {
    event.preventDefault();
    enter({ token: $("token").value, name: $("call").value.trim() });
});
$("listen").addEventListener("submit", (event) => {
    event.preventDefault();
    attempt(() => listen(canonical($("group").value)));
});
$("say").addEventListener("submit", (event) => {
    event.preventDefault();
    attempt(send);
});
$("leave").addEventListener("click", () => {
    forgetVisit();
    end();
    notice("You have left the network.");
});
$("keep").addEventListener("click", () => talk.save(`${$("name").textContent}.txt`));
$("closer").addEventListener("click", () => map.zoom(1.4));
$("farther").addEventListener("click", () => map.zoom(1 / 1.4));
$("fit").addEventListener("click", () => map.fit());
$("as-tables").addEventListener("toggle", () => view.member && draw());
signs($("signs"));
addEventListener("pagehide", () => {
    remember();
    // peers learn at once that this tab goes
    view.member?.end();
});
setInterval(() => {
    if (view.member) {
        draw();
        remember();
    }
}, DRAW);
setInterval(showTalk, SHOW);

$("call").value = `browser-${random(3).toLowerCase()}`;
$("token").value = takeLink().token;
// a link may say which group it is about
const asked = new URLSearchParams(location.search).get("group");
if (asked !== null) {
    $("group").value = $("to").value = canonical(asked);
}
const kept = await keptVisit();
if (kept.visit) {
    await begin({ visit: kept.visit, name: "" });
    recall(keptTalk());
} else if (kept.problem) {
    problem(kept.problem);
}

/** By a token, and into the group that the page's address names. */
async function enter(who) {
    await begin(who);
    if (view.member && asked !== null) {
        attempt(() => listen(canonical(asked)));
    }
}

async function begin({ token, visit, name }) {
    problem(null);
    notice(null);
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

/** `why`: what went wrong, if something did. */
function end(why = null) {
    view.member.end();
    talk.clear();
    Object.assign(view, { member: null, flows: new Flows(), group: null, counts: new Map() });
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
    // where there is no mouse, the focus would bring up a keyboard
    if (matchMedia("(pointer: fine)").matches) {
        (isMember ? $("words") : $("token")).focus({ preventScroll: true });
    }
}

/** What a reload would lose. */
function remember() {
    if (view.member) {
        keepTalk({ groups: view.joined, group: view.group, to: $("to").value, heard: talk.kept() });
    }
}

function recall({ groups, group, to, heard }) {
    if (view.member && groups) {
        groups.forEach((joined) => attempt(() => view.member.join(joined)));
        view.group = group;
        $("to").value = to;
        talk.recall(heard);
        draw();
    }
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

function listen(group) {
    view.member.join(group);
    view.group = group;
    $("to").value = group;
}

// --- messages ---

function hear({ source, group, port, data }) {
    const count = view.counts.get(group) ?? view.counts.set(group, { packets: 0 }).get(group);
    count.packets += 1;
    talk.hear({ source, where: where(group, port), data });
}

function hearSealed({ source, group }) {
    talk.hear({ source, where: group, words: "sealed: a page has no keys of private groups" });
}

function where(group, port) {
    return port === TALK ? group : `${group} port ${port}`;
}

/** Says what is in the field; what cannot go out stays there. */
function send() {
    const [group, port, words] = [canonical($("to").value), Number($("port").value), $("words").value];
    const hasLink = view.member.status().peers.some((peer) => peer.state === "connected");
    if (!hasLink) {
        throw new Error("Not sent: this page has no link.");
    }
    view.member.send(group, port, new TextEncoder().encode(words));
    const message = talk.say({ where: where(group, port), words });
    $("words").value = "";
    setTimeout(() => {
        const isWanted = view.member?.status().carried.some((known) => known.group === group && known.links.length > 0);
        if (view.member && !isWanted) {
            talk.note(message, "nobody listens");
        }
    }, PATIENCE);
}

function showTalk() {
    if (!view.member) {
        return;
    }
    if (talk.hasStrangers()) {
        draw();
    }
    talk.show();
    $("nothing").hidden = talk.messages.length > 0;
    $("keep").hidden = talk.messages.length === 0;
    document.title = `${talk.unread > 0 ? `(${talk.unread}) ` : ""}${view.title ?? ""}`;
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
    const look = { ...status, groups: status.carried };
    view.names = new Map(status.nodes.map((node) => [node.address, node.name ?? node.id]));
    view.flows.next(look);
    view.rates = counted.next(Date.now() / 1000, counts(status));
    showState(status);
    view.joined = status.groups;
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
    view.title = `${status.name}: ${links}`;
    say($("name"), status.name);
    state(status.state, words());
    facts($("facts"), [
        ["Address", status.address, true],
        ["PeerId", status.peer_id, true],
        ["Nodes", String(status.nodes.length)],
        ["Member until", new Date(status.not_after * 1000).toLocaleString([], { dateStyle: "medium", timeStyle: "short" })],
        ["Found by", open.map(({ url }) => url).join(", ") || "no signalling server answers"],
    ]);
    ["in", "out"].forEach((name, i) => view.rates.has(name) && curves[i].add(Date.now() / 1000, rate(name)));

    function words() {
        if (up > 0) {
            return `connected, ${links}`;
        }
        const refusal = status.peers.find((peer) => peer.state === "refused");
        if (refusal) {
            return `refused: ${refusal.reason}`;
        }
        if (open.length === 0) {
            const why = view.member.problem();
            return why ? `no signalling server answers: ${why}` : "no signalling server answers";
        }
        return status.peers.length > 0 ? "making links" : "alone so far: no other node is there";
    }
}

function showGroups(status) {
    const joined = new Set(status.groups);
    const { flows } = view;
    const others = flows.groups().filter((group) => !joined.has(group)).map((group) => ({ group, packets: busiest(group) }));
    const most = others.sort((a, b) => b.packets - a.packets || (a.group < b.group ? -1 : 1)).slice(0, LISTED);
    rows($("joined"), status.groups, (group) => {
        const { packets: n = 0 } = view.counts.get(group) ?? {};
        return `${n.toLocaleString("en")} ${n === 1 ? "packet" : "packets"}, ${packets(rate(`${group} packets`))}, ${listens(flows.listeners(group).size)}`;
    });
    rows($("carried"), most.map(({ group }) => group), (group) => {
        const from = [...flows.senders(group)].slice(0, 3).map((id) => flows.nodes.get(id)?.name ?? id);
        return [busiest(group) > 0 && packets(busiest(group)), from.length > 0 && `from ${from.join(", ")}`, listens(flows.listeners(group).size)].filter(Boolean).join(", ");
    });
    const none = joined.size + most.length === 0;
    $("silence").hidden = !none;
    $("other").open ||= none;
    const known = [...joined, ...most.map(({ group }) => group)];
    if (view.known !== known.join()) {
        view.known = known.join();
        fill($("groups-known"), known.map((group) => html("option", { value: group }, purpose(group) ?? "")));
    }
}

function busiest(group) {
    return Math.max(0, ...view.flows.edges(group).map((edge) => edge.packets));
}

function listens(n) {
    return n === 1 ? "1 node listens" : `${n} nodes listen`;
}

/** `words`: what is said of a group. */
function rows(host, groups, words) {
    const known = new Map([...host.children].map((item) => [item.dataset.group, item]));
    const items = groups.map((group) => {
        const item = known.get(group) ?? row(group, host === $("joined"));
        say(item.querySelector("small"), words(group));
        item.querySelector("input").checked = view.group === group;
        return item;
    });
    if (items.length !== known.size || items.some((item, i) => host.children[i] !== item)) {
        const focused = host.contains(document.activeElement) && document.activeElement;
        fill(host, items);
        focused && focused.focus();
    }
}

function row(group, isJoined) {
    const input = html("input", { type: "checkbox", "aria-label": `Show the tree of ${group}` });
    input.addEventListener("change", () => {
        view.group = input.checked ? group : null;
        draw();
    });
    const does = isJoined ? "Leave" : "Join";
    const button = html("button", { type: "button", "aria-label": `${does} ${group}`, class: isJoined ? "" : "primary" }, does);
    button.addEventListener("click", () => {
        attempt(() => (isJoined ? view.member.leave(group) : listen(group)));
        document.querySelector(`.groups [data-group="${group}"] button`)?.focus({ preventScroll: true });
    });
    const name = purpose(group);
    const title = html("span", {}, html("b", {}, group), name ? html("span", {}, name) : "", html("small"));
    const item = html("li", {}, html("label", {}, input, title), button);
    item.dataset.group = group;
    return item;
}

function showMap(look) {
    const { flows } = view;
    const group = flows.groups().includes(view.group) ? view.group : null;
    const edges = group === null ? flows.allEdges() : flows.edges(group);
    const shown = edges.map((edge) => ({ from: edge.from, to: edge.to, rate: edge.packets, text: edge.packets > 0 ? packets(edge.packets) : "" }));
    say($("map-title"), group === null ? "The network" : `The tree of ${group}`);
    const silent = look.nodes.filter((node) => !node.reports).length;
    const unknown = `${silent} of ${look.nodes.length} nodes do not report: what they send is not known`;
    const limits = [silent > 0 && unknown, look.left_out > 0 && `${look.left_out} links, flows and groups are not shown: there are too many`].filter(Boolean);
    $("known").hidden = limits.length === 0;
    say($("known"), limits.join(". "));
    map.update(look, shown, flows.marks(group));
    if ($("as-tables").open) {
        showMapTables(look, flows, group);
    }
}

function showServers({ servers }) {
    const rows = servers.map(({ url, connected, refused }, number) => [url, connected ? "✓ connected" : `✗ ${refused ?? view.member.state(number)}`]);
    table($("servers"), "Signalling servers", ["Server", "State"], rows, "The token names none.");
}
