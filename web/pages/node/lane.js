// The media lane of a host as an RTP track: a Worker takes each packet's payload before the browser would decode it as sound.

/** Whether this page takes tracks: the browser passes encoded packets to a Worker. */
export const takesTracks = () => "RTCRtpScriptTransform" in globalThis;
/** Packets that one message acknowledges; the Worker bounds those without. */
const ACKNOWLEDGED = 64;

/** One for all connections of this page. */
let worker = null;

/** Passes the packets of a receiver to `packet`: timestamp, time of arrival on this page's clock, payload. Returns the port that ends it. */
export function receive(receiver, packet) {
    worker ??= new Worker(new URL("lane-worker.js", import.meta.url));
    const { port1, port2 } = new MessageChannel();
    let came = 0;
    port1.addEventListener("message", ({ data: { timestamp, at, bytes } }) => {
        packet(timestamp, at - performance.timeOrigin, new Uint8Array(bytes));
        came += 1;
        if (came === ACKNOWLEDGED) {
            port1.postMessage(came);
            came = 0;
        }
    });
    port1.start();
    receiver.transform = new RTCRtpScriptTransform(worker, { port: port2 }, [port2]);
    return port1;
}
