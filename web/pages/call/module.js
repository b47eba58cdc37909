// A call as WebAssembly (lcradio/page, in the module of radio): its participants and the buffer are those of `lcradio call` on hosts.

import { MemberModule } from "../common/wasm.js";

const now = () => performance.now();

/** Kinds of frames, by number. */
const FRAMES = ["silence", "opus", "lost"];

export class Call extends MemberModule {
    /** `does`: the member's verbs: join, leave, send. */
    static load(does) {
        return super.load(new URL("../radio/radio.wasm", import.meta.url), "call", does);
    }

    /** `address`: of the member, 16 bytes. `start`: `call` (empty: a new one), `name`, `talks`, `muted`. */
    join(address, start) {
        const fresh = () => [...crypto.getRandomValues(new Uint8Array(32))];
        this.put(address, JSON.stringify({ ...start, seed: fresh(), fresh: fresh() }));
        this.check(this.call.call_join(now()));
        this.run();
    }

    /** Places that were heard. */
    voices() {
        const bits = this.call.call_voices();
        return Array.from({ length: 8 }, (_, place) => place).filter((place) => bits & (1 << place));
    }

    /** The next frame of a place. */
    frame(place) {
        const bytes = this.output(this.call.call_frame(now(), place)).slice();
        return { kind: FRAMES[bytes[0]], samples: new DataView(bytes.buffer).getUint32(1, true), opus: bytes.subarray(5) };
    }

    /** How fast it is played: 1, and a little more or less. */
    speed(place) {
        return 1 + this.call.call_speed(place) / 1e6;
    }

    /** Decoded sound of a place: who speaks. */
    hear(place, power, samples) {
        this.call.call_hear(place, power, samples);
    }

    /** 10 ms of Opus. */
    sound(opus) {
        this.put(opus);
        this.call.call_sound(now());
        this.run();
    }

    /** Samples of which nothing is sent. */
    skip(samples) {
        this.call.call_skip(samples);
    }

    mute(isMuted) {
        this.call.call_mute(now(), isMuted);
        this.run();
    }

    ignore(place, isIgnored) {
        this.call.call_ignore(place, isIgnored);
    }

    leave() {
        this.call.call_leave(now());
        this.run();
    }

    status() {
        return JSON.parse(this.text(this.call.call_status()));
    }
}
