// The network, drawn: forces place the nodes once, and move them only when nodes or links come and go.

import { forceCollide, forceLink, forceManyBody, forceSimulation, forceX, forceY } from "../vendor/d3-force.js";
import { element } from "./html.js";

/** How long a packet is on its way over a link, in milliseconds: not as in the network, but so that eyes can follow. */
const TRAVEL = 1600;
/** Space that names need around the nodes, in pixels. */
const MARGIN = 46;
const ARROW = "M-5 -5L6 0L-5 5Z";

const still = matchMedia("(prefers-reduced-motion: reduce)");
const between = (a, b) => (a < b ? `${a} ${b}` : `${b} ${a}`);

/** `act.open(id)`: a node was chosen. */
export class NetworkMap {
    constructor(host, act) {
        this.act = act;
        this.nodes = new Map();
        this.links = new Map();
        this.flows = new Map();
        this.view = { x: 0, y: 0, k: 1, own: false };
        this.layer = Object.fromEntries(["links", "flows", "packets", "nodes"].map((name) => [name, element("g", { class: name })]));
        this.svg = element("svg", { role: "group", "aria-label": "Map of the network. Arrow keys go from node to node." }, ...Object.values(this.layer));
        host.append(this.svg);
        this.simulation = forceSimulation()
            .force("charge", forceManyBody().strength(-260).distanceMax(700))
            .force("x", forceX().strength(0.045))
            .force("y", forceY().strength(0.06))
            .force("collide", forceCollide(22))
            .stop();
        this.svg.addEventListener("keydown", (event) => this.walk(event));
        this.svg.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
        this.svg.addEventListener("pointerdown", (event) => this.drag(event));
        new ResizeObserver(() => this.resize()).observe(host);
        this.resize();
        requestAnimationFrame((now) => this.frame(now));
    }

    resize() {
        this.size = [this.svg.clientWidth || 800, this.svg.clientHeight || 500];
        this.moved = true;
    }

