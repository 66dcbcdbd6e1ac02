// The page: what it knows, what the person does, and what follows. Drawing is in view.js, talking to the server in wire.js.

import { isLook } from "./look.js";
import { dataUrl, halved, take } from "./picture.js";
import * as view from "./view.js";
import { Trouble, ask, models } from "./wire.js";

const { find } = view;
const KEY = "lare-key";
/** Pictures of more questions than this are not kept. */
const MOST_ENTRIES = 40;
/** A busy server that says nothing of when is asked again after so long, and so often by itself. */
const WAIT_S = 5;
const MOST_WAITS = 3;

const state = {
  models: [],
  model: null,
  picture: null,
  /** Questions asked on this page: picture, question, model, settings, and runs, the untouched one first. */
  entries: [],
  entry: null,
  run: null,
  place: 0,
  /** Whether the newest look is shown as it comes. */
  follows: true,
  /** The run that is being answered, with the controller that stops it. */
  busy: null,
  /** The run that waits for a busy server, with its timer. */
  waiting: null,
};

// ---- What is shown ----

function showAll() {
  const { entry, run, picture } = state;
  view.showPicture(picture);
  view.showAnswer(entry, run);
  view.showHistory(state.entries, entry, open);
  showWhere();
  showRest();
}

function showWhere() {
  const { run, place, entry } = state;
  const look = run?.looks[place] ?? null;
  if (state.picture) view.showLook(look, state.picture, place, run?.looks.length ?? 0);
  view.showWalk(run, state.picture, place, pick);
  const threshold = entry?.steps === "auto" && run === entry.runs[0] ? entry.threshold : null;
  view.showNotes(run, state.picture, place, threshold);
}

function showRest() {
  view.showTests(state.entry, state.run, { busy: state.busy !== null, onTry: tryTest });
  view.showCost(state.run, state.entry?.model.lare?.text_reasoning_tokens);
}

function showBusy() {
  const working = state.busy !== null || state.waiting !== null;
  const had = document.activeElement === find("ask") || document.activeElement === find("stop");
  find("ask").hidden = working;
  find("stop").hidden = !working;
  if (had) find(working ? "stop" : "ask").focus();
}

function say(text) {
  find("status").textContent = text;
}

/** Shows a look; the last one goes on following what comes. */
function pick(place) {
  const count = state.run?.looks.length ?? 0;
  if (count === 0) return;
  state.place = Math.min(Math.max(place, 0), count - 1);
  state.follows = state.place === count - 1;
  showWhere();
}

function show(run) {
  state.run = run;
  state.follows = true;
  state.place = Math.max(run.looks.length - 1, 0);
}

/** Goes back to an earlier question, with its picture and settings. */
function open(entry) {
  Object.assign(state, { entry, picture: entry.picture });
  show(entry.runs[0]);
  find("question").value = entry.question;
  fit(find("question"));
  if (state.models.includes(entry.model)) chooseModel(entry.model);
  find("steps").value = String(entry.steps);
  find("threshold").value = String(entry.threshold);
  showSettings();
  clearTrouble();
  showAll();
  window.scrollTo({ top: 0 });
}

// ---- Models and settings ----

function limitsOf(model) {
  const told = model?.lare?.limits ?? {};
  const limits = {};
  // Base64 takes four bytes for three, and the question needs some room beside the picture.
  if (told.body_bytes > 0) limits.bytes = Math.floor((told.body_bytes - 65_536) * 0.75);
  if (told.picture_pixels > 0) limits.pixels = told.picture_pixels;
  return limits;
}

function chooseModel(model) {
  state.model = model;
  const most = model.lare?.max_steps ?? 0;
  const options = [new Option("auto", "auto"), new Option("none", "0")];
  for (let step = 1; step <= most; step++) options.push(new Option(String(step), String(step)));
  const before = find("steps").value || "auto";
  find("steps").replaceChildren(...options);
  find("steps").value = options.some((option) => option.value === before) ? before : "auto";
  find("settings").hidden = most === 0;
  view.showEyes(sees(model), most > 0);
  const select = document.getElementById("model");
  if (select) select.value = model.id;
  showSettings();
}

