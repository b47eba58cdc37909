// The presenter's screen in this tab: still pictures of its changes, drawn in the order in which they come. The module has looked at
// their headers; here they are decoded without any change of colours, so that each pixel is as it was sent.

import { say } from "../common/html.js";

const WANTED = "lecture screen";
/** Enlarged by whole numbers, each pixel stays a square. */
const ZOOMS = ["fit", 100, 200, 300, 400];
/** Nothing between the bytes of a picture and the pixels of the canvas. */
const AS_SENT = { colorSpaceConversion: "none", premultiplyAlpha: "none", imageOrientation: "none" };

/** Most changes that wait to be drawn: twice as many as the module stores. The oldest ones give way. */
const MAX_WAITING = 256;

const STATES = {
    waiting: "Waiting for the presenter’s screen. It comes here once there is one.",
    coming: "More of it is coming.",
    shown: "",
    resting: "The presenter has paused it.",
    silent: "Nothing was heard of it for ten seconds. What was shown stays, and it goes on by itself.",
    ended: "The presenter shows no screen any more.",
};

const $ = (id) => document.getElementById(id);

/** Whether a session's screen is joined where nothing was chosen: where the reader chose one before, and does not want to save data. */
export function wantsScreen() {
    return !navigator.connection?.saveData && localStorage.getItem(WANTED) === "yes";
}

/** The reader chose it, or dropped it: so with the next session. */
export function wantScreen(isWanted) {
    localStorage.setItem(WANTED, isWanted ? "yes" : "no");
}

export class Screen {
    /** `does`: `pause` is told whether the screen is to stand still, `reveal`, that its picture comes or goes. */
    constructor(does) {
        Object.assign(this, { does, waiting: [], isDrawing: false, visit: 0, hasDrawn: false, hasEnded: false, zoom: 0, ending: new AbortController() });
        this.context = $("screen-picture").getContext("2d", { alpha: false });
        const on = (id, event, does) => $(id).addEventListener(event, does, { signal: this.ending.signal });
        on("screen-pause", "click", () => does.pause($("screen-pause").getAttribute("aria-pressed") !== "true"));
        on("screen-smaller", "click", () => this.zoomTo(this.zoom - 1));
        on("screen-larger", "click", () => this.zoomTo(this.zoom + 1));
        on("screen-view", "keydown", (event) => {
            const to = { "+": this.zoom + 1, "=": this.zoom + 1, "-": this.zoom - 1, 0: 0 }[event.key];
            if (to !== undefined && !event.ctrlKey && !event.altKey && !event.metaKey) {
                event.preventDefault();
                this.zoomTo(to);
            }
        });
        this.zoomTo(0);
    }

    /** A change, as the module has it. */
    add(bytes) {
        const view = new DataView(bytes.buffer, bytes.byteOffset);
        const [width, height, x, y, w, h] = [0, 2, 4, 6, 8, 10].map((at) => view.getUint16(at));
        const end = bytes.indexOf(10, 13);
        const type = new TextDecoder().decode(bytes.subarray(13, end));
        const file = new Blob([bytes.subarray(end + 1)], { type });
        if (bytes[12]) {
            // nothing before it shows
            this.waiting.length = 0;
        }
        if (this.waiting.length >= MAX_WAITING) {
            this.waiting.shift();
        }
        this.waiting.push({ width, height, x, y, w, h, file, visit: this.visit });
        this.draw();
    }

    /** One change after the other. */
    async draw() {
        if (this.isDrawing) {
            return;
        }
        this.isDrawing = true;
        for (let change = this.waiting.shift(); change; change = this.waiting.shift()) {
            const { width, height, x, y, w, h, file, visit } = change;
            // bytes that no browser decodes leave what was there
            const picture = await createImageBitmap(file, AS_SENT).catch(() => null);
            if (picture && visit === this.visit && picture.width === w && picture.height === h) {
                const { canvas } = this.context;
                if (canvas.width !== width || canvas.height !== height) {
                    Object.assign(canvas, { width, height });
                    canvas.style.setProperty("--ratio", width / height);
                    this.zoomTo(this.zoom);
                }
                this.context.drawImage(picture, x, y);
                this.hasDrawn = true;
                this.reveal();
            }
            picture?.close();
        }
        this.isDrawing = false;
    }

    reveal() {
        const isHidden = !this.hasDrawn || this.hasEnded;
        if ($("screen-view").hidden !== isHidden) {
            $("screen-view").hidden = isHidden;
            this.does.reveal();
        }
        $("screen-tools").hidden = isHidden;
    }

    /** `status`: of the module, null where the screen is not joined; `description`: the presenter's words, or none. */
    show(status, description = "") {
        $("screen").hidden = status === null;
        if (status === null) {
            this.forget();
            return;
        }
        const { state, paused } = status;
        this.hasEnded = state === "ended";
        this.reveal();
        say($("screen-state"), paused ? "Paused here: nothing of it comes." : STATES[state]);
        $("screen-pause").setAttribute("aria-pressed", String(paused));
        const words = description || "without a description";
        $("screen-picture").setAttribute("aria-label", `The presenter’s screen: ${words}`);
    }

    /** By its place in the list. */
    zoomTo(place) {
        this.zoom = Math.min(Math.max(place, 0), ZOOMS.length - 1);
        const zoom = ZOOMS[this.zoom];
        const { canvas } = this.context;
        canvas.dataset.zoom = zoom;
        canvas.style.width = zoom === "fit" ? "" : `${(canvas.width * zoom) / 100}px`;
        say($("screen-zoom"), zoom === "fit" ? "as large as there is room" : `${zoom} %`);
        // a button that has the focus stays one
        $("screen-smaller").setAttribute("aria-disabled", String(this.zoom === 0));
        $("screen-larger").setAttribute("aria-disabled", String(this.zoom === ZOOMS.length - 1));
    }

    /** What was drawn is gone; what is being decoded will not be drawn. */
    forget() {
        this.visit += 1;
        this.waiting.length = 0;
        if (this.hasDrawn) {
            this.hasDrawn = false;
            Object.assign(this.context.canvas, { width: 1, height: 1 });
        }
    }

    end() {
        this.show(null);
        this.ending.abort();
    }
}
