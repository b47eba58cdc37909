// The network, drawn: forces place the nodes once, and move them only when nodes or links come and go.

import { forceCollide, forceLink, forceManyBody, forceSimulation, forceX, forceY } from "../vendor/d3-force.js";
import { element } from "./html.js";

/** Space that names need around the nodes, in pixels. */
const MARGIN = 50;
/** How long forces may work in a frame, in milliseconds. */
const BUDGET = 8;
/** Below this the forces rest. */
const REST = 0.02;
/** Between two looks for room for names, in milliseconds. */
const NAMES = 250;
/** Of more flows, rates stand only where somebody looks. */
const RATES = 40;
/** Letters of a name; the rest is read in other places. */
const LETTERS = 22;
/** Where a name may stand beside its node: how far from it, and how it is anchored. */
const SIDES = { s: [0, 1], n: [0, -1], e: [1, 0], w: [-1, 0] };

/** Points of a line that names keep off, if they can. */
const STEPS = [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.97, 1];

const still = matchMedia("(prefers-reduced-motion: reduce)");
const between = (a, b) => (a < b ? `${a} ${b}` : `${b} ${a}`);
const clamp = (low, n, high) => Math.min(high, Math.max(low, n));

/** `act.open(id)`: a node was chosen. Without it nodes are pictures, which nothing happens to. */
export class NetworkMap {
    constructor(host, act = {}) {
        this.act = act;
        this.nodes = new Map();
        this.links = new Map();
        this.flows = new Map();
        // `k`: pixels for a unit of the forces; `wide`: how much more of them across
        this.view = { x: 0, y: 0, k: 1, wide: 1, own: false };
        // each a picture of its own: movement in one does not make a browser paint the others again
        this.lines = { far: element("path", { class: "link far" }), near: element("path", { class: "link" }), lit: element("path", { class: "link lit" }) };
        this.back = element("svg", { "aria-hidden": "true" }, ...Object.values(this.lines));
        this.middle = element("svg", { "aria-hidden": "true" });
        this.labels = element("svg", { "aria-hidden": "true" });
        this.svg = element("svg", { role: "group", "aria-label": act.open ? "Map of the network. Arrow keys go from node to node." : "Map of the network" });
        host.classList.add("network");
        host.append(this.back, this.middle, this.svg, this.labels);
        this.simulation = forceSimulation()
            .force("charge", forceManyBody().strength(-240).distanceMax(600))
            .force("x", forceX().strength(0.045))
            .force("y", forceY().strength(0.045))
            .force("collide", forceCollide(20))
            .stop();
        this.svg.addEventListener("keydown", (event) => this.walk(event));
        this.svg.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
        this.svg.addEventListener("pointerdown", (event) => this.drag(event));
        new ResizeObserver(() => this.resize()).observe(host);
        this.resize();
    }

    resize() {
        this.size = [this.svg.clientWidth || 800, this.svg.clientHeight || 500];
        this.margin = Math.min(MARGIN, this.size[0] / 9);
        this.wake();
    }

    /** Nodes and links as they are now; `flows`: of one group or of all, by pair of nodes. */
    update(look, flows, marks) {
        const changed = this.updateNodes(look) + this.updateLinks(look);
        this.scale = clamp(0.42, Math.sqrt((this.size[0] * this.size[1]) / this.nodes.size) / 105, 1.25);
        this.updateFlows(flows);
        this.mark(marks);
        if (changed > 0) {
            this.place(changed);
        }
        this.wake();
    }