function showSettings() {
  find("threshold-shown").value = Number(find("threshold").value).toFixed(2);
  find("halting").hidden = find("steps").value !== "auto";
}

async function loadModels() {
  state.models = await withKey(() => models(sessionStorage.getItem(KEY)));
  const place = find("model-place");
  if (state.models.length === 1) {
    place.textContent = state.models[0].id;
  } else {
    const select = document.createElement("select");
    select.id = "model";
    select.append(...state.models.map(({ id }) => new Option(id, id)));
    select.addEventListener("change", () => chooseModel(state.models[select.selectedIndex]));
    const label = document.createElement("label");
    label.append("Model ", select);
    place.replaceChildren(label);
  }
  chooseModel(state.models[0]);
}

/** Does something that may need a key, and asks for one until it is taken or the person gives up. */
async function withKey(attempt) {
  for (;;) {
    try {
      return await attempt();
    } catch (trouble) {
      if (trouble.kind !== "key") throw trouble;
      const key = await askForKey(sessionStorage.getItem(KEY) !== null);
      if (key === null) throw trouble;
      sessionStorage.setItem(KEY, key);
    }
  }
}

function askForKey(refused) {
  const dialog = find("key-dialog");
  find("key-what").textContent = refused
    ? "The server does not know the key it was given. Is there a typing error?"
    : "It is kept until this tab is closed, and sent to this server alone.";
  find("key").value = "";
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    const closed = () => resolve(dialog.returnValue === "use" ? find("key").value.trim() : null);
    dialog.addEventListener("close", closed, { once: true });
  });
}

// ---- Pictures ----

async function bring(file) {
  clearTrouble();
  try {
    state.picture = await take(file, limitsOf(state.model));
  } catch (trouble) {
    return report(trouble);
  }
  Object.assign(state, { entry: null, run: null, place: 0 });
  showAll();
  say(`Picture of ${state.picture.width} by ${state.picture.height} pixels.`);
  find("question").focus({ preventScroll: true });
}

async function bringSample() {
  try {
    const response = await fetch("samples/desk.png");
    if (!response.ok) throw new Error(String(response.status));
    await bring(new File([await response.blob()], "desk.png", { type: "image/png" }));
  } catch {
    report(new Trouble({ kind: "sample", title: "The sample did not come", what: `Nothing answers at ${location.origin}.`, hint: "Check that “lare serve” is running there." }));
  }
}

/** The first picture among what was dropped or pasted; tells what is wrong where there is none. */
function bringFrom(transfer) {
  const files = Array.from(transfer?.files ?? []);
  const file = files.find(({ type }) => type.startsWith("image/")) ?? files[0];
  if (file) return bring(file);
  report(new Trouble({ kind: "change", title: "That was no picture", what: "It came as a link or a text.", hint: "Save the picture first, then drop the file." }));
}

// ---- Asking ----

/** Whether a model takes latent steps, so that there are looks to show and thoughts to replace. */
function thinks(model) {
  return model?.lare?.max_steps > 0;
}

/** Whether a model takes pictures; one that does not say so is taken to. */
function sees(model) {
  return model?.lare?.pictures !== 0;
}

/** What is wanted of the latent steps of a run. */
function stepsOf(entry, run) {
  const own = entry.runs[0];
  const lare = { steps: run === own ? entry.steps : own.looks.length, trace: true, drawings: entry.model.lare?.can_draw === true };
  if (lare.steps === "auto") lare.halt_threshold = entry.threshold;
  if (run.intervention) lare.intervention = run.intervention;
  return lare;
}

