// The page of a lecture: this tab becomes a member, joins the tracks that its reader chooses, and renders them as he likes. Slides,
// captions, names come from others: they are shown as text, or as the few elements of slide.js.

import { Awake } from "../common/awake.js";
import { focusFirst, sendByEnter } from "../common/enter.js";
import { fill, html, say } from "../common/html.js";
import { onMediaKeys, showMedia } from "../common/media.js";
import { notice, problem, state, unanswered } from "../common/standing.js";
import { Member } from "../node/member.js";
import { forgetVisit, keepStudio, keepVisit, keptStudio, keptVisit, random, takeLink } from "../node/visit.js";
import { Camera, wantCamera, wantsCamera, wantsLarge } from "./camera.js";
import { Captions } from "./captions.js";
import { Looks } from "./looks.js";
import { Studio } from "./module.js";
import { Notes } from "./notes.js";
import { Pictures, wantPictures, wantsPictures } from "./pictures.js";
import { Screen, wantScreen, wantsScreen } from "./screen.js";
import { elements } from "./slide.js";
import { Sound } from "./sound.js";
import { Voice } from "./voice.js";

/** How often the network is looked at, in milliseconds. */
const LOOK = 1000;
/** Time within which changes are drawn together, in milliseconds. */
const TOGETHER = 30;
/** Within this time after the first word of a lecture its slides show, if there are some, in milliseconds. Chosen. */
const SLIDES = 3000;
/** Silence after which the page shows reasons and remedies, in milliseconds. */
const HINT_AFTER = 2000;
/** Longest silence of a session's holders, in milliseconds: they send heads each minute (librecast-log). */
const SILENCE = 150_000;

/** Tracks that are more than text. */
const CHOOSE = { audio: hear, notes: chooseNotes, pictures: choosePictures, screen: chooseScreen, camera: chooseCamera };
/** Where holders answer leaves. */
const HISTORY = "ff1e:7571:";
/** Parts of the stage, each with the element that has the focus once the part is large. */
const PARTS = { screen: "screen-view", stage: "slide", camera: "camera-pause" };
/** Names of tracks. */
const KINDS = { slides: "Slides", pictures: "Pictures", screen: "Screen", camera: "Camera", questions: "Questions", notes: "Notes", captions: "Captions", audio: "Sound" };

const $ = (id) => document.getElementById(id);
const names = new Intl.DisplayNames(navigator.languages, { type: "language" });
const voice = new Voice();
const captions = new Captions();
/**
 * `own`: the reader's slide, unless he follows the presenter; `large`: the part of the stage that he chose; `heard`: the last time that others were heard; `alone`: the time since
 * which there is no link; `warned`: the notice about that; `asked`: whether a question's receipt is awaited; `lost`: the
 * last question without one.
 */
const view = { member: null, studio: null, notes: null, sound: null, pictures: null, screen: null, camera: null, own: null, large: null, drawn: null, read: null, since: 0, session: null, heard: null, alone: null, warned: null, asked: false, lost: null };
const awake = new Awake(() => view.studio !== null);
let chosen = {};
new Looks((now) => {
    const before = chosen;
    chosen = { ...now };
    $("log").setAttribute("aria-live", now.announced ? "polite" : "off");
    $("log").hidden = now.place === "single";
    $("single").hidden = now.place !== "single";
    captions.follow();
    if ((before.readSlides && !now.readSlides) || (before.readCaptions && !now.readCaptions)) {
        voice.stop();
    }
    showVoices();
});

