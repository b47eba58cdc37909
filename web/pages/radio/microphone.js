// A microphone's sound as Opus: an AudioWorklet cuts it into 20 ms, WebCodecs encodes.

import { power, RATE, SoundEncoder } from "../common/codecs.js";
import { begin } from "./player.js";

/** Samples of 20 ms. */
const FRAME = 960;

/** As `lcradio cast` has them. Of speech the browser takes away echo and noise; in-band FEC costs music more than it brings. */
export const PROFILES = {
    voice: {
        channels: 1,
        capture: { channelCount: 1, echoCancellation: true, noiseSuppression: true, autoGainControl: true },
        encode: { bitrate: 32_000, opus: { application: "voip", signal: "voice", useinbandfec: true, packetlossperc: 10, frameDuration: 20_000 } },
    },
    music: {
        channels: 2,
        capture: { channelCount: 2, echoCancellation: false, noiseSuppression: false, autoGainControl: false },
        encode: { bitrate: 96_000, opus: { application: "audio", signal: "music", frameDuration: 20_000 } },
    },
};

export class Microphone {
    /**
     * `profile`: voice or music. `sound`: takes Opus. `hear`: {power} of each 20 ms. `lost`: the microphone is gone, or its
     * sound cannot be encoded.
     */
    static async open(profile, talks, { sound, hear, lost }) {
        if (!navigator.mediaDevices?.getUserMedia || !window.AudioEncoder) {
            throw new Error(
                window.isSecureContext
                    ? "This browser cannot encode sound for pages (WebCodecs)."
                    : "Browsers give a microphone only to pages that came by https:, or from this computer.",
            );
        }
        const microphone = new Microphone({ sound, hear, lost });
        try {
            await microphone.begin(PROFILES[profile], talks);
        } catch (error) {
            microphone.close();
            throw new Error(words(error), { cause: error });
        }
        return microphone;
    }

    constructor(tell) {
        Object.assign(this, tell);
    }

    async begin({ channels, capture, encode }, talks) {
        this.context = new AudioContext({ sampleRate: RATE });
        this.encoder = new SoundEncoder(channels, encode, { sound: (opus) => this.sound(opus), failed: (why) => this.lost(why) });
        this.stream = await navigator.mediaDevices.getUserMedia({ audio: capture });
        const [track] = this.stream.getAudioTracks();
        track.addEventListener("ended", () => this.lost("The microphone is gone."));
        await this.context.audioWorklet.addModule(new URL("../common/worklet.js", import.meta.url));
        const source = this.context.createMediaStreamSource(this.stream);
        this.node = new AudioWorkletNode(this.context, "recorder", {
            channelCount: channels,
            channelCountMode: "explicit",
            processorOptions: { channels, talks, frame: FRAME },
        });
        this.node.port.onmessage = ({ data }) => this.take(data);
        // it is silent there, and without a way there it would not run
        source.connect(this.node).connect(this.context.destination);
        await begin(this.context);
        this.name = track.label;
    }

    take(planes) {
        this.encoder.encode(planes, 0);
        this.hear({ power: planes.reduce((sum, plane) => sum + power(plane), 0) / planes.length });
    }

    set talks(talks) {
        this.node.port.postMessage({ talks });
    }

    close() {
        this.stream?.getTracks().forEach((track) => track.stop());
        this.encoder?.close();
        this.context?.close();
    }
}

/** Why there is no microphone, as people read it. */
export function words({ name, message }) {
    switch (name) {
        case "NotAllowedError":
            return "The browser gives this page no microphone: allow it in the browser’s settings of this page.";
        case "NotFoundError":
            return "This computer has no microphone.";
        case "NotReadableError":
            return "The microphone cannot be used: another program may have it.";
        default:
            return message;
    }
}
