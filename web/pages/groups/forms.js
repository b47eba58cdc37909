// Forms that send lcgroup one request at a time; each shows its wait and its fault beside it.

import { say } from "../common/html.js";

/** Longest wait without a word, in milliseconds. Chosen: people do not wonder yet. */
export const SILENCE = 1500;

/** `does` asks; `form` has a button, and a place (`.answer`) for words. */
export function serve(form, does) {
    const [button, answer] = ["button:not([type=button])", ".answer"].map((at) => form.querySelector(at));
    form.addEventListener("submit", async (event) => {
        event.preventDefault();
        if (button.disabled) {
            return;
        }
        button.disabled = true;
        tell(answer, "");
        const slow = setTimeout(() => tell(answer, "Waits for lcgroup, which has not answered yet: is it stopped, or its disk slow?", false), SILENCE);
        try {
            await does();
            clearTimeout(slow);
            tell(answer, "");
        } catch (error) {
            clearTimeout(slow);
            tell(answer, sentence(error.message));
        } finally {
            button.disabled = false;
        }
    });
}

function tell(answer, words, isProblem = true) {
    answer.hidden = words === "";
    answer.className = `answer ${isProblem ? "problem" : "notice"}`;
    say(answer, words);
}

/** With a capital letter, unless a program's name begins it. */
export const sentence = (words) => words.trim().replace(/^(?!lc)\p{Ll}/u, (first) => first.toUpperCase());
