// The page: from its state to picture, dials, sweep and measures.
"use strict";
import { LatestRequest, follow, post } from "./requests.js";
import * as parents from "./parents.js";
import * as shelf from "./shelf.js";
import { query, read, state, writeAddress, writeAddressNow } from "./state.js";

const at = (id) => document.getElementById(id);
const SETTLED_MS = 220;
const NO_FINETUNE = document.body.dataset.noFinetune === "yes";
let settled = null, dragging = false, shown = "", turn = 0, sweptKey = "";

function showMessage(text) { at("message").textContent = text; }
const percent = (value) => `${Math.round(100 * value)} %`;

// ---- dials ----
function dials(setting) {
  at("intensity").value = setting.intensity;
  at("style").value = setting.style;
  at("intensity-out").textContent = percent(setting.intensity);
  at("style-out").textContent = percent(setting.style);
  at("truncation").value = state.truncation;
  at("truncation-out").textContent = percent(state.truncation);
  at("follow").checked = state.style === null && state.futurism === null;
  if (at("label")) { at("label").value = state.label; }
}
function futurism(value, target) {
  at("futurism-read").textContent = value === null ? "–" : Math.round(value);
  at("futurism-out").textContent = value === null ? "–" : Math.round(value);
  if (value === null) { return; }
  const inside = Math.min(100, Math.max(0, value));
  at("futurism-bar").setAttribute("width", inside);
  at("futurism-meter").setAttribute("aria-valuenow", Math.round(inside));
  if (target === null) { at("futurism").value = inside; }
}

// ---- what the server draws ----
const draw = new LatestRequest("/draw", (answer, requested) => {
  if (answer.not_inverted) { parents.forget(); prepareParents(); return; } // e.g. after a restart of the studio
  at("design").src = answer.picture;
  at("design").hidden = false;
  at("design").alt = `The design at intensity ${percent(answer.intensity)}, style ${percent(answer.style)}${answer.futurism === null ? "" : `, futurism ${Math.round(answer.futurism)}`}`;
  at("design-message").textContent = "";
  shown = requested;
  at("design").dataset.query = requested;
  if (requested !== query()) { return; } // a newer one follows
  if (!dragging || state.futurism !== null) { dials({ intensity: state.futurism === null ? state.intensity : answer.intensity, style: answer.style }); }
  else { at("style").value = answer.style; at("style-out").textContent = percent(answer.style); }
  futurism(answer.futurism, state.futurism);
  if (answer.reach) {
    const [low, high] = answer.reach.map(Math.round);
    const beyond = state.futurism < low || state.futurism > high;
    at("reach").textContent = `these two cars can score ${low} to ${high}${beyond ? "; the nearest is shown" : ""}`;
  } else { at("reach").textContent = NO_FINETUNE ? "needs a fine-tuned run" : "sets intensity and style for this score"; }
  showMessage("");
}, (error) => { showMessage(error.message); at("design-message").textContent = at("design").hidden ? "No design yet." : ""; });

const measure = new LatestRequest("/measure", (answer) => {
  if (answer.not_inverted) { return; }
  at("figures").hidden = Boolean(answer.missing);
  at("measures-message").textContent = answer.missing || "";
  if (answer.missing) { return; }
  futurism(answer.futurism, state.futurism);
  const kept = answer.identity;
  at("identity-read").textContent = kept === null ? "–" : Math.round(kept);
  at("identity-bar").setAttribute("width", kept ?? 0);
  at("identity-meter").setAttribute("aria-valuenow", Math.round(kept ?? 0));
  const leftOut = answer.novelty.left_out, warned = answer.novelty.verdict === "WARN";
  at("novelty-read").textContent = leftOut ? "Not measured" : warned ? "Near a training picture" : "New";
  at("novelty-message").textContent = leftOut ? `Left out: ${leftOut}.` : warned ? "Closer to a training picture than almost all held-out cars." : "No closer to a training picture than most held-out cars.";
  const items = Object.entries(answer.novelty.nearest).map(([space, near]) => {
    const item = document.createElement("li"), picture = document.createElement("img"), text = document.createElement("span");
    text.textContent = `${space === "reader" ? "by shape and paint" : "by texture and detail"}: closer than ${Math.round(100 - near.percentile)} % of held-out cars`;
    if (near.picture) { picture.src = near.picture; picture.alt = `Training picture ${near.row} of ${near.set}`; item.append(picture); }
    item.append(text);
    return item;
  });
  at("nearest").replaceChildren(...items);
}, (error) => { at("measures-message").textContent = error.message; });

const sweep = new LatestRequest("/sweep", (answer) => {
  if (answer.not_inverted) { return; }
  const old = at("sweep").children;
  if (old.length !== answer.designs.length) {
    at("sweep").replaceChildren(...answer.designs.map(() => {
      const item = document.createElement("li"), button = document.createElement("button"), picture = document.createElement("img"), text = document.createElement("span");
      button.type = "button";
      button.append(picture, text);
      button.addEventListener("click", () => { Object.assign(state, { intensity: Number(button.dataset.intensity), futurism: null }); change(false); });
      item.append(button);
      return item;
    }));
  }
  answer.designs.forEach((one, number) => {
    const button = old[number].firstChild, [picture, text] = button.children;
    button.dataset.intensity = one.intensity;
    picture.src = one.picture;
    picture.alt = `Intensity ${percent(one.intensity)}`;
    text.textContent = one.futurism === null ? percent(one.intensity) : Math.round(one.futurism);
    text.title = "futurism";
  });
  markSweep();
}, (error) => { if (error.status) { showMessage(error.message); } });

