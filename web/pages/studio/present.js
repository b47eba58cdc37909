// The page that presents: slides are written here, and this tab becomes a member that sends them as `lcstudio present` does. Questions
// and captions come from others: they are shown as text. This browser stores entries before they are sent.

import { focusFirst, sendByEnter } from "../common/enter.js";
import { facts, fill, html, say } from "../common/html.js";
import { Share } from "../common/share.js";
import { notice, problem, state, unanswered } from "../common/standing.js";
import { Member } from "../node/member.js";
import { forgetVisit, keepPresented, keepVisit, keptPresented, keptVisit, random, takeLink } from "../node/visit.js";
import { Presenter } from "./present-module.js";
import { PresentStore } from "./present-store.js";
import { Pictures } from "./pictures.js";
import { Filmed } from "./present-camera.js";
import { Shown } from "./present-screen.js";
import { Voice } from "./present-sound.js";
import { elements } from "./slide.js";

/** How often the network is looked at, in milliseconds. */
const LOOK = 1000;
/** Time within which changes are drawn together, in milliseconds. */
const TOGETHER = 30;
/** Pause of typing after which the text is stored, and shown as others see it, in milliseconds. */
const TYPING = 300;
/** Bytes of a key file. */
const KEY = 32;
/** Longest file of slides that is read, in bytes: as on hosts. */
const MAX_SLIDES_FILE = 32 * 1024 * 1024;
/** Bytes of a picture's file that are read: the module refuses longer pictures. */
const MAX_PICTURE_FILE = 2 * 1024 * 1024;
/** Time on air after which silence of listeners says something, in milliseconds. Chosen: joins come within it. */
const KNOWN = 3000;
/** So many of the last lines are shown. */
const LINES = 6;
/** Waiting entries from which on the page shows them. */
const MANY = 20;

const SLIDES = `# Title

Write slides here, with a line of three dashes between them:

---

## What helps who listens

- Say in words what a picture shows: \`![two bees that dance](images/dance.png)\`
- One thought a slide
`;

const $ = (id) => document.getElementById(id);
/**
 * `files`: added pictures, by the names of their files; `given`: pictures in the module, by their names in slides; `lecture`: the
 * stored one; `text`: that of its session; `sent`: slides that all have; `groups`: those that the module has joined; `loss`: the
 * notice about a lost link.
 */
const view = { store: null, module: null, member: null, lecture: null, text: null, groups: new Set(), sent: null, drawn: null, voice: null, screen: null, camera: null, files: new Map(), given: new Map(), loss: null };
/** Pictures as this page shows them, by the names of their files. */
const share = new Share($("link"), "Link for those who are to attend");
const shownPictures = new Pictures((file) => (view.files.has(file) ? new Blob([view.files.get(file)]) : null));

