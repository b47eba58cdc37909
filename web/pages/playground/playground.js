// The page: clicks go to the simulator, its events are drawn and described.

import { TopologyComparison } from "./compare.js";
import { cities } from "./europe.js";
import { NetworkMap } from "./map.js";
import { World, load } from "./module.js";
import { scenario, topologies } from "./scenario.js";
import { Story, list } from "./story.js";
import { Tour } from "./tour.js";

const GROUPS = [
    { name: "Radio", address: "ff1e::3", color: "var(--group-1)" },
    { name: "News", address: "ff1e::2", color: "var(--group-2)" },
    { name: "Weather", address: "ff1e::7", color: "var(--group-3)" },
];
/** Virtual milliseconds until links and roots have settled. */
const SETTLED = 30_000;
/** Between two packets of a stream. */
const STREAM = 25;
/** While an end of a link has not noticed that it is dead, time is no slower than this: it takes half a second. */
const UNNOTICED = 8;
/** Milliseconds in one go while nothing is under way: a new packet is seen from its beginning. */
const GLANCE = 0.25;
/** Milliseconds between two announcements of screen readers. */
const ANNOUNCED = 3000;
/** Packets that are drawn under way. */
const FLIGHTS = {
    join: { shape: "shape-join", word: "JOIN" },
    part: { shape: "shape-part", word: "PART" },
    active: { shape: "shape-note" },
    forward: { shape: "shape-packet" },
    link_state: { shape: "shape-state" },
};

const $ = (selector) => document.querySelector(selector);
const still = matchMedia("(prefers-reduced-motion: reduce)");

function html(name, attributes = {}, ...children) {
    const made = document.createElement(name);
    Object.assign(made, attributes);
    made.append(...children);
    return made;
}

/** The scene of a shared address; nodes that do not exist are left out. */
function readShared() {
    const asked = new URLSearchParams(location.hash.slice(1));
    const nodes = (name) => (asked.get(name) ?? "").split(",").filter((text) => /^\d+$/.test(text)).map(Number).filter((node) => node < cities.length);
    for (const [select, name] of [["#topology", "links"], ["#beside", "beside"]]) {
        if (topologies.some(({ id }) => id === asked.get(name))) {
            $(select).value = asked.get(name);
        }
    }
    return { group: GROUPS[asked.get("group")] ? Number(asked.get("group")) : 0, listens: nodes("listens"), streams: nodes("streams"), cuts: [] };
}

/** The cost of a packet, and its cost as one packet for each listener. */
function cost(copies, oneByOne) {
    const most = Math.max(copies, oneByOne);
    const row = (words, value) => [html("span", {}, words), html("meter", { max: most, value, ariaHidden: "true" })];
    const links = copies === 1 ? "1 link, once" : `${copies} links, once each`;
    const crossings = oneByOne === 1 ? "1 link crossing" : `${oneByOne} link crossings`;
    return html("div", { className: "cost" }, ...row(`Multicast: ${links}`, copies), ...row(`One by one: ${crossings}`, oneByOne));
}

/** A network with its map. */
class Scene {
    constructor(module, topology, play) {
        this.topology = topology;
        this.flights = [];
        this.lastCopies = new Map();
        this.figures = {};
        this.world = new World(module, scenario(topology));
        this.caption = html("figcaption");
        this.host = html("figure", { className: "map" });
        $("#maps").append(this.host);
        this.map = new NetworkMap(this.host, `Map: ${topology.name}`, play);
        this.host.append(this.caption);
        this.apart = new Set((topology.apart ?? []).map(String));
        (topology.apart ?? []).forEach((pair) => this.world.act(`cut ${pair.join(" ")}`));
        cities.forEach((_, node) => this.world.act(`start ${node}`));
    }

    close() {
        this.world.close();
        this.host.remove();
    }

