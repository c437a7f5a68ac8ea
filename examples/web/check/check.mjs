// node check.mjs SITE: tests the page built by build.sh in a headless Chrome with a software GPU.
//
// 1. The browser's shader compiler, Tint, accepts every portable kernel in every variant.
// 2. Every kernel agrees with its f64 reference.
// 3. A training whose tab was closed is resumed in the next tab and completes.
//
// CHROMIUM selects another browser than the installed Chrome.
import { createReadStream, existsSync } from 'node:fs';
import { createServer } from 'node:http';
import { extname, join } from 'node:path';
import { chromium } from 'playwright-core';

const site = process.argv[2];
const TYPES = { '.html': 'text/html', '.css': 'text/css', '.js': 'text/javascript', '.wasm': 'application/wasm' };
const server = createServer((request, response) => {
  const { pathname } = new URL(request.url, 'http://localhost');
  const file = join(site, pathname === '/' ? 'index.html' : pathname);
  if (!existsSync(file)) return response.writeHead(404).end();
  response.setHeader('content-type', TYPES[extname(file)] ?? 'application/octet-stream');
  createReadStream(file).pipe(response);
});
await new Promise((listening) => server.listen(0, '127.0.0.1', listening));

const software = ['--enable-unsafe-webgpu', '--use-webgpu-adapter=swiftshader', '--enable-unsafe-swiftshader'];
const browser = await chromium.launch({
  ...(process.env.CHROMIUM ? { executablePath: process.env.CHROMIUM } : { channel: 'chrome' }),
  args: ['--no-sandbox', ...software],
});
const context = await browser.newContext();

async function open(query = '') {
  const page = await context.newPage();
  page.setDefaultTimeout(300_000);
  page.on('console', (message) => console.log(message.text()));
  await page.goto(`http://127.0.0.1:${server.address().port}/${query}`);
  await page.waitForFunction(() => !document.getElementById('start').disabled || !document.getElementById('kept').hidden);
  return page;
}

/// Waits until the page's status matches.
async function status(page, pattern) {
  await page.waitForFunction((text) => new RegExp(text).test(document.getElementById('status').textContent), pattern);
  console.log(await page.textContent('#status'));
}

/// The worker's answer to a message.
const answer = (page, type) => page.evaluate((type) => new Promise((resolve, reject) => {
  const worker = new Worker('worker.js', { type: 'module' });
  worker.onerror = (event) => reject(new Error(event.message));
  worker.onmessage = ({ data }) => {
    if (data.type === 'loaded') worker.postMessage({ type });
    else if (data.type === type) resolve(data.result);
    else reject(new Error(data.why));
  };
  worker.postMessage({ type: 'load' });
}), type);

const page = await open('?steps=4&batch=4&posts=20');
const compiled = await page.evaluate(async (sources) => {
  const device = await (await navigator.gpu.requestAdapter()).requestDevice();
  const refused = [];
  for (const { name, constants, wgsl } of sources) {
    const module = device.createShaderModule({ code: wgsl });
    const { messages } = await module.getCompilationInfo();
    const why = messages.find((message) => message.type === 'error')?.message;
    if (why) refused.push(`${name} ${constants}: ${why}`);
  }
  return { of: sources.length, refused };
}, await answer(page, 'sources'));
console.log(`Tint accepts ${compiled.of - compiled.refused.length} of ${compiled.of} kernels`);
compiled.refused.forEach((line) => console.log(line));

const { agree, wrong } = await answer(page, 'kernels');
console.log(`${agree} of ${agree + wrong.length} cases agree with their reference`);
wrong.forEach((line) => console.log(line));

await page.click('#start');
await status(page, '^Step 1');
await page.waitForTimeout(1_000);
await page.close();
const next = await open();
await next.click('#resume');
await status(next, '^All 4 steps are done');

await browser.close();
server.close();
if (compiled.refused.length || wrong.length || agree < 500 || compiled.of < 200) process.exitCode = 1;
