// What a page says of itself: what went wrong, what to know, and how it stands.

import { say } from "./html.js";

const place = (id) => document.getElementById(id);

/** What went wrong, or null. */
export function problem(words) {
    place("problem").hidden = words === null;
    say(place("problem"), words ?? "");
}

/** What to know, or null. */
export function notice(words) {
    place("notice").hidden = words === null;
    say(place("notice"), words ?? "");
}

/** The state by its name in styles, and in words. */
export function state(name, words) {
    say(place("state"), words);
    place("state").dataset.state = name;
}
