// The server's feed while the page is open: lines of JSON, empty ones if nothing is new.

/** Longest line that is looked at, in characters. */
const LONGEST = 16 << 20;
/** How long no line may come, in milliseconds. */
const SILENCE = 6000;

/** Behind the `#` of the address: it never leaves the page but in this header. */
const headers = () => ({ Authorization: `Bearer ${location.hash.slice(1)}` });

const NO_KEY = "This address has no key, or an old one. Open the address that `lcroute web --open` prints.";

/** This address has no key, or a wrong one. */
export class NoKey extends Error {}

/** Calls `look` with each line of `path`, and `trouble` with an error if there are none, until `signal` aborts. */
export async function follow(path, look, trouble, signal) {
    for (let wait = 1000; !signal?.aborted; wait = Math.min(wait * 1.7, 10_000)) {
        try {
            await read(path, look, () => (wait = 1000), signal);
            trouble(new Error("The server of these pages has ended. Trying again."));
        } catch (error) {
            if (signal?.aborted) {
                return;
            }
            trouble(error);
        }
        await new Promise((done) => setTimeout(done, wait));
    }
}

async function read(path, look, works, signal) {
    const stop = new AbortController();
    signal?.addEventListener("abort", () => stop.abort());
    let watch = setTimeout(() => stop.abort(), SILENCE);
    try {
        const answer = await ask(path, stop.signal);
        const text = answer.body.pipeThrough(new TextDecoderStream()).getReader();
        let rest = "";
        for (;;) {
            const { done, value } = await text.read();
            if (done) {
                return;
            }
            clearTimeout(watch);
            watch = setTimeout(() => stop.abort(), SILENCE);
            const lines = (rest + value).split("\n");
            rest = lines.pop();
            if (rest.length > LONGEST) {
                throw new Error("A line of the server is too long.");
            }
            for (const line of lines) {
                works();
                if (line) {
                    look(JSON.parse(line));
                }
            }
        }
    } catch (error) {
        throw error.name === "AbortError" ? new Error("No news for some seconds. Trying again.") : error;
    } finally {
        clearTimeout(watch);
        stop.abort();
    }
}

async function ask(path, signal, more = {}) {
    if (location.hash.length < 2) {
        throw new NoKey(NO_KEY);
    }
    let answer;
    try {
        answer = await fetch(path, { headers: headers(), cache: "no-store", signal, ...more });
    } catch (error) {
        throw error.name === "AbortError" ? error : new Error("The server of these pages does not answer. Is `lcroute web` running?");
    }
    if (answer.status === 401) {
        throw new NoKey(NO_KEY);
    }
    if (!answer.ok) {
        throw new Error((await answer.text()).slice(0, 300));
    }
    return answer;
}

/** Findings of `lcroute doctor`. */
export async function checks() {
    const answer = await ask("/api/doctor");
    return (await answer.json()).checks;
}

/** Requests a token by an issuer's code, with the link of a page that takes it. */
export async function invite(wanted) {
    const answer = await ask("/api/invite", undefined, { method: "POST", body: JSON.stringify(wanted) });
    return answer.json();
}

/** Groups of people on this host. */
export async function groups() {
    const answer = await ask("/api/groups");
    return answer.json();
}

/** Makes one, or asks to join one: the name by which this host calls it. */
export async function addGroup(wanted) {
    const answer = await ask("/api/groups", undefined, { method: "POST", body: JSON.stringify(wanted) });
    return (await answer.json()).name;
}

/** Sends a message to a conversation. */
export async function say(group, words) {
    await ask(`/api/groups/${group}`, undefined, { method: "POST", body: words });
}

/** Sends a file to a conversation, once lcgroup has all of it. */
export async function sendFile(group, file) {
    // a header has no letters but those of ASCII
    const name = JSON.stringify(file.name).replace(/[^ -~]/g, (letter) => `\\u${letter.charCodeAt(0).toString(16).padStart(4, "0")}`);
    await ask(`/api/groups/${group}/files`, undefined, { method: "POST", body: file, headers: { ...headers(), "X-File-Name": name } });
}

/** The file of a message: its bytes, or the reason for a wait. */
export async function fetchFile(group, n) {
    const answer = await ask(`/api/groups/${group}/files/${n}`);
    return answer.status === 202 ? { waits: await answer.json() } : { bytes: await answer.arrayBuffer() };
}

/** Begins a call with a conversation: its text. */
export async function callGroup(group) {
    const answer = await ask(`/api/groups/${group}/call`, undefined, { method: "POST" });
    return (await answer.json()).call;
}

/** All messages of a conversation up to this number were read: the member's other devices learn it. */
export async function tellRead(group, number) {
    await ask(`/api/groups/${group}/read`, undefined, { method: "POST", body: String(number) });
}

/** Members of a conversation. */
export async function members(group) {
    const answer = await ask(`/api/groups/${group}/members`);
    return answer.json();
}

/** One that somebody waits to become a member of, which asks its owner more often then; and the interfaces in use. */
export async function waitFor(group) {
    const answer = await ask(`/api/groups/${group}/wait`);
    return answer.json();
}

/** A line by which so many join, its id, its QR code, and when it ends. */
export async function inviteTo(group, wanted) {
    const answer = await ask(`/api/groups/${group}/invitation`, undefined, { method: "POST", body: JSON.stringify(wanted) });
    return answer.json();
}

/** Invitations of this host that others may still use. */
export async function invitations(group) {
    const answer = await ask(`/api/groups/${group}/invitations`);
    return answer.json();
}

/** Nobody becomes a member by this invitation any more. */
export async function withdraw(group, id) {
    await ask(`/api/groups/${group}/withdraw`, undefined, { method: "POST", body: id });
}
