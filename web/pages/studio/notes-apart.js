// Conflicting lines: several members wrote them at once, each without the others' words, and the document puts the letters of all
// beside each other. This module finds each member's line again. It is a function of the history alone: the same history gives the
// same lines, and no node writes by itself. Hosts do the same: lcstudio/src/notes/apart.rs has the method.

/** Longest text that is looked at, in UTF-16 units: as long as marks are drawn in one (notes-presence.js). */
const MAX_LETTERS = 50_000;
/** Longest line that is looked at, in UTF-16 units (chosen). */
const MAX_LINE = 2_000;
/** Most lines that are found, the first ones of the text: each costs a look at older texts (chosen). */
const MAX_MARKS = 32;
/** Most versions of a line (chosen). */
const MAX_VERSIONS = 8;
/** Most pieces of a line, by writer and time (chosen). */
const MAX_PIECES = 128;
/** Most lines that are remembered: then they are found again. */
const MAX_LINES = 4 * MAX_MARKS * MAX_VERSIONS;
/** So far the changes of one writer are followed until he knew of the others, in changes of the document (chosen). */
const MAX_STEPS = 256;

const WORD = /[\p{Alphabetic}\p{N}]/u;
const idOf = ({ peer, counter }) => `${counter}@${peer}`;
const knows = (past, peer, counter) => (past.get(peer) ?? 0) > counter;
/** The later one of two letters of a writer. */
const latest = (a, b) => (a && a.counter >= b.counter ? a : b);
const key = (...ids) => ids.map(idOf).join(" ");
/** Peers are numbers of 64 bits. */
const byPeer = ([a], [b]) => (BigInt(a) < BigInt(b) ? -1 : 1);

export class Apart {
    constructor({ doc, text }) {
        // results, by the place of the line; ranges still to be examined
        Object.assign(this, { doc, text, authors: new Map(), lines: new Map(), found: new Map(), ranges: [], seen: null });
    }

    /** This author's entry has changes of these writers of the document. */
    wrote(author, peers) {
        for (const peer of peers) {
            this.authors.set(peer, (this.authors.get(peer) ?? new Set()).add(author));
        }
    }

    /** Each line that several have written at once: [at, { text, versions: [{ authors, line }] }], in order. */
    all() {
        return [...this.found].sort(([a], [b]) => a - b);
    }

    /** Looks at lines that have changed, for so many milliseconds: Loro takes 0.1 ms for a letter. Whether all are done. */
    look(time) {
        const until = performance.now() + time;
        const whole = this.text.toString();
        if (whole.length > MAX_LETTERS) {
            Object.assign(this, { found: new Map(), ranges: [], seen: null });
            return true;
        }
        const now = this.doc.frontiers();
        this.follow(now, whole);
        while (this.ranges.length > 0 && performance.now() < until) {
            const [from, to] = this.ranges.pop();
            const [[at, end]] = linesOf(whole, from, from);
            if (end < to) {
                this.ranges.push([end + 1, to]);
            }
            const versions = this.versions(whole, at, end, now);
            const isFull = this.found.size === MAX_MARKS;
            const wasFound = this.found.delete(at);
            if (versions && (wasFound || !isFull)) {
                this.found.set(at, { text: whole.slice(at, end), versions });
            } else if (wasFound && isFull) {
                // there may be others
                this.ranges = [[0, whole.length]];
            }
        }
        return this.ranges.length === 0;
    }

    /** Moves results and unexamined ranges to their present places. Shown lines are examined again: a writer may have gone on elsewhere. */
    follow(now, whole) {
        if (!this.seen) {
            this.ranges = [[0, whole.length]];
        } else if (key(...this.seen) !== key(...now)) {
            const steps = this.steps(this.seen, now);
            let [first, last, at] = [null, 0, 0];
            for (const { retain, insert } of steps) {
                if (retain) {
                    at += retain;
                } else {
                    first ??= at;
                    at += insert?.length ?? 0;
                    last = at;
                }
            }
            const found = [...this.found].map(([place, one]) => [placeOf(steps, place), one]);
            this.ranges = this.ranges.map(([from, to]) => [placeOf(steps, from), placeOf(steps, to)]);
            this.ranges.push(...found.map(([place]) => [place, place]), [first ?? 0, last]);
            // a line that has joined another begins no more
            const begins = ([place]) => place === 0 || whole[place - 1] === "\n";
            this.found = new Map(found.filter(begins));
        }
        this.seen = now;
    }

    /** How the text of one version becomes that of another. */
    steps(from, to) {
        const texts = this.doc.diff(from, to, false).filter(([container, { type }]) => container === this.text.id && type === "text");
        return texts.flatMap(([, { diff }]) => diff);
    }

    /** Changes that were known to this writer at this change. */
    change(id) {
        const change = this.doc.getChangeAt(id);
        const past = this.doc.frontiersToVV(change.deps);
        const known = past.toJSON();
        past.free();
        return { peer: id.peer, begin: change.counter, end: change.counter + change.length, past: known };
    }

    /** Each letter of a line: its piece, its number among the changes of its writer, and where it is. */
    letters(whole, begin, end) {
        const pieces = [];
        const letters = [];
        for (let at = begin; at < end; at += whole.codePointAt(at) > 0xffff ? 2 : 1) {
            const cursor = this.text.getCursor(at);
            const id = cursor?.pos();
            cursor?.free();
            if (!id) {
                return null;
            }
            const { peer, counter } = id;
            const isOf = (piece) => piece.peer === peer && piece.begin <= counter && counter < piece.end;
            let piece = letters.length > 0 && isOf(letters.at(-1).piece) ? letters.at(-1).piece : pieces.find(isOf);
            if (!piece) {
                if (pieces.length === MAX_PIECES) {
                    return null;
                }
                piece = { ...this.change(id), last: counter };
                pieces.push(piece);
            }
            piece.last = Math.max(piece.last, counter);
            letters.push({ piece, peer, counter, at });
        }
        return { pieces, letters };
    }

