// Figures as people read them, rates from two looks, and curves of rates.

import { element, html } from "./html.js";

/** Of a curve, in its own units, and how much time it shows at least and at most, in seconds. */
const WIDTH = 300;
const SHORTEST = 120;
const LONGEST = 900;

/** 1234567 -> "1.23 M" */
export function short(n) {
    const steps = ["", " k", " M", " G", " T"];
    let at = 0;
    for (; n >= 999.5 && at + 1 < steps.length; at += 1) {
        n /= 1000;
    }
    const digits = at === 0 && Number.isInteger(n) ? 0 : n < 10 ? 2 : n < 100 ? 1 : 0;
    return n.toFixed(digits) + steps[at];
}

export function bits(bytes) {
    const n = Math.round(bytes * 8);
    return `${short(n)}${n < 999.5 ? " " : ""}bit/s`;
}

export const packets = (rate) => `${short(rate < 10 ? Math.round(rate * 10) / 10 : Math.round(rate)).replace(/\.(\d)0$/, ".$1")}/s`;

export function duration(seconds) {
    const parts = [
        [Math.floor(seconds / 86400), "d"],
        [Math.floor(seconds / 3600) % 24, "h"],
        [Math.floor(seconds / 60) % 60, "min"],
        [Math.floor(seconds) % 60, "s"],
    ];
    const first = parts.findIndex(([n]) => n > 0);
    const shown = first < 0 ? [[0, "s"]] : parts.slice(first, first + 2).filter(([n]) => n > 0);
    return shown.map(([n, unit]) => `${n} ${unit}`).join(" ");
}

/** Growth of counters a second; none across a restart of their source. */
export class Rates {
    constructor() {
        this.before = new Map();
    }

    /** `counts`: of each name a number. */
    next(at, counts) {
        const rates = new Map();
        for (const [name, count] of counts) {
            const old = this.before.get(name);
            if (old && at > old.at && count >= old.count) {
                rates.set(name, (count - old.count) / (at - old.at));
            }
        }
        this.before = new Map([...counts].map(([name, count]) => [name, { at, count }]));
        return rates;
    }
}

/** A rate over the last minutes, with the time below it. */
export class Curve {
    constructor(host, label, show) {
        this.points = [];
        this.show = show;
        this.area = element("path", { class: "area" });
        this.line = element("path", { class: "line" });
        this.number = html("strong");
        this.most = html("small");
        this.since = html("small");
        const svg = element("svg", { viewBox: `0 0 ${WIDTH} 30`, preserveAspectRatio: "none", "aria-hidden": "true" }, this.area, this.line);
        const axis = html("div", { class: "axis" }, this.since, this.most, html("small", {}, "now"));
        host.append(html("div", { class: "curve" }, html("span", {}, label), this.number, svg, axis));
    }

    /** Values from before this page: pairs of a time in seconds and a rate. */
    begin(points) {
        const first = this.points[0]?.[0] ?? Infinity;
        this.points = [...points.filter(([at]) => at < first), ...this.points];
    }

    add(at, value) {
        this.points.push([at, value]);
        this.points = this.points.filter(([then]) => then >= at - LONGEST);
        const span = Math.max(at - this.points[0][0], SHORTEST);
        const most = this.points.reduce((high, [, v]) => Math.max(high, v), 0);
        const spots = this.points.map(([then, v]) => `${(WIDTH * (1 - (at - then) / span)).toFixed(1)} ${(29 - (v / (most || 1)) * 27).toFixed(1)}`);
        this.line.setAttribute("d", `M${spots.join("L")}`);
        this.area.setAttribute("d", `M${spots[0].split(" ")[0]} 30L${spots.join("L")}L${WIDTH} 30Z`);
        this.number.textContent = this.show(value);
        this.most.textContent = `up to ${this.show(most)}`;
        this.since.textContent = `${Math.round(span / 60)} min ago`;
    }
}
