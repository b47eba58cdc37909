// Microphone and loudspeaker of calls: which ones, and a test of both. This browser keeps the choice, and sends it to nobody.

import { fill, html, say } from "../common/html.js";
import { Level } from "../radio/level.js";
import { PROFILES, words } from "../radio/microphone.js";
import { begin } from "../radio/player.js";

const KEPT = "lcroute call devices";
const KINDS = { microphone: "audioinput", speaker: "audiooutput" };
/** How long a test takes, and between two looks at the microphone, in milliseconds. Chosen: a sentence. */
const TEST = 5000;
const LOOK = 50;
/** The mean power of a microphone that brings sound: −60 dBFS. */
const SOUND = 1e-6;

const $ = (id) => document.getElementById(id);
const canChooseSpeaker = "setSinkId" in AudioContext.prototype;

/** Settings of the chosen microphone; without it, the browser takes another. */
export const capture = () => ({ ...PROFILES.voice.capture, ...($("microphone").value && { deviceId: { ideal: $("microphone").value } }) });

/** A context plays at the chosen loudspeaker; without it, at the system's. */
export async function useSpeaker(context) {
    if (canChooseSpeaker && context.sinkId !== $("speaker").value) {
        await context.setSinkId($("speaker").value).catch(() => {});
    }
}

export class Devices {
    /** `changed`: another one is chosen. */
    constructor(changed) {
        this.level = new Level($("test-meter"), $("test-level"));
        $("speaker").closest("label").hidden = !canChooseSpeaker;
        for (const id of Object.keys(KINDS)) {
            $(id).addEventListener("change", () => {
                localStorage.setItem(KEPT, JSON.stringify({ ...kept(), [id]: $(id).value }));
                changed();
            });
        }
        $("test").addEventListener("click", () => this.test());
        navigator.mediaDevices?.addEventListener("devicechange", () => this.list());
        this.list();
    }

    /** Browsers name devices only once a page may use one. */
    async list() {
        const all = (await navigator.mediaDevices?.enumerateDevices().catch(() => [])) ?? [];
        for (const [id, kind] of Object.entries(KINDS)) {
            const named = all.filter((one) => one.kind === kind && one.deviceId && one.label && one.deviceId !== "default");
            const wanted = kept()[id] ?? "";
            fill($(id), [html("option", { value: "" }, "as the system has it"), ...named.map(({ deviceId, label }) => html("option", { value: deviceId }, label))]);
            $(id).value = named.some(({ deviceId }) => deviceId === wanted) ? wanted : "";
        }
    }

    /** By a click: two tones, and the level of the microphone. */
    async test() {
        $("test").disabled = true;
        $("test-loud").hidden = false;
        say($("test-words"), "Waiting for the microphone.");
        const context = new AudioContext();
        let stream = null;
        try {
            await begin(context);
            stream = await navigator.mediaDevices.getUserMedia({ audio: capture() });
            await this.list();
            await useSpeaker(context);
            tones(context);
            say($("test-words"), "Two tones play. Say something.");
            const hasSound = await this.listen(context, stream);
            say($("test-words"), hasSound ? "The microphone brings sound. Without the two tones, choose another loudspeaker." : "The microphone brings silence: choose another one, or look whether it is switched off.");
        } catch (error) {
            say($("test-words"), words(error));
        }
        stream?.getTracks().forEach((track) => track.stop());
        context.close();
        this.level.clear();
        $("test-loud").hidden = true;
        $("test").disabled = false;
    }

    /** Whether the microphone brings sound within the test. */
    async listen(context, stream) {
        const analyser = new AnalyserNode(context, { fftSize: 2048 });
        context.createMediaStreamSource(stream).connect(analyser);
        const samples = new Float32Array(analyser.fftSize);
        let loudest = 0;
        for (const end = performance.now() + TEST; performance.now() < end; ) {
            await new Promise((done) => setTimeout(done, LOOK));
            analyser.getFloatTimeDomainData(samples);
            const power = samples.reduce((sum, sample) => sum + sample * sample, 0) / samples.length;
            this.level.add({ power });
            loudest = Math.max(loudest, power);
        }
        return loudest > SOUND;
    }
}

function kept() {
    try {
        return JSON.parse(localStorage.getItem(KEPT)) ?? {};
    } catch {
        return {};
    }
}

/** Two soft ones, of half a second each. */
function tones(context) {
    [440, 660].forEach((frequency, n) => {
        const [tone, gain] = [new OscillatorNode(context, { frequency }), new GainNode(context, { gain: 0.1 })];
        tone.connect(gain).connect(context.destination);
        tone.start(context.currentTime + n * 0.6);
        tone.stop(context.currentTime + n * 0.6 + 0.5);
    });
}
