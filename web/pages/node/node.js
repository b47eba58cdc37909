// The node page: by an invitation this tab becomes a member. It shows stations, lectures and talk, and beneath them the network.
// Names come from others: they are shown as text, never as markup.

import { Curve, Rates, bits, packets } from "../common/figures.js";
import { fourWords, lead, openDoor, texts } from "../common/door.js";
import "../common/install.js";
import { focusFirst, sendByEnter } from "../common/enter.js";
import { Flows } from "../common/flows.js";
import { called, canonical, isOwn } from "../common/groups.js";
import { facts, fill, html, say, table } from "../common/html.js";
import { forgetLink, keptLinks } from "../common/links.js";
import { NetworkMap } from "../common/map.js";
import { Share } from "../common/share.js";
import { signs } from "../common/signs.js";
import { UNSENT, follow, notice, problem, standing, state, unanswered, unfollow } from "../common/standing.js";
import { showMapTables, showPeers } from "../dashboard/tables.js";
import { Radio } from "../radio/module.js";
import { Member } from "./member.js";
import { described } from "./offer.js";
import { Talk } from "./talk.js";
import { forgetVisit, isCall, isSession, isStation, keepTalk, keepVisit, keptTalk, keptVisit, random, tabsHere, takeLink } from "./visit.js";

// a link with four words leads to files
const files = fourWords(location.hash.slice(1));
if (files) {
    location.replace(`../get/#${files}`);
    await new Promise(() => {});
}
// a link with a station in it is a radio, one with a call a call, one with a session a lecture
const linked = location.hash.split(/[^A-Za-z0-9]+/);
const page = linked.some(isStation) ? "radio" : linked.some(isCall) ? "call" : linked.some(isSession) ? "studio" : null;
if (page) {
    location.replace(`../${page}/${location.hash}`);
    await new Promise(() => {});
}

/** How often the page is drawn, in milliseconds. */
const DRAW = 1000;
/** How often messages are shown, in milliseconds. */
const SHOW = 200;
/** Time after which listeners are known, in milliseconds: the first packets wait for them for a second. */
const LISTENER_TIMEOUT = 1200;
/** Port of `lcroute say` and `lcroute listen`. */
const TALK = 14244;
/** Groups of others that are listed; of more the busiest. */
const LISTED = 50;
/** Nodes that are listed by name; there may be thousands. */
const SHOWN = 60;
/** Other nodes report to this tab within this time, in milliseconds: before, nothing is known of them. */
const REPORTING = 3000;
/** Stations announce themselves within this time, in milliseconds: ANNOUNCE_INTERVAL of lcradio, and some for the way. */
const ANNOUNCED = 8000;

const $ = (id) => document.getElementById(id);
const counted = new Rates();
const curves = [new Curve($("rates"), "in, all of UDP", bits), new Curve($("rates"), "out, all of UDP", bits)];
const view = { member: null, network: null, radio: null, began: 0, flows: new Flows(), group: null, counts: new Map(), names: new Map(), rates: new Map() };
const map = new NetworkMap($("map"));
const rate = (name) => view.rates.get(name) ?? 0;
const again = new Share($("again"), "Link that makes another tab a leaf");
const talk = new Talk($("heard"), $("unread"), (address) => view.names.get(address));

$("become").addEventListener("submit", (event) => {
    event.preventDefault();
    come();
});
sendByEnter($("become"));
$("token").addEventListener("input", () => lookAtToken());
openDoor($("open"), () => true, { words: $("link-words"), say });
$("take-part").addEventListener("click", () => {
    attempt(() => listen(canonical($("to").value)));
    $("words").focus();
});
$("listen").addEventListener("submit", (event) => {
    event.preventDefault();
    attempt(() => listen(canonical($("group").value)));
});
$("say").addEventListener("submit", (event) => {
    event.preventDefault();
    attempt(send);
});
again.field.id = "link-again";
again.hidden = true;
$("leave").addEventListener("click", () => {
    forgetVisit();
    end();
    notice("You have left the network, and this tab has forgotten its keys.");
});
$("keep").addEventListener("click", () => talk.save(`${$("name").textContent}.txt`));
$("closer").addEventListener("click", () => map.zoom(1.4));
$("farther").addEventListener("click", () => map.zoom(1 / 1.4));
$("fit").addEventListener("click", () => map.fit());
["as-tables", "advanced"].forEach((id) => $(id).addEventListener("toggle", () => view.member && draw()));
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
const invited = takeLink().token;
$("token").value = invited;
// a link with a token needs no field
$("token-details").open = $("token").value === "";
// a link may name its group
const asked = new URLSearchParams(location.search).get("group");
if (asked !== null) {
    $("group").value = $("to").value = canonical(asked);
}
const kept = await keptVisit();
if (kept.visit || kept.leaf) {
    await begin({ visit: kept.visit, token: kept.leaf, name: "" });
    recall(keptTalk());
    if (view.member && invited) {
        notice("You opened an invitation, and this tab is a member already. To use it, open it in a new tab, or leave the network first.");
    }
} else {
    problem(kept.problem ?? null);
    await lookAtToken();
    focusFirst($("become"));
}

