// A worker that encodes a camera, so that nothing of the page waits for it: VP8 in two layers of time, and a larger picture while
// somebody has joined that.

/** Pictures a second, and the time between two key pictures, in microseconds: who comes late waits for one. */
const [RATE, KEY_EACH] = [15, 2_000_000];
/** Between two pictures, in microseconds. */
const PERIOD = 1_000_000 / RATE;
/** Pictures that wait for an encoder; a further one is left out before it, as encoders queue without an end. */
const MAX_WAITING = 2;
/** An encoder that fails is made anew so many times in a minute, in milliseconds. */
const [MAX_ANEW, MINUTE] = [3, 60_000];
/** Longer and shorter side in pixels, bits a second, layers. */
const SIZES = {
    small: { sides: [320, 180], bitrate: 150_000, layers: { scalabilityMode: "L1T2" } },
    large: { sides: [640, 360], bitrate: 350_000, layers: {} },
};

class Encoding {
    constructor(name) {
        Object.assign(this, { name, ...SIZES[name], isOn: name === "small", width: 0, height: 0, keyAt: null, failures: [] });
        this.canvas = new OffscreenCanvas(1, 1);
        this.context = this.canvas.getContext("2d", { alpha: false });
    }

    /** `timestamp`: in microseconds. */
    take(frame, timestamp) {
        if (!this.isOn || this.encoder?.encodeQueueSize >= MAX_WAITING) {
            return;
        }
        const [width, height] = fit(frame.displayWidth, frame.displayHeight, this.sides);
        if (this.encoder?.state !== "configured" || width !== this.width || height !== this.height) {
            this.begin(width, height);
        }
        this.context.drawImage(frame, 0, 0, width, height);
        const scaled = new VideoFrame(this.canvas, { timestamp });
        const keyFrame = this.keyAt === null || timestamp - this.keyAt >= KEY_EACH;
        this.keyAt = keyFrame ? timestamp : this.keyAt;
        this.encoder.encode(scaled, { keyFrame });
        scaled.close();
    }

    begin(width, height) {
        this.end();
        Object.assign(this.canvas, { width, height });
        Object.assign(this, { width, height, keyAt: null });
        const encoder = new VideoEncoder({ output: (chunk) => this.encoded(encoder, chunk), error: (error) => this.failed(encoder, error) });
        encoder.configure({ codec: "vp8", width, height, bitrate: this.bitrate, framerate: RATE, latencyMode: "realtime", ...this.layers });
        this.encoder = encoder;
    }

    encoded(encoder, chunk) {
        if (encoder === this.encoder) {
            const bytes = new Uint8Array(chunk.byteLength);
            chunk.copyTo(bytes);
            postMessage({ size: this.name, bytes }, [bytes.buffer]);
        }
    }

    failed(encoder, { message }) {
        if (encoder !== this.encoder) {
            return;
        }
        const now = performance.now();
        this.failures = [...this.failures.filter((at) => now - at < MINUTE), now];
        if (this.failures.length > MAX_ANEW) {
            this.isOn = false;
            postMessage({ size: this.name, fault: message });
        }
    }

    end() {
        if (this.encoder && this.encoder.state !== "closed") {
            this.encoder.close();
        }
        this.encoder = null;
    }
}

/** Width and height, upright or not; no larger than the camera's, and even, as encoders have them. */
function fit(width, height, [longer, shorter]) {
    const scale = Math.min(1, longer / Math.max(width, height), shorter / Math.min(width, height));
    return [width, height].map((side) => Math.max(2, 2 * Math.floor((side * scale) / 2)));
}

const encodings = Object.fromEntries(Object.keys(SIZES).map((name) => [name, new Encoding(name)]));
let dueAt = 0;

/** A picture of the camera. */
function take(frame) {
    const now = Math.round(performance.now() * 1000);
    if (now >= dueAt) {
        dueAt = Math.max(dueAt + PERIOD, now);
        Object.values(encodings).forEach((encoding) => encoding.take(frame, now));
    }
    frame.close();
}

async function read(frames) {
    const reader = frames.getReader();
    for (let next = await reader.read(); !next.done; next = await reader.read()) {
        take(next.value);
    }
}

addEventListener("message", ({ data }) => {
    const { frames, frame, key, large } = data;
    if (frames) {
        // it ends with the camera, which the page sees
        read(frames).catch(() => {});
    } else if (frame) {
        take(frame);
    } else if (key) {
        encodings[key].keyAt = null;
    } else if (large !== undefined && large !== encodings.large.isOn) {
        encodings.large.isOn = large;
        encodings.large.end();
    }
});
// browsers slow down the timers of a hidden page, and not these: packets are sent then, and a page that draws its camera draws it
setInterval(() => postMessage({ tick: true }), PERIOD / 1000);