    updateNodes(look) {
        let changed = 0;
        const seen = new Set();
        for (const [at, node] of look.nodes.entries()) {
            seen.add(node.id);
            let known = this.nodes.get(node.id);
            if (!known) {
                known = this.makeNode(node.id);
                this.nodes.set(node.id, known);
                changed += 1;
            }
            known.facts = node;
            known.isOwn = at === 0;
            known.words = node.name ?? `${node.id.slice(0, 6)}…`;
            known.text = known.words.length > LETTERS ? `${known.words.slice(0, LETTERS - 1)}…` : known.words;
            known.name.textContent = known.text;
        }
        for (const [id, node] of this.nodes) {
            if (!seen.has(id)) {
                const hadFocus = node.group === document.activeElement;
                node.group.remove();
                node.name.remove();
                this.nodes.delete(id);
                changed += 1;
                if (hadFocus || node === this.entry) {
                    this.enter(this.nodes.values().next().value, hadFocus);
                }
            }
        }
        if (!this.entry) {
            this.enter(this.nodes.values().next().value, false);
        }
        return changed;
    }

    makeNode(id) {
        const sign = element(
            "g",
            { class: "sign" },
            element("circle", { class: "halo", r: 21 }),
            element("path", { class: "waves", d: "M9 -9a13 13 0 0 1 0 18M13 -13a18.4 18.4 0 0 1 0 26M-9 -9a13 13 0 0 0 0 18M-13 -13a18.4 18.4 0 0 0 0 26" }),
            element("circle", { class: "ring", r: 13 }),
            element("rect", { class: "frame" }),
            element("circle", { class: "dot", r: 6.5 }),
            element("path", { class: "ear", d: "M-3.4 1.2v-2a3.4 3.4 0 0 1 6.8 0v2M-3.4 .6v2.6M3.4 .6v2.6" }),
        );
        const hit = element("circle", { class: "hit" });
        const group = element("g", this.act.open ? { class: "node", tabindex: -1, role: "button" } : { class: "node picture", role: "img" }, hit, sign);
        const name = element("text", { class: "name" });
        group.addEventListener("click", () => this.act.open?.(id));
        group.addEventListener("pointerenter", () => this.highlight(id));
        group.addEventListener("pointerleave", () => this.highlight(this.chosen));
        group.addEventListener("focus", () => this.highlight(id));
        group.addEventListener("blur", () => this.highlight(this.chosen));
        this.svg.append(group);
        this.labels.append(name);
        return { id, group, sign, hit, name, degree: 0 };
    }

    /** The node that the tab key leads to. */
    enter(node, moveFocus) {
        if (!this.act.open) {
            return;
        }
        this.entry?.group.setAttribute("tabindex", -1);
        this.entry = node;
        node?.group.setAttribute("tabindex", 0);
        if (moveFocus) {
            node?.group.focus({ preventScroll: true });
        }
    }

    updateLinks(look) {
        let changed = 0;
        const seen = new Set();
        this.nodes.forEach((node) => (node.degree = 0));
        for (const [a, b, cost] of look.links) {
            const ends = [look.nodes[a], look.nodes[b]].map((node) => this.nodes.get(node?.id));
            if (ends.some((end) => !end)) {
                continue;
            }
            const key = between(ends[0].id, ends[1].id);
            seen.add(key);
            ends.forEach((end) => (end.degree += 1));
            if (!this.links.has(key)) {
                this.links.set(key, { source: ends[0], target: ends[1] });
                changed += 1;
            }
            this.links.get(key).cost = cost;
        }
        for (const [key, { source, target }] of this.links) {
            // a node that comes back is drawn anew
            if (!seen.has(key) || this.nodes.get(source.id) !== source || this.nodes.get(target.id) !== target) {
                this.links.delete(key);
                changed += 1;
            }
        }
        return changed;
    }

