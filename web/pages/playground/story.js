// Events in plain words. Related events become one sentence, once none of their packets is under way.

import { cities } from "./europe.js";

/** Ends of links notice that they are dead within so many milliseconds. */
const NOTICING = 250;
/** Time for which a router keeps a sender's first packets until it knows listeners. */
const FIRST_PACKET_TIME = 1000;

const name = (node) => cities[node].name;

export function list(nodes, most = 5) {
    const names = [...new Set(nodes)].map(name);
    const more = names.length - most;
    if (more > 1) {
        return `${names.slice(0, most).join(", ")} and ${more} others`;
    }
    return names.length < 2 ? names.join("") : `${names.slice(0, -1).join(", ")} and ${names.at(-1)}`;
}

/** Hops in order of time, as chains: each goes on where one ended. */
function chains(hops) {
    const found = [];
    for (const { node, to } of hops) {
        const before = found.find((chain) => chain.at(-1) === node && !chain.includes(to));
        if (before) {
            before.push(to);
        } else {
            found.push([node, to]);
        }
    }
    return found;
}

/** "by Hamburg to Berlin" */
function way(chain) {
    const by = chain.slice(1, -1);
    return `${by.length ? `by ${list(by, 9)} ` : ""}to ${name(chain.at(-1))}`;
}

/** Makes sentences of events for `tell(text, kind)`. */
export class Story {
    constructor(tell) {
        this.tell = tell;
        this.waves = new Map();
        this.off = new Set();
    }

    /** Nothing that went on before matters any more. */
    forget() {
        this.off.clear();
        this.waves.clear();
    }

    /** An event that concerns the group in view, or no group. `waits`: somebody listens, a packet may go out later. */
    feed(event, waits) {
        const { kind, node, at } = event;
        if (kind === "end") {
            this.off.add(node);
        } else if (kind === "start") {
            this.off.delete(node);
        } else if (kind === "join" || kind === "part") {
            this.wave(kind, event.arrives, { hops: [] }).hops.push(event);
        } else if (kind === "send") {
            this.wave(`packet ${event.number}`, at, { from: node, sent: at, hops: [], heard: [] }).until += waits ? FIRST_PACKET_TIME : 0;
        } else if (kind === "forward") {
            const packet = this.waves.get(`packet ${event.number}`);
            if (packet) {
                packet.until = Math.max(packet.hops.length ? packet.until : 0, event.arrives ?? at);
                packet.hops.push(event);
            }
        } else if (kind === "deliver") {
            this.waves.get(`packet ${event.number}`)?.heard.push(event);
        } else if (kind === "link_down" || kind === "link_up") {
            this.wave(kind, at + NOTICING, { links: [] }).links.push(event);
        }
    }

    /** The wave of this name, which is not over before `until`. */
    wave(key, until, fresh) {
        const wave = this.waves.get(key) ?? { until, ...fresh };
        wave.until = Math.max(wave.until, until);
        this.waves.set(key, wave);
        return wave;
    }

    /** Time has come to `now`: reports finished events. Of the group in view: its name, root, and listeners. */
    tick(now, ...view) {
        for (const [key, wave] of this.waves) {
            if (wave.until < now) {
                this.waves.delete(key);
                const [kind] = key.split(" ");
                const text = this[kind](wave, ...view);
                if (text) {
                    this.tell(text, kind, wave);
                }
            }
        }
    }

    join({ hops }, group, root, listens) {
        const all = chains(hops);
        if (all.length > 4) {
            return `JOINs go over ${hops.length} links.`;
        }
        const sentence = (chain) => {
            const [first, last, middle] = [chain[0], chain.at(-1), chain.indexOf(root)];
            if (middle > 0 && last !== root) {
                const [up, down] = [chain.slice(0, middle + 1), chain.slice(middle)];
                return `The JOIN of ${name(first)} goes ${way(up)}, the root of ${group}, and on ${way(down)}, where somebody sends.`;
            }
            if (last === root) {
                return `The JOIN of ${name(first)} goes ${way(chain)}, the root of ${group}.`;
            }
            if (listens[first]) {
                return `The JOIN of ${name(first)} goes ${way(chain)}, which is on the tree already.`;
            }
            return `${name(first)} knows of listeners, and says JOIN ${way(chain)}.`;
        };
        return all.map(sentence).join(" ");
    }

    part({ hops }) {
        const all = chains(hops);
        const where = all.length > 3 ? `PARTs go over ${hops.length} links.` : all.map((chain) => `The PART of ${name(chain[0])} goes ${way(chain)}.`).join(" ");
        return `${where} What nobody needs is forgotten.`;
    }

    packet({ from, hops, heard, sent }) {
        if (!hops.length && !heard.length) {
            return `${name(from)} sends. Nobody listens, so nothing leaves ${name(from)}.`;
        }
        const copies = `${hops.length} ${hops.length === 1 ? "copy" : "copies"}`;
        if (!heard.length) {
            return `A packet of ${name(from)} makes ${copies}, and reaches nobody.`;
        }
        const waited = hops.length && hops[0].at - sent > 1 ? ` It waited ${(hops[0].at - sent).toFixed(0)} ms at ${name(from)} for the first JOIN.` : "";
        const time = `${(heard.at(-1).at - sent).toFixed(0)} ms`;
        return `A packet of ${name(from)} in ${copies} reaches ${list(heard.map(({ node }) => node))} within ${time}.${waited}`;
    }

    /** A router that is off notices nothing. */
    link_down({ links }) {
        const noticed = links.filter(({ node }) => !this.off.has(node));
        const [who, gone] = ["node", "to"].map((end) => [...new Set(noticed.map((link) => link[end]))]);
        const lost = who.length + gone.length === 2 ? `the link to ${list(gone)} is gone` : `links to ${list(gone)} are gone`;
        return who.length > 0 && `${list(who)} ${who.length === 1 ? "has" : "have"} noticed: ${lost}.`;
    }

    link_up({ links }) {
        const pairs = links.filter(({ node, to }) => node < to);
        if (pairs.length > 3) {
            return `${pairs.length} new links: ${list(links.map(({ node }) => node))}.`;
        }
        return pairs.map(({ node, to }) => `${name(node)} and ${name(to)} have a link.`).join(" ");
    }
}
