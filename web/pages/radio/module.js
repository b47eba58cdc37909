// Live radio as WebAssembly (web/radio): stations, packets and the buffer are those of lcradio on hosts.

import { Wasm } from "../common/wasm.js";

const decoder = new TextDecoder();
const now = () => performance.now();

/** What the module asks for, by number. */
const COMMANDS = [null, "join", "leave", "send"];
/** Kinds of frames, by number. */
const FRAMES = ["silence", "opus", "lost"];

export class Radio extends Wasm {
    /** `does`: what the member does: join, leave, send. */
    static async load(does) {
        const radio = new Radio(await Wasm.fetch(new URL("radio.wasm", import.meta.url)), "radio");
        return Object.assign(radio, { does });
    }

    /** Begins, for the member of this address. */
    open(address) {
        this.put(address);
        this.check(this.call.radio_open(now()));
        this.run();
    }

    close() {
        this.isClosed = true;
        clearTimeout(this.timer);
    }

    /** A datagram of a group, as the member's module has it. */
    datagram(bytes) {
        this.put(bytes);
        this.call.radio_datagram(now(), Date.now());
        this.soon();
    }

    /** Not now: the member may be at it. */
    soon() {
        if (!this.due) {
            this.due = true;
            queueMicrotask(() => this.run());
        }
    }

    /** Does what is due. */
    run() {
        this.due = false;
        clearTimeout(this.timer);
        if (this.isClosed) {
            return;
        }
        const pause = this.call.radio_run(now(), Date.now());
        for (let length = this.call.radio_poll(); length; length = this.call.radio_poll()) {
            this.obey(this.output(length).slice());
        }
        this.timer = setTimeout(() => this.run(), Math.min(Math.max(pause, 1), 1000));
    }

    obey(bytes) {
        const kind = COMMANDS[bytes[0]];
        const begin = kind === "send" ? 3 : 1;
        const end = bytes.indexOf(10, begin);
        const group = decoder.decode(bytes.subarray(begin, end));
        const port = kind === "send" ? new DataView(bytes.buffer).getUint16(1, true) : null;
        this.does[kind](group, port, bytes.subarray(end + 1));
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

    /** Casters whose sound is played. */
    voices() {
        const bits = this.call.radio_voices();
        return Array.from({ length: 8 }, (_, caster) => caster).filter((caster) => bits & (1 << caster));
    }

    /** What is played next of a caster. */
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
