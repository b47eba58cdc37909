// The Worker of media lanes (lane.js). It writes nothing on, so nothing of a track is decoded or played.
//
//   in   the number of packets that the page has handled
//   out  { timestamp, at, bytes }: of RTP, time since the epoch, payload

/** Packets on their way to the page; later ones count as lost. Chosen: a second of much data. */
const MOST = 2048;

addEventListener("rtctransform", ({ transformer: { readable, options } }) => pass(readable, options.port));

async function pass(readable, port) {
    let waiting = 0;
    port.onmessage = ({ data }) => (waiting -= data);
    // until the connection ends
    for await (const frame of readable) {
        if (waiting < MOST) {
            waiting += 1;
            port.postMessage({ timestamp: frame.timestamp ?? frame.getMetadata().rtpTimestamp, at: performance.timeOrigin + performance.now(), bytes: frame.data });
        }
    }
}
