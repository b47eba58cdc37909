// A conversation: its messages by day, and a line where the reading stopped. All text is other people's: text, never markup.

import { tellRead } from "../common/feed.js";
import { fill, html, linked, quoted } from "../common/html.js";
import { fileCard } from "./file.js";
import { markRead, readUpTo } from "./reading.js";
import { commandOf, FRESH, isFresh, pathOf } from "./ring.js";

/** Messages that are shown, the last ones. */
const KEPT = 500;
/** So much of a message is shown at once, in characters and in lines. Chosen: a screen of a telephone. */
const LONGEST = 1500;
const LINES = 24;
/** Longest name that is shown, in characters: one of lcgroup (64 bytes) and its mark. */
const LONGEST_NAME = 128;
/** So near to its end, in pixels, a list is taken to be at its end. */
const NEAR = 40;

/** Characters that reverse the order of following text; terminals show them as marks, too. */
const REORDERING = /[\u202a-\u202e]/g;

const DAY = new Intl.DateTimeFormat(undefined, { weekday: "long", year: "numeric", month: "long", day: "numeric" });
const TIME = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });

export class Talk {
    /** `more` leads to the end; `whenRead` is called when something was. */
    constructor(host, more, whenRead) {
        Object.assign(this, { host, more, whenRead });
        more.addEventListener("click", () => this.goToEnd());
        host.addEventListener("grown", () => this.wasAtEnd && this.goToEnd());
        const sizeNow = () => `${host.clientWidth} ${host.clientHeight}`;
        let size = sizeNow();
        host.addEventListener("scroll", () => {
            // a list of another size has scrolled by itself: its observer comes after this
            if (sizeNow() === size) {
                this.wasAtEnd = this.isAtEnd();
            }
            this.look();
        });
        // a keyboard comes up, a telephone is turned
        new ResizeObserver(() => {
            size = sizeNow();
            if (this.wasAtEnd) {
                this.goToEnd();
            }
        }).observe(host);
        document.addEventListener("visibilitychange", () => this.look());
    }

    /** Another one is shown from now on, or none. */
    open(group) {
        this.group = group;
        this.last = 0;
        this.shown = 0;
        this.day = null;
        this.line = null;
        this.isMarked = false;
        // not before all is here: nobody wants it read out
        this.expected = group?.messages ?? 0;
        this.host.setAttribute("aria-busy", "true");
        fill(this.host, []);
        this.settle();
    }

    /** Messages of others and of this host that were not read. */
    unread(messages = 0) {
        return this.group ? Math.max(0, Math.max(messages, this.last) - readUpTo(this.group.author)) : 0;
    }

    /** A message; after an interruption the last ones come once more. */
    take(message) {
        if (message.n <= this.last) {
            return;
        }
        const isOwn = message.own ?? message.author === this.group.author;
        const [wasAtEnd, read] = [this.isAtEnd(), readUpTo(this.group.author)];
        if (this.shown === 0 && message.n > 1) {
            const all = html("code", {}, `lcgroup tail ${this.group.name}`);
            this.host.append(html("li", { class: "between" }, html("span", {}, `${(message.n - 1).toLocaleString()} earlier: `, all)));
        }
        const isUnseen = document.hidden || !wasAtEnd || this.isBusy();
        if (!isOwn && isUnseen && !this.isMarked && read > 0 && message.n > read) {
            this.line?.remove();
            this.line = this.host.appendChild(html("li", { class: "between new" }, html("span", {}, "New messages")));
            this.isMarked = true;
        }
        this.last = message.n;
        this.add(message, isOwn);
        if (this.isBusy()) {
            this.settle();
            return;
        }
        if (isOwn && !document.hidden) {
            this.line?.remove();
            Object.assign(this, { line: null, isMarked: false });
        }
        if (isOwn || wasAtEnd) {
            this.goOn();
        }
        this.look();
        this.whenRead();
    }

