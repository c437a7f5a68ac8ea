// The page for labelling. Keys: 1 and 2 (which response is better), T (tie), S (skip), U (undo), C (comment).
import { counted, put, roughly } from "./format.js";
import { Problem, complain, follow, read, send, soon } from "./page.js";

const $ = (id) => document.getElementById(id);
const KEYS = { 1: "first", 2: "second", t: "tie", s: "skip" };
const SAID = { first: "Response 1 is better", second: "Response 2 is better", tie: "Tie", skip: "Skipped" };
// Too short a time to read a pair: a key pressed twice must not label the next pair.
const TOO_SOON_MS = 250;

let view = null;
let form = null;
// The queue of requests that are not done yet.
let work = Promise.resolve();
let asked = 0;
let labelling = false;
let over = false;
// How long the pair was looked at, without the time in which the page was hidden.
let looked = 0;
let since = performance.now();
let came = since;

function seconds() {
  return (looked + (document.hidden ? 0 : performance.now() - since)) / 1000;
}

document.addEventListener("visibilitychange", () => {
  if (document.hidden) looked += performance.now() - since;
  since = performance.now();
});

function say(text) {
  $("said").textContent = text;
}

function disable(button, disabled) {
  // A button with the attribute `disabled` would lose the focus.
  button.setAttribute("aria-disabled", String(disabled));
}

function draw(next) {
  view = next;
  const { pair, counts, last, closed } = view;
  $("pair").hidden = pair === null;
  $("empty").hidden = pair !== null;
  if (pair !== null && pair.form !== form) {
    form = pair.form;
    put($("prompt"), pair.prompt);
    put($("first"), pair.first);
    put($("second"), pair.second);
    $("comment").value = pair.comment;
    open(pair.comment !== "");
    [looked, since] = [0, performance.now()];
    came = since;
    scrollTo({ top: 0 });
    $("prompt").scrollTop = 0;
    fade();
  } else if (pair !== null && document.activeElement !== $("comment")) {
    $("comment").value = pair.comment;
    if (pair.comment !== "") open(true);
  }
  if (pair === null) {
    form = null;
    $("empty-title").textContent = closed !== null || over ? "No more labels are accepted" : "No pair is waiting";
    $("empty-text").textContent =
      closed !== null || over
        ? "All labels are saved."
        : "The next pairs appear here when the policy has written responses to its next prompts.";
  }
  const all = counts.given + counts.open;
  $("bar").max = Math.max(all, 1);
  $("bar").value = counts.given;
  $("counts").textContent = told(counts);
  document.title = `${counts.open > 0 ? `(${counts.open}) ` : ""}Label – oaif`;
  for (const name of Object.values(KEYS)) disable($(`choose-${name}`), pair === null || over);
  disable($("write"), pair === null || over);
  disable($("undo"), !last?.undoable || over);
  $("last").textContent = last === null ? "" : `Last label: ${SAID[last.choice]}${last.undoable ? "" : " (already used)"}`;
}

function told({ open, given, ties, skipped, per_minute, seconds_left }) {
  const parts = [`${counted(open, "pair")} left`, `${given.toLocaleString("en")} labelled`];
  if (ties > 0) parts.push(counted(ties, "tie"));
  if (skipped > 0) parts.push(`${skipped.toLocaleString("en")} skipped`);
  if (per_minute !== null) parts.push(`${per_minute.toFixed(per_minute < 10 ? 1 : 0)} labels a minute`);
  if (seconds_left !== null && open > 0) parts.push(`${roughly(seconds_left)} left`);
  return parts.join(" · ");
}

function open(shown) {
  $("comment-box").hidden = !shown;
  $("write").setAttribute("aria-expanded", String(shown));
}

/** Shows whether the prompt continues below the visible part. */
function fade() {
  const { scrollHeight, clientHeight, scrollTop } = $("prompt");
  $("prompt").classList.toggle("more", scrollHeight > clientHeight + scrollTop + 4);
}

/** The comment if it was changed, or `null`. */
function written() {
  const text = $("comment").value;
  return view.pair !== null && text.trim() !== view.pair.comment ? text : null;
}

/** Runs a job of the person after the earlier ones. */
function attempt(job) {
  if (over || view === null) return Promise.resolve();
  asked += 1;
  work = work.then(async () => {
    try {
      await job();
      complain("");
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      complain(error.message);
    } finally {
      asked -= 1;
      refresh();
    }
  });
  return work;
}

function label(choice) {
  const pair = view?.pair;
  if (!pair || labelling || performance.now() - came < TOO_SOON_MS) return;
  labelling = true;
  attempt(async () => {
    const { id, form, shown_first } = pair;
    const body = { id, form, shown_first, choice, comment: written(), seconds: seconds() };
    draw(await send("/api/label", body));
    const { open } = view.counts;
    say(`${SAID[choice]}. ${open === 0 ? "No pairs left." : `Next pair, ${open} left.`}`);
  }).finally(() => (labelling = false));
}

function undo() {
  const last = view?.last;
  if (!last) return say("There is no label to undo.");
  attempt(async () => {
    draw(await send("/api/undo", { id: last.id }));
    say(`Undone: ${SAID[last.choice]}. The pair is shown again.`);
  });
}

function save() {
  const pair = view?.pair;
  const comment = pair ? written() : null;
  if (comment === null) return;
  attempt(async () => {
    draw(await send("/api/comment", { id: pair.id, form: pair.form, comment }));
    say("Comment saved.");
  });
}

function write() {
  if (!view?.pair || over) return;
  open(true);
  $("comment").focus();
}

const refresh = soon(async () => {
  if (asked > 0) return;
  const next = await read(form === null ? "/api/desk" : `/api/desk?form=${form}`);
  // The answer to a label sent in the meantime is newer.
  if (asked > 0 || over) return;
  const was = view?.pair;
  draw(next);
  if (was && view.pair?.id !== was.id) say("The pair that was shown here was labelled on another page or withdrawn.");
});

for (const [key, choice] of Object.entries(KEYS)) {
  $(`choose-${choice}`).addEventListener("click", () => label(choice));
  $(`choose-${choice}`).setAttribute("aria-keyshortcuts", key.toUpperCase());
}
$("undo").addEventListener("click", undo);
$("undo").setAttribute("aria-keyshortcuts", "U");
$("write").addEventListener("click", write);
$("write").setAttribute("aria-keyshortcuts", "C");
$("comment").addEventListener("change", save);
$("prompt").addEventListener("scroll", fade);
addEventListener("resize", fade);

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing || event.defaultPrevented) return;
  if (event.target === $("comment")) {
    if (event.key === "Escape") $("comment").blur();
    return;
  }
  const key = event.key.toLowerCase();
  const action = { u: undo, c: write }[key] ?? (KEYS[key] && (() => label(KEYS[key])));
  if (!action) return;
  event.preventDefault();
  if (!event.repeat) action();
});

follow(refresh, () => {
  over = true;
  if (view !== null) draw({ ...view, pair: null, closed: "" });
  document.title = "Label – oaif";
});
