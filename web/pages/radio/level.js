// How loud it is: as a meter, as text, and over the last seconds.

import { element, say } from "../common/html.js";

/** The quietest level shown, in dB below full scale. */
const QUIET = -60;
/** How often the text changes, in milliseconds: often enough to see, seldom enough to read. */
const TEXT = 500;
/** Of the picture: how much time a bar stands for, in milliseconds, and how many bars there are. */
const BAR = 100;
const BARS = 120;
const WIDTH = 4;
const HEIGHT = 48;

export class Level {
    /** `meter`: has the part that grows. `text`: names the level. `scope`: a picture of the last seconds, or null. */
    constructor(meter, text, scope = null) {
        Object.assign(this, { meter, text, scope, told: 0, sum: 0, count: 0, barAt: 0, bars: Array(BARS).fill(0) });
        if (scope) {
            this.path = element("path");
            const size = `0 0 ${BARS * WIDTH} ${HEIGHT}`;
            scope.append(element("svg", { viewBox: size, preserveAspectRatio: "none", "aria-hidden": "true" }, this.path));
        }
        this.clear();
    }

    clear() {
        this.bars.fill(0);
        this.show(0, performance.now() + TEXT);
        this.draw();
    }

    /** The mean power of some milliseconds. */
    add({ power }) {
        this.sum += power;
        this.count += 1;
        const now = performance.now();
        if (now - this.barAt >= BAR) {
            const mean = this.sum / this.count;
            this.bars.push(part(mean));
            this.bars.shift();
            Object.assign(this, { barAt: now, sum: 0, count: 0 });
            this.show(mean, now);
            this.draw();
        }
    }

    show(power, now) {
        this.meter.firstElementChild.style.setProperty("--part", part(power).toFixed(3));
        if (Math.abs(now - this.told) >= TEXT) {
            this.told = now;
            const level = decibels(power);
            const words = level <= -90 ? "silence" : `${Math.round(level)} dBFS`;
            say(this.text, words.replace("-", "−"));
            this.meter.setAttribute("aria-valuenow", Math.round(Math.max(QUIET, level)));
            this.meter.setAttribute("aria-valuetext", words);
        }
    }

    draw() {
        const middle = HEIGHT / 2;
        this.path?.setAttribute(
            "d",
            this.bars.map((bar, i) => `M${i * WIDTH + WIDTH / 2} ${(middle - bar * middle * 0.94 - 0.6).toFixed(1)}V${(middle + bar * middle * 0.94 + 0.6).toFixed(1)}`).join(""),
        );
    }
}

const decibels = (power) => 10 * Math.log10(Math.max(power, 1e-10));

/** Of the meter, from 0 to 1. */
const part = (power) => Math.min(1, Math.max(0, 1 - decibels(power) / QUIET));