    /** Lets time pass; whatever happened goes to `see` as well. */
    run(until, see) {
        this.world.run(until);
        const events = this.world.events();
        for (const event of events) {
            if (FLIGHTS[event.kind] && event.arrives) {
                this.flights.push({ ...event, ...FLIGHTS[event.kind] });
            }
            this.count(event);
            see?.(event);
        }
        const flying = this.flights.filter(({ arrives }) => arrives > until);
        // an arrival changes a router, and need not be followed by anything
        this.changed ||= events.length > 0 || flying.length < this.flights.length;
        this.flights = flying;
    }

    /** Figures of the last packet. */
    count({ kind, number, at, node }) {
        if (kind === "send") {
            this.figures = { number, at, sender: node, copies: 0, heard: 0, oneByOne: 0, ways: this.ways(node) };
        } else if (number === this.figures.number) {
            const { figures } = this;
            if (kind === "forward") {
                figures.copies += 1;
            } else if (kind === "deliver") {
                figures.heard += 1;
                // by unicast each listener has a packet of his own, on the shortest way
                figures.oneByOne += figures.ways.get(node) ?? 0;
                figures.last = at;
            }
        }
    }

    /** How many links the quickest way from here to each router has. */
    ways(from) {
        const links = (this.network?.links ?? []).filter(({ alive }) => alive);
        const found = new Map([[from, { time: 0, links: 0 }]]);
        const open = [from];
        while (open.length > 0) {
            const node = open.shift();
            const here = found.get(node);
            for (const { ends, latency } of links.filter(({ ends: [a, b] }) => a === node || b === node)) {
                const to = ends[0] === node ? ends[1] : ends[0];
                const time = here.time + (latency ?? 0);
                if (time < (found.get(to)?.time ?? Infinity)) {
                    found.set(to, { time, links: here.links + 1 });
                    open.push(to);
                }
            }
        }
        return new Map([...found].map(([node, way]) => [node, way.links]));
    }

    /** Drawn packets under way. */
    visible(address, states) {
        return this.flights.filter(({ kind, group }) => (kind === "link_state" ? states : group === address));
    }

    look(address) {
        this.network = this.world.network();
        this.network.cuts = this.network.cuts.filter((pair) => !this.apart.has(String(pair)));
        this.group = this.world.group(address);
        this.changed = false;
    }

    draw(group, describe) {
        this.map.draw({ network: this.network, group: this.group, color: group.color, sender: this.figures.sender, describe });
        const tree = new Set(this.group.edges.map(([a, b]) => (a < b ? `${a} ${b}` : `${b} ${a}`))).size;
        const { copies, heard, oneByOne, last, at } = this.figures;
        const packet = heard ? ` Last packet: to ${heard} in ${(last - at).toFixed(0)} ms.` : "";
        this.caption.replaceChildren(
            html("strong", {}, this.topology.name),
            ` ${this.topology.about}. ${this.network.links.length} links, ${tree} in the tree of ${group.name}.${packet}`,
            ...(heard ? [cost(copies, oneByOne)] : []),
        );
    }

    /** The node that most routers believe to be the root. */
    root() {
        const roots = this.group.roots.filter((root) => root !== null);
        const votes = (root) => roots.filter((other) => other === root).length;
        return roots.sort((a, b) => votes(b) - votes(a))[0];
    }
}

class Playground {
    constructor(module) {
        this.module = module;
        this.scenes = [];
        this.view = 0;
        this.tool = "listen";
        this.playing = true;
        this.told = new Map();
        this.unannounced = [];
        this.story = new Story((text, kind, wave) => this.tell(text, kind, wave));
        this.makeControls();
        this.makeTable();
        this.comparison = new TopologyComparison($("#compare"), module, html);
        this.tour = new Tour($("#tour"), this, () => !this.moving(), () => $("#begin").focus());
        this.shared = readShared();
        this.open();
        this.choose(this.shared.group);
        requestAnimationFrame((time) => this.frame(time));
    }

    get group() {
        return GROUPS[this.view];
    }

