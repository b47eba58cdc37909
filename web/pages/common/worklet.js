// In the audio thread: sound to be played, and that of a microphone. Sound is planes of samples at 48 kHz, whatever the rate of
// the device. It goes to the page, or by a port of its own to a Worker.

/** Samples at 48 kHz for each one of the device. */
const PACE = 48_000 / sampleRate;
/** Gaps begin and end so softly, and so does talk, in samples: 5 ms. */
const FADE = 240;
/** Room for sound that waits, in samples: a power of two, above a second. */
const ROOM = 1 << 16;
/** Interval of reports, in samples of the device: 10 ms. */
const TICK = sampleRate / 100;

/** One caster's sound. */
class Voice {
    constructor() {
        this.planes = [new Float32Array(ROOM), new Float32Array(ROOM)];
        Object.assign(this, { written: 0, read: 0, speed: 1, isGap: true, isEmpty: true, last: [0, 0], rest: 0, underruns: 0 });
    }

    /** `{planes}` is sound, `{gap}` are samples of which nothing came, `{speed}` is how fast it is played. */
    take({ planes, gap, speed }) {
        if (planes) {
            this.addSound(planes);
        } else if (gap) {
            this.addGap(gap);
        }
        this.speed = speed ?? this.speed;
    }

    /** Overwrites nothing that is still to be played. */
    room(wanted) {
        return Math.min(wanted, ROOM - 4 - (this.written - Math.floor(this.read)));
    }

    addSound([left, right = left]) {
        const length = this.room(left.length);
        for (let i = 0; i < length; i += 1) {
            const gain = this.isGap && i < FADE ? i / FADE : 1;
            const at = (this.written + i) % ROOM;
            this.planes[0][at] = left[i] * gain;
            this.planes[1][at] = right[i] * gain;
        }
        this.written += length;
        this.isGap = false;
    }

    /** Sound goes on backwards and fades: no jump, as its end is where that begins. */
    addGap(samples) {
        const length = this.room(samples);
        for (const plane of this.planes) {
            for (let i = 0; i < length; i += 1) {
                const mirrored = plane[(this.written - 1 - i + ROOM) % ROOM];
                plane[(this.written + i) % ROOM] = this.isGap || i >= FADE ? 0 : mirrored * (1 - i / FADE);
            }
        }
        this.written += length;
        this.isGap = true;
    }

    /** Adds its next sample. */
    addTo(sum) {
        const at = Math.floor(this.read);
        if (at + 3 > this.written) {
            this.wait();
        } else {
            this.isEmpty = false;
            const part = this.read - at;
            this.last[0] = between(this.planes[0], at, part);
            this.last[1] = between(this.planes[1], at, part);
            this.rest = FADE;
            this.read += this.speed * PACE;
        }
        sum[0] += (this.last[0] * this.rest) / FADE;
        sum[1] += (this.last[1] * this.rest) / FADE;
    }

    /** The page was too slow: the last sound fades. */
    wait() {
        if (!this.isEmpty) {
            this.isEmpty = true;
            this.isGap = true;
            this.underruns += 1;
        }
        this.rest = Math.max(0, this.rest - 1);
    }
}

/** Plays all casters' sound from the page together. */
class Player extends AudioWorkletProcessor {
    constructor() {
        super();
        this.clear();
        talkTo(this, (data) => (data.clear ? this.clear() : this.voice(data.caster).take(data)));
    }

    clear() {
        Object.assign(this, { voices: [], ticks: 0, sum: 0 });
    }

    voice(caster) {
        return (this.voices[caster] ??= new Voice());
    }

    process(_, [out]) {
        const length = out[0].length;
        const sample = [0, 0];
        for (let i = 0; i < length; i += 1) {
            sample.fill(0);
            this.voices.forEach((voice) => voice.addTo(sample));
            out[0][i] = sample[0];
            if (out[1]) {
                out[1][i] = sample[1];
            }
            this.sum += (sample[0] * sample[0] + sample[1] * sample[1]) / 2;
        }
        this.ticks += length;
        if (this.ticks >= TICK) {
            const voices = this.voices.map(({ read, underruns }) => ({ played: Math.floor(read), underruns }));
            this.other.postMessage({ voices, power: this.sum / this.ticks });
            Object.assign(this, { ticks: 0, sum: 0 });
        }
        return true;
    }
}

/** Between two samples of a ring. */
function between(plane, at, part) {
    return cubic([at - 1 + ROOM, at, at + 1, at + 2].map((i) => plane[i % ROOM]), part);
}

/** Between the middle two of four samples (Catmull and Rom). */
function cubic([a, b, c, d], part) {
    return b + 0.5 * part * (c - a + part * (2 * a - 5 * b + 4 * c - d + part * (3 * (b - c) + d - a)));
}

/** Gives the microphone's sound away, `frame` samples at a time, and silence while nobody talks. */
class Recorder extends AudioWorkletProcessor {
    constructor({ processorOptions: { channels, talks, frame } }) {
        super();
        Object.assign(this, { frame, filled: 0, talks, gain: talks ? 1 : 0, at: 0 });
        this.planes = Array.from({ length: channels }, () => new Float32Array(frame));
        /** The last four samples of each plane, between whose second and third the next one lies, `at` a part of the way. */
        this.last = this.planes.map(() => [0, 0, 0, 0]);
        talkTo(this, (data) => (this.talks = data.talks));
    }

    process([heard]) {
        const length = heard[0]?.length ?? 0;
        for (let i = 0; i < length; i += 1) {
            this.last.forEach((last, n) => {
                last.shift();
                last.push((heard[n] ?? heard[0])[i]);
            });
            for (; this.at < 1; this.at += 1 / PACE) {
                this.add();
            }
            this.at -= 1;
        }
        return true;
    }

    add() {
        this.gain = this.talks ? Math.min(1, this.gain + 1 / FADE) : Math.max(0, this.gain - 1 / FADE);
        this.planes.forEach((plane, n) => (plane[this.filled] = cubic(this.last[n], this.at) * this.gain));
        this.filled += 1;
        if (this.filled === this.frame) {
            this.other.postMessage(this.planes.map((plane) => plane.slice()));
            this.filled = 0;
        }
    }
}

/** Messages go to the page, and after it has sent a port, to whoever has its other end. */
function talkTo(processor, take) {
    processor.other = processor.port;
    processor.port.onmessage = ({ data }) => {
        if (data.port) {
            processor.other = data.port;
            data.port.onmessage = (message) => take(message.data);
        } else {
            take(data);
        }
    };
}

registerProcessor("player", Player);
registerProcessor("recorder", Recorder);
