// The presenter's voice: a station, which the radio of this page casts. It is loaded once the microphone is turned on.

import { Level } from "../radio/level.js";
import { Microphone } from "../radio/microphone.js";
import { Radio } from "../radio/module.js";

const $ = (id) => document.getElementById(id);

export class Voice {
    /** `member`: carries its datagrams. `key`: of the station, wiped here. `lost`: why there is no sound any more. */
    static async begin(member, key, { name, title }, lost) {
        const voice = new Voice(member);
        try {
            await voice.open(key, { name, title, public: false, voice: true }, lost);
        } catch (error) {
            voice.end();
            throw error;
        } finally {
            key.fill(0);
        }
        return voice;
    }

    constructor(member) {
        Object.assign(this, { member, groups: new Set(), level: new Level($("meter"), $("level")) });
    }

    async open(key, start, lost) {
        // first of all: browsers ask for a microphone only while the click still counts
        this.microphone = await Microphone.open("voice", true, {
            sound: (opus) => this.radio?.sound(opus),
            hear: (heard) => this.level.add(heard),
            lost,
        });
        this.radio = await Radio.load({
            join: (group) => {
                this.groups.add(group);
                this.member.join(group);
            },
            leave: (group) => {
                this.groups.delete(group);
                this.member.leave(group);
            },
            send: (group, port, data) => {
                try {
                    this.member.send(group, port, data);
                } catch {
                    // a gap; its numbers show it to listeners
                }
            },
        });
        this.radio.open(this.member.status().address);
        this.radio.cast(key, start);
        this.station = this.radio.status().casts.station;
    }

    datagram(bytes) {
        this.radio?.datagram(bytes);
    }

    set talks(talks) {
        this.microphone.talks = talks;
        this.radio.talk(talks);
    }

    /** Another one casts with the same key, and began later. */
    get isSuperseded() {
        return this.radio.status().casts?.superseded ?? false;
    }

    /** Listeners are informed, and the microphone is free. */
    end() {
        this.microphone?.close();
        if (this.radio) {
            this.radio.end();
            this.radio.close();
        }
        this.groups.forEach((group) => this.member.leave(group));
        this.groups.clear();
        this.level.clear();
    }
}
