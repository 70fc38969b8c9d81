// Kept designs: notes, opening, comparing two, removing, exporting.
"use strict";
import { get, post } from "./requests.js";

const list = document.getElementById("shelf");
const message = document.getElementById("shelf-message");
const acts = document.getElementById("shelf-acts");
const compare = document.getElementById("compare");
const dialog = document.getElementById("comparison");
let rows = [], open = () => {}, onError = () => {};
const chosen = [];

const whole = (value) => (value === null || value === undefined ? "–" : Math.round(value));
function figures(row) { return `futurism ${whole(row.futurism)}${row.identity === null ? "" : `, identity ${whole(row.identity)}`}`; }

function make(tag, more, ...children) {
  const { data, ...rest } = more;
  const one = Object.assign(document.createElement(tag), rest);
  Object.assign(one.dataset, data || {});
  one.append(...children);
  return one;
}

function card(row, number) {
  const label = row.note || `design ${number + 1}`;
  const picture = make("img", { src: `/shelf/${row.id}.jpg`, alt: `${label}: ${figures(row)}`, loading: "lazy" });
  const show = make("button", { type: "button", className: "thumbnail", ariaLabel: `Open ${label}` }, picture);
  show.addEventListener("click", () => open(row.recipe));
  const note = make("input", { type: "text", value: row.note, maxLength: 200, placeholder: "Note", ariaLabel: `Note of design ${number + 1}` });
  note.addEventListener("change", async () => {
    try { row.note = (await post(`/shelf/${row.id}/note`, { note: note.value })).note; message.textContent = "Note saved."; } catch (error) { onError(error.message); }
  });
  const check = make("input", { type: "checkbox", checked: chosen.includes(row.id), ariaLabel: `Choose ${label} to compare` });
  check.addEventListener("change", () => choose(row.id, check.checked));
  const remove = make("button", { type: "button", className: "plain", textContent: "Remove", ariaLabel: `Remove ${label}` });
  remove.addEventListener("click", () => removeDesign(row));
  const file = (kind) => make("a", { href: `/export/shelf/${row.id}.${kind}`, download: "", textContent: kind.toUpperCase(), ariaLabel: `${label} as ${kind.toUpperCase()}` });
  const older = row.older ? [make("p", { className: "soft", textContent: "Drawn by earlier weights of this run." })] : [];
  return make("li", { data: { id: row.id } }, show, make("p", { className: "kept-figures", textContent: figures(row) }), ...older, note,
    make("div", { className: "kept-acts" }, make("label", { className: "check" }, check, " compare"), file("png"), file("json"), remove));
}

function choose(id, on) {
  if (on) { chosen.push(id); } else { chosen.splice(chosen.indexOf(id), 1); }
  while (chosen.length > 2) { chosen.shift(); }
  render();
}

async function removeDesign(row) {
  try {
    await post(`/shelf/${row.id}/remove`, {});
    const undo = make("button", { type: "button", className: "plain", textContent: "Undo" });
    undo.addEventListener("click", async () => {
      try { await post(`/shelf/${row.id}/restore`, {}); await load(); message.textContent = "Restored."; } catch (error) { onError(error.message); }
    });
    await load();
    message.replaceChildren("Removed. ", undo);
    undo.focus();
  } catch (error) { onError(error.message); }
}

function render() {
  for (const id of [...chosen]) { if (!rows.some((row) => row.id === id)) { chosen.splice(chosen.indexOf(id), 1); } }
  list.replaceChildren(...rows.map(card));
  acts.hidden = rows.length === 0;
  compare.disabled = chosen.length !== 2;
  message.textContent = rows.length ? (chosen.length === 1 ? "Select one more to compare." : "") : "Nothing kept yet. Click Keep, and the design stays here, even after you close the page.";
}

function showTwo() {
  const two = chosen.map((id) => rows.find((row) => row.id === id));
  const columns = two.map((row, number) => make("figure", {}, make("img", { src: `/shelf/${row.id}.jpg?large=1`, alt: row.note || `design ${number + 1}` }),
    make("figcaption", {}, make("b", { textContent: row.note || `design ${rows.indexOf(row) + 1}` }), make("br", {}), figures(row), make("br", {}),
      `intensity ${Math.round(100 * row.setting.latent_weight)} %, style ${Math.round(100 * row.setting.style)} %${row.verdict === "WARN" ? ", near a training picture" : ""}`)));
  document.getElementById("two").replaceChildren(...columns);
  dialog.showModal();
}

export async function load() {
  try { rows = (await get("/shelf")).designs; render(); } catch (error) { message.textContent = error.message; }
}

export async function keep(recipe, note) {
  await post("/shelf", { recipe, note });
  await load();
  message.textContent = "Kept.";
}

export function start(onOpen, errorHandler) {
  [open, onError] = [onOpen, errorHandler];
  compare.addEventListener("click", showTwo);
  return load();
}
