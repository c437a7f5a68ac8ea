// The page of a run.
import { clock, counted, element, number, put, share } from "./format.js";
import { Problem, complain, follow, read, send, soon } from "./page.js";
import { Plot } from "./plot.js";

const $ = (id) => document.getElementById(id);
// The interval between two reads of the state.
const PAUSE_MS = 1000;
// The number of pairs shown until "Show all" is clicked.
const FEW = 6;
// Prompts with more characters than this are folded.
const LONG = 320;

// Titles and labels are those of the report.
const SHARE = { write: share, range: [0, 1] };
const PLOTS = {
  win_rate: { title: "Win rate against the starting model", label: "on held-out prompts", colour: 2, level: 0.5, exact: true, ...SHARE },
  held_out_loss: { title: "Loss on held-out pairs", label: "mean over the pairs", colour: 0, write: number, exact: true },
  loss: { title: "Loss", label: "mean of the step", colour: 0, write: number },
  reward: { title: "Score", label: "of a response, mean", colour: 2, write: number },
  margin: { title: "Reward margin", label: "chosen minus rejected, mean", colour: 2, write: number },
  accuracy: { title: "Reward accuracy", label: "share of the pairs with a margin above 0", colour: 2, level: 0.5, ...SHARE },
  kl: { label: "mean of log π − log π₀ of a response, nats", colour: 1, write: number },
  length: { title: "Length of the responses", label: "tokens, mean", colour: 3, write: number },
  first_preferred: { title: "Response 1 preferred", label: "share of the pairs with a preference", colour: 4, level: 0.5, ...SHARE },
  longer_preferred: { title: "Longer response preferred", label: "share of the pairs with a preference, so far", colour: 4, level: 0.5, exact: true, ...SHARE },
  order_flips: { title: "Order flips", label: "share of the pairs judged in both orders", colour: 4, ...SHARE },
  gradient_norm: { title: "Gradient norm", label: "before clipping", colour: 5, write: number },
};
const PHASES = ["sampling", "judging", "reference", "forward", "backward", "exchange", "update"];

const plots = new Map();
let state = null;
let over = false;
let all = false;
// The articles of the shown pairs, by their content.
let articles = new Map();

function draw(next) {
  const asked = state;
  state = next;
  if (asked?.save && !state.save && !over) $("said").textContent = "Checkpoint saved.";
  put($("title"), state.title);
  document.title = `${state.total_steps ? `${state.step}/${state.total_steps} ` : ""}${state.title} – oaif`;
  drawState();
  drawFigures();
  drawCurves();
  drawTimes();
  drawWarnings();
  drawPairs();
  drawFacts();
}

function drawState() {
  const { step, total_steps, seconds_left, phase, outcome, pause, save, stop } = state;
  $("bar").max = Math.max(total_steps, 1);
  $("bar").value = step;
  const parts = [];
  if (over) parts.push("Ended");
  else if (outcome !== null) parts.push(outcome);
  else if (stop) parts.push("Stopping after this step");
  else if (phase === "paused") parts.push("Paused");
  else if (pause) parts.push("Pausing after this step");
  else parts.push(phase ? phase[0].toUpperCase() + phase.slice(1) : "Starting");
  if (total_steps > 0) parts.push(`step ${step.toLocaleString("en")} of ${total_steps.toLocaleString("en")}`);
  if (seconds_left !== null && seconds_left > 0 && !over && !pause) parts.push(`${clock(seconds_left)} left`);
  $("state").textContent = parts.join(" · ");
  const ended = over || outcome !== null;
  $("pause").disabled = ended || stop;
  $("pause").textContent = pause ? "Resume" : "Pause";
  $("save").disabled = ended || stop || save;
  $("save").textContent = save ? "Saving after this step …" : "Save a checkpoint";
  $("stop").disabled = ended || stop;
}

