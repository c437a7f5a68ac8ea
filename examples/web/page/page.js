// The page: display, input, and the storage of a training. The training itself runs in a worker, so that the page never
// waits for it, and so that a worker whose GPU was lost can be replaced.
import * as store from './kept.js';

const of = (id) => document.getElementById(id);
const show = (id, text) => { of(id).textContent = text; };
const percent = (share) => `${(100 * share).toFixed(1)} %`;
const pace = (rate) => (rate >= 1 ? `${rate.toFixed(1)} steps per second` : `${(1 / rate).toFixed(1)} s per step`);
const ask = (message) => worker.postMessage(message);

let worker = null;
/// Whether the worker has loaded the module and the models.
let loaded = false;
let state = 'loading';
/// The stored training: its options, the files of its last checkpoint, what was shown of it, and the visitor's labels
/// for the unfinished step. It is that of an earlier visit until it is resumed or another one is started.
let kept = null;
/// Whether this tab stores it.
let keeps = false;
let pair = null;

const isWorthKeeping = () => kept !== null && (kept.step > 0 || kept.picks.length > 0);

function status(text, bad = false) {
  show('status', text);
  of('status').classList.toggle('bad', bad);
}

function enter(next) {
  state = next;
  const offered = state === 'offered';
  of('start').disabled = state !== 'ready';
  of('pause').disabled = !['running', 'paused'].includes(state);
  of('export').disabled = !kept?.files.length;
  show('pause', state === 'paused' ? 'Resume' : state === 'pausing' ? 'Pausing …' : 'Pause');
  for (const id of ['instruction', 'judge']) of(id).disabled = state !== 'ready';
  if (!['running', 'pausing', 'paused'].includes(state)) of('clicks').hidden = true;
  of('kept').hidden = !offered;
  if (offered) {
    const { choice, step, steps, results, picks } = kept;
    const judge = choice.by_clicks ? 'you judge' : 'a judge model';
    const said = picks.length ? `, and your labels of ${picks.length} pair${picks.length > 1 ? 's' : ''} of the next step,` : '';
    show('about', `${step} of ${steps} steps${said} are stored (${of('instruction').options[choice.instruction].text}; ${judge}).`);
    of('resume').hidden = step === steps && results.at(-1).step === steps;
  }
}