$("become").addEventListener("submit", (event) => {
    event.preventDefault();
    const session = $("session").value.match(/lcs1[A-Za-z0-9]*/)?.[0] ?? $("session").value.trim();
    begin({ token: $("token").value, name: $("call").value.trim(), session, tracks: null });
});
sendByEnter($("become"));
$("before").addEventListener("click", () => move(-1));
$("after").addEventListener("click", () => move(1));
$("number").addEventListener("change", () => go(Number($("number").value)));
$("return").addEventListener("click", () => {
    go(null);
    $("slide").focus({ preventScroll: true });
});
$("earlier").addEventListener("click", () => {
    captions.extend();
    draw();
});
$("ask").addEventListener("submit", (event) => {
    event.preventDefault();
    ask();
});
$("hear").addEventListener("click", () => {
    const audio = view.studio?.status().tracks.find(({ kind }) => kind === "audio");
    audio && hear(audio.name, !audio.chosen);
});
$("see").addEventListener("click", () => {
    const screen = view.studio?.status().tracks.find(({ kind }) => kind === "screen");
    screen && chooseScreen(screen.name, !screen.chosen);
});
$("watch").addEventListener("click", () => {
    const camera = view.studio?.status().tracks.find(({ kind }) => kind === "camera");
    camera && chooseCamera(camera.name, !camera.chosen);
});
document.querySelectorAll("[data-enlarge]").forEach((button) => {
    button.addEventListener("click", () => {
        view.large = button.dataset.enlarge;
        showParts();
        $(PARTS[view.large]).focus({ preventScroll: true });
    });
});
$("volume").addEventListener("input", () => view.sound && (view.sound.volume = Number($("volume").value) / 100));
$("save").addEventListener("click", saveNotes);
$("forget").addEventListener("click", () => view.notes?.forget());
$("leave").addEventListener("click", () => {
    forgetVisit();
    leave();
    notice("You have left the network.");
});
document.querySelectorAll("[data-panel]").forEach((button) => button.addEventListener("click", () => open(button.dataset.panel)));
document.querySelectorAll("[data-close]").forEach((button) => button.addEventListener("click", () => close(button.dataset.close)));
addEventListener("keydown", (event) => {
    const isElsewhere = event.target.closest?.("input, select, textarea, [tabindex='0']");
    const by = { ArrowLeft: -1, PageUp: -1, ArrowRight: 1, PageDown: 1 }[event.key];
    const isPlain = !event.ctrlKey && !event.altKey && !event.metaKey && !event.shiftKey;
    if (event.key === "Escape" && !$("panel").hidden) {
        close([...$("panel").children].find((panel) => !panel.hidden)?.id);
    } else if (by && isPlain && view.studio && !isElsewhere && event.key.startsWith("Arrow")) {
        event.preventDefault();
        move(by);
    }
});
onMediaKeys({ pause: () => silence(), stop: () => silence() });
// peers learn at once that this tab goes
addEventListener("pagehide", () => view.member?.end());
setInterval(() => view.studio && draw(), LOOK);

$("call").value = `studio-${random(3).toLowerCase()}`;
const link = takeLink();
const before = keptStudio();
$("token").value = link.token;
$("session").value = link.session ?? before.session ?? "";
if (link.session) {
    $("invited").hidden = false;
    $("door-details").open = !link.token;
}
const kept = await keptVisit();
if ((kept.visit || kept.leaf) && $("session").value) {
    const isSame = !link.session || link.session === before.session;
    await begin({ visit: kept.visit, token: kept.leaf, name: "", session: $("session").value, tracks: isSame ? (before.tracks ?? null) : null });
} else if (kept.problem) {
    problem(kept.problem);
} else if (kept.leaf) {
    $("token").value = kept.leaf;
} else if (kept.visit) {
    // a member already: only the session is missing
    $("token").required = false;
    $("token").closest("label").hidden = true;
    $("token-hint").hidden = true;
}
view.member || focusFirst($("become"));

// --- the member ---