function drawFigures() {
  const { seconds, win_rate, loss, reward, margin, kl, kl_name, length, memory, tokens_per_second, steps_without_update, outcome } = state;
  const [rate, low, high] = win_rate ?? [];
  const figures = [
    win_rate && ["Win rate", share(rate), `95 % interval ${(100 * low).toFixed(1)} to ${share(high)}`],
    length !== null && ["Length of a response", `${number(length)} tokens`, "latest step"],
    kl !== null && [kl_name, `${number(kl)} nats`, "latest step"],
    reward === null ? ["Loss", number(loss), "latest step"] : ["Score", number(reward), "latest step"],
    margin !== null && ["Reward margin", number(margin), "latest step"],
    ["Speed", tokens_per_second ? Math.round(tokens_per_second).toLocaleString("en") : "–", "tokens per second"],
    ["GPU memory", memory ? memory[0] : "–", memory ? `peak ${memory[1]}` : ""],
    [over || outcome !== null ? "Ran for" : "Running for", clock(seconds), steps_without_update ? `${counted(steps_without_update, "step")} without an update` : ""],
  ].filter(Boolean);
  $("figures").replaceChildren(
    ...figures.map(([label, value, note]) => {
      const item = element("li");
      item.append(element("span", "", label), element("strong", "", value), element("small", "", note));
      return item;
    }),
  );
}

function drawCurves() {
  for (const [name, options] of Object.entries(PLOTS)) {
    const points = state.curves[name];
    if (points.length === 0) continue;
    if (!plots.has(name)) plots.set(name, new Plot({ title: state.kl_name, ...options }));
    plots.get(name).draw(points, state.step);
  }
  const shown = Object.keys(PLOTS).filter((name) => plots.has(name));
  if ($("curves").childElementCount !== shown.length) $("curves").replaceChildren(...shown.map((name) => plots.get(name).figure));
  $("no-curves").hidden = shown.length > 0;
  $("smoothed").hidden = !shown.some((name) => plots.get(name).smooth);
}

function drawTimes() {
  const { phases, step_ms } = state;
  $("times-section").hidden = step_ms === null;
  if (step_ms === null) return;
  $("times-text").textContent = `Mean of up to 20 latest steps: ${number(step_ms / 1000)} s per step.`;
  const colour = (phase) => PHASES.indexOf(phase);
  const total = Math.max(step_ms, phases.reduce((sum, [, ms]) => sum + ms, 0), 1e-9);
  $("times-bar").replaceChildren(
    ...phases.map(([phase, ms]) => {
      const part = element("span", `part k${colour(phase)}`);
      part.style.flexGrow = String(ms / total);
      return part;
    }),
  );
  $("times").replaceChildren(
    ...phases.map(([phase, ms]) => {
      const row = element("tr");
      const name = element("td");
      name.append(element("span", `key k${colour(phase)}`), phase);
      row.append(name, element("td", "number", ms >= 10 ? Math.round(ms).toLocaleString("en") : ms.toFixed(1)), element("td", "number", share(ms / total)));
      return row;
    }),
  );
}

function drawWarnings() {
  $("warnings-section").hidden = state.warnings.length === 0;
  $("warnings").replaceChildren(
    ...state.warnings.map(({ text, count, step }) => {
      const warning = element("div", "warning");
      const said = element("p");
      put(said, text);
      const when = step === 0 ? "before the first step" : `after step ${step.toLocaleString("en")}`;
      warning.append(said, element("small", "", count > 1 ? `${counted(count, "time")}, the last one ${when}` : when));
      return warning;
    }),
  );
}

function drawPairs() {
  // A judge compares pairs of responses, or rates each by itself.
  const rates = state.ratings.length > 0;
  const samples = rates ? state.ratings : state.pairs;
  const pairs = all ? samples : samples.slice(0, FEW);
  $("pairs-title").textContent = rates ? "Latest responses" : "Latest pairs";
  $("no-pairs").hidden = pairs.length > 0;
  $("more").hidden = samples.length <= FEW;
  $("more").firstElementChild.textContent = all ? "Show fewer" : `Show all ${samples.length}`;
  // The list must not change while a person reads it.
  const reads = articles.size > 0 && !over && ($("pairs").matches(":hover, :focus-within") || $("pairs").querySelector("details[open]") !== null);
  $("held").hidden = !reads;
  if (reads) return;
  const shown = new Map();
  pairs.forEach((pair) => {
    const key = JSON.stringify(pair);
    shown.set(key, articles.get(key) ?? (rates ? rated : compared)(pair));
  });
  articles = shown;
  $("pairs").replaceChildren(...shown.values());
}

