// Pages that are installed open while the host that serves them is away, and the share menu of a phone leads to the page that sends.
// Stored are files of the pages alone: the server gives them a hash as their entity tag, and data none. A new hash replaces the file.

const CACHE = "lcroute pages";
/** A host that does not answer for so long is away, in milliseconds. */
const AWAY = 3000;
/** How long shared files wait for the page, in milliseconds. Chosen: longer than a page loads. */
const WAIT = 60_000;

/** Files that the share menu has passed, until the page asks for them. */
let shared = [];

addEventListener("install", () => skipWaiting());
addEventListener("activate", (event) => event.waitUntil(clients.claim()));
addEventListener("message", (event) => {
    if (event.data === "shared") {
        event.source.postMessage({ shared });
        shared = [];
    }
});
addEventListener("fetch", (event) => {
    const { request } = event;
    const { origin, pathname } = new URL(request.url);
    const isOwn = origin === location.origin && !pathname.startsWith("/api/");
    if (isOwn && request.method === "POST" && pathname === "/send/") {
        event.respondWith(take(request));
    } else if (isOwn && request.method === "GET") {
        event.respondWith(answer(request, event));
    }
});

/** The page asks for the files once it is loaded. */
async function take(request) {
    const form = await request.formData();
    shared = form.getAll("files").filter((file) => file instanceof File);
    setTimeout(() => (shared = []), WAIT);
    return Response.redirect("/send/", 303);
}

async function answer(request, event) {
    // some browsers refuse a store to some addresses
    const cache = await caches.open(CACHE).catch(() => null);
    const kept = await cache?.match(request, { ignoreSearch: true, ignoreVary: true });
    if (!kept) {
        const fresh = await fetch(request);
        event.waitUntil(keep(cache, request, fresh.clone()));
        return fresh;
    }
    const late = new Promise((done) => setTimeout(() => done(null), AWAY));
    const fresh = await Promise.race([fetch(request).catch(() => null), late]);
    if (!fresh) {
        return kept;
    }
    if (fresh.headers.get("etag") !== kept.headers.get("etag")) {
        event.waitUntil(keep(cache, request, fresh.clone()));
    }
    return fresh;
}

/** Stores a file under its address, without words behind a "?" or "#". */
async function keep(cache, request, fresh) {
    const { origin, pathname } = new URL(request.url);
    if (cache && fresh.ok && !fresh.redirected && fresh.headers.has("etag")) {
        // without room the file is not stored
        await cache.put(origin + pathname, fresh).catch(() => {});
    }
}
