// A page's own state: faults, notices, and links.

import { say } from "./html.js";

/** Links that are made anew within this time are no news, in milliseconds. Chosen: a reader would not notice. */
const BLINK = 2000;
const LOST = "The links are lost. This page makes new ones by itself; until then nothing comes and nothing goes out.";
export const UNSENT = "Not sent: this page has no link.";

const place = (id) => document.getElementById(id);

/** The fault, or null. */
export function problem(words) {
    place("problem").hidden = words === null;
    say(place("problem"), words ?? "");
}

/** The notice, or null. */
export function notice(words) {
    place("notice").hidden = words === null;
    say(place("notice"), words ?? "");
}

/** The state by its name in styles, and in words. */
export function state(name, words) {
    say(place("state"), words);
    place("state").dataset.state = name;
}

const links = { were: false, lostAt: null };

/** Is told repeatedly whether there are links; shows their loss while it lasts. */
export function follow(hasLinks, now = performance.now()) {
    links.were ||= hasLinks;
    links.lostAt = hasLinks ? null : (links.lostAt ?? now);
    if (hasLinks) {
        place("notice").said === LOST && notice(null);
        place("problem").said === UNSENT && problem(null);
    } else if (links.were && now - links.lostAt > BLINK) {
        notice(LOST);
    }
}

/** The membership has ended: that there are no links is as it should be. */
export function unfollow() {
    Object.assign(links, { were: false, lostAt: null });
}

const nodes = (n, of = "node") => `${n} ${of}${n === 1 ? "" : "s"}`;

/**
 * How a member stands: `{ name, words, reach }`. Other tabs of this browser are no network: `reach` is "network", "here" or "none".
 * `here`: PeerIds of this browser's tabs; `why`: the reason of a server that refuses this page.
 */
export function standing(status, here, why = null) {
    return status.leaf ? listening(status, why) : membership(status, here, why);
}

/** Without an answer of a signalling server. */
export function unanswered(isAsking, why = null) {
    const silence = isAsking ? "asking a signalling server" : "no signalling server answers";
    return why ? `no signalling server answers: ${why}` : silence;
}

const NO_LINK = {
    no_room: "no router has room for another listener; this page asks again by itself",
    clock_differs: "the clocks of this computer and of the routers differ by more than a day: set this one right",
};

/** How a leaf stands: routers are all that it knows. */
function listening({ state, peers, servers, isAsking, no_link: noLink }, why) {
    const up = peers.filter((peer) => peer.state === "connected");
    if (up.length > 0) {
        return { name: state, words: `listening by ${nodes(up.length, "router")}`, reach: "network" };
    }
    const isServed = servers.some((server) => server.connected);
    const refused = peers.find((peer) => peer.state === "refused");
    const unserved = unanswered(isAsking, why);
    const lonely = peers.length === 0 ? "no router is there" : refused ? `refused: ${refused.reason}` : "making links";
    return { name: state, words: NO_LINK[noLink] ?? (isServed ? lonely : unserved), reach: "none" };
}

function membership({ state, peers, servers, isAsking }, here, why) {
    const up = peers.filter((peer) => peer.state === "connected");
    const away = up.filter((peer) => !here.has(peer.peer_id));
    if (away.length > 0) {
        return { name: state, words: `linked to ${nodes(up.length)}`, reach: "network" };
    }
    if (up.length > 0) {
        return { name: "starting", words: `only this computer: linked to ${nodes(up.length, "tab")} of this browser, and to no other node`, reach: "here" };
    }
    const refused = peers.find((peer) => peer.state === "refused");
    const isServed = servers.some((server) => server.connected);
    const unserved = unanswered(isAsking, why);
    const lonely = refused ? `refused: ${refused.reason}` : isServed ? "only this computer so far: no other node is there" : unserved;
    return { name: state === "connected" ? "starting" : state, words: peers.length > 0 && !refused && isServed ? "making links" : lonely, reach: "none" };
}
