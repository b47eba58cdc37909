// Members of a group.

import { members } from "../common/feed.js";
import { fill, html, say } from "../common/html.js";

/** Members listed at once; a larger group shows those with a matching name. */
const LISTED = 100;
/** From so many on there is a field to look for names. */
const MANY = 20;
/** Longest name that is shown, in characters: one of lcgroup (64 bytes) and its mark. */
const LONGEST_NAME = 128;

const WHEN = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });

export class Members {
    /** `place`: an element that opens, with a heading, a field, a list and words below it. */
    constructor(place) {
        const [count, field, list, hint] = [".count", "input", "ul", ".hint"].map((at) => place.querySelector(at));
        Object.assign(this, { place, count, field, list, hint, all: [], seen: null });
        place.addEventListener("toggle", () => this.look());
        field.addEventListener("input", () => this.show());
    }

    /** The group as it stands now, or none. */
    of(group) {
        if (group?.author !== this.group?.author) {
            Object.assign(this, { all: [], seen: null });
            this.field.value = "";
            this.show();
        }
        this.group = group;
        // none: this host is not let in yet
        this.place.hidden = !group || group.members === 0;
        say(this.count, (group?.members ?? 0).toLocaleString());
        this.look();
    }

    /** Asks where that is seen, and something has changed. */
    async look() {
        const { group } = this;
        const now = group && [group.author, group.epoch, group.members, group.messages].join();
        if (!group || !this.place.open || now === this.seen) {
            return;
        }
        this.seen = now;
        try {
            const all = await members(group.name);
            if (this.group?.author === group.author) {
                this.all = all;
                this.show();
            }
        } catch (error) {
            this.seen = null;
            say(this.hint, error.message);
        }
    }

    show() {
        const wanted = this.field.value.trim().toLowerCase();
        const found = this.all.filter(({ shown }) => shown.toLowerCase().includes(wanted));
        this.field.parentElement.hidden = this.all.length < MANY;
        fill(this.list, found.slice(0, LISTED).map(row));
        const left = found.length - LISTED;
        say(this.hint, left > 0 ? `And ${left.toLocaleString()} more: a part of the name finds them.` : found.length === 0 && wanted !== "" ? "Nobody is called so." : "");
    }
}

function row({ shown, owner, me, spoke, author, devices = [] }) {
    const marks = [me && "this host", owner && "owner", devices.length > 1 && `${devices.length} devices`].filter(Boolean).join(", ");
    const said = spoke === undefined ? "has said nothing so far" : `spoke last ${WHEN.format(new Date(spoke))}`;
    return html("li", { title: `key ${author}` }, html("b", {}, shown.slice(0, LONGEST_NAME)), html("small", {}, [marks, said].filter(Boolean).join(" · ")));
}