$("create").addEventListener("click", () => attempt(() => create(crypto.getRandomValues(new Uint8Array(KEY)))));
$("key").addEventListener("change", () => attempt(openKey));
$("text").addEventListener("input", typed);
$("settings").addEventListener("input", typed);
$("settings").addEventListener("submit", (event) => event.preventDefault());
// the slide in which the cursor stands
["click", "keyup", "select"].forEach((event) => $("text").addEventListener(event, () => soonPreview()));
$("file").addEventListener("change", () => attempt(openSlides));
$("images").addEventListener("change", () => attempt(addPictures));
$("publish").addEventListener("click", () => attempt(publish));
$("save-slides").addEventListener("click", () => save($("text").value, "text/markdown", "slides.md"));
$("save-key").addEventListener("click", () => save(view.lecture.key, "application/octet-stream", "lecture.key"));
["forget-token", "forget-token-now"].forEach((id) => $(id).addEventListener("click", () => attempt(forgetToken)));
$("back").addEventListener("click", () => attempt(toDoor));
$("air").addEventListener("submit", (event) => {
    event.preventDefault();
    attempt(() => {
        askAboutExample();
        return goOnAir();
    });
});
sendByEnter($("air"));
$("edit").addEventListener("click", () => edit($("editor").hidden));
// a projector shows the slide alone; the arrow keys go on turning
$("whole-screen").hidden = !document.fullscreenEnabled;
$("whole-screen").addEventListener("click", () => attempt(() => $("slide").requestFullscreen()));
$("end").addEventListener("click", () => attempt(endOrGoOn));
$("microphone").addEventListener("click", () => attempt(view.voice ? endVoice : speak));
$("mute").addEventListener("click", () => mute($("mute").getAttribute("aria-pressed") !== "true"));
$("screen").addEventListener("click", () => attempt(view.screen ? endScreen : showScreen));
$("camera").addEventListener("click", () => attempt(view.camera ? endCamera : showCamera));
for (const [id, end] of [["screen", endScreen], ["camera", endCamera]]) {
    $(`${id}-stop`).addEventListener("click", () => {
        end();
        $(id).focus();
    });
}
$("screen-words").addEventListener("input", lintScreen);
["screen", "camera"].forEach((track) => $(`${track}-words`).addEventListener("change", () => attempt(() => describe(track))));
$("before").addEventListener("click", () => turn(-1));
$("after").addEventListener("click", () => turn(1));
$("number").addEventListener("change", () => turnTo(Number($("number").value)));
$("say").addEventListener("submit", (event) => {
    event.preventDefault();
    attempt(caption);
});
addEventListener("keydown", (event) => {
    const isElsewhere = event.target.closest?.("input, select, textarea, [tabindex='0']");
    const isPlain = !event.ctrlKey && !event.altKey && !event.metaKey && !event.shiftKey;
    // keys of clickers, too
    const by = { ArrowLeft: -1, PageUp: -1, ArrowRight: 1, PageDown: 1 }[event.key];
    const to = { Home: 1, End: Infinity }[event.key];
    if (!isPlain || isElsewhere || !isOnAir() || !(by || to)) {
        return;
    }
    event.preventDefault();
    if (by) {
        turn(by);
    } else {
        turnTo(Math.min(to, view.module.status().titles.length));
    }
});
// peers learn at once that this tab goes
addEventListener("pagehide", () => {
    view.screen?.end();
    view.camera?.end();
    view.member?.end();
});
setInterval(() => view.member && draw(), LOOK);

const link = takeLink();
$("token").value = link.token;
$("call").value = `presenter-${random(3).toLowerCase()}`;
view.store = await PresentStore.open();
const kept = await keptVisit();
if (kept.problem) {
    problem(kept.problem);
}
await attempt(begin);
view.member || focusFirst(document.querySelector("main"));

async function attempt(what) {
    try {
        problem(null);
        await what();
    } catch (error) {
        problem(error.message);
    }
}

/** As before a reload, or at the door. */
async function begin() {
    view.module = await Presenter.load(doing());
    const before = await view.store.lecture(keptPresented() ?? "");
    if (!before || !kept.visit) {
        return toDoor();
    }
    await openLecture(before);
    return goOnAir();
}

/** Requests of the module to this page. */
function doing() {
    const join = (group) => {
        view.groups.add(group);
        view.member?.join(group);
    };
    const leave = (group) => {
        view.groups.delete(group);
        view.member?.leave(group);
    };
    return { join, leave, send, records: keep, change: () => soon() };
}

function send(group, port, data) {
    try {
        view.member?.send(group, port, data);
    } catch (error) {
        view.loss = `${error.message} What gets lost is asked for again.`;
        notice(view.loss);
    }
}

/** Entries are on disk before anybody gets them. */
async function keep(turn, records) {
    const { module, lecture, store } = view;
    const could = store.database !== null;
    try {
        await store.keep(lecture.name, records);
    } catch (error) {
        await leave();
        problem(`This browser’s store fails: ${error.message}. Nothing more is sent, so that this key stays good. Save slides and key, and present from somewhere else.`);
        return;
    }
    if (could && store.why) {
        notice(keepsNothing());
    }
    module.kept(turn);
}

function keepsNothing() {
    return `This browser keeps nothing of this lecture: ${view.store.why}. A reload ends it, and a new one has another link. Save the slides.`;
}

// --- lectures ---

function step(name) {
    document.body.dataset.step = name;
    $("choose").hidden = name !== "door";
    $("editor").hidden = name !== "prepare";
    $("live").hidden = name !== "live";
    $("tools").hidden = name !== "live";
    $("publish").hidden = name !== "live";
    for (const id of ["air", "settings"]) {
        $(id).hidden = name !== "prepare";
    }
}

async function toDoor() {
    await saved();
    view.store.giveBack();
    Object.assign(view, { lecture: null, text: null });
    keepPresented(null);
    const lectures = await view.store.lectures();
    $("kept").hidden = lectures.length === 0;
    fill($("lectures"), lectures.map(row));
    say($("title"), "Present a lecture");
    document.title = "Present a lecture";
    if (view.store.why) {
        notice(`This browser keeps no lectures: ${view.store.why}.`);
    }
    step("door");
}

