// This reader's choices of rendering, stored in the browser, and sent to nobody. The system's settings (colours of its own, dark,
// more contrast, less motion) count where nothing else was chosen; forced colours always count.

import { say } from "../common/html.js";

const KEPT = "lcroute studio looks";
const $ = (id) => document.getElementById(id);

/** Values of each preset; a choice of the reader changes one. */
const PRESETS = {
    system: { font: "system", ownFont: "", size: 100, spacing: 1.5, letters: 0, words: 0, width: 60, colours: "system", ink: "#20180a", ground: "#fff8e6", place: "strip", announced: true, readSlides: false, readCaptions: false, rate: 1 },
    easy: { font: "wide", size: 120, spacing: 1.9, letters: 0.05, words: 0.16, width: 44, colours: "paper" },
    contrast: { size: 140, spacing: 1.6, letters: 0.02, width: 56, colours: "contrast", place: "strip" },
    captions: { size: 160, width: 40, colours: "dark", place: "beside" },
};

const FONTS = {
    system: "system-ui, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif",
    wide: "Verdana, 'DejaVu Sans', sans-serif",
    serif: "Georgia, 'DejaVu Serif', serif",
    mono: "ui-monospace, 'DejaVu Sans Mono', monospace",
    hyperlegible: "'Atkinson Hyperlegible Next', 'Atkinson Hyperlegible', system-ui, sans-serif",
    dyslexic: "OpenDyslexic, system-ui, sans-serif",
};

/** Numbers, each with its words. */
const NUMBERS = {
    size: (n) => `${n} %`,
    spacing: (n) => `${n.toFixed(1)} lines`,
    letters: (n) => (n === 0 ? "as the font has it" : `${n.toFixed(2)} em more`),
    words: (n) => (n === 0 ? "as the font has it" : `${n.toFixed(2)} em more`),
    width: (n) => `${n} letters`,
    rate: (n) => `${n.toFixed(1)} times`,
};
const CHECKS = { announced: "announced", readSlides: "read-slides", readCaptions: "read-captions" };
const COLOUR = /^#[0-9a-f]{6}$/i;
/** WCAG 2.2, 1.4.3 and 1.4.6: for all text, and for most eyes that see little. */
const [ENOUGH, MUCH] = [4.5, 7];

export class Looks {
    /** `change`: receives the values. */
    constructor(change) {
        this.change = change;
        this.now = { preset: "system", ...PRESETS.system };
        Object.assign(this.now, kept(this.now));
        this.asked = ["(prefers-color-scheme: dark)", "(prefers-contrast: more)", "(forced-colors: active)"].map((query) => matchMedia(query));
        this.asked.forEach((query) => query.addEventListener("change", () => this.apply()));
        $("choices").addEventListener("input", ({ target }) => this.choose(target));
        $("choices").addEventListener("submit", (event) => event.preventDefault());
        this.fill();
        this.apply();
    }

    choose(field) {
        if (field.name === "preset") {
            this.now = { ...this.now, ...PRESETS.system, ...PRESETS[field.value], preset: field.value };
            this.fill();
        } else {
            this.now.preset = "own";
            this.read();
            this.check("preset", null);
        }
        this.apply();
        localStorage.setItem(KEPT, JSON.stringify(this.now));
    }

    /** From the form. */
    read() {
        const { now } = this;
        Object.assign(now, { font: $("font").value, ownFont: $("own-font").value, place: $("place").value, ink: $("ink").value, ground: $("ground").value });
        Object.keys(NUMBERS).forEach((name) => (now[name] = Number($(name).value)));
        Object.entries(CHECKS).forEach(([name, id]) => (now[name] = $(id).checked));
        now.colours = document.querySelector("[name=colours]:checked")?.value ?? "system";
    }

    /** Into the form. */
    fill() {
        const { now } = this;
        $("own-font").value = now.ownFont;
        ["font", "place", "ink", "ground", ...Object.keys(NUMBERS)].forEach((name) => ($(name).value = now[name]));
        Object.entries(CHECKS).forEach(([name, id]) => ($(id).checked = now[name]));
        this.check("colours", now.colours);
        this.check("preset", now.preset);
    }

    check(name, value) {
        document.querySelectorAll(`[name=${name}]`).forEach((field) => (field.checked = field.value === value));
    }

    apply() {
        const { now } = this;
        const root = document.documentElement;
        // a name, and nothing else that a style sheet has
        const own = `"${now.ownFont.replace(/["\\;{}\n]/g, "")}", system-ui, sans-serif`;
        const style = { font: FONTS[now.font] ?? own, size: now.size / 100, spacing: now.spacing, letters: `${now.letters}em`, words: `${now.words}em`, measure: `${now.width}ch` };
        Object.entries(style).forEach(([name, value]) => root.style.setProperty(`--${name}`, value));
        root.dataset.palette = this.palette();
        root.dataset.captions = now.place;
        for (const name of ["ink", "ground"]) {
            root.style.setProperty(`--own-${name}`, now[name]);
        }
        Object.entries(NUMBERS).forEach(([name, words]) => say(document.querySelector(`output[for=${name}]`), words(now[name])));
        $("own-font-label").hidden = now.font !== "own";
        $("pair").hidden = now.colours !== "own";
        say($("ratio"), words(ratio(now.ink, now.ground)));
        const [, , forced] = this.asked;
        $("forced").hidden = !forced.matches;
        document.querySelectorAll("[name=colours], #pair input").forEach((field) => (field.disabled = forced.matches));
        this.change(now);
    }

    /** Colours that are used. */
    palette() {
        const [dark, more] = this.asked.map((query) => query.matches);
        const { colours } = this.now;
        if (colours === "contrast" || (colours === "system" && more)) {
            return dark || colours === "contrast" ? "black" : "white";
        }
        return colours === "system" ? (dark ? "dark" : "light") : colours;
    }
}

/** The stored choices of valid type and within bounds. */
function kept(defaults) {
    let found = {};
    try {
        found = JSON.parse(localStorage.getItem(KEPT)) ?? {};
    } catch {
        // of another version, or damaged
    }
    const isNumber = (name, value) => Number.isFinite(value) && value >= Number($(name).min) && value <= Number($(name).max);
    const isColour = (name) => ["ink", "ground"].includes(name);
    const isGood = ([name, value]) => {
        const isSame = name in defaults && typeof value === typeof defaults[name];
        return isSame && (!(name in NUMBERS) || isNumber(name, value)) && (!isColour(name) || COLOUR.test(value));
    };
    return Object.fromEntries(Object.entries(found).filter(isGood));
}

/** The contrast of two colours, as WCAG 2.2 computes it: 1 to 21. */
export function ratio(one, other) {
    const [dark, light] = [one, other].map(luminance).sort((a, b) => a - b);
    return (light + 0.05) / (dark + 0.05);
}

function luminance(colour) {
    const parts = [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16) / 255);
    const [red, green, blue] = parts.map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
}

function words(found) {
    // rounded down: 4.49 is not enough
    const shown = (Math.floor(found * 10) / 10).toFixed(1);
    return `Contrast ${shown} : 1. ${found >= MUCH ? "Much: enough for all text." : found >= ENOUGH ? "Enough for all text." : "Too little: from 4.5 on most can read it."}`;
}
