// The Worker of a call: its packets, decoders and encoder run here, where no drawing of the page delays them. Sound goes by ports
// straight to the audio thread and comes from it; datagrams go by the page, whose member has the connections.
//
//   in   { open: { address, call, name, talks }, player, recorder }, { datagram }, { muted }, { away }, { ignore: { place, isIgnored } }, { leave }
//   out  { opened: { text } } or { failed }; { join }, { leave }, { send: { group, port, data } }, { farewell }, { status }, { heard }, { left }

import { power, RATE, SoundEncoder, Voice } from "../common/codecs.js";
import { command, MemberModule } from "../common/wasm.js";

/** Samples of a frame: 10 ms. */
const FRAME = 480;
/** Sound that is with the audio thread or on its way there, in samples: two frames, and more where that was too little. */
const AHEAD = [2 * FRAME, 8 * FRAME];
/** Time without a gap after which less is tried, in milliseconds. Chosen. */
const CALM = 10_000;
/** Between two reports to the page, in milliseconds. */
const STATUS = 1000;
/** Frames of the microphone's level in one report. */
const LEVEL = 10;
/** As `lcradio call` has it: repair of the packet before in each. The encoder's own silence (DTX) leaves out frames in Chromium without a trace in their times. */
const OPUS = { bitrate: 32_000, opus: { application: "voip", signal: "voice", frameDuration: 10_000, useinbandfec: true, packetlossperc: 10 } };
/** The mean power of silence: −60 dBFS, below what microphones bring where the browser takes away noise. */
const SILENCE = 1e-6;
/** Frames of silence after which nothing is sent: 200 ms, as libopus has it; and of those each so many is sent, so that the others' noise goes on. */
const HANGS = 20;
const COMFORT = 40;
/** Kinds of frames, by number. */
const FRAMES = ["silence", "opus", "lost"];
/** Places of a call. */
const PLACES = 8;

const now = () => performance.now();

class Call extends MemberModule {
    static load(does) {
        return super.load(new URL("../radio/radio.wasm", import.meta.url), "call", does);
    }

    make() {
        this.put(crypto.getRandomValues(new Uint8Array(32)));
        return this.text(this.call.call_make());
    }

    open(start) {
        this.put(JSON.stringify({ ...start, seed: [...crypto.getRandomValues(new Uint8Array(32))] }));
        this.check(this.call.call_open(now()));
        this.run();
    }

    run() {
        super.run();
        if (!this.isClosed) {
            const length = this.call.call_farewell();
            length > 0 && this.does.farewell(command(this.output(length).slice()));
            this.call.call_left() && this.does.left();
        }
    }

    status() {
        return JSON.parse(this.text(this.call.call_status()));
    }

    /** Opus, before which samples were left out; returns its own. */
    sound(opus, skipped) {
        this.put(opus);
        const samples = this.call.call_sound(now(), skipped);
        this.run();
        return samples;
    }

    places() {
        const bits = this.call.call_voices();
        return Array.from({ length: PLACES }, (_, place) => place).filter((place) => bits & (1 << place));
    }

    frame(place) {
        const bytes = this.output(this.call.call_frame(now(), place)).slice();
        return { kind: FRAMES[bytes[0]], samples: new DataView(bytes.buffer).getUint32(1, true), opus: bytes.subarray(5) };
    }
}

/** The others' sound. */
class Player {
    constructor(call, port) {
        Object.assign(this, { call, port, voices: new Map(), ahead: AHEAD[0], underruns: 0, before: 0, calmSince: now() });
        port.onmessage = ({ data }) => this.tick(data);
    }

    /** The audio thread reports its progress. */
    tick({ voices }) {
        this.adapt(voices.reduce((sum, { underruns }) => sum + underruns, 0));
        for (const place of this.call.places()) {
            const voice = this.voices.get(place) ?? this.add(place);
            const played = voices[place]?.played ?? 0;
            // else the report is older than the restart of the audio thread
            if (played <= voice.given) {
                voice.fill(played + this.ahead, () => this.call.frame(place));
            }
            voice.give({ speed: 1 + this.call.call.call_speed(place) / 1e6 });
        }
    }

