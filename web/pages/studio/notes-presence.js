// Other writers in the notes, and their places: a list with buttons that lead there, and marks over the text field. The reader
// chooses whether others see his own place, and under which name; otherwise nothing is sent.

import { html, say } from "../common/html.js";

const KEPT = "lcroute studio presence";
/** Between two looks at where the cursor is, in milliseconds. */
const LOOK = 250;
/** Shortest time between two announcements by screen readers, in milliseconds. */
const SAY = 10_000;
/** Longest text over which marks are drawn, in UTF-16 units: more would be laid out again with each change (chosen). */
const MAX_MARKED = 50_000;
/** So many are listed; others are counted. */
const MAX_LISTED = 20;
/** Changes that move letters. */
const STYLES = [
    ..."direction,fontFamily,fontFeatureSettings,fontKerning,fontSize,fontStretch,fontStyle,fontVariant,fontWeight,letterSpacing".split(","),
    ..."lineHeight,overflowWrap,paddingBottom,paddingLeft,paddingRight,paddingTop,tabSize,textAlign,textIndent,textTransform,unicodeBidi".split(","),
    ..."wordBreak,wordSpacing".split(","),
];
/** The choices, by their names in the store. */
const CHECKS = { isShown: "show-me", watches: "show-others", announces: "say-others" };

const $ = (id) => document.getElementById(id);
const bytesOf = (hex) => Uint8Array.from(hex.match(/../g) ?? [], (byte) => parseInt(byte, 16));

function kept() {
    try {
        return JSON.parse(localStorage.getItem(KEPT)) ?? {};
    } catch {
        return {};
    }
}

export class NotesPresence {
    constructor(notes) {
        this.notes = notes;
        this.choice = { name: "", isShown: false, watches: true, announces: false, ...kept() };
        // presence of others; their places in the document; harmful ones; the number of each while present
        Object.assign(this, { others: new Map(), places: new Map(), aside: new Set(), numbers: new Map(), given: new Map(), lines: new Map() });
        Object.assign(this, { place: null, typedAt: -Infinity, sent: null, said: new Set(), saidAt: -Infinity });
        this.ending = new AbortController();
        const on = (target, event, what, capture = false) => target.addEventListener(event, what, { signal: this.ending.signal, capture });
        Object.entries(CHECKS).forEach(([name, id]) => ($(id).checked = this.choice[name]));
        $("my-name").value = this.choice.name;
        on($("here"), "change", () => this.choose());
        on(document, "selectionchange", () => this.look());
        on(document, "visibilitychange", () => this.show());
        // before the member goes
        on(window, "pagehide", () => this.hide(), true);
        on(notes.field, "scroll", () => this.scroll());
        this.sizes = new ResizeObserver(() => this.draw());
        this.sizes.observe(notes.field);
    }

    end() {
        this.ending.abort();
        this.sizes.disconnect();
        clearTimeout(this.looking);
        cancelAnimationFrame(this.drawing);
        this.lines.forEach((item) => item.remove());
        $("marks").replaceChildren();
    }

    choose() {
        Object.entries(CHECKS).forEach(([name, id]) => (this.choice[name] = $(id).checked));
        this.choice.name = $("my-name").value.trim();
        try {
            localStorage.setItem(KEPT, JSON.stringify(this.choice));
        } catch {
            // it holds for this visit
        }
        this.show();
        this.look();
    }

    // --- this reader, for others ---

    /** He is in the notes: they are open, and he has them before him. */
    get isHere() {
        return this.notes.isOpen && document.visibilityState === "visible" && this.notes.field.checkVisibility();
    }

    hide() {
        this.tell(null, false);
    }

    tell(name, watches) {
        const wanted = JSON.stringify([name, watches]);
        if (wanted !== this.told) {
            this.told = wanted;
            this.notes.studio.show(name, watches);
        }
    }

    typed() {
        this.typedAt = performance.now();
        this.look();
    }

