// The page that sends files: this tab makes a network of four words, and serves slices of the chosen files.

import { focusFirst } from "../common/enter.js";
import { fill, html, say } from "../common/html.js";
import { shared } from "../common/install.js";
import { Share } from "../common/share.js";
import { size } from "../common/sizes.js";
import { notice, problem, standing, state } from "../common/standing.js";
import { Awake } from "../common/awake.js";
import { Member } from "../node/member.js";
import { random } from "../node/visit.js";
import { Send } from "./module.js";

/** How often the page is drawn, in milliseconds. */
const DRAW = 500;
/** Bytes that wait on a link at most. Chosen: below the size at which the member drops packets (DATA_QUEUE in web/node). */
const ROOM = 192 << 10;
/** Words and signing key of this tab, for a reload: files have to be chosen again. */
const KEPT = "lcroute send";

const $ = (id) => document.getElementById(id);
const view = { files: [], member: null, send: null, ticks: null };
const share = new Share($("share"), "Link for receivers");
const awake = new Awake(() => view.send !== null);

$("files").addEventListener("change", () => {
    add($("files").files);
    $("files").value = "";
});
$("begin").addEventListener("submit", (event) => {
    event.preventDefault();
    begin();
});
$("leave").addEventListener("click", () => {
    sessionStorage.removeItem(KEPT);
    leave(null);
});
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => {
    event.preventDefault();
    view.send || add(event.dataTransfer.files);
});
addEventListener("beforeunload", (event) => view.status?.receives && event.preventDefault());
addEventListener("pagehide", () => view.member?.end());
setInterval(() => view.send && draw(), DRAW);

// a page from this computer has no server beside it that others reach, and its links lead nowhere for them
const isOfThisComputer = /^(localhost|127\..*|\[::1\])$/.test(location.hostname);
$("server").value = isOfThisComputer ? "" : location.hostname;
$("share").hidden = isOfThisComputer;
$("more").open = $("server").value === "";
drawChosen();
if (kept()) {
    notice("This tab has sent files under four words, and was loaded again. Choose the same files, and receivers continue under the same words.");
}
shared().then((files) => add(files));
focusFirst($("begin"));

function kept() {
    return JSON.parse(sessionStorage.getItem(KEPT) ?? "null");
}

// --- chosen files ---

/** Names differ: a phone calls each of its pictures "image.jpg". */
function add(files) {
    for (const file of files) {
        let name = file.name || "file";
        const [, base, end] = name.match(/^(.+?)(\.[^.]*)?$/s);
        for (let n = 2; view.files.some((other) => other.name === name); n += 1) {
            name = `${base} (${n})${end ?? ""}`;
        }
        view.files.push({ name, file });
    }
    drawChosen();
}

function drawChosen() {
    const all = view.files.reduce((sum, { file }) => sum + file.size, 0);
    const count = view.files.length;
    say($("chosen-words"), count === 0 ? "No file is chosen." : `${count} file${count === 1 ? "" : "s"}, ${size(all)}.`);
    $("send").disabled = count === 0;
    const row = (chosen) => {
        const button = html("button", { type: "button", "aria-label": `Remove ${chosen.name}` }, "Remove");
        button.addEventListener("click", () => {
            view.files = view.files.filter((other) => other !== chosen);
            drawChosen();
        });
        return html("li", {}, html("span", { class: "name" }, chosen.name), html("span", { class: "hint" }, size(chosen.file.size)), button);
    };
    fill($("chosen"), view.files.map(row));
}

// --- sending ---

