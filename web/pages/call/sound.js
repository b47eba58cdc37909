// The sound of a call: loudspeakers, a microphone, and the Worker between them and the network.

import { begin, Player } from "../radio/player.js";
import { words } from "../radio/microphone.js";
import { capture, useSpeaker } from "./devices.js";

/** Samples of a frame at 48 kHz: 10 ms. */
const FRAME = 480;
/** Longest wait for the last datagrams of a call that is left, in milliseconds: there are three, 50 ms apart. */
const LEAVES = 1000;

export class Sound {
    /**
     * To be called by a click: else browsers neither play nor ask for the microphone. `tell`: `join`, `leave`, `send` and `farewell` for
     * the member, `status`, `heard`: the level of the microphone, `silenced`: why it is silent, `paused`: whether the browser has
     * paused the sound.
     */
    static async start(talks, tell) {
        const obstacle = Player.obstacle() ?? (talks && !window.AudioEncoder ? "This browser cannot encode sound for pages (WebCodecs): it can only listen." : null);
        if (obstacle) {
            throw new Error(obstacle);
        }
        const sound = new Sound(tell);
        try {
            // both at once, while the click still counts
            await Promise.all([sound.play(), talks && sound.openMicrophone()]);
        } catch (error) {
            sound.close();
            throw error;
        }
        return sound;
    }

    constructor(tell) {
        Object.assign(this, { tell, ports: {} });
        // at the rate of the device: at another one Firefox cancels no echo
        this.context = new AudioContext({ latencyHint: "interactive" });
        this.context.addEventListener("statechange", () => this.isClosed || tell.paused(this.context.state !== "running"));
        this.loaded = this.context.audioWorklet.addModule(new URL("../common/worklet.js", import.meta.url));
    }

    async play() {
        await this.loaded;
        const player = new AudioWorkletNode(this.context, "player", { numberOfInputs: 0, outputChannelCount: [2] });
        this.gain = new GainNode(this.context);
        player.connect(this.gain).connect(this.context.destination);
        this.ports.player = this.port(player);
        await begin(this.context);
        await useSpeaker(this.context);
    }

    /** The Worker's end of a way to the audio thread. */
    port(node) {
        const { port1, port2 } = new MessageChannel();
        node.port.postMessage({ port: port1 }, [port1]);
        return port2;
    }

    /** Once more, after it was lost, or another one is chosen. */
    async openMicrophone() {
        this.stream?.getTracks().forEach((track) => track.stop());
        try {
            this.stream = await navigator.mediaDevices.getUserMedia({ audio: capture() });
        } catch (error) {
            throw new Error(words(error), { cause: error });
        }
        await this.loaded;
        const [track] = this.stream.getAudioTracks();
        track.addEventListener("ended", () => this.isClosed || this.tell.silenced("The microphone is gone. Once it is back, unmute yourself."));
        if (!this.recorder) {
            this.recorder = new AudioWorkletNode(this.context, "recorder", {
                channelCount: 1,
                channelCountMode: "explicit",
                processorOptions: { channels: 1, talks: true, frame: FRAME },
            });
            // it is silent there, and without a way there it would not run
            this.recorder.connect(this.context.destination);
            this.ports.recorder = this.port(this.recorder);
        }
        this.source?.disconnect();
        this.source = this.context.createMediaStreamSource(this.stream);
        this.source.connect(this.recorder);
    }

    async takeDevices() {
        await useSpeaker(this.context);
        if (this.stream) {
            await this.openMicrophone();
            this.gate();
        }
    }

    get hasMicrophone() {
        return this.stream?.getAudioTracks().some((track) => track.readyState === "live") ?? false;
    }

    /** Takes part. `start`: the member's address, the call's text or null for a new one, the name, whether it talks. Returns the text. */
    open(start) {
        this.worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
        return new Promise((done, failed) => {
            const takes = { ...this.tell, opened: ({ text }) => done(text), failed: (why) => failed(new Error(why)), left: () => this.left?.() };
            this.worker.onmessage = ({ data }) => Object.entries(data).forEach(([kind, value]) => takes[kind](value));
            this.worker.onerror = () => failed(new Error("The sound of calls does not run in this browser."));
            this.worker.postMessage({ open: start, ...this.ports }, Object.values(this.ports));
        });
    }

    datagram(datagram) {
        this.worker?.postMessage({ datagram });
    }

    set muted(muted) {
        this.isMuted = muted;
        this.worker.postMessage({ muted });
        this.gate();
    }

    /** It keeps its place, and hears nobody. */
    set away(away) {
        this.isAway = away;
        this.worker.postMessage({ away });
        this.gate();
    }

    /** The browser shows that nothing is recorded. */
    gate() {
        const talks = !this.isMuted && !this.isAway;
        this.recorder?.port.postMessage({ talks });
        this.stream?.getAudioTracks().forEach((track) => (track.enabled = talks));
    }

    ignore(place, isIgnored) {
        this.worker.postMessage({ ignore: { place, isIgnored } });
    }

    /** From 0 to 1. */
    set volume(volume) {
        // loudness is perceived so
        this.gain.gain.setTargetAtTime(volume * volume, this.context.currentTime, 0.01);
    }

    /** Delay between a frame and its sound, beside what the Worker keeps ahead, in milliseconds. */
    get delay() {
        const { baseLatency = 0, outputLatency = 0 } = this.context;
        return (baseLatency + outputLatency) * 1000;
    }

    resume() {
        return this.context.resume();
    }

    /** The others are informed, and devices are free. */
    async end() {
        this.stream?.getTracks().forEach((track) => track.stop());
        this.context.suspend();
        await new Promise((done) => {
            this.left = done;
            setTimeout(done, LEAVES);
            this.worker?.postMessage({ leave: true });
        });
        this.close();
    }

    close() {
        this.isClosed = true;
        this.worker?.terminate();
        this.stream?.getTracks().forEach((track) => track.stop());
        this.context.state !== "closed" && this.context.close();
    }
}
