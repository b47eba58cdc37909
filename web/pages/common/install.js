// Installs these pages as a program where the browser offers that, and takes files of the share menu.

import { html } from "./html.js";

const footer = document.querySelector("footer");
/** Whether this page is a window of its own already. */
const isInstalled = matchMedia("(display-mode: standalone)").matches;

if (!isSecureContext) {
    footer?.append(html("p", {}, "On a phone or computer these pages can be installed as a program. That needs their https: address."));
} else if (navigator.serviceWorker) {
    // a browser may keep no store, as in a private window
    navigator.serviceWorker.register(new URL("../service-worker.js", import.meta.url)).catch(() => {});
}

addEventListener("beforeinstallprompt", (offer) => {
    offer.preventDefault();
    const button = html("button", { type: "button" }, "Install these pages as a program");
    button.addEventListener("click", () => {
        offer.prompt();
        button.parentNode.remove();
    });
    isInstalled || footer?.append(html("p", {}, button));
});

/** Files that another program has shared with this page; none without a share. */
export function shared() {
    const worker = navigator.serviceWorker?.controller;
    if (!worker) {
        return Promise.resolve([]);
    }
    return new Promise((done) => {
        navigator.serviceWorker.addEventListener("message", ({ data }) => data.shared && done(data.shared));
        navigator.serviceWorker.startMessages();
        worker.postMessage("shared");
    });
}
