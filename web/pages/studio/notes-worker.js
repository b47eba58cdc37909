// The document of notes: Loro runs here and nowhere else. An update of another member may make it fail, or take for ever: then the
// page ends this worker, and opens the document without that update.
//
//   in   { edit: { at, remove, insert } or null, updates: [{ author, number, body }], drafts: [body], appended: [id], whole, at, cursors,
//        isPlain }
//   out  { trying } before each update, { pending } behind one that needs others first; at the end { remote, text, drafts, isFull, cursor,
//        places }, or { bad, why }: this update does harm, or { failed }
//        in between, { apart }: lines that several have written at once are looked for; those that were found, or null

import { load, LoroDoc, decodeImportBlobMeta } from "../vendor/loro.js";
import { Apart } from "./notes-apart.js";

/** The document's only text. */
const NAME = "notes";
/** Longest body of an entry, in bytes (librecast-log). */
const MAX_BODY = 1000;
/** So much text is written at once: its update fits into an entry, whatever the letters (three bytes each at most). */
const PIECE = 250;
/** Longest document that is shown, in UTF-16 units: a text field edits it without delay (chosen). */
const MAX_TEXT = 1_000_000;
/** Characters that no text has: controls but breaks and tabs, those that turn text around, invisible ones (lcstudio-core, plain). */
const REFUSED = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069\u2028\u2029\ufff9-\ufffb\ufeff]|[\u{e0000}-\u{e007f}]/gu;

/** As long as it was: places stay. */
const shown = (text) => text.replace(REFUSED, (found) => "\ufffd".repeat(found.length));

const ready = (async () => {
    const answer = await fetch(new URL("../vendor/loro.wasm", import.meta.url));
    if (!answer.ok) {
        throw new Error("Loro is not installed.");
    }
    await load({ module_or_path: await answer.arrayBuffer() });
    const doc = new LoroDoc();
    const text = doc.getText(NAME);
    const apart = new Apart({ doc, text });
    apart.wrote(OWN, [doc.peerIdStr]);
    postMessage({ ready: true });
    return { doc, text, peer: doc.peerIdStr, apart };
})();
ready.catch(({ message }) => postMessage({ failed: message }));

/** This writer, among authors. */
const OWN = "own";
/** Longest search for conflicting lines in one go, in milliseconds: updates do not wait longer. */
const LOOK = 50;

/** Longest cursor that is sent, in bytes (lcstudio-core, presence). */
const MAX_CURSOR = 64;

/** Cursors of others, by author. */
const cursors = new Map();

/** The draft that may still grow: its number, and where its changes begin among ours. */
let growing = null;
let nextDraft = 1;

addEventListener("message", async ({ data }) => {
    try {
        const loro = await ready;
        const answer = work(loro, data);
        postMessage(answer);
        if (!answer.bad && !data.isPlain && (data.whole || isOpen)) {
            isOpen = true;
            looking ??= setTimeout(look, 0, loro);
        }
    } catch (error) {
        postMessage({ failed: String(error?.message ?? error) });
    }
});

/** The document was given whole; lines are being looked for. */
let isOpen = false;
let looking = null;

function look(loro) {
    looking = null;
    // this may take too long
    postMessage({ apart: null });
    const isDone = loro.apart.look(LOOK);
    const found = loro.apart.all().map(([at, { text, versions }]) => ({ at, text: shown(text), versions: versions.map(({ line, authors }) => ({ line: shown(line), authors })) }));
    postMessage({ apart: found });
    if (!isDone) {
        looking ??= setTimeout(look, 0, loro);
    }
}

function work(loro, { edit = null, updates = [], drafts = [], appended = [], firstDraft, whole = false, at = null, cursors: changed = [] }) {
    const { doc, text } = loro;
    nextDraft = firstDraft ?? nextDraft;
    if (appended.includes(growing?.id)) {
        growing = null;
    }
    const made = new Map();
    if (edit) {
        write(loro, edit, made);
    }
    const cursor = at === null ? null : cursorAt(loro, at);
    const before = doc.frontiers();
    // ours, of a visit before
    drafts.forEach((body) => take(loro, body, OWN));
    for (const { author, number, body } of updates) {
        postMessage({ trying: { author, number } });
        const { why, pending } = take(loro, body, author);
        if (why) {
            return { bad: { author, number }, why };
        }
        if (pending) {
            postMessage({ pending: { author, number } });
        }
    }
    return {
        remote: whole ? [] : changes(loro, before),
        text: whole ? shown(text.toString().slice(0, MAX_TEXT)) : null,
        drafts: [...made].map(([id, body]) => ({ id, body })),
        isFull: text.length > MAX_TEXT,
        cursor,
        places: placesOf(loro, changed),
    };
}

