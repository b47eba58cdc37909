// Groups that are known by name.

import { keptLinks } from "./links.js";

/** Groups that IANA has assigned, of any scope: the last 112 bits of ff0X::, as addresses write them. */
const ASSIGNED = {
    c: "devices (SSDP)",
    fb: "names of devices (mDNS)",
    fd: "sensors (CoAP)",
    101: "time (NTP)",
    181: "time (PTP)",
    "2:7ffe": "announced streams (SAP)",
};

/** Purpose of a group, where it is known. */
const purpose = (group) => ASSIGNED[/^ff0[0-9a-f]::(.+)$/.exec(group)?.[1]] ?? null;

/** Kinds of names of the server. */
const KINDS = {
    station: (name) => [name, "radio station"],
    copy: (name) => [`${name}, sent twice`, "the copy of a radio station for who loses packets"],
    unsigned: (name) => [name, "announced, but nobody signed that"],
    conversation: (name) => [name, "conversation"],
    answers: (name) => [`Answers to ${name}`, "lcagent"],
    session: (name) => [name, "lecture"],
};

/** A group's name and kind, from the server (`names`), an opened link of this browser, or IANA. */
export function called(group, names = {}) {
    const link = () => keptLinks().find(({ groups }) => groups?.includes(group));
    const { kind, name } = names[group] ?? link() ?? {};
    const [title, about] = KINDS[kind]?.(name.replaceAll("`", "'")) ?? [null, purpose(group)];
    return { title: title ?? short(group), about, isNamed: title !== null };
}

/** So many letters an address may have that is read as it is. */
const READABLE = 20;

/** A long address by its ends. */
export function short(group) {
    const parts = group.split(":");
    return group.length <= READABLE ? group : `${parts[0]}:${parts[1]}…${parts.at(-1)}`;
}

/** Groups of pages themselves: on this one stations announce themselves to all who look. */
const OWN = ["ff0e::2:7ffe"];
export const isOwn = (group) => OWN.includes(group);

/** An address as RFC 5952 writes it, and browsers in URLs; other text stays as it is. */
export function canonical(text) {
    try {
        return new URL(`http://[${text.trim()}]`).hostname.slice(1, -1);
    } catch {
        return text.trim();
    }
}
