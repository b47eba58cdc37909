// One door for all that people hand on: tokens, stations, calls, lectures, invitations to conversations, alone or in links of our pages.
// The page shows where a text leads before the user clicks.

/** Kinds of our texts, by their first letters. */
const KINDS = { lct1: "token", lcr1: "station", lcc1: "call", lcs1: "session", lcg1: "invitation" };
/** Pages of these kinds, and what people call them. */
const LEADS = {
    station: { page: "radio", what: "a radio station", label: "To the radio" },
    call: { page: "call", what: "a call", label: "To the call" },
    session: { page: "studio", what: "a lecture", label: "To the lecture" },
};
/** Those that no page takes. */
const OTHERS = {
    lca1: "an operator’s certificate",
    lcb1: "a grant to cast for a station",
    lch1: "a key that holds a conversation for others",
    lck1: "a shared key",
    lcx1: "a revocation",
};
/** A text: base58 behind its kind. No real one is shorter. */
const TEXT = /lc[a-z]1[1-9A-HJ-NP-Za-km-z]{8,}/g;
/** Longest that is looked at, in characters: a token (MAX_TOKEN in librecast) and a session, in a link. */
const LONGEST = 10_000;
const PAGES = ["/", "/node/", "/radio/", "/studio/", "/studio/present.html", "/groups/", "/call/", "/playground/", "/get/", "/send/"];
/** Files: four words with hyphens, alone or with a server, or a share behind a token. */
const WORDS = /^[a-z]{3,8}(-[a-z]{3,8}){3}(@[\w.:[\]-]+)?$/i;
const SHARE = /lct1[1-9A-HJ-NP-Za-km-z]+,lc:[^\s#]+/;

/** The four words of files in pasted text, as links have them: typed with blanks, or in a link of our pages. Null: others. */
export function fourWords(pasted) {
    const given = pasted.slice(0, LONGEST).trim().replace(/^\S*\/get\/#/, "");
    const joined = given.replace(/\s*@\s*/, "@").replace(/\s+/g, "-");
    return WORDS.test(joined) ? joined : null;
}

/** The texts within pasted text: the first of each kind. */
export function texts(pasted) {
    const found = {};
    for (const [text] of pasted.slice(0, LONGEST).matchAll(TEXT)) {
        found[KINDS[text.slice(0, 4)] ?? "other"] ??= text;
    }
    return found;
}

/**
 * Where a text leads: `{ href, label, words }`. Without `href` it leads nowhere, and `words` have the reason and the
 * remedy. A `token` alone makes its holder a member: pages read more of it. Null: nothing was pasted.
 */
export function lead(pasted, isMember) {
    if (pasted.trim() === "") {
        return null;
    }
    const files = pasted.slice(0, LONGEST).match(SHARE)?.[0] ?? fourWords(pasted);
    if (files) {
        return { href: `../get/#${files}`, label: "To the files", words: "This is what somebody sends: files." };
    }
    const all = texts(pasted);
    const { token, invitation, other } = all;
    const kind = Object.keys(LEADS).find((kind) => all[kind]);
    if (kind) {
        const { page, what, label } = LEADS[kind];
        if (!token && !isMember) {
            return { words: `This is ${what}, without an invitation to its network, and this tab is no member of one. Ask who sent it for a link with an invitation in it, or paste an invitation (lct1…) here first.` };
        }
        return { href: `../${page}/#${[token, all[kind]].filter(Boolean).join(",")}`, label, words: `This is ${what}.` };
    }
    if (token) {
        return isMember
            ? { words: "This is an invitation to a network, and this tab is a member already. Open it in a new tab, or leave the network first." }
            : { token, href: `../node/#${token}`, label: "Become a member", words: "This is an invitation to a network." };
    }
    if (invitation) {
        return { words: "This is an invitation to a conversation. A tab cannot join one, and a host with lcgroup can: `lcgroup join lcg1… NAME` there asks to be let in." };
    }
    if (other) {
        return { words: `This is ${OTHERS[other.slice(0, 4)] ?? "a text that these pages do not know"}: programs on hosts take it, and no page does.` };
    }
    const href = ownPage(pasted.trim());
    return href ? { href, label: "Open", words: "This is one of these pages." } : { words: "This is none of our links: they have a text in them that begins with lct1, lcr1, lcc1 or lcs1. Was it copied whole?" };
}

/** The address, if it is that of a page here: nobody is led to other sites. */
function ownPage(text) {
    try {
        const url = new URL(text);
        return url.origin === location.origin && PAGES.includes(url.pathname) ? url.href : null;
    } catch {
        return null;
    }
}

/** A form that leads on: a field, below it the meaning of its text, and a button. */
export function openDoor(form, isMember, { words, say }) {
    const [field, button] = [form.querySelector("input, textarea"), form.querySelector("button")];
    const label = button.textContent;
    const look = () => {
        const found = lead(field.value, isMember());
        say(words, found?.words ?? "");
        words.classList.toggle("refused", found !== null && !found.href);
        button.textContent = found?.label ?? label;
        return found;
    };
    field.addEventListener("input", look);
    form.addEventListener("submit", (event) => {
        event.preventDefault();
        const found = look();
        if (found?.href) {
            location.assign(found.href);
        } else {
            field.focus();
        }
    });
}
