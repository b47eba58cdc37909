// A lecture as WebAssembly (web/studio): sessions, tracks, slides and captions are those of lcstudio on hosts.

import { MemberModule } from "../common/wasm.js";

const now = () => performance.now();

export class Studio extends MemberModule {
    /** `does`: what the member does: join, leave, send; and `change`, when something is shown that was not. */
    static load(does) {
        return super.load(new URL("studio.wasm", import.meta.url), "studio", does);
    }

    /** Attends a session. `tracks`: those chosen before, or null. */
    open(session, tracks) {
        const start = { session, languages: [...navigator.languages], tracks };
        this.put(crypto.getRandomValues(new Uint8Array(32)), JSON.stringify(start));
        this.check(this.call.studio_open(now()));
        this.run();
    }

    run() {
        super.run();
        const revision = this.isClosed ? this.revision : this.call.studio_revision();
        if (revision !== this.revision) {
            this.revision = revision;
            this.does.change();
        }
    }

    /** Leaves all groups. */
    end() {
        this.call.studio_end();
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
