// The member or leaf of this page: runs the node, keeps its WebSockets and connections, and reports events to the page.

import { isOwn } from "../common/groups.js";
import { Connection, GATHER } from "./connection.js";
import { takesTracks } from "./lane.js";
import { Module } from "./module.js";

/** How often peers are looked at, in milliseconds: a host that does not answer shows within two seconds. */
const LOOK = 250;
/** First and longest pause before a server is connected to again, in milliseconds. */
const BACKOFF = [500, 5000];
/** A server that has not answered by then is tried anew, in milliseconds. */
const CONNECT = 10_000;
/** How long a direct path has to show, in milliseconds. */
const DIRECT_TIMEOUT = 2500;
/** A link whose queue was filled within this time is in use, in milliseconds. */
const IN_USE = 250;
const decoder = new TextDecoder();

export class Member {
    /** `start`: as web/node takes it; `hear.datagram` (`bytes`: as the module has it), `hear.sealed`, `hear.keep`: events for the page. */
    static async begin(start, hear) {
        const member = new Member(await Module.load(), hear);
        member.open(start);
        return member;
    }

    constructor(module, hear) {
        this.module = module;
        this.hear = hear;
        this.connections = new Map();
        this.relays = new Map();
        /** Whether servers are needed: a leaf leaves them once it has its links. */
        this.meets = true;
        this.turns = new MessageChannel();
        this.turns.port1.addEventListener("message", () => this.run());
        this.turns.port1.start();
        this.tell = Object.fromEntries(["described", "candidate", "opened", "message", "track", "waiting", "ended", "otherControl"].map((name) => [name, (...all) => this.into(name, ...all)]));
    }

    open(start) {
        this.servers = this.module.open({ ...start, tracks: takesTracks() }).map((url) => ({ url, pause: BACKOFF[0], socket: null }));
        /** It only listens: it sends nothing, and knows no other node but its routers. */
        this.isLeaf = this.module.status().leaf === true;
        this.servers.forEach((_, number) => this.connect(number));
        this.probed = this.probe();
        this.looking = setInterval(() => this.lookAtPeers(), LOOK);
        this.run();
    }

    /** Sends a goodbye, and ends. */
    end() {
        this.ended = true;
        this.module.leaveNetwork();
        this.execute();
        clearInterval(this.looking);
        clearTimeout(this.timer);
        this.turns.port1.close();
        this.servers.forEach(({ socket }) => socket?.close());
        this.connections.forEach((connection) => connection.close());
        this.connections.clear();
    }

    join(group) {
        try {
            this.into("join", group);
        } catch (error) {
            // a leaf's token need not cover the groups that pages join by themselves
            if (!this.isLeaf || !isOwn(group)) {
                throw error;
            }
            this.hearsNoList = true;
        }
    }

    leave(group) {
        this.into("leave", group);
    }

    send(group, port, bytes) {
        this.into("send", group, port, bytes);
    }

    /** Passes a query of MLD from a module that serves groups. */
    query(packet) {
        this.into("query", packet);
    }

    /** Bytes that links still take, of `most`: the emptiest link in use counts, as receivers behind slower ones ask for less. */
    room(most) {
        const recent = performance.now() - IN_USE;
        const used = [...this.connections.values()].filter(({ filledAt }) => filledAt > recent);
        return used.length === 0 ? most : most - Math.min(most, ...used.map(({ out }) => out.bufferedAmount));
    }

    /** The reason why no server answers, if one gives it. */
    problem() {
        return this.servers.find((server) => server.problem)?.problem;
    }

    /** Known facts about a server that does not answer. */
    state(number) {
        const { problem, isSilent } = this.servers[number];
        return problem ?? (isSilent ? "does not answer" : "connecting");
    }

    look(looks) {
        this.into("look", looks);
    }

    status() {
        const status = this.module.status();
        this.execute();
        // before each server had its time, nobody knows that none answers
        status.isAsking = this.servers.some(({ problem, isSilent }) => !problem && !isSilent);
        return status;
    }

