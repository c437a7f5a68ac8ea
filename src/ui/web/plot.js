// Curves as SVG, in the style of the report (plot.css).
import { element } from "./format.js";

const [WIDTH, HEIGHT] = [360, 224];
const FRAME = { left: 46, right: 10, top: 46, bottom: 38 };
// From this number of points on, a noisy curve is smoothed, as in the report.
const SMOOTH_FROM = 12;
// Up to this number of points, a curve shows them.
const MARKED = 20;

function svg(name, attributes, text) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

/** About `count` round numbers between `low` and `high`. */
function ticks(low, high, count) {
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((n) => n * power).find((n) => n >= rough);
  const out = [];
  // Adding 0 turns -0 into 0.
  for (let i = Math.ceil(low / step - 1e-9) + 0; i * step <= high + 1e-9 * step; i++) out.push(i * step);
  return out;
}

/** A round number without trailing zeros: "50 %" for "50.0 %". */
function bare(text) {
  return text.replace(/(\.\d*?)0+(?!\d)/, "$1").replace(/\.(?!\d)/, "");
}

/** The running mean over about 1.5 √n points. */
function smoothed(points) {
  const half = Math.floor((1.5 * Math.sqrt(points.length)) / 2);
  return points.map(([step], i) => {
    const window = points.slice(Math.max(i - half, 0), i + half + 1);
    return [step, window.reduce((sum, point) => sum + point[1], 0) / window.length];
  });
}

/** The point nearest to a step. */
function nearest(points, step) {
  let [low, high] = [0, points.length - 1];
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (points[middle][0] < step) low = middle;
    else high = middle;
  }
  return Math.abs(points[low][0] - step) <= Math.abs(points[high][0] - step) ? points[low] : points[high];
}

/**
 * A curve that can be redrawn: `points` are [step, value] or [step, mean, minimum, maximum]; `label` is what the values
 * are, `write` formats one, `range` is the minimum range of the axis, `level` a value for comparison. An `exact` curve
 * goes through its points, however many.
 */
export class Plot {
  constructor({ title, label, colour, write, range, level, exact }) {
    Object.assign(this, { title, label, colour, write, range, level, exact });
    this.figure = element("figure");
    this.svg = svg("svg", { class: "plot", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img" });
    this.figure.append(this.svg);
    this.svg.addEventListener("pointermove", (event) => this.point(event));
    this.svg.addEventListener("pointerleave", () => {
      this.at = undefined;
      this.leave();
    });
  }

  /** Draws the points on an axis from 0 to the step `last`. */
  draw(points, last) {
    this.points = points;
    this.smooth = !this.exact && points.length >= SMOOTH_FROM;
    last = Math.max(last, 1);
    const values = points.flatMap((point) => point.slice(1)).concat(this.range ?? []);
    let [low, high] = [Math.min(...values), Math.max(...values)];
    if (high - low < 1e-9 * Math.max(1, Math.abs(high))) [low, high] = [low - 0.5 * (Math.abs(low) || 1), high + 0.5 * (Math.abs(high) || 1)];
    const inner = !this.range && 0.06 * (high - low);
    [low, high] = [low - inner, high + inner];
    const right = WIDTH - FRAME.right;
    const bottom = HEIGHT - FRAME.bottom;
    this.x = (step) => FRAME.left + (step / last) * (right - FRAME.left);
    this.y = (value) => bottom - ((value - low) / (high - low)) * (bottom - FRAME.top);
    this.back = (x) => ((x - FRAME.left) / (right - FRAME.left)) * last;

    const latest = points.at(-1);
    const said = `${this.title}: ${this.write(latest[1])} at step ${Math.round(latest[0])}, between ${this.write(Math.min(...points.map((p) => p[1])))} and ${this.write(Math.max(...points.map((p) => p[1])))} so far`;
    this.svg.setAttribute("aria-label", said);
    const parts = [svg("text", { class: "title", x: 0, y: 13 }, this.title), svg("text", { x: 0, y: 29 }, this.label)];
    for (const tick of ticks(low, high, 4)) {
      const y = this.y(tick);
      parts.push(svg("path", { class: "grid", d: `M${FRAME.left} ${y}H${right}` }));
      parts.push(svg("text", { x: FRAME.left - 6, y: y + 4, "text-anchor": "end" }, bare(this.write(tick))));
    }
    for (const tick of ticks(0, last, 4).filter(Number.isInteger)) {
      const [x, end] = [this.x(tick), this.x(tick) > right - 16];
      parts.push(svg("text", { x: end ? right : x, y: bottom + 16, "text-anchor": end ? "end" : "middle" }, tick.toLocaleString("en")));
    }
    parts.push(svg("path", { class: "axis", d: `M${FRAME.left} ${bottom}H${right}` }));
    parts.push(svg("text", { x: right, y: bottom + 32, "text-anchor": "end" }, "step"));
    if (this.level !== undefined) parts.push(svg("path", { class: "level", d: `M${FRAME.left} ${this.y(this.level)}H${right}` }));
    const line = (points) => points.map(([step, value], i) => `${i ? "L" : "M"}${this.x(step).toFixed(1)} ${this.y(value).toFixed(1)}`).join("");
    if (points.some((point) => point.length === 4)) {
      const side = (at) => points.map((point) => [point[0], point[at] ?? point[1]]);
      parts.push(svg("path", { class: `band c${this.colour} shows`, d: `${line(side(3))}${line(side(2).reverse()).replace("M", "L")}Z` }));
    }
    // A stroke of length 0 is drawn as a dot.
    const dots = points.map(([step, value]) => `M${this.x(step).toFixed(1)} ${this.y(value).toFixed(1)}h0`).join("");
    if (this.smooth) parts.push(svg("path", { class: `dots s${this.colour}`, d: dots }));
    parts.push(svg("path", { class: `curve s${this.colour}`, d: line(this.smooth ? smoothed(points) : points) }));
    if (!this.smooth && points.length <= MARKED) parts.push(svg("path", { class: `mark s${this.colour}`, d: dots }));
    this.mark = svg("path", { class: "axis", d: "" });
    this.value = svg("text", { class: "value", x: right, y: 13, "text-anchor": "end" }, "");
    parts.push(this.mark, this.value);
    this.svg.replaceChildren(...parts);
    this.leave();
    if (this.at !== undefined) this.show(this.at);
  }

  point(event) {
    const box = this.svg.getBoundingClientRect();
    this.at = this.back(((event.clientX - box.left) / box.width) * WIDTH);
    this.show(this.at);
  }

  show(step) {
    const [at, value] = nearest(this.points, step);
    this.mark.setAttribute("d", `M${this.x(at)} ${FRAME.top}V${HEIGHT - FRAME.bottom}`);
    this.value.textContent = `step ${Math.round(at).toLocaleString("en")}: ${this.write(value)}`;
  }

  leave() {
    this.mark.setAttribute("d", "");
    this.value.textContent = this.write(this.points.at(-1)[1]);
  }
}