async function begin({ token, visit = kept.visit, name, session, tracks }) {
    problem(null);
    notice(null);
    const start = { token: token || undefined, visit: token ? undefined : visit, name, key: random(32), seed: random(32), incarnation: Math.floor(Date.now() / 1000), report: false };
    const hear = { datagram: ({ bytes }) => datagram(bytes), sealed: () => {}, keep: keepVisit, change: () => {} };
    try {
        view.member = await Member.begin(start, hear);
        view.studio = await Studio.load({
            join,
            leave: (group) => view.member.leave(group),
            send,
            change: () => soon(),
            screen: (change) => view.screen?.add(change),
            camera: (frame) => view.camera?.add(frame),
        });
        // sound and notes begin by a click; other tracks are chosen again
        const wanted = tracks?.filter((track) => !track.startsWith("audio/") && track !== "notes") ?? null;
        const joins = { pictures: wantsPictures(), screen: wantsScreen(), camera: wantsCamera(), large: wantsLarge() };
        view.studio.open(session, wanted, joins, view.member.isLeaf);
        awake.keep();
        view.pictures = new Pictures((id) => view.studio.picture(id));
        view.notes = await Notes.begin(view.studio);
        view.screen = new Screen({
            pause: (isPaused) => {
                view.studio.pauseScreen(isPaused);
                draw();
            },
            reveal: showParts,
        });
        view.camera = new Camera({
            pause: (isPaused) => {
                view.studio.pauseCamera(isPaused);
                draw();
            },
            large: (isLarge) => {
                view.studio.wantLarge(isLarge);
                draw();
            },
            again: () => view.studio.tryCameraAgain(),
            reveal: showParts,
            leave: () => choose("camera", false),
            waiting: (frames, hasLost) => view.studio?.cameraWaiting(frames, hasLost),
        });
        view.studio.run();
    } catch (error) {
        view.member?.end();
        view.notes?.end();
        view.screen?.end();
        view.camera?.end();
        Object.assign(view, { member: null, studio: null, notes: null, screen: null, camera: null });
        forgetVisit();
        problem(error.message);
        return;
    }
    Object.assign(view, { session, since: performance.now(), own: null, drawn: null, read: null, heard: Date.now(), alone: null, warned: null });
    document.body.classList.toggle("leaf", view.member.isLeaf);
    // written text is not forgotten: it is to be sent
    view.wantsNotes = !view.member.isLeaf && (tracks?.includes("notes") ?? false) || view.notes.drafts.size > 0;
    $("token").value = "";
    show(true);
    draw();
}

function datagram(bytes) {
    view.heard = Date.now();
    view.studio?.datagram(bytes);
    view.sound?.datagram(bytes);
}

function join(group) {
    try {
        view.member.join(group);
    } catch (error) {
        // a leaf's token from before there were history groups covers none
        if (!view.member.isLeaf || !group.startsWith(HISTORY)) {
            throw error;
        }
    }
}

function send(group, port, data) {
    try {
        view.member.send(group, port, data);
    } catch (error) {
        // without an uplink a leaf cannot ask: missed entries come once another member asks for them
        view.member.isLeaf || warn(`${error.message} What gets lost cannot be asked for again.`);
    }
}

/** `why`: the fault, if there is one. */
function leave(why = null) {
    endSound();
    voice.stop();
    view.notes?.end();
    view.studio?.end();
    view.member?.end();
    view.pictures?.forget();
    view.screen?.end();
    view.camera?.end();
    Object.assign(view, { member: null, studio: null, notes: null, pictures: null, screen: null, camera: null, asked: false, lost: null });
    show(false);
    state("starting", "not a member of a network");
    awake.end();
    problem(why);
}

function show(isMember) {
    $("door").hidden = isMember;
    $("inside").hidden = !isMember;
    $("tools").hidden = !isMember;
    document.body.classList.toggle("attending", isMember);
    // where there is no mouse, the focus would bring up a keyboard
    if (!isMember && matchMedia("(pointer: fine)").matches) {
        $("token").focus({ preventScroll: true });
    } else if (isMember) {
        $("slide").focus({ preventScroll: true });
    }
}

/** State that a reload would lose. */
function remember(status) {
    // before the index is here nothing was chosen
    if (status.state !== "waiting") {
        const tracks = status.tracks.filter((track) => track.chosen && track.kind !== "turn").map(({ name }) => name);
        // a session names its pictures once it has one, and so its screen and camera: until then nobody dropped them
        const wanted = { pictures: wantsPictures(), screen: wantsScreen(), camera: wantsCamera() };
        const open = Object.keys(wanted).filter((name) => wanted[name] && !status.tracks.some(({ kind }) => kind === name));
        keepStudio({ session: view.session, tracks: [...tracks, ...open] });
    }
}

// --- panels ---

function open(id) {
    const isOpen = $(id).hidden;
    for (const panel of $("panel").children) {
        panel.hidden = panel.id !== id || !isOpen;
    }
    $("panel").hidden = !isOpen;
    document.querySelectorAll("[data-panel]").forEach((button) => button.setAttribute("aria-expanded", String(isOpen && button.dataset.panel === id)));
    if (isOpen) {
        // its title is read then
        $(id).querySelector("[data-close]").focus();
        if (id === "notes") {
            openNotes();
        }
    }
}

