// Shared by both pages: requests to the server, its events, and the connection state.

const value = document.querySelector('meta[name="oaif-page"]').content;
const connection = document.getElementById("connection");
const problem = document.getElementById("problem");

const LOST = "No answer from oaif: it was stopped or cannot be reached. Trying again …";
const RESTARTED =
  "This page belongs to an earlier start of oaif. Open the address that oaif printed at its latest start. Accepted labels are saved.";

/** An error whose message is shown to the person. */
export class Problem extends Error {}

async function ask(path, options) {
  let response;
  try {
    response = await fetch(path, { ...options, cache: "no-store", credentials: "same-origin" });
  } catch {
    throw new Problem("oaif did not answer, so nothing was done.");
  }
  if (response.ok) return response.json();
  const text = await response.text();
  try {
    throw new Problem(JSON.parse(text).error);
  } catch (error) {
    throw error instanceof Problem ? error : new Problem(text.trim() || `oaif answered with ${response.status}.`);
  }
}

/** Reads JSON. */
export function read(path) {
  return ask(path, {});
}

/** Sends a change; resolves to the new state. */
export function send(path, body) {
  const headers = { "content-type": "application/json", "x-oaif-page": value };
  return ask(path, { method: "POST", headers, body: JSON.stringify(body) });
}

/** Shows a problem, or hides it if the text is "". */
export function complain(text) {
  problem.hidden = text === "";
  problem.textContent = text;
}

function tell(text, kind = "warning") {
  connection.className = kind;
  connection.hidden = text === "";
  if (connection.textContent !== text) connection.textContent = text;
  document.body.classList.toggle("away", text !== "");
}

/** A function that runs `job`, never twice at once and at most every `pause` milliseconds. */
export function soon(job, pause) {
  let [running, again] = [false, false];
  return async function start() {
    if (running) {
      again = true;
      return;
    }
    running = true;
    do {
      again = false;
      try {
        await job();
      } catch (error) {
        // The events show whether the server can be reached.
        if (!(error instanceof Problem)) console.error(error);
      }
      if (pause) await new Promise((done) => setTimeout(done, pause));
    } while (again);
    running = false;
  };
}

let events = null;
// A page closes its event stream when it is hidden, and reloads when it is shown again from the cache.
addEventListener("pagehide", () => events?.close());
addEventListener("pageshow", (event) => event.persisted && location.reload());

/** Calls `changed` at every change and `ended` with the last state of the run; reconnects if necessary. */
export function follow(changed, ended) {
  events = new EventSource("/api/events");
  events.addEventListener("open", () => tell(""));
  events.addEventListener("change", changed);
  events.addEventListener("end", (event) => {
    events.close();
    const state = JSON.parse(event.data);
    tell(state.outcome ?? "oaif has ended. This page shows the last known state.", "warning notice");
    ended(state);
  });
  events.addEventListener("error", async () => {
    // The browser would retry at long intervals, and not at all once the server has refused.
    events.close();
    const status = await fetch("/run", { method: "HEAD", cache: "no-store" }).then((r) => r.status, () => 0);
    if (status === 403) {
      complain("");
      return tell(RESTARTED);
    }
    if (status === 0) tell(LOST);
    setTimeout(() => follow(changed, ended), 1000);
  });
}