    updateFlows(flows) {
        const seen = new Set();
        const most = Math.max(0, ...flows.map((flow) => flow.rate));
        for (const flow of flows) {
            const ends = [this.nodes.get(flow.from), this.nodes.get(flow.to)];
            if (ends.some((end) => !end)) {
                continue;
            }
            const key = `${flow.from} ${flow.to}`;
            seen.add(key);
            const known = this.flows.get(key) ?? this.makeFlow();
            this.flows.set(key, known);
            known.ends = ends;
            known.rate = flow.rate;
            known.text = flow.text;
            known.label.textContent = flow.text;
            // in a crowd, links with little traffic stand back
            known.group.style.opacity = flows.length > RATES ? clamp(0.15, Math.log2(1 + flow.rate) / Math.log2(2 + most), 1).toFixed(2) : "";
            const strength = Math.log2(1 + flow.rate);
            known.group.classList.toggle("idle", flow.rate === 0);
            known.group.style.setProperty("--width", `${(clamp(2, 2 + strength / 3, 6) * (0.5 + this.scale / 2)).toFixed(1)}px`);
            // in few steps: dots would jump with each of them
            known.group.style.setProperty("--gap", Math.round(clamp(2, Math.round(9 - strength), 9) * 6 * (this.scale < 0.6 ? 1.8 : 1)));
        }
        for (const [key, flow] of this.flows) {
            if (!seen.has(key)) {
                flow.group.remove();
                flow.label.remove();
                this.flows.delete(key);
            } else {
                const [from, to] = key.split(" ");
                flow.hasWayBack = seen.has(`${to} ${from}`);
            }
        }
    }

    makeFlow() {
        const parts = [element("path", { class: "bed" }), element("path", { class: "stream" })];
        const arrow = element("path", { class: "arrow", d: "M-9 -5.5L0 0L-9 5.5" });
        const label = element("text", { class: "rate" });
        const group = element("g", { class: "flow" }, ...parts, arrow);
        this.middle.append(group);
        this.labels.prepend(label);
        return { group, parts, arrow, label };
    }

    /** `marks`: listeners, senders and forwarders; `chosen`: whether a group is in view. */
    mark({ listeners, senders, carriers, chosen }) {
        const busy = new Set([...this.flows.values()].flatMap((flow) => flow.ends.map((end) => end.id)));
        this.back.classList.toggle("aside", chosen);
        this.middle.classList.toggle("chosen", chosen);
        this.back.classList.toggle("crowded", this.links.size > 200);
        for (const node of this.nodes.values()) {
            const { facts, group } = node;
            const is = { listens: listeners.has(node.id), sends: senders.has(node.id), own: node.isOwn, quiet: !facts.reports, stub: facts.stub, carries: carriers.has(node.id), open: node.id === this.chosen };
            node.isSource = is.sends;
            node.isInvolved = is.listens || is.sends;
            is.aside = node.isAside = chosen && !node.isInvolved && !busy.has(node.id);
            for (const [name, on] of Object.entries(is)) {
                group.classList.toggle(name, on);
            }
            node.name.classList.toggle("strong", node.isInvolved || is.own);
            const links = `${node.degree} ${node.degree === 1 ? "link" : "links"}`;
            const words = [node.words, is.own && "this node", is.listens && "listens", is.sends && "sends", is.carries && "passes packets on", links, is.stub && "a browser tab", is.quiet && "does not report"];
            group.setAttribute("aria-label", words.filter(Boolean).join(", "));
            if (this.act.open) {
                group.setAttribute("aria-pressed", is.open);
            }
            // waves and rings need more room than a dot
            node.scale = node.isInvolved ? Math.max(this.scale, this.size[0] < 600 ? 0.46 : 0.58) : this.scale;
            node.radius = node.scale * (is.sends ? 20 : is.own ? 21 : is.listens ? 15 : 8);
            node.sign.setAttribute("transform", `scale(${node.scale.toFixed(2)})`);
            node.hit.setAttribute("r", Math.max(node.radius + 2, 13));
        }
        this.namesDue = true;
    }

    /** The node whose facts are shown elsewhere. */
    choose(id) {
        this.chosen = id;
        this.nodes.forEach((node) => {
            node.group.classList.toggle("open", node.id === id);
            node.group.setAttribute("aria-pressed", node.id === id);
        });
        this.highlight(id);
    }

