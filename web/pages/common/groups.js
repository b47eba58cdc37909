// Groups that are known by name.

/** What IANA has assigned, of any scope: the last 112 bits of ff0X::, as addresses write them. */
const ASSIGNED = {
    c: "devices (SSDP)",
    fb: "names of devices (mDNS)",
    fd: "sensors (CoAP)",
    101: "time (NTP)",
    181: "time (PTP)",
    "2:7ffe": "announced streams (SAP)",
};

/** Of a group, what it is for, where that is known. */
export const purpose = (group) => ASSIGNED[/^ff0[0-9a-f]::(.+)$/.exec(group)?.[1]] ?? null;

/** An address as RFC 5952 writes it, which is how browsers write addresses in URLs; what is none stays as it is. */
export function canonical(text) {
    try {
        return new URL(`http://[${text.trim()}]`).hostname.slice(1, -1);
    } catch {
        return text.trim();
    }
}
