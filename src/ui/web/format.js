// Formatting of numbers and times, and safe display of untrusted texts.

/** "0:07", "12:34", "1:02:03". */
export function clock(seconds) {
  const s = Math.round(seconds);
  const two = (n) => String(n).padStart(2, "0");
  const [h, m] = [Math.floor(s / 3600), Math.floor(s / 60)];
  return h > 0 ? `${h}:${two(m % 60)}:${two(s % 60)}` : `${m}:${two(s % 60)}`;
}

/** "less than a minute", "about 5 minutes", "about 2.5 hours". */
export function roughly(seconds) {
  if (seconds < 60) return "less than a minute";
  const minutes = Math.round(seconds / 60);
  if (minutes < 90) return minutes === 1 ? "about a minute" : `about ${minutes} minutes`;
  return `about ${(seconds / 3600).toFixed(1).replace(/\.0$/, "")} hours`;
}

/** Three significant digits, without superfluous zeros. */
export function number(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  if (size >= 1e5 || (size > 0 && size < 1e-3)) return value.toExponential(1).replace("e+", "e").replace("-", "−");
  const digits = size >= 100 ? 0 : size >= 10 ? 1 : size >= 1 ? 2 : 3;
  const text = value.toFixed(digits);
  return Number(text) === 0 ? text.replace("-", "") : text.replace("-", "−");
}

/** "62.5 %". */
export function share(value) {
  return value === null || value === undefined ? "–" : `${(100 * value).toFixed(1)}\u00a0%`;
}

/** "1 pair", "2 pairs". */
export function counted(count, what) {
  return `${count.toLocaleString("en")} ${what}${count === 1 ? "" : "s"}`;
}

/** Puts an untrusted text into an element, as text, with invisible characters written out. */
export function put(element, text) {
  // Control characters except line ends and tabs, and the marks that reorder text.
  const hidden = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200e\u200f\u202a-\u202e\u2066-\u2069]/g;
  // The space at the beginning of a response comes from the tokenizer.
  const seen = text.replaceAll("\r\n", "\n").replace(/^ (?! )/, "").replace(hidden, (c) => `\\u{${c.codePointAt(0).toString(16)}}`);
  element.replaceChildren();
  if (seen.trim() === "") {
    const nothing = document.createElement("i");
    nothing.textContent = text === "" ? "(empty)" : "(only white space)";
    element.append(nothing);
  } else {
    element.textContent = seen;
  }
}

/** An element with a class and a text. */
export function element(name, kind, text) {
  const made = document.createElement(name);
  if (kind) made.className = kind;
  if (text !== undefined) made.textContent = text;
  return made;
}
