// Curves as SVG, in the style of the report (plot.css).
import { element } from "./format.js";

const [WIDTH, HEIGHT] = [360, 190];
const FRAME = { left: 46, right: 10, top: 30, bottom: 24 };
// From this number of points on, a smoothed curve is drawn as well.
const SMOOTH_FROM = 30;

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
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + 1e-9 * step; i++) out.push(i * step);
  return out;
}

/** A round number without trailing zeros. */
function bare(text) {
  return text.replace(/(\.\d*?)0+$/, "$1").replace(/\.$/, "");
}

/** The moving average. */
function smoothed(points) {
  const reach = Math.floor(points.length / 30);
  return points.map(([step], i) => {
    // Near the ends the window shrinks symmetrically, so that the ends are not pulled towards the middle, down to a
    // minimum.
    const near = Math.max(Math.min(reach, i, points.length - 1 - i), Math.ceil(reach / 3));
    const window = points.slice(Math.max(i - near, 0), i + near + 1);
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
 * A curve that can be redrawn: `points` are [step, value] or [step, mean, minimum, maximum]; `write` formats a value,
 * `range` is the minimum range of the axis, `level` a value for comparison.
 */
export class Plot {
  constructor({ title, colour, write, range, level }) {
    Object.assign(this, { title, colour, write, range, level });
    this.figure = element("figure");
    this.svg = svg("svg", { class: "plot", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img" });
    this.figure.append(this.svg);
    this.svg.addEventListener("pointermove", (event) => this.point(event));
    this.svg.addEventListener("pointerleave", () => {
      this.at = undefined;
      this.leave();
    });
  }

  draw(points) {
    this.points = points;
    const values = points.flatMap((point) => point.slice(1)).concat(this.range ?? []);
    let [low, high] = [Math.min(...values), Math.max(...values)];
    if (high - low < 1e-9 * Math.max(1, Math.abs(high))) [low, high] = [low - 0.5 * (Math.abs(low) || 1), high + 0.5 * (Math.abs(high) || 1)];
    const inner = !this.range && 0.06 * (high - low);
    [low, high] = [low - inner, high + inner];
    const [first, last] = [points[0][0], Math.max(points.at(-1)[0], points[0][0] + 1)];
    const right = WIDTH - FRAME.right;
    const bottom = HEIGHT - FRAME.bottom;
    this.x = (step) => FRAME.left + ((step - first) / (last - first)) * (right - FRAME.left);
    this.y = (value) => bottom - ((value - low) / (high - low)) * (bottom - FRAME.top);
    this.back = (x) => first + ((x - FRAME.left) / (right - FRAME.left)) * (last - first);

    const latest = points.at(-1);
    const said = `${this.title}: ${this.write(latest[1])} at step ${Math.round(latest[0])}, between ${this.write(Math.min(...points.map((p) => p[1])))} and ${this.write(Math.max(...points.map((p) => p[1])))} so far`;
    this.svg.setAttribute("aria-label", said);
    const parts = [svg("text", { class: "title", x: 0, y: 13 }, this.title)];
    for (const tick of ticks(low, high, 4)) {
      const y = this.y(tick);
      parts.push(svg("path", { class: "grid", d: `M${FRAME.left} ${y}H${right}` }));
      parts.push(svg("text", { x: FRAME.left - 6, y: y + 4, "text-anchor": "end" }, bare(this.write(tick))));
    }
    for (const tick of ticks(first, last, 4).filter(Number.isInteger)) {
      const [x, end] = [this.x(tick), this.x(tick) > right - 16];
      parts.push(svg("text", { x: end ? right : x, y: bottom + 16, "text-anchor": end ? "end" : "middle" }, tick.toLocaleString("en")));
    }
    parts.push(svg("path", { class: "axis", d: `M${FRAME.left} ${bottom}H${right}` }));
    if (this.level !== undefined) parts.push(svg("path", { class: "level", d: `M${FRAME.left} ${this.y(this.level)}H${right}` }));
    const line = (points) => points.map(([step, value], i) => `${i ? "L" : "M"}${this.x(step).toFixed(1)} ${this.y(value).toFixed(1)}`).join("");
    if (points.some((point) => point.length === 4)) {
      const side = (at) => points.map((point) => [point[0], point[at] ?? point[1]]);
      parts.push(svg("path", { class: `band c${this.colour} shows`, d: `${line(side(3))}${line(side(2).reverse()).replace("M", "L")}Z` }));
    }
    if (points.length === 1) {
      parts.push(svg("path", { class: `mark s${this.colour}`, d: `M${this.x(points[0][0])} ${this.y(points[0][1])}h.01` }));
    } else if (points.length < SMOOTH_FROM) {
      parts.push(svg("path", { class: `curve s${this.colour}`, d: line(points) }));
    } else {
      parts.push(svg("path", { class: `beyond s${this.colour} faint`, d: line(points) }));
      parts.push(svg("path", { class: `curve s${this.colour}`, d: line(smoothed(points)) }));
    }
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