/** The meaning of the field's text, before the user clicks. */
async function lookAtToken() {
    const pasted = $("token").value;
    // of another text that was refused
    $("enter").disabled = false;
    const { found, words, isRefused, isLeaf, network = null } = await described(pasted);
    // something else may stand there meanwhile
    if (pasted === $("token").value) {
        say($("offer"), words);
        $("offer").classList.toggle("refused", isRefused);
        say($("enter"), isLeaf && !found.href.includes(",") ? "Listen" : (found?.label ?? "Become a member"));
        $("enter").disabled = isRefused;
        view.network = network;
        $("token-details").open ||= isRefused;
    }
}

/** In by an invitation; a link of something else leads there. */
async function come() {
    const found = lead($("token").value, false);
    if (found?.href && !found.token) {
        location.assign(found.href);
        return;
    }
    await enter({ token: texts($("token").value).token ?? $("token").value, name: $("call").value.trim() });
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
    view.token = view.member.isLeaf ? token : null;
    document.body.classList.toggle("leaf", view.member.isLeaf);
    again.hidden = view.token === null;
    again.value = linkAgain();
    $("advanced").open ||= view.member.isLeaf;
    $("token").value = "";
    view.began = performance.now();
    view.member.look(true);
    show(true);
    draw();
    hearStations();
}

/** Makes another tab a leaf. */
function linkAgain() {
    const url = new URL(location.href);
    url.hash = view.token ?? "";
    return url.href;
}

/** Stations announce themselves; the module of the radio page reads that. */
async function hearStations() {
    const member = view.member;
    try {
        const radio = await Radio.load({ join: (group) => member.join(group), leave: (group) => member.leave(group), send: () => {} });
        if (view.member === member) {
            view.radio = radio;
            radio.open(member.status().address);
        }
    } catch (error) {
        problem(`No list of stations: ${error.message}`);
    }
}

/** `why`: the fault, if there is one. */
function end(why = null) {
    view.radio?.close();
    view.member.end();
    talk.clear();
    unfollow();
    Object.assign(view, { member: null, radio: null, flows: new Flows(), group: null, counts: new Map() });
    show(false);
    problem(why);
}

function show(isMember) {
    $("door").hidden = isMember;
    $("inside").hidden = !isMember;
    if (!isMember) {
        document.body.classList.remove("leaf");
        say($("name"), "A network in this tab");
        state("starting", "not a member of a network");
        facts($("facts"), []);
        $("token-details").open = true;
        lookAtToken();
    }
    focusFirst(isMember ? $("open") : $("become"));
}

/** State that a reload would lose. */
function remember() {
    if (view.member) {
        keepTalk({ network: view.network, groups: view.joined, group: view.group, to: $("to").value, heard: talk.kept() });
    }
}