function row(lecture) {
    const title = lecture.title || "A lecture without a title";
    const [open, remove] = [html("button", { type: "button", class: "primary" }, "Open"), html("button", { type: "button" }, "Remove")];
    open.setAttribute("aria-label", `Open: ${title}`);
    remove.setAttribute("aria-label", `Remove: ${title}`);
    open.addEventListener("click", () => attempt(() => openLecture(lecture)));
    remove.addEventListener("click", () => attempt(() => removeLecture(lecture, remove)));
    const when = new Date(lecture.changed).toLocaleDateString(undefined, { dateStyle: "medium" });
    return html("li", {}, html("span", {}, html("b", { dir: "auto" }, title), html("small", {}, when)), html("span", { class: "buttons" }, open, remove));
}

/** The second click does it. */
async function removeLecture(lecture, button) {
    if (button.dataset.sure) {
        await view.store.take(lecture.name);
        await view.store.remove(lecture.name);
        await toDoor();
        $("create").focus();
        return;
    }
    button.dataset.sure = true;
    button.textContent = "Remove its key, too";
    button.setAttribute("aria-label", `Remove key, slides and entries of: ${lecture.title}`);
}

async function openKey() {
    const [file] = $("key").files;
    $("key").value = "";
    const bytes = new Uint8Array(await file.slice(0, KEY + 1).arrayBuffer());
    if (bytes.length !== KEY) {
        throw new Error("This file is no key: `lcstudio keygen` makes one, and so does this page.");
    }
    if (view.store.why) {
        throw new Error(`A key that goes on needs a browser that keeps what was sent with it. This one keeps nothing: ${view.store.why}.`);
    }
    await create(bytes);
}

/** A lecture with this key, or the one that it has already. */
async function create(key) {
    const { name } = view.module.session(key);
    const lecture = { name, key, title: "", presenter: "", languages: navigator.language.split("-")[0], notes: false, slides: SLIDES, changed: Date.now() };
    const known = await view.store.lecture(name);
    await openLecture(known ?? lecture);
    await view.store.put(view.lecture);
    // a prompt of some browsers only; without it they remove stored data when they need room
    navigator.storage?.persist?.().catch(() => {});
}

async function openLecture(lecture) {
    await view.store.take(lecture.name);
    view.lecture = lecture;
    view.text = view.module.session(lecture.key).text;
    view.files = await view.store.files(lecture.name);
    shownPictures.forget();
    for (const [id, value] of Object.entries({ lecture: lecture.title, presenter: lecture.presenter, languages: lecture.languages, writers: lecture.captions ?? "", text: lecture.slides, "screen-words": lecture.screenWords ?? "", "camera-words": lecture.cameraWords ?? "" })) {
        $(id).value = value;
    }
    lintScreen();
    $("writers").closest("details").open = Boolean(lecture.captions);
    $("notes").checked = lecture.notes;
    $("membership").hidden = Boolean(kept.visit);
    $("go").dataset.sure = false;
    showToken();
    say($("where-kept"), view.store.why ? keepsNothing() : "Kept in this browser until you remove it: the key, slides, the token, and what was sent. Whoever serves this page, and who uses this browser, could take the key.");
    step("prepare");
    preview();
    $("lecture").focus({ preventScroll: true });
}

/** A token that is kept is used again, and can be forgotten. */
function showToken() {
    const isKept = Boolean(view.lecture?.token) && !view.store.why;
    $("kept-token").hidden = $("forget-token").hidden = $("forget-token-now").hidden = !isKept;
}

/** This tab stays a member as long as it is open. */
async function forgetToken() {
    $("token").value = "";
    view.lecture = { ...view.lecture, token: null };
    await view.store.put(view.lecture);
    showToken();
    notice("The token is forgotten. Once this tab is closed, you need one to go on air.");
    $(isOnAir() ? "slide" : "token").focus({ preventScroll: true });
}

// --- writing ---

function typed() {
    clearTimeout(view.typing);
    // a notice about something else stays
    view.typing = setTimeout(() => saved().catch((error) => problem(error.message)), TYPING);
    soonPreview();
}

