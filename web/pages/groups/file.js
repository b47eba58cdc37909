// The file of a message: a card that saves it, and shows a small picture. Others made it, so nothing but pictures of these kinds is shown.

import { fetchFile } from "../common/feed.js";
import { html, say } from "../common/html.js";

/** Between two looks whether a file is here, in milliseconds. */
const AGAIN = 1000;
/** Longest file that is fetched to be shown without a click, in bytes. Chosen: photographs of chats. */
const MAX_SHOWN = 2 << 20;
/** Most pixels of a picture that is shown. Chosen: 100 MB once it is decoded. */
const MAX_PIXELS = 25e6;
/** Pictures that are shown at a time; the oldest gives way. */
const MOST_SHOWN = 20;
const IS_PICTURE = /\.(png|jpe?g|gif)$/i;

const shown = [];
/** A picture is fetched once somebody looks at its place. */
const seen = new IntersectionObserver((all) => {
    for (const { isIntersecting, target } of all) {
        if (isIntersecting) {
            seen.unobserve(target);
            target.dispatchEvent(new Event("seen"));
        }
    }
});

/** `name` and `length` are the sender's. */
export function fileCard(group, n, { name, length }) {
    const save = html("button", { type: "button", class: "copy", "aria-label": `Save ${name}` }, "Save");
    const hint = html("span", { class: "hint", role: "status" });
    const row = html("div", { class: "row" }, html("b", {}, name), html("small", {}, size(length)), save, hint);
    const card = html("div", { class: "said file", dir: "auto" }, row);
    let coming = null;
    const fetched = () => (coming ??= bytesOf(card, hint, { group, n, length }).finally(() => (coming = null)));
    save.addEventListener("click", () => attempt(hint, async () => saveAs(name, await fetched())));
    if (IS_PICTURE.test(name) && length <= MAX_SHOWN) {
        card.addEventListener("seen", () => attempt(hint, async () => show(card, name, await fetched())));
        seen.observe(card);
    }
    return card;
}

function size(length) {
    return length < 1e6 ? `${Math.ceil(length / 1e3)} kB` : `${(length / 1e6).toFixed(1)} MB`;
}

async function attempt(hint, does) {
    try {
        await does();
        say(hint, "");
    } catch (error) {
        say(hint, error.message.replaceAll("`", "'"));
    }
}

/** Waits for it as long as its card is there. */
async function bytesOf(card, hint, { group, n, length }) {
    say(hint, "Fetching…");
    while (card.isConnected) {
        const { bytes, waits } = await fetchFile(group, n);
        if (bytes) {
            if (bytes.byteLength !== length) {
                throw new Error("It came damaged: try again.");
            }
            return bytes;
        }
        if (waits?.is_problem) {
            throw new Error(waits.why);
        }
        say(hint, (waits?.why ?? "Fetching…").replaceAll("`", "'"));
        await new Promise((done) => setTimeout(done, AGAIN));
    }
    throw new Error("Not fetched.");
}

/** Never opened here, whatever it is. */
function saveAs(name, bytes) {
    const url = URL.createObjectURL(new Blob([bytes], { type: "application/octet-stream" }));
    html("a", { href: url, download: name }).click();
    setTimeout(() => URL.revokeObjectURL(url), AGAIN);
}

function show(card, name, bytes) {
    const picture = pictureOf(new DataView(bytes));
    if (!picture || picture.width * picture.height > MAX_PIXELS || !card.isConnected) {
        return;
    }
    const url = URL.createObjectURL(new Blob([bytes], { type: picture.type }));
    const image = html("img", { src: url, alt: name, width: picture.width, height: picture.height });
    image.addEventListener("error", () => image.remove());
    card.append(image);
    card.dispatchEvent(new Event("grown", { bubbles: true }));
    shown.push({ image, url });
    if (shown.length > MOST_SHOWN) {
        const oldest = shown.shift();
        oldest.image.remove();
        URL.revokeObjectURL(oldest.url);
    }
}

/** Kind and size by the first bytes, whatever the name says; null: none of these kinds. */
function pictureOf(view) {
    const begins = (...bytes) => view.byteLength > 24 && bytes.every((byte, at) => view.getUint8(at) === byte);
    if (begins(0x89, 0x50, 0x4e, 0x47)) {
        return { type: "image/png", width: view.getUint32(16), height: view.getUint32(20) };
    }
    if (begins(0x47, 0x49, 0x46, 0x38)) {
        return { type: "image/gif", width: view.getUint16(6, true), height: view.getUint16(8, true) };
    }
    return begins(0xff, 0xd8, 0xff) ? jpeg(view) : null;
}

/** The size is in the first frame header (ITU-T T.81, B.2.2): C0 to CF, without three that are none. */
function jpeg(view) {
    for (let at = 2; at + 9 < view.byteLength && view.getUint8(at) === 0xff; at += 2 + view.getUint16(at + 2)) {
        const marker = view.getUint8(at + 1);
        if (marker >= 0xc0 && marker <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(marker)) {
            return { type: "image/jpeg", width: view.getUint16(at + 7), height: view.getUint16(at + 5) };
        }
    }
    return null;
}
