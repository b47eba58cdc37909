// The page of a call: this tab becomes a member or a leaf, and talks with others. Names come from others: text, never markup.

import { Awake } from "../common/awake.js";
import { texts } from "../common/door.js";
import { focusFirst, sendByEnter } from "../common/enter.js";
import { facts, fill, html, say } from "../common/html.js";
import { onMediaKeys } from "../common/media.js";
import { Share } from "../common/share.js";
import { follow, notice, problem, standing, state, unfollow } from "../common/standing.js";
import { Member } from "../node/member.js";
import { described } from "../node/offer.js";
import { forgetVisit, keepCall, keepVisit, keptCall, keptVisit, random, tabsHere, takeLink } from "../node/visit.js";
import { Level } from "../radio/level.js";
import { Player } from "../radio/player.js";
import { Devices } from "./devices.js";
import { Sound } from "./sound.js";

/** How often the page is drawn, in milliseconds. */
const DRAW = 1000;
/** Time alone after which the page shows possible reasons, in milliseconds. */
const HINT_AFTER = 8000;
/** Least time between two lines that screen readers read, in milliseconds: they take as long, and people talk meanwhile. */
const ALOUD = 5000;
/** So often within so many milliseconds the sound came late here: this computer is too busy. Chosen: one gap is chance. */
const BUSY = [3, 10_000];
/** How well one is received, in words. */
const QUALITY = { poor: "poor connection", reconnecting: "reconnecting" };
const PAUSED = "The browser has paused the sound. It goes on when you press a key or a button here.";

const $ = (id) => document.getElementById(id);
/** The state of a call that nobody has joined. */
const none = () => ({ sound: null, text: null, status: null, groups: new Set(), farewell: null, talks: false, isMuted: false, isAway: false, known: new Map(), speaker: null, saidAt: -ALOUD, lates: [] });
const view = { member: null, token: null, isEntering: false, since: 0, ...none() };
const awake = new Awake(() => view.sound !== null);
const level = new Level($("own-meter"), $("own-level"));
new Devices(() => takeDevices());
const share = new Share($("share"), "Link of this call");

$("become").addEventListener("submit", (event) => {
    event.preventDefault();
    enter(canTalk());
});
sendByEnter($("become"));
$("only-listen").addEventListener("click", () => $("become").reportValidity() && enter(false));
$("token").addEventListener("input", () => lookAtToken());
$("forget").addEventListener("click", () => leaveNetwork());
$("hold").addEventListener("click", () => setAway(!view.isAway));
$("leave").addEventListener("click", () => leaveCall("You have left the call."));
$("volume").addEventListener("input", () => setVolume());
$("aloud").addEventListener("change", () => $("news").setAttribute("aria-live", $("aloud").checked ? "polite" : "off"));
$("push").addEventListener("change", () => {
    setMuted($("push").checked);
    // there the space bar is heard
    $("mute").focus();
});
// a button that is held: by a pointer, and by the space bar
$("mute").addEventListener("click", ({ detail }) => (detail > 0 && $("push").checked) || setMuted(!view.isMuted));
$("mute").addEventListener("pointerdown", () => hold(true));
for (const released of ["pointerup", "pointercancel", "pointerleave"]) {
    $("mute").addEventListener(released, () => hold(false));
}
addEventListener("keydown", (event) => {
    if (isSpace(event)) {
        event.preventDefault();
        event.repeat || (hold(true) ?? setMuted(!view.isMuted));
    }
    wake();
});
addEventListener("keyup", (event) => {
    if (isSpace(event)) {
        event.preventDefault();
        hold(false);
    }
});
addEventListener("pointerdown", () => wake());
// a user that looks elsewhere holds no key here
addEventListener("blur", () => hold(false));
document.addEventListener("visibilitychange", () => document.hidden && hold(false));
onMediaKeys({ togglemicrophone: () => setMuted(!view.isMuted), hangup: () => leaveCall("You have left the call.") });
addEventListener("pagehide", () => {
    if (view.farewell && view.sound) {
        send(view.farewell);
    }
    // peers learn at once that this tab goes
    view.member?.end();
});
// a link that is opened in this tab once more changes the fragment alone
addEventListener("hashchange", () => location.hash.length > 1 && location.reload());
setInterval(() => view.member && draw(), DRAW);

