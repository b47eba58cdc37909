// Reads aloud with the voices of this computer. It uses no voices on a server of the browser's maker: the text stays here.

/** So many lines of captions wait to be read; older ones are left out. */
const WAITING = 3;

export class Voice {
    constructor() {
        this.waiting = [];
        // some browsers find their voices only after they were asked for
        globalThis.speechSynthesis?.getVoices();
    }

    /** Why it cannot read this language; null if it can. */
    problem(language) {
        if (!globalThis.speechSynthesis) {
            return "This browser cannot read aloud.";
        }
        return this.find(language) ? null : "This computer has no voice of its own that reads this language.";
    }

    find(language) {
        const own = speechSynthesis.getVoices().filter((voice) => voice.localService);
        const main = (tag) => tag.toLowerCase().split(/[-_]/)[0];
        const fitting = own.filter(({ lang }) => !language || main(lang) === main(language));
        return fitting.find((voice) => voice.default) ?? fitting[0] ?? null;
    }

    /** A slide: reading of another one ends. */
    readAnew(text, language, rate) {
        this.stop();
        this.read(text, language, rate);
    }

    /** A line: after those before it. */
    read(text, language, rate) {
        const voice = globalThis.speechSynthesis && this.find(language);
        if (!voice || !text) {
            return;
        }
        this.waiting = [...this.waiting, { text, voice, rate }].slice(-WAITING);
        this.next();
    }

    next() {
        if (this.isReading || this.waiting.length === 0) {
            return;
        }
        const { text, voice, rate } = this.waiting.shift();
        const said = Object.assign(new SpeechSynthesisUtterance(text), { voice, lang: voice.lang, rate });
        const isOver = () => {
            // of another one, which was stopped
            if (this.said === said) {
                this.isReading = false;
                this.next();
            }
        };
        said.addEventListener("end", isOver);
        said.addEventListener("error", isOver);
        Object.assign(this, { isReading: true, said });
        speechSynthesis.speak(said);
    }

    stop() {
        Object.assign(this, { waiting: [], isReading: false, said: null });
        globalThis.speechSynthesis?.cancel();
    }
}
