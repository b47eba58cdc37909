// All forms of the pages: Enter sends them, and the first field to be filled has the focus.

/** The focus would bring up a keyboard on the screen. */
const isTouched = matchMedia("(pointer: coarse)").matches;

/** Enter sends a form from fields of several lines, too: texts that are pasted there are one line. Shift and Enter begins another. */
export function sendByEnter(form) {
    form.addEventListener("keydown", (event) => {
        if (event.key === "Enter" && !event.shiftKey && !event.isComposing && event.target.matches("textarea")) {
            event.preventDefault();
            form.requestSubmit();
        }
    });
}

/** Focuses the first empty, required field in view, else the form's button; a user who is somewhere else stays there. */
export function focusFirst(host) {
    const { activeElement } = document;
    if (isTouched || (activeElement !== document.body && activeElement?.checkVisibility())) {
        return;
    }
    const isIn = (element) => !element.disabled && element.checkVisibility() && !element.value.trim();
    const needed = [...host.querySelectorAll(":is(input, textarea):required")].find(isIn);
    const first = needed ?? [...host.querySelectorAll("button.primary, button.listen, button:not([type=button])")].find((button) => !button.disabled && button.checkVisibility());
    first?.focus({ preventScroll: true });
}