/** Typed text is stored. */
async function saved() {
    clearTimeout(view.typing);
    if (!view.lecture) {
        return;
    }
    // nothing was ever written here: writers named by a terminal that presented with this key still may
    const captions = $("writers").value.trim() || typeof view.lecture.captions === "string" ? $("writers").value : null;
    const settings = { title: $("lecture").value.trim(), presenter: $("presenter").value.trim(), languages: $("languages").value, captions, notes: $("notes").checked, screenWords: $("screen-words").value, cameraWords: $("camera-words").value };
    view.lecture = { ...view.lecture, ...settings, slides: $("text").value };
    await view.store.put(view.lecture);
}

function soonPreview() {
    view.previewing ??= setTimeout(() => {
        view.previewing = null;
        preview();
    }, TYPING);
}

function preview() {
    const { value, selectionStart } = $("text");
    const line = value.slice(0, selectionStart).split("\n").length;
    const { slides, problems, shown, refused, pictures } = view.module.preview(value, line);
    const missing = pictures.filter(([, name]) => !view.files.has(fileOf(name)));
    const all = [...problems, ...missing.map(([at, name]) => [at, `picture ${name}: add its file, or others get its words alone`])];
    const said = [...(refused ? [refused] : []), ...all.sort(([a], [b]) => a - b).map(([at, why]) => `Line ${at}: ${why}`)];
    const wanted = JSON.stringify(said);
    if ($("problems").dataset.said !== wanted) {
        $("problems").dataset.said = wanted;
        fill($("problems"), said.map((words) => html("li", { dir: "auto" }, words)));
    }
    say($("which"), shown ? `slide ${shown.number} of ${slides}` : "");
    $("seen").lang = language();
    showNotes("seen-notes", shown);
    fill($("seen"), shown ? elements(shown.html, own(shown)) : [html("p", { class: "hint" }, "There are no slides yet.")]);
    showPublish();
    showGo();
}

/** The slide's comments, for the presenter. */
function showNotes(id, slide) {
    $(id).hidden = !slide?.notes;
    $(`${id}-text`).textContent = slide?.notes ?? "";
}

function showPublish() {
    const isSame = $("text").value === view.sent;
    $("publish").setAttribute("aria-disabled", String(isSame));
    say($("published"), isSame ? "These slides are on air." : "Those before are on air still.");
    $("published").hidden = !isOnAir();
}

/** The first language, as far as it is known. */
function language() {
    return $("languages").value.trim().split(/[\s,;]+/)[0];
}

async function openSlides() {
    const [file] = $("file").files;
    $("file").value = "";
    if (file.size > MAX_SLIDES_FILE) {
        throw new Error(`${file.name} has ${file.size} bytes: these are no slides.`);
    }
    $("text").value = await file.text();
    $("text").setSelectionRange(0, 0);
    preview();
    await saved();
}

// --- pictures ---

/** The name of a picture's file: slides have its path, and a browser shows no folders. */
function fileOf(name) {
    const file = name.split("/").at(-1);
    try {
        return decodeURIComponent(file);
    } catch {
        return file;
    }
}

/** Elements of a slide that is written here. */
function own({ pictures }) {
    return shownPictures.of({ pictures: pictures.map((name) => ({ id: fileOf(name) })) });
}

async function addPictures() {
    const [files, refused] = [[...$("images").files], []];
    $("images").value = "";
    for (const file of files) {
        const bytes = new Uint8Array(await file.slice(0, MAX_PICTURE_FILE).arrayBuffer());
        const why = view.module.pictureProblem(bytes);
        if (why) {
            refused.push(`${file.name}: ${why}.`);
            continue;
        }
        view.files.set(file.name, bytes);
        if (!(await view.store.keepFile(view.lecture.name, file.name, bytes))) {
            notice("This browser keeps no pictures: after a reload, add them again.");
        }
    }
    shownPictures.forget();
    view.drawn = null;
    preview();
    if (isOnAir()) {
        givePictures();
        draw();
    }
    if (refused.length > 0) {
        throw new Error(refused.join(" "));
    }
}

/** Pictures that the slides name which all have, and that the module does not have yet. */
function givePictures() {
    for (const [, name] of view.module.preview(view.sent, 1).pictures) {
        const bytes = view.files.get(fileOf(name));
        if (bytes && view.given.get(name) !== bytes) {
            view.module.picture(name, bytes);
            view.given.set(name, bytes);
        }
    }
}

function showPictures({ pictures: { named, whole }, left_out: out }) {
    const sent = named === 0 ? "" : `Pictures: ${whole} of ${named} are sent.`;
    say($("pictures"), out.length === 0 ? sent : `${sent} No room for ${out.join(", ")}: others get their words.`.replaceAll("`", "'"));
}

