// The radio page: this tab becomes a member, plays stations, and casts from the microphone. Names and titles come from others: they
// are shown as text, never as markup.

import { texts } from "../common/door.js";
import { focusFirst, sendByEnter } from "../common/enter.js";
import { isOwn } from "../common/groups.js";
import { facts, fill, html, say } from "../common/html.js";
import { keepLink } from "../common/links.js";
import { onMediaKeys, showMedia } from "../common/media.js";
import { Share } from "../common/share.js";
import { follow, notice, problem, standing, state, unfollow } from "../common/standing.js";
import { joined } from "../common/wasm.js";
import { Member } from "../node/member.js";
import { described } from "../node/offer.js";
import { forgetVisit, keepRadio, keepVisit, keptRadio, keptVisit, random, tabsHere, takeLink } from "../node/visit.js";
import { Level } from "./level.js";
import { Microphone } from "./microphone.js";
import { Radio } from "./module.js";
import { Player } from "./player.js";

/** How often the page is drawn, in milliseconds. */
const DRAW = 1000;
/** Silence after which the page shows possible reasons, in milliseconds. */
const HINT_AFTER = 6000;
/** Stations announce themselves within this time, in milliseconds: ANNOUNCE_INTERVAL of lcradio, and some for the way. */
const ANNOUNCED = 8000;
/** Stations that a tab remembers, those last listened to. */
const KEPT = 16;
/** Bytes of a key file. */
const KEY = 32;

const $ = (id) => document.getElementById(id);
const view = { member: null, radio: null, player: null, microphone: null, id: null, known: new Map(), began: 0, since: 0, own: null, key: null };
const level = new Level($("meter"), $("level"), $("scope"));
const ownLevel = new Level($("own-meter"), $("own-level"));
const share = new Share($("share"), "Link of this station");
const ownShare = new Share($("own-share"), "Link for listeners");
share.hidden = true;

$("become").addEventListener("submit", (event) => {
    event.preventDefault();
    enter();
});
sendByEnter($("become"));
$("token").addEventListener("input", () => lookAtToken());
$("token-details").addEventListener("toggle", () => $("token").required && !$("token-details").open && !$("token").value && ($("token-details").open = true));
$("play").addEventListener("click", () => (view.player?.isPlaying ? halt() : listen(view.id)));
$("tune").addEventListener("submit", (event) => {
    event.preventDefault();
    const text = $("text").value.trim();
    // a whole link is a text as well
    listen(text.match(/lcr1[A-Za-z0-9]*/)?.[0] ?? text);
});
$("volume").addEventListener("input", () => setVolume());
$("delay").addEventListener("change", () => {
    view.radio.delay(Number($("delay").value));
    remember();
});
$("make").addEventListener("click", () => makeKey());
$("key").addEventListener("change", () => (view.key = null));
$("begin-cast").addEventListener("click", () => {
    $("cast").hidden = false;
    $("cast-row").hidden = true;
    $("make").focus();
});
$("cast").addEventListener("submit", (event) => {
    event.preventDefault();
    cast();
});
$("talk").addEventListener("click", () => setTalk($("talk").getAttribute("aria-pressed") !== "true"));
addEventListener("keydown", (event) => {
    const isElsewhere = event.target.closest?.("button, input, select, textarea, summary, a, [tabindex]");
    if (event.key === " " && view.microphone && !isElsewhere) {
        event.preventDefault();
        event.repeat || $("talk").click();
    }
});
$("retitle").addEventListener("submit", (event) => {
    event.preventDefault();
    attempt(() => view.radio.title($("new-title").value.trim()));
});
$("end").addEventListener("click", () => endCast());
$("leave").addEventListener("click", () => {
    forgetVisit();
    leave();
    notice("You have left the network, and this tab has forgotten its keys.");
});
onMediaKeys({ play: () => listen(view.id), pause: () => halt(), stop: () => halt() });
addEventListener("pagehide", () => {
    endCast();
    // peers learn at once that this tab goes
    view.member?.end();
});
setInterval(() => view.radio && draw(), DRAW);