const link = takeLink();
const before = keptCall();
$("token").value = [link.token, link.call ?? before.call].filter(Boolean).join(",");
$("name").value = before.name ?? "";
$("token-details").open = !link.token;
const kept = await keptVisit();
if (kept.visit || kept.leaf) {
    await become({ visit: kept.visit, token: kept.leaf });
}
problem(kept.problem ?? Player.obstacle());
await lookAtToken();
focusFirst($("become"));

// --- the door ---

function wanted() {
    return texts($("token").value);
}

/** Whether this tab may send. */
function canTalk() {
    return !(view.member ? view.member.isLeaf : view.isForLeaf);
}

/** The meaning of the field, before the user clicks. */
async function lookAtToken() {
    const pasted = $("token").value;
    const { token, call } = wanted();
    const { words, isRefused, isLeaf = false, uses } = view.member ? ofMember(pasted, call) : await described(pasted);
    // something else may stand there meanwhile
    if (pasted !== $("token").value) {
        return;
    }
    Object.assign(view, { isForLeaf: isLeaf, offered: token && uses !== 1 ? token : null });
    const isVain = isRefused || (!call && !canTalk());
    say($("offer"), call || canTalk() || isRefused ? words : `${words} It cannot begin a call: ask for the link of one.`);
    $("offer").classList.toggle("refused", isVain);
    $("token-details").open ||= isVain;
    $("token").required = !view.member;
    say($("enter"), !call ? "New call" : canTalk() ? "Join" : "Only listen");
    $("enter").disabled = view.isEntering || isVain || Player.obstacle() !== null;
    $("only-listen").hidden = !call || !canTalk();
    $("only-listen").disabled = $("enter").disabled;
    $("listen-hint").hidden = !call;
    $("name").closest("label").hidden = !canTalk();
    $("name").required = canTalk();
    $("begin-muted").closest("label").hidden = !canTalk();
    $("forget").hidden = !view.member;
}

function ofMember(pasted, call) {
    const isRefused = pasted.trim() !== "" && !call;
    return {
        words: isRefused ? "This is no link of a call: it has a text in it that begins with lcc1. Was it copied whole?" : call ? "This is a call." : "You begin a new call, and get its link for the others.",
        isRefused,
    };
}

async function enter(talks) {
    if (view.isEntering) {
        return;
    }
    problem(null);
    notice(null);
    view.isEntering = true;
    lookAtToken();
    const { token, call } = wanted();
    // while the click still counts
    const starting = Sound.start(talks, tell);
    starting.catch(() => {});
    let sound = null;
    try {
        if (!view.member) {
            const { offered } = view;
            await become({ token: token ?? $("token").value });
            // it may be public, or for so many that the others can come by it
            view.token = view.member.isLeaf ? token : offered;
        }
        sound = await starting;
        const name = $("name").value.trim();
        const start = { address: view.member.status().address, call: call ?? null, name, talks };
        Object.assign(view, { ...none(), sound, talks });
        view.text = await sound.open(start);
        keepCall({ call: view.text, name });
        $("token").value = view.text;
        begin(talks && $("begin-muted").checked);
    } catch (error) {
        sound ??= await starting.catch(() => null);
        sound?.close();
        leaveGroups();
        Object.assign(view, none());
        problem(error.message);
    }
    view.isEntering = false;
    lookAtToken();
}

