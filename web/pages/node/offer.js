// What an invitation says, in words, before anybody uses it.

import { lead, texts } from "../common/door.js";
import { Module } from "./module.js";

const NEEDED = "You need an invitation: somebody of the network sends you a link, or a text that begins with lct1.";

let module = null;

/** A sentence about it; an error, if it cannot be used. */
async function offer(token) {
    module ??= Module.load();
    const { network, inviter, hosts, uses, not_after: until } = (await module).read(token);
    const plain = (text) => text.replaceAll("`", "'");
    const where = network ? `the network “${plain(network)}”` : `a network that meets at ${plain(hosts.join(", "))}`;
    const from = inviter ? `${plain(inviter)} invites you to ${where}` : `You are invited to ${where}`;
    const bound = uses === null ? "" : `, for ${uses === 1 ? "one node" : `${uses} nodes`}`;
    const date = new Date(until * 1000).toLocaleString([], { dateStyle: "medium", timeStyle: "short" });
    return `${from}. The invitation is good until ${date}${bound}.`;
}

/** What a door says of what was pasted into it: `{ found, words, isRefused }`, `found` as `lead` has it. */
export async function described(pasted) {
    const found = lead(pasted, false);
    const { token } = texts(pasted);
    if (!found || !token) {
        return { found, words: found?.words ?? NEEDED, isRefused: found !== null && !found.href };
    }
    try {
        const said = await offer(token);
        return { found, words: found.token ? said : `${found.words} ${said}`, isRefused: false };
    } catch (error) {
        return { found, words: error.message, isRefused: true };
    }
}
