// The two panels of parents: dropping, pasting and choosing pictures, progress of the search, mixing in others.
"use strict";
import { RequestError, TAB, follow, get, post, upload } from "./requests.js";
import { state } from "./state.js";

const MAX_MB = Number(document.body.dataset.maxUploadMb);
const MAX_PARENTS = Number(document.body.dataset.maxParents);
const POOR = 2; // times the median error of this run
const NO_ENCODER = document.body.dataset.noEncoder === "yes";
const NO_FINETUNE = document.body.dataset.noFinetune === "yes";
const gallery = document.getElementById("gallery");
const GALLERY_TITLE = document.getElementById("gallery-h").textContent;
export const panels = {};
let onChange = () => {}, onError = () => {};
let lastPanel = "ordinary"; // receives a paste

export function seed() { return `seed-${Math.floor(Math.random() * 1e6)}`; }

function name(reference) {
  const [kind, text] = reference.split("-");
  return kind === "seed" ? `random car ${text}` : kind === "file" ? "your picture" : `sample car ${Number(text)}`;
}

class Panel {
  constructor(root) {
    this.root = root;
    this.side = root.dataset.side;
    this.known = new Map(); // reference → result of its search
    this.adding = false; // whether the next picture is mixed in or replaces the first
    this.job = null;
    const find = (query) => root.querySelector(query);
    Object.assign(this, { zone: find("[data-zone]"), given: find(".given"), search: find(".search"), redrawn: find(".redrawn"),
      message: find(".message"), progress: find("progress"), others: find(".others"), file: find(".file") });
    root.addEventListener("focusin", () => { lastPanel = this.side; });
    root.addEventListener("pointerdown", () => { lastPanel = this.side; });
    root.addEventListener("click", (event) => {
      const action = event.target.closest("[data-do]")?.dataset.do;
      if (action) { this[action](event.target); }
    });
    root.addEventListener("dragover", (event) => { event.preventDefault(); root.classList.add("over"); });
    root.addEventListener("dragleave", (event) => { if (!root.contains(event.relatedTarget)) { root.classList.remove("over"); } });
    root.addEventListener("drop", (event) => {
      event.preventDefault();
      root.classList.remove("over");
      this.take(event.dataTransfer.files[0]);
    });
    this.file.addEventListener("change", () => { this.take(this.file.files[0]); this.file.value = ""; });
    if (this.side === "concept" && NO_FINETUNE) { root.querySelectorAll("button, input").forEach((one) => { one.disabled = true; }); }
  }

  async take(file) {
    if (!file) { onError("That is not a file: drop a picture file, or copy the picture itself and paste it."); return; }
    if (NO_ENCODER) { onError("This run cannot read pictures yet; the note above has the command for it."); return; }
    if (file.size > MAX_MB * 2 ** 20) { onError(`This picture has ${Math.round(file.size / 2 ** 20)} MiB, the limit is ${MAX_MB}. Make it smaller and drop it again.`); return; }
    this.show("uploading");
    try {
      this.setParent((await upload(file)).reference);
    } catch (error) {
      onError(error.message);
      this.render();
    }
  }

  setParent(reference) {
    const mine = state[this.side];
    if (this.adding && mine.length && mine.length < MAX_PARENTS) { mine.push({ reference, share: 1 }); } else { mine.splice(0, 1, { reference, share: 1 }); }
    this.adding = false;
    onError("");
    onChange();
  }

  add() { this.adding = true; this.pick(); }
  random() { this.setParent(seed()); }
  none() { state[this.side].length = 0; onChange(); }
  cancel() { if (this.job) { post(`/jobs/${this.job}/cancel`, {}).catch((error) => onError(error.message)); } }
  remove(button) {
    const mine = state[this.side];
    mine.splice(Number(button.dataset.number), 1);
    if (mine.length === 1) { mine[0].share = 1; }
    onChange();
  }

  async pick() {
    const message = document.getElementById("gallery-message"), pictures = document.getElementById("gallery-pictures");
    message.textContent = "";
    pictures.replaceChildren();
    document.getElementById("gallery-h").textContent = this.adding ? "Mix in another car" : GALLERY_TITLE;
    gallery.onclose = () => { this.adding = false; };
    gallery.showModal();
    try {
      const references = NO_ENCODER ? [] : (await get(`/gallery/${this.side}`)).references;
      if (!references.length) { message.textContent = "This run has no held-out pictures that it can read. Random cars always work."; }
      const more = Array.from({ length: 6 }, seed);
      for (const reference of [...references, ...more]) {
        const button = document.createElement("button"), picture = document.createElement("img");
        button.type = "button";
        picture.src = `/parent/${this.side}/${reference}`;
        picture.alt = name(reference);
        picture.loading = "lazy";
        button.append(picture);
        button.addEventListener("click", () => {
          const adding = this.adding;
          gallery.close();
          this.adding = adding;
          this.setParent(reference);
        });
        pictures.append(button);
      }
    } catch (error) { message.textContent = error.message; }
  }

