// The meaning of the signs on a map.

const SIGNS = `
  <li><svg viewBox="-24 -24 48 48" aria-hidden="true"><g class="node own"><circle class="halo" r="21"/><circle class="dot" r="6.5"/></g></svg>this node</li>
  <li><svg viewBox="-24 -24 48 48" aria-hidden="true"><g class="node sends"><path class="waves" d="M9 -9a13 13 0 0 1 0 18M13 -13a18.4 18.4 0 0 1 0 26M-9 -9a13 13 0 0 0 0 18M-13 -13a18.4 18.4 0 0 0 0 26"/><circle class="dot" r="6.5"/></g></svg>sends</li>
  <li><svg viewBox="-24 -24 48 48" aria-hidden="true"><g class="node listens"><circle class="ring" r="13"/><circle class="dot" r="6.5"/><path class="ear" d="M-3.4 1.2v-2a3.4 3.4 0 0 1 6.8 0v2M-3.4 .6v2.6M3.4 .6v2.6"/></g></svg>listens</li>
  <li><svg viewBox="-24 -24 48 48" aria-hidden="true"><g class="node carries"><circle class="dot" r="6.5"/></g></svg>passes packets on</li>
  <li><svg viewBox="-24 -24 48 48" aria-hidden="true"><g class="node quiet"><circle class="dot" r="6.5"/></g></svg>does not report</li>
  <li><svg viewBox="-24 -24 48 48" aria-hidden="true"><g class="node stub"><rect class="frame"/></g></svg>browser tab</li>
  <li><svg class="long" viewBox="-40 -12 80 24" aria-hidden="true"><g class="flow"><path class="bed" d="M-38 0H36"/><path class="stream" d="M-38 0H36"/><path class="arrow" d="M28 -6L37 0L28 6"/></g></svg>packets go this way</li>
  <li><svg class="long" viewBox="-40 -12 80 24" aria-hidden="true"><g class="flow idle"><path class="bed" d="M-38 0H36"/><path class="arrow" d="M28 -6L37 0L28 6"/></g></svg>wanted, but silent</li>`;

/** Fills the list below a map. */
export function signs(host) {
    const { body } = new DOMParser().parseFromString(`<ul>${SIGNS}</ul>`, "text/html");
    host.replaceChildren(...body.firstChild.children);
}
