// Offers the demo run: starts it, shows its progress, and opens the studio when it is done.
"use strict";
import { follow, post } from "./requests.js";

const start = document.getElementById("start");
const stop = document.getElementById("stop");
const message = document.getElementById("demo-message");

function show(now) {
  if (now.plan) {
    for (const stage of now.plan) {
      const item = document.querySelector(`[data-stage="${stage.name}"]`);
      item.dataset.state = stage.state;
      item.querySelector("em").textContent = stage.state === "open" ? `about ${stage.seconds < 90 ? `${stage.seconds} s` : `${Math.round(stage.seconds / 60)} min`}` : stage.state;
    }
  }
  if (now.state === "running" || now.state === "waiting") { message.textContent = now.message || "starting"; }
}

async function begin() {
  start.disabled = true;
  stop.hidden = false;
  message.classList.remove("bad");
  try {
    const job = await post("/jobs/demo", {});
    const end = await follow(job.key, show);
    if (end.state === "done") { location.assign("/"); return; }
    message.textContent = end.state === "cancelled" ? "Stopped. Start it again to resume." : end.error;
    message.classList.toggle("bad", end.state === "failed");
  } catch (error) {
    message.textContent = error.message;
    message.classList.add("bad");
  }
  start.disabled = false;
  start.textContent = "Resume";
  stop.hidden = true;
}

start.addEventListener("click", begin);
stop.addEventListener("click", () => post("/jobs/demo/cancel", {}).catch((error) => { message.textContent = error.message; }));
if (document.getElementById("offer").dataset.running === "yes") { begin(); }
