// The conversation: received and sent messages, the latest last.

import { fill, html } from "../common/html.js";

/** Messages that are kept and shown; those of a second that are shown one by one. */
const KEPT = 200;
const FRESH = 100;
/** Longest data that is shown as words, in bytes: the longest message of a page. */
const LONGEST = 1232;
const CONTROL = /[\0-\x08\x0e-\x1f\x7f]/;
/** So near to its end, in pixels, a list is taken to be at its end. */
const NEAR = 40;

const utf8 = new TextDecoder("utf-8", { fatal: true });

/** Text, if it is some. */
function readable(data) {
    if (data.length > LONGEST) {
        return null;
    }
    try {
        const words = utf8.decode(data).trim();
        return CONTROL.test(words) ? null : words;
    } catch {
        return null;
    }
}

export class Talk {
    /** `name`: of an address, if it is known. */
    constructor(host, more, name) {
        Object.assign(this, { host, more, name });
        this.clear();
        more.addEventListener("click", () => this.goToEnd());
        host.addEventListener("scroll", () => this.look());
        document.addEventListener("visibilitychange", () => this.look());
    }

    clear() {
        this.messages = [];
        this.fresh = new Map();
        this.unread = 0;
        fill(this.host, []);
        this.look();
    }

    /** A datagram, or words about it. Of messages faster than a reader, it keeps the last and their number. */
    hear({ source, where, data, words = readable(data) }) {
        const key = `${source} ${where} ${words === null || this.fresh.size >= FRESH ? "" : words}`;
        const times = (this.fresh.get(key)?.times ?? 0) + 1;
        this.fresh.delete(key);
        this.fresh.set(key, { at: Date.now(), source, where, words, bytes: data?.length ?? 0, times });
    }

    /** Words of this page; the message. */
    say({ where, words }) {
        const message = { at: Date.now(), source: null, where, words, times: 1 };
        this.fresh.set(message, message);
        return message;
    }

    /** Something that has turned out about a message. */
    note(message, words) {
        message.note = words;
        this.update(message);
    }

    /** Whether a sender without a known name has spoken. */
    hasStrangers() {
        return [...this.fresh.values()].some(({ source }) => source !== null && this.name(source) === undefined);
    }

    /** Shows new messages; false: there are none. */
    show() {
        if (this.fresh.size === 0) {
            return false;
        }
        const [fresh, wasAtEnd] = [[...this.fresh.values()], this.isAtEnd()];
        this.fresh.clear();
        for (const message of fresh) {
            message.who = message.source === null ? "this page" : (this.name(message.source) ?? message.source);
            // data is counted where it first came: messages of people stay together
            const run = message.words === null && this.messages.find((old) => old.words === null && old.source === message.source && old.where === message.where);
            if (run) {
                Object.assign(run, { at: message.at, bytes: message.bytes, times: run.times + message.times });
                this.update(run);
            } else {
                this.add(message);
                this.unread += message.words !== null && message.source !== null && (document.hidden || !wasAtEnd);
            }
        }
        if (wasAtEnd || fresh.some(({ source }) => source === null)) {
            this.goToEnd();
        }
        this.look();
        return true;
    }

    add(message) {
        message.item = html("li", { class: message.source === null ? "own" : message.words === null ? "data" : "words" });
        this.messages.push(message);
        this.host.append(message.item);
        this.update(message);
        if (this.messages.length > KEPT) {
            this.messages.shift().item.remove();
        }
    }

    update({ item, at, who, where, words, bytes, times, note }) {
        if (item) {
            const count = times > 1 ? html("small", {}, ` × ${times.toLocaleString("en")}`) : "";
            const when = html("time", { class: "when", datetime: new Date(at).toISOString() }, new Date(at).toLocaleTimeString());
            const said = html("p", {}, words ?? `${bytes} bytes`, count, note ? html("small", { class: "note" }, ` ${note}`) : "");
            fill(item, [when, html("p", {}, html("b", {}, who), html("small", {}, ` to ${where}`)), said]);
        }
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
        if (!document.hidden && this.isAtEnd()) {
            this.unread = 0;
        }
        this.more.hidden = this.unread === 0;
        this.more.textContent = `${this.unread} new ↓`;
    }

    /** For a reload. */
    kept() {
        return this.messages.map(({ item, ...message }) => message);
    }

    recall(messages) {
        messages.forEach((message) => this.add(message));
        this.goToEnd();
    }

    /** As a file: a line a message. */
    save(name) {
        const line = ({ at, who, where, words, bytes, times, note }) =>
            [new Date(at).toISOString(), who, where, words?.replace(/\s+/g, " ") ?? `${bytes} bytes`, times > 1 && `× ${times}`, note && `(${note})`].filter(Boolean).join("  ");
        const file = new Blob(this.messages.map((message) => `${line(message)}\n`), { type: "text/plain" });
        const link = html("a", { href: URL.createObjectURL(file), download: name });
        link.click();
        URL.revokeObjectURL(link.href);
    }
}