    /** Passes an event to the node, and executes the results. */
    into(name, ...all) {
        if (this.ended) {
            return;
        }
        this.module[name](...all);
        this.execute();
        // the event may have made a timer due sooner
        if (!this.due) {
            this.due = true;
            queueMicrotask(() => this.run());
        }
    }

    run() {
        this.due = false;
        if (this.ended) {
            return;
        }
        clearTimeout(this.timer);
        const pause = this.module.run();
        this.execute();
        if (pause <= 0 && !this.turned) {
            // behind waiting events, but not a second later, as timers of a hidden tab
            this.turned = true;
            this.turns.port2.postMessage(null);
            return;
        }
        this.turned = false;
        this.timer = setTimeout(() => this.run(), Math.min(Math.max(pause, 1), 1000));
    }

    execute() {
        for (let command = this.module.poll(); command; command = this.module.poll()) {
            const [kind, number, bytes] = command;
            this[kind](number, bytes);
        }
        for (const connection of this.connections.values()) {
            if (connection.sent) {
                connection.tellWaiting();
            }
        }
    }

    // --- connections ---

    async begin(link, how) {
        const connection = new Connection(link, this.tell);
        this.connections.set(link, connection);
        await this.probed;
        if (connection.ended) {
            return;
        }
        connection.hasRelay = this.needsRelay && this.relays.size > 0;
        connection.start(this.iceServers());
        setTimeout(() => this.seekRelay(connection), DIRECT_TIMEOUT);
        await how(connection).catch(() => connection.end("begin"));
    }

    /** If no server reports this page's address, UDP does not get through. */
    async probe() {
        const probe = new Connection(null, { described: (_, sdp) => (this.needsRelay ||= !sdp.includes(" typ srflx")) });
        probe.wait = GATHER;
        probe.start(this.iceServers());
        await probe.offer().catch(() => {});
        probe.close();
    }

    /** An attempt that finds no path begins anew, with the relay. */
    seekRelay(connection) {
        if (!connection.opened && !connection.ended && !connection.hasRelay && this.relays.size > 0) {
            this.needsRelay = true;
            this.into("outdated", connection.link);
        }
    }

    offer(link) {
        this.begin(link, (connection) => connection.offer());
    }

    answer(link, sdp) {
        this.begin(link, (connection) => connection.answer(decoder.decode(sdp)));
    }

    accept(link, sdp) {
        this.connections.get(link)?.take(decoder.decode(sdp));
    }

    candidates(link, lines) {
        this.connections.get(link)?.add(decoder.decode(lines).split("\n"));
    }

    restart(link, sdp) {
        const connection = this.connections.get(link);
        connection?.restart(decoder.decode(sdp)).catch(() => connection.end("path"));
    }

    control(link, bytes) {
        this.connections.get(link)?.send(false, bytes);
    }

    data(link, bytes) {
        this.connections.get(link)?.send(true, bytes);
    }

    close(link) {
        const connection = this.connections.get(link);
        this.hear.change();
        this.connections.delete(link);
        // a goodbye may still be on its way out
        connection?.close();
    }

    async lookAtPeers() {
        for (const [link, connection] of this.connections) {
            const stats = connection.opened && (await connection.stats().catch(() => null));
            if (stats && this.connections.has(link)) {
                this.into("stats", link, stats);
            }
        }
    }

    /** STUN, and where there is no other way the relay, both on the ports of signalling servers. */
    iceServers() {
        return this.servers.flatMap(({ url }, number) => {
            const { hostname, port, protocol } = new URL(url);
            const isTls = protocol === "wss:";
            const at = `${hostname}:${port || (isTls ? 443 : 80)}`;
            const relay = this.relays.get(number);
            const stun = { urls: [`stun:${at}`] };
            if (!relay || !this.needsRelay) {
                return [stun];
            }
            const urls = isTls ? [`turn:${at}`, `turns:${at}?transport=tcp`] : [`turn:${at}`, `turn:${at}?transport=tcp`];
            return [stun, { urls, username: relay.user, credential: relay.password }];
        });
    }