    get first() {
        return this.scenes[0];
    }

    /** The next networks begin without listeners. */
    forget() {
        this.shared = { listens: [], streams: [], cuts: [] };
    }

    /** The next networks begin with the listeners, streams and cuts of these, or with those that have not begun here. */
    keep() {
        if (this.now >= SETTLED) {
            const { group, network } = this.first;
            const nodes = (flags) => cities.flatMap((_, node) => (flags[node] ? [node] : []));
            this.shared = { listens: nodes(group.joined), streams: nodes(group.sends), cuts: network.cuts };
        }
    }

    /** All networks anew. */
    open() {
        this.scenes.forEach((scene) => scene.close());
        const chosen = [$("#topology").value, $("#beside").value].map((id) => topologies.find((t) => t.id === id));
        const actions = {
            node: (node) => this.use(this.tool, node),
            link: (a, b) => this.cut(a, b),
            key: (key, node) => this.key(key, node),
        };
        this.scenes = chosen.filter(Boolean).map((topology) => new Scene(this.module, topology, actions));
        $("#maps").classList.toggle("two", this.scenes.length > 1);
        this.now = 0;
        this.story.forget();
        this.told.clear();
        $("#story").replaceChildren();
        this.look();
        document.body.classList.add("starting");
        this.say("Thirty routers start, and find each other.", "start");
    }

    look() {
        for (const scene of this.scenes) {
            scene.look(this.group.address);
            scene.draw(this.group, (node) => this.describe(node, scene));
        }
        const [scene] = this.scenes;
        this.fillTable(scene);
        const { violation } = scene.network;
        $("#violation").hidden = !violation;
        $("#violation").textContent = violation ? `The simulator found a fault in the routers: ${violation}` : "";
    }

    describe(node, { network, group }) {
        const facts = [
            !network.runs[node] && "off",
            group.roots[node] === node && `root of ${this.group.name}`,
            group.joined[node] && "listens",
            group.sends[node] && "streams",
            !group.joined[node] && group.edges.some(([from]) => from === node) && "passes on",
        ].filter(Boolean);
        return `${cities[node].name}: ${facts.join(", ") || "idle"}`;
    }
}

