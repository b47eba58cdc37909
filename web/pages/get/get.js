// The page that receives files: words in the address make this tab a leaf of their network, and files are saved by the browser.
// Names come from others: they are shown as text, never as markup.

import "../common/install.js";
import { focusFirst } from "../common/enter.js";
import { facts, fill, html, say } from "../common/html.js";
import { size } from "../common/sizes.js";
import { follow, notice, problem, standing, state, unfollow } from "../common/standing.js";
import { Member } from "../node/member.js";
import { random } from "../node/visit.js";
import { Get } from "./module.js";

/** How often the page is drawn, in milliseconds. */
const DRAW = 500;
/** Silence after which the page shows possible reasons, in milliseconds. */
const HINT_AFTER = 10_000;
/** Time over which the rate is measured, and after which it is known, in milliseconds. Chosen. */
const MEASURED = [8000, 1500];
/** How long a file that was saved is kept for the browser, in milliseconds. Chosen: longer than it asks where to. */
const KEEP = 10 * 60_000;

const $ = (id) => document.getElementById(id);
const view = { member: null, get: null, since: 0, parts: new Map(), saved: new Map(), course: [] };

$("begin").addEventListener("submit", (event) => {
    event.preventDefault();
    begin($("words").value);
});
$("all").addEventListener("click", () => want(view.status.files.map((_, number) => number)));
$("leave").addEventListener("click", () => leave(null));
addEventListener("pagehide", () => view.member?.end());
// a link that is opened in this tab once more changes the fragment alone
addEventListener("hashchange", () => location.hash.length > 1 && (leave(null), begin(taken())));
setInterval(() => view.get && draw(), DRAW);

/** The text behind the `#` of the address. It stays there, so a reload begins anew; no browser sends it to a server. */
function taken() {
    return location.hash.slice(1);
}

/** The pasted text: words, a whole link of this page, or a token with a share. */
function meant(text) {
    const given = text.trim().replace(/^.*#/s, "");
    try {
        return decodeURIComponent(given);
    } catch {
        return given;
    }
}

async function begin(text) {
    problem(null);
    notice(null);
    $("receive").disabled = true;
    state("starting", "making keys of the words");
    // drawn before the keys take a second
    await new Promise((drawn) => setTimeout(drawn, 50));
    try {
        const get = await Get.load({ join: (group) => join(group), leave: (group) => view.member.leave(group) });
        const token = get.token(meant(text), location.hostname);
        const start = { token, name: "", key: random(32), seed: random(32), incarnation: Math.floor(Date.now() / 1000), report: false };
        const hear = { datagram: ({ bytes }) => datagram(bytes), sealed: () => {}, keep: () => {}, change: () => {} };
        view.member = await Member.begin(start, hear);
        view.get = get;
        get.open();
    } catch (error) {
        leave(error.message);
        return;
    } finally {
        $("receive").disabled = false;
    }
    Object.assign(view, { since: performance.now(), linkedAt: null, status: view.get.status() });
    $("words").value = "";
    show(true);
    draw();
}

/** A group that this leaf may not join, or not now, is asked for again by the receiver. */
function join(group) {
    try {
        view.member.join(group);
    } catch (error) {
        problem(error.message);
    }
}

function datagram(bytes) {
    view.get?.datagram(bytes);
    collect();
}

/** Takes received bytes: the browser keeps blobs, on disk if memory has no room. */
function collect() {
    for (let piece = view.get?.piece(); piece; piece = view.get.piece()) {
        const parts = view.parts.get(piece.file) ?? view.parts.set(piece.file, new Map()).get(piece.file);
        parts.set(piece.offset, new Blob([piece.bytes]));
        view.moved = true;
    }
}

function want(numbers) {
    try {
        problem(null);
        numbers.forEach((number) => {
            view.parts.set(number, new Map());
            view.saved.delete(number);
        });
        view.get.want(numbers);
    } catch (error) {
        problem(error.message);
    }
    draw();
}

/** A file that is whole: its parts in their order. */
function save(number, { download }) {
    const parts = [...(view.parts.get(number) ?? [])].sort(([a], [b]) => a - b).map(([, part]) => part);
    view.parts.delete(number);
    const href = URL.createObjectURL(new Blob(parts, { type: "application/octet-stream" }));
    view.saved.set(number, href);
    const link = html("a", { href, download });
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(href), KEEP);
}

/** `why`: the fault, if there is one. */
function leave(why) {
    view.get?.close();
    view.member?.end();
    unfollow();
    view.saved.forEach((href) => URL.revokeObjectURL(href));
    Object.assign(view, { member: null, get: null, parts: new Map(), saved: new Map(), course: [], focused: false, told: null });
    show(false);
    state("starting", "nothing is received");
    problem(why);
}

function show(isInside) {
    $("door").hidden = isInside;
    $("inside").hidden = !isInside;
    isInside || focusFirst($("begin"));
}

// --- display ---

