// Links that somebody opened in this browser, so that they are found again. In the browser alone, and until they are forgotten.

const LINKS = "lcroute links";
/** Links that are kept, the latest ones. Chosen: as many as a list shows that is looked through. */
const KEPT = 24;
/** Letters of a name. */
const LONGEST = 120;

/** As they were read last. */
let read = { json: "[]", links: [] };

/** The latest first: `{ kind: "station" or "session", text, name, groups }`. */
export function keptLinks() {
    try {
        const json = localStorage.getItem(LINKS) ?? "[]";
        if (json !== read.json) {
            read = { json, links: JSON.parse(json).filter(({ kind, text, name }) => kind && text && name) };
        }
        return read.links;
    } catch {
        // none of ours, or this browser keeps nothing
        return [];
    }
}

/** Keeps one, with the groups that it leads to. */
export function keepLink({ kind, text, name, groups }) {
    const link = { kind, text, name: name.slice(0, LONGEST), groups: [...groups] };
    const [first, ...rest] = keptLinks();
    // pages report it repeatedly
    if (JSON.stringify(first) !== JSON.stringify(link)) {
        store([link, ...[first, ...rest].filter((other) => other && other.text !== text)].slice(0, KEPT));
    }
}

export function forgetLink(text) {
    store(keptLinks().filter((link) => link.text !== text));
}

function store(links) {
    try {
        localStorage.setItem(LINKS, JSON.stringify(links));
    } catch {
        // a browser that keeps nothing: then there is nothing to find again
    }
}