/** A member or a leaf. */
async function become({ token, visit }) {
    const start = { token, visit, name: `call-${random(3).toLowerCase()}`, key: random(32), seed: random(32), incarnation: Math.floor(Date.now() / 1000), report: false };
    const hear = { datagram: ({ group, bytes }) => view.groups.has(group) && view.sound?.datagram(bytes), sealed: () => {}, keep: keepVisit, change: () => {} };
    try {
        view.member = await Member.begin(start, hear);
    } catch (error) {
        forgetVisit();
        if (!visit) {
            throw error;
        }
        problem(error.message);
        return;
    }
    document.body.classList.toggle("leaf", view.member.isLeaf);
    view.token = view.member.isLeaf ? token : null;
}

// --- the call ---

const tell = {
    join: (group) => {
        view.groups.add(group);
        attempt(() => view.member?.join(group));
    },
    leave: (group) => {
        view.groups.delete(group);
        view.member?.leave(group);
    },
    send: (datagram) => send(datagram),
    farewell: (datagram) => (view.farewell = datagram),
    status: (status) => {
        const late = status.late - (view.status?.late ?? 0);
        view.lates.push(...Array(Math.max(0, Math.min(late, BUSY[0]))).fill(performance.now()));
        view.status = status;
        draw();
    },
    heard: (power) => level.add({ power }),
    silenced: (why) => {
        setMuted(true);
        problem(why);
    },
    paused: (isPaused) => view.sound && notice(isPaused ? PAUSED : null),
};

/** A datagram that cannot be sent is a gap, as one that was lost. */
function send({ group, port, data }) {
    try {
        view.member?.send(group, port, data);
    } catch (error) {
        problem(error.message);
    }
}

/** A leaf's token may not cover the groups of calls. */
function attempt(action) {
    try {
        action();
    } catch (error) {
        queueMicrotask(() => leaveCall(null, error.message));
    }
}

function begin(isMuted) {
    level.clear();
    view.since = performance.now();
    document.body.classList.toggle("listens", !view.talks);
    setVolume();
    view.isMuted = false;
    setMuted(isMuted || $("push").checked);
    share.value = linkTo(view.text);
    say($("share-hint"), view.token && !view.member.isLeaf ? "Who has the link enters the network, and talks in this call: send it as you would a password." : view.token ? "Who has the link listens, as you do: send it as you would a password." : "The link is for people who are in the network already; for others, send an invitation (`lcroute invite`) with it. Who has it takes part: send it as you would a password.");
    show(true);
    awake.keep();
    draw();
    $(view.talks ? "mute" : "hold").focus();
}

/** A link for other browsers. */
function linkTo(text) {
    const url = new URL("./", location.href);
    url.hash = [view.token, text].filter(Boolean).join(",");
    return url.href;
}

async function leaveCall(words, why = null) {
    const { sound } = view;
    if (!sound) {
        return;
    }
    view.sound = null;
    awake.end();
    show(false);
    // the last beacons still go by the member
    await sound.end();
    leaveGroups();
    Object.assign(view, none());
    level.clear();
    problem(why);
    notice(why === null ? words : null);
    await lookAtToken();
    focusFirst($("become"));
}

function leaveGroups() {
    view.groups.forEach((group) => view.member?.leave(group));
    view.groups.clear();
}

async function leaveNetwork(why = null) {
    await leaveCall(null, why);
    forgetVisit();
    view.member?.end();
    unfollow();
    Object.assign(view, { member: null, token: null });
    document.body.classList.remove("leaf");
    $("token").value = "";
    $("token-details").open = true;
    state("starting", "not a member of a network");
    problem(why);
    notice(why === null ? "You have left the network, and this tab has forgotten its keys." : null);
    await lookAtToken();
    focusFirst($("become"));
}

function show(isInside) {
    $(isInside ? "devices-within" : "devices-before").append($("devices"));
    $("door").hidden = isInside;
    $("inside").hidden = !isInside;
    document.title = "Call";
}

async function setMuted(isMuted) {
    const { sound } = view;
    if (!sound || !view.talks) {
        return;
    }
    view.isMuted = isMuted;
    if (!isMuted && !sound.hasMicrophone) {
        view.isMuted = true;
        try {
            await sound.openMicrophone();
            view.isMuted = false;
            problem(null);
        } catch (error) {
            problem(error.message);
        }
    }
    if (view.sound === sound) {
        sound.muted = view.isMuted;
        draw();
    }
}