function save(content, type, name) {
    const url = URL.createObjectURL(new Blob([content], { type }));
    html("a", { href: url, download: name }).click();
    setTimeout(() => URL.revokeObjectURL(url), LOOK);
}

async function publish() {
    if ($("text").value === view.sent) {
        return;
    }
    view.module.slides($("text").value);
    view.sent = $("text").value;
    givePictures();
    showPublish();
    await saved();
}

function edit(isOpen) {
    $("editor").hidden = !isOpen;
    $("edit").setAttribute("aria-expanded", String(isOpen));
    if (isOpen) {
        preview();
        $("text").focus();
    }
}

// --- on air ---

/** Slides that nobody wrote need a second click. */
function askAboutExample() {
    const isAsked = $("go").dataset.sure === "true";
    $("go").dataset.sure = true;
    showGo();
    if (isExample() && !isAsked) {
        throw new Error("These slides are still the example of this page. Write your own, or go on air with the example.");
    }
}

function isExample() {
    return $("text").value === SLIDES;
}

function showGo() {
    say($("go"), isExample() && $("go").dataset.sure === "true" ? "Go on air with the example" : "Go on air");
}

function isOnAir() {
    return view.member !== null;
}

async function goOnAir() {
    await saved();
    const typed = $("token").value.trim();
    const token = typed || (kept.visit ? "" : (view.lecture.token ?? ""));
    if (!kept.visit && !token) {
        $("token").focus();
        throw new Error("A token is missing: this tab is no member of a network yet.");
    }
    if (!view.lecture.title) {
        $("lecture").focus();
        throw new Error("What is the lecture called? Its title is missing.");
    }
    const visit = token ? undefined : kept.visit;
    const start = { token: token || undefined, visit, name: visit ? "" : $("call").value.trim(), key: random(32), seed: random(32), incarnation: Math.floor(Date.now() / 1000), report: false };
    const hear = { datagram: ({ bytes }) => datagram(bytes), sealed: () => {}, keep: keepVisit, change: () => {} };
    const records = await view.store.records(view.lecture.name);
    // faults of the lecture come first
    view.module.open(view.lecture.key, view.lecture, records);
    try {
        view.member = await Member.begin(start, hear);
        if (view.member.isLeaf) {
            view.member.end();
            view.member = null;
            forgetVisit();
            throw new Error("This token is for leaves, which only listen: to present, this tab needs one for members.");
        }
    } catch (error) {
        view.module = await Presenter.load(doing());
        if (visit) {
            forgetVisit();
            kept.visit = null;
            $("membership").hidden = false;
        }
        throw error;
    }
    if (token) {
        view.lecture = { ...view.lecture, token: token.match(/lct1[A-Za-z0-9]*/)?.[0] ?? null };
        await view.store.put(view.lecture);
    }
    $("token").value = "";
    showToken();
    view.sent = view.lecture.slides;
    view.begun = performance.now();
    view.given.clear();
    givePictures();
    keepPresented(view.lecture.name);
    if (view.store.why) {
        notice(keepsNothing());
    }
    step("live");
    view.module.run();
    draw();
    $("slide").focus({ preventScroll: true });
}

function datagram(bytes) {
    if (isOnAir()) {
        view.module.datagram(bytes);
        view.voice?.datagram(bytes);
    }
}

// --- sound ---

/** In the language of captions that is chosen. */
async function speak() {
    const spoken = $("language").value || "en";
    const { title, presenter } = view.lecture;
    $("microphone").disabled = true;
    try {
        const key = view.module.stationKey(spoken);
        view.voice = await Voice.begin(view.member, key, { name: presenter || title, title }, (why) => endVoice(why));
        view.module.station(spoken, view.voice.station);
    } finally {
        $("microphone").disabled = false;
        showVoice();
    }
}

function mute(isMuted) {
    view.voice.talks = !isMuted;
    $("mute").setAttribute("aria-pressed", String(isMuted));
    showVoice();
}

/** `why`: the fault, if there is one. */
function endVoice(why = null) {
    view.voice?.end();
    view.voice = null;
    $("mute").setAttribute("aria-pressed", "false");
    showVoice();
    problem(why);
}

function showVoice() {
    if (view.voice?.isSuperseded) {
        endVoice("Another one casts this sound with the same key, and began later: this one has ended.");
        return;
    }
    const isMuted = $("mute").getAttribute("aria-pressed") === "true";
    say($("microphone"), view.voice ? "Microphone off" : "Microphone on");
    $("mute").hidden = $("loud").hidden = !view.voice;
    say($("voice-state"), view.voice ? (isMuted ? "Listeners hear silence." : "Listeners hear you.") : "Nobody hears you.");
}

