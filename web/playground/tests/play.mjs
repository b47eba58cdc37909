// Plays what standard input says in the module, through what the page has for it.
//   node play.mjs MODULE.JS PLAYGROUND.WASM < {"scenario", "steps": [[until, lines, [node, group, period]]]}

import { readFileSync } from "node:fs";

const [script, wasm] = process.argv.slice(2).map((file) => readFileSync(file));
// its name does not say to node that it is a module
const { World, start } = await import(`data:text/javascript,${encodeURIComponent(script)}`);
const { scenario, steps } = JSON.parse(readFileSync(0, "utf8"));
const world = new World(await start(wasm), scenario);
const seen = [];
for (const [until, lines, stream] of steps) {
    lines.forEach((line) => world.act(line));
    if (stream) {
        world.stream(...stream);
    }
    world.run(until);
    seen.push(world.events(), world.network(), world.group("ff1e::1"));
}
let refused = "";
try {
    world.act("dance 3");
} catch (error) {
    refused = error.message;
}
console.log(JSON.stringify({ log: world.log(), trace: world.trace(), seen, refused }));
world.close();
