// A call rings in the conversation that is shown: as words, and as a tone where the browser lets a page play one.

import { say } from "../common/html.js";

/** Age from which a call does not ring any more, in milliseconds. */
export const FRESH = 60_000;
/** How long it rings, in milliseconds. */
const RINGS = 30_000;
/** Between two tones, in milliseconds. */
const PAUSE = 3000;
/** Longest name that is shown, in characters: one of lcgroup (64 bytes) and its mark. */
const LONGEST_NAME = 128;
/** Members whose calls do not ring in this page any more, at most: beyond, nobody's rings. */
const MOST_QUIET = 1000;

/** Whether a message is so young, by its author's clock and this one's. */
export const isFresh = (time) => Math.abs(Date.now() - time) < FRESH;

/** The page that takes part. */
export const pathOf = (call) => `/call/#${call}`;

/** The command that takes part where the group has a network of its own, in which no tab is. */
export const commandOf = (group, call) => `lcgroup call ${group} ${call}`;

export class Ring {
    /** `place`: words, a link and a button. */
    constructor(place) {
        const [words, join, later] = place.children;
        Object.assign(this, { place, words, join, quiet: new Set() });
        join.addEventListener("click", () => this.stop());
        later.addEventListener("click", () => {
            this.quiet.add(this.author);
            this.stop();
        });
    }

    /** A call: of several, the first rings. Who was told "not now" does not ring again. `command`: in the place of a link. */
    begin({ author, shown, call }, command) {
        if (!this.place.hidden || this.quiet.has(author) || this.quiet.size >= MOST_QUIET) {
            return;
        }
        this.author = author;
        const name = shown.slice(0, LONGEST_NAME).replaceAll("`", "'");
        say(this.words, command ? `${name} calls. On this host, type \`${command}\`.` : `${name} calls:`);
        this.join.hidden = command !== undefined;
        this.join.href = pathOf(call);
        this.place.hidden = false;
        this.tones = setInterval(() => this.tone(), PAUSE);
        this.tone();
        this.end = setTimeout(() => this.stop(), RINGS);
    }

    stop() {
        clearInterval(this.tones);
        clearTimeout(this.end);
        this.place.hidden = true;
        this.context?.close();
        this.context = null;
    }

    /** Two soft ones; none before somebody has clicked here. */
    tone() {
        if (navigator.userActivation?.hasBeenActive === false) {
            return;
        }
        this.context ??= new AudioContext();
        const begin = this.context.currentTime;
        [440, 550].forEach((frequency, n) => {
            const [tone, gain] = [new OscillatorNode(this.context, { frequency }), new GainNode(this.context, { gain: 0 })];
            const at = begin + n * 0.4;
            gain.gain.setTargetAtTime(0.15, at, 0.02);
            gain.gain.setTargetAtTime(0, at + 0.3, 0.05);
            tone.connect(gain).connect(this.context.destination);
            tone.start(at);
            tone.stop(at + 0.6);
        });
    }
}
