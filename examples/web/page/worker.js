// The training's thread: it holds the module, the models and the GPU.
import init, { Lesson, check_kernels } from './oaif_web.js';

const FILES = ['config.json', 'model.safetensors', 'tokenizer.json', 'tokenizer_config.json'];
const say = (type, more = {}) => postMessage({ type, ...more });

let models = null;
let lesson = null;
let clicks = null;
let shown = '';
let paused = false;
/// The current training: a later one ends it.
let turn = 0;

async function fetched(path) {
  const response = await fetch(path);
  if (!response.ok) throw new Error(`${path} is not there (${response.status})`);
  return response.arrayBuffer();
}

async function load() {
  const module = await fetched('oaif_web_bg.wasm');
  await init({ module_or_path: module });
  const names = ['policy', 'judge'].flatMap((model) => FILES.map((file) => `${model}/${file}`));
  const contents = await Promise.all(names.map((name) => fetched(`models/${name}`)));
  models = { names, contents };
  const bytes = contents.reduce((sum, content) => sum + content.byteLength, module.byteLength);
  say('loaded', { bytes });
}

/// Tells the page of the pair that waits, where it is another one than it shows.
function tellClicks() {
  const view = clicks.view();
  if (view !== shown) {
    shown = view;
    say('clicks', { view: JSON.parse(view) });
  }
}

const until = (met) => new Promise((resolve) => {
  const look = () => (met() ? resolve() : setTimeout(look, 50));
  look();
});

async function train(choice) {
  const mine = ++turn;
  lesson = await Lesson.open(models.names, models.contents.map((content) => new Uint8Array(content)), JSON.stringify(choice));
  const about = JSON.parse(lesson.about());
  say('opened', { about });
  clicks = choice.by_clicks ? lesson.clicks() : null;
  const watch = clicks && setInterval(tellClicks, 100);
  const often = Math.max(1, Math.round(about.steps / 12));
  let [began, taken] = [performance.now(), 0];
  try {
    while (mine === turn) {
      if (paused) {
        say('paused');
        await until(() => !paused);
        say('resumed');
        [began, taken] = [performance.now(), 0];
      }
      const report = JSON.parse(await lesson.step());
      if (!report) return say('done');
      taken += 1;
      say('step', { report, rate: (1e3 * taken) / (performance.now() - began) });
      if (report.step % often === 0 || report.step === about.steps) {
        say('evaluated', { result: JSON.parse(await lesson.evaluate()) });
      }
    }
  } finally {
    clearInterval(watch);
  }
}

const heard = {
  load,
  open: ({ choice }) => train(choice),
  pause() { paused = true; },
  resume() { paused = false; },
  pick({ form, choice }) { clicks.pick(form, choice); tellClicks(); },
  undo() { clicks.undo(); tellClicks(); },
  async export() {
    const list = await lesson.export();
    const files = [];
    for (let i = 0; i < list.length; i += 2) files.push([list[i], list[i + 1]]);
    say('saved', { files });
  },
  async kernels() { say('kernels', { report: JSON.parse(await check_kernels()) }); },
};

onmessage = async ({ data }) => {
  try {
    await heard[data.type](data);
  } catch (error) {
    say('failed', { why: error.message ?? String(error) });
  }
};