function recall({ network, groups, group, to, heard }) {
    view.network = network ?? null;
    if (view.member && groups) {
        groups.filter((joined) => !isOwn(joined)).forEach((joined) => attempt(() => view.member.join(joined)));
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

function hear({ source, group, port, data, bytes }) {
    if (isOwn(group)) {
        view.radio?.datagram(bytes);
        return;
    }
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

/** Sends the field's text; text that cannot be sent stays there. */
function send() {
    const [group, port, words] = [canonical($("to").value), Number($("port").value), $("words").value];
    const hasLink = view.member.status().peers.some((peer) => peer.state === "connected");
    if (!hasLink) {
        throw new Error(UNSENT);
    }
    view.member.send(group, port, new TextEncoder().encode(words));
    const message = talk.say({ where: where(group, port), words });
    $("words").value = "";
    setTimeout(() => {
        const isWanted = view.member?.status().carried.some((known) => known.group === group && known.links.length > 0);
        if (view.member && !isWanted) {
            talk.note(message, "nobody listens");
        }
    }, LISTENER_TIMEOUT);
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
    const isOthers = ({ group }) => !isOwn(group);
    status.groups = status.groups.filter((group) => !isOwn(group));
    if (status.leaf) {
        drawLeaf(status);
        return;
    }
    const look = { ...status, groups: status.carried.filter(isOthers), flows: status.flows.filter(isOthers) };
    view.names = new Map(status.nodes.map((node) => [node.address, node.name ?? node.id]));
    view.flows.next(look);
    view.rates = counted.next(Date.now() / 1000, counts(status));
    showState(status);
    view.joined = status.groups;
    showStations();
    showLectures();
    showPeople(status);
    $("take-part").hidden = status.groups.length > 0;
    showGroups(status);
    // a map that nobody sees is not drawn
    if ($("advanced").open) {
        showMap(look);
        showPeers({ peers: status.peers }, rate);
        showServers(status);
    }
}

/** A leaf knows its routers, and the groups that it has joined. */
function drawLeaf(status) {
    view.rates = counted.next(Date.now() / 1000, counts(status));
    showState(status);
    view.joined = status.groups;
    showStations();
    showLectures();
    $("take-part").hidden = status.groups.length > 0;
    const refused = new Map(status.refused.map(({ group, reason }) => [group, reason]));
    rows($("joined"), status.groups, (group) => {
        const { packets: n = 0 } = view.counts.get(group) ?? {};
        const reason = refused.get(group)?.replaceAll("_", " ");
        return reason ? `the router refuses it: ${reason}` : `${n.toLocaleString("en")} ${n === 1 ? "packet" : "packets"}, ${packets(rate(`${group} packets`))}`;
    });
    $("silence").hidden = true;
    $("other").open ||= status.groups.length === 0;
    if ($("advanced").open) {
        showPeers({ peers: status.peers }, rate);
        showServers(status);
    }
}

/** Those on air, and those that were opened in this browser. */
function showStations() {
    const onAir = view.radio?.status().stations ?? [];
    const announced = onAir.map(({ id, name, signed }) => ({ text: id, name, about: signed ? "on air" : "on air; nobody signed that, it may be of anybody" }));
    const opened = keptLinks().filter(({ kind, text }) => kind === "station" && !announced.some((station) => station.text === text));
    const kept = opened.map(({ text, name }) => ({ text, name, about: "opened here before", isKept: true }));
    links($("stations"), [...announced, ...kept], "radio");
    const isKnown = performance.now() - view.began > ANNOUNCED;
    $("no-stations").hidden = announced.length > 0;
    const isDeaf = view.member.hearsNoList === true;
    say($("no-stations"), isDeaf ? "This token brings no list of stations: who casts sends you a link." : isKnown ? "No public station is on air now. Of private ones, who casts sends you a link." : "Looking for stations. Those that are public announce themselves within five seconds.");
}

function showLectures() {
    const opened = keptLinks().filter(({ kind }) => kind === "session");
    links($("lectures"), opened.map(({ text, name }) => ({ text, name, about: "opened here before", isKept: true })), "studio");
    $("no-lectures").hidden = opened.length > 0;
}

/** A list of links to stations or lectures; those that this browser keeps can be forgotten. */
function links(host, all, page) {
    const known = new Map([...host.children].map((item) => [item.dataset.text, item]));
    arrange(host, all.map(({ text, name, about, isKept = false }) => {
        const item = known.get(text) ?? link(text, page);
        const [anchor, forget] = item.children;
        say(anchor.firstChild, name.replaceAll("`", "'"));
        say(anchor.lastChild, about);
        forget.hidden = !isKept;
        forget.setAttribute("aria-label", `Forget ${name}`);
        return item;
    }));
}

function link(text, page) {
    const forget = html("button", { type: "button" }, "Forget");
    forget.addEventListener("click", () => {
        forgetLink(text);
        draw();
    });
    // streams that nobody signed have no text of their own: the radio page lists them
    const href = text.startsWith("lc") ? `../${page}/#${text}` : `../${page}/`;
    const item = html("li", {}, html("a", { href, class: "entry" }, html("b"), html("small")), forget);
    item.dataset.text = text;
    return item;
}

/** Only where something has changed: the focus stays. */
function arrange(host, items) {
    if (items.length !== host.children.length || items.some((item, at) => host.children[at] !== item)) {
        const focused = host.contains(document.activeElement) && document.activeElement;
        fill(host, items);
        focused && focused.focus();
    }
}

/** Nodes by name: this tab knows no more of people. */
function showPeople({ nodes, peers }) {
    const linked = new Set(peers.filter((peer) => peer.state === "connected").map((peer) => peer.peer_id));
    const others = nodes.slice(1).sort((a, b) => a.stub - b.stub || (a.name ?? "~").localeCompare(b.name ?? "~"));
    const known = new Map([...$("people").children].map((item) => [item.dataset.id, item]));
    const more = others.length - SHOWN;
    const items = others.slice(0, SHOWN).map((node) => {
        const item = known.get(node.id) ?? html("li", { "data-id": node.id }, html("span", { class: "entry" }, html("b"), html("small")));
        say(item.firstChild.firstChild, node.name ?? "a node without a name so far");
        say(item.firstChild.lastChild, `${node.stub ? "a browser tab" : "a host"}, ${linked.has(node.peer_id) ? "linked with this tab" : "by way of others"}`);
        return item;
    });
    if (more > 0) {
        items.push(html("li", {}, `and ${more} more`));
    }
    arrange($("people"), items);
    $("nobody").hidden = others.length > 0;
    say($("nobody"), performance.now() - view.began > REPORTING ? "Nobody else so far." : "Looking who is here.");
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
    const stands = standing(status, tabsHere(status.peer_id), view.member.problem());
    const open = status.servers.filter((server) => server.connected);
    follow(stands.reach !== "none");
    view.title = `${status.name}: ${stands.words}`;
    say($("name"), status.name);
    state(stands.name, stands.words);
    const until = new Date(status.not_after * 1000).toLocaleString([], { dateStyle: "medium", timeStyle: "short" });
    const servers = open.map(({ url }) => url).join(", ");
    ["in", "out"].forEach((name, i) => view.rates.has(name) && curves[i].add(Date.now() / 1000, rate(name)));
    if (status.leaf) {
        say($("membership"), `This tab is a leaf, until ${until} at the latest: it listens, and is no member. It cannot send${status.uplink ? " but what a lecture asks" : " or ask"}, and sees no other node but its routers; nobody sees it but these. A reload makes a new leaf.`);
        facts($("facts"), [
            ["Routers", String(status.peers.filter((peer) => peer.state === "connected").length)],
            ["Groups", String(status.groups.length)],
            ["May listen to", status.prefixes.join(", ")],
            ["Leaf until", until],
            ["Found by", servers || "no signalling server is needed or answers"],
        ]);
        return;
    }
    const forgotten = status.ephemeral ? " Others forget it five minutes after it has gone." : "";
    const of = view.network ? ` of the network “${view.network.replaceAll("`", "'")}”` : "";
    say($("own-title"), `${status.name}${view.network ? `, in the network ${view.network}` : ""}`.replaceAll("`", "'"));
    say($("membership"), `This tab is a member${of}, called ${status.name}, as long as it is open, and until ${until} at the latest. Its keys are in this tab alone: a reload keeps them, and closing the tab deletes them.${forgotten}`);
    facts($("facts"), [
        ["Address", status.address, true],
        ["PeerId", status.peer_id, true],
        ["Nodes", String(status.nodes.length)],
        ["Member until", until],
        ["Found by", servers || unanswered(status.isAsking)],
    ]);
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
    $("silence").hidden = !none || performance.now() - view.began < REPORTING;
    $("other").open ||= none;
    const known = [...joined, ...most.map(({ group }) => group)];
    if (view.known !== known.join()) {
        view.known = known.join();
        fill($("groups-known"), known.map((group) => html("option", { value: group }, called(group).about ?? "")));
    }
}

function busiest(group) {
    return Math.max(0, ...view.flows.edges(group).map((edge) => edge.packets));
}

function listens(n) {
    return n === 1 ? "1 node listens" : `${n} nodes listen`;
}

/** `words`: the text about a group. */
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
    const { title: name, about, isNamed } = called(group);
    const known = [isNamed && name, about].filter(Boolean).join(": ");
    const title = html("span", {}, html("b", {}, group), known ? html("span", {}, known) : "", html("small"));
    const item = html("li", {}, html("label", {}, input, title), button);
    item.dataset.group = group;
    return item;
}

function showMap(look) {
    const { flows } = view;
    const group = flows.groups().includes(view.group) ? view.group : null;
    const edges = group === null ? flows.allEdges() : flows.edges(group);
    const shown = edges.map((edge) => ({ from: edge.from, to: edge.to, rate: edge.packets, text: edge.packets > 0 ? packets(edge.packets) : "" }));
    say($("map-title"), group === null ? "The network" : `The tree of ${called(group).title}`);
    const silent = look.nodes.filter((node) => !node.reports).length;
    const unknown = `${silent} of ${look.nodes.length} nodes do not report: what they send is not known`;
    const isKnown = performance.now() - view.began > REPORTING;
    const limits = [silent > 0 && isKnown && unknown, look.left_out > 0 && `${look.left_out} links, flows and groups are not shown: there are too many`].filter(Boolean);
    $("known").hidden = limits.length === 0;
    say($("known"), limits.join(". "));
    map.update(look, shown, flows.marks(group));
    if ($("as-tables").open) {
        showMapTables(look, flows, group);
    }
}

function showServers({ servers }) {
    const rows = servers.map(({ url, connected, refused }, number) => [url, connected ? "✓ connected" : view.member.meets ? `✗ ${refused ?? view.member.state(number)}` : "not needed: both links are up"]);
    table($("servers"), "Signalling servers", ["Server", "State"], rows, "The token names none.");
}
