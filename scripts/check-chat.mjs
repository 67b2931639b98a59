// Tests the chat page in a real browser: types a prompt, sees tokens stream in, stops the answer, talks on, begins anew.
//
// Usage: node scripts/check-chat.mjs http://127.0.0.1:8080 [SCREENSHOT.png]
//
// A server (`openelm serve`) must run at the address. Needs node 18 or later and Chromium or Chrome (CHROMIUM=PATH; default: chromium
// from the path). Talks to the browser through its debugging pipe, so nothing has to be installed from npm.

import { spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const [address, screenshot] = process.argv.slice(2);
if (!address) {
  console.error("usage: node scripts/check-chat.mjs http://127.0.0.1:8080 [SCREENSHOT.png]");
  process.exit(2);
}

const profile = mkdtempSync(join(tmpdir(), "check-chat-"));
const browser = spawn(
  process.env.CHROMIUM ?? "chromium",
  ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--window-size=900,700", `--user-data-dir=${profile}`, "--remote-debugging-pipe", "about:blank"],
  { stdio: ["ignore", "ignore", "ignore", "pipe", "pipe"] },
);
browser.on("error", (error) => fail(`the browser does not start: ${error.message}`));

// The protocol: JSON messages that end with a zero byte, answers by id, events without one.
const waiting = new Map();
const problems = [];
let last = 0;
let buffer = Buffer.alloc(0);
browser.stdio[4].on("data", (data) => {
  buffer = Buffer.concat([buffer, data]);
  for (let end = buffer.indexOf(0); end >= 0; end = buffer.indexOf(0)) {
    const message = JSON.parse(buffer.subarray(0, end).toString());
    buffer = buffer.subarray(end + 1);
    if (message.id) waiting.get(message.id)?.(message);
    if (message.method === "Runtime.exceptionThrown") problems.push(message.params.exceptionDetails.exception?.description ?? message.params.exceptionDetails.text);
    if (message.method === "Log.entryAdded" && message.params.entry.level === "error") problems.push(message.params.entry.text);
  }
});

let session;
function call(method, params = {}) {
  const id = ++last;
  browser.stdio[3].write(JSON.stringify({ id, method, params, sessionId: session }) + "\0");
  return new Promise((resolve, reject) => {
    waiting.set(id, (message) => (message.error ? reject(new Error(`${method}: ${message.error.message}`)) : resolve(message.result)));
  });
}

function finish(code) {
  browser.kill();
  setTimeout(() => {
    rmSync(profile, { recursive: true, force: true, maxRetries: 5 });
    process.exit(code);
  }, 300);
}

function fail(reason) {
  console.error(`FAILED: ${reason}`);
  finish(1);
}

async function page(expression) {
  const { result, exceptionDetails } = await call("Runtime.evaluate", { expression, returnByValue: true, awaitPromise: true });
  if (exceptionDetails) throw new Error(`${expression}: ${exceptionDetails.exception?.description}`);
  return result.value;
}

async function until(what, expression, seconds = 60) {
  const end = Date.now() + 1000 * seconds;
  while (Date.now() < end) {
    const value = await page(expression);
    if (value) return value;
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  throw new Error(`waited too long for ${what}`);
}

function check(holds, what) {
  if (!holds) throw new Error(what);
  console.log(`ok: ${what}`);
}

const click = (id) => page(`document.getElementById("${id}").click()`);
const answers = `[...document.querySelectorAll(".turn.assistant")]`;
const idle = `document.getElementById("stop").hidden && !document.querySelector(".running")`;

async function type(text) {
  await page(`document.getElementById("message").focus()`);
  await call("Input.insertText", { text });
  for (const kind of ["keyDown", "keyUp"]) {
    await call("Input.dispatchKeyEvent", { type: kind, key: "Enter", code: "Enter", windowsVirtualKeyCode: 13, text: kind === "keyDown" ? "\r" : undefined });
  }
}

async function set(id, value) {
  await page(`{ const field = document.getElementById("${id}"); field.value = ${JSON.stringify(value)}; field.dispatchEvent(new Event("input")); }`);
}

async function metric(name) {
  const text = await (await fetch(new URL("metrics", address))).text();
  return Number(text.split("\n").find((line) => line.startsWith(name + " "))?.split(" ")[1]);
}

async function picture(path) {
  const { data } = await call("Page.captureScreenshot", { format: "png" });
  writeFileSync(path, Buffer.from(data, "base64"));
}

async function run() {
  const { targetInfos } = await call("Target.getTargets");
  const target = targetInfos.find((info) => info.type === "page");
  session = (await call("Target.attachToTarget", { targetId: target.targetId, flatten: true })).sessionId;
  for (const domain of ["Runtime", "Log", "Page"]) await call(`${domain}.enable`);
  await call("Page.navigate", { url: address });
  await until("the model's name", `document.getElementById("model")?.textContent`);
  const name = (await (await fetch(new URL("v1/models", address))).json()).data[0].id;
  check((await page(`document.getElementById("model").textContent`)) === name, `the page names the model, ${name}`);

  await set("temperature", "1");
  await set("max-tokens", "100000");
  await type("Tell me a story about a bird.");
  check((await page(`document.querySelector(".turn.user").textContent`)) === "Tell me a story about a bird.", "a typed message stands in the conversation");
  const some = await until("the first tokens", `${answers}[0]?.textContent`);
  const more = await until("more tokens", `${answers}[0].textContent.length > ${some.length} && ${answers}[0].textContent`);
  check(more.startsWith(some) && (await page(`!document.getElementById("stop").hidden`)), `tokens stream in (${some.length}, then ${more.length} characters)`);
  await click("stop");
  await until("the end", idle, 5);
  const stopped = await page(`${answers}[0].textContent`);
  await new Promise((resolve) => setTimeout(resolve, 500));
  check((await page(`${answers}[0].textContent`)) === stopped, "the stop button ends the answer");
  check((await metric("openelm_slots_busy")) === 0, "and the server's slot is free");

  await set("max-tokens", "24");
  await set("system", "Be short.");
  await type("And <b>then</b>?");
  await until("the second answer", `${answers}.length === 2 && ${idle}`);
  check((await page(`document.querySelectorAll(".turn.user")[1].innerHTML`)) === "And &lt;b&gt;then&lt;/b&gt;?", "text is shown as text");
  check(/\d+ tokens/.test(await page(`[...document.querySelectorAll(".note")].at(-1).textContent`)), "the answer's tokens are counted");
  if (screenshot) {
    await click("show-settings");
    await picture(screenshot);
    await click("show-settings");
    const theme = await page(`document.documentElement.dataset.theme`);
    await click("theme");
    check((await page(`document.documentElement.dataset.theme`)) !== theme, "dark and light change");
    await picture(screenshot.replace(/(\.png)?$/, "-other-theme.png"));
  }

  await set("max-tokens", "0");
  await type("Too little");
  await until("the error", `document.querySelector(".note.bad")?.textContent.includes("max_tokens")`);
  check((await page(`document.getElementById("message").value`)) === "Too little", "an error is shown and the message comes back");
  await click("new");
  check((await page(`document.querySelectorAll(".turn").length`)) === 0, "a new chat is empty");
  // The browser itself reports the refused request.
  const own = problems.filter((problem) => !problem.includes("400 (Bad Request)"));
  check(own.length === 0, `the page has no errors ${own.join("; ")}`);
}

const patience = setTimeout(() => fail("it took too long"), 180_000);
run().then(
  () => {
    clearTimeout(patience);
    console.log("the chat page works");
    finish(0);
  },
  (error) => fail(error.message),
);