// --- screen ---

async function showScreen() {
    $("screen").disabled = true;
    try {
        const shown = await Shown.begin(view.module, $("screen-seen"), (why) => endScreen(why));
        // the browser may have ended it already
        view.screen = shown.isOn ? shown : null;
        view.module.describe("screen", $("screen-words").value);
    } finally {
        $("screen").disabled = false;
        draw();
    }
}

function lintScreen() {
    $("screen-lint").hidden = $("screen-words").value.trim() !== "";
}

/** Of the track `screen` or `camera`, while it is on air. */
async function describe(track) {
    if (view[track]) {
        view.module.describe(track, $(`${track}-words`).value);
    }
    await saved();
}

/** `why`: the fault, if there is one. */
function endScreen(why = null) {
    view.screen?.end();
    view.screen = null;
    showScreenState(null, []);
    problem(why);
}

/** `status`: of the screen on air, or null. */
function showScreenState(status, carried) {
    const isOn = view.screen !== null;
    showOnAir();
    $("screen-seen").hidden = !isOn;
    say($("screen"), isOn ? "Stop showing it" : "Show my screen");
    say($("screen-state"), isOn ? screenWords(status, carried) : "Nobody sees your screen.");
}

function screenWords(status, carried) {
    if (!status?.size) {
        return "Waiting for the first picture of it.";
    }
    if (status.too_long) {
        return "It is too much to be sent: all see the picture before. It is tried again.";
    }
    const isSeen = carried.some(({ group, links }) => links.length > 0 && group === status.group);
    const [width, height] = status.size;
    const sharp = status.exact ? "each pixel as it is" : "with losses until it rests";
    return `${isSeen ? "Somebody sees it" : "Nobody sees it yet"}: ${width} × ${height} pixels, ${sharp}, ${Math.ceil(status.bytes / 1000)} kB so far.`;
}

/** What all may see beside the slides is said all the time. */
function showOnAir() {
    const on = ["screen", "camera"].filter((track) => view[track] !== null);
    const words = on.join(" and ");
    $("on-air").hidden = on.length === 0;
    $("screen-stop").hidden = view.screen === null;
    $("camera-stop").hidden = view.camera === null;
    say($("on-air-words"), words ? `On air: ${words}` : "");
    document.title = words ? `● ${words[0].toUpperCase()}${words.slice(1)} on air: ${view.lecture.title}` : (view.lecture?.title ?? document.title);
}

// --- camera ---

async function showCamera() {
    $("camera").disabled = true;
    try {
        const filmed = await Filmed.begin(view.module, $("camera-seen"), (why) => endCamera(why));
        // it may have ended already
        view.camera = filmed.isOn ? filmed : null;
        view.module.describe("camera", $("camera-words").value);
    } finally {
        $("camera").disabled = false;
        draw();
    }
}

/** `why`: the fault, if there is one. */
function endCamera(why = null) {
    view.camera?.end();
    view.camera = null;
    showCameraState(null, []);
    problem(why);
}

/** `status`: of the camera on air, or null. */
function showCameraState(status, carried) {
    const isOn = view.camera !== null;
    const isJoined = (wanted) => carried.some(({ group, links }) => links.length > 0 && group === wanted);
    const isLarge = isJoined(status?.large);
    showOnAir();
    $("camera-seen").hidden = !isOn;
    say($("camera"), isOn ? "Camera off" : "Camera on");
    if (isOn && status) {
        view.camera.isLargeWanted = isLarge;
    }
    const seen = isLarge ? "Somebody sees it, in the large picture" : isJoined(status?.group) ? "Somebody sees it" : "Nobody sees it yet";
    say($("camera-state"), isOn ? `${seen}.` : "Nobody sees your camera.");
}

/** No member any more; another module, as this one has left its groups for good. */
async function leave() {
    endVoice();
    endScreen();
    endCamera();
    view.module.leave();
    view.member?.end();
    forgetVisit();
    kept.visit = null;
    view.groups.clear();
    showToken();
    Object.assign(view, { member: null, sent: null, drawn: null, module: await Presenter.load(doing()) });
    $("membership").hidden = false;
    state("starting", "not on air");
    keepPresented(null);
    if (view.store.why) {
        renew();
    }
    edit(false);
    step("prepare");
    preview();
}

