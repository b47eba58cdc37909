// The lock screen, and keys of a headset: the title of the sound, and its end.

/** Of all sound of these pages. */
const ARTWORK = [{ src: new URL("../icon.svg", import.meta.url).href, sizes: "any", type: "image/svg+xml" }];

/** `actions`: by their names, as in "stop". */
export function onMediaKeys(actions) {
    for (const [name, action] of Object.entries(actions)) {
        try {
            navigator.mediaSession?.setActionHandler(name, action);
        } catch {
            // a browser that knows no such key
        }
    }
}

/** `playing`: "playing", "paused" or "none"; without a title nothing is shown. */
export function showMedia(playing, title, artist = "") {
    const session = navigator.mediaSession;
    if (!session) {
        return;
    }
    session.playbackState = playing;
    if ((session.metadata?.title ?? "") !== title || (session.metadata?.artist ?? "") !== artist) {
        session.metadata = title ? new MediaMetadata({ title, artist, artwork: ARTWORK }) : null;
    }
}