/** Time. */
Object.assign(Playground.prototype, {
    frame(time) {
        const passed = Math.min(50, time - (this.last ?? time));
        this.last = time;
        if (this.now < SETTLED) {
            this.settle();
        } else if (this.playing) {
            this.pass(passed);
            this.tour.tick();
        }
        this.draw();
        requestAnimationFrame((next) => this.frame(next));
    },

    /** The beginning, as fast as it can be had; links are drawn as they are made. */
    settle() {
        const until = performance.now() + 12;
        do {
            this.now += this.now < 3000 ? 25 : 1000;
            this.scenes.forEach((scene) => scene.run(this.now));
        } while (performance.now() < until && this.now < SETTLED);
        this.scenes.forEach((scene) => (scene.flights = []));
        if (this.now >= SETTLED) {
            document.body.classList.remove("starting");
            this.say(`Ready. ${cities[this.first.root()].name} is the root of ${this.group.name}. Click a router.`, "start");
            const isCable = (pair) => this.scenes.every(({ apart }) => !apart.has(String(pair)));
            this.shared.cuts.filter(isCable).forEach(([a, b]) => this.cut(a, b));
            this.shared.listens.forEach((node) => this.listen(node));
            this.shared.streams.forEach((node) => this.stream(node, true));
            this.forget();
        }
    },

    /** Whether something is on its way. */
    moving() {
        return this.scenes.some((scene) => scene.visible(this.group.address, $("#states").checked).length > 0);
    },

    /** So many milliseconds pass before the page: slowly, while there is something to see. */
    pass(wall) {
        const end = this.now + wall;
        while (!this.moving() && this.now < end) {
            this.run(Math.min(end, this.now + GLANCE));
        }
        if (this.moving() && this.now < end) {
            this.run(this.now + (end - this.now) / this.slowness());
        }
    },

    slowness() {
        const chosen = Number($("#speed").value);
        const unnoticed = ({ network }) => network.links.some((link) => !link.alive);
        return this.scenes.some(unnoticed) ? Math.min(chosen, UNNOTICED) : chosen;
    },

    run(until) {
        this.now = until;
        this.scenes.forEach((scene, n) => scene.run(until, (event) => this.see(event, scene, n === 0)));
        this.story.tick(until, this.group.name, this.first.root(), this.first.group.joined);
    },

    see(event, scene, isFirst) {
        if (event.group && event.group !== this.group.address) {
            return;
        }
        if (event.kind === "deliver") {
            scene.map.ripple(event.node);
        }
        if (isFirst) {
            if (event.kind === "deliver") {
                this.heard[event.node] += 1;
            }
            this.story.feed(event, this.first.group.joined.some(Boolean));
        }
    },

    /** To the next moment at which something arrives or begins. */
    step() {
        this.pause(true);
        const flights = this.scenes.flatMap((scene) => scene.visible(this.group.address, $("#states").checked));
        const next = Math.min(...flights.map(({ arrives }) => arrives));
        if (next < Infinity) {
            return this.run(next + 1e-6);
        }
        const end = this.now + 1000;
        while (!this.moving() && this.now < end) {
            this.run(this.now + GLANCE);
        }
    },

    pause(on) {
        this.playing = !on;
        $("#play").textContent = on ? "Play" : "Pause";
        $("#play").setAttribute("aria-pressed", String(on));
    },

    draw() {
        const changed = this.scenes.some((scene) => scene.changed);
        if (changed) {
            this.look();
        }
        for (const scene of this.scenes) {
            scene.map.fly(scene.visible(this.group.address, $("#states").checked), this.now, still.matches);
        }
        const pace = !this.playing ? "time stands still" : this.moving() ? `slowed 1 : ${this.slowness()}` : "real time";
        $("#clock").textContent = `${(this.now / 1000).toFixed(3)} s`;
        $("#pace").textContent = this.now < SETTLED ? "starting" : pace;
        this.announce();
    },
});

