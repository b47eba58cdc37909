// Sound of a lecture: a station, which the radio of this page plays. It is loaded once somebody wants it.

import { Radio } from "../radio/module.js";
import { Player } from "../radio/player.js";

export class Sound {
    /** To be called by a click: else browsers play nothing. `member`: carries its datagrams. */
    static async start(member, station) {
        const sound = new Sound(member);
        try {
            await sound.play(station);
        } catch (error) {
            sound.end();
            throw error;
        }
        return sound;
    }

    constructor(member) {
        Object.assign(this, { member, groups: new Set() });
    }

    async play(station) {
        const radio = {
            voices: () => this.radio?.voices() ?? [],
            frame: (caster) => this.radio.frame(caster),
            speed: (caster) => this.radio.speed(caster),
        };
        // both at once: browsers play only while the click still counts
        const player = Player.start(radio, () => {});
        this.radio = await Radio.load({
            join: (group) => {
                this.groups.add(group);
                this.member.join(group);
            },
            leave: (group) => {
                this.groups.delete(group);
                this.member.leave(group);
            },
            send: () => {},
        });
        this.player = await player;
        this.radio.open(this.member.status().address);
        this.radio.tune(station, 0);
        await this.player.play();
        this.station = station;
    }

    datagram(bytes) {
        this.radio?.datagram(bytes);
    }

    set volume(volume) {
        this.player.volume = volume;
    }

    /** How it goes, in words. */
    words() {
        const { listens } = this.radio.status();
        const state = { waiting: "waiting for the sound", live: "playing", ended: "the sound has ended; it goes on here when it is back" };
        const lost = listens?.sent ? `, ${((100 * listens.lost) / listens.sent).toFixed(1)} % lost` : "";
        return `${state[listens?.state] ?? "waiting"}${lost}`;
    }

    /** Nothing of it comes any more. */
    end() {
        this.radio?.close();
        this.player?.stop();
        this.player?.context.close();
        this.groups.forEach((group) => this.member.leave(group));
        this.groups.clear();
    }
}