$("call").value = `radio-${random(3).toLowerCase()}`;
const link = takeLink();
$("token").value = link.token;
$("token-details").open = !link.token;
// before anybody clicks
problem(Player.obstacle());
$("enter").disabled = Player.obstacle() !== null;
const before = keptRadio();
const kept = await keptVisit();
if (kept.visit || kept.leaf) {
    await begin({ visit: kept.visit, token: kept.leaf, name: "" });
    recall(before);
    // browsers play nothing before a click
    if (link.station && !view.known.has(link.station)) {
        view.known.set(link.station, "the station of your link");
    }
    choose(link.station ?? before.id ?? null);
    focusInside();
} else {
    problem(kept.problem ?? Player.obstacle());
    await lookAtToken();
    focusFirst($("become"));
}

// --- the member ---

/** The station of the link, or of the pasted text. */
function wanted() {
    return texts($("token").value).station ?? link.station;
}

/** The meaning of the field and of the link, before the user clicks. */
async function lookAtToken() {
    const pasted = $("token").value;
    // of another text that was refused
    $("enter").disabled = false;
    const { words, isRefused } = await described(`${pasted} ${link.station ?? ""}`);
    // something else may stand there meanwhile
    if (pasted === $("token").value) {
        say($("offer"), words);
        $("offer").classList.toggle("refused", isRefused);
        say($("enter"), wanted() ? "Listen" : "Come in");
        $("enter").disabled = isRefused;
        $("token-details").open ||= isRefused;
    }
}

async function enter() {
    const station = wanted();
    // while the click still counts
    const player = station ? startPlayer() : null;
    await begin({ token: texts($("token").value).token ?? $("token").value, name: $("call").value.trim() });
    if (view.radio && player) {
        view.known.set(station, "the station of your link");
        await player;
        await listen(station);
    }
    view.radio && focusInside();
}

/** Focuses the playing station, or the field to find one. */
function focusInside() {
    focusFirst($("play").disabled ? $("tune") : $("play").parentElement);
}

async function begin({ token, visit, name }) {
    problem(null);
    notice(null);
    const start = { token, visit, name, key: random(32), seed: random(32), incarnation: Math.floor(Date.now() / 1000), report: false };
    const hear = { datagram: ({ bytes }) => view.radio?.datagram(bytes), sealed: () => {}, keep: keepVisit, change: () => {} };
    try {
        view.member = await Member.begin(start, hear);
        view.radio = await Radio.load({
            join: (group) => view.member.join(group),
            leave: (group) => view.member.leave(group),
            send,
        });
        view.radio.open(view.member.status().address);
    } catch (error) {
        view.member?.end();
        Object.assign(view, { member: null, radio: null });
        forgetVisit();
        problem(error.message);
        return;
    }
    view.began = performance.now();
    // it may be public: a holder of the station's link can listen by it
    view.token = view.member.isLeaf ? token : null;
    document.body.classList.toggle("leaf", view.member.isLeaf);
    $("token").value = "";
    show(true);
    draw();
}

function send(group, port, data) {
    try {
        view.member.send(group, port, data);
    } catch (error) {
        // the token does not permit it
        problem(error.message);
        queueMicrotask(() => endCast());
    }
}

/** `why`: the fault, if there is one. */
function leave(why = null) {
    halt();
    endCast();
    view.radio?.close();
    view.member?.end();
    view.known.clear();
    unfollow();
    Object.assign(view, { member: null, radio: null, id: null });
    show(false);
    state("starting", "not a member of a network");
    problem(why);
}

function show(isMember) {
    $("door").hidden = isMember;
    $("inside").hidden = !isMember;
    if (!isMember) {
        $("token-details").open = true;
        lookAtToken();
    }
    isMember || focusFirst($("become"));
}

function attempt(action) {
    try {
        problem(null);
        action();
    } catch (error) {
        problem(error.message);
    }
    draw();
}