/** Nothing of this key's entries was stored: it must not be used again. */
function renew() {
    const key = crypto.getRandomValues(new Uint8Array(KEY));
    const { text, name } = view.module.session(key);
    Object.assign(view, { text, lecture: { ...view.lecture, key, name } });
    notice("This browser has kept nothing of it: the same slides are a new lecture now, with another link.");
}

async function endOrGoOn() {
    const { state: now } = view.module.status();
    if (now === "ended") {
        view.module.resume();
    } else {
        endVoice();
        endScreen();
        endCamera();
        view.module.end();
    }
    draw();
}

function turn(by) {
    turnTo(view.module.status().shown + by);
}

function turnTo(number) {
    const { titles } = view.module.status();
    if (isLive() && number >= 1 && number <= titles.length) {
        view.module.turn(number);
        draw();
    }
}

/** Nobody turns before there is something to turn. */
function isLive() {
    return isOnAir() && view.module.status().state === "live";
}

function caption() {
    const words = $("words").value.trim();
    if (words) {
        view.module.caption($("language").value, words);
        $("words").value = "";
    }
}

// --- drawing ---

function soon() {
    view.timer ??= setTimeout(() => {
        view.timer = null;
        draw();
    }, TOGETHER);
}

function draw() {
    if (!isOnAir()) {
        return;
    }
    const network = view.member.status();
    if (network.peers.some((peer) => peer.state === "connected")) {
        view.module.connect();
        // a link is back; other notices stay
        if (view.loss && $("notice").textContent === view.loss.replaceAll("`", "")) {
            notice(null);
        }
        view.loss = null;
    }
    const status = view.module.status();
    if (network.state === "expelled" || status.state === "failed") {
        const why = status.failed ?? "This tab was expelled from the network: it needs a new token.";
        attempt(leave).then(() => problem(why[0].toUpperCase() + why.slice(1)));
        return;
    }
    say($("title"), view.lecture.title.replaceAll("`", "'"));
    showScreenState(status.screen, network.carried);
    showCameraState(status.camera, network.carried);
    showState(network, status);
    showListeners(network, status);
    showClock();
    showSlide(status);
    showLines(status);
    showPictures(status);
    showQuestions(status);
    showShare();
    showVoice();
    showPublish();
    $("voice-card").hidden = $("screen-card").hidden = $("camera-card").hidden = status.state !== "live";
    say($("end"), status.state === "ended" ? "Go on" : "End the lecture");
}

function showState(network, { state: lecture, waiting }) {
    const up = network.peers.filter((peer) => peer.state === "connected").length;
    const refused = network.peers.find((peer) => peer.state === "refused");
    const isServed = network.servers.some((server) => server.connected);
    const nodes = `${up} ${up === 1 ? "link" : "links"}`;
    const words = {
        starting: "asking others what was presented before",
        live: waiting > MANY ? `on air, ${waiting} entries on their way` : up > 0 ? `on air, ${nodes}` : "on air, and nobody is there yet",
        ended: "ended; who comes late gets it while this tab is open",
    };
    if (up > 0 || lecture !== "starting") {
        state(lecture === "live" && up > 0 ? "connected" : "starting", words[lecture]);
    } else {
        const lonely = refused ? `refused: ${refused.reason}` : isServed ? "alone so far: no other node is there" : unanswered(network.isAsking);
        state("starting", network.peers.length > 0 && !refused ? "making links" : lonely);
    }
}

/** Nodes report over a link that it has listeners beyond, and neither their names nor their number. */
function showListeners({ carried }, { state: lecture }) {
    const isHeard = carried.some(({ group, links }) => links.length > 0 && view.groups.has(group));
    const words = isHeard ? "Somebody listens, or keeps the lecture. How many is not known: nobody learns who attends." : performance.now() - view.begun < KNOWN ? "Looking for listeners." : "Nobody listens yet.";
    say($("listeners"), lecture === "starting" ? "" : words);
}

/** The time of day, and how long this has been on air. */
function showClock() {
    const seconds = Math.floor((performance.now() - view.begun) / 1000);
    const [hours, minutes, rest] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60, seconds % 60];
    const on = [...(hours ? [hours] : []), minutes, rest].map((part) => String(part).padStart(2, "0")).join(":");
    const time = new Date().toLocaleTimeString(undefined, { hour: "2-digit", minute: "2-digit" });
    say($("clock"), `${time}, on air for ${on}`);
}

