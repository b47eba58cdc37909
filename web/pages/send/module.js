// Sent files as WebAssembly (lcsync/page): the server is that of lcsync on hosts.

import { MemberModule } from "../common/wasm.js";

const decoder = new TextDecoder();
const bytes = (length) => [...crypto.getRandomValues(new Uint8Array(length))];
const number = () => crypto.getRandomValues(new Uint32Array(1))[0];

export class Send extends MemberModule {
    /** `does`: the member's verbs (join, leave, send, query), `room` of its links in bytes, and `read` of slices. */
    static load(does) {
        return super.load(new URL("../get/get.wasm", import.meta.url), "send", does);
    }

    /** New words, or those of before a reload: `{ words, token, serves }` and the kept part. `host`: a signalling server. */
    words(host, kept) {
        const signer = kept?.signer ?? bytes(32);
        this.put(JSON.stringify({ words: kept?.words ?? null, host, random: bytes(8), invitation: bytes(32), signer }));
        const answer = this.output(this.call.send_words(Date.now())).slice();
        const text = decoder.decode(answer.subarray(1));
        if (answer[0] !== 1) {
            throw new Error(text);
        }
        const made = JSON.parse(text);
        return { ...made, kept: { words: made.words, signer } };
    }

    /** Begins to read the files: `{ name, size, modified }` each. */
    open(from, files) {
        this.put(JSON.stringify({ from, files, server: number(), seed: number() }));
        this.check(this.call.send_open(performance.now(), Date.now()));
        this.run();
    }

    /** A query or report of MLD from the member. */
    mld(packet) {
        this.put(packet);
        this.call.send_mld(performance.now());
        this.soon();
    }

    /** The bytes of a read. */
    bytes(id, all) {
        this.put(all);
        this.call.send_bytes(performance.now(), id);
        this.soon();
    }

    /** A read has failed: this file cannot be read any more. */
    lost(id, file) {
        this.call.send_lost(performance.now(), id, file);
        this.soon();
    }

    execute() {
        super.execute();
        for (let length = this.call.send_query(); length; length = this.call.send_query()) {
            this.does.query(this.output(length).slice());
        }
        for (let length = this.call.send_read(); length; length = this.call.send_read()) {
            this.does.read(JSON.parse(this.text(length)));
        }
    }

    status() {
        return JSON.parse(this.text(this.call.send_status()));
    }
}
