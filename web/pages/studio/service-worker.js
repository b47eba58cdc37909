// The page of lectures opens without a network: its files are stored once notes were opened, and are used while the host that
// serves them does not answer. New files replace the stored ones.

const CACHE = "lcroute studio";
/** A host that does not answer for so long is away, in milliseconds. */
const HINT_AFTER = 2000;
/** And is not asked again for so long. */
const AWAY = 10_000;

let awayUntil = 0;

addEventListener("install", () => skipWaiting());
addEventListener("activate", (event) => event.waitUntil(clients.claim()));
addEventListener("message", (event) => event.waitUntil(keep(event.data.keep)));
addEventListener("fetch", (event) => {
    const { request } = event;
    const { origin, pathname } = new URL(request.url);
    if (request.method === "GET" && origin === location.origin && !pathname.startsWith("/api/")) {
        event.respondWith(answer(request));
    }
});

async function keep(urls) {
    const cache = await caches.open(CACHE);
    await Promise.allSettled(urls.map((url) => cache.add(url)));
}

async function answer(request) {
    // some browsers refuse a store to some addresses
    const cache = await caches.open(CACHE).catch(() => null);
    const kept = await cache?.match(request, { ignoreSearch: true, ignoreVary: true });
    if (!kept) {
        return fetch(request);
    }
    if (Date.now() < awayUntil) {
        return kept;
    }
    const late = new Promise((done) => setTimeout(() => done(null), HINT_AFTER));
    const fresh = await Promise.race([fetch(request).catch(() => null), late]);
    if (!fresh) {
        awayUntil = Date.now() + AWAY;
        return kept;
    }
    if (fresh.ok && !fresh.redirected) {
        await cache.put(request, fresh.clone());
    }
    return fresh;
}
