// Notes that all write: the text field, the worker with the document, and changes that are stored before they are sent.

import { say } from "../common/html.js";
import { NotesStore } from "./notes-store.js";
import { NotesApart } from "./notes-versions.js";
import { NotesPresence } from "./notes-presence.js";
import { difference, moved, rebase } from "./notes-text.js";

/** Between two changes that are sent while somebody types, in milliseconds. */
const TYPING = 250;
/** So many updates go to the worker at once. */
const BATCH = 200;
/** Longest time of one author's updates in a batch, in milliseconds: then the worker is ended, and this author set aside. */
const LIMIT = 2000;
/** So many steps of the clock are that: a computer that stands still has one meanwhile. */
const STEPS = 8;
/** Longest until the worker is there: it loads 1.2 MB. In milliseconds. */
const LOADING = 120_000;
/** Waiting changes above this number are shown. */
const MANY = 8;
/** Characters that nobody types, and some paste (lcstudio-core, plain). */
const REFUSED = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069\u2028\u2029\ufff9-\ufffb\ufeff]|[\u{e0000}-\u{e007f}]/gu;

const $ = (id) => document.getElementById(id);
const nameOf = ({ author, number }) => `${author} ${number}`;

export class Notes {
    /** Stored data of this session goes to the module before it joins anything. */
    static async begin(studio) {
        const store = await NotesStore.open(studio.name());
        studio.restore(store.key, store.records);
        store.records = [];
        store.drafts.forEach(({ id, body }) => studio.write(id, body));
        return new Notes(studio, store);
    }

    constructor(studio, store) {
        const drafts = new Map(store.drafts.map(({ id, body, changes }) => [id, { body, changes, isKept: true }]));
        Object.assign(this, { studio, store, drafts, field: $("text"), isOpen: false });
        // all updates, as other members see them, too; the entry number from which each harmful author does not count
        Object.assign(this, { entries: new Map(), aside: new Map(), unread: [], pending: new Set(), late: new Set(), appended: [] });
        Object.assign(this, { base: "", sent: null, due: false, busy: false, saving: Promise.resolve(), worker: null });
        this.presence = new NotesPresence(this);
        this.apart = new NotesApart(this);
        this.ending = new AbortController();
        const on = (event, what) => this.field.addEventListener(event, what, { signal: this.ending.signal });
        on("input", () => this.typed());
        // while letters are put together, nothing else may change
        on("compositionstart", () => (this.composing = true));
        on("compositionend", () => this.composed());
        on("blur", () => this.flush());
        studio.does.records = (turn, records, done) => this.keep(turn, records, done);
        studio.does.updates = (updates) => this.updated(updates);
    }

    /** Opens the document. */
    async open() {
        if (this.isOpen) {
            return;
        }
        this.isOpen = true;
        await this.store.begin();
        this.studio.openNotes();
        this.start();
        this.prepare();
    }

    /** This page opens without a network from now on. */
    async prepare() {
        if (!navigator.serviceWorker) {
            return;
        }
        try {
            // Firefox has none at http://[::1]
            await caches.has("lcroute studio");
            await navigator.serviceWorker.register("service-worker.js");
            const { active } = await navigator.serviceWorker.ready;
            const loaded = performance.getEntriesByType("resource").map(({ name }) => name);
            const worker = ["notes-worker.js", "notes-apart.js", "../vendor/loro.js", "../vendor/loro.wasm"].map((file) => new URL(file, import.meta.url).href);
            const own = [...loaded, ...worker].filter((url) => url.startsWith(`${location.origin}/`) && !url.includes("/api/"));
            active.postMessage({ keep: [location.origin + location.pathname, ...new Set(own)] });
        } catch {
            // the notes work without
        }
    }

    /** Nothing of it comes any more. */
    end() {
        this.ending.abort();
        this.presence.end();
        this.apart.end();
        this.isOpen = false;
        this.stop();
    }

    /** The same, once typed text is stored; the notes can be opened again. */
    async close() {
        this.field.readOnly = true;
        this.presence.hide();
        for (let wait = 0; wait < LIMIT && this.worker && (this.busy || difference(this.base, this.field.value)); wait += TYPING) {
            this.flush();
            await new Promise((done) => setTimeout(done, TYPING));
        }
        await this.saving;
        this.isOpen = false;
        this.stop();
    }

    // --- the worker ---