/** The actions. */
Object.assign(Playground.prototype, {
    all(line) {
        this.scenes.forEach((scene) => scene.world.act(line));
        this.soon();
    },

    /** The requested action has begun. */
    soon() {
        this.run(this.now + 1e-5);
        this.look();
    },

    use(tool, node) {
        if (this.now < SETTLED) {
            return;
        }
        const { network, group } = this.first;
        const runs = network.runs[node];
        if (tool === "kill") {
            return runs ? this.kill(node) : this.restart(node);
        }
        if (!runs && tool !== "listen") {
            return this.say(`${cities[node].name} is off. Kill it once more to start it again.`, "kill");
        }
        const does = {
            listen: () => (group.joined[node] ? this.leave(node) : this.listen(node)),
            send: () => this.send(node),
            stream: () => this.stream(node, !group.sends[node]),
        };
        does[tool]();
    },

    key(key, node) {
        const tool = { Enter: this.tool, " ": this.tool, l: "listen", s: "send", r: "stream", k: "kill" }[key];
        if (tool) {
            this.use(tool, node);
        }
        return !!tool;
    },

    listen(node) {
        this.say(`${cities[node].name} joins ${this.group.name}.`, "join");
        this.all(`join ${node} ${this.group.address} all`);
    },

    leave(node) {
        this.say(`${cities[node].name} leaves ${this.group.name}.`, "part");
        this.all(`leave ${node} ${this.group.address}`);
    },

    send(node) {
        this.all(`send ${node} ${this.group.address} 200`);
    },

    stream(node, on) {
        this.told.delete(node);
        this.say(`${cities[node].name} ${on ? "begins to stream" : "no longer streams"} to ${this.group.name}.`, "packet");
        this.scenes.forEach((scene) => scene.world.stream(node, this.group.address, on ? STREAM : 0));
        this.soon();
    },

    kill(node) {
        this.say(`${cities[node].name} is off, without a word to anybody.`, "kill");
        this.all(`crash ${node}`);
    },

    restart(node) {
        this.say(`${cities[node].name} starts again.`, "start");
        this.all(`start ${node}`);
    },

    cut(a, b) {
        const isCut = this.first.network.cuts.some(([x, y]) => x === Math.min(a, b) && y === Math.max(a, b));
        this.say(`The link of ${cities[a].name} and ${cities[b].name} is ${isCut ? "healed" : "cut"}.`, "kill");
        this.all(`${isCut ? "mend" : "cut"} ${Math.min(a, b)} ${Math.max(a, b)}`);
    },

    /** A link to this page in its present state: networks, group in view, listeners and streaming routers. */
    async share() {
        const { group } = this.first;
        const nodes = (flags) => cities.flatMap((_, node) => (flags[node] ? [node] : [])).join();
        const set = { links: $("#topology").value, beside: $("#beside").value, group: this.view, listens: nodes(group.joined), streams: nodes(group.sends) };
        history.replaceState(null, "", `#${new URLSearchParams(set)}`);
        const isCopied = await navigator.clipboard?.writeText(location.href).then(() => true, () => false);
        this.say(`The address of this page leads to this set-up now${isCopied ? ", and is copied" : ""}.`, "start");
    },

    /** The run as a file that hosts replay. */
    save() {
        const file = new Blob([this.first.world.trace()], { type: "application/toml" });
        const link = html("a", { href: URL.createObjectURL(file), download: "playground.toml" });
        link.click();
        URL.revokeObjectURL(link.href);
    },
});

/** The story. */
Object.assign(Playground.prototype, {
    /** A sentence of the story. Of a stream only changes. */
    tell(text, kind, wave) {
        if (kind === "packet") {
            const outcome = list(wave.heard.map(({ node }) => node), 99);
            const streams = this.first.group.sends[wave.from];
            if (streams && this.told.get(wave.from) === outcome) {
                return;
            }
            this.told.set(wave.from, outcome);
            if (!wave.hops.length && !wave.heard.length) {
                this.scenes.forEach((scene) => scene.map.bubble(wave.from, "nobody listens"));
            }
        }
        const { copies, oneByOne } = this.first.figures;
        const isLast = kind === "packet" && wave.hops.length === copies && oneByOne > copies;
        this.say(isLast ? `${text} One packet for each would cross links ${oneByOne} times.` : text, kind);
    },

    say(text, kind) {
        const line = html("li", { className: kind }, html("span", { className: "when" }, (this.now / 1000).toFixed(2)), text);
        $("#story").prepend(line);
        while ($("#story").childElementCount > 40) {
            $("#story").lastChild.remove();
        }
        this.unannounced.push(text);
    },

    announce() {
        const time = performance.now();
        if (this.unannounced.length && time > (this.announced ?? 0) + ANNOUNCED) {
            $("#live").textContent = this.unannounced.slice(-4).join(" ");
            this.unannounced = [];
            this.announced = time;
        }
    },
});

