// Keeps the screen on while something is shown or sent: phones that sleep end their links.

export class Awake {
    /** `isNeeded`: whether the screen has to stay on at present. */
    constructor(isNeeded) {
        this.isNeeded = isNeeded;
        // browsers take the lock from a page that is not seen
        document.addEventListener("visibilitychange", () => this.keep());
    }

    async keep() {
        if (!this.isNeeded() || document.hidden || !navigator.wakeLock) {
            return;
        }
        try {
            const lock = await navigator.wakeLock.request("screen");
            const isStale = !this.isNeeded() || (this.lock && !this.lock.released);
            isStale ? lock.release() : (this.lock = lock);
        } catch {
            // the battery is low, or the browser does not want to
        }
    }

    end() {
        this.lock?.release();
        this.lock = null;
    }
}
