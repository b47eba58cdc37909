// A WebAssembly module that takes bytes and gives bytes: what all of ours have in common.

const encoder = new TextEncoder();
const decoder = new TextDecoder();

export class Wasm {
    /** What the module exports. */
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
