// A sheet: choices by key, click and touch, undo, rebuild. Every choice is sent at once.
"use strict";
(function () {
  const pics = Array.from(document.querySelectorAll(".pic"));
  const message = document.getElementById("message");
  const large = document.getElementById("large");
  const help = document.getElementById("help");
  const undoButton = document.getElementById("undo");
  const rebuildButton = document.getElementById("rebuild");
  const VIEWS = ["left", "right", "front_left", "front_right", "front", "rear", "rear_left", "rear_right", "other"];
  const POLL_MS = 700;
  let current = null, shown = null; // the selected picture, and the enlarged one
  let sending = Promise.resolve(); // choices are sent one after the other
  let pending = 0;

  // ---- undo: survives page loads in this tab ----
  const UNDO_KEY = "clinic-undo";
  const MAX_UNDO = 200;
  function readUndo() {
    try { return JSON.parse(sessionStorage.getItem(UNDO_KEY)) || []; } catch { return []; }
  }
  function writeUndo(steps) {
    try { sessionStorage.setItem(UNDO_KEY, JSON.stringify(steps.slice(-MAX_UNDO))); } catch { /* storage is full or disabled */ }
    undoButton.disabled = steps.length === 0;
  }

  // ---- messages and requests ----
  function showMessage(text, bad) {
    message.textContent = text;
    message.classList.toggle("bad", Boolean(bad));
  }
  async function post(path, body) {
    const answer = await fetch(path, {
      method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body),
    });
    const reply = await answer.json().catch(() => ({ error: "the clinic's answer cannot be read" }));
    if (!answer.ok) { throw Object.assign(new Error(reply.error || answer.statusText), { status: answer.status }); }
    return reply;
  }
  function counts(reply) {
    document.getElementById("count").nextSibling.textContent = reply.choices === 1 ? " choice" : " choices";
    document.getElementById("count").textContent = reply.choices;
    document.getElementById("waiting").textContent = reply.waiting;
    document.getElementById("waiting-text").hidden = !reply.waiting;
    document.getElementById("mine").textContent = reply.choices;
    document.body.dataset.revision = reply.revision;
  }

  // ---- choices ----
  function showChoice(sha, verdict, view) { // identical files are shown several times
    pics.filter((pic) => pic.dataset.sha === sha).forEach((pic) => {
      pic.dataset.verdict = verdict;
      pic.dataset.view = view;
      pic.querySelectorAll("[data-act]").forEach((one) => {
        one.setAttribute("aria-pressed", String(one.dataset.act === verdict));
      });
      const select = pic.querySelector("select");
      if (select) { select.value = view; }
    });
  }
  function send(body, after) {
    pending += 1;
    sending = sending.then(async () => {
      try {
        const reply = await post("/choices", body);
        showChoice(body.sha256, reply.verdict, reply.view);
        counts(reply);
        showMessage("");
        after(reply);
      } catch (error) {
        const text = error.status ? error.message : "The clinic does not answer: is it still running? The last choice was not saved.";
        showMessage(text, true);
        const pic = pics.find((one) => one.dataset.sha === body.sha256);
        if (pic) { showChoice(body.sha256, pic.dataset.verdict, pic.dataset.view); }
        if (error.status === 409) { refresh(); }
      } finally {
        pending -= 1;
      }
    });
    return sending;
  }
  function choose(pic, change) {
    const sha = pic.dataset.sha;
    if (!sha) { showMessage("This file cannot be read, so it cannot be decided about.", true); return; }
    send({ sha256: sha, ...change }, (reply) => {
      const before = reply.before;
      if (before.verdict !== reply.verdict || before.view !== reply.view) {
        writeUndo([...readUndo(), { sha, put: before, expect: { verdict: reply.verdict, view: reply.view } }]);
      }
    });
  }
  function undo() {
    sending.then(() => {
      const steps = readUndo();
      const last = steps.pop();
      if (!last) { showMessage("Nothing to undo."); return; }
      writeUndo(steps);
      send({ sha256: last.sha, verdict: last.put.verdict, view: last.put.view, expect: last.expect }, () => {
        const pic = pics.find((one) => one.dataset.sha === last.sha);
        if (pic) { go(pic); }
        showMessage("Undone" + (pic ? "." : ": a picture on another page."));
      });
    });
  }

  // ---- moving ----
  function controls(pic) { return pic.querySelectorAll(".open, .acts button, .acts select"); }
  function mark(pic) {
    if (current === pic) { return; }
    if (current) {
      current.tabIndex = -1;
      current.classList.remove("current");
      controls(current).forEach((one) => { one.tabIndex = -1; });
    }
    current = pic;
    pic.tabIndex = 0;
    pic.classList.add("current");
    controls(pic).forEach((one) => { one.tabIndex = 0; });
    if (large.open) { show(pic); }
  }
  function go(pic) {
    mark(pic);
    if (!large.open) { pic.focus(); }
  }
  function step(count) {
    const at = pics.indexOf(current) + count;
    if (at >= 0 && at < pics.length) { go(pics[at]); }
  }
  function stepRow(way) { // the nearest picture in the next row
    const box = current.getBoundingClientRect();
    let best = null, least = Infinity;
    pics.forEach((pic) => {
      const other = pic.getBoundingClientRect();
      const down = (other.top - box.top) * way;
      if (down < 4) { return; }
      const distance = down * 10 + Math.abs(other.left - box.left);
      if (distance < least) { least = distance; best = pic; }
    });
    if (best) { go(best); }
  }
  function show(pic) {
    if (!pic.querySelector(".open img")) { return; }
    const picture = document.getElementById("large-picture");
    picture.src = "/picture/" + pic.dataset.sha + "/large";
    picture.alt = pic.querySelector(".open img").alt;
    document.getElementById("large-text").textContent =
      pic.dataset.file + " · " + pic.querySelector(".label").textContent.trim().replace(/\s+/g, " ");
    shown = pic;
    if (!large.open) { large.showModal(); }
  }

  // ---- keys ----
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || help.open) { return; }
    if (event.target.closest("select, input, textarea") && event.key !== "Escape") { return; }
    const moves = { ArrowLeft: () => step(-1), ArrowRight: () => step(1), ArrowUp: () => stepRow(-1), ArrowDown: () => stepRow(1) };
    const jumps = { n: "next", p: "previous" };
    let done = true;
    if (event.key === "/" || event.key === "?") { help.showModal(); }
    else if (event.key === "z") { undo(); }
    else if (jumps[event.key]) { const link = document.getElementById(jumps[event.key]); if (link) { leave(link.href); } }
    else if (!current) { done = false; }
    else if (event.key === "k" || event.key === "d") {
      if (!event.repeat) { choose(current, { verdict: event.key === "k" ? "keep" : "drop" }); step(1); }
    } else if (event.key >= "1" && event.key <= "9") { choose(current, { view: VIEWS[Number(event.key) - 1] }); }
    else if (event.key === "0") { choose(current, { verdict: "", view: "" }); }
    else if (moves[event.key]) { moves[event.key](); }
    else if (event.key === "Enter" && event.target === current) { show(current); }
    else { done = false; }
    if (done) { event.preventDefault(); }
  });
  function leave(address) { sending.then(() => { location.href = address; }); }

  // ---- click and touch ----
  pics.forEach((pic) => {
    pic.addEventListener("focusin", () => mark(pic));
    pic.addEventListener("click", (event) => {
      mark(pic);
      const button = event.target.closest("button");
      if (!button) { return; }
      if (button.classList.contains("open")) { show(pic); return; }
      const pressed = button.getAttribute("aria-pressed") === "true";
      choose(pic, { verdict: pressed ? "" : button.dataset.act });
    });
    const select = pic.querySelector("select");
    if (select) { select.addEventListener("change", () => { choose(pic, { view: select.value }); pic.focus(); }); }
    const picture = pic.querySelector(".open img");
    if (picture) {
      picture.addEventListener("error", () => {
        const none = document.createElement("span");
        none.className = "none";
        none.textContent = "gone or changed since the build";
        picture.replaceWith(none);
      });
    }
  });
  undoButton.addEventListener("click", undo);
  document.getElementById("help-open").addEventListener("click", () => help.showModal());
  document.querySelectorAll("[data-close]").forEach((one) => {
    one.addEventListener("click", () => one.closest("dialog").close());
  });
  large.addEventListener("close", () => go(shown)); // the browser would return to where it was opened
  document.querySelectorAll("#filters select").forEach((one) => {
    one.addEventListener("change", () => one.form.submit());
  });
  window.addEventListener("beforeunload", (event) => { if (pending) { event.preventDefault(); } });

  // ---- rebuild, and what other tabs do ----
  async function status() {
    const answer = await fetch("/status");
    return answer.json();
  }
  const AT_KEY = "clinic-at";
  function refresh() { // and select the same picture again
    sending.then(() => {
      try { sessionStorage.setItem(AT_KEY, current ? current.dataset.file : ""); } catch { /* then the first one is selected */ }
      location.reload();
    });
  }
  function begin() {
    let at = "";
    try { at = sessionStorage.getItem(AT_KEY) || ""; sessionStorage.removeItem(AT_KEY); } catch { /* as above */ }
    const known = pics.find((pic) => at && pic.dataset.file === at);
    if (known) { go(known); }
    else if (pics.length) { go(pics[0]); window.scrollTo(0, 0); }
  }
  async function watch() {
    rebuildButton.disabled = true;
    document.body.classList.add("busy");
    let reply;
    do {
      await new Promise((wake) => setTimeout(wake, POLL_MS));
      try { reply = await status(); } catch { showMessage("The clinic does not answer: is it still running?", true); return; }
      if (reply.state === "running") { showMessage("Rebuilding, " + reply.seconds + " s: " + reply.message); }
    } while (reply.state === "running");
    rebuildButton.disabled = false;
    document.body.classList.remove("busy");
    if (reply.state === "failed") { showMessage("The rebuild stopped, and the set is as it was: " + reply.error, true); }
    else { refresh(); }
  }
  rebuildButton.addEventListener("click", () => {
    sending.then(async () => {
      try {
        await post("/rebuild", {});
        showMessage("Rebuilding.");
        watch();
      } catch (error) {
        showMessage(error.message, true);
      }
    });
  });
  async function compare() { // when this tab becomes visible: another one may have changed something
    if (document.visibilityState !== "visible" || pending || rebuildButton.disabled) { return; }
    try {
      const reply = await status();
      if (reply.state === "running") { watch(); }
      else if (String(reply.build) !== document.body.dataset.build || reply.revision !== document.body.dataset.revision) { refresh(); }
    } catch { /* reported with the next action */ }
  }
  document.addEventListener("visibilitychange", compare);

  document.documentElement.classList.add("js");
  writeUndo(readUndo());
  document.querySelectorAll("nav [aria-current]").forEach((one) => one.scrollIntoView({ inline: "center", block: "nearest" }));
  begin();
  status().then((reply) => { if (reply.state === "running") { watch(); } }).catch(() => {});
})();
