// The presenter's screen: the browser hands over its pictures, and the module sends what changes. It is loaded once a screen is shown.

/** The largest screen that is sent; a larger one is scaled down. */
const [MAX_SIDE, MAX_PIXELS] = [1920, 1920 * 1200];
/** Pictures a second that are asked of the browser: the module looks twice. */
const FRAMES = 5;
/** Side of the picture by which this browser's honesty is tried, in pixels. */
const TRIAL = 16;

export class Shown {
    /** To be called by a click: browsers ask for a screen only then. `canvas`: shows it here; `lost`: is told why it has ended. */
    static async begin(module, canvas, lost) {
        if (!navigator.mediaDevices?.getDisplayMedia) {
            throw new Error("This browser hands no screen to pages: it has to be one for computers, and the page has to come over TLS or from the host itself.");
        }
        const stream = await navigator.mediaDevices.getDisplayMedia({ video: { frameRate: FRAMES }, audio: false }).catch((error) => {
            throw error.name === "NotAllowedError" ? new Error("No screen is shown: none was chosen, or this system does not allow it.") : error;
        });
        const shown = new Shown(module, canvas, stream, lost);
        try {
            if (!isHonest()) {
                throw new Error("This browser changes pictures that a page reads, against fingerprints of browsers: nobody would see your screen as it is. Allow this page to read them, or show your screen by another browser.");
            }
            await shown.open();
        } catch (error) {
            shown.end();
            throw error;
        }
        return shown;
    }

    constructor(module, canvas, stream, lost) {
        const context = canvas.getContext("2d", { alpha: false, willReadFrequently: true });
        Object.assign(this, { module, canvas, context, stream, lost, isOn: true, isBusy: false });
    }

    async open() {
        const { stream } = this;
        const [track] = stream.getVideoTracks();
        // of letters, not of films
        track.contentHint = "text";
        track.addEventListener("ended", () => this.fail(null));
        this.video = Object.assign(document.createElement("video"), { muted: true, playsInline: true, srcObject: stream });
        await this.video.play();
        this.module.showScreen();
        this.ticks = new Worker(new URL("../common/ticks.js", import.meta.url));
        this.ticks.addEventListener("message", () => this.tick());
    }

    async tick() {
        // packets that are due
        this.module.soon();
        if (!this.isOn || this.isBusy || !this.video.videoWidth || !this.module.wantsLook()) {
            return;
        }
        this.isBusy = true;
        try {
            await this.look();
        } catch (error) {
            this.fail(`The screen is off air: ${error.message}`);
        }
        this.isBusy = false;
    }

    async look() {
        const { canvas, context, video, module } = this;
        const [width, height] = fit(video.videoWidth, video.videoHeight);
        if (canvas.width !== width || canvas.height !== height) {
            Object.assign(canvas, { width, height });
        }
        context.drawImage(video, 0, 0, width, height);
        module.look(width, height, context.getImageData(0, 0, width, height).data);
        // those that are too long are wanted once more, with loss
        for (let wanted = module.areas(); this.isOn && wanted; wanted = module.areas()) {
            const { areas, quality } = wanted;
            const files = await Promise.all(areas.map((area) => this.encode(area, quality)));
            if (this.isOn) {
                module.screenPictures(files);
            }
        }
    }

    /** `quality` of 1: without loss. Where a browser has no WebP, it makes PNG of it. */
    async encode({ x, y, width, height }, quality) {
        const part = Object.assign(document.createElement("canvas"), { width, height });
        part.getContext("2d", { alpha: false }).drawImage(this.canvas, x, y, width, height, 0, 0, width, height);
        const file = await new Promise((done) => part.toBlob(done, "image/webp", quality));
        if (!file) {
            throw new Error("this browser makes no picture of it.");
        }
        return new Uint8Array(await file.arrayBuffer());
    }

    /** `why`: the fault; null: the presenter has ended it by the browser's own button. */
    fail(why) {
        if (this.isOn) {
            this.end();
            this.lost(why);
        }
    }

    /** Attenders are informed, and the browser captures nothing any more. */
    end() {
        this.isOn = false;
        this.ticks?.terminate();
        this.stream.getTracks().forEach((track) => track.stop());
        if (this.video) {
            this.video.srcObject = null;
        }
        this.module.endScreen();
    }
}

/** Width and height that may be sent. */
function fit(width, height) {
    const scale = Math.min(1, MAX_SIDE / Math.max(width, height), Math.sqrt(MAX_PIXELS / (width * height)));
    return [width, height].map((side) => Math.max(1, Math.floor(side * scale)));
}

/** Whether pixels are read as they were written. */
function isHonest() {
    const canvas = Object.assign(document.createElement("canvas"), { width: TRIAL, height: TRIAL });
    const context = canvas.getContext("2d", { alpha: false, willReadFrequently: true });
    const written = context.createImageData(TRIAL, TRIAL);
    crypto.getRandomValues(new Uint8Array(written.data.buffer));
    written.data.forEach((_, at) => at % 4 === 3 && (written.data[at] = 255));
    context.putImageData(written, 0, 0);
    const { data } = context.getImageData(0, 0, TRIAL, TRIAL);
    return data.every((value, at) => value === written.data[at]);
}
