// The presenter's camera in this tab: a worker decodes it, and draws it. The reader chooses it, its size, and pauses.

import { fill, html, say } from "../common/html.js";

const [WANTED, LARGE] = ["lecture camera", "lecture camera large"];

const STATES = {
    waiting: "Waiting for the presenter’s camera. It comes here once there is one.",
    shown: "",
    fewer: "Fewer pictures a second: too much of it gets lost on the way, or this computer is too slow for all.",
    slow: "Too slow for pictures here: too much of them gets lost on the way, or this computer is too slow. It is tried again by itself after a while.",
    silent: "Nothing was heard of it for ten seconds. What was shown stays, and it goes on by itself.",
    ended: "The presenter’s camera is off.",
};
const LEFT = "This browser cannot decode it, and has left it.";
const NO_LARGE = "The large picture comes once the way here, or this computer, is fast enough.";

const $ = (id) => document.getElementById(id);

/** Whether a session's camera is joined where nothing was chosen: where the reader chose one before, and does not want to save data. */
export function wantsCamera() {
    return !navigator.connection?.saveData && localStorage.getItem(WANTED) === "yes";
}

/** The reader chose it, or dropped it: so with the next session. */
export function wantCamera(isWanted) {
    if (isWanted && !window.VideoDecoder) {
        throw new Error("This browser decodes no pictures for pages (WebCodecs).");
    }
    localStorage.setItem(WANTED, isWanted ? "yes" : "no");
}

/** Whether the reader wants the large picture, where there is one. */
export function wantsLarge() {
    return !navigator.connection?.saveData && localStorage.getItem(LARGE) === "yes";
}

export class Camera {
    /** `does`: `pause` and `large` are told what the reader chose, `again`, that he wants it once more, `leave`, that it is left, `waiting`, how many pictures wait here, `reveal`, that its picture comes or goes. */
    constructor(does) {
        Object.assign(this, { does, worker: null, hasDrawn: false, hasEnded: false, hasLeft: false, ending: new AbortController() });
        const on = (id, to) => $(id).addEventListener("click", to, { signal: this.ending.signal });
        on("camera-pause", () => does.pause($("camera-pause").getAttribute("aria-pressed") !== "true"));
        on("camera-small", () => this.choose(false));
        on("camera-large", () => this.choose(true));
        on("camera-again", () => does.again());
    }

    choose(isLarge) {
        localStorage.setItem(LARGE, isLarge ? "yes" : "no");
        this.does.large(isLarge);
    }

    /** A frame, as the module has it. */
    add(bytes) {
        if (!this.hasLeft) {
            this.worker ??= this.begin();
            const frame = { isKey: bytes[0] === 1, bytes: bytes.slice(1) };
            this.worker.postMessage(frame, [frame.bytes.buffer]);
        }
    }

    begin() {
        // it can be handed over once
        const canvas = html("canvas", { id: "camera-picture", role: "img", width: 1, height: 1 });
        fill($("camera-view"), [canvas]);
        this.name();
        const worker = new Worker(new URL("camera-decoder.js", import.meta.url));
        worker.addEventListener("message", ({ data }) => this.worker === worker && this.take(data));
        const drawn = canvas.transferControlToOffscreen();
        worker.postMessage({ canvas: drawn }, [drawn]);
        return worker;
    }

    /** Of the worker. */
    take({ width, height, isLeft, waiting, hasLost }) {
        if (width) {
            const canvas = $("camera-picture");
            canvas.dataset.size = `${width}x${height}`;
            canvas.style.setProperty("--ratio", width / height);
            this.hasDrawn = true;
            this.reveal();
        } else if (isLeft) {
            this.hasLeft = true;
            this.does.leave();
        } else {
            this.does.waiting(waiting, hasLost);
        }
    }

    reveal() {
        const isHidden = !this.hasDrawn || this.hasEnded;
        if ($("camera-view").hidden !== isHidden) {
            $("camera-view").hidden = isHidden;
            this.does.reveal();
        }
    }

    name() {
        $("camera-picture")?.setAttribute("aria-label", `The presenter’s camera: ${this.description || "without a description"}`);
    }

    /** `status`: of the module, null where the camera is not joined; `description`: the presenter's words, or none. */
    show(status, description = "") {
        $("camera").hidden = status === null && !this.hasLeft;
        this.description = description;
        if (status === null) {
            this.forget();
            say($("camera-state"), this.hasLeft ? LEFT : "");
            $("camera-tools").hidden = $("camera-slow").hidden = true;
            return;
        }
        const { state, paused, size, has_large: hasLarge } = status;
        this.hasLeft = false;
        this.hasEnded = state === "ended";
        this.reveal();
        this.name();
        const isLarge = wantsLarge();
        const isSmaller = hasLarge && isLarge && size === "small" && state === "shown";
        say($("camera-state"), paused ? "Paused here: nothing of it comes." : isSmaller ? NO_LARGE : STATES[state]);
        $("camera-tools").hidden = state === "ended";
        $("camera-slow").hidden = paused || state !== "slow";
        $("camera-pause").setAttribute("aria-pressed", String(paused));
        $("camera-small").hidden = $("camera-large").hidden = !hasLarge;
        $("camera-small").setAttribute("aria-pressed", String(!isLarge));
        $("camera-large").setAttribute("aria-pressed", String(isLarge));
    }

    /** The last picture is gone. */
    forget() {
        this.worker?.terminate();
        Object.assign(this, { worker: null, hasDrawn: false });
        fill($("camera-view"), []);
        this.reveal();
    }

    end() {
        this.hasLeft = false;
        this.show(null);
        this.ending.abort();
    }
}