async function begin() {
    problem(null);
    notice(null);
    $("send").disabled = true;
    state("starting", "making words and their keys");
    // drawn before the keys take a second
    await new Promise((drawn) => setTimeout(drawn, 50));
    let send = null;
    try {
        send = await Send.load({
            join: (group) => view.member.join(group),
            leave: (group) => view.member.leave(group),
            send: (group, port, data) => view.member.send(group, port, data),
            query: (packet) => view.member?.query(packet),
            // a query may come before the member is there
            room: () => view.member?.room(ROOM) ?? 0,
            read: (read) => serve(send, read),
        });
        const { words, token, serves, kept: keep } = send.words($("server").value, kept());
        const start = { token, name: `page-${random(3).toLowerCase()}`, key: random(32), seed: random(32), incarnation: Math.floor(Date.now() / 1000), report: false, serves };
        const hear = { datagram: ({ bytes }) => send.datagram(bytes), sealed: () => {}, keep: () => {}, change: () => {}, mld: (packet) => send.mld(packet) };
        view.member = await Member.begin(start, hear);
        send.open($("from").value.trim(), view.files.map(({ name, file }) => ({ name, size: file.size, modified: file.lastModified })));
        sessionStorage.setItem(KEPT, JSON.stringify(keep));
        Object.assign(view, { send, words });
    } catch (error) {
        send?.close();
        leave(error.message);
        return;
    }
    view.ticks = new Worker(new URL("../common/ticks.js", import.meta.url));
    // timers of a page that is not seen are slow
    view.ticks.addEventListener("message", () => document.hidden && view.send?.run());
    const row = ({ name, file }) => html("li", {}, html("span", { class: "name" }, name), html("span", { class: "hint" }, size(file.size)));
    fill($("files-sent"), view.files.map(row));
    awake.keep();
    show(true);
    draw();
}

/** Reads slices, and no more of the files. */
async function serve(send, { id, slices }) {
    const part = ({ file, offset, length }) => view.files[file].file.slice(offset, offset + length);
    try {
        const all = await new Blob(slices.map(part)).arrayBuffer();
        send.isClosed || send.bytes(id, new Uint8Array(all));
    } catch {
        const file = await unreadable(slices, part);
        send.isClosed || send.lost(id, file);
    }
}

/** The number of the first file that cannot be read. */
async function unreadable(slices, part) {
    for (const slice of slices) {
        try {
            await part(slice).arrayBuffer();
        } catch {
            return slice.file;
        }
    }
    return slices[0].file;
}

/** `why`: the fault, if there is one. */
function leave(why) {
    view.send?.close();
    view.member?.end();
    view.ticks?.terminate();
    Object.assign(view, { send: null, member: null, ticks: null, status: null });
    awake.end();
    show(false);
    drawChosen();
    state("starting", "nothing is sent");
    problem(why);
}

function show(isInside) {
    $("door").hidden = isInside;
    $("inside").hidden = !isInside;
    isInside || focusFirst($("begin"));
}

function draw() {
    const status = (view.status = view.send.status());
    if (status.problem) {
        leave(status.problem);
        return;
    }
    const stands = standing(view.member.status(), new Set(), view.member.problem());
    state(stands.name, stands.words);
    $("read").hidden = status.read === status.bytes;
    $("read").value = status.bytes ? status.read / status.bytes : 1;
    $("receive").hidden = !status.published;
    say($("words-title"), status.published ? "Four words" : "Reading the files");
    say($("sent"), words(status));
    if (status.published) {
        say($("words"), view.words);
        share.value = new URL(`../get/#${view.words}`, location.href).href;
    }
    const lost = status.lost.map((number) => view.files[number].name);
    const gone = lost.length > 0 ? `${lost.join(", ")}: this browser cannot read it any more, so it is not sent. Receivers are told.` : null;
    const other = status.other ? `Somebody else, ${status.other}, sends under these words, too: receivers take nothing. End, and pass on new words.` : null;
    problem([other, gone].filter(Boolean).join(" ") || null);
}

function words({ published, read, bytes, receives, sent }) {
    if (!published || read < bytes) {
        return `${size(read)} of ${size(bytes)} read.`;
    }
    const so = sent > 0 ? `, ${size(sent)} sent so far` : "";
    return receives ? `Somebody receives${so}.` : `Nobody receives at present${so}.`;
}