/** A place of ours, as it is sent. */
function cursorAt({ text }, at) {
    const cursor = text.getCursor(Math.min(at, text.length));
    const bytes = cursor?.encode() ?? [];
    cursor?.free();
    return bytes.length <= MAX_CURSOR ? bytes : null;
}

/** Places of others: author and place of each with a cursor in this text. `changed`: [author, cursor], null if it has gone. */
function placesOf(loro, changed) {
    for (const [author, cursor] of changed) {
        if (cursor) {
            cursors.set(author, cursor);
        } else {
            cursors.delete(author);
        }
    }
    const found = [];
    for (const [author, cursor] of cursors) {
        // this one may do harm
        postMessage({ placing: author });
        const at = placeOf(loro, cursor);
        if (at !== null) {
            found.push([author, Math.min(at, MAX_TEXT)]);
        }
    }
    return found;
}

function placeOf({ doc, text }, bytes) {
    const ours = text.getCursor(0);
    let cursor = null;
    try {
        cursor = ours.constructor.decode(bytes);
        const isOurs = cursor.containerId() === text.id;
        return isOurs ? (doc.getCursorPos(cursor)?.offset ?? null) : null;
    } catch (error) {
        if (error instanceof WebAssembly.RuntimeError) {
            throw error;
        }
        // of nothing that is here
        return null;
    } finally {
        cursor?.free();
        ours.free();
    }
}

/** Why this update counts for nothing, if so; whether it needs others first. */
function take({ doc, apart }, body, author) {
    try {
        // refused from others: a whole document in place of a change
        const { mode, partialEndVersionVector } = decodeImportBlobMeta(body, true);
        if (mode !== "update") {
            return { why: `not a change but a ${mode}` };
        }
        const { pending } = doc.import(body);
        apart.wrote(author, partialEndVersionVector.toJSON().keys());
        return { pending: pending !== null };
    } catch (error) {
        return { why: String(error?.message ?? error) };
    }
}

/** Changes of others, as a list of { at, remove, insert }, each in the text after those before it. */
function changes({ doc, text }, before) {
    const steps = [];
    for (const [container, { type, diff }] of doc.diff(before, doc.frontiers(), false)) {
        if (container !== text.id || type !== "text") {
            continue;
        }
        let at = 0;
        for (const { retain, insert, delete: remove } of diff) {
            if (retain) {
                at += retain;
            } else if (remove) {
                steps.push({ at, remove, insert: "" });
            } else if (insert) {
                steps.push({ at, remove: 0, insert: shown(insert) });
                at += insert.length;
            }
        }
    }
    return steps;
}

function write(loro, { at, remove, insert }, made) {
    if (remove) {
        step(loro, made, () => loro.text.delete(at, remove));
    }
    for (const piece of pieces(insert)) {
        step(loro, made, () => loro.text.insert(at, piece));
        at += piece.length;
    }
}

/** Never between the halves of a character. */
function* pieces(text) {
    for (let begin = 0; begin < text.length; ) {
        let end = Math.min(begin + PIECE, text.length);
        if (end < text.length && /[\ud800-\udbff]/.test(text[end - 1])) {
            end -= 1;
        }
        yield text.slice(begin, end);
        begin = end;
    }
}

/** A change of ours, in the draft that grows or in another one. */
function step({ doc, peer }, made, change) {
    const from = count(doc, peer);
    change();
    doc.commit();
    const to = count(doc, peer);
    const since = (begin) => doc.export({ mode: "updates-in-range", spans: [{ id: { peer, counter: begin }, len: to - begin }] });
    const longer = growing && since(growing.from);
    if (longer && longer.length <= MAX_BODY) {
        made.set(growing.id, longer);
        return;
    }
    growing = { id: nextDraft++, from };
    const body = since(from);
    if (body.length > MAX_BODY) {
        throw new Error(`an update of ${body.length} bytes`);
    }
    made.set(growing.id, body);
}

function count(doc, peer) {
    return doc.version().toJSON().get(peer) ?? 0;
}
