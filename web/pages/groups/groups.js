// Conversations of lcgroup on this host. All text comes from other people: it is shown as text, never as markup.

import { focusFirst } from "../common/enter.js";
import { addGroup, callGroup, follow, groups, inviteTo, members as membersOf, say, sendFile, waitFor } from "../common/feed.js";
import { copier, fill, html, say as write } from "../common/html.js";
import { showQr } from "../common/qr.js";
import { keepCall } from "../node/visit.js";
import { SILENCE, sentence, serve } from "./forms.js";
import { Invitations } from "./invitations.js";
import { Members } from "./members.js";
import { commandOf, isFresh, pathOf, Ring } from "./ring.js";
import { markRead, readUpTo, whenReadElsewhere } from "./reading.js";
import { Talk } from "./talk.js";

/** Between two looks at which groups there are, in milliseconds. */
const LOOK_INTERVAL = 3000;
/** Longest name in a call, in characters: as on its page. */
const LONGEST_NAME = 60;
/** Longest file of a message, in bytes: as in lcgroup. */
const MAX_FILE = 64 << 20;
/** More unread messages than this are not counted. */
const MANY = 999;
const STATES = {
    owner: "its owner is this host",
    member: "a member",
    joining: "waits for the owner’s answer",
    rejoining: "waits for new keys",
    removed: "not a member any more",
    rolled_back: "an old copy: it says nothing more",
};

const $ = (id) => document.getElementById(id);
const view = { all: [], group: new URLSearchParams(location.search).get("group"), author: null, stop: null, isLooking: false, invited: null, called: null };
const talk = new Talk($("heard"), $("unread"), showUnread);
const members = new Members($("members"));
const invitations = new Invitations($("invite"), (id) => view.invited === id && forgetInvitation());
const ring = new Ring($("ring"));
talk.open(null);

$("dashboard").hash = location.hash;
addEventListener("hashchange", () => location.reload());
document.addEventListener("visibilitychange", () => document.hidden || look());
whenReadElsewhere(() => {
    talk.look();
    showUnread();
});
serve($("say"), send);
serve($("create").querySelector("form"), create);
serve($("join").querySelector("form"), join);
serve($("invite").querySelector("form"), invite);
serve($("call"), call);
serve($("attach"), attach);
$("words").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
        event.preventDefault();
        $("say").requestSubmit();
    }
});
look();
setInterval(look, LOOK_INTERVAL);

/** Which groups there are. */
async function look() {
    if (view.isLooking) {
        return;
    }
    view.isLooking = true;
    const slow = setTimeout(() => stands("stale", "waits for lcgroup"), SILENCE);
    try {
        view.all = await groups();
        view.all.forEach(({ author, read }) => markRead(author, read ?? 0));
        await lookAtWait();
        trouble(null);
        showGroups();
    } catch (error) {
        trouble(error);
    } finally {
        clearTimeout(slow);
        view.isLooking = false;
    }
}

/** While a user looks at it, a request to join is made more often. */
async function lookAtWait() {
    const group = shown();
    if (group?.state === "joining" && !document.hidden) {
        const { group: now, interfaces } = await waitFor(group.name);
        Object.assign(group, now, { interfaces });
    }
}

function trouble(error) {
    $("problem").hidden = error === null;
    write($("problem"), error === null ? "" : sentence(error.message));
    const groups = `${view.all.length} ${view.all.length === 1 ? "group" : "groups"}`;
    stands(error ? "stale" : "connected", error ? "no news" : groups);
}

function stands(state, words) {
    write($("state"), words);
    $("state").dataset.state = state;
}

function shown() {
    return view.all.find(({ name }) => name === view.group);
}

function showGroups() {
    $("none").hidden = view.all.length > 0;
    const known = new Map([...$("groups").children].map((item) => [item.dataset.group, item]));
    const items = view.all.map((group) => {
        const item = known.get(group.name) ?? entry(group.name);
        const button = item.firstChild;
        button.setAttribute("aria-pressed", String(group.name === view.group));
        const members = `${group.members} ${group.members === 1 ? "member" : "members"}`;
        write(button.children[2], `${group.members > 0 ? `${members}, ` : ""}${STATES[group.state] ?? group.state}`);
        return item;
    });
    if (items.some((item, at) => $("groups").children[at] !== item) || items.length !== $("groups").children.length) {
        fill($("groups"), items);
    }
    const group = shown();
    if (!group) {
        open(view.all[0]?.name ?? null);
    } else if (!view.stop || group.author !== view.author) {
        // a group that was left and joined anew is another conversation
        open(group.name);
    } else {
        showTalk(group);
    }
    showUnread();
}

