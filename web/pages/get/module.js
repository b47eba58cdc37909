// Files under four words as WebAssembly (lcsync/page): the receiver is that of lcsync on hosts.

import { MemberModule } from "../common/wasm.js";

const decoder = new TextDecoder();

export class Get extends MemberModule {
    /** `does`: the leaf's verbs: join, leave. */
    static load(does) {
        return super.load(new URL("get.wasm", import.meta.url), "get", does);
    }

    /** The token of a leaf for the text of a link. `host`: a server for words that name none. */
    token(link, host) {
        this.put(JSON.stringify({ link, host, seed: [...crypto.getRandomValues(new Uint8Array(32))] }));
        const answer = this.output(this.call.get_token(Date.now())).slice();
        const text = decoder.decode(answer.subarray(1));
        if (answer[0] !== 1) {
            throw new Error(text);
        }
        return text;
    }

    /** Begins to receive, once the leaf is there. */
    open() {
        this.call.get_open(performance.now());
        this.run();
    }

    /** Fetches files by their numbers. */
    want(numbers) {
        this.put(JSON.stringify(numbers));
        this.check(this.call.get_want(performance.now()));
        this.run();
    }

    /** The next piece of a file that has come: `{ file, offset, bytes }`. */
    piece() {
        const length = this.call.get_piece();
        if (!length) {
            return null;
        }
        const all = this.output(length).slice();
        const view = new DataView(all.buffer);
        return { file: view.getUint32(0, true), offset: Number(view.getBigUint64(4, true)), bytes: all.subarray(12) };
    }

    status() {
        return JSON.parse(this.text(this.call.get_status()));
    }
}