/** Another microphone or loudspeaker goes on with the call. */
async function takeDevices() {
    try {
        await view.sound?.takeDevices();
    } catch (error) {
        setMuted(true);
        problem(error.message);
    }
}

/** Talks while something is held; undefined if that is not wanted. */
function hold(isHeld) {
    if (!view.sound || !$("push").checked) {
        return undefined;
    }
    view.isMuted === isHeld && setMuted(!isHeld);
    return true;
}

/** The space bar, where it does nothing else. */
function isSpace(event) {
    const other = event.target.closest?.("button, input, select, textarea, summary, a, [tabindex]");
    return event.key === " " && view.sound !== null && view.talks && (!other || other === $("mute"));
}

function setAway(isAway) {
    view.isAway = isAway;
    view.sound.away = isAway;
    draw();
}

function setVolume() {
    if (view.sound) {
        view.sound.volume = Number($("volume").value) / 100;
    }
}

/** A browser that has paused the sound goes on with it when somebody does something. */
function wake() {
    if (view.sound?.context.state === "suspended" || view.sound?.context.state === "interrupted") {
        view.sound.resume();
    }
}

// --- drawing ---

function draw() {
    if (!view.member) {
        return;
    }
    const status = view.member.status();
    if (status.state === "expelled") {
        leaveNetwork("This page has been expelled from the network: it needs a new invitation.");
        return;
    }
    const stands = standing(status, tabsHere(status.peer_id), view.member.problem());
    follow(stands.reach !== "none");
    state(stands.name, stands.words);
    if (!view.sound || !view.status) {
        return;
    }
    showStanding(stands.reach);
    showPeople(view.status);
    showNews(view.status);
    showOwn(view.status);
}

const STANDING = {
    looking: ["waiting", "Looking who is here"],
    full: ["waiting", "The call is full: eight talk. You listen, and take the next free place."],
    listens: ["live", "You listen, and nobody sees you."],
    left: ["waiting", "You leave."],
};

/** Whether the sound was late here repeatedly. */
function isBusy() {
    view.lates = view.lates.filter((at) => performance.now() - at < BUSY[1]);
    return view.lates.length >= BUSY[0];
}

function showStanding(reach) {
    const { standing: stands, away, muted } = view.status;
    const isLooking = stands === "looking";
    const talking = muted ? "You are in the call, muted." : "You are in the call, and can be heard.";
    const calm = away ? ["waiting", "On hold: you keep your place."] : (STANDING[stands] ?? ["live", talking]);
    const [name, words] = !away && isBusy() ? ["waiting", "This computer is too busy: sound has gaps. Close other programs or tabs."] : calm;
    say($("standing"), words);
    $("standing").dataset.state = name;
    const { participants, drops } = view.status;
    // before it has looked it does not know
    $("nobody").hidden = away || isLooking || participants.length > 0;
    const isLong = performance.now() - view.since > HINT_AFTER;
    const reasons = {
        none: "This page has no link to the network so far.",
        here: "Only tabs of this browser are linked, and no other computer.",
        network: (drops.beacon_time ?? 0) > 0 ? "Somebody is here whose clock is more than an hour apart from this computer’s: set the wrong one right." : "Nobody else is here so far. Send the link to those you want to talk with.",
    };
    say($("nobody"), isLong ? reasons[reach] : reasons.network);
}

