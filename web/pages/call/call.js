// The call page: this tab becomes a member, and takes part in a call. Names come from others: they are shown as text, never as markup.

import { texts } from "../common/door.js";
import { focusFirst, sendByEnter } from "../common/enter.js";
import { copier, facts, fill, html, say } from "../common/html.js";
import { follow, notice, problem, standing, state, unfollow } from "../common/standing.js";
import { Member } from "../node/member.js";
import { described } from "../node/offer.js";
import { forgetVisit, keepVisit, keptVisit, random, tabsHere, takeLink } from "../node/visit.js";
import { Level } from "../radio/level.js";
import { begin as beginToPlay, Player } from "../radio/player.js";

/** How often the network's state is drawn, in milliseconds. */
const DRAW = 1000;
/** How often a screen reader says who speaks, at most, in milliseconds. */
const SPEECH = 5000;
const RATE = 48_000;
/** What the browser takes away from the microphone's sound. */
const CAPTURE = { channelCount: 1, echoCancellation: true, noiseSuppression: true, autoGainControl: true };
/** Firefox cancels the echo of a media element alone, for all devices. */
const PLAYS_BY_ELEMENT = navigator.userAgent.includes("Firefox");

const $ = (id) => document.getElementById(id);
const view = { member: null, worker: null, context: null, stream: null, status: null, spokeAt: 0 };
const level = new Level($("meter"), $("level"));
const share = $("share").appendChild(copier("", "Copy link"));

$("become").addEventListener("submit", (event) => {
    event.preventDefault();
    enter(true);
});
sendByEnter($("become"));
$("listen").addEventListener("click", () => enter(false));
$("token").addEventListener("input", () => look());
$("mute").addEventListener("click", () => mute(!view.status?.muted));
$("hang-up").addEventListener("click", () => hangUp());
$("push").addEventListener("change", () => explainKeys());
addEventListener("keydown", (event) => space(event, true));
addEventListener("keyup", (event) => space(event, false));
// a key that is released elsewhere sticks otherwise
addEventListener("blur", () => $("push").checked && mute(true));
addEventListener("pagehide", () => {
    view.worker?.postMessage({ does: "leave" });
    view.member?.end();
});
setInterval(() => view.member && showNetwork(), DRAW);

const link = takeLink();
$("token").value = link.token;
const kept = await keptVisit();
// a leaf's page cannot talk
$("membership").hidden = Boolean(kept.visit || kept.leaf || link.token);
problem(kept.problem ?? obstacle());
$("enter").disabled = $("listen").disabled = obstacle() !== null;
await look();
focusFirst($("become"));

// --- before the call ---

/** Why this browser takes part in no call, or null. */
function obstacle() {
    const cannot = Player.obstacle();
    return cannot ?? (window.AudioEncoder && window.Worker ? null : "This browser cannot encode sound for pages (WebCodecs).");
}

/** The call of the link, or of the pasted text. */
function wanted() {
    return texts($("token").value).call ?? link.call;
}

/** The meaning of the field and of the link, before the user clicks. */
async function look() {
    const pasted = $("token").value;
    const isMember = Boolean(kept.visit || kept.leaf);
    const { words, isRefused } = isMember ? { words: "", isRefused: false } : await described(`${pasted} ${link.call ?? ""}`);
    if (pasted === $("token").value) {
        say($("offer"), wanted() || !isMember ? words : "");
        $("offer").classList.toggle("refused", isRefused);
        say($("enter"), wanted() ? "Join" : "New call");
        $("listen").hidden = !wanted();
    }
}

async function enter(talks) {
    if (talks && !$("become").reportValidity()) {
        return;
    }
    problem(null);
    notice(null);
    $("enter").disabled = $("listen").disabled = true;
    try {
        // while the click still counts
        view.context = new AudioContext({ sampleRate: RATE, latencyHint: "interactive" });
        const playing = beginToPlay(view.context);
        const stream = talks ? microphone() : null;
        const token = texts($("token").value).token ?? $("token").value.trim();
        await become(token);
        if (talks && view.member.isLeaf) {
            throw new Error("This invitation only lets you listen: press Only listen.");
        }
        view.stream = await stream;
        await playing;
        await takePart(talks);
        show(true);
    } catch (error) {
        end();
        problem(error.message);
    } finally {
        $("enter").disabled = $("listen").disabled = false;
    }
}

