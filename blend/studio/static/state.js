// The state in the address bar: parents with their shares, and the dial positions.
"use strict";

export const state = { ordinary: [], concept: [], intensity: 0.5, style: null, futurism: null, label: "", truncation: 1 };

const KEYS = { o: "ordinary", c: "concept" };

export function read(query) {
  const found = { ordinary: [], concept: [], intensity: 0.5, style: null, futurism: null, label: "", truncation: 1 };
  for (const [key, text] of new URLSearchParams(query)) {
    if (Object.hasOwn(KEYS, key)) {
      const [reference, share] = text.split(":");
      found[KEYS[key]].push({ reference, share: share === undefined ? 1 : Number(share) });
    } else if (key === "i") { found.intensity = Number(text); }
    else if (key === "s") { found.style = Number(text); }
    else if (key === "f") { found.futurism = Number(text); }
    else if (key === "l") { found.label = text; }
    else if (key === "t") { found.truncation = Number(text); }
  }
  Object.assign(state, found);
  return state.ordinary.length > 0;
}

export function query() {
  const parts = [];
  for (const [key, side] of Object.entries(KEYS)) {
    for (const one of state[side]) { parts.push(`${key}=${one.reference}${one.share === 1 ? "" : `:${one.share}`}`); }
  }
  parts.push(`i=${state.intensity}`);
  if (state.style !== null) { parts.push(`s=${state.style}`); }
  if (state.futurism !== null) { parts.push(`f=${state.futurism}`); }
  if (state.truncation !== 1) { parts.push(`t=${state.truncation}`); }
  if (state.label) { parts.push(`l=${encodeURIComponent(state.label)}`); }
  return parts.join("&");
}

let waiting = null;
export function writeAddress() { // browsers limit how often
  clearTimeout(waiting);
  waiting = setTimeout(() => history.replaceState(null, "", `/?${query()}`), 150);
}
export function writeAddressNow() {
  clearTimeout(waiting);
  history.replaceState(null, "", `/?${query()}`);
}