function close(id) {
    if (id && !$(id).hidden) {
        open(id);
        document.querySelector(`[data-panel=${id}]`).focus();
    }
}

// --- slides ---

/** The slide that is shown here: none, while there is none. */
function number(status) {
    return view.own === null ? status.shown : Math.min(view.own, status.slides);
}

function move(by) {
    const status = view.studio.status();
    const wanted = (number(status) ?? 0) + by;
    if (wanted >= 1 && wanted <= status.slides) {
        go(wanted);
    }
}

/** Goes to a slide of the reader's own, or back to the presenter's. */
function go(own) {
    view.own = own;
    draw();
}

function showSlide(network, status) {
    const at = number(status);
    const slide = at ? view.studio.slide(at) : null;
    const hasSlides = status.tracks.some((track) => track.kind === "slides" && track.chosen);
    const isNone = status.state !== "waiting" && !hasSlides;
    $("stage").hidden = $("turning").hidden = isNone;
    showWalk(status, at);
    const missing = slide ? [] : none(network, status);
    const key = JSON.stringify([at, slide?.html ?? missing, slide?.pictures]);
    if (key === view.drawn) {
        return;
    }
    view.drawn = key;
    const hadFocus = $("slide").contains(document.activeElement) && document.activeElement !== $("slide");
    $("slide").lang = slide ? (status.language ?? "") : "en";
    $("slide").setAttribute("aria-label", slide ? `Slide ${at} of ${status.slides}` : "No slide");
    fill($("slide"), slide ? elements(slide.html, view.pictures.of(slide)) : missing.map((words) => html("p", { class: "hint" }, words)));
    if (missing.length > 1) {
        say($("announce"), missing.join(" ").replaceAll("`", "'"));
    }
    if (hadFocus) {
        $("slide").focus({ preventScroll: true });
    }
    // a picture that has come is nothing to read again
    const read = JSON.stringify([at, slide?.text]);
    if (slide && read !== view.read) {
        view.read = read;
        say($("announce"), `Slide ${at} of ${status.slides}: ${slide.title}`.replaceAll("`", "'"));
        if (chosen.readSlides) {
            voice.readAnew(slide.text, status.language, chosen.rate);
        }
    }
}

/** The reason why there is no slide, and the remedy. */
function none(network, status) {
    if (status.state !== "waiting") {
        view.heardOf ??= performance.now();
        const isKnown = performance.now() - view.heardOf >= SLIDES;
        return [status.slides > 0 ? "Slides are coming" : isKnown ? "There are no slides yet." : "Looking for the slides"];
    }
    view.heardOf = null;
    return performance.now() - view.since < HINT_AFTER ? ["Waiting for the lecture"] : why(network);
}

function linked({ peers }) {
    return peers.filter((peer) => peer.state === "connected").length;
}

/** The reason why nothing comes, and the remedy. */
function why(network) {
    const { peers, servers } = network;
    const up = linked(network);
    if (up > 0) {
        return [
            `This tab is linked with ${up === 1 ? "one node" : `${up} nodes`}, and nobody there presents or holds this session.`,
            "It begins here by itself once somebody does. Ask who presents whether the lecture is on air, and whether this is its link.",
        ];
    }
    const refused = peers.find((peer) => peer.state === "refused");
    if (refused) {
        return [`Another node refuses this tab: ${refused.reason}.`, "Ask who sent you the link for another one."];
    }
    const isServed = servers.some((server) => server.connected);
    if (!isServed && network.isAsking) {
        return ["Asking a signalling server for other nodes.", "This tab goes on by itself once one answers."];
    }
    if (!isServed) {
        const all = servers.map(({ url, refused: reason }, number) => `${url}: ${reason ?? view.member.state(number)}`);
        return [
            `There is no link to any node: no signalling server of the token answers (${all.join(", ") || "it names none"}).`,
            "This tab tries again by itself. If that goes on, look whether you have a network, and ask who sent you the link whether the server runs.",
        ];
    }
    if (peers.length === 0) {
        return ["There is no link to any node: the signalling server answers, and no other node is there.", "It goes on by itself once one comes. Ask who sent you the link whether his node runs."];
    }
    return ["Other nodes are there, and there is no link to any of them yet.", "This tab tries again by itself. If that goes on, try another network: some let no such links through."];
}

