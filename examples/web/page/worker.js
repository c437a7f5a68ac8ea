// The worker thread of the training: it holds the module, the models and the GPU.
import init, { Lesson, check_kernels, kernel_sources } from './oaif_web.js';

const FILES = ['config.json', 'model.safetensors', 'tokenizer.json', 'tokenizer_config.json'];
/// The limits that the kernels need; WebGPU guarantees them.
const NEEDS = {
  maxStorageBuffersPerShaderStage: 8,
  maxComputeWorkgroupStorageSize: 16_384,
  maxComputeInvocationsPerWorkgroup: 256,
  maxComputeWorkgroupSizeX: 256,
  maxStorageBufferBindingSize: 128 << 20,
};
const BROWSERS = 'use a current Chrome, Edge, Safari or Firefox, on a machine with a supported GPU';
const say = (type, more = {}, transfer = []) => postMessage({ type, ...more }, transfer);

let gpu = '';
/// Resolves to whether the module and the models were loaded.
let loading = Promise.resolve(false);
let models = null;
let lesson = null;
let clicks = null;
let shown = '';
/// The visitor's labels of the current step, by pair id.
let picks = new Map();
let paused = false;

async function checkGpu() {
  if (!navigator.gpu) {
    throw new Error(self.isSecureContext
      ? `This browser has no WebGPU: ${BROWSERS}.`
      : 'Browsers support WebGPU only for pages served over https or from this machine: open the page at such an address.');
  }
  const adapter = await navigator.gpu.requestAdapter();
  if (!adapter) throw new Error(`This browser supports WebGPU but has no usable GPU: ${BROWSERS}.`);
  const { vendor, architecture, description } = adapter.info;
  gpu = description || [vendor, architecture].filter(Boolean).join(' ') || 'a GPU without a name';
  for (const [limit, needed] of Object.entries(NEEDS)) {
    if (adapter.limits[limit] < needed) {
      throw new Error(`This GPU is too small: its ${limit} is ${adapter.limits[limit]}, and the kernels need ${needed}. Use another machine or browser.`);
    }
  }
}

async function fetched(path) {
  const why = (reason) => new Error(`${path} ${reason}.`);
  let response;
  try {
    response = await fetch(path);
  } catch {
    throw why('cannot be fetched: check the network connection and reload the page');
  }
  if (!response.ok) throw why(`is missing (${response.status}): the server must have all files written by build.sh`);
  if (response.headers.get('content-type')?.startsWith('text/html')) {
    throw why('is a web page instead of the file: the server must have all files written by build.sh');
  }
  try {
    return await response.arrayBuffer();
  } catch {
    throw why('was not received completely: reload the page');
  }
}

/// Checks the length of a safetensors file against its header.
function checkWhole(name, content) {
  const view = new DataView(content);
  let whole = 8;
  try {
    const header = Number(view.getBigUint64(0, true));
    const tensors = JSON.parse(new TextDecoder().decode(new Uint8Array(content, 8, header)));
    const ends = Object.values(tensors).map((tensor) => tensor.data_offsets?.[1] ?? 0);
    whole = 8 + header + Math.max(0, ...ends);
  } catch {
    throw new Error(`${name} is not a safetensors file or is incomplete: reload the page; if that does not help, the file on the server is broken.`);
  }
  if (content.byteLength < whole) {
    throw new Error(`${name} is incomplete (${content.byteLength} of ${whole} bytes): reload the page; if that does not help, the file on the server is broken.`);
  }
}

async function load() {
  await checkGpu();
  const module = await fetched('oaif_web_bg.wasm');
  try {
    await init({ module_or_path: module });
  } catch (error) {
    throw new Error(`oaif_web_bg.wasm cannot be compiled (${error.message}): reload the page; if that does not help, the file on the server is broken.`);
  }
  const names = ['policy', 'judge'].flatMap((model) => FILES.map((file) => `${model}/${file}`));
  const contents = await Promise.all(names.map((name) => fetched(`models/${name}`)));
  names.forEach((name, i) => name.endsWith('.safetensors') && checkWhole(`models/${name}`, contents[i]));
  models = { names, contents };
  return contents.reduce((sum, content) => sum + content.byteLength, module.byteLength);
}

/// Sends the waiting pair to the page if it has changed.
function tellClicks() {
  const view = clicks.view();
  if (view === shown) return;
  shown = view;
  const { pair, ...rest } = JSON.parse(view);
  const said = pair && picks.get(pair.id);
  // A label given before the training was interrupted is applied again.
  if (said && clicks.pick(pair.form, said)) return tellClicks();
  say('clicks', { view: { pair, ...rest } });
}

const until = (met) => new Promise((resolve) => {
  const look = () => (met() ? resolve() : setTimeout(look, 50));
  look();
});

async function checkpoint() {
  const list = await lesson.checkpoint();
  const files = [];
  for (let i = 0; i < list.length; i += 2) files.push([list[i], list[i + 1]]);
  return files;
}

async function train({ choice, files, picks: said, evaluated }) {
  const names = [...models.names, ...files.map(([name]) => `checkpoint/${name}`)];
  const contents = [...models.contents.map((content) => new Uint8Array(content)), ...files.map(([, content]) => content)];
  lesson?.free();
  lesson = await Lesson.open(names, contents, JSON.stringify(choice));
  const about = JSON.parse(lesson.about());
  say('opened', { about, choice, gpu });
  picks = new Map(said);
  clicks = choice.by_clicks ? lesson.clicks() : null;
  const watch = clicks && setInterval(tellClicks, 100);
  const often = Math.max(1, Math.round(about.steps / 12));
  const evaluate = async (step) => {
    if (step > evaluated && (step % often === 0 || step === about.steps)) {
      say('evaluated', { result: JSON.parse(await lesson.evaluate()) });
    }
  };
  let [began, taken] = [performance.now(), 0];
  try {
    await evaluate(about.done);
    for (;;) {
      if (paused) {
        say('paused');
        await until(() => !paused);
        say('resumed');
        [began, taken] = [performance.now(), 0];
      }
      const report = JSON.parse(await lesson.step());
      if (!report) return say('done');
      taken += 1;
      const files = await checkpoint();
      const rate = (1e3 * taken) / (performance.now() - began);
      // The stored record contains them from here on.
      picks.clear();
      say('step', { report, rate, files }, files.map(([, content]) => content.buffer));
      await evaluate(report.step);
    }
  } finally {
    clearInterval(watch);
  }
}

const heard = {
  load() {
    const loaded = (bytes) => { say('loaded', { bytes }); return true; };
    const failed = (error) => { say('unloadable', { why: error.message }); return false; };
    loading = load().then(loaded, failed);
  },
  async open(asked) { if (await loading) await train(asked); },
  pause() { paused = true; },
  resume() { paused = false; },
  pick({ id, form, choice }) {
    if (clicks.pick(form, choice)) picks.set(id, choice);
    say('picked', { picks: [...picks] });
    tellClicks();
  },
  undo() {
    if (clicks.undo()) picks.delete([...picks.keys()].at(-1));
    say('picked', { picks: [...picks] });
    tellClicks();
  },
  async kernels() { say('kernels', { result: JSON.parse(await check_kernels()) }); },
  sources() { say('sources', { result: JSON.parse(kernel_sources()) }); },
};

const failed = (error) => say('failed', { why: error?.message ?? String(error) });
// Errors of promises that are not awaited: a panic of the module.
addEventListener('unhandledrejection', (event) => failed(event.reason));

onmessage = ({ data }) => Promise.resolve(data).then(heard[data.type]).catch(failed);
