// Topology policies beside each other: the same routers at the same places, and the result of each policy.

import { element } from "./map.js";
import { Comparison } from "./module.js";

/** That of `lcroute sim --compare-topologies`. */
const SEED = 1;
/** Milliseconds of measuring until the page is drawn again. */
const AT_ONCE = 40;

/** Milliseconds of measuring after which the rest is estimated. Chosen. */
const KNOWN = 2000;

/** In steps that do not flicker. */
function duration(milliseconds) {
    const seconds = Math.max(1, Math.round(milliseconds / 1000));
    if (seconds < 100) {
        return seconds < 10 ? `${seconds} s` : `${Math.round(seconds / 5) * 5} s`;
    }
    return `${Math.round(seconds / 60)} min`;
}

const POLICIES = [
    { id: "tree", name: "Tree", about: "one way up" },
    { id: "fractal", name: "Fractal", about: "cells of cells" },
    { id: "regular", name: "Regular 8", about: "random rings" },
    { id: "mesh", name: "Mesh", about: "all with all" },
];

const percent = (share) => `${Math.floor(share * 1000) / 10}\u00a0%`;
/** A row of the table: its name, its meaning, its text for the figures, and the name of the part that measures it. */
const ROWS = [
    { name: "Links of a router", means: "the most that one has in brackets", text: (f) => `${f.links_mean.toFixed(1)} (${f.links_max})`, after: "control bytes" },
    { name: "Path", means: "its time, in those of a direct link", text: (f) => `${f.stretch_path.toFixed(2)}\u00a0×`, after: "stretch" },
    { name: "Path by the root", means: "the same over a group’s shared tree", text: (f) => `${f.stretch_shared.toFixed(2)}\u00a0×`, after: "packets to 20 listeners" },
    { name: "Copies for 20 listeners", means: "links that a packet crosses", text: (f) => f.listeners_sends.toFixed(0), after: "packets to 20 listeners" },
    { name: "5 % die", means: "survivors in one piece at once, and 5 s later", text: (f) => pieces(f.of_5_percent), after: "5 % die" },
    { name: "20 % die", means: "the same", text: (f) => pieces(f.of_20_percent), after: "20 % die" },
    { name: "A region dies", means: "the fifth around one place", text: (f) => pieces(f.of_region), after: "a region dies" },
];
const pieces = ({ before, after }) => (before === after ? percent(after) : `${percent(before)} → ${percent(after)}`);

/** The section: its button, a picture for each policy, the table. */
export class TopologyComparison {
    constructor(section, module, html) {
        this.module = module;
        this.find = (name) => section.querySelector(name);
        this.button = this.find("button");
        this.words = this.find("[role=status]");
        this.bar = this.find("progress");
        this.left = this.find(".left");
        this.button.addEventListener("click", () => (this.running ? this.stop() : this.run()));
        this.columns = POLICIES.map((policy) => {
            const links = element("path", { class: "wires" });
            const dots = element("path", { class: "dots" });
            const svg = element("svg", { viewBox: "-30 -30 1060 1060", role: "img", "aria-label": `${policy.name}: no links yet` }, links, dots);
            this.find(".pictures").append(html("li", {}, svg, html("strong", {}, policy.name), ` ${policy.about}`));
            this.find("thead tr").append(html("th", { scope: "col" }, policy.name));
            return { policy, links, dots, svg };
        });
        this.cells = ROWS.map(({ name, means }) => {
            const cells = POLICIES.map(() => html("td", {}, "–"));
            this.find("tbody").append(html("tr", {}, html("th", { scope: "row" }, name, html("small", {}, means)), ...cells));
            return cells;
        });
    }

    stop() {
        this.running = false;
    }

    async run() {
        this.running = true;
        this.routers = Number(this.find("select").value);
        this.find("select").disabled = true;
        this.button.textContent = "Stop";
        this.bar.hidden = false;
        this.began = performance.now();
        this.left.textContent = "";
        this.cells.flat().forEach((cell) => (cell.textContent = "–"));
        this.columns.forEach((column) => this.draw(column, { places: [], links: [] }));
        for (const [at, column] of this.columns.entries()) {
            if (this.running) {
                await this.measure(column, at);
            }
        }
        this.words.textContent = this.running ? "All four are measured." : "Stopped.";
        this.left.textContent = this.running ? `It took ${duration(performance.now() - this.began)}.` : "";
        this.running = false;
        this.button.textContent = "Compare again";
        this.find("select").disabled = false;
        this.bar.hidden = true;
    }

    async measure(column, at) {
        this.words.textContent = `${column.policy.name}: ${this.routers} routers start.`;
        const comparison = new Comparison(this.module, column.policy.id, this.routers, SEED);
        let [state, done] = [{ part: "coming to rest", left: 1 }, []];
        const steps = () => done.length + state.left;
        while (state.part && this.running) {
            const until = performance.now() + AT_ONCE;
            do {
                done.push(state.part);
                state = comparison.step();
            } while (state.part && state.part !== "stretch" && performance.now() < until);
            // as it is before anything dies
            if (["coming to rest", "stretch"].includes(state.part)) {
                this.draw(column, comparison.picture());
            }
            this.fill(state, done, at);
            this.bar.value = (at + done.length / steps()) / POLICIES.length;
            this.showLeft();
            // the page answers in between
            await new Promise((go) => setTimeout(go));
        }
        comparison.close();
    }

    /** How long it goes on, by what is done: not before that says something. */
    showLeft() {
        const passed = performance.now() - this.began;
        const left = passed / this.bar.value - passed;
        this.left.textContent = passed > KNOWN && this.bar.value > 0 ? `About ${duration(left)} left.` : "";
    }

    /** Figures of the whole network go into the table. */
    fill({ part, figures }, done, at) {
        ROWS.forEach(({ text, after }, row) => {
            if (done.includes(after) && part !== after) {
                this.cells[row][at].textContent = text(figures);
            }
        });
    }

    draw({ policy, links: wires, dots, svg }, { places, links }) {
        const at = (node) => places[node].map((part) => Math.round(part * 1000)).join(" ");
        wires.setAttribute("d", links.map(([a, b]) => `M${at(a)}L${at(b)}`).join(""));
        dots.setAttribute("d", places.map((_, node) => `M${at(node)}h0`).join(""));
        svg.classList.toggle("crowded", links.length > 1000);
        svg.setAttribute("aria-label", `${policy.name}: ${links.length || "no"} links`);
    }
}