async function microphone() {
    try {
        return await navigator.mediaDevices.getUserMedia({ audio: CAPTURE });
    } catch ({ name, message }) {
        const words = {
            NotAllowedError: "The browser gives this page no microphone: allow it in the browser’s settings of this page, or only listen.",
            NotFoundError: "This computer has no microphone: you can only listen.",
            NotReadableError: "The microphone cannot be used: another program may have it.",
        };
        throw new Error(words[name] ?? message);
    }
}

async function become(token) {
    const start = { token: kept.visit ? undefined : kept.leaf ?? token, visit: kept.visit, name: `call-${random(3).toLowerCase()}`, key: random(32), seed: random(32) };
    Object.assign(start, { incarnation: Math.floor(Date.now() / 1000), report: false });
    const hear = {
        datagram: ({ bytes }) => {
            const copy = bytes.slice();
            view.worker?.postMessage({ does: "datagram", bytes: copy }, [copy.buffer]);
        },
        sealed: () => {},
        keep: keepVisit,
        change: () => {},
    };
    view.member = await Member.begin(start, hear);
    view.token = view.member.isLeaf ? start.token : null;
}

/** Connects the audio thread with the worker, which does the rest. */
async function takePart(talks) {
    const { context } = view;
    await context.audioWorklet.addModule(new URL("../radio/worklet.js", import.meta.url));
    const player = new AudioWorkletNode(context, "player", { numberOfInputs: 0, outputChannelCount: [2] });
    if (PLAYS_BY_ELEMENT) {
        const output = new MediaStreamAudioDestinationNode(context);
        player.connect(output);
        view.element = Object.assign(new Audio(), { srcObject: output.stream });
        await view.element.play();
    } else {
        player.connect(new GainNode(context)).connect(context.destination);
    }
    const muted = $("push").checked || !talks;
    const ports = { player: portOf(player) };
    if (talks) {
        const recorder = new AudioWorkletNode(context, "recorder", {
            channelCount: 1,
            channelCountMode: "explicit",
            processorOptions: { channels: 1, talks: true, frame: RATE / 100 },
        });
        // it is silent there, and without a way there it would not run
        context.createMediaStreamSource(view.stream).connect(recorder).connect(context.destination);
        ports.recorder = portOf(recorder);
        const [track] = view.stream.getAudioTracks();
        track.enabled = !muted;
        track.addEventListener("ended", () => problem("The microphone is gone: leave the call, and join it again."));
    }
    view.worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
    view.worker.onmessage = ({ data }) => received(data);
    view.worker.onerror = ({ message }) => problem(message || "The thread of this call has ended.");
    const start = { call: wanted() ?? "", name: $("name").value.trim(), talks, muted };
    const address = bytesOf(view.member.status().address);
    view.worker.postMessage({ does: "join", address, start, ...ports }, Object.values(ports));
}

/** A port between a node's processor and another thread. */
function portOf(node) {
    const { port1, port2 } = new MessageChannel();
    node.port.postMessage({ port: port2 }, [port2]);
    return port1;
}

/** The 16 bytes of an IPv6 address. */
function bytesOf(address) {
    const [head, tail] = address.split("::").map((part) => part.split(":").filter(Boolean));
    const missing = tail ? Array(8 - head.length - tail.length).fill("0") : [];
    const groups = [...head, ...missing, ...(tail ?? [])].map((group) => parseInt(group, 16));
    return new Uint8Array(groups.flatMap((group) => [group >> 8, group & 255]));
}

function received({ does, group, port, data, status, problem: why }) {
    if (why) {
        end();
        problem(why);
    } else if (status) {
        view.status = status;
        draw();
    } else if (view.member) {
        try {
            view.member[does](group, port, data);
        } catch (error) {
            // the token does not permit it
            problem(error.message);
        }
    }
}

// --- in the call ---

function mute(isMuted) {
    if (view.worker && view.stream) {
        view.stream.getAudioTracks().forEach((track) => (track.enabled = !isMuted));
        view.worker.postMessage({ does: "mute", isMuted });
    }
}

/** The space bar mutes, or lets talk while it is held. */
function space(event, isDown) {
    const isElsewhere = event.target.closest?.("button, input, select, textarea, summary, a, [tabindex]");
    if (event.key !== " " || !view.worker || (isDown && isElsewhere)) {
        return;
    }
    isElsewhere || event.preventDefault();
    if ($("push").checked) {
        event.repeat || mute(!isDown);
    } else if (isDown && !event.repeat) {
        mute(!view.status?.muted);
    }
}