    start() {
        this.stop();
        Object.assign(this, { isOpening: true, busy: true, trying: null, placing: null, pending: new Set() });
        this.presence.restart();
        this.apart.set([]);
        this.isLooking = false;
        this.field.readOnly = true;
        const counts = [...this.entries.values()].filter((entry) => this.counts(entry));
        const isLate = (entry) => this.late.has(nameOf(entry));
        this.unread = [...counts.filter((entry) => !isLate(entry)), ...counts.filter(isLate)];
        this.worker = new Worker(new URL("notes-worker.js", import.meta.url), { type: "module" });
        this.worker.onmessage = ({ data }) => this.answered(data);
        this.worker.onerror = () => this.fail("The script of the document does not run.");
        this.timer = setTimeout(() => this.fail("The document cannot be loaded: nothing came for two minutes."), LOADING);
        const ids = [...this.drafts.keys()];
        this.first = { drafts: [...this.drafts.values()].map(({ body }) => body), firstDraft: Math.max(0, ...ids, this.lastDraft ?? 0) + 1 };
    }

    stop() {
        clearTimeout(this.timer);
        clearTimeout(this.typing);
        this.typing = null;
        this.worker?.terminate();
        this.worker = null;
    }

    fail(why) {
        this.stop();
        this.field.readOnly = true;
        this.problem = why;
        this.show();
    }

    counts({ author, number }) {
        return number < (this.aside.get(author) ?? Infinity);
    }

    updated(updates) {
        for (const update of updates) {
            if (!this.entries.has(nameOf(update))) {
                this.entries.set(nameOf(update), update);
                if (this.counts(update)) {
                    this.unread.push(update);
                }
            }
        }
        this.pump();
    }

    /** The next batch, once the one before is done. */
    pump() {
        if (this.busy || !this.worker || this.composing) {
            return;
        }
        const edit = this.due && !this.isOpening ? difference(this.base, this.field.value) : null;
        this.due = false;
        const { at, cursors } = this.presence.take(edit !== null);
        const updates = this.unread.splice(0, BATCH);
        const first = this.first ?? {};
        if (!edit && updates.length === 0 && this.appended.length === 0 && at === null && cursors.length === 0 && !this.isOpening) {
            return;
        }
        const whole = this.isOpening && this.unread.length === 0;
        Object.assign(this, { busy: true, sent: edit && this.field.value, first: null, writer: null, left: new Map() });
        this.worker.postMessage({ edit, updates, appended: this.appended.splice(0), whole, at, cursors, isPlain: this.isPlain, ...first });
        this.watch(STEPS);
    }

    /** The worker reads an update of this author: updates of others use none of its time. */
    turn(author) {
        if (author === this.writer) {
            return;
        }
        clearTimeout(this.timer);
        const isUsed = performance.now() - this.stepped > LIMIT / STEPS / 2;
        this.left.set(this.writer, isUsed ? this.steps - 1 : this.steps);
        this.writer = author;
        this.watch(this.left.get(author) ?? STEPS);
    }

    /** Ends a worker that takes too long. */
    watch(steps) {
        Object.assign(this, { steps, stepped: performance.now() });
        this.timer = setTimeout(() => (steps > 1 ? this.watch(steps - 1) : this.blame("it took too long")), LIMIT / STEPS);
    }

    composed() {
        this.composing = false;
        this.typed();
        if (this.held) {
            this.answered(this.held);
        }
    }

    answered(answer) {
        if (answer.trying) {
            this.turn(answer.trying.author);
            this.trying = answer.trying;
            return undefined;
        }
        if (answer.apart !== undefined) {
            this.isLooking = answer.apart === null;
            this.apart.set(answer.apart ?? this.apart.all);
            return undefined;
        }
        if (answer.placing) {
            this.placing = answer.placing;
            return undefined;
        }
        if (answer.pending) {
            this.pending.add(nameOf(answer.pending));
            return undefined;
        }
        clearTimeout(this.timer);
        this.held = this.composing ? answer : null;
        if (this.held) {
            return undefined;
        }
        if (answer.failed) {
            return this.trying || this.placing ? this.blame(answer.failed) : this.fail(`The document does not work here: ${answer.failed}`);
        }
        if (answer.bad) {
            this.trying = answer.bad;
            return this.blame(answer.why);
        }
        this.trying = null;
        this.placing = null;
        if (!answer.ready) {
            this.done(answer);
            this.presence.answered(answer);
        }
        this.busy = false;
        this.pump();
        return this.show();
    }

    /** The update that was tried last is harmful. An update that waited for it may be the cause: that comes last then, by itself. */
    blame(why) {
        if (this.isLooking) {
            // no update was tried since
            this.isPlain = true;
            this.start();
            return this.show();
        }
        if (this.placing) {
            this.presence.setAside(this.placing);
            this.start();
            return this.show();
        }
        const suspects = [...this.pending].filter((name) => !this.late.has(name));
        if (!this.trying) {
            return this.fail(`The document does not work here: ${why}`);
        }
        if (suspects.length > 0) {
            suspects.forEach((name) => this.late.add(name));
        } else {
            const { author, number } = this.trying;
            this.aside.set(author, Math.min(number, this.aside.get(author) ?? Infinity));
        }
        this.start();
        return this.show();
    }

