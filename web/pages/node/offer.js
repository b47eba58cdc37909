// The meaning of an invitation in words, before it is used.

import { lead, texts } from "../common/door.js";
import { Module } from "./module.js";

const NEEDED = "You need an invitation: somebody of the network sends you a link, or a text that begins with lct1.";

let module = null;

/** A sentence about it, whether it is for leaves, and how many may use it; an error, if it cannot be used. */
async function offer(token) {
    module ??= Module.load();
    const { network, inviter, hosts, uses, not_after: until, leaf, uplink } = (await module).read(token);
    const plain = (text) => text.replaceAll("`", "'");
    const where = network ? `the network “${plain(network)}”` : `a network that meets at ${plain(hosts.join(", "))}`;
    const to = leaf ? `listen to ${where}` : where;
    const from = inviter ? `${plain(inviter)} invites you to ${to}` : `You are invited to ${to}`;
    const bound = uses === null ? "" : `, for ${uses === 1 ? "one node" : `${uses} nodes`}`;
    const date = new Date(until * 1000).toLocaleString([], { dateStyle: "medium", timeStyle: "short" });
    const can = uplink ? "listen, and ask: it cannot send anything else" : "only listen: it cannot send or ask";
    const only = leaf ? ` This tab will ${can}, and nobody sees it.` : "";
    return { uses, network, words: `${from}. The invitation is good until ${date}${bound}.${only}`, isLeaf: leaf };
}

/** The text of a door about pasted text: `{ found, words, isRefused, isLeaf, uses, network }`, `found` as `lead` has it. */
export async function described(pasted) {
    const found = lead(pasted, false);
    const { token } = texts(pasted);
    if (!found || !token) {
        return { found, words: found?.words ?? NEEDED, isRefused: found !== null && !found.href };
    }
    try {
        const { words: said, isLeaf, uses, network } = await offer(token);
        return { found, words: found.token ? said : `${found.words} ${said}`, isRefused: false, isLeaf, uses, network };
    } catch (error) {
        return { found, words: error.message, isRefused: true };
    }
}
