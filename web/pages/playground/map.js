// The map: routers, links, and packets under way. Positions are in thousandths of the map's side, sizes in pixels.

import { cities, land } from "./europe.js";

const SVG = "http://www.w3.org/2000/svg";
/** How far links bend, as a share of their length: else they would cover routers and each other. */
const BEND = 0.09;
/** Room for names beside the outermost routers. */
const MARGIN = { left: 70, right: 100, top: 60, bottom: 66 };

export function element(name, attributes = {}, ...children) {
    const made = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) {
        made.setAttribute(key, value);
    }
    made.append(...children);
    return made;
}

const at = (node) => [cities[node].x * 1000, cities[node].y * 1000];

/** A link's curve, the same from both ends. */
function curve(a, b) {
    const [from, to] = a < b ? [a, b] : [b, a];
    const [[x, y], [u, v]] = [at(from), at(to)];
    const middle = [(x + u) / 2 - (v - y) * BEND, (y + v) / 2 + (u - x) * BEND];
    return { start: at(a), middle, end: at(b) };
}

/** A point of a curve, and where it leads, in degrees. */
function point({ start, middle, end }, t) {
    const mix = (i) => (1 - t) ** 2 * start[i] + 2 * t * (1 - t) * middle[i] + t * t * end[i];
    const slope = (i) => (1 - t) * (middle[i] - start[i]) + t * (end[i] - middle[i]);
    return { x: mix(0), y: mix(1), angle: (Math.atan2(slope(1), slope(0)) * 180) / Math.PI };
}

const path = ({ start, middle, end }) => `M${start} Q${middle} ${end}`;
export const pair = (a, b) => `${Math.min(a, b)}-${Math.max(a, b)}`;

/** One network, drawn. `act` has the actions of a click on a router and on a link; of several maps, one is named. */
export class NetworkMap {
    constructor(host, label, act) {
        this.links = new Map();
        this.flying = new Map();
        this.pixel = 1;
        const size = [1000 + MARGIN.left + MARGIN.right, 1000 + MARGIN.top + MARGIN.bottom];
        this.layer = Object.fromEntries(
            // links are read in the tables
            ["ground", "links", "hits", "trees", "nodes", "flights"].map((name) => [name, element("g", name === "nodes" ? { class: name } : { class: name, "aria-hidden": "true" })]),
        );
        this.layer.ground.append(element("path", { d: land, class: "land" }));
        this.svg = element(
            "svg",
            { viewBox: `${-MARGIN.left} ${-MARGIN.top} ${size.join(" ")}`, role: "group", "aria-label": label },
            ...Object.values(this.layer),
        );
        host.append(this.svg);
        this.act = act;
        this.nodes = cities.map((city, node) => this.makeNode(city, node));
        this.svg.addEventListener("keydown", (event) => this.walk(event));
        this.nodes[0].setAttribute("tabindex", 0);
        new ResizeObserver(() => this.resize(size)).observe(this.svg);
    }

    resize([width, height]) {
        const box = this.svg.getBoundingClientRect();
        this.pixel = Math.max(width / (box.width || width), height / (box.height || height));
        this.svg.style.setProperty("--pixel", this.pixel);
        this.svg.classList.toggle("small", this.pixel > 2.4);
        this.nodes.forEach((node, n) => node.setAttribute("transform", this.place(...at(n))));
    }

    place(x, y) {
        return `translate(${x} ${y}) scale(${this.pixel})`;
    }

