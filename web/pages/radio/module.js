// Live radio as WebAssembly (lcradio/page): stations, packets and the buffer are those of lcradio on hosts.

import { MemberModule } from "../common/wasm.js";

const now = () => performance.now();

/** Kinds of frames, by number. */
const FRAMES = ["silence", "opus", "lost"];

export class Radio extends MemberModule {
    /** `does`: the member's verbs: join, leave, send. */
    static load(does) {
        return super.load(new URL("radio.wasm", import.meta.url), "radio", does);
    }

    /** Begins, for the member of this address. */
    open(address) {
        this.put(address);
        this.check(this.call.radio_open(now()));
        this.run();
    }

    /** Listens to a station; `delay`: milliseconds, 0: as the network needs. */
    tune(id, delay) {
        this.put(id);
        this.check(this.call.radio_tune(now(), delay));
        this.run();
    }

    stop() {
        this.call.radio_stop();
        this.run();
    }

    delay(delay) {
        this.call.radio_delay(delay);
    }

    /** Casters that are playing. */
    voices() {
        const bits = this.call.radio_voices();
        return Array.from({ length: 8 }, (_, caster) => caster).filter((caster) => bits & (1 << caster));
    }

    /** The next frame of a caster. */
    frame(caster) {
        const bytes = this.output(this.call.radio_frame(now(), caster)).slice();
        return { kind: FRAMES[bytes[0]], samples: new DataView(bytes.buffer).getUint32(1, true), opus: bytes.subarray(5) };
    }

    /** How fast it is played: 1, and a little more or less. */
    speed(caster) {
        return 1 + this.call.radio_speed(caster) / 1e6;
    }

    /** Casts, with the content of a key file, which is wiped here. */
    cast(key, start) {
        this.put(key, JSON.stringify({ ...start, seed: [...crypto.getRandomValues(new Uint8Array(32))] }));
        key.fill(0);
        this.check(this.call.radio_cast(now(), Date.now()));
        this.run();
    }

    /** 20 ms of Opus. */
    sound(opus) {
        this.put(opus);
        this.call.radio_sound(now());
        this.run();
    }

    talk(talks) {
        this.call.radio_talk(now(), talks);
        this.run();
    }

    title(title) {
        this.put(title);
        this.check(this.call.radio_title(now()));
        this.run();
    }

    /** The cast ends. */
    end() {
        this.call.radio_end(now());
        this.run();
    }

    status() {
        return JSON.parse(this.text(this.call.radio_status(now())));
    }
}
