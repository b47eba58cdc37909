// Changes of a text, and their effect on a place in it. A change is { at, remove, insert }, in UTF-16 units.

const isHigh = (text, at) => /[\ud800-\udbff]/.test(text[at] ?? "");
const isLow = (text, at) => /[\udc00-\udfff]/.test(text[at] ?? "");

/** The change that makes `after` of `before`, never between the halves of a character; null where there is none. */
export function difference(before, after) {
    if (before === after) {
        return null;
    }
    const shorter = Math.min(before.length, after.length);
    let at = 0;
    while (at < shorter && before[at] === after[at]) {
        at += 1;
    }
    at -= Number(at > 0 && isHigh(before, at - 1));
    let same = 0;
    while (same < shorter - at && before[before.length - 1 - same] === after[after.length - 1 - same]) {
        same += 1;
    }
    same -= Number(same > 0 && isLow(before, before.length - same));
    return { at, remove: before.length - same - at, insert: after.slice(at, after.length - same) };
}

export function apply(text, changes) {
    return changes.reduce((now, { at, remove, insert }) => now.slice(0, at) + insert + now.slice(at + remove), text);
}

/** A place after these changes. `isPushed`: text inserted just there moves it. */
export function moved(place, changes, isPushed = false) {
    return changes.reduce((now, { at, remove, insert }) => {
        const kept = now >= at + remove ? now - remove : Math.min(now, at);
        return at < now || (at === now && isPushed) ? Math.max(kept, at) + insert.length : kept;
    }, place);
}

/** A text that somebody is writing, `base` with `own` (a change, or null), once others have changed `base`. `places`: of the cursor. */
export function rebase(base, own, others, places) {
    const now = apply(base, others);
    if (!own) {
        return { base: now, text: now, places: places.map((place) => moved(place, others)) };
    }
    const begin = moved(own.at, others, own.remove > 0);
    const end = Math.max(begin, moved(own.at + own.remove, others));
    const insertEnd = own.at + own.insert.length;
    const place = (at) => {
        if (at < own.at) {
            return Math.min(moved(at, others), begin);
        }
        if (at <= insertEnd) {
            return begin + at - own.at;
        }
        return Math.max(moved(at - own.insert.length + own.remove, others), end) - (end - begin) + own.insert.length;
    };
    return { base: now, text: now.slice(0, begin) + own.insert + now.slice(end), places: places.map(place) };
}
