// One RTCPeerConnection, as the node in this page asks for it.

import { takesTracks, receive } from "./lane.js";

const CONTROL = "/lcroute/control/";
/** Of control messages: SPEAKS in lcroute-overlay. */
const VERSION = 4;
const DATA = "/lcroute/data/1";
/** Time that a description waits for addresses, in milliseconds; later ones are sent one by one. */
const OFFER_WAIT = 100;
/** The same of a restart, after which no address follows, and of a search for addresses. */
export const GATHER = 1500;
/** Bytes in the queue of a link in use. Chosen: more than its quiet traffic has at once. */
const FILLED = 8 << 10;
/** Further time after the first address that a server reported. */
const SETTLE = 200;

/** `tell`: passes an event to the node in this page. */
export class Connection {
    constructor(link, tell) {
        this.link = link;
        this.tell = tell;
        this.wait = OFFER_WAIT;
        /** Of the peer, before its description. */
        this.early = [];
    }

    /** `servers`: for ICE. */
    start(servers) {
        this.pc = new RTCPeerConnection({ iceServers: servers, bundlePolicy: "max-bundle" });
        this.out = this.pc.createDataChannel("data", { ordered: false, maxRetransmits: 0, protocol: DATA });
        this.out.addEventListener("open", () => this.lookIfOpen());
        this.watch(this.out, true);
        this.pc.addEventListener("datachannel", ({ channel }) => this.accept(channel));
        this.pc.addEventListener("track", ({ receiver }) => this.setTrack(receiver));
        this.pc.addEventListener("icecandidate", ({ candidate }) => {
            if (this.described && candidate?.candidate) {
                this.tell.candidate?.(this.link, candidate.candidate);
            }
        });
        this.pc.addEventListener("connectionstatechange", () => {
            if (this.pc.connectionState === "failed") {
                this.end(this.opened ? "peer" : "path");
            }
        });
    }

    async offer() {
        this.setControl(this.pc.createDataChannel("control", { protocol: CONTROL + VERSION }));
        if (takesTracks() && this.tell.track) {
            this.setTrack(this.pc.addTransceiver("audio", { direction: "recvonly" }).receiver);
        }
        await this.describe(() => this.pc.createOffer());
    }

    async answer(sdp) {
        await this.pc.setRemoteDescription({ type: "offer", sdp });
        this.add(this.early);
        await this.describe(() => this.pc.createAnswer());
    }

    async take(sdp) {
        try {
            await this.pc.setRemoteDescription({ type: "answer", sdp });
            this.add(this.early);
        } catch {
            this.end("answer");
        }
    }

    /** Addresses of the peer that came after its description. */
    add(attributes) {
        if (!this.pc?.remoteDescription) {
            this.early.push(...attributes);
            return;
        }
        for (const candidate of attributes) {
            // one that the browser does not take is one less
            this.pc.addIceCandidate({ candidate, sdpMLineIndex: 0 }).catch(() => {});
        }
    }

    async restart(sdp) {
        this.wait = GATHER;
        if (sdp) {
            await this.answer(sdp);
        } else {
            await this.describe(() => this.pc.createOffer({ iceRestart: true }));
        }
    }

    async describe(make) {
        await this.pc.setLocalDescription(await make());
        await this.gathered();
        if (!this.ended) {
            this.described = true;
            this.tell.described(this.link, this.pc.localDescription.sdp);
        }
    }

    /** All addresses, or those that showed in time. */
    gathered() {
        return new Promise((done) => {
            // before a restart has begun to gather, the state is still that of the time before
            const look = () => this.pc.iceGatheringState === "complete" && this.pc.localDescription.sdp.includes("a=candidate") && done();
            this.pc.addEventListener("icegatheringstatechange", look);
            // one server has answered: the others had their time
            this.pc.addEventListener("icecandidate", ({ candidate }) => ["srflx", "relay"].includes(candidate?.type) && setTimeout(done, SETTLE));
            setTimeout(done, this.wait);
            look();
        });
    }