    /** Lets the forces work: in frames, the more the more has changed. */
    place(changed) {
        const nodes = [...this.nodes.values()];
        const isFirst = this.simulation.nodes().length === 0;
        for (const node of nodes.filter((n) => n.x === undefined && !isFirst)) {
            // beside a linked node
            const ends = [...this.links.values()].filter((link) => link.source === node || link.target === node);
            const beside = ends.map((link) => (link.source === node ? link.target : link.source)).find((n) => n.x !== undefined);
            [node.x, node.y] = [(beside?.x ?? 0) + 9, (beside?.y ?? 0) + 9];
        }
        // nodes near in the network are near in the picture
        const far = (link) => Math.log2(1 + link.cost / 10);
        const length = clamp(44, 150 - nodes.length * 2, 140);
        const links = forceLink([...this.links.values()]).distance((link) => length * (0.6 + 0.25 * far(link)));
        this.simulation.nodes(nodes).force("link", links.strength((link) => 1.6 / (1 + far(link)) / Math.min(link.source.degree, link.target.degree)));
        this.isFirst = isFirst || (this.isFirst && this.simulation.alpha() > REST);
        this.simulation.alpha(this.isFirst ? 1 : clamp(0.06, changed / nodes.length, 0.3));
    }

    wake() {
        this.awake ??= requestAnimationFrame((now) => this.frame(now));
    }

    frame(now) {
        this.awake = null;
        if (this.nodes.size === 0) {
            return;
        }
        const until = performance.now() + BUDGET;
        const isHurried = this.isFirst || still.matches;
        for (let isDue = true; isDue && this.simulation.alpha() > REST; isDue = isHurried && performance.now() < until) {
            this.simulation.tick();
        }
        const moves = this.simulation.alpha() > REST;
        const glides = !this.view.own && this.lookAtAll(moves && this.isFirst);
        if (!moves || !still.matches) {
            this.draw();
        }
        this.isFirst &&= moves;
        // names wait for the first picture to be done
        this.namesDue ||= moves || glides;
        this.labels.classList.toggle("hidden", this.isFirst);
        if (this.namesDue && !this.isFirst && now - (this.named ?? -NAMES) > NAMES) {
            this.named = now;
            this.namesDue = false;
            this.showNames();
        }
        if (moves || glides || this.namesDue) {
            this.wake();
        }
    }

    fit() {
        this.view.own = false;
        this.wake();
    }

    zoom(factor, [x, y] = this.size.map((side) => side / 2)) {
        const { view } = this;
        const k = clamp(0.05, view.k * factor, 8);
        view.x = x - ((x - view.x) * k) / view.k;
        view.y = y - ((y - view.y) * k) / view.k;
        view.k = k;
        view.own = true;
        this.wake();
    }

    /** Glides to where all nodes are seen; whether it is still on its way. */
    lookAtAll(atOnce) {
        const nodes = [...this.nodes.values()];
        const [width, height] = this.size;
        const edge = (of, axis) => of(...nodes.map((node) => node[axis] ?? 0));
        const [left, right, top, bottom] = [edge(Math.min, "x"), edge(Math.max, "x"), edge(Math.min, "y"), edge(Math.max, "y")];
        const [across, down] = [(width - 2 * this.margin) / (right - left || 1), (height - 2 * this.margin) / (bottom - top || 1)];
        // stretched to the picture, but not out of shape
        const k = clamp(0.05, Math.min(across / 0.7, down), 3);
        const wide = clamp(0.7, across / k, 1.5);
        const wanted = { k, wide, x: width / 2 - ((left + right) / 2) * k * wide, y: height / 2 - ((top + bottom) / 2) * k };
        const { view } = this;
        const pace = atOnce || still.matches || !this.drawn ? 1 : 0.14;
        let rest = 0;
        for (const part of ["k", "wide", "x", "y"]) {
            view[part] += (wanted[part] - view[part]) * pace;
            rest += Math.abs(wanted[part] - view[part]);
        }
        return rest > 0.5;
    }

