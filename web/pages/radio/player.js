// Plays the radio's frames: WebCodecs decodes, an AudioWorklet plays. The audio thread sets the pace.

const RATE = 48_000;
/** So much sound is with the audio thread or on its way there, in samples: 60 ms, more than a page is busy for at a time. */
const AHEAD = 2_880;
/** Browsers round timestamps, in microseconds: less than the shortest packet lasts. */
const NEAR = 1_000;

/** A browser that has not begun to play by then does not, in milliseconds: it has no sound device. */
const START = 5_000;

/** Lets a browser play. */
export async function begin(context) {
    const late = new Promise((_, no) => setTimeout(no, START, new Error("This browser does not begin to play: is there a sound device, and is it free?")));
    await Promise.race([context.resume(), late]);
}

/** One caster: decoded sound, in order. */
class Voice {
    /** `give`: to the audio thread. */
    constructor(give) {
        Object.assign(this, { give, given: 0, stamp: 0, waiting: [] });
    }

    /** Decodes until enough is under way. `frame`: returns the next frame. */
    fill(played, frame) {
        while (this.given - played < AHEAD) {
            this.next(frame());
        }
    }

    next({ kind, samples, opus }) {
        this.given += samples;
        if (kind !== "opus") {
            this.waiting.push({ samples, isGap: true });
        } else {
            this.stamp += samples;
            // in microseconds, as WebCodecs has it
            const timestamp = Math.round((this.stamp * 1e6) / RATE);
            this.waiting.push({ samples, timestamp });
            this.decode(new EncodedAudioChunk({ type: "key", timestamp, data: opus }));
        }
        this.flush();
    }

    decode(chunk) {
        if (this.decoder?.state !== "configured") {
            this.decoder = new AudioDecoder({ output: (data) => this.decoded(data), error: () => this.failed() });
            this.decoder.configure({ codec: "opus", sampleRate: RATE, numberOfChannels: 2 });
        }
        this.decoder.decode(chunk);
    }

    decoded(data) {
        const at = this.waiting.findIndex(({ timestamp }) => Math.abs(timestamp - data.timestamp) < NEAR);
        if (at >= 0) {
            // earlier packets that gave no sound are lost
            this.waiting.slice(0, at).forEach((before) => (before.isGap ||= !before.planes));
            this.waiting[at].planes = Array.from({ length: data.numberOfChannels }, (_, planeIndex) => {
                const plane = new Float32Array(data.numberOfFrames);
                data.copyTo(plane, { planeIndex, format: "f32-planar" });
                return plane;
            });
        }
        data.close();
        this.flush();
    }

    /** The browser decodes no more: a new decoder begins with the next packet. */
    failed() {
        this.waiting.forEach((packet) => (packet.isGap ||= !packet.planes));
        this.flush();
    }

    /** To the audio thread, in order. */
    flush() {
        while (this.waiting[0]?.planes || this.waiting[0]?.isGap) {
            const { planes, samples } = this.waiting.shift();
            const length = planes ? planes[0].length : 0;
            if (planes) {
                this.give({ planes }, planes.map(({ buffer }) => buffer));
            }
            if (length < samples) {
                this.give({ gap: samples - length });
            } else {
                this.given += length - samples;
            }
        }
    }

    end() {
        this.give = () => {};
        if (this.decoder && this.decoder.state !== "closed") {
            this.decoder.close();
        }
    }
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
        await context.audioWorklet.addModule(new URL("worklet.js", import.meta.url));
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
                voice.fill(played, () => this.radio.frame(caster));
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
