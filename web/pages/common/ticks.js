// A worker that ticks: browsers slow down the timers of a page that is not seen, and who shows another window has this page hidden.

/** In milliseconds. Chosen: a tick's packets at the full rate of a screen are fewer than receivers have room for. */
const TICK = 100;

setInterval(() => postMessage(null), TICK);