/** A link is lost, or no holder is heard: shown after a while, and no longer once that is over. */
function showLoss(network, status) {
    const up = linked(network);
    view.alone = up > 0 ? null : (view.alone ?? performance.now());
    if (status.state !== "live") {
        return warn(null);
    }
    if (up === 0) {
        return performance.now() - view.alone >= HINT_AFTER && warn(`All links to other nodes are lost. ${why(network)[1]} What was shown stays.`);
    }
    if (Date.now() - view.heard >= SILENCE) {
        const time = new Date(view.heard).toLocaleTimeString(undefined, { hour: "2-digit", minute: "2-digit" });
        return warn(`Nobody who has this lecture was heard since ${time}: neither who presents nor others. What was shown stays, and it goes on by itself once somebody is heard. Ask who presents whether it is still on air.`);
    }
    return warn(null);
}

/** A notice of a loss; null: it is over, and other notices stay. */
function warn(words) {
    if (words === view.warned) {
        return;
    }
    if (words !== null || $("notice").textContent === view.warned?.replaceAll("`", "")) {
        notice(words);
    }
    view.warned = words;
}

function showWalk(status, at) {
    const { slides, shown } = status;
    const presenter = status.presenter || "the presenter";
    const titles = view.studio.titles();
    const wanted = JSON.stringify(titles);
    if ($("number").dataset.titles !== wanted) {
        $("number").dataset.titles = wanted;
        fill($("number"), titles.map((title, i) => html("option", { value: i + 1 }, `${i + 1}${title ? ` · ${title}` : ""}`)));
    }
    $("number").value = at ?? "";
    $("number").disabled = slides === 0;
    // a button that has the focus stays one
    $("before").setAttribute("aria-disabled", String(!at || at <= 1));
    $("after").setAttribute("aria-disabled", String(!at || at >= slides));
    const isAway = view.own !== null;
    say($("where"), slides === 0 ? "" : isAway ? `of ${slides}; you go your own way` : `of ${slides}; you follow ${presenter}`.replaceAll("`", "'"));
    $("return").hidden = !isAway;
    say($("return"), shown ? `Back to slide ${shown}` : "Follow again");
    $("stage").classList.toggle("away", isAway);
}

// --- the stage ---

/** Whether a part has something to show. */
function isHere(part) {
    return !$(part).hidden && !$(`${part}-view`)?.hidden;
}

/** One part is large: the reader's choice while it shows something, else the screen, or the slides. The others are small. */
function showParts() {
    const parts = Object.keys(PARTS);
    const large = [view.large, ...parts].find((part) => part && isHere(part)) ?? parts.find((part) => !$(part).hidden);
    for (const part of parts) {
        const isLarge = part === large;
        $(part).classList.toggle("large", isLarge);
        $(part).querySelector(".enlarge").hidden = isLarge;
        // a small part is for looking only
        $(part === "stage" ? "slide" : `${part}-view`).inert = !isLarge;
    }
    $("lecture").classList.toggle("several", parts.filter((part) => !$(part).hidden).length > 1);
}

// --- captions and questions ---

function showCaptions(status) {
    const languages = status.tracks.filter((track) => track.kind === "captions" && track.chosen).map(({ language }) => language);
    const shown = view.studio.captions(captions.most);
    $("said").hidden = languages.length === 0 && status.state !== "waiting";
    const isFirst = captions.items.size === 0;
    const fresh = captions.show(shown, languages);
    if (chosen.readCaptions && !isFirst) {
        fresh.forEach(({ text, speaker, language }) => voice.read(speaker ? `${speaker}: ${text}` : text, language, chosen.rate));
    }
}

function showQuestions(status) {
    const questions = view.studio.questions();
    const hasQuestions = status.tracks.some((track) => track.kind === "questions" && track.chosen);
    $("questions").hidden = questions.length === 0 || !hasQuestions;
    const known = $("asked").children.length;
    if (questions.length < known) {
        fill($("asked"), []);
    }
    questions.slice($("asked").children.length).forEach(({ name, text }) => {
        const item = html("li", { dir: "auto" }, ...(name ? [html("b", {}, `${name}: `)] : []), text);
        $("asked").append(item);
        say($("announce"), `Question${name ? ` by ${name}` : ""}: ${text}`.replaceAll("`", "'"));
    });
}

