// A slide as elements of this page. It was written by others, so this module makes only elements and attributes of its list,
// whatever the HTML has; it reads the slide in a document that runs nothing and fetches nothing.

import { html } from "../common/html.js";

/** Elements of a slide, each as this page shows it. */
const ELEMENTS = {
    ...{ P: "p", UL: "ul", OL: "ol", LI: "li", BLOCKQUOTE: "blockquote", PRE: "pre", CODE: "code", HR: "hr", BR: "br" },
    ...{ EM: "em", STRONG: "strong", DEL: "del", TABLE: "table", THEAD: "thead", TBODY: "tbody", TR: "tr", TH: "th", TD: "td" },
};
const HEADINGS = "h1, h2, h3, h4, h5, h6";
const level = (heading) => Number(heading.tagName[1]);
const ALIGN = ["left", "center", "right"];
/** Where links may lead. */
const LINK = /^(https?:\/\/|mailto:)/i;

/** How cells of tables are aligned: by a style, which a policy of this page refuses. A `<` in the text of a slide is escaped. */
const ALIGNED = /<(t[hd]) style="text-align: (left|center|right)">/g;

/** The module's place of a picture among the slide's. */
const PICTURE = /^picture:(\d+)$/;

/** `text`: HTML of a slide; `picture`: gives URL, width and height of a picture that is here, by its place. */
export function elements(text, picture = () => null) {
    const { body } = new DOMParser().parseFromString(text.replaceAll(ALIGNED, '<$1 class="$2">'), "text/html");
    const levels = [...body.querySelectorAll(HEADINGS)].map(level);
    // the page's own heading comes before; a slide that begins with ## leaves no level out
    const top = Math.min(...levels, 6);
    return children(body, picture, top);
}

const children = (node, picture, top) => [...node.childNodes].flatMap((child) => one(child, picture, top));

function one(node, picture, top) {
    if (node.nodeType === Node.TEXT_NODE) {
        return [node.data];
    }
    if (node.nodeType !== Node.ELEMENT_NODE) {
        return [];
    }
    if (node.tagName === "IMG") {
        return [image(node, picture)];
    }
    if (node.tagName === "A" && LINK.test(node.getAttribute("href") ?? "")) {
        return [html("a", { href: node.getAttribute("href"), target: "_blank", rel: "noreferrer noopener" }, ...children(node, picture, top))];
    }
    const name = node.matches(HEADINGS) ? `h${Math.min(level(node) - top + 2, 6)}` : ELEMENTS[node.tagName];
    if (!name) {
        return children(node, picture, top);
    }
    const made = html(name, attributes(node), ...children(node, picture, top));
    // content wider than the page scrolls, by keyboard as well
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

/** A picture, once it is here; its text before that, or if it never comes or is none. */
function image(node, picture) {
    const alt = node.getAttribute("alt")?.trim() || "without a description";
    const words = html("span", { class: "picture" }, html("b", {}, "Picture"), " ", alt);
    const found = picture(Number(PICTURE.exec(node.getAttribute("src") ?? "")?.[1] ?? -1));
    if (!found) {
        return words;
    }
    const { url, width, height } = found;
    const made = html("img", { src: url, alt, ...(width && { width, height }), decoding: "async" });
    made.addEventListener("error", () => made.replaceWith(words));
    return made;
}