function markSweep() {
  for (const item of at("sweep").children) {
    const here = state.futurism === null && Math.round(10 * Number(item.firstChild.dataset.intensity)) === Math.round(10 * state.intensity);
    if (here) { item.firstChild.setAttribute("aria-current", "true"); } else { item.firstChild.removeAttribute("aria-current"); }
  }
}

// ---- changes ----
function change(newParents = true) {
  writeAddress();
  document.querySelectorAll("[data-export]").forEach((link) => { link.href = `${link.dataset.export}?${query()}`; });
  if (newParents) { prepareParents(); return; }
  if (state.futurism === null) { dials({ intensity: state.intensity, style: NO_FINETUNE ? 0 : state.style ?? state.intensity }); }
  markSweep();
  draw.send(query());
  clearTimeout(settled);
  settled = setTimeout(rest, SETTLED_MS);
}
function rest() { // not while a dial is dragged
  measure.send(query());
  const parts = new URLSearchParams(query());
  parts.delete("i");
  parts.delete("f");
  if (parts.toString() !== sweptKey) { sweptKey = parts.toString(); sweep.send(query()); }
}
async function prepareParents() {
  turn += 1;
  const mine = turn;
  Object.values(parents.panels).forEach((panel) => panel.render());
  try {
    await Promise.all(Object.values(parents.panels).map((panel) => panel.ready()));
    if (mine === turn) { sweptKey = ""; change(false); }
  } catch (error) {
    if (mine !== turn) { return; }
    showMessage(error.message);
    at("design-message").textContent = at("design").hidden ? "No design yet." : "";
    if (error.status === 0) { setTimeout(() => { if (mine === turn) { parents.forget(); prepareParents(); } }, 1500); }
  }
}

for (const id of ["intensity", "style", "futurism"]) {
  at(id).addEventListener("input", () => {
    dragging = true;
    const value = Number(at(id).value);
    if (id === "futurism") { state.futurism = value; } else {
      if (state.futurism !== null) { // start from the solution
        state.intensity = Number(at("intensity").value);
        if (id === "style") { state.style = Number(at("style").value); }
      }
      state.futurism = null;
      state[id] = value;
    }
    change(false);
  });
  at(id).addEventListener("change", () => { dragging = false; });
}
at("truncation").addEventListener("input", () => {
  state.truncation = Number(at("truncation").value);
  at("truncation-out").textContent = percent(state.truncation);
  change(false);
});
at("follow").addEventListener("change", () => {
  state.style = at("follow").checked ? null : Number(at("style").value);
  state.futurism = null;
  change(false);
});
at("label")?.addEventListener("change", () => { state.label = at("label").value; change(true); });

// ---- buttons and keys ----
function surprise() {
  Object.assign(state, { ordinary: [{ reference: parents.seed(), share: 1 }], concept: NO_FINETUNE ? [] : [{ reference: parents.seed(), share: 1 }], futurism: null, style: null });
  change(true);
}
async function keep() {
  const note = at("note").value;
  try { await shelf.keep(shown || query(), note); at("note").value = ""; } catch (error) { showMessage(error.message); }
}
at("keep").addEventListener("click", keep);
at("note").addEventListener("keydown", (event) => { if (event.key === "Enter") { keep(); } });
at("surprise").addEventListener("click", surprise);
at("help-open").addEventListener("click", () => at("help").showModal());
at("link").addEventListener("click", async () => {
  writeAddressNow();
  try { await navigator.clipboard.writeText(location.href); at("link").textContent = "Copied"; } catch { at("link").textContent = "See the address bar"; }
  setTimeout(() => { at("link").textContent = "Copy link"; }, 2000);
});
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input:not([type=range], [type=checkbox]), select, textarea") || document.querySelector("dialog[open]")) { return; }
  if (event.key === "k") { keep(); }
  if (event.key === "r") { surprise(); }
  if (event.key === "/") { event.preventDefault(); at("help").showModal(); }
});
document.addEventListener("click", (event) => { if (!at("take").contains(event.target) || event.target.closest("a")) { at("take").open = false; } });

function openRecipe(text) {
  read(text);
  change(true);
  window.scrollTo({ top: 0, behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth" });
}

async function prepare() {
  const line = at("prepare");
  try {
    const end = await follow("prepare", (now) => {
      line.hidden = now.state === "done";
      line.textContent = now.state === "done" ? "" : `Preparing: ${now.message}. The dials work already; some positions take a moment.`;
    });
    if (end.state === "failed") { line.textContent = end.error; return; }
    at("futurism").disabled = Boolean(NO_FINETUNE || end.result?.missing?.measures);
    change(false);
  } catch { setTimeout(prepare, 2000); }
}

parents.start(change, showMessage);
shelf.start(openRecipe, showMessage);
if (!read(location.search)) { read(document.body.dataset.first); }
if (NO_FINETUNE) { at("style").disabled = at("follow").disabled = true; }
change(true);
prepare();