function ask() {
    try {
        problem(null);
        view.studio.ask($("asker").value.trim(), $("question").value.trim());
        $("question").value = "";
        view.asked = true;
        say($("sent"), "Being sent…");
    } catch (error) {
        say($("sent"), error.message);
    }
}

/** Says what became of the reader's questions: only their receipts tell that they were sent. */
function showSent({ asking, lost }) {
    if (lost !== view.lost && lost !== null) {
        $("question").value ||= lost;
        say($("sent"), "Who presents did not get your question within two minutes. It is in the field again.");
    } else if (view.asked && asking === 0 && lost === null) {
        say($("sent"), "Sent. Who presents has it.");
    }
    view.lost = lost;
    view.asked &&= asking > 0;
}

// --- tracks ---

function showTracks(status) {
    const tracks = status.tracks.filter(({ kind }) => kind !== "turn");
    const items = new Map([...$("all").children].map((item) => [item.dataset.track, item]));
    const shown = tracks.map((track) => {
        const item = items.get(track.name) ?? entry(track);
        const [box, words] = item.firstChild.children;
        // while the sound begins, its box is checked already
        box.checked = track.chosen;
        say(words.children[1], about(track));
        return item;
    });
    if (shown.length !== items.size || shown.some((item, at) => $("all").children[at] !== item)) {
        fill($("all"), shown);
    }
    $("sound").hidden = view.sound === null;
    const audio = tracks.find(({ kind }) => kind === "audio");
    $("hear").hidden = !audio;
    $("hear").setAttribute("aria-pressed", String(audio?.chosen === true));
    say($("hear"), audio?.chosen ? "Sound off" : "Sound on");
    const screen = tracks.find(({ kind }) => kind === "screen");
    $("see").hidden = !screen;
    $("see").setAttribute("aria-pressed", String(screen?.chosen === true));
    say($("see"), screen?.chosen ? "Screen off" : "Screen on");
    const camera = tracks.find(({ kind }) => kind === "camera");
    $("watch").hidden = !camera;
    $("watch").setAttribute("aria-pressed", String(camera?.chosen === true));
    say($("watch"), camera?.chosen ? "Camera off" : "Camera on");
}

function entry({ name, kind, language }) {
    const box = html("input", { type: "checkbox" });
    const title = language ? `${KINDS[kind]}, ${called(language)}` : KINDS[kind];
    box.addEventListener("change", () => (CHOOSE[kind] ?? choose)(name, box.checked));
    return html("li", { "data-track": name }, html("label", {}, box, html("span", {}, html("b", {}, title), html("small"))));
}

function called(language) {
    try {
        return names.of(language) ?? language;
    } catch {
        return language;
    }
}

function about({ kind, chosen, bytes, lacks, pictures, description }) {
    if (!chosen && description) {
        return `${description}; not joined${bytes > 0 ? ` any more, ${size(bytes)} had come` : ": nothing of it comes"}`.replaceAll("`", "'");
    }
    if (!chosen) {
        return bytes > 0 ? `dropped: no more comes; ${size(bytes)} had come` : "not joined: nothing of it comes";
    }
    if (kind === "audio") {
        return view.sound ? view.sound.words() : "beginning";
    }
    if (kind === "pictures") {
        return `joined, ${pictures.whole} of ${pictures.named} here, ${size(bytes)} so far`;
    }
    return `joined, ${size(bytes)} so far${lacks ? ", more is coming" : ""}`;
}

function size(bytes) {
    return bytes < 1000 ? `${bytes} bytes` : `${(bytes / 1000).toFixed(1)} kB`;
}

function choose(track, isChosen) {
    try {
        problem(null);
        view.studio.choose(track, isChosen);
    } catch (error) {
        problem(error.message);
    }
    draw();
}

function choosePictures(track, isChosen) {
    wantPictures(isChosen);
    choose(track, isChosen);
    view.pictures.forget();
}

function chooseScreen(track, isChosen) {
    wantScreen(isChosen);
    choose(track, isChosen);
}