    makeNode(city, node) {
        const made = element(
            "g",
            { class: "node", role: "button", tabindex: -1, "data-side": city.side },
            element("circle", { class: "hit", r: 17 }),
            element("path", { class: "star", d: star(18, 11) }),
            element("circle", { class: "ring", r: 13 }),
            element("path", { class: "waves", d: "M9 -9a13 13 0 0 1 0 18M13 -13a18.4 18.4 0 0 1 0 26M-9 -9a13 13 0 0 0 0 18M-13 -13a18.4 18.4 0 0 0 0 26" }),
            element("circle", { class: "dot", r: 5 }),
            element("path", { class: "ear", d: "M-3.4 1.2v-2a3.4 3.4 0 0 1 6.8 0v2M-3.4 .6v2.6M3.4 .6v2.6" }),
            element("path", { class: "cross", d: "M-6 -6L6 6M6 -6L-6 6" }),
            element("text", { class: "name", "aria-hidden": "true" }, city.name),
            element("text", { class: "badge", y: -24, "aria-hidden": "true" }, " root"),
        );
        made.addEventListener("click", () => {
            this.focus(node, false);
            this.act.node(node);
        });
        made.addEventListener("focus", () => this.focus(node, false));
        this.layer.nodes.append(made);
        return made;
    }

    focus(node, move) {
        this.nodes.forEach((made, n) => made.setAttribute("tabindex", n === node ? 0 : -1));
        if (move) {
            this.nodes[node].focus();
        }
    }

    /** Arrow keys go to the next router in that direction. */
    walk(event) {
        const node = this.nodes.indexOf(document.activeElement);
        const direction = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
        if (node < 0) {
            return;
        }
        if (direction) {
            event.preventDefault();
            const [x, y] = at(node);
            const far = cities.map((_, n) => {
                const [dx, dy] = [at(n)[0] - x, at(n)[1] - y];
                const ahead = dx * direction[0] + dy * direction[1];
                const aside = Math.abs(dx * direction[1]) + Math.abs(dy * direction[0]);
                return ahead > 1 ? ahead + 2 * aside : Infinity;
            });
            const next = far.indexOf(Math.min(...far));
            if (far[next] < Infinity) {
                this.focus(next, true);
            }
        } else if (this.act.key(event.key, node)) {
            event.preventDefault();
        }
    }

    /** Draws routers and links as they are now. */
    draw({ network, group, color, sender, describe }) {
        this.svg.style.setProperty("--group", color);
        const carries = new Set(group.edges.flat());
        this.nodes.forEach((made, node) => {
            const runs = network.runs[node];
            const is = {
                off: !runs,
                listens: group.joined[node],
                sends: group.sends[node] && runs,
                root: runs && group.roots[node] === node,
                carries: carries.has(node),
                sent: node === sender,
            };
            // its star is below the names of others; a router with the focus stays where it is
            if (is.root && !made.matches(".root") && made !== document.activeElement) {
                this.layer.nodes.prepend(made);
            }
            for (const [name, on] of Object.entries(is)) {
                made.classList.toggle(name, on);
            }
            made.setAttribute("aria-label", describe(node));
        });
        this.drawLinks(network, group);
    }

    drawLinks(network, group) {
        const wanted = new Map();
        const put = (a, b, more) => wanted.set(pair(a, b), { a: Math.min(a, b), b: Math.max(a, b), ...more });
        for (const link of network.links) {
            if (link.alive || !wanted.has(pair(...link.ends))) {
                put(...link.ends, { alive: link.alive });
            }
        }
        network.cuts.forEach(([a, b]) => put(a, b, { alive: false, cut: true }));
        for (const [from, to] of group.edges) {
            const link = wanted.get(pair(from, to));
            if (link) {
                link[from < to ? "forth" : "back"] = true;
            }
        }
        for (const [key, link] of this.links) {
            if (!wanted.has(key)) {
                [link.line, link.hit, link.tree].forEach((part) => part.remove());
                this.links.delete(key);
            }
        }
        this.svg.classList.toggle("crowded", wanted.size > 200);
        for (const [key, { a, b, alive, cut, forth, back }] of wanted) {
            const link = this.links.get(key) ?? this.makeLink(key, a, b);
            link.alive = alive;
            link.line.classList.toggle("dead", !alive);
            link.line.classList.toggle("cut", !!cut);
            link.tree.classList.toggle("on", !!(forth || back));
            link.arrow.setAttribute("d", arrows(forth, back));
            const { x, y, angle } = point(curve(a, b), 0.5);
            link.arrow.setAttribute("transform", `${this.place(x, y)} rotate(${angle})`);
            link.cross.setAttribute("transform", this.place(x, y));
            link.cross.classList.toggle("on", !alive);
        }
    }

