// Captions, line by line: as a log, or one line on request.

import { fill, html, say } from "../common/html.js";

/** So many lines are shown at first, and so many more each time that earlier ones are asked for. */
const LINES = 200;
/** So near to its end a log follows it, in pixels. */
const NEAR = 48;

const $ = (id) => document.getElementById(id);

export class Captions {
    constructor() {
        Object.assign(this, { most: LINES, items: new Map(), lines: [], languages: [], at: -1, isAtEnd: true });
        $("log").addEventListener("scroll", () => this.scrolled());
        // another width, another size: the end stays in view
        new ResizeObserver(() => this.follow()).observe($("log"));
        $("newest").addEventListener("click", () => {
            this.toEnd();
            $("log").focus({ preventScroll: true });
        });
        $("line-before").addEventListener("click", () => this.step(-1));
        $("line-after").addEventListener("click", () => this.step(1));
    }

    /** Earlier lines are wanted, too. */
    extend() {
        this.most += LINES;
    }

    /** `shown.lines`: the last ones. Returns the new ones since the last call. */
    show({ earlier, lines }, languages) {
        const fresh = lines.filter(({ id }) => !this.items.has(id));
        Object.assign(this, { lines, languages });
        const before = this.items;
        this.items = new Map();
        let [speaker, language] = [null, null];
        for (const line of lines) {
            const item = before.get(line.id) ?? html("p", { dir: "auto" }, html("span", { class: "tag" }), html("b"), html("span"));
            const isSame = line.speaker === speaker && line.language === language;
            [speaker, language] = [line.speaker, line.language];
            this.dress(item, line, !isSame);
            this.items.set(line.id, item);
        }
        this.place([...this.items.values()]);
        $("earlier").hidden = earlier === 0;
        this.follow();
        if (!this.isAtEnd) {
            $("newest").hidden = fresh.length === 0 && $("newest").hidden;
        }
        this.showSingle();
        return fresh;
    }

    dress(item, { language, speaker, text, corrected }, isFirst) {
        const [tag, name, words] = item.children;
        item.lang = language;
        item.dataset.colour = Math.max(0, this.languages.indexOf(language)) % 4;
        tag.textContent = this.languages.length > 1 ? language : "";
        tag.hidden = this.languages.length < 2;
        name.textContent = isFirst && speaker ? `${speaker}: ` : "";
        item.classList.toggle("first", isFirst);
        item.classList.toggle("corrected", corrected);
        // no backticks: captions are speech
        if (words.textContent !== text) {
            words.textContent = text;
        }
    }

    /** Only new lines move: a log announces additions. */
    place(items) {
        const log = $("log");
        if (items.length === 0) {
            log.querySelector(".hint") ?? fill(log, [html("p", { class: "hint" }, "Nothing has been said yet.")]);
            return;
        }
        [...log.children].filter((item) => !items.includes(item)).forEach((item) => item.remove());
        items.forEach((item, at) => log.children[at] !== item && log.insertBefore(item, log.children[at] ?? null));
    }

    scrolled() {
        const log = $("log");
        const isSame = this.height === log.scrollHeight && this.room === log.clientHeight;
        if (this.isAtEnd && !isSame) {
            // nobody scrolled: it has another width, or more lines
            this.toEnd();
            return;
        }
        this.isAtEnd = log.scrollHeight - log.clientHeight - log.scrollTop < NEAR;
        if (this.isAtEnd) {
            $("newest").hidden = true;
        }
    }

    /** A reader at the end stays at the end. */
    follow() {
        if (this.isAtEnd) {
            this.toEnd();
        }
    }

    toEnd() {
        const log = $("log");
        log.scrollTop = log.scrollHeight;
        Object.assign(this, { isAtEnd: true, height: log.scrollHeight, room: log.clientHeight });
        $("newest").hidden = true;
    }

    // --- one line when it is asked for ---

    step(by) {
        this.at = Math.min(Math.max(this.index() + by, 0), this.lines.length - 1);
        this.read = this.lines[this.at]?.id;
        this.showSingle();
    }

    /** Where the line that was read last stands now. */
    index() {
        const at = this.lines.findIndex(({ id }) => id === this.read);
        return at >= 0 ? at : this.read ? 0 : -1;
    }

    showSingle() {
        const at = this.index();
        const line = this.lines[at];
        const waiting = this.lines.length - 1 - at;
        $("line").lang = line?.language ?? "";
        const first = this.languages.length > 1 && line ? `${line.language}: ` : "";
        say($("line"), line ? `${first}${line.speaker ? `${line.speaker}: ` : ""}${line.text}`.replaceAll("`", "'") : "Press “Next line” to read.");
        say($("left"), waiting === 0 ? "nothing new" : `${waiting} ${waiting === 1 ? "line waits" : "lines wait"}`);
        // a button that has the focus stays one
        $("line-before").setAttribute("aria-disabled", String(at <= 0));
        $("line-after").setAttribute("aria-disabled", String(waiting === 0));
    }
}