/** State that a reload would lose. */
function remember() {
    if (view.member) {
        keepRadio({ id: view.id, known: [...view.known].slice(-KEPT), volume: $("volume").value, delay: $("delay").value });
    }
}

function recall({ known = [], volume, delay }) {
    known.forEach(([id, name]) => view.known.set(id, name));
    $("volume").value = volume ?? $("volume").value;
    $("delay").value = delay ?? $("delay").value;
}

// --- listening ---

async function startPlayer() {
    try {
        view.player ??= await Player.start(
            { voices: () => view.radio.voices(), frame: (caster) => view.radio.frame(caster), speed: (caster) => view.radio.speed(caster) },
            (heard) => level.add(heard),
        );
        setVolume();
    } catch (error) {
        problem(error.message);
    }
}

/** Another station from now on, which does not play yet. */
function choose(id) {
    view.id = id;
    $("play").disabled = id === null;
    share.hidden = id === null || !id.startsWith("lcr1");
    share.value = linkTo(id);
    if (id !== null) {
        say($("station"), name(id));
        say($("title"), "");
        live("idle", "Ready: press play.");
    }
    draw();
}

async function listen(id) {
    problem(null);
    const isTuned = attemptTune(id);
    if (!isTuned) {
        return;
    }
    $("text").value = "";
    await startPlayer();
    if (!view.player) {
        view.radio.stop();
        return;
    }
    if (view.player.isPlaying) {
        view.player.stop();
    }
    level.clear();
    choose(id);
    view.since = performance.now();
    try {
        await view.player.play();
    } catch (error) {
        halt();
        problem(error.message);
    }
    // kept in the order in which they were listened to
    view.known.delete(id);
    view.known.set(id, name(id));
    remember();
    draw();
}

function attemptTune(id) {
    try {
        view.radio.tune(id, Number($("delay").value));
        return true;
    } catch (error) {
        problem(error.message);
        return false;
    }
}

function halt() {
    view.radio?.stop();
    view.player?.stop();
    level.clear();
    draw();
}

function setVolume() {
    if (view.player) {
        view.player.volume = Number($("volume").value) / 100;
    }
    remember();
}

/** The name of a station, if it is known. */
function name(id) {
    const announced = view.status?.stations.find((station) => station.id === id)?.name;
    return announced ?? view.known.get(id) ?? "a station without a name so far";
}

/** A link for other browsers. */
function linkTo(id) {
    const url = new URL("../node/", location.href);
    url.hash = [view.token, id].filter(Boolean).join(",");
    return url.href;
}

// --- casting ---

/** A new key, as a file and for this tab. */
function makeKey() {
    const bytes = crypto.getRandomValues(new Uint8Array(KEY));
    const file = html("a", { href: URL.createObjectURL(new Blob([bytes])), download: "station.key" });
    file.click();
    URL.revokeObjectURL(file.href);
    view.key = bytes;
    $("key").required = false;
    $("key").value = "";
    say($("key-hint"), "The new key is among your downloads as `station.key`: keep it, it alone casts as this station.");
}

async function key() {
    const [file] = $("key").files;
    const bytes = file ? new Uint8Array(await file.slice(0, KEY + 1).arrayBuffer()) : view.key?.slice();
    if (bytes?.length !== KEY) {
        throw new Error("This file is no station key: `lcradio keygen` makes one, and so does this page.");
    }
    return bytes;
}

async function cast() {
    const button = $("cast").querySelector("button.primary");
    button.disabled = true;
    try {
        problem(null);
        const profile = new FormData($("cast")).get("profile");
        const [title, talks] = [$("about").value.trim(), !$("push").checked];
        const start = { name: $("name").value.trim(), title, public: $("public").checked, voice: profile === "voice" };
        const bytes = await key();
        view.microphone = await Microphone.open(profile, talks, {
            sound: (opus) => view.radio.sound(opus),
            hear: (heard) => ownLevel.add(heard),
            lost: (why) => endCast(why),
        });
        view.radio.cast(bytes, start);
        $("new-title").value = title;
        setTalk(talks);
        showCast(true);
    } catch (error) {
        endCast(error.message);
    } finally {
        button.disabled = false;
    }
    draw();
}