function showSlide({ shown, titles, state: lecture }) {
    const slide = view.module.slide(shown);
    const wanted = JSON.stringify(titles);
    if ($("number").dataset.titles !== wanted) {
        $("number").dataset.titles = wanted;
        fill($("number"), titles.map((title, i) => html("option", { value: i + 1 }, `${i + 1}${title ? ` · ${title}` : ""}`)));
    }
    $("number").value = shown;
    $("number").disabled = titles.length === 0 || lecture !== "live";
    // a button that has the focus stays one
    $("before").setAttribute("aria-disabled", String(lecture !== "live" || shown <= 1));
    $("after").setAttribute("aria-disabled", String(lecture !== "live" || shown >= titles.length));
    say($("where"), titles.length > 0 ? `of ${titles.length}; arrow keys turn` : "");
    const next = titles[shown];
    say($("next"), (next === undefined ? "This is the last slide." : `Next: ${next || "a slide without a title"}`).replaceAll("`", "'"));
    const upcoming = next === undefined ? null : view.module.slide(shown + 1);
    const isAsking = lecture === "starting";
    const key = JSON.stringify([shown, slide?.html, upcoming?.html, slide?.notes, isAsking]);
    if (key === view.drawn) {
        return;
    }
    view.drawn = key;
    const hadFocus = $("slide").contains(document.activeElement);
    $("slide").lang = slide ? language() : "en";
    $("slide").setAttribute("aria-label", slide ? `Slide ${shown} of ${titles.length}` : "No slide");
    fill($("slide"), slide ? elements(slide.html, own(slide)) : [html("p", { class: "hint" }, isAsking ? "Asking others for the slides." : "There are no slides yet: write some with “Edit slides”.")]);
    showNotes("own-notes", slide);
    $("upcoming").hidden = !upcoming;
    fill($("upcoming"), upcoming ? elements(upcoming.html, own(upcoming)) : []);
    if (hadFocus) {
        $("slide").focus({ preventScroll: true });
    }
    if (slide) {
        say($("announce"), `Slide ${shown} of ${titles.length}: ${slide.title}`.replaceAll("`", "'"));
    }
}

function showLines({ languages }) {
    $("say-card").hidden = languages.length === 0;
    if ($("language").options.length !== languages.length) {
        fill($("language"), languages.map((tag) => html("option", { value: tag }, tag)));
    }
    $("language").hidden = languages.length < 2;
    const { lines } = view.module.captions(LINES);
    const wanted = JSON.stringify(lines);
    if ($("lines").dataset.lines !== wanted) {
        $("lines").dataset.lines = wanted;
        const tag = (line) => (languages.length > 1 ? [html("span", { class: "tag" }, line.language), " "] : []);
        fill($("lines"), lines.map((line) => html("li", { dir: "auto", lang: line.language }, ...tag(line), line.text)));
    }
}

function showQuestions({ questions }) {
    $("no-question").hidden = questions.length > 0;
    const known = $("asked").children;
    // the oldest are forgotten where there are very many
    if (known.length > 0 && known[0].dataset.asked !== JSON.stringify([questions[0]?.name, questions[0]?.text])) {
        fill($("asked"), []);
    }
    questions.slice(known.length).forEach((question) => $("asked").append(asked(question)));
    questions.forEach(({ taken }, at) => {
        const button = known[at].querySelector("button");
        const words = taken ? "All see it" : "Take up";
        button.setAttribute("aria-disabled", String(taken));
        button.setAttribute("aria-label", `${words}: ${questions[at].text}`);
        say(button, words);
    });
}

function asked({ number, name, text }) {
    const button = html("button", { type: "button" });
    button.addEventListener("click", () => button.getAttribute("aria-disabled") !== "true" && attempt(() => view.module.takeUp(number)));
    const words = html("p", { dir: "auto" }, ...(name ? [html("b", {}, `${name}: `)] : []), text);
    return html("li", { "data-asked": JSON.stringify([name, text]) }, words, button);
}

function showShare() {
    share.value = linkTo([view.lecture.token, view.text].filter(Boolean).join(","));
    facts($("texts"), [
        ["Link for members", linkTo(view.text), true],
        ...(view.lecture.token ? [["Link for others", linkTo(`${view.lecture.token},${view.text}`), true]] : []),
        ["Session, for terminals", view.text, true],
    ]);
}

function linkTo(hash) {
    // the page that browsers keep, for a lecture without a network
    const address = new URL("./", location.href);
    address.hash = hash;
    return address.href;
}