/** A prompt; a long one is folded. */
function promptOf(text) {
  if (text.length <= LONG) {
    const prompt = element("p", "prompt");
    put(prompt, text);
    return prompt;
  }
  const [details, summary, whole] = [element("details", "prompt"), element("summary"), element("p")];
  put(summary, `${text.slice(0, LONG / 2).replace(/\s+/g, " ")} …`);
  put(whole, text);
  details.append(summary, whole);
  return details;
}

/** A response with its title, its text, and whether it was preferred. */
function answerOf(title, text, chosen) {
  const answer = element("div", chosen ? "preferred" : "");
  const over = element("p", "over", title);
  if (chosen) over.append(element("b", "", "preferred"));
  const said = element("p");
  said.dir = "auto";
  put(said, text);
  answer.append(over, said);
  return answer;
}

function rated({ step, prompt, response, score, advantage, skipped }) {
  const [made, answers] = [element("article"), element("div", "answers")];
  answers.append(answerOf("Response", response, false));
  const notes = [`Step ${step.toLocaleString("en")}`];
  if (score !== null) notes.push(`rating ${number(score)}`, `advantage ${number(advantage ?? 0)}`);
  if (skipped !== null) notes.push(`skipped: ${skipped}`);
  made.append(promptOf(prompt), answers, element("p", "note", notes.join(" · ")));
  return made;
}

function compared(pair) {
  const made = element("article");
  const answers = element("div", "answers");
  for (const [i, text] of [pair.response_1, pair.response_2].entries()) {
    answers.append(answerOf(`Response ${i + 1}`, text, pair.verdict === String(i + 1)));
  }
  const notes = [`Step ${pair.step.toLocaleString("en")}`];
  if (pair.p_first !== null) notes.push(`judge's probability for response 1: ${pair.p_first.toFixed(3)}`);
  if (pair.verdict === "tie") notes.push("a tie");
  if (pair.order_flip) notes.push("order flip");
  if (pair.skipped !== null) notes.push(`skipped: ${pair.skipped}`);
  else if (pair.verdict === "invalid") notes.push("no usable verdict");
  else if (pair.chosen === null && ["1", "2"].includes(pair.verdict)) notes.push("not trained on");
  made.append(promptOf(pair.prompt), answers, element("p", "note", notes.join(" · ")));
  return made;
}

function drawFacts() {
  $("facts").replaceChildren(
    ...state.facts.map(([name, value]) => {
      const fact = element("div");
      const what = element("dd");
      put(what, value);
      fact.append(element("dt", "", name), what);
      return fact;
    }),
  );
}

async function wish(wish, said) {
  try {
    draw(await send("/api/request", { wish }));
    complain("");
    $("said").textContent = said;
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    complain(error.message);
  }
}

$("pause").addEventListener("click", () => (state.pause ? wish("resume", "") : wish("pause", "")));
$("save").addEventListener("click", () => wish("save", ""));
$("stop").addEventListener("click", () => $("confirm").showModal());
$("keep").addEventListener("click", () => $("confirm").close());
$("really").addEventListener("click", () => {
  $("confirm").close();
  wish("stop", "");
});
$("more").addEventListener("click", () => {
  all = !all;
  articles = new Map();
  drawPairs();
});
if (document.body.dataset.labels !== "yes") document.querySelector("nav").remove();

const refresh = soon(async () => {
  const next = await read("/api/run");
  if (!over) draw(next);
}, PAUSE_MS);

// Updates the clock between two events.
setInterval(() => !over && state && !document.hidden && refresh(), 15000);
follow(refresh, (last) => {
  over = true;
  draw(last);
});