function entry(name) {
    const button = html("button", { type: "button" }, html("b", {}, name), html("span", { class: "unread" }), html("small"));
    button.addEventListener("click", () => {
        open(name);
        // where the list fills the screen
        if ($("talk-title").getBoundingClientRect().bottom > innerHeight) {
            $("talk").scrollIntoView();
        }
    });
    return html("li", { "data-group": name }, button);
}

/** In the list, and in the tab's title. */
function showUnread() {
    let sum = 0;
    for (const { name, author, messages } of view.all) {
        const unread = name === view.group && author === view.author ? talk.unread(messages) : Math.max(0, messages - readUpTo(author));
        const place = $("groups").querySelector(`[data-group="${CSS.escape(name)}"] .unread`);
        if (place) {
            place.hidden = unread === 0;
            write(place, unread === 0 ? "" : `${count(unread)} new`);
        }
        sum += unread;
    }
    document.title = `${sum > 0 ? `(${count(sum)}) ` : ""}${view.stop ? view.group : "Groups of people"}`;
}

function count(unread) {
    return unread > MANY ? `${MANY}+` : String(unread);
}

/** Another conversation is shown from now on, or none. */
function open(name) {
    const group = view.all.find((group) => group.name === name) ?? null;
    if (view.stop && group?.author === view.author && group?.name === view.group) {
        return;
    }
    if (!group && !view.stop) {
        return;
    }
    view.stop?.abort();
    Object.assign(view, { group: group?.name ?? null, author: group?.author ?? null, stop: group && new AbortController() });
    forgetInvitation();
    $("conversation").hidden = !group;
    talk.open(group);
    ring.stop();
    members.of(group);
    invitations.of(group);
    if (group) {
        history.replaceState(null, "", `?group=${encodeURIComponent(name)}${location.hash}`);
        follow(`/api/groups/${name}`, take, trouble, view.stop.signal);
        showGroups();
        focusFirst($("say"));
    }
}

function showTalk(group) {
    write($("talk-title"), group.name);
    write($("topic"), group.topic === group.name ? "" : group.topic);
    const mayTalk = ["owner", "member", "rejoining"].includes(group.state) && !group.problem;
    $("words").disabled = !mayTalk;
    $("say").hidden = !mayTalk;
    $("call").hidden = $("attach").hidden = !mayTalk;
    showNothing();
    showStanding(group);
    showCall(group);
    members.of(group);
    invitations.of(group);
    const last = group.notices.join("\n");
    if ($("notices").said !== last) {
        $("notices").said = last;
        fill($("notices"), group.notices.map((notice) => html("li", {}, notice)));
    }
}

/** A tab is in the host's network, and not in one of a group's own: there a command takes part. */
function showCall({ name, outside }) {
    const called = view.called?.group === name ? view.called.call : null;
    const byCommand = called
        ? `Your call is sent. To take part, type \`${commandOf(name, called)}\` on this host.`
        : "Up to eight talk. This group has a network of its own, and no tab is in it: the button calls, and shows the command by which this host takes part.";
    write($("call-how"), outside ? byCommand : "Up to eight talk, in tabs or by `lcradio call`. A tab needs an invitation to this host’s network.");
}

function showNothing() {
    const group = shown();
    $("nothing").hidden = talk.last > 0 || group?.messages > 0;
    write($("nothing"), group?.state === "joining" ? "Messages come once this host is a member." : "Nothing was said so far.");
}

/** The reason of a wait, and the remedy. */
function showStanding({ state, problem, waits, interfaces, clock, outbox, missing, name }) {
    const on = interfaces ? ` (On ${interfaces}.)` : "";
    const lines = [
        problem ? sentence(problem) : waits ? `${state === "joining" ? "It" : "What is said"} ${waits}${on}` : "",
        clock ? sentence(clock) : "",
        outbox > 0 ? `${outbox} of this host’s messages wait for your word, as somebody joined meanwhile: \`lcgroup outbox ${name}\`` : "",
        missing > 0 ? "Some of what was said is on its way." : "",
    ].filter(Boolean);
    $("standing").hidden = lines.length === 0;
    write($("standing"), lines.join("\n"));
}

