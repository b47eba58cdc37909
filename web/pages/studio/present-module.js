// Presenting as WebAssembly (lcstudio/page): entries, tracks and the order in which they are sent are those of lcstudio on hosts.

import { MemberModule } from "../common/wasm.js";

const now = () => performance.now();
const hex = (bytes) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
const encoder = new TextEncoder();

function big(value, bytes) {
    const view = new DataView(new ArrayBuffer(4));
    view.setUint32(0, value);
    return new Uint8Array(view.buffer, 4 - bytes);
}

export class Presenter extends MemberModule {
    /** `does`: the member's verbs: join, leave, send; `records`: data for the disk; `change`, when something new is shown. */
    static load(does) {
        return super.load(new URL("studio.wasm", import.meta.url), "present", does);
    }

    /** The text of a key's session, and its name, which is no secret; null: these bytes are no key. */
    session(key) {
        this.put(key);
        const [text, name] = this.text(this.call.present_session()).split(" ");
        return name ? { text, name } : null;
    }

    /** Slides that are being written, with the cursor in this line. */
    preview(text, line) {
        this.put(text);
        return this.json(this.call.present_preview(line));
    }

    /** Presents; `records`: the stored data of this session. */
    open(key, { title, presenter, languages, captions, notes, slides }, records) {
        const start = encoder.encode(JSON.stringify({ title, presenter, languages, captions: captions ?? null, notes, slides }));
        const parts = records.flatMap((bytes) => [big(bytes.length, 2), bytes]);
        this.put(crypto.getRandomValues(new Uint8Array(32)), key, big(start.length, 4), start, ...parts);
        this.check(this.call.present_open(now()));
        this.isOpen = true;
    }

    /** Another node is there. */
    connect() {
        if (!this.isConnected) {
            this.isConnected = true;
            this.call.present_connect(now());
            this.run();
        }
    }

    run() {
        if (!this.isOpen) {
            return;
        }
        super.run();
        if (this.isClosed) {
            return;
        }
        this.store();
        const revision = this.call.present_revision();
        if (revision !== this.revision) {
            this.revision = revision;
            this.does.change();
        }
    }

    /** Data for the disk before later packets are sent. */
    store() {
        const length = this.call.present_records();
        if (length === 0) {
            return;
        }
        const all = this.output(length).slice();
        const view = new DataView(all.buffer);
        const records = [];
        for (let at = 4; at < length; ) {
            const size = view.getUint16(at + 17);
            records.push({ id: hex(all.subarray(at + 1, at + 17)), bytes: all.slice(at + 19, at + 19 + size) });
            at += 19 + size;
        }
        // there may be more
        this.soon();
        this.does.records(view.getUint32(0), records);
    }

    kept(turn) {
        if (!this.isClosed) {
            this.call.present_kept(turn);
            this.execute();
        }
    }

    slides(text) {
        this.put(text);
        this.check(this.call.present_slides());
        this.run();
    }

    /** The reason why a file is no picture for others; empty: it is one. */
    pictureProblem(bytes) {
        this.put(bytes);
        return this.text(this.call.present_picture_problem());
    }

    /** A picture by the name that slides have for it. */
    picture(name, bytes) {
        const called = encoder.encode(name);
        if (called.length > 255) {
            throw new Error(`${name}: this name is too long.`);
        }
        this.put(big(called.length, 1), called, bytes);
        this.check(this.call.present_picture());
        this.soon();
    }

    /** From 1. */
    turn(number) {
        this.call.present_turn(number);
        this.run();
    }

    caption(language, text) {
        this.put(JSON.stringify({ language, text }));
        this.check(this.call.present_caption());
        this.run();
    }

    /** The contents of a radio key file for the sound of this language; the caller wipes it. */
    stationKey(language) {
        this.put(language);
        const answer = this.output(this.call.present_station_key());
        const key = answer.slice();
        answer.fill(0);
        return key;
    }

    /** There is sound in this language, at a station. */
    station(language, text) {
        this.put(JSON.stringify({ language, text }));
        this.check(this.call.present_station());
        this.run();
    }

    /** The presenter's screen goes on air: looks are taken from now on. */
    showScreen() {
        this.put(crypto.getRandomValues(new Uint8Array(32)));
        this.check(this.call.present_screen(now(), Date.now()));
        this.run();
    }

    /** The track `screen` or `camera` in words, for those who do not see it. */
    describe(track, text) {
        this.put(`${track}\n${text}`);
        this.check(this.call.present_describe());
        this.run();
    }

    wantsLook() {
        return !this.isClosed && Boolean(this.call.present_wants_look(now()));
    }

    /** A look at the screen: four bytes a pixel. */
    look(width, height, pixels) {
        this.put(pixels);
        this.check(this.call.present_look(now(), width, height));
    }

    /** The areas of which pictures are wanted, and their quality, 0 to 1; null: none. */
    areas() {
        const all = this.output(this.call.present_areas()).slice();
        const view = new DataView(all.buffer);
        const numbers = (at) => [0, 2, 4, 6].map((part) => view.getUint16(at + part));
        const areas = Array.from({ length: Math.floor(all.length / 8) }, (_, at) => {
            const [x, y, width, height] = numbers(1 + at * 8);
            return { x, y, width, height };
        });
        return areas.length > 0 ? { areas, quality: all[0] / 100 } : null;
    }

    /** Pictures of these areas. */
    screenPictures(files) {
        this.put(...files.flatMap((bytes) => [big(bytes.length, 4), bytes]));
        this.check(this.call.present_screen_pictures(now()));
        this.run();
    }

    endScreen() {
        if (!this.isClosed) {
            this.call.present_end_screen(now());
            this.run();
        }
    }

    /** The presenter's camera goes on air; `hasLarge`: a larger picture, too, while somebody has joined it. */
    showCamera(hasLarge) {
        this.put(crypto.getRandomValues(new Uint8Array(32)));
        this.check(this.call.present_camera(now(), Date.now(), hasLarge));
        this.run();
    }

    /** A frame of VP8. Returns 0 if it is sent, 1 if it is left out and a key frame is to be next, 2 if it cannot be sent. */
    cameraFrame(isLarge, bytes) {
        if (this.isClosed) {
            return 0;
        }
        this.put(bytes);
        const told = this.call.present_camera_frame(now(), isLarge);
        this.soon();
        return told;
    }

    /** There is no larger picture any more. */
    endLarge() {
        this.call.present_end_large(now());
        this.soon();
    }

    endCamera() {
        if (!this.isClosed) {
            this.call.present_end_camera(now());
            this.run();
        }
    }

    /** From 1. */
    takeUp(number) {
        this.check(this.call.present_take_up(number));
        this.run();
    }

    end() {
        this.check(this.call.present_end());
        this.run();
    }

    resume() {
        this.call.present_resume();
        this.run();
    }

    /** Leaves all groups. */
    leave() {
        this.call.present_leave();
        this.execute();
        this.close();
    }

    status() {
        return this.json(this.call.present_status());
    }

    /** From 1; null where there is none. */
    slide(number) {
        return this.json(this.call.present_slide(number));
    }

    captions(most) {
        return this.json(this.call.present_captions(most));
    }

    json(length) {
        return JSON.parse(this.text(length));
    }
}