    add(message, isOwn) {
        const at = new Date(message.time);
        if (at.toDateString() !== this.day) {
            this.day = at.toDateString();
            this.host.append(html("li", { class: "between day" }, html("time", { datetime: at.toISOString() }, DAY.format(at))));
        }
        const when = html("time", { class: "when", datetime: at.toISOString(), title: at.toLocaleString() }, TIME.format(at));
        const told = message.earlier ? [html("small", {}, " before you joined, as the owner has it")] : [];
        const who = html("p", {}, html("b", {}, message.shown.slice(0, LONGEST_NAME)), ...told);
        this.host.append(html("li", { class: isOwn ? "own" : "words", "data-n": message.n }, when, who, this.said(message)));
        this.shown += 1;
        if (this.shown > KEPT) {
            this.host.querySelector("[data-n]").remove();
            this.shown -= 1;
            // a day of which nothing is left
            for (const old of this.host.querySelectorAll(".day")) {
                old.nextElementSibling?.matches(".day") && old.remove();
            }
        }
    }

    said({ n, time, text: raw, bytes, files, file, call }) {
        const said = html("p", { class: "said", dir: "auto" });
        if (files !== undefined) {
            const command = html("code", {}, `lcsync --lcgroup ${this.group.name} ${quoted(`lc:${files}`)} DEST`);
            fill(said, [`shares ${files}: `, command]);
            return said;
        }
        if (file !== undefined) {
            return fileCard(this.group.name, n, file);
        }
        if (call !== undefined) {
            const show = () => {
                const join = this.group.outside
                    ? html("code", {}, commandOf(this.group.name, call))
                    : html("a", { href: pathOf(call), target: "_blank", rel: "noopener" }, isFresh(time) ? "Join" : "Join, if it goes on");
                fill(said, [isFresh(time) ? "calls: " : `called at ${TIME.format(new Date(time))}: `, join]);
            };
            show();
            isFresh(time) && setTimeout(show, FRESH);
            return said;
        }
        const text = raw?.replace(REORDERING, "\ufffd") ?? `${Math.floor((bytes.length * 3) / 4).toLocaleString()} bytes that are no text`;
        const begin = text.split("\n", LINES).join("\n").slice(0, LONGEST);
        if (begin.length === text.length) {
            fill(said, linked(text));
            return said;
        }
        const whole = html("button", { type: "button", class: "copy" }, `Show all ${text.length.toLocaleString()} characters`);
        fill(said, [...linked(begin, false), "…", html("br"), whole]);
        whole.addEventListener("click", () => fill(said, linked(text)));
        return said;
    }

    isBusy() {
        return this.host.getAttribute("aria-busy") === "true";
    }

    /** Runs once all earlier messages are here. */
    settle() {
        if (this.last >= this.expected) {
            this.host.setAttribute("aria-busy", "false");
            this.goOn();
            this.look();
            this.whenRead();
        }
    }

    /** To the end, or as near to it as the line where the reading stopped is still seen. */
    goOn() {
        this.host.scrollTop = this.isMarked ? this.line.offsetTop - this.host.offsetTop : this.host.scrollHeight;
        this.wasAtEnd = this.isAtEnd();
    }

    isAtEnd() {
        const { scrollHeight, scrollTop, clientHeight } = this.host;
        return scrollHeight - scrollTop - clientHeight < NEAR;
    }

    goToEnd() {
        this.host.scrollTop = this.host.scrollHeight;
        this.look();
    }

    /** Messages in view are read. */
    look() {
        if (this.group && !document.hidden && !this.isBusy() && this.isAtEnd() && this.unread() > 0) {
            markRead(this.group.author, this.last);
            // it is read here in any case, and the next number tells other devices as well
            tellRead(this.group.name, this.last).catch(() => {});
            this.isMarked = false;
            this.whenRead();
        }
        const unread = this.isBusy() || document.hidden ? 0 : this.unread();
        this.more.hidden = unread === 0;
        this.more.textContent = `${unread.toLocaleString()} new ↓`;
    }
}