function setTalk(talks) {
    if (view.microphone) {
        view.microphone.talks = talks;
        view.radio.talk(talks);
        $("talk").setAttribute("aria-pressed", String(talks));
        draw();
    }
}

/** `why`: the fault, if there is one. */
function endCast(why = null) {
    if (view.microphone) {
        view.microphone.close();
        view.microphone = null;
        view.radio?.end();
        ownLevel.clear();
    }
    showCast(false);
    if (why !== null) {
        problem(why);
    }
}

function showCast(isOnAir) {
    const hadFocus = ($("cast").hidden ? $("on-air") : $("cast")).contains(document.activeElement);
    $("cast").hidden = isOnAir || !$("cast-row").hidden;
    $("on-air").hidden = !isOnAir;
    if (hadFocus) {
        (isOnAir ? $("talk") : $("name")).focus();
    }
}

// --- drawing ---

function draw() {
    if (!view.radio) {
        return;
    }
    const status = view.member.status();
    if (status.state === "expelled") {
        forgetVisit();
        leave("This page has been expelled from the network: it needs a new token.");
        return;
    }
    showState(status);
    view.status = view.radio.status();
    const { listens, casts } = view.status;
    const called = listens?.casters[0]?.name;
    if (called && view.known.get(listens.id) !== called) {
        view.known.set(listens.id, called);
        remember();
        // announced stations need no link
        if (listens.id.startsWith("lcr1")) {
            keepLink({ kind: "station", text: listens.id, name: called, groups: joined("radio").filter((group) => !isOwn(group)) });
        }
    }
    showStations();
    showPlayer(listens);
    showCasting(casts);
    document.title = called ? `${called} – Radio` : "Radio";
}

function showState(status) {
    const stands = standing(status, tabsHere(status.peer_id), view.member.problem());
    view.reach = stands.reach;
    follow(stands.reach !== "none");
    state(stands.name, stands.words);
}

function showStations() {
    const announced = view.status.stations.map(({ id, name, signed }) => ({ id, name, about: signed ? "public" : "unsigned: nobody knows who sends it" }));
    const known = [...view.known.keys()].filter((id) => !announced.some((station) => station.id === id)).reverse();
    const all = [...announced, ...known.map((id) => ({ id, name: name(id), about: "you have its text" }))];
    $("none").hidden = announced.length > 0;
    const isKnown = performance.now() - view.began > ANNOUNCED;
    const none = isKnown ? "No public station announces itself now." : "Looking for public stations.";
    say($("none"), view.member.hearsNoList ? "This token brings no list of stations." : none);
    const items = new Map([...$("stations").children].map((item) => [item.dataset.id, item]));
    const shown = all.map(({ id, name, about }) => {
        const item = items.get(id) ?? entry(id);
        const isPlaying = id === view.id && view.player?.isPlaying === true;
        item.firstChild.setAttribute("aria-pressed", String(isPlaying));
        say(item.firstChild.children[0], name);
        say(item.firstChild.children[1], isPlaying ? `${about}, playing` : about);
        return item;
    });
    if (shown.length !== items.size || shown.some((item, at) => $("stations").children[at] !== item)) {
        const focused = $("stations").contains(document.activeElement) && document.activeElement;
        fill($("stations"), shown);
        focused && focused.focus();
    }
}

function entry(id) {
    const button = html("button", { type: "button" }, html("b"), html("small"));
    button.addEventListener("click", () => (id === view.id && view.player?.isPlaying ? halt() : listen(id)));
    return html("li", { "data-id": id }, button);
}

