// Open invitations of a group, where this host is its owner.

import { invitations, withdraw } from "../common/feed.js";
import { fill, html, say } from "../common/html.js";
import { serve } from "./forms.js";

/** Longest time between two looks, in milliseconds: invitations expire, and a terminal makes and withdraws them, too. */
const LOOK_INTERVAL = 15_000;

const WHEN = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });

export class Invitations {
    /** `place`: an element that opens, with a list and words below it; `ended` takes the id of a withdrawn invitation. */
    constructor(place, ended) {
        const [list, hint] = ["ul", ".hint"].map((at) => place.querySelector(at));
        Object.assign(this, { place, list, hint, ended, group: null, seen: null, shown: null });
        place.addEventListener("toggle", () => this.look());
    }

    /** The group as it stands now, or none. */
    of(group) {
        if (group?.author !== this.group?.author) {
            this.seen = null;
            this.show([]);
        }
        this.group = group;
        this.place.hidden = group?.state !== "owner";
        this.look();
    }

    /** Asks where that is seen and somebody joined, some time has passed, or `anyway`. */
    async look(anyway = false) {
        const { group } = this;
        const now = group && [group.author, group.members, Math.floor(Date.now() / LOOK_INTERVAL)].join();
        if (!group || this.place.hidden || !this.place.open || (now === this.seen && !anyway)) {
            return;
        }
        this.seen = now;
        try {
            const open = await invitations(group.name);
            if (this.group?.author === group.author) {
                this.show(open);
            }
        } catch (error) {
            this.seen = null;
            say(this.hint, error.message);
        }
    }

    show(open) {
        say(this.hint, open.length > 0 ? "Whoever has such a line may still become a member. Withdraw one that went to the wrong person." : "");
        // a row that waits for its answer stays
        const now = JSON.stringify(open);
        if (now !== this.shown) {
            this.shown = now;
            fill(this.list, open.map((one) => this.row(one)));
        }
    }

    row({ id, left, expires }) {
        const whom = left === 1 ? "one person" : `${left} people`;
        const words = html("span", {}, `For ${whom}, until ${WHEN.format(new Date(expires))} `, html("small", {}, id));
        const button = html("button", { class: "copy", "aria-label": `Withdraw the invitation ${id}` }, "Withdraw");
        const form = html("form", {}, html("p", { class: "row" }, words, button), html("p", { class: "answer", role: "alert", hidden: "" }));
        serve(form, async () => {
            await withdraw(this.group.name, id);
            this.ended(id);
            await this.look(true);
            say(this.hint, "Withdrawn: nobody becomes a member by it any more.");
            (this.list.querySelector("button") ?? this.place.querySelector("summary")).focus();
        });
        return html("li", {}, form);
    }
}
