// Plays the radio's frames: WebCodecs decodes, an AudioWorklet plays. The audio thread sets the pace.

import { RATE, Voice } from "../common/codecs.js";

/** So much sound is with the audio thread or on its way there, in samples: 60 ms, more than a page is busy for at a time. */
const AHEAD = 2_880;
/** A browser that has not begun to play by then does not, in milliseconds: it has no sound device. */
const START = 5_000;

/** Lets a browser play. */
export async function begin(context) {
    const late = new Promise((_, no) => setTimeout(no, START, new Error("This browser does not begin to play: is there a sound device, and is it free?")));
    await Promise.race([context.resume(), late]);
}

export class Player {
    /** Why this page plays nothing in this browser, or null. */
    static obstacle() {
        if (!window.isSecureContext) {
            return "Browsers play and record sound only on pages that came by https:, or from this computer: ask for the https: address of this page.";
        }
        return window.AudioDecoder ? null : "This browser cannot decode sound for pages (WebCodecs). Firefox from 130, Chromium and Safari 26 can.";
    }

    /** To be called by a click: else browsers play nothing. `radio`: returns the next frame. `hear`: {power} of played sound. */
    static async start(radio, hear) {
        const obstacle = Player.obstacle();
        if (obstacle) {
            throw new Error(obstacle);
        }
        const context = new AudioContext({ sampleRate: RATE, latencyHint: "interactive" });
        const player = new Player(radio, hear, context);
        await context.audioWorklet.addModule(new URL("../common/worklet.js", import.meta.url));
        player.connect();
        return player;
    }

    constructor(radio, hear, context) {
        Object.assign(this, { radio, hear, context, voices: new Map(), underruns: 0 });
    }

    connect() {
        this.node = new AudioWorkletNode(this.context, "player", { numberOfInputs: 0, outputChannelCount: [2] });
        this.gain = new GainNode(this.context);
        this.node.connect(this.gain).connect(this.context.destination);
        this.node.port.onmessage = ({ data }) => this.tick(data);
    }

    /** From 0 to 1. */
    set volume(volume) {
        // loudness is perceived so
        this.gain.gain.setTargetAtTime(volume * volume, this.context.currentTime, 0.01);
    }

    /** Delay between a frame of the radio and its sound, in milliseconds. */
    get delay() {
        const { baseLatency = 0, outputLatency = 0 } = this.context;
        return (AHEAD / RATE + baseLatency + outputLatency) * 1000;
    }

    play() {
        this.isPlaying = true;
        return begin(this.context);
    }

    stop() {
        this.isPlaying = false;
        this.voices.forEach((voice) => voice.end());
        this.voices.clear();
        this.node.port.postMessage({ clear: true });
        this.context.suspend();
    }

    /** The audio thread reports its progress. */
    tick({ voices, power }) {
        if (!this.isPlaying) {
            return;
        }
        this.underruns = voices.reduce((sum, { underruns }) => sum + underruns, 0);
        for (const caster of this.radio.voices()) {
            const played = voices[caster]?.played ?? 0;
            const voice = this.voice(caster);
            // else the report is older than the restart of the audio thread
            if (played <= voice.given) {
                voice.fill(played + AHEAD, () => this.radio.frame(caster));
            }
            voice.give({ speed: this.radio.speed(caster) });
        }
        this.hear({ power });
    }

    voice(caster) {
        const known = this.voices.get(caster);
        if (known) {
            return known;
        }
        const voice = new Voice((message, moved = []) => this.node.port.postMessage({ caster, ...message }, moved));
        this.voices.set(caster, voice);
        return voice;
    }
}