const sum = (list, of) => list.reduce((all, file) => all + file[of], 0);
const files = (n) => `${n} file${n === 1 ? "" : "s"}`;

function draw() {
    collect();
    const now = performance.now();
    const status = (view.status = view.get.status());
    const member = view.member.status();
    const stands = standing(member, new Set(), view.member.problem());
    const hasLinks = stands.reach === "network";
    follow(hasLinks, now);
    view.linkedAt = hasLinks ? (view.linkedAt ?? now) : null;
    state(stands.name, stands.words);
    if (status.problem) {
        leave(status.problem);
        return;
    }
    if (status.notice !== view.told) {
        notice((view.told = status.notice));
    }
    say($("sent-title"), status.phase === "files" ? (status.from ? `From ${status.from}` : "Files") : "Looking for the sender");
    say($("sent"), words(status, member, now));
    drawFiles(status);
    const figures = [["State", stands.words], ["Lost packets", `${(status.loss * 100).toFixed(1)} %`]];
    status.signer && figures.push(["Signed by", status.signer]);
    facts($("figures"), figures);
}

/** The rate of the last seconds, and the time left at that rate; nothing before it is known. */
function pace(got, bytes, now) {
    const last = view.course.at(-1);
    if (last && got < last.got) {
        // a file is received again
        view.course = [];
    }
    view.course.push({ at: now, got });
    while (now - view.course[0].at > MEASURED[0]) {
        view.course.shift();
    }
    const [first] = view.course;
    if (now - first.at < MEASURED[1]) {
        return "";
    }
    const rate = (1000 * (got - first.got)) / (now - first.at);
    return rate > 0 ? `, ${size(rate)} a second, about ${duration((bytes - got) / rate)} left` : ", nothing comes at present";
}

function duration(seconds) {
    const minutes = Math.ceil(seconds / 60);
    return seconds < 100 ? `${Math.max(1, Math.round(seconds))} s` : minutes < 120 ? `${minutes} min` : `${Math.round(minutes / 60)} h`;
}

/** The present state. */
function words({ phase, files: all }, member, now) {
    if (phase === "files") {
        const wanted = all.filter((file) => file.wanted);
        const [bytes, got] = [sum(wanted, "size"), sum(wanted, "got")];
        const whole = wanted.filter((file) => file.got === file.size).length;
        const offered = `${files(all.length)}, ${size(sum(all, "size"))}`;
        if (wanted.length === 0) {
            return `${offered}.`;
        }
        return whole === wanted.length ? `${files(whole)} received and verified, ${size(bytes)}. The browser has saved them.` : `${size(got)} of ${size(bytes)} received${pace(got, bytes, now)}.`;
    }
    const isServed = member.servers.some((server) => server.connected);
    if (now - view.since < HINT_AFTER || (!view.linkedAt && !isServed)) {
        return isServed ? "Looking for who has these words." : "Asking a server who has these words.";
    }
    if (!view.linkedAt) {
        return "Nobody is here under these words yet. Are they right, and does `lcsync send` still run? This page goes on looking.";
    }
    return now - view.linkedAt < HINT_AFTER ? "Linked: listening for who sends." : "Others are here under these words, and nobody sends. Does `lcsync send` still run?";
}

function drawFiles({ phase, files: all, others }) {
    const host = $("files");
    $("others").hidden = !others;
    $("all-row").hidden = phase !== "files" || all.every((file) => file.wanted);
    say($("all"), all.length === 1 ? "Receive" : "Receive all");
    if (host.children.length !== all.length) {
        view.parts.clear();
        fill(host, all.map((_, number) => row(number)));
    }
    for (const [number, file] of all.entries()) {
        const isWhole = file.wanted && file.got === file.size;
        if (isWhole && !view.saved.has(number)) {
            save(number, file);
        }
        const [name, how, bar, button] = host.children[number].children;
        say(name, file.name);
        say(how, isWhole ? `${size(file.size)}, saved` : file.wanted ? `${size(file.got)} of ${size(file.size)}` : size(file.size));
        bar.hidden = !file.wanted || isWhole;
        bar.value = file.size ? file.got / file.size : 1;
        bar.setAttribute("aria-label", `Received of ${file.name}`);
        button.hidden = file.wanted ? !isWhole : all.length === 1;
        say(button, isWhole ? "Receive again" : "Receive");
        button.setAttribute("aria-label", `${button.textContent}: ${file.name}`);
    }
    // on the next control
    if (phase === "files" && !view.focused) {
        view.focused = true;
        focusFirst($("inside"));
    }
}

function row(number) {
    const button = html("button", { type: "button" });
    button.addEventListener("click", () => want([number]));
    return html("li", {}, html("span", { class: "name" }), html("span", { class: "hint" }), html("progress", { max: "1", value: "0" }), button);
}

// --- from the beginning ---

const given = taken();
if (given) {
    await begin(given);
} else {
    focusFirst($("begin"));
}
