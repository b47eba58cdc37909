// Conversations of lcgroup on this host. All text comes from other people: it is shown as text, never as markup.

import { follow, groups, say } from "../common/feed.js";
import { fill, html, quoted, say as write } from "../common/html.js";

/** Messages that are shown, the last ones. */
const KEPT = 500;
/** Between two looks at which groups there are, in milliseconds. */
const LOOK_INTERVAL = 3000;
/** So near to its end, in pixels, a list is taken to be at its end. */
const NEAR = 40;
const STATES = {
    owner: "its owner is this host",
    member: "a member",
    joining: "waits for the owner’s answer",
    rejoining: "waits for new keys",
    removed: "not a member any more",
    rolled_back: "an old copy: it says nothing more",
};

const $ = (id) => document.getElementById(id);
const view = { all: [], group: new URLSearchParams(location.search).get("group"), stop: null, last: 0 };

$("dashboard").hash = location.hash;
addEventListener("hashchange", () => location.reload());
$("say").addEventListener("submit", (event) => {
    event.preventDefault();
    send();
});
$("words").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
        event.preventDefault();
        $("say").requestSubmit();
    }
});
look();

/** Which groups there are, again and again. */
async function look() {
    for (;;) {
        try {
            view.all = await groups();
            trouble(null);
            showGroups();
        } catch (error) {
            trouble(error);
        }
        await new Promise((done) => setTimeout(done, LOOK_INTERVAL));
    }
}

function trouble(error) {
    $("problem").hidden = error === null;
    write($("problem"), error?.message ?? "");
    write($("state"), error ? "no news" : `${view.all.length} ${view.all.length === 1 ? "group" : "groups"}`);
    $("state").dataset.state = error ? "stale" : "connected";
}

function showGroups() {
    $("none").hidden = view.all.length > 0;
    const known = new Map([...$("groups").children].map((item) => [item.dataset.group, item]));
    const items = view.all.map((group) => {
        const item = known.get(group.name) ?? entry(group.name);
        const button = item.firstChild;
        button.setAttribute("aria-pressed", String(group.name === view.group));
        write(button.children[0], group.name);
        const members = `${group.members} ${group.members === 1 ? "member" : "members"}`;
        write(button.children[1], `${members}, ${STATES[group.state] ?? group.state}`);
        return item;
    });
    if (items.some((item, at) => $("groups").children[at] !== item) || items.length !== $("groups").children.length) {
        fill($("groups"), items);
    }
    const group = view.all.find(({ name }) => name === view.group);
    if (group) {
        showTalk(group);
    } else {
        open(view.all[0]?.name ?? null);
    }
}

function entry(name) {
    const button = html("button", { type: "button" }, html("b"), html("small"));
    button.addEventListener("click", () => open(name));
    return html("li", { "data-group": name }, button);
}

/** Another conversation is shown from now on. */
function open(name) {
    if (name === view.group && view.stop) {
        return;
    }
    view.stop?.abort();
    view.group = name;
    view.stop = name === null ? null : new AbortController();
    view.last = 0;
    fill($("heard"), []);
    $("nothing").hidden = false;
    $("talk").hidden = name === null;
    if (name !== null) {
        history.replaceState(null, "", `?group=${encodeURIComponent(name)}${location.hash}`);
        follow(`/api/groups/${name}`, take, trouble, view.stop.signal);
        showGroups();
    }
}

function showTalk(group) {
    if (!view.stop) {
        open(group.name);
        return;
    }
    write($("talk-title"), group.name);
    write($("topic"), group.topic === group.name ? "" : group.topic);
    document.title = group.name;
    const mayTalk = ["owner", "member", "rejoining"].includes(group.state);
    $("words").disabled = !mayTalk;
    $("say").querySelector("button").disabled = !mayTalk;
    const lines = group.notices.slice(-3).map((notice) => html("li", {}, notice));
    if ($("notices").said !== group.notices.join("\n")) {
        $("notices").said = group.notices.join("\n");
        fill($("notices"), lines);
    }
}

/** A message, or why there are no more. */
function take(line) {
    if (line.error) {
        throw new Error(line.error);
    }
    // after an interruption the last ones come once more
    if (line.n <= view.last) {
        return;
    }
    view.last = line.n;
    const wasAtEnd = isAtEnd();
    const at = new Date(line.time);
    const when = html("time", { class: "when", datetime: at.toISOString(), title: at.toLocaleString() }, at.toLocaleTimeString());
    const me = view.all.find(({ name }) => name === view.group)?.author;
    const who = html("p", {}, html("b", {}, line.shown));
    $("heard").append(html("li", { class: line.author === me ? "own" : "words" }, when, who, html("p", { class: "said" }, ...content(line))));
    while ($("heard").children.length > KEPT) {
        $("heard").firstChild.remove();
    }
    $("nothing").hidden = true;
    if (wasAtEnd || line.author === me) {
        $("heard").scrollTop = $("heard").scrollHeight;
    }
}

function content({ text, bytes, files }) {
    if (files !== undefined) {
        return [`shares ${files}: `, html("code", {}, `lcsync --lcgroup ${view.group} ${quoted(`lc:${files}`)} DEST`)];
    }
    return [text ?? `${Math.floor((bytes.length * 3) / 4)} bytes that are no text`];
}

function isAtEnd() {
    const { scrollHeight, scrollTop, clientHeight } = $("heard");
    return scrollHeight - scrollTop - clientHeight < NEAR;
}

async function send() {
    const words = $("words").value.trim();
    if (!words) {
        return;
    }
    const button = $("say").querySelector("button");
    button.disabled = true;
    try {
        await say(view.group, words);
        $("words").value = "";
    } catch (error) {
        // the words stay where they were typed
        trouble(error);
    } finally {
        button.disabled = false;
        $("words").focus();
    }
}
