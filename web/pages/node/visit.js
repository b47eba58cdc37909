// The identity that a tab keeps over a reload. Never a member's token; a leaf's may be public, and makes another leaf.

import { isOwn } from "../common/groups.js";
import { keepLink } from "../common/links.js";
import { joined } from "../common/wasm.js";

const VISIT = "lcroute visit";
const TALK = "lcroute talk";
const RADIO = "lcroute radio";
const CALL = "lcroute call";
const STUDIO = "lcroute studio";
const PRESENTS = "lcroute presents";
const LOCK = "lcroute node ";
const PEER = "lcroute peer ";
const ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";

/** So many bytes that nobody can guess, in base58. */
export function random(length) {
    const bytes = crypto.getRandomValues(new Uint8Array(length));
    let number = bytes.reduce((sum, byte) => (sum << 8n) | BigInt(byte), 0n);
    let text = "";
    for (; number > 0n; number /= 58n) {
        text = ALPHABET[Number(number % 58n)] + text;
    }
    // a leading zero byte is a leading 1
    const zeros = bytes.findIndex((byte) => byte !== 0);
    return "1".repeat(zeros < 0 ? length : zeros) + text;
}

/** Takes the text behind the `#` out of the address: a token, and a station, a call or a session. */
export function takeLink() {
    const words = location.hash.split(/[^A-Za-z0-9]+/);
    if (words.length > 1) {
        history.replaceState(null, "", location.pathname + location.search);
    }
    const isOther = (word) => isStation(word) || isCall(word) || isSession(word) || word.startsWith("lcg1");
    const token = words.find((word) => word && !isOther(word)) ?? "";
    return { token, station: words.find(isStation) ?? null, call: words.find(isCall) ?? null, session: words.find(isSession) ?? null };
}

export const isStation = (word) => word.startsWith("lcr1");
export const isCall = (word) => word.startsWith("lcc1");
/** Of Studio. */
export const isSession = (word) => word.startsWith("lcs1");

export function keepVisit(text) {
    sessionStorage.setItem(VISIT, text);
    const { chain } = JSON.parse(text);
    chain && claim(chain);
}

export function forgetVisit() {
    [VISIT, TALK, RADIO, CALL, STUDIO, PRESENTS].forEach((name) => sessionStorage.removeItem(name));
}

/** The groups that it had joined, and the messages received. */
export function keepTalk(talk) {
    sessionStorage.setItem(TALK, JSON.stringify(talk));
}

export function keptTalk() {
    return JSON.parse(sessionStorage.getItem(TALK) ?? "{}");
}

/** The stations that it played. */
export function keepRadio(radio) {
    sessionStorage.setItem(RADIO, JSON.stringify(radio));
}

export function keptRadio() {
    return JSON.parse(sessionStorage.getItem(RADIO) ?? "{}");
}

/** The call that a tab was in, and the name there; another tab than this one begins with it. */
export function keepCall(call, tab = window) {
    tab.sessionStorage.setItem(CALL, JSON.stringify(call));
}

export function keptCall() {
    return JSON.parse(sessionStorage.getItem(CALL) ?? "{}");
}

/** Which session was attended, and its tracks. */
export function keepStudio(studio) {
    sessionStorage.setItem(STUDIO, JSON.stringify(studio));
    if (studio.session) {
        const groups = [...joined("studio"), ...joined("radio")].filter((group) => !isOwn(group));
        keepLink({ kind: "session", text: studio.session, name: document.title, groups });
    }
}

export function keptStudio() {
    return JSON.parse(sessionStorage.getItem(STUDIO) ?? "{}");
}

/** Which lecture was presented, by a name that is no secret; null: none. */
export function keepPresented(name) {
    if (name === null) {
        sessionStorage.removeItem(PRESENTS);
    } else {
        sessionStorage.setItem(PRESENTS, name);
    }
}

export function keptPresented() {
    return sessionStorage.getItem(PRESENTS);
}

/** The member of this tab before a reload, or the token of its leaf. A copy of a tab has the same storage, and must be another member. */
export async function keptVisit() {
    const text = sessionStorage.getItem(VISIT);
    if (!text) {
        return {};
    }
    const visit = JSON.parse(text);
    if (visit.leaf) {
        return { leaf: visit.leaf };
    }
    if (await claim(visit.chain)) {
        return { visit };
    }
    forgetVisit();
    return { problem: "Another tab is this member already. With a token this tab becomes a member of its own." };
}

const claimed = new Set();

/** Whether this tab alone has the name from now on. Without locks, a browser does not know. */
async function claim(name) {
    if (claimed.has(name) || !navigator.locks) {
        return true;
    }
    claimed.add(name);
    return new Promise((done) => {
        navigator.locks.request(LOCK + name, { ifAvailable: true }, (lock) => {
            done(lock !== null);
            // held until the tab is closed
            return lock && new Promise(() => {});
        });
    });
}

const peers = new Set();

/** Sends this node's PeerId to this browser's other tabs; returns the known PeerIds of all. */
export function tabsHere(own) {
    if (navigator.locks && !peers.has(own)) {
        peers.add(own);
        // held until the tab is closed
        navigator.locks.request(PEER + own, () => new Promise(() => {}));
    }
    navigator.locks?.query().then(({ held }) => {
        held.filter(({ name }) => name.startsWith(PEER)).forEach(({ name }) => peers.add(name.slice(PEER.length)));
    });
    return peers;
}
