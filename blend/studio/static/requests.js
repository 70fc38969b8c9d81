// Requests to the server: one line of text for every error, and streams of job progress.
"use strict";

export const TAB = Math.random().toString(36).slice(2, 12);
const GONE = "The studio does not respond. Start it again with `make studio`; this page then reconnects by itself, and nothing that you kept is lost.";

export class RequestError extends Error {
  constructor(text, status) { super(text); this.status = status; }
}

async function request(path, options) {
  let response;
  try { response = await fetch(path, options); } catch { throw new RequestError(GONE, 0); }
  const content = await response.json().catch(() => ({ error: "The response of the studio cannot be read; reload the page." }));
  if (!response.ok) { throw new RequestError(content.error || response.statusText, response.status); }
  return content;
}

export function get(path) { return request(path, {}); }

export function post(path, body) {
  return request(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
}

export function upload(file) {
  return request("/uploads", { method: "POST", headers: { "Content-Type": "application/octet-stream" }, body: file });
}

// Follows a job to its end; `onState` gets every state. Only a visible tab holds a connection: a browser has six of them
// for all its tabs.
export function follow(key, onState) {
  let source = null, stopped = false;
  return new Promise((resolve, reject) => {
    function end(how, value) {
      stopped = true;
      if (source) { source.close(); }
      document.removeEventListener("visibilitychange", onVisibility);
      how(value);
    }
    function open() {
      source = new EventSource(`/jobs/${encodeURIComponent(key)}`);
      source.onmessage = (event) => {
        const now = JSON.parse(event.data);
        onState(now);
        if (["done", "failed", "cancelled"].includes(now.state)) { end(resolve, now); }
      };
      source.onerror = () => {
        if (source.readyState === EventSource.CLOSED) { end(reject, new RequestError(GONE, 0)); }
      };
    }
    function onVisibility() {
      if (stopped) { return; }
      if (document.visibilityState === "hidden") { source.close(); } else if (source.readyState === EventSource.CLOSED) { open(); }
    }
    open();
    document.addEventListener("visibilitychange", onVisibility);
  });
}

// Sends the newest query, and the next one only after the response to the last.
export class LatestRequest {
  constructor(path, onAnswer, onError) { Object.assign(this, { path, onAnswer, onError, next: null, busy: false }); }
  send(query) {
    this.next = query;
    if (!this.busy) { this.run(); }
  }
  async run() {
    this.busy = true;
    while (this.next !== null) {
      const query = this.next;
      this.next = null;
      try {
        const answer = await get(`${this.path}?${query}&tab=${TAB}`);
        if (!answer.superseded) { this.onAnswer(answer, query); }
      } catch (error) {
        this.onError(error, query);
        if (error.status === 0 && this.next === null) { // try again
          await new Promise((go) => setTimeout(go, 1500));
          this.next = this.next ?? query;
        }
      }
    }
    this.busy = false;
  }
}