/** A message, or the reason for which there are no more. */
function take(line) {
    if (line.error) {
        throw new Error(line.error);
    }
    const isNew = line.n > talk.last;
    talk.take(line);
    if (isNew && line.call !== undefined && !line.own && isFresh(line.time)) {
        ring.begin(line, talk.group.outside ? commandOf(talk.group.name, line.call) : undefined);
    }
    showNothing();
}

async function send() {
    const words = $("words").value.trim();
    if (words) {
        // if it fails, the words stay where they were typed
        await say(view.group, words);
        $("words").value = "";
        look();
    }
    $("words").focus();
}

async function attach() {
    const [file] = $("file").files;
    if (file.size > MAX_FILE) {
        throw new Error(`${file.name} has ${Math.ceil(file.size / 1e6)} MB, and a message carries a file of at most ${Math.floor(MAX_FILE / 1e6)}.`);
    }
    await sendFile(view.group, file);
    $("file").value = "";
    look();
}

/** The members are told, and this browser takes part in a tab of its own, or this host by a command. */
async function call() {
    const { name, outside } = shown();
    if (outside) {
        view.called = { group: name, call: await callGroup(name) };
        return look();
    }
    // a caller without an invitation would call, and not come
    const token = $("call-token").value.match(/lct1[A-Za-z0-9]+/)?.[0];
    if (!token) {
        $("call-token").closest("label").hidden = false;
        $("call-token").focus();
        throw new Error("Your tab needs an invitation to this host’s network: `lcroute invite` prints one. This page keeps it until it is closed.");
    }
    $("call-token").closest("label").hidden = true;
    // while the click still counts
    const tab = window.open("", "_blank");
    try {
        const own = (await membersOf(view.group).catch(() => [])).find(({ me }) => me);
        // its name there is the one here: a click joins
        tab && own && keepCall({ name: own.shown.slice(0, LONGEST_NAME) }, tab);
        const path = pathOf([token, await callGroup(view.group)].join(","));
        tab?.location.replace(new URL(path, location.href));
    } catch (error) {
        tab?.close();
        throw error;
    }
}

async function create() {
    const { group, name, topic } = $("create").querySelector("form").elements;
    await add($("create"), { create: { group: group.value.trim(), name: name.value.trim(), topic: topic.value.trim() } });
}

async function join() {
    const { invitation, group, name } = $("join").querySelector("form").elements;
    await add($("join"), { join: { invitation: invitation.value.trim(), group: group.value.trim() || null, name: name.value.trim() } });
}

/** The group is there: its conversation is shown. */
async function add(place, wanted) {
    const name = await addGroup(wanted);
    view.all = await groups();
    trouble(null);
    place.querySelector("form").reset();
    place.open = false;
    open(name);
    $("talk-title").focus();
}

async function invite() {
    const { uses, expires } = $("invite").querySelector("form").elements;
    const of = view.author;
    const { id, invitation, qr, until } = await inviteTo(view.group, { uses: Number(uses.value), expires_s: Number(expires.value) });
    if (of !== view.author) {
        return;
    }
    view.invited = id;
    invitations.look(true);
    const whom = uses.value === "1" ? "one person" : `${uses.value} people`;
    const hide = html("button", { type: "button", class: "copy" }, "Hide");
    hide.addEventListener("click", () => {
        forgetInvitation();
        uses.focus();
    });
    const line = html("code", { class: "line" }, invitation);
    const words = `For ${whom}, until ${new Date(until).toLocaleString()}. It is a secret: bring it by a path that you trust. Whoever has it becomes a member while \`lcgroup run\` runs on this host.`;
    const said = html("p");
    write(said, words);
    fill($("invited"), [said, showQr(qr, "QR code of the invitation"), line, html("p", { class: "row" }, copier(invitation, "Copy the invitation"), hide)]);
}

function forgetInvitation() {
    view.invited = null;
    fill($("invited"), []);
}