    done({ remote, text, drafts, isFull }) {
        const isReady = this.isOpening && text !== null;
        const before = this.sent ?? this.base;
        this.base = before;
        this.sent = null;
        if (isReady) {
            const change = difference(this.base, text);
            this.take(change ? [change] : []);
            this.isOpening = false;
            this.due = true;
        } else if (!this.isOpening && remote.length > 0) {
            this.take(remote);
        }
        this.isFull = isFull;
        this.field.readOnly = this.isOpening || isFull;
        this.keepDrafts(drafts);
    }

    /** Changes of others, around the text that is being written here. */
    take(changes) {
        const { field } = this;
        const own = difference(this.base, field.value);
        const { selectionStart, selectionEnd, selectionDirection, scrollTop } = field;
        const { base, text, places } = rebase(this.base, own, changes, [selectionStart, selectionEnd]);
        this.base = base;
        if (field.value !== text) {
            field.value = text;
            field.setSelectionRange(places[0], places[1], selectionDirection);
            field.scrollTop = scrollTop;
        }
    }

    /** Where a place of the document is in the field, in which more may stand by now. */
    inField(at) {
        const own = difference(this.base, this.field.value);
        return own ? moved(at, [own]) : at;
    }

    // --- writing ---

    typed() {
        const { field } = this;
        if (REFUSED.test(field.value)) {
            REFUSED.lastIndex = 0;
            const before = field.value.slice(0, field.selectionEnd).replace(REFUSED, "");
            field.value = before + field.value.slice(field.selectionEnd).replace(REFUSED, "");
            field.setSelectionRange(before.length, before.length);
        }
        this.presence.typed();
        this.typing ??= setTimeout(() => this.flush(), TYPING);
    }

    flush() {
        clearTimeout(this.typing);
        this.typing = null;
        this.due = true;
        this.pump();
    }

    /** On disk first. */
    keepDrafts(drafts) {
        for (const { id, body } of drafts) {
            this.lastDraft = Math.max(id, this.lastDraft ?? 0);
            const changes = (this.drafts.get(id)?.changes ?? 0) + 1;
            const draft = { body, changes, isKept: false };
            this.drafts.set(id, draft);
            this.save(async () => {
                await this.store.draft(id, body, changes);
                draft.isKept = true;
                this.studio.write(id, body);
                this.show();
            });
        }
    }

    keep(turn, records, done) {
        this.save(async () => {
            await this.store.keep(records, done);
            done.forEach((id) => this.drafts.delete(id));
            this.appended.push(...done);
            this.studio.kept(turn);
            this.show();
            this.pump();
        });
    }

    /** One after the other. */
    save(what) {
        this.saving = this.saving.then(what).catch((error) => this.fail(`This browser keeps nothing any more: ${error.message}`));
    }

    // --- reports ---

    set isConnected(isConnected) {
        if (isConnected !== this.wasConnected) {
            this.wasConnected = isConnected;
            this.studio.connect(isConnected);
        }
    }

    show() {
        this.presence.show();
        if (!this.isOpen && !this.problem) {
            return;
        }
        const { granted, failed } = this.studio.status().notes;
        // nothing is reported as stored before it is on disk
        const kept = [...this.drafts.values()].filter(({ isKept }) => isKept);
        const changes = kept.reduce((sum, draft) => sum + draft.changes, 0);
        say($("notes-state"), this.problem ?? this.words(changes, granted, failed));
        const others = [
            this.store.why && `This browser keeps nothing of the notes: ${this.store.why}. What is not sent when this tab is closed is lost.`,
            this.aside.size > 0 && `${this.aside.size === 1 ? "One author was" : `${this.aside.size} authors were`} set aside: what came from there makes the document fail.`,
            this.isFull && "The document is as long as it may be: nothing can be added.",
        ];
        say($("notes-warning"), others.filter(Boolean).join(" "));
        $("notes-warning").hidden = !others.some(Boolean);
    }

    words(changes, granted, failed) {
        const counted = changes === 1 ? "1 change" : `${changes} changes`;
        const kept = `${counted} ${this.store.why ? "in this tab" : "kept here"}`;
        if (failed) {
            return `Nothing more can be written: ${failed}.`;
        }
        if (this.isOpening || !this.worker) {
            return "The document is being opened.";
        }
        if (!this.wasConnected) {
            return changes > 0 ? `Offline, ${kept}.` : "Offline. What you write is kept here, and sent later.";
        }
        if (changes > 0 && !granted) {
            return `${kept[0].toUpperCase()}${kept.slice(1)}, until who presents lets you write.`;
        }
        return changes > MANY ? `${counted} on their way.` : "All who attend read this, and may write.";
    }

    /** Removed from this browser; the tab goes on. */
    async forget() {
        await this.saving;
        await this.store.forget();
        this.show();
    }
}