/** Controls and tables. */
Object.assign(Playground.prototype, {
    makeControls() {
        GROUPS.forEach((group, n) => {
            const input = html("input", { type: "radio", name: "group", value: n, checked: n === this.view });
            const label = html("label", {}, input, html("span", {}, group.name, html("small", {}, group.address)));
            label.style.setProperty("--group", group.color);
            input.addEventListener("change", () => this.choose(n));
            $("#groups").append(label);
        });
        document.querySelectorAll("[name=tool]").forEach((input) =>
            input.addEventListener("change", () => (this.tool = input.value)),
        );
        for (const { id, name } of topologies) {
            $("#topology").append(html("option", { value: id }, name));
            $("#beside").append(html("option", { value: id }, name));
        }
        ["#topology", "#beside", "#again"].forEach((control) =>
            $(control).addEventListener(control === "#again" ? "click" : "change", () => {
                this.tour.end();
                control === "#again" ? this.forget() : this.keep();
                this.open();
            }),
        );
        $("#play").addEventListener("click", () => this.pause(this.playing));
        $("#step").addEventListener("click", () => this.now >= SETTLED && this.step());
        $("#save").addEventListener("click", () => this.save());
        $("#share").addEventListener("click", () => this.share());
        $("#begin").addEventListener("click", () => {
            this.choose(0);
            this.forget();
            this.open();
            this.pause(false);
            this.tour.begin();
            $(".stage").scrollIntoView({ block: "start" });
        });
    },

    choose(n) {
        this.view = n;
        document.querySelectorAll("[name=group]").forEach((input, at) => (input.checked = at === n));
        document.documentElement.style.setProperty("--chosen", this.group.color);
        this.told.clear();
        this.story.forget();
        this.heard.fill(0);
        this.look();
    },

    makeTable() {
        this.heard = cities.map(() => 0);
        const button = (name, node) => {
            const made = html("button", { type: "button" });
            made.addEventListener("click", () => this.use(name, node));
            return made;
        };
        this.rows = cities.map((city, node) => {
            const cells = ["state", "passes", "heard"].map(() => html("td"));
            const buttons = ["listen", "send", "stream", "kill"].map((name) => button(name, node));
            $("#routers").append(html("tr", {}, html("th", { scope: "row" }, city.name), ...cells, html("td", { className: "buttons" }, ...buttons)));
            return { cells, buttons };
        });
    },

    fillTable(scene) {
        const { network, group } = scene;
        const put = (where, text) => where.textContent === text || (where.textContent = text);
        this.rows.forEach(({ cells: [state, passes, heard], buttons: [listen, send, stream, kill] }, node) => {
            put(state, this.describe(node, scene).split(": ")[1]);
            put(passes, list(group.edges.filter(([from]) => from === node).map(([, to]) => to), 9) || "–");
            put(heard, String(this.heard[node]));
            put(listen, group.joined[node] ? "Leave" : "Listen");
            put(send, "Send");
            put(stream, group.sends[node] ? "Stop" : "Stream");
            put(kill, network.runs[node] ? "Kill" : "Start");
        });
        this.fillLinks(network);
    },

    /** Links change seldom: their rows are made anew. */
    fillLinks({ links, cuts }) {
        const rows = new Map(links.map(({ ends, alive, latency }) => [ends.join(), { ends, state: alive ? "up" : "dead, not noticed yet", latency }]));
        cuts.forEach((ends) => rows.set(ends.join(), { ends, state: "cut" }));
        const drawn = JSON.stringify([...rows]);
        if (this.drawnLinks === drawn) {
            return;
        }
        this.drawnLinks = drawn;
        const focused = document.activeElement?.dataset?.link;
        const row = ({ ends, state, latency }) => {
            const button = html("button", { type: "button" }, state === "cut" ? "Heal" : "Cut");
            button.dataset.link = ends.join();
            button.addEventListener("click", () => this.cut(...ends));
            const cells = [state, latency ? `${latency.toFixed(1)} ms` : "–"].map((text) => html("td", {}, text));
            return html("tr", {}, html("th", { scope: "row" }, list(ends)), ...cells, html("td", { className: "buttons" }, button));
        };
        $("#links").replaceChildren(...[...rows.values()].sort((a, b) => a.ends[0] - b.ends[0] || a.ends[1] - b.ends[1]).map(row));
        $(`[data-link="${focused}"]`)?.focus();
    },
});

load().then(
    // for users of a console, and for tests
    (module) => (window.playground = new Playground(module)),
    (error) => {
        $("#violation").hidden = false;
        $("#violation").textContent = `The simulator does not start here: ${error.message}`;
    },
);
