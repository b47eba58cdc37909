// A minute for newcomers to multicast: JOIN and PART, by doing it.

import { cities } from "./europe.js";

const city = (wanted) => cities.findIndex(({ name }) => name === wanted);

/** Longest time for a step, in milliseconds; those in which something moves end when it has come to rest. */
const LONGEST = 9000;

const STEPS = [
    {
        text: "Thirty routers. At the star, the root of the group Radio, senders and listeners meet.",
        // something moves within two seconds
        wait: 1800,
    },
    {
        text: "Lisbon sends a packet to Radio. Nobody listens, so the packet goes nowhere. Only a note goes to the root: somebody sends here.",
        act: (play) => play.send(city("Lisbon")),
        wait: 5500,
    },
    {
        text: "Oslo wants to listen. It says JOIN to the next router on the way to the root, and that one to the next. Each remembers who asked.",
        act: (play) => play.listen(city("Oslo")),
        wait: 5500,
    },
    {
        text: "Now Lisbon sends again. The packet goes where JOINs came from, and nowhere else.",
        act: (play) => play.send(city("Lisbon")),
        wait: 5000,
    },
    {
        text: "Athens, Helsinki and Dublin join. A JOIN ends where the tree already is: nobody has to be asked twice.",
        act: (play) => ["Athens", "Helsinki", "Dublin"].forEach((name) => play.listen(city(name))),
        wait: 6000,
    },
    {
        text: "One packet for all four. Lisbon sends it once; routers copy it where ways part.",
        act: (play) => play.send(city("Lisbon")),
        wait: 6000,
    },
    {
        text: "Oslo has heard enough: PART. Each router forgets what nobody needs, and tells the next: the branch goes with it.",
        act: (play) => play.leave(city("Oslo")),
        wait: 5000,
    },
    {
        text: "Lisbon sends once more. Nothing goes to Oslo.",
        act: (play) => play.send(city("Lisbon")),
        wait: 5000,
    },
    {
        text: "That was JOIN and PART. It is yours now: let others listen, start a stream, kill a router in the middle of it, cut a link.",
        wait: 6000,
    },
];

/** Runs the tour on the page; `play` does things, `quiet` returns whether nothing is under way. */
export class Tour {
    constructor(host, play, quiet, over) {
        Object.assign(this, { host, play, quiet, over, step: -1, done: -1 });
        host.querySelector(".back").addEventListener("click", () => this.show(this.step - 1));
        host.querySelector(".next").addEventListener("click", () => this.next());
        host.querySelector(".end").addEventListener("click", () => this.end());
    }

    begin() {
        this.done = -1;
        this.host.hidden = false;
        this.show(0);
    }

    next() {
        this.show(this.step + 1);
    }

    /** A step acts once: a user who has gone back reads it again. */
    show(number) {
        this.step = number;
        const step = STEPS[number];
        if (!step) {
            return this.end();
        }
        this.host.querySelector(".back").disabled = number === 0;
        this.since = performance.now();
        this.host.querySelector(".words").textContent = step.text;
        this.host.querySelector(".count").textContent = `${this.step + 1} of ${STEPS.length}`;
        this.host.querySelector(".next").textContent = this.step + 1 < STEPS.length ? "Next" : "Play";
        this.host.style.setProperty("--progress", (this.step + 1) / STEPS.length);
        if (number > this.done) {
            this.done = number;
            step.act?.(this.play);
        }
    }

    /** Time passes: is it time for the next step? */
    tick() {
        const step = STEPS[this.step];
        if (!step) {
            return;
        }
        const shown = performance.now() - this.since;
        // a user who has gone back reads on by hand
        if (this.step === this.done && shown > step.wait && (this.quiet() || shown > LONGEST)) {
            this.next();
        }
    }

    end() {
        if (!this.host.hidden) {
            this.step = STEPS.length;
            this.host.hidden = true;
            this.over();
        }
    }
}