function bodyOf(entry, run, url) {
  const picture = url ? [{ type: "image_url", image_url: { url } }] : [];
  return {
    model: entry.model.id,
    messages: [{ role: "user", content: [...picture, { type: "text", text: entry.question }] }],
    stream: true,
    stream_options: { include_usage: true },
    temperature: 0,
    ...(thinks(entry.model) ? { lare: stepsOf(entry, run) } : {}),
  };
}

function freshRun(intervention) {
  return { intervention, looks: [], text: "", finish: null, usage: null, status: "asking", trouble: null, firstMs: null, totalMs: null };
}

/** Asks what stands in the form. */
async function askNow() {
  if (state.busy || state.waiting) return;
  clearTrouble();
  const question = find("question").value.trim();
  if (!state.model && !(await ready())) return;
  const looked = sees(state.model);
  if (looked && !state.picture) return need("A picture is missing", "Drop one, paste one, or take the sample.", find("file"));
  if (!question) return need("A question is missing", "Write what you want to know.", find("question"));
  const steps = find("steps").value;
  const entry = {
    picture: looked ? state.picture : null,
    question,
    model: state.model,
    steps: steps === "auto" ? "auto" : Number(steps),
    threshold: Number(find("threshold").value),
    askedAt: new Date().toISOString(),
    runs: [freshRun(null)],
  };
  keep(entry);
  show(entry.runs[0]);
  await answer(entry, entry.runs[0]);
}

function keep(entry) {
  const all = [...state.entries, entry];
  state.entries = all.slice(-MOST_ENTRIES);
  state.entry = entry;
  for (const { picture } of all.slice(0, -MOST_ENTRIES)) {
    if (picture && !state.entries.some((kept) => kept.picture === picture)) URL.revokeObjectURL(picture.url);
  }
}

function need(what, hint, place) {
  report(new Trouble({ kind: "change", title: what, what: "", hint }));
  place.focus();
}

/** The run of a test, unless it ended before its answer did. */
function madeRun(entry, test) {
  return entry.runs.find(({ intervention, status }) => intervention === test.name && (status === "done" || status === "asking"));
}

/** Shows a test that was made, or makes it. */
async function tryTest(test) {
  const { entry } = state;
  const made = test.name === null ? entry.runs[0] : madeRun(entry, test);
  if (made) {
    show(made);
    return showAll();
  }
  if (!state.busy) await makeTest(entry, test, true);
}

/** Asks again with something in the place of the thoughts; gives the run. */
async function makeTest(entry, test, shows) {
  clearTrouble();
  const run = freshRun(test.name);
  entry.runs = [...entry.runs.filter(({ intervention }) => intervention !== test.name), run];
  if (shows) show(run);
  await answer(entry, run);
  return run;
}

/** All tests that are left, one after another, until one fails or is stopped. */
async function tryAll() {
  const { entry } = state;
  for (const test of view.TESTS.slice(1)) {
    if (madeRun(entry, test) || entry.runs[0].looks.length < (test.least ?? 1)) continue;
    const run = await makeTest(entry, test, false);
    if (run.status !== "done") return;
  }
}

/** Asks again what failed, from the start. */
function askAgain(entry, run, waits = 0) {
  clearTrouble();
  if (state.busy) return;
  const fresh = freshRun(run.intervention);
  entry.runs = entry.runs.map((other) => (other === run ? fresh : other));
  Object.assign(state, { entry, picture: entry.picture });
  show(fresh);
  answer(entry, fresh, waits);
}

async function answer(entry, run, waits = 0) {
  const controller = new AbortController();
  state.busy = { run, controller };
  showBusy();
  showAll();
  say(entry.picture ? "Looking at the picture." : "Reading the question.");
  const started = performance.now();
  try {
    const url = entry.picture ? await dataUrl(entry.picture) : null;
    const body = bodyOf(entry, run, url);
    run.request = withoutPicture(body, entry.picture);
    await withKey(() => ask({ body, key: sessionStorage.getItem(KEY), signal: controller.signal, on: listener(run, started) }));
    run.status = "done";
  } catch (cause) {
    run.status = controller.signal.aborted ? "stopped" : "failed";
    run.trouble = cause;
  }
  run.totalMs = performance.now() - started;
  state.busy = null;
  showBusy();
  concluded(entry, run, waits);
  showAll();
}

