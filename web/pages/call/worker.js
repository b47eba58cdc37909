// The call's own thread: its packets, buffer and codecs. The page is too busy for 10 ms; it only carries datagrams, and draws.
//
//   page ── datagrams ── worker ── samples, by a port of its own ── audio thread
//
// Messages to it have the name of a function below.

import { Voice } from "../radio/player.js";
import { Call } from "./module.js";

const RATE = 48_000;
/** Samples of 10 ms. */
const FRAME = 480;
/** So much sound is with the audio thread or on its way there, in samples: 20 ms. */
const AHEAD = 960;
/** How often the page receives the state, in milliseconds. */
const TELL = 200;
/** Speech, as `lcradio call` encodes it: 10 ms, with repair of the packet before, and nothing in silence. */
const ENCODE = {
    codec: "opus",
    sampleRate: RATE,
    numberOfChannels: 1,
    bitrate: 32_000,
    opus: { application: "voip", signal: "voice", useinbandfec: true, packetlossperc: 10, usedtx: true, frameDuration: 10_000 },
};

const tell = (message, moved = []) => self.postMessage(message, moved);
const voices = new Map();
const state = { call: null, player: null, encoder: null, muted: true, recorded: 0, sent: 0, underruns: 0, power: 0 };

const does = {
    async join({ address, start, player, recorder }) {
        try {
            state.call = await Call.load({
                join: (group) => tell({ does: "join", group }),
                leave: (group) => tell({ does: "leave", group }),
                send: (group, port, data) => tell({ does: "send", group, port, data }),
            });
            state.call.join(address, start);
            state.muted = start.muted;
        } catch ({ message }) {
            return tell({ problem: message });
        }
        state.player = player;
        player.onmessage = ({ data }) => tick(data);
        if (recorder) {
            recorder.onmessage = ({ data }) => record(data[0]);
        }
        setInterval(() => status(), TELL);
        status();
    },

    datagram({ bytes }) {
        state.call?.datagram(bytes);
    },

    mute({ isMuted }) {
        state.muted = isMuted;
        state.call?.mute(isMuted);
        status();
    },

    ignore({ place, isIgnored }) {
        state.call?.ignore(place, isIgnored);
        status();
    },

    leave() {
        state.call?.leave();
        status();
    },
};

self.onmessage = ({ data }) => does[data.does](data);

function status() {
    if (state.call) {
        const { underruns, power } = state;
        tell({ status: { ...state.call.status(), underruns, power } });
        state.power = 0;
    }
}

// --- the others ---

/** The audio thread reports its progress. */
function tick({ voices: reports }) {
    state.underruns = reports.reduce((sum, report) => sum + (report?.underruns ?? 0), 0);
    for (const place of state.call.voices()) {
        const played = reports[place]?.played ?? 0;
        const voice = voices.get(place) ?? begin(place);
        voice.fill(played, () => state.call.frame(place));
        state.player.postMessage({ caster: place, speed: state.call.speed(place) });
    }
}

function begin(place) {
    const give = (message, moved = []) => {
        const plane = message.planes?.[0];
        state.call.hear(place, plane ? mean(plane) : 0, plane?.length ?? message.gap ?? 0);
        state.player.postMessage({ caster: place, ...message }, moved);
    };
    const voice = new Voice(give, AHEAD);
    voices.set(place, voice);
    return voice;
}

const mean = (plane) => plane.reduce((sum, sample) => sum + sample * sample, 0) / plane.length;

// --- the own microphone ---

/** 10 ms of one channel. */
function record(data) {
    const timestamp = Math.round((state.recorded * 1e6) / RATE);
    state.recorded += FRAME;
    if (state.muted) {
        return;
    }
    state.power = Math.max(state.power, mean(data));
    if (state.encoder?.state !== "configured") {
        state.encoder = new AudioEncoder({ output: (chunk) => encoded(chunk), error: () => {} });
        state.encoder.configure(ENCODE);
    }
    const frame = new AudioData({ format: "f32-planar", sampleRate: RATE, numberOfFrames: FRAME, numberOfChannels: 1, timestamp, data });
    state.encoder.encode(frame);
    frame.close();
}

function encoded(chunk) {
    // nothing comes of silence, and nothing while muted
    const at = Math.round((chunk.timestamp * RATE) / 1e6 / FRAME) * FRAME;
    if (at > state.sent) {
        state.call.skip(at - state.sent);
    }
    state.sent = Math.max(at, state.sent) + FRAME;
    const opus = new Uint8Array(chunk.byteLength);
    chunk.copyTo(opus);
    state.call.sound(opus);
}
