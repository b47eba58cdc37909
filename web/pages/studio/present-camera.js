// The presenter's camera: the browser captures it, a worker encodes it, and the module sends the frames. It is loaded with the page, and
// asks for a camera by a click only.

/** Pictures a second that are asked of the camera, and its size: that of the larger picture. */
const CAPTURE = { width: { ideal: 640 }, height: { ideal: 360 }, frameRate: { ideal: 15 } };
/** Sides of the larger picture, in pixels. */
const [LONGER, SHORTER] = [640, 360];
/** What the module says to a frame. */
const [LEFT_OUT, REFUSED] = [1, 2];

export class Filmed {
    /** To be called by a click: browsers ask for a camera only then. `video`: shows it here; `lost`: is told why it has ended. */
    static async begin(module, video, lost) {
        if (!navigator.mediaDevices?.getUserMedia || !window.VideoEncoder) {
            throw new Error(
                window.isSecureContext
                    ? "This browser cannot encode pictures for pages (WebCodecs)."
                    : "Browsers give a camera only to pages that came by https:, or from this computer.",
            );
        }
        const stream = await navigator.mediaDevices.getUserMedia({ video: CAPTURE, audio: false }).catch((error) => {
            throw new Error(words(error), { cause: error });
        });
        const filmed = new Filmed(module, video, stream, lost);
        try {
            await filmed.open();
        } catch (error) {
            filmed.end();
            throw error;
        }
        return filmed;
    }

    constructor(module, video, stream, lost) {
        Object.assign(this, { module, video, stream, lost, isOn: true });
    }

    async open() {
        const { stream, video } = this;
        const [track] = stream.getVideoTracks();
        track.contentHint = "motion";
        track.addEventListener("ended", () => this.fail("The camera is gone."));
        const { supported } = await VideoEncoder.isConfigSupported({ codec: "vp8", width: 320, height: 180 });
        if (!supported) {
            throw new Error("This browser cannot encode VP8.");
        }
        video.srcObject = stream;
        await video.play();
        this.module.showCamera(true);
        this.worker = new Worker(new URL("camera-encoder.js", import.meta.url));
        this.worker.addEventListener("message", ({ data }) => this.take(data));
        this.worker.addEventListener("error", ({ message }) => this.fail(`The camera is off air: ${message}`));
        if (window.MediaStreamTrackProcessor) {
            const { readable } = new MediaStreamTrackProcessor({ track, maxBufferSize: 2 });
            this.worker.postMessage({ frames: readable }, [readable]);
        } else {
            this.canvas = document.createElement("canvas");
            this.context = this.canvas.getContext("2d", { alpha: false });
        }
    }

    /** Where no worker gets a track (Firefox): its ticks go on where this page is hidden, and pictures are drawn here. */
    draw() {
        const { video, canvas, context, worker } = this;
        const [width, height] = [video.videoWidth, video.videoHeight];
        if (!this.isOn || width === 0) {
            return;
        }
        const scale = Math.min(1, LONGER / Math.max(width, height), SHORTER / Math.min(width, height));
        const sides = [width, height].map((side) => Math.max(2, Math.floor(side * scale)));
        if (canvas.width !== sides[0] || canvas.height !== sides[1]) {
            [canvas.width, canvas.height] = sides;
        }
        context.drawImage(video, 0, 0, ...sides);
        const frame = new VideoFrame(canvas, { timestamp: Math.round(performance.now() * 1000) });
        worker.postMessage({ frame }, [frame]);
    }

    /** Of the worker: an encoded frame, a fault, or a tick. */
    take({ size, bytes, fault, tick }) {
        if (!this.isOn) {
            return;
        }
        if (tick) {
            // packets that are due
            this.module.soon();
            if (this.canvas) {
                this.draw();
            }
        } else if (bytes) {
            const told = this.module.cameraFrame(size === "large", bytes);
            if (told === LEFT_OUT) {
                this.worker.postMessage({ key: size });
            } else if (told === REFUSED) {
                this.fail("The camera is off air: this browser’s pictures cannot be sent.");
            }
        } else if (fault && size === "large") {
            this.module.endLarge();
        } else if (fault) {
            this.fail(`The camera is off air: ${fault}`);
        }
    }

    /** Whether somebody has joined the larger picture: else it is not encoded. */
    set isLargeWanted(isWanted) {
        this.worker?.postMessage({ large: isWanted });
    }

    /** `why`: the fault. */
    fail(why) {
        if (this.isOn) {
            this.end();
            this.lost(why);
        }
    }

    /** Attenders are informed, and the browser captures nothing any more. */
    end() {
        this.isOn = false;
        this.worker?.terminate();
        this.stream.getTracks().forEach((track) => track.stop());
        this.video.srcObject = null;
        this.module.endCamera();
    }
}

/** Why there is no camera, as people read it. */
function words({ name, message }) {
    switch (name) {
        case "NotAllowedError":
            return "The browser gives this page no camera: allow it in the browser’s settings of this page.";
        case "NotFoundError":
            return "This computer has no camera.";
        case "NotReadableError":
        case "AbortError":
            return "The camera cannot be used: another program may have it.";
        default:
            return message;
    }
}
