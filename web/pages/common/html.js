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
    if (navigator.clipboard) {
        return navigator.clipboard.writeText(text).then(() => true, () => false);
    }
    // over http:// from another host browsers have no clipboard for pages
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
