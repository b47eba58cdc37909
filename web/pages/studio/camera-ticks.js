// In the audio thread, which goes on where a page is hidden: a tick for each picture of a camera.

/** Ticks a second. */
const RATE = 15;

class Ticks extends AudioWorkletProcessor {
    constructor() {
        super();
        this.count = 0;
    }

    process(_, [[out]]) {
        this.count += out.length;
        if (this.count >= sampleRate / RATE) {
            this.count -= sampleRate / RATE;
            this.port.postMessage(null);
        }
        return true;
    }
}

registerProcessor("ticks", Ticks);