    adapt(underruns) {
        const time = now();
        if (underruns > this.before) {
            this.underruns += underruns - this.before;
            Object.assign(this, { ahead: Math.min(this.ahead + FRAME, AHEAD[1]), calmSince: time });
        } else if (time - this.calmSince > CALM) {
            Object.assign(this, { ahead: Math.max(this.ahead - FRAME, AHEAD[0]), calmSince: time });
        }
        this.before = underruns;
    }

    add(place) {
        const voice = new Voice((message, moved = []) => {
            this.hear(place, message);
            this.port.postMessage({ caster: place, ...message }, moved);
        });
        this.voices.set(place, voice);
        return voice;
    }

    /** Who speaks, by the sound that is heard. */
    hear(place, { planes, gap }) {
        const samples = planes?.[0].length ?? gap ?? 0;
        if (samples > 0 && this.call.call.call_power(place, planes ? power(planes[0]) : 0, samples)) {
            show();
        }
    }

    stop() {
        this.voices.forEach((voice) => voice.end());
        this.voices.clear();
        this.before = 0;
        this.port.postMessage({ clear: true });
    }
}

/** This participant's sound. */
class Microphone {
    constructor(call, port) {
        Object.assign(this, { call, isMuted: false, place: 0, next: 0, silent: 0, sum: 0, count: 0 });
        this.encoder = new SoundEncoder(1, OPUS, {
            sound: (opus, place) => this.send(opus, place),
            failed: (why) => postMessage({ silenced: `This browser encodes no sound any more: ${why}` }),
        });
        port.onmessage = ({ data }) => this.take(data);
    }

    take(planes) {
        const place = this.place;
        this.place += planes[0].length;
        const loud = power(planes[0]);
        this.silent = loud < SILENCE ? this.silent + 1 : 0;
        if (!this.isMuted && (this.silent <= HANGS || this.silent % COMFORT === 0)) {
            this.encoder.encode(planes, place);
        }
        this.sum += loud;
        this.count += 1;
        if (this.count === LEVEL) {
            postMessage({ heard: this.isMuted ? 0 : this.sum / this.count });
            Object.assign(this, { sum: 0, count: 0 });
        }
    }

    send(opus, place) {
        // sound of before it was muted is not sent any more
        if (!this.isMuted) {
            this.next = place + this.call.sound(opus, Math.max(0, place - this.next));
        }
    }
}

const view = { call: null, player: null, microphone: null, last: "" };

function show() {
    const status = view.call.status();
    const { underruns = 0, ahead = 0 } = view.player ?? {};
    const text = JSON.stringify({ ...status, late: underruns, ahead_ms: (ahead * 1000) / RATE });
    if (text !== view.last) {
        view.last = text;
        postMessage({ status: JSON.parse(text) });
    }
}

async function open({ call, ...start }, player, recorder) {
    try {
        view.call = await Call.load({
            join: (group) => postMessage({ join: group }),
            leave: (group) => postMessage({ leave: group }),
            send: (group, port, data) => postMessage({ send: { group, port, data } }),
            farewell: ({ group, port, data }) => postMessage({ farewell: { group, port, data } }),
            left: () => {
                view.call.close();
                postMessage({ left: true });
            },
        });
        const text = call ?? view.call.make();
        view.call.open({ ...start, call: text });
        view.player = new Player(view.call, player);
        if (recorder) {
            view.microphone = new Microphone(view.call, recorder);
        }
        postMessage({ opened: { text } });
        setInterval(show, STATUS);
        show();
    } catch (error) {
        postMessage({ failed: error.message });
    }
}

const takes = {
    datagram: ({ datagram }) => view.call.datagram(datagram),
    muted: ({ muted }) => {
        if (view.microphone) {
            view.microphone.isMuted = muted;
        }
        view.call.call.call_mute(now(), muted);
        view.call.run();
    },
    away: ({ away }) => {
        view.call.call.call_hold(now(), away);
        view.call.run();
        view.player.stop();
    },
    ignore: ({ ignore: { place, isIgnored } }) => view.call.call.call_ignore(place, isIgnored),
    leave: () => {
        view.call.call.call_leave(now());
        view.call.run();
    },
};

onmessage = async ({ data }) => {
    if (data.open) {
        await open(data.open, data.player, data.recorder);
        return;
    }
    const [kind] = Object.keys(data);
    if (view.call && !view.call.isClosed && view.player) {
        takes[kind](data);
        kind !== "datagram" && show();
    }
};