    /** Each writer's version of a line; null if there are not several. */
    versions(whole, begin, end, now) {
        const line = end - begin <= MAX_LINE ? this.letters(whole, begin, end) : null;
        if (!line || line.pieces.length < 2) {
            return null;
        }
        const { pieces, letters } = line;
        const isKnown = (piece, { peer, counter }) => (piece.peer === peer ? piece.last > counter : knows(piece.past, peer, counter));
        const stands = ([a, b]) =>
            a.peer !== b.peer &&
            !knows(a.piece.past, b.peer, b.counter) &&
            !knows(b.piece.past, a.peer, a.counter) &&
            !pieces.some((piece) => isKnown(piece, a) && isKnown(piece, b));
        const live = pairsOf(whole, letters).filter(stands).flat();
        if (live.length === 0) {
            return null;
        }
        // the last letter of each writer that some of the others did not know
        const isCommon = ({ peer, counter }) => live.every((other) => (other.peer === peer && other.counter >= counter) || knows(other.piece.past, peer, counter));
        const writers = new Map();
        for (const letter of letters.filter((one) => !isCommon(one))) {
            writers.set(letter.peer, latest(writers.get(letter.peer), letter));
        }
        const all = [...writers].sort(byPeer).map(([peer, letter]) => ({ peer, letter, last: this.lastApart(letter, writers), past: letter.piece.past }));
        const last = all.filter(({ peer, letter }) => !all.some((other) => other.peer !== peer && knows(other.past, peer, letter.counter)));
        if (last.length < 2 || last.length > MAX_VERSIONS) {
            return null;
        }
        const versions = new Map();
        for (const { peer, letter, last: counter } of last) {
            const name = `${key({ peer, counter }, letter, letters[0], letters.at(-1))} ${letters.length}`;
            if (!this.lines.has(name)) {
                if (this.lines.size >= MAX_LINES) {
                    this.lines.clear();
                }
                this.lines.set(name, this.lineAt(now, whole, { peer, counter }, letter.at, letters));
            }
            const text = this.lines.get(name);
            if (text === null) {
                return null;
            }
            const authors = versions.get(text) ?? new Set();
            this.authors.get(peer)?.forEach((author) => authors.add(author));
            versions.set(text, authors);
        }
        const isLong = [...versions.keys()].some((text) => text.length > MAX_LINE);
        const isSame = versions.size === 1 && versions.has(whole.slice(begin, end));
        return isLong || isSame ? null : [...versions].map(([text, authors]) => ({ line: text, authors: [...authors].sort() }));
    }

    /** The last change of a writer before he knew of another. */
    lastApart({ peer, counter, piece }, writers) {
        const others = [...writers.values()].filter((other) => other.peer !== peer && !knows(piece.past, other.peer, other.counter));
        const count = this.doc.version().toJSON().get(peer) ?? 0;
        let last = counter;
        for (let step = 0; step < MAX_STEPS && last + 1 < count; step += 1) {
            const next = this.change({ peer, counter: last + 1 });
            if (others.some((other) => knows(next.past, other.peer, other.counter))) {
                break;
            }
            last = next.end - 1;
        }
        return last;
    }

    /**
     * The line as its writer had it after this change: the one of the letter that is at this place now. Null where another of
     * these letters was on another line.
     */
    lineAt(now, whole, version, at, letters) {
        const steps = this.steps(now, [version]);
        let [text, from] = ["", 0];
        for (const { retain = 0, insert = "", delete: remove = 0 } of steps) {
            text += whole.slice(from, from + retain) + insert;
            from += retain + remove;
        }
        text += whole.slice(from);
        const place = placeOf(steps, at);
        const [[begin, end]] = linesOf(text, place, place);
        const past = this.doc.frontiersToVV([version]);
        const known = past.toJSON();
        past.free();
        const isInside = (letter) => {
            const was = placeOf(steps, letter.at);
            return !knows(known, letter.peer, letter.counter) || (begin <= was && was < end);
        };
        return letters.every(isInside) ? text.slice(begin, end) : null;
    }
}

/** Letters side by side, and those of one word. */
function pairsOf(whole, letters) {
    const pairs = [];
    let word = new Map();
    letters.forEach((letter, n) => {
        const before = letters[n - 1];
        if (before && before.piece !== letter.piece) {
            pairs.push([before, letter]);
        }
        const isInWord = WORD.test(String.fromCodePoint(whole.codePointAt(letter.at)));
        if (isInWord) {
            word.set(letter.piece, latest(word.get(letter.piece), letter));
        }
        if (!isInWord || n === letters.length - 1) {
            const all = [...word.values()];
            all.forEach((one, at) => pairs.push(...all.slice(at + 1).map((other) => [one, other])));
            word = new Map();
        }
    });
    return pairs;
}

/** The lines of a range, without their ends. */
function* linesOf(text, from, to) {
    let at = from === 0 ? 0 : text.lastIndexOf("\n", from - 1) + 1;
    for (;;) {
        const found = text.indexOf("\n", at);
        const end = found < 0 ? text.length : found;
        yield [at, end];
        if (end >= to) {
            return;
        }
        at = end + 1;
    }
}

/** Where a letter is after these steps. */
function placeOf(steps, at) {
    let [before, now] = [0, 0];
    for (const { retain = 0, insert = "", delete: remove = 0 } of steps) {
        if (retain > 0 && before + retain > at) {
            break;
        }
        if (remove > 0 && before + remove > at) {
            return now;
        }
        before += retain + remove;
        now += retain + insert.length;
    }
    return now + at - before;
}
