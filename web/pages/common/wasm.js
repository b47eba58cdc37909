// A WebAssembly module that takes bytes and returns bytes: the common part of ours.

const encoder = new TextEncoder();
const decoder = new TextDecoder();

export class Wasm {
    /** Exports of the module. */
    static async fetch(url) {
        const answer = await fetch(url);
        if (!answer.ok) {
            throw new Error("The WebAssembly module of this page is not installed: `make web` builds it.");
        }
        const { instance } = await WebAssembly.instantiate(await answer.arrayBuffer(), {});
        return instance.exports;
    }

    /** `prefix`: of the names of its functions. */
    constructor(exports, prefix) {
        this.call = exports;
        this.input = exports[`${prefix}_input`];
        this.answer = exports[`${prefix}_output`];
    }

    put(...parts) {
        const all = parts.map((part) => (typeof part === "string" ? encoder.encode(part) : part));
        const length = all.reduce((sum, part) => sum + part.length, 0);
        let at = this.input(length);
        for (const part of all) {
            new Uint8Array(this.call.memory.buffer, at, part.length).set(part);
            at += part.length;
        }
    }

    /** A view of the last answer: good until the next call. */
    output(length) {
        return new Uint8Array(this.call.memory.buffer, this.answer(), length);
    }

    text(length) {
        return decoder.decode(this.output(length));
    }

    check(length) {
        if (length) {
            throw new Error(this.text(length));
        }
    }
}

/** Groups that modules have joined, by the modules' names. */
const groups = new Map();

export const joined = (prefix) => [...(groups.get(prefix) ?? [])];

/** Commands of a module to the member, by number. */
const COMMANDS = [null, "join", "leave", "send"];

/** A command as modules write it: what to do, the group, and of a datagram its port and data. */
export function command(bytes) {
    const kind = COMMANDS[bytes[0]];
    const begin = kind === "send" ? 3 : 1;
    const end = bytes.indexOf(10, begin);
    const port = kind === "send" ? new DataView(bytes.buffer, bytes.byteOffset).getUint16(1, true) : null;
    return { kind, group: decoder.decode(bytes.subarray(begin, end)), port, data: bytes.subarray(end + 1) };
}

/** A module beside the member of this page, which carries its datagrams, joins and sends for it. */
export class MemberModule extends Wasm {
    /** `does`: the member's verbs: join, leave, send. */
    static async load(url, prefix, does) {
        const module = new this(await Wasm.fetch(url), prefix);
        return Object.assign(module, { prefix, does });
    }

    of(name) {
        return this.call[`${this.prefix}_${name}`];
    }

    /** It does nothing any more. */
    close() {
        this.isClosed = true;
        groups.delete(this.prefix);
        clearTimeout(this.timer);
    }

    /** A datagram of a group, as the member's module has it. */
    datagram(bytes) {
        this.put(bytes);
        this.of("datagram")(performance.now(), Date.now());
        this.soon();
    }

    /** Not now: the member may be at it. */
    soon() {
        if (!this.due) {
            this.due = true;
            queueMicrotask(() => this.run());
        }
    }

    /** Runs the due timers. */
    run() {
        this.due = false;
        clearTimeout(this.timer);
        if (this.isClosed) {
            return;
        }
        const pause = this.of("run")(performance.now(), Date.now(), this.does.room?.() ?? 0);
        this.execute();
        this.timer = setTimeout(() => this.run(), Math.min(Math.max(pause, 1), 1000));
    }

    /** Hands its commands to the member. */
    execute() {
        const poll = this.of("poll");
        for (let length = poll(); length; length = poll()) {
            this.pass(this.output(length).slice());
        }
    }

    pass(bytes) {
        const { kind, group, port, data } = command(bytes);
        if (kind !== "send") {
            const all = groups.get(this.prefix) ?? groups.set(this.prefix, new Set()).get(this.prefix);
            all[kind === "join" ? "add" : "delete"](group);
        }
        this.does[kind](group, port, data);
    }
}
