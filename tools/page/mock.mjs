// A server for the page's tests: serves the page as it is in the tree and plays back recorded answers (streams/, made by
// record.py with the shipped model). Nothing is computed. What a question does:
//
//   a recorded question        its looks and its answer, as the shipped model gave them; `steps` takes the first so many
//   ... with an intervention   the same looks, another answer: made up, CHANGED below
//   "fail: STATUS"             that status as an error; 429 answers at the second try, 413 at the second size
//   "fail: broken"             the connection ends after the first look
//   "fail: damaged"            a chunk that is no JSON
//   "fail: inside"             an error object after the first look
//   "slow: ..."                a look each 400 ms; the answer comes 400 ms a piece
//
//   node mock.mjs [PORT] [KEY]

import { createHash } from "node:crypto";
import { readFile, readdir } from "node:fs/promises";
import { createServer } from "node:http";
import { setTimeout as sleep } from "node:timers/promises";

const HERE = new URL("./", import.meta.url);
const PAGE = new URL("../../crates/server/src/page/", HERE);
const KINDS = { html: "text/html; charset=utf-8", css: "text/css; charset=utf-8", js: "text/javascript; charset=utf-8" };
/** The server's own policy: what it forbids is an error here too. */
const POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
const CHANGED = { noise: "P1", zero: "P1", "repeat-first": "G8", "markers-only": "H3", "random-patches": null };
const MODELS = [
  { id: "nano", object: "model", created: 0, owned_by: "lare", lare: { max_steps: 8, pictures: 1, can_draw: true, text_reasoning_tokens: 28.0 } },
  { id: "plain", object: "model", created: 0, owned_by: "lare", lare: { max_steps: 0, pictures: 1, can_draw: false } },
];
const SECOND_LOOK_MS = 400;

/** What each failing status says; the words are those a server may use. */
const FAILURES = {
  400: "`lare.halt_threshold`: expected 0 to 1, got 7",
  413: "a body has at most 4194304 bytes",
  429: "64 requests are waiting",
  500: "the answer failed inside the server; its log has the reason under this answer's x-request-id",
  503: "the server is shutting down and takes no more requests",
};

async function recordings() {
  const names = await readdir(new URL("streams/", HERE));
  const read = async (name) => JSON.parse(await readFile(new URL(`streams/${name}`, HERE), "utf8"));
  return await Promise.all(names.map(read));
}

/** Starts the mock; `log` collects the bodies of what was asked. */
export async function start({ port = 0, key = null, models = MODELS.slice(0, 1) } = {}) {
  const known = { key, models, recorded: await recordings(), tries: new Map(), log: [] };
  const server = createServer((request, response) => {
    response.setHeader("content-security-policy", POLICY);
    route(known, request, response).catch((error) => {
      if (!response.headersSent) fail(response, 500, String(error));
      response.end();
    });
  });
  await new Promise((done) => server.listen(port, "127.0.0.1", done));
  const stop = () => new Promise((done) => { server.closeAllConnections(); server.close(done); });
  return { url: `http://127.0.0.1:${server.address().port}/`, log: known.log, stop };
}

async function route(known, request, response) {
  const path = request.url.split("?")[0];
  if (path.startsWith("/v1/")) {
    if (known.key && request.headers.authorization !== `Bearer ${known.key}`) return fail(response, 401, "no valid key came with the request");
    if (path === "/v1/models") return json(response, 200, { object: "list", data: known.models });
    if (path === "/v1/chat/completions") return await complete(known, request, response);
  }
  if (path === "/samples/desk.png") return file(response, new URL("../../examples/desk.png", HERE), "image/png");
  const name = path === "/" ? "index.html" : path.slice(1);
  const kind = KINDS[name.split(".").pop()];
  if (!kind || name.includes("/")) return fail(response, 404, `nothing is at ${path}`);
  await file(response, new URL(name, PAGE), kind);
}

async function file(response, url, kind) {
  response.setHeader("content-type", kind);
  response.end(await readFile(url));
}

function json(response, status, body) {
  response.writeHead(status, { "content-type": "application/json" });
  response.end(JSON.stringify(body));
}

function fail(response, status, message) {
  if (status === 429) response.setHeader("retry-after", "2");
  response.setHeader("x-request-id", "mock-1");
  json(response, status, { error: { message, type: status < 500 ? "invalid_request_error" : "server_error", param: null, code: null } });
}

