// Conflicting lines, below the text: each writer's version, and buttons that put one of them, or all, in its place. The text itself
// has the letters of all until a member chooses; the choice is a change like any other.

import { html, say } from "../common/html.js";

/** Age from which a conflicting line is shown, in milliseconds: writers who type at once write on before (chosen). */
const STANDS = 3_000;
/** So much of an author is a name, where nobody knows another (lcstudio/src/notes/apart.rs). */
const SHORT = 4;

const $ = (id) => document.getElementById(id);

export class NotesApart {
    constructor(notes) {
        Object.assign(this, { notes, all: [], since: new Map(), shown: "" });
    }

    end() {
        this.set([]);
    }

    set(all) {
        const now = performance.now();
        const known = this.since;
        this.all = all;
        this.since = new Map(all.map(({ text, versions }) => JSON.stringify([text, versions])).map((one) => [one, known.get(one) ?? now]));
        this.show();
    }

    show() {
        clearTimeout(this.timer);
        const now = performance.now();
        const age = (one) => now - this.since.get(JSON.stringify([one.text, one.versions]));
        const standing = this.all.filter((one) => age(one) >= STANDS);
        const next = Math.min(...this.all.map(age).filter((old) => old < STANDS).map((old) => STANDS - old));
        if (next < Infinity) {
            this.timer = setTimeout(() => this.show(), next);
        }
        const rows = standing.map((one) => ({ ...one, line: this.notes.presence.lineOf(this.notes.inField(one.at)), names: one.versions.map(({ authors }) => this.named(authors)) }));
        const wanted = JSON.stringify(rows);
        if (wanted !== this.shown) {
            this.shown = wanted;
            const count = rows.length === 1 ? "One line was" : `${rows.length} lines were`;
            say($("apart-state"), rows.length === 0 ? "" : `${count} written by several at once, and the text has the letters of all. Here is what each had: choose, or write the line anew.`);
            $("apart-lines").replaceChildren(...rows.map((row) => this.item(row)));
        }
        $("apart").hidden = rows.length === 0;
    }

    /** As they call themselves, if they show themselves. */
    named(authors) {
        const { notes } = this;
        const own = notes.studio.status().notes.author;
        const name = (author) => (author === "own" || author === own ? "you" : notes.presence.others.get(author)?.name || `author ${author.slice(0, SHORT)}`);
        return [...new Set(authors.map(name))].join(", ");
    }

    item({ at, text, versions, line, names }) {
        const item = html("li", {}, html("strong", {}, `Line ${line}`));
        const take = (label, lines, name = label) => {
            const button = html("button", { type: "button", "aria-label": `${name}, line ${line}` }, label);
            button.addEventListener("click", () => this.take(at, text, lines.join("\n")));
            return button;
        };
        const rows = versions.map(({ line: own }, n) => html("li", {}, html("bdi", { class: "by" }, names[n]), html("q", { dir: "auto" }, own), take("Take this", [own], `Take this, of ${names[n]}`)));
        item.append(html("ul", {}, ...rows));
        if (versions.length > 1) {
            item.append(take("Keep all, each as a line", versions.map(({ line: own }) => own)));
        }
        return item;
    }

    /** Puts this in place of the line, unless it was changed meanwhile: then it is looked at again anyway. */
    take(at, text, chosen) {
        const { notes } = this;
        const { field } = notes;
        const begin = notes.inField(at);
        if (field.readOnly || field.value.slice(begin, begin + text.length) !== text) {
            return;
        }
        field.setRangeText(chosen, begin, begin + text.length, "end");
        field.focus();
        notes.typed();
        notes.flush();
    }
}