function concluded(entry, run, waits) {
  if (run.status === "failed") return failed(entry, run, waits);
  if (run.status === "stopped") return say("Stopped.");
  const test = run === entry.runs[0] ? "Answer" : view.TESTS.find(({ name }) => name === run.intervention).kind;
  say(`${test}: ${run.text.trim() || "nothing"}.${thinks(entry.model) ? ` ${run.looks.length} looks.` : ""}`);
}

/** What comes of an answer, put where it belongs; only the shown run is drawn. */
function listener(run, started) {
  const drawn = (change) => (value) => {
    change(value);
    if (run !== state.run) return;
    view.showAnswer(state.entry, run);
    showRest();
  };
  return {
    look: drawn((look) => {
      run.looks.push(checked(look));
      if (run !== state.run) return;
      if (state.follows) state.place = run.looks.length - 1;
      showWhere();
    }),
    text: drawn((piece) => {
      run.firstMs ??= performance.now() - started;
      run.text += piece;
    }),
    finish: drawn((reason) => { run.finish = reason; }),
    usage: drawn((usage) => { run.usage = usage; }),
  };
}

function checked(look) {
  if (!isLook(look)) throw new Trouble({ kind: "again", title: "The answer broke off", what: "A look arrived that cannot be drawn: its numbers do not fit its grid.", hint: "Ask again; if it stays so, page and server are of different versions." });
  return { ...look, named: look.named ?? [], nearest: look.nearest ?? [] };
}

function stop() {
  clearTrouble();
  state.busy?.controller.abort();
  showBusy();
  showAll();
}

// ---- When something goes wrong ----

function clearTrouble() {
  if (state.waiting) {
    clearInterval(state.waiting.timer);
    state.waiting.run.status = "stopped";
    state.waiting = null;
    showBusy();
  }
  view.showTrouble(null);
}

function report(trouble, actions = []) {
  const known = trouble instanceof Trouble ? trouble : new Trouble({ kind: "again", title: "The page failed", what: String(trouble), hint: "Reload it; if it happens again, please report it." });
  view.showTrouble(known, [...actions, { says: "Close", run: clearTrouble }]);
}

function failed(entry, run, waits) {
  const { trouble } = run;
  const again = () => askAgain(entry, run);
  if (trouble.kind === "smaller") return report(trouble, [{ says: "Send it at half the size", run: () => askSmaller(entry, run) }]);
  if (trouble.kind === "wait" && waits < MOST_WAITS) return wait(entry, run, waits);
  return report(trouble, trouble.kind === "change" ? [] : [{ says: "Ask again", run: again }]);
}

async function askSmaller(entry, run) {
  try {
    entry.picture = await halved(entry.picture);
  } catch (trouble) {
    return report(trouble);
  }
  askAgain(entry, run);
}

/** A busy server is asked again when it said, with a way to ask now or to give up. */
function wait(entry, run, waits) {
  const again = () => askAgain(entry, run, waits + 1);
  view.showTrouble({ ...run.trouble, hint: "Asking again", counts: true }, [{ says: "Ask now", run: again }, { says: "Give up", run: stop }]);
  let left = run.trouble.waitS || WAIT_S;
  // Not read aloud each second: the countdown is for the eye.
  const count = () => { find("countdown").textContent = ` in ${left} s.`; };
  count();
  const timer = setInterval(() => {
    left -= 1;
    if (left > 0) count();
    else again();
  }, 1000);
  run.status = "waiting";
  state.waiting = { run, timer };
  showBusy();
}