    accept(channel) {
        const version = channel.protocol.startsWith(CONTROL) ? Number(channel.protocol.slice(CONTROL.length)) : null;
        if (version !== null && version !== VERSION) {
            this.tell.otherControl(this.link, version);
        } else if (version !== null && !this.control) {
            this.setControl(channel);
        } else if (channel.protocol === DATA && !this.in) {
            this.in = channel;
            this.watch(channel, true);
        } else {
            this.end("channel");
        }
        this.lookIfOpen();
    }

    setControl(channel) {
        this.control = channel;
        channel.addEventListener("open", () => this.lookIfOpen());
        this.watch(channel, false);
    }

    /** The host's data comes as a track as well, where the browser passes its packets on. */
    setTrack(receiver) {
        this.lane ??= receive(receiver, (...packet) => this.ended || this.tell.track(this.link, ...packet));
    }

    watch(channel, isData) {
        channel.binaryType = "arraybuffer";
        channel.bufferedAmountLowThreshold = 32 << 10;
        channel.addEventListener("message", ({ data }) => {
            // text is nothing that a node sends
            this.tell.message(this.link, isData, new Uint8Array(typeof data === "string" ? 0 : data));
        });
        channel.addEventListener("bufferedamountlow", () => this.tell.waiting(this.link, isData, channel.bufferedAmount));
        channel.addEventListener("close", () => this.end("peer"));
    }

    lookIfOpen() {
        const isOpen = this.control?.readyState === "open" && this.out.readyState === "open" && this.in;
        if (isOpen && !this.opened && !this.ended) {
            this.opened = true;
            this.tell.opened(this.link);
        }
    }

    send(isData, bytes) {
        const channel = isData ? this.out : this.control;
        try {
            channel.send(bytes);
        } catch {
            // it closes: its event follows
        }
        this.sent = true;
    }

    /** After a batch of messages: how many bytes wait. */
    tellWaiting() {
        this.sent = false;
        if (this.out.bufferedAmount > FILLED) {
            this.filledAt = performance.now();
        }
        this.tell.waiting(this.link, true, this.out.bufferedAmount);
        this.tell.waiting(this.link, false, this.control?.bufferedAmount ?? 0);
    }

    end(reason) {
        if (!this.ended) {
            this.ended = true;
            this.tell.ended(this.link, reason);
        }
    }

    close() {
        this.ended = true;
        this.lane?.close();
        this.pc?.close();
    }

    /** How it does, of the candidate pair in use. */
    async stats() {
        const report = await this.pc.getStats();
        const all = [...report.values()];
        const transport = all.find((s) => s.type === "transport");
        const pairs = all.filter((s) => s.type === "candidate-pair");
        const pair = report.get(transport?.selectedCandidatePairId) ?? pairs.find((s) => s.selected) ?? pairs.find((s) => s.nominated);
        if (!pair) {
            return null;
        }
        const [local, remote] = [report.get(pair.localCandidateId), report.get(pair.remoteCandidateId)];
        const sum = [pair.bytesReceived, pair.requestsReceived, pair.responsesReceived, pair.packetsReceived, pair.lastPacketReceivedTimestamp];
        return {
            received: sum.reduce((total, n) => total + (Number(n) || 0), 0),
            rtt: pair.currentRoundTripTime > 0 ? pair.currentRoundTripTime * 1000 : null,
            local: at(local),
            remote: at(remote),
            kinds: local?.candidateType && remote?.candidateType ? [local.candidateType, remote.candidateType] : null,
        };
    }
}

/** Address and port; none where the browser hides it. */
function at(candidate) {
    const address = candidate?.address ?? candidate?.ip;
    if (!address || !candidate.port || !/^[0-9a-f.:]+$/i.test(address)) {
        return null;
    }
    return address.includes(":") ? `[${address}]:${candidate.port}` : `${address}:${candidate.port}`;
}