function element(name, attributes, text) {
  const made = document.createElementNS('http://www.w3.org/2000/svg', name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

function draw(points = [], steps = 0) {
  const [left, right, top, bottom] = [76, 630, 12, 226];
  const x = (step) => left + ((right - left) * step) / Math.max(steps, 1);
  const y = (share) => bottom - (bottom - top) * share;
  const parts = [0, 0.25, 0.5, 0.75, 1].flatMap((share) => [
    element('line', { class: 'grid', x1: left, x2: right, y1: y(share), y2: y(share) }),
    element('text', { x: left - 6, y: y(share) + 4, 'text-anchor': 'end' }, `${100 * share} %`),
  ]);
  parts.push(element('text', { x: right, y: 250, 'text-anchor': 'end' }, `step ${steps}`));
  if (points.length > 1) {
    const at = (value) => (point) => `${x(point.step).toFixed(1)},${y(point[value]).toFixed(1)}`;
    const band = [...points.map(at('high')), ...points.map(at('low')).reverse()];
    parts.push(element('polygon', { class: 'band', points: band.join(' ') }));
    parts.push(element('polyline', { class: 'line', points: points.map(at('rate')).join(' ') }));
  }
  of('curve').replaceChildren(...parts);
}

/// Shows the state of the training, except for the status line.
function showTraining() {
  const { post, before, results, steps } = kept;
  const last = results.at(-1);
  show('sample', post);
  show('before', before);
  show('after', last.after ?? '–');
  if (last.step) {
    const rate = last.rate === null
      ? 'all summaries of held-out posts are as good as those of the starting model'
      : `the oracle prefers its summary in ${percent(last.rate)} of the held-out posts whose summaries differ in quality `
        + `(95 % interval ${percent(last.low)} to ${percent(last.high)}; ${last.ties} are equal)`;
    show('result', `After ${last.step} step${last.step > 1 ? 's' : ''} ${rate}.`);
  }
  draw(results.filter((result) => result.rate !== null), steps);
}

/// Stores the training. If the browser does not allow it, the training continues anyway.
async function keep() {
  if (!keeps) return;
  try {
    await store.write(kept);
    show('note', '');
  } catch (error) {
    unkept(error);
  }
}

function unkept(error) {
  show('note', `The browser cannot store data for this page (${error?.message || error?.name || 'unknown reason'}): `
    + 'the training is lost when this tab is closed, unless you save the adapter. To change that, allow the page to store data, or free '
    + 'some space on the disk.');
}

/// The training of an earlier visit, if it can be resumed.
async function earlier() {
  keeps = await store.claim();
  if (!keeps) {
    show('note', 'Another tab of this page stores its training in this browser: the training in this tab is lost when the tab is closed, unless you save the adapter.');
    return null;
  }
  try {
    return (await store.read()) ?? null;
  } catch (error) {
    unkept(error);
    return null;
  }
}

const heard = {
  loaded({ bytes }) {
    loaded = true;
    if (state !== 'loading') return;
    if (!of('status').classList.contains('bad')) status(`Ready: ${(bytes / 1e6).toFixed(2)} MB loaded.`);
    if (!isWorthKeeping()) kept = null;
    enter(kept ? 'offered' : 'ready');
  },
  unloadable({ why }) {
    status(isWorthKeeping() ? `${why} The earlier training is still stored: save its adapter, or reload the page.` : why, true);
    enter('unable');
  },
  opened({ about, choice, gpu }) {
    if (kept === null) {
      const { steps, post, before } = about;
      const results = [{ step: 0, rate: 0.5, low: 0.5, high: 0.5 }];
      kept = { choice, step: 0, steps, post, before, results, files: [], given: 0, picks: [] };
      show('result', 'The win rate against the starting model is measured at intervals.');
    }
    status(`On ${gpu}; ${(about.memory / 2 ** 20).toFixed(0)} MiB of GPU memory.`);
    showTraining();
    enter('running');
  },
  step({ report, rate, files }) {
    Object.assign(kept, { step: report.step, files, given: kept.given + kept.picks.length, picks: [] });
    keep();
    const margin = report['rewards/margins'];
    const learnt = report.loss === null ? 'no pair to learn from' : `loss ${report.loss.toFixed(4)}`;
    const further = margin === undefined || margin === null ? '' : `, margin ${margin.toFixed(3)}`;
    status(`Step ${report.step} of ${kept.steps}: ${learnt}${further}; ${pace(rate)}.`);
    of('export').disabled = false;
  },
  evaluated({ result }) {
    kept.results.push(result);
    keep();
    showTraining();
  },
  clicks({ view }) {
    pair = view.pair;
    of('clicks').hidden = false;
    show('post', pair ? pair.prompt : 'The policy learns from your choices and writes the next summaries …');
    show('first', pair ? pair.first : '');
    show('second', pair ? pair.second : '');
    for (const id of ['first', 'second', 'tie']) of(id).disabled = !pair;
    of('undo').disabled = !view.last?.undoable;
  },
  picked({ picks }) {
    kept.picks = picks;
    show('given', `${kept.given + picks.length} given`);
    keep();
  },
  paused() { status(`${of('status').textContent} Paused.`); enter('paused'); },
  resumed() { enter('running'); },
  done() { status(`All ${kept.steps} steps are done.`); enter('offered'); },
  failed({ why }) {
    worker.terminate();
    const further = !isWorthKeeping()
      ? 'Start again; if the error occurs again, reload the page.'
      : state === 'opening'
        ? 'It is still stored: try again, save its adapter, or start over.'
        : 'The training is stored: resume it, or save the adapter.';
    status(`It stopped: ${why.replace(/[.?]$/, '')}. ${further}`, true);
    // The training can be resumed while the next worker is loading.
    enter(isWorthKeeping() ? 'offered' : 'loading');
    load();
  },
};

/// Starts a worker, which loads the module and the models.
function load() {
  loaded = false;
  worker = new Worker('worker.js', { type: 'module' });
  worker.onmessage = ({ data }) => heard[data.type](data);
  worker.onerror = ({ message }) => {
    if (loaded) heard.failed({ why: `the WebAssembly module failed (${message}); reload the page if this happens again` });
    else heard.unloadable({ why: `A file of the page is missing (${message ?? 'worker.js does not load'}): reload the page.` });
  };
  ask({ type: 'load' });
}

/// Starts a training, or resumes the one in `kept`.
function train(choice) {
  enter('opening');
  status('Opening the GPU and compiling its kernels …');
  show('given', kept ? `${kept.given + kept.picks.length} given` : '');
  const { files = [], picks = [], results = [{ step: 0 }] } = kept ?? {};
  ask({ type: 'open', choice, files, picks, evaluated: results.at(-1).step });
}

/// A number from the page's URL, such as `?steps=40`.
function asked(name, usual, most) {
  const text = new URLSearchParams(location.search).get(name);
  if (text === null) return usual;
  const number = Number(text);
  if (Number.isInteger(number) && number >= 1 && number <= most) return number;
  throw new Error(`The page's address has ${name}=${text}, which is not a whole number from 1 to ${most}: change it or leave it out.`);
}

of('setup').addEventListener('submit', (event) => {
  event.preventDefault();
  const byClicks = of('judge').value === 'you';
  try {
    train({
      instruction: Number(of('instruction').value),
      by_clicks: byClicks,
      steps: asked('steps', byClicks ? 40 : 120, 10_000),
      batch: asked('batch', byClicks ? 4 : 32, 256),
      posts: asked('posts', 200, 2_000),
      seed: asked('seed', 42, 2 ** 32 - 1),
    });
  } catch (error) {
    status(error.message, true);
  }
});
of('resume').addEventListener('click', () => {
  of('instruction').value = kept.choice.instruction;
  of('judge').value = kept.choice.by_clicks ? 'you' : 'judge';
  train(kept.choice);
});
// The stored training is kept until the new one is first stored.
of('anew').addEventListener('click', () => {
  kept = null;
  status('Ready.');
  enter('ready');
});
of('pause').addEventListener('click', () => {
  ask({ type: state === 'running' ? 'pause' : 'resume' });
  if (state === 'running') enter('pausing');
});
of('export').addEventListener('click', () => {
  const files = kept.files.filter(([name]) => name.startsWith('adapter_'));
  for (const [name, content] of files) {
    const link = document.createElement('a');
    link.href = URL.createObjectURL(new Blob([content]));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  }
  const names = files.map(([name]) => name).join(' and ');
  show('note', `Saved ${names} of step ${kept.step}: a LoRA adapter in PEFT's format; put both files into one folder.`);
});

function pick(choice) {
  if (!pair) return;
  ask({ type: 'pick', id: pair.id, form: pair.form, choice });
  pair = null;
}
for (const choice of ['first', 'second', 'tie']) {
  // Ignores the second click of a double click: another pair is shown by then.
  of(choice).addEventListener('click', (event) => { if (event.detail < 2) pick(choice); });
}
of('undo').addEventListener('click', () => ask({ type: 'undo' }));
document.addEventListener('keydown', (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || of('clicks').hidden) return;
  const does = { 1: () => pick('first'), 2: () => pick('second'), 0: () => pick('tie'), u: () => { if (!of('undo').disabled) ask({ type: 'undo' }); } }[event.key];
  if (does) { event.preventDefault(); does(); }
});

draw();
kept = await earlier();
try {
  if (kept) showTraining();
} catch {
  // The record was written by another version of this page.
  kept = null;
}
load();