async function ready() {
  try {
    await loadModels();
    return true;
  } catch (trouble) {
    report(trouble, [{ says: "Try again", run: async () => { clearTrouble(); await ready(); } }]);
    return false;
  }
}

// ---- The trace ----

/** The request as it was sent, with the picture's hash in the place of its bytes. */
function withoutPicture(body, picture) {
  if (!picture) return body;
  const { sha256, bytes, width, height } = picture;
  const [message] = body.messages;
  const content = message.content.map((part) => (part.type === "image_url" ? { type: "image_url", image_url: { sha256, bytes, media_type: picture.blob.type, width, height } } : part));
  return { ...body, messages: [{ ...message, content }] };
}

function download() {
  const { entry } = state;
  const kept = ({ request, looks, text, finish, usage, status, firstMs, totalMs }) => (
    { request, status, looks, answer: text, finish_reason: finish, usage, seen_here_ms: { first_token: firstMs, total: totalMs } });
  const trace = { program: "lare page", asked_at: entry.askedAt, runs: entry.runs.map(kept) };
  const blob = new Blob([JSON.stringify(trace, null, 1), "\n"], { type: "application/json" });
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = `lare-${entry.question.toLowerCase().replace(/[^a-z0-9]+/g, "-").replace(/^-+|-+$/g, "").slice(0, 48) || "answer"}.json`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

// ---- What the person does ----

/** As many lines as the question takes. */
function fit(area) {
  area.style.height = "auto";
  area.style.height = `${area.scrollHeight + 2}px`;
}

function keyDown(event) {
  if (find("key-dialog").open || event.isComposing) return;
  if (event.key === "Escape" && (state.busy || state.waiting)) {
    event.preventDefault();
    return stop();
  }
  const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  const elsewhere = event.target.closest?.("input, textarea, select") || event.altKey || event.ctrlKey || event.metaKey || event.shiftKey;
  if (!step || elsewhere || !state.run?.looks.length) return;
  event.preventDefault();
  pick(state.place + step);
}

function listen() {
  const on = (id, event, act) => find(id).addEventListener(event, act);
  on("form", "submit", (event) => { event.preventDefault(); askNow(); });
  on("question", "keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    askNow();
  });
  on("question", "input", ({ target }) => fit(target));
  window.addEventListener("resize", () => fit(find("question")));
  on("stop", "click", stop);
  on("steps", "change", showSettings);
  on("threshold", "input", showSettings);
  for (const id of ["file", "camera"]) {
    on(id, "change", ({ target }) => {
      if (target.files[0]) bring(target.files[0]);
      target.value = ""; // the same file may be chosen again
    });
  }
  on("sample", "click", bringSample);
  on("suggestions", "click", async ({ target }) => {
    const button = target.closest("button");
    if (!button || state.busy) return;
    await bringSample();
    find("question").value = button.textContent;
    fit(find("question"));
    if (state.picture || !sees(state.model)) askNow();
  });
  on("place", "input", ({ target }) => pick(Number(target.value) - 1));
  on("plain", "change", ({ target }) => find("frame").classList.toggle("plain", target.checked));
  on("stage", "click", () => { if (!state.picture) find("file").click(); });
  on("try-all", "click", tryAll);
  on("download", "click", download);
  on("key-cancel", "click", () => find("key-dialog").close(""));
  document.addEventListener("keydown", keyDown);
  document.addEventListener("paste", (event) => {
    if (event.clipboardData?.files.length) {
      event.preventDefault();
      bringFrom(event.clipboardData);
    }
  });
  listenForDrops();
}

function listenForDrops() {
  const over = (is) => document.body.classList.toggle("over", is);
  document.addEventListener("dragover", (event) => { event.preventDefault(); over(true); });
  document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) over(false); });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    over(false);
    bringFrom(event.dataTransfer);
  });
}

listen();
showAll();
ready();