    draw() {
        const { x, y, k, wide } = this.view;
        this.drawn = true;
        for (const node of this.nodes.values()) {
            node.at = [x + (node.x ?? 0) * k * wide, y + (node.y ?? 0) * k];
            node.group.setAttribute("transform", `translate(${point(node.at)})`);
            this.putName(node);
        }
        const d = { far: "", near: "" };
        for (const { source, target, cost } of this.links.values()) {
            d[cost > 300 ? "far" : "near"] += `M${point(source.at)}L${point(target.at)}`;
        }
        this.lines.far.setAttribute("d", d.far);
        this.lines.near.setAttribute("d", d.near);
        this.drawLit();
        for (const flow of this.flows.values()) {
            // the two ways of a link run side by side, and end where the nodes begin
            const [from, to] = aside(flow.ends[0].at, flow.ends[1].at, flow.hasWayBack ? 5.5 : 0);
            const length = Math.hypot(to[0] - from[0], to[1] - from[1]) || 1;
            const [start, end] = flow.ends.map((node) => Math.min(node.radius + 3, length / 3) / length);
            flow.line = [along(from, to, start), along(from, to, 1 - end)];
            flow.parts.forEach((part) => part.setAttribute("d", `M${point(flow.line[0])}L${point(flow.line[1])}`));
            const angle = (Math.atan2(to[1] - from[1], to[0] - from[0]) * 180) / Math.PI;
            flow.arrow.setAttribute("transform", `translate(${point(flow.line[1])}) rotate(${angle.toFixed(0)}) scale(${(0.4 + this.scale * 0.6).toFixed(2)})`);
        }
    }

    drawLit() {
        const lit = [...this.links.values()].filter(({ source, target }) => source.at && target.at && [source.id, target.id].includes(this.lit));
        this.lines.lit.setAttribute("d", lit.map(({ source, target }) => `M${point(source.at)}L${point(target.at)}`).join(""));
    }

    putName({ name, at, side = "s", radius }) {
        const [dx, dy] = SIDES[side];
        name.setAttribute("x", (at[0] + dx * (radius + 6)).toFixed(1));
        name.setAttribute("y", (at[1] + 4 + dy * (radius + 10)).toFixed(1));
        name.setAttribute("text-anchor", dx === 0 ? "middle" : dx > 0 ? "start" : "end");
    }

    /** Names and rates, as many as there is room for: those that matter come first. */
    showNames() {
        const nodes = [...this.nodes.values()].filter((node) => node.at);
        const taken = nodes.map(({ at: [x, y], radius: r }) => [x - r, y - r, x + r, y + r]);
        const lines = [...this.flows.values()].flatMap(({ line }) => (line ? (this.flows.size > RATES ? [1] : STEPS).map((t) => along(...line, t)) : []));
        const isFree = (box) => box[0] > 0 && box[2] < this.size[0] && taken.every((other) => box[2] < other[0] || box[0] > other[2] || box[3] < other[1] || box[1] > other[3]);
        const isClear = (box) => isFree(box) && lines.every(([x, y]) => x < box[0] || x > box[2] || y < box[1] || y > box[3]);
        // beside a tree in a crowd only the tree has names
        const isCrowd = nodes.length > 60;
        const name = (node) => {
            const half = node.text.length * 3.5 + 3;
            const box = (side) => {
                const [dx, dy] = SIDES[side];
                const middle = [node.at[0] + dx * (node.radius + 4 + half), node.at[1] + dy * (node.radius + 10)];
                return [middle[0] - half, middle[1] - 8, middle[0] + half, middle[1] + 8];
            };
            const sides = Object.keys(SIDES);
            const isNeeded = node.id === this.lit || node.isOwn;
            const side = isNeeded || !(isCrowd && node.isAside) ? (sides.find((s) => isClear(box(s))) ?? sides.find((s) => isFree(box(s))) ?? (isNeeded && "s")) : null;
            node.name.classList.toggle("hidden", !side);
            if (side) {
                node.side = side;
                taken.push(box(side));
                this.putName(node);
            }
        };
        const rate = (flow) => {
            const half = (flow.text?.length ?? 0) * 3.4 + 2;
            const [from, to] = flow.line ?? [[0, 0], [0, 0]];
            const steep = Math.abs(to[1] - from[1]) / (Math.hypot(to[0] - from[0], to[1] - from[1]) || 1);
            const spots = [0.5, 0.38, 0.62].flatMap((t) => (flow.hasWayBack ? [1] : [1, -1]).map((way) => along(...aside(from, to, way * (11 + (half - 6) * steep)), t)));
            const box = ([x, y]) => [x - half, y - 7, x + half, y + 7];
            const isAsked = this.flows.size <= RATES || flow.ends.some((node) => node.id === this.lit || node.isOwn);
            const spot = isAsked && half > 2 && (spots.find((s) => isClear(box(s))) ?? spots.find((s) => isFree(box(s))));
            flow.label.classList.toggle("hidden", !spot);
            if (spot) {
                taken.push(box(spot));
                flow.label.setAttribute("x", spot[0].toFixed(1));
                flow.label.setAttribute("y", (spot[1] + 4).toFixed(1));
            }
        };
        const [first, rest] = [[], []];
        nodes.forEach((node) => (node.isOwn || node.isInvolved || node.id === this.lit ? first : rest).push(node));
        const weight = (node) => 4 * (node.id === this.lit) + 2 * node.isOwn + node.isSource;
        first.sort((a, b) => weight(b) - weight(a)).forEach(name);
        [...this.flows.values()].sort((a, b) => b.rate - a.rate).forEach(rate);
        rest.sort((a, b) => b.degree - a.degree || (a.id < b.id ? -1 : 1)).forEach(name);
    }

