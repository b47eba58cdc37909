// How far each conversation was read in this browser, or on this host and others of the member, as lcgroup has it. Its key is this host's member, which no other conversation has.

const PLACE = "lcgroup.read";
/** Conversations that are remembered, the last ones that were read: of four hosts with as many groups as lcgroup has. */
const REMEMBERED = 256;

/** Where the browser keeps nothing for pages. */
let here = null;

/** The number of the last message that was read; 0: none. */
export const readUpTo = (author) => recall().get(author) ?? 0;

/** All up to this number were read. */
export function markRead(author, number) {
    const all = recall();
    if (number > (all.get(author) ?? 0)) {
        all.delete(author);
        all.set(author, number);
        keep(all);
    }
}

/** Another tab has read something. */
export function whenReadElsewhere(look) {
    addEventListener("storage", ({ key }) => key === PLACE && look());
}

function recall() {
    try {
        const all = JSON.parse(localStorage.getItem(PLACE) ?? "[]");
        return here ?? new Map(all.filter(([author, number]) => typeof author === "string" && Number.isSafeInteger(number)));
    } catch {
        return here ?? new Map();
    }
}

function keep(all) {
    const last = [...all].slice(-REMEMBERED);
    try {
        localStorage.setItem(PLACE, JSON.stringify(last));
    } catch {
        here = new Map(last);
    }
}
