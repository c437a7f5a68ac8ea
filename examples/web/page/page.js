// The page: what is shown and clicked. The training is the worker's, so that nothing here waits for it.
const of = (id) => document.getElementById(id);
const worker = new Worker('worker.js', { type: 'module' });
const ask = (message) => worker.postMessage(message);
const show = (id, text) => { of(id).textContent = text; };
const percent = (share) => `${(100 * share).toFixed(1)} %`;
const pace = (rate) => (rate >= 1 ? `${rate.toFixed(1)} steps a second` : `${(1 / rate).toFixed(1)} s a step`);

let running = false;
let points = [];
let steps = 0;
let pair = null;

function status(text, bad = false) {
  show('status', text);
  of('status').classList.toggle('bad', bad);
}

function buttons(state) {
  running = state === 'running';
  of('start').disabled = state !== 'ready';
  of('pause').disabled = !(state === 'running' || state === 'paused');
  of('export').disabled = !(state === 'paused' || state === 'done');
  show('pause', state === 'paused' ? 'Go on' : 'Pause');
  for (const id of ['instruction', 'judge']) of(id).disabled = state !== 'ready';
}

function element(name, attributes, text) {
  const made = document.createElementNS('http://www.w3.org/2000/svg', name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

function draw() {
  const [left, right, top, bottom] = [64, 630, 12, 226];
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

const heard = {
  loaded({ bytes, missing }) {
    if (missing) return status(missing, true);
    status(`Ready: ${(bytes / 1e6).toFixed(2)} MB were loaded.`);
    buttons('ready');
  },
  opened({ about }) {
    steps = about.steps;
    points = [{ step: 0, rate: 0.5, low: 0.5, high: 0.5 }];
    show('sample', about.post);
    show('before', about.before);
    show('after', '–');
    status(`On ${about.gpu}; ${(about.memory / 2 ** 20).toFixed(0)} MiB of its memory.`);
    buttons('running');
    draw();
  },
  step({ report, rate }) {
    const margin = report['rewards/margins'];
    const learnt = report.loss === null ? 'nothing to learn from' : `loss ${report.loss.toFixed(4)}`;
    const further = margin === undefined || margin === null ? '' : `, margin ${margin.toFixed(3)}`;
    status(`Step ${report.step} of ${steps}: ${learnt}${further}; ${pace(rate)}.`);
  },
  evaluated({ result }) {
    points.push(result);
    show('after', result.after);
    show('result', `After ${result.step} steps the oracle prefers its summary in ${percent(result.rate)} of the held-out posts `
      + `whose summaries differ in worth (95 % interval ${percent(result.low)} to ${percent(result.high)}; ${result.ties} are equal).`);
    draw();
  },
  clicks({ view }) {
    pair = view.pair;
    of('clicks').hidden = false;
    show('given', `${view.counts.given} given`);
    show('post', pair ? pair.prompt : 'The policy learns from what you said, and writes the next summaries …');
    show('first', pair ? pair.first : '');
    show('second', pair ? pair.second : '');
    for (const id of ['first', 'second', 'tie']) of(id).disabled = !pair;
    of('undo').disabled = !view.last?.undoable;
  },
  paused() { status(`${of('status').textContent} Paused.`); buttons('paused'); },
  resumed() { buttons('running'); },
  done() { status(`All ${steps} steps are done.`); of('clicks').hidden = true; buttons('done'); },
  saved({ files }) {
    for (const [name, content] of files) {
      const link = document.createElement('a');
      link.href = URL.createObjectURL(new Blob([content]));
      link.download = name.replace('/', '_');
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
    }
    status(`Saved ${files.map(([name]) => name).join(', ')}: a LoRA adapter as PEFT reads it.`);
  },
  failed({ why }) { status(`It stopped: ${why}`, true); buttons('ready'); },
};

worker.onmessage = ({ data }) => heard[data.type](data);
worker.onerror = (event) => heard.failed({ why: event.message ?? 'the worker could not be started' });

of('setup').addEventListener('submit', (event) => {
  event.preventDefault();
  buttons('opening');
  status('Opening the GPU and compiling its kernels …');
  const byClicks = of('judge').value === 'you';
  const asked = new URLSearchParams(location.search);
  ask({
    type: 'open',
    choice: {
      instruction: Number(of('instruction').value),
      by_clicks: byClicks,
      steps: Number(asked.get('steps') ?? (byClicks ? 40 : 120)),
      batch: Number(asked.get('batch') ?? (byClicks ? 4 : 32)),
      posts: Number(asked.get('posts') ?? 200),
      seed: Number(asked.get('seed') ?? 42),
    },
  });
});
of('pause').addEventListener('click', () => ask({ type: running ? 'pause' : 'resume' }));
of('export').addEventListener('click', () => ask({ type: 'export' }));

const pick = (choice) => pair && ask({ type: 'pick', form: pair.form, choice });
of('first').addEventListener('click', () => pick('first'));
of('second').addEventListener('click', () => pick('second'));
of('tie').addEventListener('click', () => pick('tie'));
of('undo').addEventListener('click', () => ask({ type: 'undo' }));
document.addEventListener('keydown', (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || of('clicks').hidden) return;
  const does = { 1: () => pick('first'), 2: () => pick('second'), 0: () => pick('tie'), u: () => ask({ type: 'undo' }) }[event.key];
  if (does) { event.preventDefault(); does(); }
});

if (!navigator.gpu) {
  heard.loaded({ missing: 'This browser has no WebGPU: use a current Chrome, Edge, Safari or Firefox, on a machine whose GPU it allows.' });
} else {
  ask({ type: 'load' });
}
draw();