/** The question of a request in the shape that the server's contract has; throws where it is another. */
function read(body, model) {
  const [{ role, content }] = body.messages;
  const { max_steps, pictures } = model.lare;
  const [picture, text] = pictures === 0 ? [null, ...content] : content;
  const found = picture && /^data:(image\/(?:png|jpeg|webp));base64,(.+)$/.exec(picture.image_url.url);
  // A model that takes no steps is asked for none, and refuses to tell of them.
  const steps = max_steps > 0 ? body.lare.steps : 0;
  const shaped = role === "user" && Boolean(found) === (pictures !== 0) && text.type === "text" && body.stream === true && body.stream_options.include_usage === true
    && (max_steps > 0 ? (steps === "auto" || Number.isInteger(steps)) && body.lare.trace === true : body.lare === undefined);
  if (!shaped) throw new Error("the request is not in the contract's shape");
  const bytes = Buffer.from(found?.[2] ?? "", "base64");
  return { question: text.text, steps, intervention: body.lare?.intervention ?? null, bytes: bytes.length, sha256: createHash("sha256").update(bytes).digest("hex") };
}

async function complete(known, request, response) {
  let text = "";
  for await (const part of request) text += part;
  const body = JSON.parse(text);
  const asked = read(body, known.models.find(({ id }) => id === body.model));
  known.log.push({ body, ...asked });
  const [, kind, what] = /^(fail|slow): (.*)$/s.exec(asked.question) ?? [null, null, asked.question];
  const status = kind === "fail" ? Number(what) : 0;
  if (status && !survives(known, status, asked)) return fail(response, status, FAILURES[status]);
  const fits = ({ question, looks }) => question === what && (asked.steps !== 0 || looks.length === 0);
  const recorded = known.recorded.find(fits) ?? known.recorded.find(({ looks }) => looks.length === 3);
  await play(response, body.model, answerOf(recorded, asked), { kind, what });
}

/** A second try, or a smaller picture, is answered. */
function survives(known, status, asked) {
  const before = known.tries.get(asked.question);
  known.tries.set(asked.question, asked.bytes);
  return before !== undefined && (status === 429 || (status === 413 && asked.bytes < before));
}

function answerOf(recorded, { steps, intervention }) {
  const looks = steps === "auto" ? recorded.looks : recorded.looks.slice(0, steps);
  const changed = CHANGED[intervention];
  return { ...recorded, looks: intervention === "markers-only" ? [] : looks, text: changed ? [changed] : recorded.text };
}

async function play(response, model, { looks, text, usage }, { kind, what }) {
  response.writeHead(200, { "content-type": "text/event-stream", "cache-control": "no-store" });
  const pause = kind === "slow" ? SECOND_LOOK_MS : 4;
  const head = { id: "chatcmpl-mock", object: "chat.completion.chunk", created: 0, model };
  const send = (data) => response.write(`data: ${JSON.stringify(data)}\n\n`);
  const chunk = (delta, finish_reason = null, more = {}) => send({ ...head, choices: [{ index: 0, delta, logprobs: null, finish_reason }], usage: null, ...more });
  chunk({ role: "assistant", content: "" });
  for (const [at, look] of looks.entries()) {
    response.write(": still here\n\n");
    await sleep(pause);
    chunk({}, null, { lare: { look } });
    if (kind !== "fail" || at > 0) continue;
    await sleep(300); // what was written must leave before the connection does
    if (what === "broken") return response.destroy();
    if (what === "damaged") return response.end("data: {\"choices\": [\n\n");
    if (what === "inside") {
      send({ error: { message: "there was no answer within 300 seconds", type: "server_error", param: null, code: "timeout" } });
      return response.end();
    }
  }
  for (const piece of text) {
    await sleep(pause);
    chunk({ content: piece });
  }
  chunk({}, "stop");
  const used = spent(usage, looks.length);
  send({ ...head, choices: [], usage: used, lare: used.lare });
  response.end("data: [DONE]\n\n");
}

/** The recorded usage, for fewer looks than were recorded. */
function spent(usage, looks) {
  const fewer = usage.lare.latent_steps - looks;
  return {
    ...usage,
    completion_tokens: usage.completion_tokens - fewer,
    completion_tokens_details: { reasoning_tokens: looks },
    lare: { ...usage.lare, latent_steps: looks, processed_positions: usage.lare.processed_positions - fewer, queued_ms: 0.1, total_ms: usage.lare.first_token_ms + 1 },
  };
}

if (process.argv[1] === new URL(import.meta.url).pathname) {
  const [port, key] = process.argv.slice(2);
  const mock = await start({ port: Number(port ?? 8081), key: key ?? null, models: MODELS });
  process.stdout.write(`${mock.url}\n`);
}
