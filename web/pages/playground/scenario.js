// The networks that there are to play with, as scenarios of `lcroute sim`.

import { cities } from "./europe.js";

/** Light takes 17 ms over the side of the map, cables are half as long again, and routers take a little. */
const LINKS = `
[links]
jitter = "0ms"

[links.latency]
kind = "places"
side = "26ms"
floor = "1ms"
places = [${cities.map((c) => `[${c.x.toFixed(4)}, ${c.y.toFixed(4)}]`).join(", ")}]
`;

/** As in a large network: a JOIN goes to the root, and to the sender. */
const LARGE = "\n[limits]\nsmall_network = 0\nsource_trees = 0\n";

const length = (a, b) => (cities[a].x - cities[b].x) ** 2 + (cities[a].y - cities[b].y) ** 2;

/** Pairs with somebody between them: in the circle over their line (a Gabriel graph has all others). */
const apart = cities.flatMap((_, a) =>
    cities.map((_, b) => [a, b]).filter(([a, b]) => a < b && cities.some((_, c) => length(a, c) + length(b, c) < length(a, b))),
);

/** Which links there are. Between `apart`, nothing passes. */
export const topologies = [
    { id: "cables", name: "Cables to neighbours", about: "each reaches only those next to it", policy: 'policy = "mesh"', limits: LARGE, apart },
    { id: "four", name: "Rings, 4 links each", about: "two random rings", policy: 'policy = "regular"\ndegree = 4', limits: LARGE },
    { id: "eight", name: "Rings, 8 links each", about: "three random rings and two near neighbours", policy: 'policy = "regular"\ndegree = 8', limits: LARGE },
    { id: "two", name: "Ring, 2 links each", about: "one ring: few links, long ways", policy: 'policy = "regular"\ndegree = 2', limits: LARGE },
    { id: "mesh", name: "Mesh, all with all", about: "short ways, many links", policy: 'policy = "mesh"', limits: LARGE },
    { id: "small", name: "Small network", about: "what lcroute does up to 32 routers: JOINs go to all, every sender knows who listens", policy: 'policy = "auto"', limits: "" },
];

export const scenario = (topology) =>
    `nodes = ${cities.length}\nseed = 5\n[topology]\n${topology.policy}\n${topology.limits}${LINKS}`;