function explainKeys() {
    say($("mute-hint"), $("push").checked ? "Hold the space bar while you talk." : "The space bar does the same.");
}

function hangUp() {
    view.worker?.postMessage({ does: "leave" });
    // the last beacons go out
    setTimeout(() => {
        end();
        notice("You have left the call.");
    }, 300);
}

/** Leaves the call, and the network: a reload or a link comes back. */
function end() {
    view.worker?.terminate();
    view.stream?.getTracks().forEach((track) => track.stop());
    view.context?.close();
    view.element?.pause();
    view.member?.end();
    unfollow();
    Object.assign(view, { member: null, worker: null, stream: null, context: null, element: null, status: null });
    forgetVisit();
    Object.assign(kept, { visit: undefined, leaf: undefined });
    level.clear();
    state("starting", "not a member of a network");
    $("membership").hidden = Boolean($("token").value);
    show(false);
    look();
}

function show(isInside) {
    $("door").hidden = isInside;
    $("inside").hidden = !isInside;
    explainKeys();
    isInside ? $("mute").focus() : focusFirst($("become"));
}

function showNetwork() {
    const status = view.member.status();
    const stands = standing(status, tabsHere(status.peer_id), view.member.problem());
    follow(stands.reach !== "none");
    state(stands.name, stands.words);
}

const STANDS = {
    looking: () => "Looking who is here.",
    talks: ({ muted }) => (muted ? "You are in the call, and muted." : "You are in the call, and can be heard."),
    full: () => "The call is full: eight talk. You listen, and take the next free place.",
    listens: () => "You only listen. Nobody sees you.",
    left: () => "You have left the call.",
};

function draw() {
    const { status } = view;
    say($("standing"), STANDS[status.standing](status));
    const talks = status.standing === "talks";
    $("mute").hidden = $("mute-hint").hidden = $("own").hidden = !view.stream;
    $("mute").setAttribute("aria-pressed", String(!status.muted));
    say($("mute"), status.muted ? "Muted: press to talk" : "Talking: press to mute");
    level.add({ power: talks && !status.muted ? status.power : 0 });
    const url = new URL(location.href);
    url.hash = [view.token, status.call].filter(Boolean).join(",");
    share.value = url.href;
    showPeople(status.participants);
    const spoke = status.news.filter((line) => line.endsWith(" speaks.")).at(-1);
    const others = status.news.filter((line) => !line.endsWith(" speaks."));
    if (others.length > 0) {
        notice(others.at(-1));
    }
    if (spoke && $("aloud").checked && performance.now() - view.spokeAt > SPEECH) {
        view.spokeAt = performance.now();
        say($("speech"), spoke);
    }
    const lost = status.sent ? `${((100 * status.lost) / status.sent).toFixed(1)} %` : "–";
    facts($("figures"), [
        ["Lost", lost],
        ["Buffer", `${status.buffer_ms} ms of ${status.target_ms} ms`],
        ["This page was late", `${status.underruns} times`],
    ]);
}

/** Names, who speaks, and a button that turns somebody off. */
function showPeople(people) {
    $("nobody").hidden = people.length > 0;
    const items = new Map([...$("people").children].map((item) => [item.dataset.place, item]));
    const shown = people.map(({ place, name, muted, ignored, speaks }) => {
        const item = items.get(String(place)) ?? person(place);
        const [label, about, button] = item.children;
        item.dataset.speaks = speaks;
        say(label, name.replaceAll("`", "'"));
        say(about, ignored ? "turned off here" : muted ? "muted" : speaks ? "speaks" : "");
        say(button, ignored ? "Hear again" : "Turn off");
        button.setAttribute("aria-label", `${ignored ? "Hear again" : "Turn off for me"}: ${name}`);
        button.value = ignored ? "" : "off";
        return item;
    });
    if (shown.length !== items.size || shown.some((item, at) => $("people").children[at] !== item)) {
        fill($("people"), shown);
    }
}

function person(place) {
    const button = html("button", { type: "button" });
    button.addEventListener("click", () => view.worker?.postMessage({ does: "ignore", place, isIgnored: button.value === "off" }));
    return html("li", { "data-place": place }, html("b"), html("small"), button);
}