    // --- signalling servers ---

    connect(number) {
        if (this.ended || !this.meets) {
            return;
        }
        const server = this.servers[number];
        if (this.answersElsewhere(server)) {
            server.again = setTimeout(() => this.connect(number), BACKOFF[1]);
            return;
        }
        let socket;
        try {
            socket = new WebSocket(server.url);
        } catch (error) {
            server.problem = location.protocol === "https:" && server.url.startsWith("ws:") ? "This page came by https:, and may only use servers at wss:." : error.message;
            return;
        }
        server.socket = socket;
        socket.binaryType = "arraybuffer";
        const slow = setTimeout(() => socket.close(), CONNECT);
        socket.addEventListener("open", () => clearTimeout(slow));
        socket.addEventListener("message", ({ data }) => {
            if (server.socket !== socket) {
                return;
            }
            server.pause = BACKOFF[0];
            Object.assign(server, { problem: null, isSilent: false });
            if (typeof data === "string") {
                this.into("serverText", number, data);
            } else {
                this.into("serverMessage", number, new Uint8Array(data));
            }
        });
        socket.addEventListener("close", () => {
            clearTimeout(slow);
            if (server.socket !== socket) {
                return;
            }
            server.socket = null;
            server.isSilent = true;
            this.into("server", number, false);
            server.again = setTimeout(() => this.connect(number), server.pause * (0.75 + Math.random() / 2));
            server.pause = Math.min(server.pause * 2, BACKOFF[1]);
        });
    }

    /** Whether the host of a server answers at another URL: with TLS, without it. */
    answersElsewhere(server) {
        const { hostname } = new URL(server.url);
        const isOpen = ({ socket, isSilent }) => socket?.readyState === WebSocket.OPEN && isSilent === false;
        return this.servers.some((other) => other !== server && new URL(other.url).hostname === hostname && isOpen(other));
    }

    /** Whether servers are needed from now on; a second call asks them anew. */
    meet(isNeeded) {
        this.meets = isNeeded === 1;
        this.servers.forEach((server, number) => {
            clearTimeout(server.again);
            server.socket?.close();
            server.socket = null;
            this.connect(number);
        });
    }

    server(number, bytes) {
        const { socket } = this.servers[number];
        if (socket?.readyState === WebSocket.OPEN) {
            socket.send(bytes);
        }
    }

    serverText(number, word) {
        this.server(number, decoder.decode(word));
    }

    refused(number, why) {
        this.servers[number].problem = decoder.decode(why);
        this.servers[number].socket?.close();
    }

    relay(number, text) {
        this.relays.set(number, JSON.parse(decoder.decode(text)));
        if (this.needsRelay) {
            // not now: a command is being obeyed
            setTimeout(() => [...this.connections.values()].forEach((connection) => connection.pc && this.seekRelay(connection)));
        }
    }

    // --- the page ---

    sealed(_, bytes) {
        const view = new DataView(bytes.buffer, bytes.byteOffset);
        this.hear.sealed({ source: address(view, 0), group: address(view, 16) });
    }

    datagram(_, bytes) {
        const view = new DataView(bytes.buffer, bytes.byteOffset);
        this.hear.datagram({ source: address(view, 0), group: address(view, 16), port: view.getUint16(32), data: bytes.subarray(34), bytes });
    }

    mld(_, bytes) {
        this.hear.mld?.(bytes);
    }

    keep() {
        this.hear.keep(this.module.keep());
    }
}

/** As RFC 5952 writes it, which is how browsers write addresses in URLs; of IPv4 with dots. */
function address(view, at) {
    if (view.getBigUint64(at) === 0n && view.getUint32(at + 8) === 0xffff) {
        return [12, 13, 14, 15].map((i) => view.getUint8(at + i)).join(".");
    }
    const parts = Array.from({ length: 8 }, (_, i) => view.getUint16(at + 2 * i).toString(16));
    return new URL(`http://[${parts.join(":")}]`).hostname.slice(1, -1);
}