    highlight(id) {
        this.lit = id;
        this.drawLit();
        this.namesDue = true;
        this.wake();
    }

    /** Arrow keys go to the next node in that direction. */
    walk(event) {
        const way = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] }[event.key];
        const here = [...this.nodes.values()].find((node) => node.group === document.activeElement);
        if (here && (event.key === "Enter" || event.key === " ")) {
            event.preventDefault();
            this.act.open(here.id);
        }
        if (!way || !here?.at) {
            return;
        }
        event.preventDefault();
        const far = (node) => {
            const [dx, dy] = [node.at[0] - here.at[0], node.at[1] - here.at[1]];
            const ahead = dx * way[0] + dy * way[1];
            return ahead > 1 ? ahead + 2 * Math.abs(dx * way[1] + dy * way[0]) : Infinity;
        };
        const next = [...this.nodes.values()].filter((node) => node !== here && node.at).sort((a, b) => far(a) - far(b))[0];
        if (next && far(next) < Infinity) {
            this.enter(next, true);
            // nodes outside come into view
            this.view.x += clamp(this.margin, next.at[0], this.size[0] - this.margin) - next.at[0];
            this.view.y += clamp(this.margin, next.at[1], this.size[1] - this.margin) - next.at[1];
        }
    }

    /** Alone the wheel scrolls the page. */
    wheel(event) {
        if (event.ctrlKey || event.metaKey) {
            event.preventDefault();
            const box = this.svg.getBoundingClientRect();
            this.zoom(Math.exp(-clamp(-80, event.deltaY, 80) / 250), [event.clientX - box.left, event.clientY - box.top]);
        }
    }

    drag(event) {
        if (event.button !== 0 || event.target.closest(".node")) {
            return;
        }
        const start = [event.clientX - this.view.x, event.clientY - this.view.y];
        const over = new AbortController();
        const on = (name, act) => addEventListener(name, act, { signal: over.signal });
        on("pointermove", (to) => {
            [this.view.x, this.view.y] = [to.clientX - start[0], to.clientY - start[1]];
            this.view.own = true;
            this.wake();
        });
        ["pointerup", "pointercancel"].forEach((name) => on(name, () => over.abort()));
    }
}

const point = ([x, y]) => `${x.toFixed(1)} ${y.toFixed(1)}`;
const along = ([x, y], [u, v], t) => [x + (u - x) * t, y + (v - y) * t];

function aside([x, y], [u, v], by) {
    const length = Math.hypot(u - x, v - y) || 1;
    const [dx, dy] = [(-(v - y) / length) * by, ((u - x) / length) * by];
    return [[x + dx, y + dy], [u + dx, v + dy]];
}