    /** Nodes and links as they are now; `flows`: of one group or of all, by pair of nodes. */
    update(look, flows, marks) {
        const changed = this.updateNodes(look) + this.updateLinks(look);
        this.updateFlows(flows);
        this.mark(marks);
        if (changed > 0) {
            this.place(look.nodes.length);
        }
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
            known.name.textContent = node.name ?? node.id.slice(0, 6);
            known.group.classList.toggle("own", at === 0);
            known.isOwn = at === 0;
        }
        for (const [id, node] of this.nodes) {
            if (!seen.has(id)) {
                node.group.remove();
                this.nodes.delete(id);
                changed += 1;
            }
        }
        this.radius = this.nodes.size <= 15 ? 12 : this.nodes.size <= 60 ? 9 : 5.5;
        return changed;
    }

    makeNode(id) {
        const group = element("g", { class: "node", tabindex: this.nodes.size === 0 ? 0 : -1, role: "button" });
        const parts = { ring: element("circle", { class: "ear" }), own: element("circle", { class: "own-mark" }), body: element("path", { class: "body" }) };
        const name = element("text", { class: "name" });
        group.append(element("circle", { class: "reach", r: 18 }), parts.ring, parts.own, parts.body, name);
        group.addEventListener("click", () => this.act.open(id));
        group.addEventListener("pointerenter", () => this.highlight(id));
        group.addEventListener("pointerleave", () => this.highlight(null));
        group.addEventListener("focus", () => this.highlight(id));
        group.addEventListener("blur", () => this.highlight(null));
        this.layer.nodes.append(group);
        return { id, group, name, ...parts, degree: 0 };
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
            let link = this.links.get(key);
            if (!link) {
                link = { source: ends[0], target: ends[1], line: element("line", { class: "link" }) };
                this.layer.links.append(link.line);
                this.links.set(key, link);
                changed += 1;
            }
            link.cost = cost;
            link.line.dataset.far = cost > 500 ? "2" : cost > 100 ? "1" : "0";
        }
        for (const [key, link] of this.links) {
            if (!seen.has(key)) {
                link.line.remove();
                this.links.delete(key);
                changed += 1;
            }
        }
        return changed;
    }

    updateFlows(flows) {
        const seen = new Set();
        for (const flow of flows) {
            const ends = [this.nodes.get(flow.from), this.nodes.get(flow.to)];
            if (ends.some((end) => !end)) {
                continue;
            }
            const key = `${flow.from} ${flow.to}`;
            seen.add(key);
            let known = this.flows.get(key);
            if (!known) {
                known = { ends, line: element("line", { class: "flow" }), arrow: element("path", { class: "arrow", d: ARROW }), label: element("text", { class: "rate" }), dots: [], phase: Math.random() };
                this.layer.flows.append(known.line, known.arrow, known.label);
                this.flows.set(key, known);
            }
            known.both = flows.some((other) => other.from === flow.to && other.to === flow.from);
            known.rate = flow.rate;
            known.label.textContent = flows.length <= 40 ? flow.text : "";
            const dots = still.matches ? 0 : Math.min(6, Math.ceil(Math.log2(flow.rate + 1)));
            while (known.dots.length > dots) {
                known.dots.pop().remove();
            }
            while (known.dots.length < dots) {
                const dot = element("circle", { class: "packet", r: this.nodes.size > 60 ? 2.6 : 3.6 });
                this.layer.packets.append(dot);
                known.dots.push(dot);
            }
        }
        for (const [key, flow] of this.flows) {
            if (!seen.has(key)) {
                [flow.line, flow.arrow, flow.label, ...flow.dots].forEach((part) => part.remove());
                this.flows.delete(key);
            }
        }
        this.moved = true;
    }

    /** `marks`: who listens, who sends; `chosen`: whether a group is in view. */
    mark({ listeners, senders, chosen }) {
        const busy = new Set([...this.flows.values()].flatMap((flow) => flow.ends.map((end) => end.id)));
        for (const node of this.nodes.values()) {
            const { facts } = node;
            const does = [listeners.has(node.id) && "listens", senders.has(node.id) && "sends"].filter(Boolean);
            const r = this.radius * (does.length > 0 ? 1.15 : 1);
            node.involved = does.length > 0 || node.isOwn;
            node.group.classList.toggle("aside", chosen && does.length === 0 && !busy.has(node.id));
            node.group.classList.toggle("listens", listeners.has(node.id));
            node.group.classList.toggle("quiet", !facts.reports);
            const diamond = `M0 ${-r * 1.35}L${r * 1.35} 0L0 ${r * 1.35}L${-r * 1.35} 0Z`;
            const circle = `M${-r} 0A${r} ${r} 0 1 1 ${r} 0A${r} ${r} 0 1 1 ${-r} 0Z`;
            node.body.setAttribute("d", senders.has(node.id) ? diamond : circle);
            node.ring.setAttribute("r", listeners.has(node.id) ? r + 5 : 0);
            node.own.setAttribute("r", node.isOwn ? r + (listeners.has(node.id) ? 10 : 5) : 0);
            node.name.setAttribute("y", r + 17 + (node.isOwn ? 4 : 0));
            const links = `${node.degree} ${node.degree === 1 ? "link" : "links"}`;
            const words = [facts.name ?? facts.id, node.isOwn && "this node", links, ...does, !facts.reports && "does not report"];
            node.group.setAttribute("aria-label", words.filter(Boolean).join(", "));
        }
        this.namesDue = true;
    }

    /** Lets the forces work: seen by eyes where few nodes move, at once where motion is not wanted. */
    place(count) {
        const nodes = [...this.nodes.values()];
        const near = Math.max(60, 130 - count);
        this.simulation.nodes(nodes).force("link", forceLink([...this.links.values()]).distance(near).strength((link) => 1 / Math.min(link.source.degree, link.target.degree, 8)));
        const isFirst = !this.placed;
        this.placed = true;
        this.simulation.alpha(isFirst ? 1 : 0.35);
        // the first picture is a finished one
        for (let n = still.matches || isFirst ? 240 : 0; n > 0; n -= 1) {
            this.simulation.tick();
        }
        this.moved = true;
    }

    frame(now) {
        if (this.simulation.alpha() > 0.02 && this.placed) {
            this.simulation.tick();
            this.moved = true;
        }
        if (this.moved) {
            this.moved = false;
            this.draw();
            this.namesDue = true;
        }
        if (this.namesDue && now - (this.named ?? 0) > 250) {
            this.namesDue = false;
            this.named = now;
            this.showNames();
        }
        this.movePackets(now);
        requestAnimationFrame((next) => this.frame(next));
    }

    fit() {
        this.view.own = false;
        this.moved = true;
    }

    zoom(factor, [x, y] = this.size.map((side) => side / 2)) {
        const { view } = this;
        const k = Math.min(6, Math.max(0.05, view.k * factor));
        view.x = x - ((x - view.x) * k) / view.k;
        view.y = y - ((y - view.y) * k) / view.k;
        view.k = k;
        view.own = true;
        this.moved = true;
    }

    lookAtAll() {
        const nodes = [...this.nodes.values()];
        const [width, height] = this.size;
        const edge = (of, axis) => of(...nodes.map((node) => node[axis] ?? 0));
        const [left, right, top, bottom] = [edge(Math.min, "x"), edge(Math.max, "x"), edge(Math.min, "y"), edge(Math.max, "y")];
        const k = Math.min((width - 2 * MARGIN) / (right - left || 1), (height - 2 * MARGIN) / (bottom - top || 1), 2.2);
        this.view.k = Math.max(k, 0.05);
        this.view.x = width / 2 - ((left + right) / 2) * this.view.k;
        this.view.y = height / 2 - ((top + bottom) / 2) * this.view.k;
    }

    draw() {
        if (this.nodes.size === 0) {
            return;
        }
        if (!this.view.own) {
            this.lookAtAll();
        }
        const { x, y, k } = this.view;
        for (const node of this.nodes.values()) {
            node.at = [x + (node.x ?? 0) * k, y + (node.y ?? 0) * k];
            node.group.setAttribute("transform", `translate(${node.at[0].toFixed(1)} ${node.at[1].toFixed(1)})`);
        }
        for (const { line, source, target } of this.links.values()) {
            put(line, source.at, target.at);
        }
        for (const flow of this.flows.values()) {
            // the two ways of a link run side by side
            const [from, to] = aside(flow.ends[0].at, flow.ends[1].at, flow.both ? 5 : 0);
            flow.path = [from, to];
            put(flow.line, from, to);
            const angle = (Math.atan2(to[1] - from[1], to[0] - from[0]) * 180) / Math.PI;
            const middle = along(flow.path, 0.58);
            flow.arrow.setAttribute("transform", `translate(${middle[0].toFixed(1)} ${middle[1].toFixed(1)}) rotate(${angle.toFixed(0)})`);
            const beside = along(aside(from, to, 13), 0.5);
            flow.label.setAttribute("x", beside[0].toFixed(1));
            flow.label.setAttribute("y", (beside[1] + 4).toFixed(1));
        }
    }

    movePackets(now) {
        for (const { dots, path, phase } of this.flows.values()) {
            for (const [i, dot] of dots.entries()) {
                const [x, y] = along(path ?? [[0, 0], [0, 0]], (now / TRAVEL + phase + i / dots.length) % 1);
                dot.setAttribute("cx", x.toFixed(1));
                dot.setAttribute("cy", y.toFixed(1));
            }
        }
    }

    /** Names, as many as there is room for: those that matter come first. */
    showNames() {
        const weight = (node) => (node.id === this.lit ? 1e6 : 0) + (node.isOwn ? 1e5 : 0) + (node.involved ? 1e4 : 0) + node.degree;
        const taken = [];
        for (const node of [...this.nodes.values()].sort((a, b) => weight(b) - weight(a))) {
            const [x, y] = node.at ?? [0, 0];
            const half = 4 + node.name.textContent.length * 3.7;
            const box = [x - half, y + this.radius, x + half, y + this.radius + 22];
            const isFree = taken.every((other) => box[2] < other[0] || box[0] > other[2] || box[3] < other[1] || box[1] > other[3]);
            node.group.classList.toggle("unnamed", !isFree && node.id !== this.lit);
            if (isFree || node.id === this.lit) {
                taken.push(box);
            }
        }
    }

    highlight(id) {
        this.lit = id;
        for (const { line, source, target } of this.links.values()) {
            line.classList.toggle("lit", source.id === id || target.id === id);
        }
        this.namesDue = true;
    }

    /** Arrow keys go to the next node in that direction. */
    walk(event) {
        const way = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] }[event.key];
        const here = [...this.nodes.values()].find((node) => node.group === document.activeElement);
        if (here && (event.key === "Enter" || event.key === " ")) {
            event.preventDefault();
            this.act.open(here.id);
        }
        if (!way || !here) {
            return;
        }
        event.preventDefault();
        const far = (node) => {
            const [dx, dy] = [node.at[0] - here.at[0], node.at[1] - here.at[1]];
            const ahead = dx * way[0] + dy * way[1];
            return ahead > 1 ? ahead + 2 * Math.abs(dx * way[1] + dy * way[0]) : Infinity;
        };
        const next = [...this.nodes.values()].filter((node) => node !== here).sort((a, b) => far(a) - far(b))[0];
        if (next && far(next) < Infinity) {
            here.group.setAttribute("tabindex", -1);
            next.group.setAttribute("tabindex", 0);
            next.group.focus();
        }
    }

    wheel(event) {
        event.preventDefault();
        const box = this.svg.getBoundingClientRect();
        this.zoom(Math.exp(-event.deltaY / 400), [event.clientX - box.left, event.clientY - box.top]);
    }

    drag(event) {
        if (event.button !== 0 || event.target.closest(".node")) {
            return;
        }
        const start = [event.clientX - this.view.x, event.clientY - this.view.y];
        const move = (to) => {
            [this.view.x, this.view.y] = [to.clientX - start[0], to.clientY - start[1]];
            this.view.own = true;
            this.moved = true;
        };
        const end = () => {
            removeEventListener("pointermove", move);
            removeEventListener("pointerup", end);
        };
        addEventListener("pointermove", move);
        addEventListener("pointerup", end);
    }
}

function put(line, [x1, y1], [x2, y2]) {
    line.setAttribute("x1", x1.toFixed(1));
    line.setAttribute("y1", y1.toFixed(1));
    line.setAttribute("x2", x2.toFixed(1));
    line.setAttribute("y2", y2.toFixed(1));
}

const along = ([[x, y], [u, v]], t) => [x + (u - x) * t, y + (v - y) * t];

function aside([x, y], [u, v], by) {
    const length = Math.hypot(u - x, v - y) || 1;
    const [dx, dy] = [(-(v - y) / length) * by, ((u - x) / length) * by];
    return [[x + dx, y + dy], [u + dx, v + dy]];
}
