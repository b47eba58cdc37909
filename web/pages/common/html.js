// Elements of pages. Text only, never markup: names and reasons come from other hosts.

const SVG = "http://www.w3.org/2000/svg";

export const html = (name, attributes, ...children) => dress(document.createElement(name), attributes, children);
export const element = (name, attributes, ...children) => dress(document.createElementNS(SVG, name), attributes, children);

function dress(made, attributes = {}, children) {
    for (const [key, value] of Object.entries(attributes)) {
        made.setAttribute(key, value);
    }
    made.append(...children);
    return made;
}

export function fill(host, children) {
    host.replaceChildren(...children);
}

/** Text between `backticks` becomes code. */
export const words = (text) => text.split("`").map((part, i) => (i % 2 === 1 ? html("code", {}, part) : part));

/** An address of the web in text, up to what cannot be in one. */
const ADDRESS = /https?:\/\/[^\s<>"`\p{Cc}\p{Cf}\ufffd]+/giu;
/** What follows an address in a sentence. */
const AFTER = /[.,;:!?'’”…\])}]+$/u;

/** Text of others, in which addresses of the web are links; `isWhole`: false if it is cut, perhaps within one. */
export function linked(text, isWhole = true) {
    const parts = [];
    let end = 0;
    for (const { 0: found, index } of text.matchAll(ADDRESS)) {
        const shown = withoutAfter(found);
        const isCut = !isWhole && index + found.length === text.length;
        const url = isCut ? null : safe(shown);
        if (url) {
            const link = html("a", { href: url.href, title: url.host, target: "_blank", rel: "noopener noreferrer nofollow" }, shown);
            parts.push(text.slice(end, index), link);
            end = index + shown.length;
        }
    }
    return [...parts, text.slice(end)].filter((part) => part !== "");
}

/** A bracket that the address itself has opened belongs to it. */
function withoutAfter(found) {
    const shown = found.replace(AFTER, "");
    return found[shown.length] === ")" && shown.lastIndexOf("(") > shown.lastIndexOf(")") ? `${shown})` : shown;
}

/** Nothing but http and https, and no name before an @ that looks like a host. */
function safe(address) {
    try {
        const url = new URL(address);
        return ["http:", "https:"].includes(url.protocol) && url.username === "" && url.password === "" ? url : null;
    } catch {
        return null;
    }
}

/** Text of others as one word of a shell's command. */
export const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

/** Writes only changes: a selection stays, and screen readers read nothing twice. */
export function say(host, text) {
    if (host.said !== text) {
        host.said = text;
        fill(host, words(text));
    }
}

/** Rows of a list of names and values; `isToCopy`: with a button that does. */
export function facts(host, rows) {
    while (host.children.length > rows.length) {
        host.lastChild.remove();
    }
    for (const [at, [name, value, isToCopy = false]] of rows.entries()) {
        const row = host.children[at] ?? host.appendChild(html("div", {}, html("dt"), html("dd", {}, html("span"), copier())));
        const [text, copy] = row.lastChild.children;
        say(row.firstChild, name);
        say(text, value);
        copy.hidden = !isToCopy;
        copy.value = value;
        copy.setAttribute("aria-label", `Copy: ${name}`);
    }
}

/** A button that copies its value. */
export function copier(value = "", label = "Copy") {
    const button = html("button", { type: "button", class: "copy", value }, label);
    button.addEventListener("click", async () => {
        button.textContent = (await copy(button.value)) ? "Copied" : "Not copied";
        setTimeout(() => (button.textContent = label), 1500);
    });
    return button;
}

async function copy(text) {
    try {
        await navigator.clipboard.writeText(text);
        return true;
    } catch {
        // it refuses, or over http:// from another host there is none for pages
    }
    const field = html("textarea", { class: "unseen" });
    field.value = text;
    document.body.append(field);
    field.select();
    const isDone = document.execCommand("copy");
    field.remove();
    return isDone;
}

/** `heads`: words, or words and a class of the column's cells. `none`: the text of a table without rows. */
export function table(host, title, heads, rows, none) {
    const isEmpty = rows.length === 0;
    const columns = heads.map((head) => [head].flat());
    if (!host.firstChild || host.dataset.empty !== String(isEmpty)) {
        host.dataset.empty = isEmpty;
        const head = html("tr", {}, ...columns.map(([text, kind = ""]) => html("th", { scope: "col", class: kind }, text)));
        const grid = html("table", {}, html("caption"), html("thead", {}, head), html("tbody"));
        fill(host, isEmpty ? [html("h2", { class: "caption" }), html("p", { class: "hint" }, ...words(none))] : [grid]);
    }
    say(host.querySelector("caption, .caption"), title);
    const body = host.querySelector("tbody");
    while (body?.rows.length > rows.length) {
        body.deleteRow(-1);
    }
    for (const [at, row] of rows.entries()) {
        const cell = ([, kind = ""], i) => html(i === 0 ? "th" : "td", i === 0 ? { scope: "row" } : { class: kind });
        const line = body.rows[at] ?? body.appendChild(html("tr", {}, ...columns.map(cell)));
        row.forEach((text, i) => say(line.children[i], text));
    }
}
