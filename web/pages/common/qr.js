// QR codes, drawn from rows of 0 and 1.

import { element } from "./html.js";

/** Light modules around a code (ISO/IEC 18004, 9.1). */
const QUIET = 4;

export function showQr(rows, label = "QR code of the link") {
    const side = rows.length + 2 * QUIET;
    const dark = rows.flatMap((row, y) => [...row].flatMap((module, x) => (module === "1" ? [`M${x + QUIET} ${y + QUIET}h1v1h-1z`] : [])));
    const code = element("path", { d: dark.join("") });
    return element("svg", { class: "qr", viewBox: `0 0 ${side} ${side}`, role: "img", "aria-label": label, "shape-rendering": "crispEdges" }, code);
}
