// A lecture as WebAssembly (lcstudio/page): sessions, tracks, slides and captions are those of lcstudio on hosts.

import { MemberModule } from "../common/wasm.js";

const now = () => performance.now();
const hex = (bytes) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");

export class Studio extends MemberModule {
    /** `does`: the member's verbs: join, leave, send; and `change`, when something new is shown. */
    static load(does) {
        return super.load(new URL("studio.wasm", import.meta.url), "studio", does);
    }

    /**
     * Attends a session, once it runs. `tracks`: those chosen before, or null; `pictures`, `screen`, `camera`: whether they are
     * joined then; `large`: the camera's large picture; `leaf`: of a leaf.
     */
    open(session, tracks, { pictures, screen, camera, large }, leaf) {
        const start = { session, languages: [...navigator.languages], tracks, pictures, leaf, screen, camera, large };
        this.put(crypto.getRandomValues(new Uint8Array(32)), JSON.stringify(start));
        this.check(this.call.studio_open(now()));
    }

    /** Of the session, and no secret. */
    name() {
        return this.text(this.call.studio_name());
    }

    /** The key that writes notes, and records that were kept of a visit before. */
    restore(key, records) {
        const parts = records.flatMap(({ kind, bytes }) => [Uint8Array.of(kind, bytes.length >> 8, bytes.length & 255), bytes]);
        this.put(key, ...parts);
        this.call.studio_restore(now());
    }

    run() {
        super.run();
        if (!this.isClosed) {
            this.hand(this.records(), this.does.records);
            this.hand(this.updates(), this.does.updates);
            this.all(this.call.studio_screen).forEach((change) => this.does.screen?.(change));
            this.all(this.call.studio_camera).forEach((frame) => this.does.camera?.(frame));
        }
        const revision = this.isClosed ? this.revision : this.call.studio_revision();
        if (revision !== this.revision) {
            this.revision = revision;
            this.does.change();
        }
    }

    hand(list, to) {
        if (list.length > 0) {
            to?.(...list);
        }
    }

    /** Data for the disk before later packets are sent: its number, records of logs, drafts among them. */
    records() {
        const length = this.call.studio_records();
        if (length === 0) {
            return [];
        }
        const all = this.output(length).slice();
        const view = new DataView(all.buffer);
        const [records, done] = [[], []];
        for (let at = 4; at < length; ) {
            const [kind, size] = [all[at], view.getUint16(at + 17)];
            if (kind === 2) {
                done.push(view.getUint32(at + 1));
            } else {
                records.push({ kind, id: hex(all.subarray(at + 1, at + 17)), bytes: all.slice(at + 19, at + 19 + size) });
            }
            at += 19 + size;
        }
        // there may be more
        this.soon();
        return [view.getUint32(0), records, done];
    }

    kept(turn) {
        if (!this.isClosed) {
            this.call.studio_kept(turn);
            this.execute();
        }
    }

    /** Updates of notes that have come: one list of them. */
    updates() {
        const updates = [];
        for (let length = this.call.studio_update(); length; length = this.call.studio_update()) {
            const all = this.output(length).slice();
            updates.push({ author: hex(all.subarray(0, 8)), number: new DataView(all.buffer).getUint32(8), body: all.slice(12) });
        }
        return updates.length > 0 ? [updates] : [];
    }

    /** All answers that a function has. */
    all(poll) {
        const answers = [];
        for (let length = poll(); length; length = poll()) {
            answers.push(this.output(length).slice());
        }
        return answers;
    }

    /** The screen stands still, or goes on. */
    pauseScreen(isPaused) {
        this.call.studio_pause(now(), isPaused);
        this.run();
    }

    /** The camera stands still, or goes on. */
    pauseCamera(isPaused) {
        this.call.studio_camera_pause(now(), isPaused);
        this.run();
    }

    /** The camera's large picture, or the small one. */
    wantLarge(isWanted) {
        this.call.studio_camera_large(now(), isWanted);
        this.run();
    }

    /** What was left of the camera is tried now. */
    tryCameraAgain() {
        this.call.studio_camera_again(now());
        this.run();
    }

    /** Frames of the camera that wait for the decoder; `hasLost`: it needs a key frame. */
    cameraWaiting(frames, hasLost) {
        if (!this.isClosed) {
            this.call.studio_camera_waiting(now(), frames, hasLost);
        }
    }

    openNotes() {
        this.check(this.call.studio_notes(now()));
        this.run();
    }

    /** A draft of notes that is on disk. */
    write(id, body) {
        this.put(body);
        this.check(this.call.studio_write(id));
        this.soon();
    }

    connect(isConnected) {
        this.call.studio_connect(isConnected);
        this.soon();
    }

    /** Visibility in the notes: the reader's name, null if not shown; whether other writers are shown. */
    show(name, watches) {
        this.put(JSON.stringify({ name, watches }));
        this.call.studio_show(now());
        this.run();
    }

    /** Where the reader is in the notes. */
    move(cursor, writes) {
        this.put(cursor);
        this.call.studio_move(now(), writes);
        this.soon();
    }

    /** Writers that are shown in the notes. */
    others() {
        return this.json(this.call.studio_others());
    }

    /** Leaves all groups. */
    end() {
        this.call.studio_end(now());
        this.execute();
        this.close();
    }

    choose(track, isChosen) {
        this.put(track);
        this.check(this.call.studio_choose(now(), isChosen));
        this.run();
    }

    ask(name, text) {
        this.put(JSON.stringify({ name, text }));
        this.check(this.call.studio_ask(now()));
        this.run();
    }

    status() {
        return this.json(this.call.studio_status());
    }

    titles() {
        return this.json(this.call.studio_titles());
    }

    /** From 1; null where it is not here. */
    slide(number) {
        return this.json(this.call.studio_slide(number));
    }

    /** A picture that is whole, by its id; null where it is not here. */
    picture(id) {
        this.put(id);
        const file = this.output(this.call.studio_picture()).slice();
        const end = file.indexOf(10);
        return end < 0 ? null : new Blob([file.subarray(end + 1)], { type: new TextDecoder().decode(file.subarray(0, end)) });
    }

    /** The last lines, and how many stand before them. */
    captions(most) {
        return this.json(this.call.studio_captions(most));
    }

    questions() {
        return this.json(this.call.studio_questions());
    }

    json(length) {
        return JSON.parse(this.text(length));
    }
}
