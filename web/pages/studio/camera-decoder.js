// A worker that decodes a camera and draws it. The module has looked at the size of each key picture before it comes here.

/** A decoder that errs is made anew at the next key picture, so many times in a minute, in milliseconds. */
const [MAX_ANEW, MINUTE] = [3, 60_000];
/** Pictures that wait for the decoder: 2 s of them. Further ones are left out up to a key picture. */
const MAX_WAITING = 30;

let canvas;
let context;
let decoder = null;
let needsKey = true;
let hasLost = false;
let told = null;
let failures = [];

function take({ isKey, bytes }) {
    if (failures.length > MAX_ANEW || (needsKey && !isKey)) {
        return;
    }
    if (decoder?.decodeQueueSize >= MAX_WAITING) {
        lose();
        return;
    }
    try {
        decoder ??= begin();
        decoder.decode(new EncodedVideoChunk({ type: isKey ? "key" : "delta", timestamp: Math.round(performance.now() * 1000), data: bytes }));
        needsKey = false;
    } catch {
        failed(decoder);
    }
    report();
}

function begin() {
    const made = new VideoDecoder({ output: (frame) => draw(made, frame), error: () => failed(made) });
    made.configure({ codec: "vp8", optimizeForLatency: true });
    return made;
}

function draw(from, frame) {
    const { displayWidth: width, displayHeight: height } = frame;
    if (from === decoder) {
        if (canvas.width !== width || canvas.height !== height) {
            Object.assign(canvas, { width, height });
            postMessage({ width, height });
        }
        context.drawImage(frame, 0, 0, width, height);
    }
    frame.close();
    report();
}

function failed(which) {
    if (which !== decoder) {
        return;
    }
    if (decoder && decoder.state !== "closed") {
        decoder.close();
    }
    decoder = null;
    const now = performance.now();
    failures = [...failures.filter((at) => now - at < MINUTE), now];
    if (failures.length > MAX_ANEW) {
        postMessage({ isLeft: true });
    }
    lose();
}

function lose() {
    needsKey = hasLost = true;
    report();
}

/** Pictures that wait, where their number is another one than before. */
function report() {
    const waiting = decoder?.decodeQueueSize ?? 0;
    if (waiting !== told || hasLost) {
        postMessage({ waiting, hasLost });
        told = waiting;
        hasLost = false;
    }
}

addEventListener("message", ({ data }) => {
    if (data.canvas) {
        ({ canvas } = data);
        context = canvas.getContext("2d", { alpha: false });
    } else {
        take(data);
    }
});