function chooseCamera(track, isChosen) {
    try {
        wantCamera(isChosen);
        choose(track, isChosen);
    } catch (error) {
        problem(error.message);
        draw();
    }
}

async function hear(track, isChosen) {
    endSound();
    choose(track, isChosen);
    const station = view.studio.status().tracks.find(({ name }) => name === track)?.station;
    if (!isChosen || !station) {
        return;
    }
    try {
        const sound = await Sound.start(view.member, station);
        // it was dropped meanwhile
        if (!view.studio?.status().tracks.some(({ name, chosen }) => name === track && chosen)) {
            sound.end();
            return;
        }
        view.sound = sound;
        sound.volume = Number($("volume").value) / 100;
        showMedia("playing", document.title);
    } catch (error) {
        choose(track, false);
        problem(error.message);
    }
    draw();
}

async function openNotes() {
    try {
        await view.notes.open();
    } catch (error) {
        problem(error.message);
    }
    draw();
}

async function chooseNotes(name, isChosen) {
    if (isChosen) {
        await openNotes();
    } else {
        await view.notes.close();
        choose(name, false);
    }
}

function showNotes(network, status) {
    const track = status.tracks.find(({ kind }) => kind === "notes");
    document.querySelector("[data-panel=notes]").hidden = !track || view.member.isLeaf;
    view.notes.isConnected = network.peers.some((peer) => peer.state === "connected");
    if (track && view.wantsNotes) {
        view.wantsNotes = false;
        openNotes();
    }
    view.notes.show();
}

/** As a file of the reader's. */
function saveNotes() {
    const url = URL.createObjectURL(new Blob([$("text").value], { type: "text/plain" }));
    html("a", { href: url, download: "notes.txt" }).click();
    setTimeout(() => URL.revokeObjectURL(url), LOOK);
}

/** Drops the sound. */
function silence() {
    const audio = view.studio?.status().tracks.find(({ kind, chosen: isChosen }) => kind === "audio" && isChosen);
    audio && hear(audio.name, false);
}

function endSound() {
    view.sound?.end();
    view.sound = null;
    showMedia("none", "");
}

function showVoices() {
    const language = view.studio?.status().language;
    const isWanted = chosen.readSlides || chosen.readCaptions;
    say($("voices"), (isWanted && view.studio && voice.problem(language)) || "");
}

// --- drawing ---

function soon() {
    view.timer ??= setTimeout(() => {
        view.timer = null;
        draw();
    }, TOGETHER);
}

function draw() {
    if (!view.studio || !view.notes) {
        return;
    }
    const network = view.member.status();
    if (network.state === "expelled") {
        forgetVisit();
        leave("This page has been expelled from the network: it needs a new token.");
        return;
    }
    const status = view.studio.status();
    const title = status.title || "Lecture";
    say($("title"), title.replaceAll("`", "'"));
    document.title = title;
    say($("presenter"), (status.presenter ? `by ${status.presenter}` : "").replaceAll("`", "'"));
    showState(network, status);
    showLoss(network, status);
    showSlide(network, status);
    showCaptions(status);
    showQuestions(status);
    showSent(status);
    showTracks(status);
    const described = (wanted) => status.tracks.find(({ kind }) => kind === wanted)?.description;
    view.screen.show(status.screen, described("screen"));
    view.camera.show(status.camera, described("camera"));
    showParts();
    showNotes(network, status);
    remember(status);
    document.body.classList.toggle("asks", network.uplink === true);
    document.body.classList.toggle("no-stage", Object.keys(PARTS).every((part) => $(part).hidden));
    document.body.classList.toggle("no-captions", $("said").hidden);
}

function showState(network, { state: lecture }) {
    const up = linked(network);
    const refused = network.peers.find((peer) => peer.state === "refused");
    const isServed = network.servers.some((server) => server.connected);
    if (up > 0) {
        const words = { waiting: "connected, waiting for the lecture", live: "live", ended: "the lecture has ended; what was shown stays" };
        state(lecture === "live" ? "connected" : "starting", words[lecture]);
    } else {
        const lonely = refused ? `refused: ${refused.reason}` : isServed ? "alone so far: no other node is there" : unanswered(network.isAsking);
        state("starting", network.peers.length > 0 && !refused ? "making links" : lonely);
    }
}
