// Opus by WebCodecs, in a page and in a Worker: a decoder for each voice, and an encoder of a microphone's sound.

/** Samples per second of Opus. */
export const RATE = 48_000;
/** Browsers round timestamps, in microseconds: less than the shortest packet lasts. */
const NEAR = 1_000;
/** Frames that an encoder may keep before their packets come. Chosen: more than it ever looks ahead. */
const MOST_KEPT = 64;

/** In microseconds, as WebCodecs has it. */
const stamp = (samples) => Math.round((samples * 1e6) / RATE);

/** One caster: decoded sound, in order. */
export class Voice {
    /** `give`: to the audio thread. */
    constructor(give) {
        Object.assign(this, { give, given: 0, stamp: 0, waiting: [] });
    }

    /** Decodes until sound up to `enough`, in samples, is under way. `frame`: returns the next frame. */
    fill(enough, frame) {
        while (this.given < enough) {
            this.next(frame());
        }
    }

    next({ kind, samples, opus }) {
        this.given += samples;
        if (kind !== "opus") {
            this.waiting.push({ samples, isGap: true });
        } else {
            this.stamp += samples;
            const timestamp = stamp(this.stamp);
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

export class SoundEncoder {
    /** `encode`: as WebCodecs has it. `sound`: takes Opus, and the place of its first sample. `failed`: why there is no more of it. */
    constructor(channels, encode, { sound, failed }) {
        Object.assign(this, { sound, fed: 0, waiting: [] });
        this.encoder = new AudioEncoder({ output: (chunk) => this.encoded(chunk), error: ({ message }) => failed(message) });
        this.encoder.configure({ codec: "opus", sampleRate: RATE, numberOfChannels: channels, ...encode });
    }

    /** Encodes planes of samples, whose first one has this place. The encoder sees no gap: browsers differ in what they do of one. */
    encode(planes, place) {
        if (this.encoder.state !== "configured") {
            return;
        }
        const numberOfFrames = planes[0].length;
        const data = new Float32Array(planes.length * numberOfFrames);
        planes.forEach((plane, n) => data.set(plane, n * numberOfFrames));
        const timestamp = stamp(this.fed);
        this.fed += numberOfFrames;
        this.waiting.push({ timestamp, place });
        this.waiting.splice(0, this.waiting.length - MOST_KEPT);
        const frame = new AudioData({ format: "f32-planar", sampleRate: RATE, numberOfFrames, numberOfChannels: planes.length, timestamp, data });
        this.encoder.encode(frame);
        frame.close();
    }

    /** Of several frames in one packet, the last one has its place; browsers may count times from their own begin. */
    encoded(chunk) {
        const at = this.waiting.findLastIndex(({ timestamp }) => timestamp < chunk.timestamp + NEAR);
        const [of] = this.waiting.splice(0, Math.max(at, 0) + 1).slice(-1);
        const opus = new Uint8Array(chunk.byteLength);
        chunk.copyTo(opus);
        of && this.sound(opus, of.place);
    }

    close() {
        if (this.encoder.state !== "closed") {
            this.encoder.close();
        }
    }
}

/** The mean power of samples, 1 at full scale. */
export const power = (plane) => plane.reduce((sum, sample) => sum + sample * sample, 0) / plane.length;
