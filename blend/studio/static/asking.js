// Asking the server: one line of text for whatever goes wrong, and streams of what a job tells.
"use strict";

export const TAB = Math.random().toString(36).slice(2, 12);
const GONE = "The studio does not answer. Start it again with `make studio` in its terminal; this page goes on by itself then, and nothing that you kept is lost.";

export class Refused extends Error {
  constructor(text, status) { super(text); this.status = status; }
}

async function ask(path, options) {
  let answer;
  try { answer = await fetch(path, options); } catch { throw new Refused(GONE, 0); }
  const said = await answer.json().catch(() => ({ error: "The studio gave an answer that cannot be read; load the page anew." }));
  if (!answer.ok) { throw new Refused(said.error || answer.statusText, answer.status); }
  return said;
}

export function get(path) { return ask(path, {}); }

export function post(path, body) {
  return ask(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
}

export function upload(file) {
  return ask("/uploads", { method: "POST", headers: { "Content-Type": "application/octet-stream" }, body: file });
}

// Follows a job to its end; `tell` hears every state. Only a tab that is looked at holds a connection: a browser has six
// of them for all its tabs.
export function follow(key, tell) {
  let source = null, over = false, stopped = false;
  return new Promise((resolve, reject) => {
    function end(how, value) {
      stopped = true;
      if (source) { source.close(); }
      document.removeEventListener("visibilitychange", look);
      how(value);
    }
    function open() {
      source = new EventSource(`/jobs/${encodeURIComponent(key)}`);
      source.onmessage = (event) => {
        const now = JSON.parse(event.data);
        tell(now);
        over = ["done", "failed", "cancelled"].includes(now.state);
        if (over) { end(resolve, now); }
      };
      source.onerror = () => {
        if (source.readyState === EventSource.CLOSED) { end(reject, new Refused(GONE, 0)); }
      };
    }
    function look() {
      if (stopped) { return; }
      if (document.visibilityState === "hidden") { source.close(); } else if (source.readyState === EventSource.CLOSED) { open(); }
    }
    open();
    document.addEventListener("visibilitychange", look);
  });
}

// Sends the newest of what is asked for, and the next only when the last answer is there.
export class Latest {
  constructor(path, take, fail) { Object.assign(this, { path, take, fail, wanted: null, busy: false, again: 0 }); }
  want(query) {
    this.wanted = query;
    if (!this.busy) { this.run(); }
  }
  async run() {
    this.busy = true;
    while (this.wanted !== null) {
      const query = this.wanted;
      this.wanted = null;
      try {
        const said = await get(`${this.path}?${query}&tab=${TAB}`);
        if (!said.superseded) { this.take(said, query); }
      } catch (error) {
        this.fail(error, query);
        if (error.status === 0 && this.wanted === null) { // it may come back
          await new Promise((go) => setTimeout(go, 1500));
          this.wanted = this.wanted ?? query;
        }
      }
    }
    this.busy = false;
  }
}
