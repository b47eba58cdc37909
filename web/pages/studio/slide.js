// A slide as elements of this page. It was written by others, so only elements and attributes of this list are made, whatever its
// HTML says; it is read in a document that runs nothing and fetches nothing.

import { html } from "../common/html.js";

/** Elements of a slide, each as what this page has of it: its own headings come before. */
const ELEMENTS = {
    ...{ H1: "h2", H2: "h3", H3: "h4", H4: "h5", H5: "h6", H6: "h6" },
    ...{ P: "p", UL: "ul", OL: "ol", LI: "li", BLOCKQUOTE: "blockquote", PRE: "pre", CODE: "code", HR: "hr", BR: "br" },
    ...{ EM: "em", STRONG: "strong", DEL: "del", TABLE: "table", THEAD: "thead", TBODY: "tbody", TR: "tr", TH: "th", TD: "td" },
};
const ALIGN = ["left", "center", "right"];
/** Where links may lead. */
const LINK = /^(https?:\/\/|mailto:)/i;

/** How cells of tables are aligned: by a style, which a policy of this page refuses. A `<` in the text of a slide is escaped. */
const ALIGNED = /<(t[hd]) style="text-align: (left|center|right)">/g;

/** `text`: HTML of a slide. */
export function elements(text) {
    const { body } = new DOMParser().parseFromString(text.replaceAll(ALIGNED, '<$1 class="$2">'), "text/html");
    return children(body);
}

const children = (node) => [...node.childNodes].flatMap(one);

function one(node) {
    if (node.nodeType === Node.TEXT_NODE) {
        return [node.data];
    }
    if (node.nodeType !== Node.ELEMENT_NODE) {
        return [];
    }
    if (node.tagName === "IMG") {
        return [picture(node.getAttribute("alt"))];
    }
    if (node.tagName === "A" && LINK.test(node.getAttribute("href") ?? "")) {
        return [html("a", { href: node.getAttribute("href"), target: "_blank", rel: "noreferrer noopener" }, ...children(node))];
    }
    const name = ELEMENTS[node.tagName];
    if (!name) {
        return children(node);
    }
    const made = html(name, attributes(node), ...children(node));
    // what is wider than the page scrolls, by keyboard as well
    return [name === "table" ? html("div", { class: "scrolled", role: "region", "aria-label": "Table", tabindex: "0" }, made) : made];
}

function attributes(node) {
    const start = Number(node.getAttribute("start"));
    if (node.tagName === "OL" && Number.isInteger(start) && node.hasAttribute("start")) {
        return { start };
    }
    const isCell = ["TH", "TD"].includes(node.tagName);
    return { ...(node.tagName === "TH" && { scope: "col" }), ...(isCell && ALIGN.includes(node.className) && { class: node.className }) };
}

/** Pictures are not sent: what they show is. */
function picture(alt) {
    return html("span", { class: "picture" }, html("b", {}, "Picture"), " ", alt?.trim() || "without a description");
}
