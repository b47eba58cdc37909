// A link to be handed on: it can be read and marked, copied, scanned, and given to the device's share sheet. It stays in this page.

import { copier, fill, html } from "./html.js";
import { showQr } from "./qr.js";
import { encode } from "./qr-code.js";

export class Share {
    /** `host`: an empty place; `label`: what the link is, as a whole phrase. */
    constructor(host, label) {
        this.host = host;
        this.field = html("input", { readonly: "", "aria-label": label, spellcheck: "false" });
        this.field.addEventListener("focus", () => this.field.select());
        this.copy = copier("", "Copy link");
        const sheet = html("button", { type: "button", class: "copy" }, "Share");
        sheet.hidden = !navigator.share;
        // a user who closes the sheet has chosen
        sheet.addEventListener("click", () => navigator.share({ url: this.value }).catch(() => {}));
        this.code = html("details", {}, html("summary", {}, "QR code"), html("div"));
        // a phone does not scan its own screen
        this.code.open = matchMedia("(min-width: 701px)").matches;
        this.code.addEventListener("toggle", () => this.draw());
        host.classList.add("share");
        fill(host, [this.field, this.copy, sheet, this.code]);
    }

    get value() {
        return this.copy.value;
    }

    set value(link) {
        if (this.value !== link) {
            this.copy.value = this.field.value = link;
            this.draw();
        }
    }

    set hidden(isHidden) {
        this.host.hidden = isHidden;
    }

    draw() {
        if (this.value && this.code.open && this.drawn !== this.value) {
            this.drawn = this.value;
            const rows = encode(this.value);
            fill(this.code.lastChild, [rows ? showQr(rows) : html("p", { class: "hint" }, "The link is too long for a QR code.")]);
        }
    }
}