    /** The cursor may be elsewhere. */
    look() {
        this.looking ??= setTimeout(() => {
            this.looking = null;
            const { field } = this.notes;
            const at = field.selectionDirection === "backward" ? field.selectionStart : field.selectionEnd;
            if (this.choice.isShown && this.isHere && (at !== this.sent || this.typedAt > (this.lookedAt ?? 0))) {
                [this.place, this.lookedAt] = [at, performance.now()];
                this.notes.pump();
            }
        }, LOOK);
    }

    /** Input of the document: a place of this reader, and new cursors of others. */
    take(hasEdit) {
        const { base, field } = this.notes;
        // a place in text that the document does not have yet means nothing there
        const isKnown = hasEdit || base === field.value;
        const at = isKnown && this.place !== null && !this.notes.isOpening ? this.place : null;
        if (at !== null) {
            [this.sent, this.place] = [at, null];
        }
        const cursors = [];
        for (const [author, { cursor }] of this.others) {
            if (this.given.get(author) !== cursor && !this.aside.has(author)) {
                this.given.set(author, cursor);
                cursors.push([author, bytesOf(cursor)]);
            }
        }
        for (const author of [...this.given.keys()].filter((known) => !this.others.has(known) || this.aside.has(known))) {
            this.given.delete(author);
            cursors.push([author, null]);
        }
        return { at, cursors };
    }

    /** A document without cursors. */
    restart() {
        this.given.clear();
        this.places.clear();
        this.sent = null;
    }

    /** His cursor makes the document fail. */
    setAside(author) {
        this.aside.add(author);
    }

    answered({ cursor, places }) {
        if (cursor) {
            this.notes.studio.move(cursor, performance.now() - this.typedAt < 2 * LOOK);
        }
        this.places = new Map(places);
        if (this.place !== null) {
            this.look();
        }
        this.draw();
    }

    // --- others, for this reader ---

    /** Anything may be different. */
    show() {
        const { studio, isOpen } = this.notes;
        const { name, isShown, watches } = this.choice;
        this.tell(isShown && this.isHere ? name : null, watches && isOpen);
        const all = watches && isOpen ? studio.others() : [];
        this.others = new Map(all.map((other) => [other.author, other]));
        for (const author of [...this.numbers.keys()].filter((known) => !this.others.has(known))) {
            this.numbers.delete(author);
        }
        for (const author of this.others.keys()) {
            if (!this.numbers.has(author)) {
                const taken = new Set(this.numbers.values());
                this.numbers.set(author, [...taken, 0].findIndex((_, n) => !taken.has(n + 1)) + 1);
            }
        }
        this.list();
        this.announce();
        this.draw();
        if (this.isHere) {
            this.notes.pump();
        }
    }

    called(author) {
        return this.others.get(author)?.name || "Somebody";
    }

    state() {
        const { watches, isShown } = this.choice;
        const granted = this.notes.isOpen && this.notes.studio.status().notes.granted;
        const count = this.others.size;
        const others = count === 0 ? "Nobody else shows himself." : count === 1 ? "One other is here." : `${count} others are here.`;
        const own = !isShown ? "Others do not see you." : granted ? "" : "They see you once you have written something.";
        return [watches ? others : "You do not see others.", own].filter(Boolean).join(" ");
    }

    list() {
        say($("here-state"), this.state());
        const inOrder = [...this.numbers].sort(([, a], [, b]) => a - b).slice(0, MAX_LISTED);
        for (const [author, item] of this.lines) {
            if (!inOrder.some(([other]) => other === author)) {
                item.remove();
                this.lines.delete(author);
            }
        }
        for (const [author, number] of inOrder) {
            const item = this.lines.get(author) ?? this.item(author);
            const [badge, name, where] = item.firstChild.children;
            say(badge, String(number));
            // no code in it
            if (name.textContent !== this.called(author)) {
                name.textContent = this.called(author);
            }
            const at = this.at(author);
            const line = at === null ? "" : `, line ${this.lineOf(at)}`;
            say(where, `${line}${this.others.get(author).writes ? ", writes" : ""}`);
            item.firstChild.setAttribute("aria-disabled", String(at === null));
        }
    }