  show(text, progress = null) {
    this.search.hidden = false;
    this.message.textContent = text;
    this.progress.hidden = progress === null;
    if (progress !== null) { this.progress.value = progress; }
  }

  render() {
    const mine = state[this.side], first = mine[0];
    this.given.hidden = !first;
    this.zone.classList.toggle("filled", Boolean(first));
    this.root.querySelector(".drop-text b").textContent = first ? "Another picture" : "Choose a picture";
    const add = this.root.querySelector('[data-do="add"]');
    add.hidden = !first || mine.length >= MAX_PARENTS;
    if (!first) { this.search.hidden = true; } else {
      this.given.src = `/parent/${this.side}/${first.reference}?large=1`;
      this.given.alt = `${this.side === "ordinary" ? "Ordinary" : "Futuristic"} parent: ${name(first.reference)}`;
      this.given.onerror = () => { this.given.hidden = true; this.zone.classList.remove("filled"); };
      this.report(first.reference);
    }
    this.renderOthers(mine);
  }

  report(reference) {
    const known = this.known.get(reference);
    const cancel = this.root.querySelector('[data-do="cancel"]');
    cancel.hidden = !this.job;
    if (this.job) { return; }
    if (!known || known.error === null) { this.search.hidden = !known; if (known) { this.redrawn.hidden = true; this.show("A random car: there is nothing to search for."); } return; }
    this.redrawn.hidden = false;
    this.redrawn.src = known.picture;
    this.redrawn.alt = "The same car, redrawn by the run";
    this.show(redrawnText(known));
  }

  renderOthers(mine) {
    const items = mine.length < 2 ? [] : mine.map((one, number) => {
      const item = document.createElement("li"), picture = document.createElement("img"), share = document.createElement("input"), remove = document.createElement("button");
      picture.src = `/parent/${this.side}/${one.reference}`;
      picture.alt = name(one.reference);
      Object.assign(share, { type: "range", min: "0.05", max: "1", step: "0.05", value: String(one.share), ariaLabel: `Share of ${name(one.reference)}` });
      share.addEventListener("input", () => { one.share = Number(share.value); onChange(false); });
      Object.assign(remove, { type: "button", textContent: "×", ariaLabel: `Remove ${name(one.reference)}` });
      remove.dataset.do = "remove";
      remove.dataset.number = String(number);
      item.append(picture, share, remove);
      return item;
    });
    this.others.replaceChildren(...items);
  }

  // Resolves when every parent's latent is known; each search is a job, whose progress is shown.
  async ready() {
    for (const { reference } of [...state[this.side]]) {
      const key = `${reference} ${this.side === "ordinary" ? state.label : ""}`;
      if (this.known.has(key)) { continue; }
      let end;
      try {
        const started = await post("/jobs/parent", { tab: TAB, side: this.side, reference, label: this.side === "ordinary" ? state.label || null : null });
        end = started;
        if (started.state !== "done") {
          this.job = started.key;
          this.root.querySelector('[data-do="cancel"]').hidden = false;
          end = await follow(started.key, (now) => this.watch(now));
        }
      } finally { this.job = null; }
      if (end.state === "cancelled") { throw new RequestError("The search was cancelled. Choose the picture again to resume it, or another one.", 409); }
      if (end.state === "failed") { throw new RequestError(end.error, 409); }
      this.known.set(key, end.result);
      this.known.set(reference, end.result);
    }
    if (state[this.side].length) { this.report(state[this.side][0].reference); }
  }

  watch(now) {
    if (now.state === "waiting") { this.show("waiting", 0); }
    if (now.state !== "running") { return; }
    this.show(now.message, now.total ? now.done / now.total : 0);
    this.redrawn.hidden = !now.picture;
    if (now.picture) {
      this.redrawn.src = now.picture;
      this.redrawn.alt = "The best reconstruction so far";
    }
  }
}

export function start(changeHandler, errorHandler) {
  [onChange, onError] = [changeHandler, errorHandler];
  for (const root of document.querySelectorAll(".parent")) { panels[root.dataset.side] = new Panel(root); }
  // A picture dropped beside a panel must not replace the page.
  for (const kind of ["dragover", "drop"]) { window.addEventListener(kind, (event) => event.preventDefault()); }
  window.addEventListener("paste", (event) => {
    const file = Array.from(event.clipboardData.files)[0];
    if (file) { event.preventDefault(); panels[lastPanel].take(file); }
  });
}

// The picture error, compared with the median of the run's gallery.
function redrawnText({ error, first_error: first, median_error: median }) {
  const compared = median === null ? "" : ` (usual here: ${median.toFixed(4)})`;
  const found = `Redrawn with picture error ${error.toFixed(4)}${compared}`;
  const poor = median !== null && error > POOR * median;
  return poor ? `${found}: a poor likeness. Another picture may work better.` : `${found}; first guess ${first.toFixed(4)}`;
}

export function forget() { Object.values(panels).forEach((panel) => panel.known.clear()); }