    makeLink(key, a, b) {
        const d = path(curve(a, b));
        const link = {
            line: element("path", { d, class: "link" }),
            hit: element("path", { d, class: "hit" }),
            tree: element("g", { class: "tree" }, element("path", { d })),
            arrow: element("path", { class: "arrow" }),
            cross: element("path", { class: "broken", d: "M-5 -5L5 5M5 -5L-5 5" }),
        };
        link.tree.append(link.arrow, link.cross);
        link.hit.addEventListener("click", () => this.act.link(a, b));
        link.hit.append(element("title", {}, `${cities[a].name} – ${cities[b].name}: click to cut or heal it`));
        this.layer.links.append(link.line);
        this.layer.hits.append(link.hit);
        this.layer.trees.append(link.tree);
        this.links.set(key, link);
        return link;
    }

    /** Whether messages between two routers arrive. */
    alive(a, b) {
        return this.links.get(pair(a, b))?.alive ?? false;
    }

    /** Draws packets under way at a time; without motion, each waits in the middle of its link. */
    fly(flights, now, still) {
        const words = flights.filter((flight) => flight.word).length <= 6;
        for (const [flight, made] of this.flying) {
            if (!flights.includes(flight)) {
                made.remove();
                this.flying.delete(flight);
            }
        }
        for (const flight of flights) {
            let made = this.flying.get(flight);
            if (!made) {
                made = element("g", { class: `flight ${flight.kind}` }, element("use", { href: `#${flight.shape}` }));
                if (flight.word) {
                    made.append(element("text", { y: -12 }, flight.word));
                }
                this.layer.flights.append(made);
                this.flying.set(flight, made);
            }
            const progress = Math.min(1, Math.max(0, (now - flight.at) / (flight.arrives - flight.at)));
            const lost = !this.alive(flight.node, flight.to);
            const { x, y, angle } = point(curve(flight.node, flight.to), still ? 0.5 : lost ? Math.min(progress, 0.5) : progress);
            made.setAttribute("transform", this.place(x, y));
            made.firstChild.setAttribute("transform", `rotate(${flight.word ? angle : 0})`);
            made.classList.toggle("lost", lost && progress > 0.45);
            made.classList.toggle("wordless", !words);
        }
    }

    /** A packet reaches a listener. */
    ripple(node) {
        const ring = element("circle", { class: "ripple", r: 12 });
        ring.addEventListener("animationend", () => ring.remove());
        this.nodes[node].prepend(ring);
    }

    /** Words at a router, for a while. */
    bubble(node, words) {
        const text = element("text", { class: "bubble", y: 34 }, words);
        text.addEventListener("animationend", () => text.remove());
        this.nodes[node].querySelectorAll(".bubble").forEach((old) => old.remove());
        this.nodes[node].append(text);
    }
}

/** Heads of arrows along a link, beside its middle. */
function arrows(forth, back) {
    const head = (x, way) => `M${x - 4 * way} -5L${x + 4 * way} 0L${x - 4 * way} 5`;
    return [forth && head(back ? 7 : 0, 1), back && head(forth ? -7 : 0, -1)].filter(Boolean).join("");
}

function star(outer, inner) {
    const corner = (n) => {
        const [radius, angle] = [n % 2 ? inner : outer, (n * Math.PI) / 8];
        return `${(radius * Math.sin(angle)).toFixed(2)} ${(-radius * Math.cos(angle)).toFixed(2)}`;
    };
    return `M${Array.from({ length: 16 }, (_, n) => corner(n)).join("L")}Z`;
}
