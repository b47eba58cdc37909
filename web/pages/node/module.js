// The node as WebAssembly (web/node): bytes in, bytes out.

import { Wasm } from "../common/wasm.js";

/** Commands of the module, by number. */
export const COMMANDS = [null, "offer", "answer", "accept", "restart", "control", "data", "close", "server", "refused", "relay", "datagram", "keep", "serverText", "sealed", "candidates", "meet", "mld"];

const now = () => performance.now();

/** A node in this page. */
export class Module extends Wasm {
    static async load(url = new URL("node.wasm", import.meta.url)) {
        return new Module(await Wasm.fetch(url), "node");
    }

    /** Becomes a member or a leaf, by its token; the URLs of its signalling servers. */
    open(start) {
        this.put(JSON.stringify(start));
        this.check(this.call.node_open(now(), Date.now()));
        return this.text(this.call.node_servers()).split("\n");
    }

    /** The contents of an invitation, before it is used. */
    read(token) {
        this.put(token);
        const answer = this.output(this.call.node_read(Date.now())).slice();
        const text = new TextDecoder().decode(answer.subarray(1));
        if (answer[0] !== 1) {
            throw new Error(text);
        }
        return JSON.parse(text);
    }

    keep() {
        return this.text(this.call.node_keep());
    }

    leaveNetwork() {
        this.call.node_leave_network(now());
    }

    /** Runs the due timers; returns the milliseconds until the next one. */
    run() {
        return this.call.node_run(now(), Date.now());
    }

    /** The next command: [kind, number of link or server, bytes]. */
    poll() {
        const length = this.call.node_poll();
        if (!length) {
            return null;
        }
        const bytes = this.output(length).slice();
        return [COMMANDS[bytes[0]], new DataView(bytes.buffer).getUint32(1, true), bytes.subarray(5)];
    }

    server(number, isOpen) {
        this.call.node_server(now(), number, isOpen);
    }

    serverMessage(number, bytes) {
        this.put(bytes);
        this.call.node_server_message(now(), number);
    }

    serverText(number, word) {
        this.put(word);
        this.call.node_server_text(now(), number);
    }

    described(link, sdp) {
        this.put(sdp);
        this.call.node_described(now(), link);
    }

    candidate(link, attribute) {
        this.put(attribute);
        this.call.node_candidate(now(), link);
    }

    opened(link) {
        this.call.node_opened(now(), link);
    }

    message(link, isData, bytes) {
        this.put(bytes);
        this.call.node_message(now(), link, isData);
    }

    /** A packet of a track, which came at the time `at` of this page. */
    track(link, timestamp, at, bytes) {
        this.put(bytes);
        this.call.node_track(now(), link, timestamp, at);
    }

    waiting(link, isData, bytes) {
        this.call.node_waiting(now(), link, isData, bytes);
    }

    stats(link, stats) {
        this.put(JSON.stringify(stats));
        this.call.node_stats(now(), link);
    }

    ended(link, reason) {
        this.call.node_ended(now(), link, ["peer", "path", "begin", "answer", "channel", "stuck"].indexOf(reason));
    }

    outdated(link) {
        this.call.node_outdated(now(), link);
    }

    otherControl(link, version) {
        this.call.node_other_control(now(), link, version);
    }

    join(group) {
        this.put(group);
        this.check(this.call.node_join(now()));
    }

    leave(group) {
        this.put(group);
        this.check(this.call.node_leave(now()));
    }

    send(group, port, bytes) {
        this.put(group, "\n", bytes);
        this.check(this.call.node_send(now(), port));
    }

    query(packet) {
        this.put(packet);
        this.call.node_query(now());
    }

    look(looks) {
        this.call.node_look(now(), looks);
    }

    status() {
        return JSON.parse(this.text(this.call.node_status(now())));
    }
}