function showPeople({ participants, away }) {
    const items = new Map([...$("people").children].map((item) => [item.dataset.key, item]));
    const shown = away ? [] : participants.map((one) => {
        const item = items.get(one.key) ?? entry(one.key);
        const [who, button] = item.children;
        const words = one.ignored ? "you do not hear" : one.away ? "away" : one.muted ? "muted" : one.speaks ? "speaks" : "silent";
        item.dataset.speaks = one.speaks;
        item.dataset.quality = one.quality;
        say(who.firstChild, one.name);
        say(who.children[1], words);
        say(who.lastChild, QUALITY[one.quality] ?? "");
        say(button, one.ignored ? "Hear again" : "Turn off");
        button.setAttribute("aria-label", one.ignored ? `Hear again: ${one.name}` : `Turn off ${one.name}, for you alone`);
        return item;
    });
    if (shown.length !== items.size || shown.some((item, at) => $("people").children[at] !== item)) {
        const focused = $("people").contains(document.activeElement) && document.activeElement;
        fill($("people"), shown);
        focused && (focused.isConnected ? focused : $(view.talks ? "mute" : "hold")).focus();
    }
}

function entry(key) {
    const button = html("button", { type: "button" });
    button.addEventListener("click", () => {
        const one = view.status.participants.find((participant) => participant.key === key);
        one && view.sound.ignore(one.place, !one.ignored);
    });
    return html("li", { "data-key": key }, html("div", {}, html("b"), html("small"), html("small", { class: "quality" })), button);
}

/** Who came, left or speaks: as a line, which screen readers read where that is wanted. */
function showNews({ participants, away }) {
    if (away) {
        view.known.clear();
        return;
    }
    const lines = [];
    const now = new Map(participants.map(({ key, name }) => [key, name]));
    now.forEach((name, key) => view.known.has(key) || lines.push(`${name} came.`));
    view.known.forEach((name, key) => now.has(key) || lines.push(`${name} has left.`));
    const speaking = participants.filter(({ speaks }) => speaks).map(({ name }) => name);
    const speaker = speaking.join(" and ") || null;
    if (speaker !== null && speaker !== view.speaker) {
        lines.push(`${speaker} ${speaking.length > 1 ? "speak" : "speaks"}.`);
    }
    const time = performance.now();
    // a change left out now is said next time, if it still holds
    if (lines.length > 0 && (!$("aloud").checked || time - view.saidAt >= ALOUD)) {
        Object.assign(view, { known: now, speaker, saidAt: time });
        say($("news"), lines.join(" "));
    } else if (speaker === null) {
        view.speaker = null;
    }
}

function showOwn(status) {
    const { name, muted, away, packets, sent, lost } = status;
    const isHeld = $("push").checked;
    $("mute").setAttribute("aria-pressed", String(!view.isMuted));
    $("mute").disabled = away;
    say($("mute"), view.isMuted ? (isHeld ? "Hold to talk" : "Muted: press to talk") : "Talking: press to mute");
    isHeld && !view.isMuted && say($("mute"), "Talking");
    say($("mute-hint"), isHeld ? "You talk while you hold the space bar or this button. Else nothing is sent." : "The space bar mutes you, or lets you talk. While you are muted, nothing is sent.");
    $("hold").setAttribute("aria-pressed", String(away));
    say($("hold"), away ? "Go on" : "Hold");
    say($("own-title"), view.talks && name ? `You, ${name.replaceAll("`", "'")}` : "You");
    const percent = sent > 0 ? `${((100 * lost) / sent).toFixed(1)} %` : "–";
    facts($("figures"), [
        ["Lost", percent],
        ["Buffer", `${status.buffer_ms} ms of ${status.target_ms} ms`],
        ["Delay here", `${Math.round(status.target_ms + status.ahead_ms + view.sound.delay)} ms`],
        ["Gaps", String(status.concealed)],
        ["This page was late", `${status.late} ${status.late === 1 ? "time" : "times"}`],
        ["Packets sent", packets.toLocaleString("en")],
    ]);
    document.title = `${muted && view.talks ? "Muted" : away ? "On hold" : "In a call"} – Call`;
    showSession(muted);
}

/** Keys of a headset, and the lock screen. */
function showSession(isMuted) {
    try {
        navigator.mediaSession?.setMicrophoneActive?.(!isMuted);
    } catch {
        // not in this browser
    }
}
