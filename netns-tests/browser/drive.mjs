// Drives a browser for a test: commands come as lines of JSON on standard input, each is answered by a line on standard output.
//   node drive.mjs MODULES chromium|firefox PROFILE [light|dark [MICROPHONE.wav|device|-]]
// MODULES has node_modules, PROFILE is where the browser keeps what it keeps, a microphone hears the file, what the sound server
// has, or -, a tone; with a file and - there is a camera. Lines: {"do": "open", "tab": "a", ...}; answers:
// {"value": ...} or {"error": "..."}.

import { readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const [modules, name, profile, theme = "light", microphone] = process.argv.slice(2);
const hasDevice = microphone === "device";
const require = createRequire(`${modules}/`);
const puppeteer = require("puppeteer-core");
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");

/** Longest wait for a page to load, and for an answer of the browser, in milliseconds. */
const PATIENCE = 60_000;
/** Between two looks for what is waited for, in milliseconds. */
const LOOK = 20;
/** Of contrasts and names, not of habits. */
const GRAVE = ["serious", "critical"];

const BROWSERS = {
    chromium: {
        browser: "chrome",
        executablePath: "/usr/bin/chromium",
        pipe: true,
        userDataDir: profile,
        // all of it runs as root in namespaces of the tests, and looks for nothing outside
        args: [
            ...["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-dev-shm-usage"],
            ...(microphone ? ["--use-fake-ui-for-media-stream"] : []),
            ...(microphone && !hasDevice ? ["--use-fake-device-for-media-stream"] : []),
            ...(microphone && !hasDevice && microphone !== "-" ? [`--use-file-for-fake-audio-capture=${microphone}`] : []),
        ],
        // a tab in the background is to be treated as one
        ignoreDefaultArgs: [...(hasDevice ? ["--mute-audio"] : []), "--disable-background-timer-throttling", "--disable-backgrounding-occluded-windows", "--disable-renderer-backgrounding"],
    },
    firefox: {
        browser: "firefox",
        executablePath: "/usr/bin/firefox-esr",
        userDataDir: profile,
        extraPrefsFirefox: {
            "layout.css.prefers-color-scheme.content-override": theme === "dark" ? 0 : 1,
            // sound of the tab's own process: its broker's thread and PulseAudio's wait for each other now and then
            "media.cubeb.sandbox": false,
            "security.sandbox.content.level": 0,
            ...(microphone && { "media.navigator.streams.fake": !hasDevice, "media.navigator.permission.disabled": true }),
        },
    },
};

const browser = await puppeteer.launch({ headless: true, protocolTimeout: PATIENCE, ...BROWSERS[name] });
const tabs = new Map();
/** What no test asks for one by one: errors of all tabs, and every address that was asked for something. */
const seen = { errors: [], requests: [] };

async function open({ tab, url }) {
    const page = tabs.get(tab) ?? (await newTab(tab));
    await page.goto(url, { waitUntil: "load", timeout: PATIENCE });
}

async function newTab(tab) {
    const page = await browser.newPage();
    tabs.set(tab, page);
    await page.setViewport({ width: 1280, height: 900 });
    page.on("console", (message) => message.type() === "error" && seen.errors.push(`${message.text()} (${message.location().url ?? ""})`));
    page.on("pageerror", (error) => seen.errors.push(String(error.stack ?? error)));
    page.on("request", (request) => seen.requests.push(request.url()));
    if (name === "chromium") {
        await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: theme }]);
    }
    return page;
}

/** A new tab, in whose pages this runs before what they bring. */
async function prepare({ tab, js }) {
    await (await newTab(tab)).evaluateOnNewDocument(js);
}

/** Nobody writes into a tab that is not seen. */
async function inFront(tab) {
    const page = tabs.get(tab);
    await page.bringToFront();
    return page;
}

/** Until an expression is true, or what it is then: its value, and how many milliseconds that took. */
async function until({ tab, js, ms }) {
    const begun = performance.now();
    for (;;) {
        const value = await tabs.get(tab).evaluate(js).catch(unlessItLeaves);
        const took = performance.now() - begun;
        if (value || took > ms) {
            return { value, took };
        }
        await new Promise((done) => setTimeout(done, LOOK));
    }
}

/** A page that is on its way to another one answers nothing. */
function unlessItLeaves(error) {
    if (!/context was destroyed|find context|navigat|no such frame|realm|detached/i.test(error.message)) {
        throw error;
    }
}

/** What axe-core finds to be a grave hindrance. */
async function hindrances({ tab }) {
    const page = tabs.get(tab);
    await page.evaluate(axe);
    const found = await page.evaluate(async () => (await globalThis.axe.run(document, { resultTypes: ["violations"] })).violations);
    return found
        .filter(({ impact }) => GRAVE.includes(impact))
        .map(({ id, help, nodes }) => `${id}: ${help}: ${nodes.map((node) => `${node.target.join(" ")} (${node.failureSummary?.replace(/\s+/g, " ")})`).join("; ")}`);
}

/** What the system asks for, beside the theme (Chromium); as long as the tab is told. */
async function media({ tab, features }) {
    await asked?.detach();
    asked = await tabs.get(tab).createCDPSession();
    await asked.send("Emulation.setEmulatedMedia", { features });
}
let asked = null;

const commands = {
    open,
    prepare,
    until,
    hindrances,
    eval: ({ tab, js }) => tabs.get(tab).evaluate(js),
    click: async ({ tab, at }) => (await inFront(tab)).locator(at).setTimeout(PATIENCE).click(),
    type: async ({ tab, at, text }) => (await inFront(tab)).type(at, text),
    upload: async ({ tab, at, file }) => (await tabs.get(tab).$(at)).uploadFile(file),
    front: ({ tab }) => inFront(tab).then(() => null),
    press: ({ tab, key }) => tabs.get(tab).keyboard.press(key),
    down: ({ tab, key }) => tabs.get(tab).keyboard.down(key),
    up: ({ tab, key }) => tabs.get(tab).keyboard.up(key),
    size: ({ tab, width, height }) => tabs.get(tab).setViewport({ width, height }),
    media,
    reload: async ({ tab }) => void (await tabs.get(tab).reload({ timeout: PATIENCE })),
    shot: async ({ tab, path }) => writeFileSync(path, await tabs.get(tab).screenshot({ fullPage: true })),
    seen: () => seen,
    close: ({ tab }) => tabs.get(tab).close(),
};

const answer = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);
answer({ value: await browser.version() });
for await (const line of createInterface({ input: process.stdin })) {
    const { do: what, ...rest } = JSON.parse(line);
    try {
        answer({ value: (await commands[what](rest)) ?? null });
    } catch (error) {
        answer({ error: `${what} ${JSON.stringify(rest).slice(0, 200)}: ${error.message}` });
    }
}
await browser.close();