    item(author) {
        const button = html("button", { type: "button" }, html("b", { class: "badge" }), html("bdi"), html("span"));
        button.addEventListener("click", () => this.go(author));
        const item = html("li", {}, button);
        this.lines.set(author, item);
        $("present").append(item);
        return item;
    }

    /** Where somebody is in the field; null where that is not known. */
    at(author) {
        const at = this.places.get(author);
        return at === undefined || this.notes.isOpening ? null : Math.min(this.notes.inField(at), this.notes.field.value.length);
    }

    lineOf(at) {
        const { value } = this.notes.field;
        let line = 1;
        for (let end = value.indexOf("\n"); end >= 0 && end < at; end = value.indexOf("\n", end + 1)) {
            line += 1;
        }
        return line;
    }

    go(author) {
        const at = this.at(author);
        if (at === null) {
            return;
        }
        const { field } = this.notes;
        field.focus({ preventScroll: true });
        field.setSelectionRange(at, at);
        const mark = [...$("marks").children].find((other) => other.dataset.author === author);
        const behavior = matchMedia("(prefers-reduced-motion: reduce)").matches ? "instant" : "smooth";
        const top = mark ? mark.offsetTop : (field.scrollHeight * at) / Math.max(field.value.length, 1);
        field.scrollTo({ top: Math.max(0, top - field.clientHeight / 3), behavior });
        field.scrollIntoView({ block: "nearest", behavior });
    }

    /** Announces politely and rarely which writers came and went. */
    announce() {
        const now = performance.now();
        if (!this.choice.announces || now - this.saidAt < SAY) {
            return;
        }
        const present = new Set(this.others.keys());
        const come = [...present].filter((author) => !this.said.has(author)).map((author) => this.called(author));
        const gone = [...this.said].filter((author) => !present.has(author)).length;
        if (come.length === 0 && gone === 0) {
            return;
        }
        const names = come.length > 3 ? `${come.length} others` : come.join(", ");
        const words = [names && `${names} in the notes.`, gone > 0 && `${gone} left the notes.`].filter(Boolean);
        say($("here-announce"), words.join(" ").replaceAll("`", "'"));
        [this.said, this.saidAt] = [present, now];
    }

    // --- marks over the field ---

    draw() {
        this.drawing ??= requestAnimationFrame(() => {
            this.drawing = null;
            this.list();
            this.mark();
        });
    }

    /** The text of the field once more, unseen, with a mark where each is. */
    mark() {
        const { field } = this.notes;
        const marks = $("marks");
        const text = field.value;
        const found = [...this.numbers].map(([author, number]) => ({ author, number, at: this.at(author) })).filter(({ at }) => at !== null);
        const isDrawn = found.length > 0 && text.length <= MAX_MARKED && field.checkVisibility();
        marks.hidden = !isDrawn;
        if (!isDrawn) {
            marks.replaceChildren();
            return;
        }
        const style = getComputedStyle(field);
        STYLES.forEach((name) => (marks.style[name] = style[name]));
        marks.style.left = `${field.offsetLeft + field.clientLeft}px`;
        marks.style.top = `${field.offsetTop + field.clientTop}px`;
        marks.style.width = `${field.clientWidth}px`;
        marks.style.height = `${field.clientHeight}px`;
        found.sort((a, b) => a.at - b.at);
        const children = [];
        let begin = 0;
        for (const { author, number, at } of found) {
            children.push(text.slice(begin, at), html("span", { "data-author": author }, html("b", {}, String(number))));
            begin = at;
        }
        // without it a break at the end would make no line
        children.push(text.slice(begin), "\u200b");
        marks.replaceChildren(...children);
        this.scroll();
    }

    scroll() {
        $("marks").scrollTop = this.notes.field.scrollTop;
    }
}
