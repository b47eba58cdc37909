// The simulator as WebAssembly (web/playground): text in, JSON out.

const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** The module, from beside this page or from inside it. */
export async function load() {
    const inside = document.getElementById("module");
    if (!inside) {
        return start(await (await fetch("playground.wasm")).arrayBuffer());
    }
    const packed = Uint8Array.from(atob(inside.textContent), (c) => c.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
    return start(await new Response(stream).arrayBuffer());
}

/** Compiles the module's bytes. */
export async function start(bytes) {
    return (await WebAssembly.instantiate(bytes, {})).instance.exports;
}

/** Something in the module that has a number: `make` gets it, for a text. */
class Numbered {
    constructor(module, text, make) {
        this.module = module;
        this.put(text);
        this.number = make();
        if (!this.number) {
            throw new Error(this.answer(module.playground_answer()));
        }
    }

    put(text) {
        const bytes = encoder.encode(text);
        const at = this.module.playground_input(bytes.length);
        new Uint8Array(this.module.memory.buffer, at, bytes.length).set(bytes);
    }

    answer(length) {
        return decoder.decode(new Uint8Array(this.module.memory.buffer, this.module.playground_output(), length));
    }

    check(length) {
        if (length) {
            throw new Error(this.answer(length));
        }
    }

    close() {
        this.module.playground_close(this.number);
    }
}

/** A topology policy under measurement. */
export class Comparison extends Numbered {
    constructor(module, policy, nodes, seed) {
        super(module, policy, () => module.playground_compare(nodes, seed));
    }

    /** Continues the measurement: its next step, and the figures so far. */
    step() {
        return JSON.parse(this.answer(this.module.playground_compare_step(this.number)));
    }

    /** Places and links. */
    picture() {
        return JSON.parse(this.answer(this.module.playground_compare_picture(this.number)));
    }
}

/** A network of routers. */
export class World extends Numbered {
    constructor(module, scenario) {
        super(module, scenario, () => module.playground_open());
    }

    /** Executes a line of the simulator's scripts, without its time. */
    act(line) {
        this.put(line);
        this.check(this.module.playground_act(this.number));
    }

    /** A node sends to a group every so many milliseconds; 0: no longer. */
    stream(node, group, period) {
        this.put(group);
        this.check(this.module.playground_stream(this.number, node, period));
    }

    /** Lets time pass until so many milliseconds since the start. */
    run(until) {
        return this.module.playground_run(this.number, until);
    }

    /** Events since the last call. */
    events() {
        return JSON.parse(this.answer(this.module.playground_events(this.number)));
    }

    /** Nodes and links. */
    network() {
        return JSON.parse(this.answer(this.module.playground_network(this.number)));
    }

    /** A group and its tree. */
    group(address) {
        this.put(address);
        return JSON.parse(this.answer(this.module.playground_group(this.number)));
    }

    /** All that was done, as a file for `lcroute sim --replay`. */
    trace() {
        return this.answer(this.module.playground_trace(this.number));
    }

    /** A hash of all that happened. */
    log() {
        return this.answer(this.module.playground_log(this.number));
    }
}