function showPlayer(listens) {
    const isPlaying = view.player?.isPlaying === true;
    $("play").setAttribute("aria-label", isPlaying ? "Stop" : "Play");
    $("play").dataset.playing = isPlaying;
    $("details").hidden = !isPlaying || !listens;
    showMediaSession(isPlaying, listens);
    if (view.id !== null) {
        say($("station"), listens?.casters[0]?.name || name(view.id));
    }
    if (!isPlaying || !listens) {
        say($("title"), "");
        live("idle", view.id === null ? "Choose a station, or open the link of one." : "Ready: press play.");
        facts($("figures"), []);
        return;
    }
    say($("title"), listens.casters[0]?.title ?? "");
    live(listens.state, words(listens));
    const percent = (n) => (listens.sent ? `${((100 * n) / listens.sent).toFixed(1)} %` : "–");
    const loss = listens.lost_before_copy > listens.lost ? `${percent(listens.lost)}, ${percent(listens.lost_before_copy)} before the copy` : percent(listens.lost);
    facts($("figures"), [
        ["Lost", loss],
        ["Buffer", `${listens.buffer_ms} ms of ${listens.target_ms} ms`],
        ["Delay here", `${Math.round(listens.target_ms + view.player.delay)} ms`],
        ["Clock", `${listens.drift_ppm} ppm`],
        ["Gaps", String(listens.concealed)],
        ["This page was late", `${view.player.underruns} ${view.player.underruns === 1 ? "time" : "times"}`],
        ["Copy", listens.copy ? "joined" : "not needed"],
    ]);
}

/** The text of the lock screen. */
function showMediaSession(isPlaying, listens) {
    const artist = view.id === null ? "" : name(view.id);
    showMedia(view.id === null ? "none" : isPlaying ? "playing" : "paused", listens?.casters[0]?.title || artist, artist);
}

function live(name, words) {
    say($("live"), words);
    $("live").dataset.state = name;
}

function words(listens) {
    if (listens.state === "live") {
        const all = listens.casters.map(({ name }) => name);
        const talking = listens.casters.filter((caster) => caster.talking).map(({ name }) => name);
        const where = view.reach === "network" ? "Live" : "Live, on this computer only";
        const live = all.length > 1 ? `${where}: ${all.join(", ")}` : where;
        return talking.length > 0 ? `${live}${all.length > 1 ? `; ${talking.join(", ")} talking` : ": talking"}` : live;
    }
    if (listens.state === "ended") {
        return "The caster has ended. It goes on here when the station is back.";
    }
    if (listens.clocks_differ) {
        return "The clocks of the caster and of this computer are more than an hour apart.";
    }
    if (performance.now() - view.since < HINT_AFTER) {
        return "Waiting for the station";
    }
    return listens.is_of_another_key
        ? "Someone sends here, and this text does not open it: ask for it again."
        : "Nothing has come so far: nobody casts this station now, or the network does not carry it.";
}

function showCasting(casts) {
    if (casts?.superseded && view.microphone) {
        endCast("Another caster has this key and began later: this cast has ended.");
    }
    if (!casts || !view.microphone) {
        return;
    }
    const talks = $("talk").getAttribute("aria-pressed") === "true";
    const heard = talks ? "On air: listeners hear you" : "On air: listeners hear silence";
    const alone = view.reach === "here" ? "Only tabs of this browser hear this: no other computer is linked" : "Nobody hears this: no other node is linked";
    say($("casts"), view.reach === "network" ? heard : alone);
    $("casts").parentElement.dataset.state = view.reach === "network" ? "live" : "waiting";
    $("talk").textContent = talks ? "Talking: press for silence" : "Press to talk";
    ownShare.value = linkTo(casts.station);
    const hosts = `On a host: \`lcradio listen ${casts.public ? casts.station : `${casts.station.slice(0, 12)}…`}\``;
    say($("who-hears"), casts.public ? `Everybody on the network sees this station in the list. ${hosts}` : `Who has the link can listen, and nobody else: send it as you would a password. ${casts.packets.toLocaleString("en")} packets were sent.`);
}
