// What the page shows of its state. Nothing here asks the server or changes the state.

import * as looks from "./look.js";

/** An element of the page by its id. */
export const find = (id) => document.getElementById(id);

/** What can stand in the place of a run's own thoughts: the server's name for it, and words for it. */
export const TESTS = [
  { name: null, by: "nothing", kind: "With its own thoughts" },
  { name: "noise", by: "noise", kind: "With noise for its thoughts", means: "Gaussian noise as strong as its own thoughts" },
  { name: "zero", by: "zeros", kind: "With zeros for its thoughts", means: "thoughts that hold nothing" },
  { name: "repeat-first", by: "the first, repeated", kind: "With its first thought repeated", means: "the first thought in the place of all others", least: 2 },
  { name: "markers-only", by: "none at all", kind: "Without thoughts", means: "it answers at once" },
  { name: "random-patches", by: "random patches", kind: "Reading random patches", means: "its own thoughts, of patches drawn at random" },
];

const FLOW_MS = 260;
const THUMBNAIL_PX = 144;
const CROP_PX = 224;
/** Answers longer than this are set as text, not as a headline. */
const MOST_HEADLINE = 60;
const calm = matchMedia("(prefers-reduced-motion: reduce)");

function element(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === false || value === null) continue;
    node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children);
  return node;
}

function plural(count, noun) {
  return `${count} ${noun}${count === 1 ? "" : "s"}`;
}

/** A duration with the digits that matter. */
function duration(ms) {
  if (ms < 10) return `${ms.toFixed(1)} ms`;
  return ms < 1000 ? `${ms.toFixed(0)} ms` : `${(ms / 1000).toFixed(1)} s`;
}

/** A word of the vocabulary, blanks made visible. */
function visible(text) {
  const word = text.replaceAll("\n", "\\n").replaceAll("\t", "\\t");
  return word.trim() === "" ? `“${word}”` : word;
}

/** Whether two answers say the same, letter case and closing punctuation aside. */
export function sameAnswer(one, other) {
  const plain = (text) => text.trim().toLowerCase().replace(/[.!?]+$/, "").replace(/\s+/g, " ");
  return plain(one) === plain(other);
}

/** The picture on the stage, or the invitation to bring one. */
export function showPicture(picture) {
  find("invite").hidden = picture !== null;
  find("frame").hidden = picture === null;
  find("stage").classList.toggle("filled", picture !== null);
  if (!picture) return;
  const image = find("image");
  if (image.src !== picture.url) image.src = picture.url;
  image.alt = `The picture: ${picture.name}`;
  find("frame").style.setProperty("--ratio", picture.width / picture.height);
  const from = picture.shrunkFrom;
  const facts = `${picture.width} × ${picture.height} px`;
  find("picture-facts").textContent = from ? `${facts}, made smaller from ${from.width} × ${from.height}` : facts;
}

let flowing = 0;
let onStage = null;

/** What there is to do with a model: no picture for one that reads text alone, no word of looks for one that takes none. */
export function showEyes(sees, thinks) {
  document.querySelector("section.picture").hidden = !sees;
  find("looks-told").hidden = !thinks;
  find("suggestions").hidden = !sees;
  find("suggestions-title").hidden = !sees;
  const ask = sees ? "Ask about the picture" : "Ask";
  find("question").placeholder = ask;
  document.querySelector("label[for=question]").textContent = sees ? "Question about the picture" : "Question";
}

/** The look over the picture; the layer flows from the one before. */
export function showLook(look, picture, place, count) {
  const [layer, marks] = [find("layer"), find("marks")];
  cancelAnimationFrame(flowing);
  const before = onStage;
  onStage = look ? { look, picture } : null;
  layer.classList.toggle("on", look !== null);
  if (!look) {
    marks.replaceChildren();
    marks.setAttribute("aria-label", "No look yet");
    return;
  }
  looks.drawMarks(marks, look, picture);
  marks.setAttribute("aria-label", looks.spoken(look, place, count));
  const same = before?.picture === picture && before.look !== look && before.look.scores.length === look.scores.length;
  if (!same || calm.matches || document.hidden) return looks.drawLayer(layer, look, picture);
  const start = performance.now();
  const flow = (now) => {
    const part = Math.min(Math.max((now - start) / FLOW_MS, 0), 1);
    looks.drawLayer(layer, looks.between(before.look, look, 1 - (1 - part) ** 3), picture);
    if (part < 1) flowing = requestAnimationFrame(flow);
  };
  flowing = requestAnimationFrame(flow);
}

/** Slider and strip of thumbnails. */
export function showWalk(run, picture, place, onPick) {
  const count = run?.looks.length ?? 0;
  find("walk").hidden = count === 0;
  const strip = find("strip");
  if (strip.run !== run) {
    strip.replaceChildren();
    strip.run = run;
  }
  if (count === 0) return;
  while (strip.children.length < count) strip.append(thumbnail(run.looks[strip.children.length], picture, strip.children.length, onPick));
  Array.from(strip.children).forEach((item, at) => item.firstChild.setAttribute("aria-current", String(at === place)));
  const current = strip.children[place];
  strip.scrollTo({ left: current.offsetLeft - (strip.clientWidth - current.offsetWidth) / 2 });
  const slider = find("place");
  slider.max = String(count);
  slider.value = String(place + 1);
  slider.disabled = count === 1;
  slider.setAttribute("aria-valuetext", looks.spoken(run.looks[place], place, count));
  find("place-shown").value = String(place + 1);
  find("place-count").textContent = String(count);
}

function thumbnail(look, picture, place, onPick) {
  const canvas = element("canvas", { "aria-hidden": "true" });
  looks.drawThumbnail(canvas, picture.image, look, picture, THUMBNAIL_PX);
  const names = Array.from(new Set(look.named.map((word) => visible(word.text)))).join(" ");
  const title = names || String(place + 1);
  const button = element("button", { type: "button", tabindex: "-1", "aria-label": `Look ${place + 1}: ${title}` }, canvas, element("span", {}, title));
  button.addEventListener("click", () => onPick(place));
  return element("li", {}, button);
}

/** Everything beside the picture about one look. */
export function showNotes(run, picture, place, threshold) {
  const look = run?.looks[place];
  find("look").hidden = !look;
  if (!look) return;
  find("look-title").textContent = `Look ${place + 1} of ${run.looks.length}`;
  find("look-time").textContent = Number.isFinite(look.time_ms) ? duration(look.time_ms) : "";
  const held = element("div", {}, ...words("Names", look.named), ...words("Nearest words", look.nearest));
  find("look-body").replaceChildren(element("div", { class: "holds" }, pair(look, picture, place), held), numbers(run, place, threshold));
}

function words(title, list) {
  if (!list?.length) return [];
  const chip = (word) => element("li", {}, `${visible(word.text)} `, element("span", { class: "quiet" }, word.score.toFixed(2)));
  return [element("h3", {}, title), element("ul", { class: "words" }, ...list.map(chip))];
}

function numbers(run, place, threshold) {
  const [look, before] = [run.looks[place], run.looks[place - 1]];
  const { nats, even } = looks.entropy(look);
  const list = element("dl", { class: "numbers" });
  if (Number.isFinite(look.gate_mean)) list.append(share("Gate", "share of the thought that comes from what was read; the rest is kept from before", look.gate_mean));
  if (Number.isFinite(look.halt_probability)) list.append(share("Halting", "how sure the model is that this look was the last it needs", look.halt_probability, threshold));
  list.append(number("Entropy", "width of the focus: 0 on one patch, the second number when spread evenly", `${nats.toFixed(2)} of ${even.toFixed(2)} nats`));
  if (before?.scores.length === look.scores.length) list.append(number("Moved", "share of the attention that moved since the look before", `${(100 * looks.moved(before, look)).toFixed(0)} %`));
  return list;
}

function number(name, meaning, value) {
  return element("div", {}, element("dt", { title: meaning }, name), element("dd", {}, value));
}

function share(name, meaning, value, mark = null) {
  const fill = element("i");
  fill.style.width = `${(100 * value).toFixed(1)}%`;
  const bar = element("span", { class: "bar", "aria-hidden": "true" }, fill);
  if (mark !== null) {
    const tick = element("b");
    tick.style.left = `${(100 * mark).toFixed(1)}%`;
    bar.append(tick);
  }
  return element("div", {}, element("dt", { title: meaning }, name), element("dd", {}, bar, value.toFixed(2)));
}

/** The picture drawn from the thought, beside the part of the picture that was read. */
function pair(look, picture, place) {
  const figures = element("div", { class: "pair" });
  if (look.chosen.length > 0) {
    const canvas = element("canvas", { role: "img", "aria-label": `The part of the picture that look ${place + 1} read` });
    looks.drawCrop(canvas, picture.image, looks.readBox(look, picture), CROP_PX);
    figures.append(element("figure", {}, canvas, element("figcaption", {}, "What it read")));
  }
  if (look.drawing?.startsWith("data:image/")) {
    const image = element("img", { src: look.drawing, alt: `Picture drawn from the thought after look ${place + 1}` });
    figures.append(element("figure", {}, image, element("figcaption", {}, "Drawn from the thought")));
  }
  return figures;
}

/** The answer of the shown run, beside the untouched one where thoughts were replaced. */
export function showAnswer(entry, run) {
  find("welcome").hidden = entry !== null;
  find("said").hidden = entry === null;
  if (!entry) return;
  const own = entry.runs[0];
  const test = TESTS.find(({ name }) => name === run.intervention);
  find("asked").textContent = entry.question;
  find("now-kind").textContent = run === own ? "Answer" : test.kind;
  const answer = find("answer");
  answer.textContent = run.text.trim() || waiting(run);
  answer.classList.toggle("pending", run.text === "");
  find("said").classList.toggle("long", Math.max(run.text.length, own.text.length) > MOST_HEADLINE);
  answer.classList.toggle("live", run.status === "asking");
  find("own").hidden = run === own;
  find("own-answer").textContent = own.text.trim();
  const verdict = find("verdict");
  verdict.hidden = run === own || run.status !== "done";
  verdict.textContent = sameAnswer(run.text, own.text) ? "The answer survives." : "The answer does not survive.";
  showFacts(entry, run);
  find("download").hidden = run.status === "asking" || (run.looks.length === 0 && run.text === "");
}

function waiting(run) {
  if (run.status === "waiting") return "Waiting for its turn";
  if (run.status === "asking") return run.looks.length === 0 ? "Looking" : "Thinking";
  return run.status === "done" ? "(it said nothing)" : "(no answer)";
}

function showFacts(entry, run) {
  const facts = run.status !== "done" && run.looks.length === 0 ? [] : [[String(run.looks.length), run.looks.length === 1 ? "look" : "looks"]];
  const used = run.usage;
  if (used) {
    const said = textTokens(used);
    facts.push([String(said), said === 1 ? "text token" : "text tokens"]);
  }
  if (run.status === "done") facts.push([duration(run.totalMs), ""]);
  const items = facts.map(([value, noun]) => element("li", {}, element("b", {}, value), noun ? ` ${noun}` : ""));
  if (run.status === "stopped") items.push(element("li", { class: "note" }, "Stopped; what came is kept."));
  if (run.status === "failed" && (run.looks.length > 0 || run.text !== "")) items.push(element("li", { class: "note" }, "Not complete."));
  if (run.finish === "length") items.push(element("li", { class: "note" }, "Cut at the most tokens allowed."));
  find("facts").replaceChildren(...items);
}

function latentSteps(used) {
  return used.lare?.latent_steps ?? used.completion_tokens_details?.reasoning_tokens ?? 0;
}

function textTokens(used) {
  return used.completion_tokens - latentSteps(used);
}

/** The causal test, a button for each replacement; made once and changed in place, so that focus stays where it is. */
export function showTests(entry, shown, { busy, onTry }) {
  const answered = ["asking", "done"].includes(entry?.runs[0].status);
  find("tests").hidden = !answered || !(entry.model.lare?.max_steps > 0);
  const list = find("tests-list");
  if (list.children.length === 0) list.append(...TESTS.map((test) => testItem(test, onTry)));
  const own = entry?.runs[0];
  const tries = TESTS.map((test, at) => fillTest(list.children[at].firstChild, test, { entry, shown, busy }));
  const judged = tries.filter((outcome) => outcome === "same" || outcome === "changed");
  const changed = judged.filter((outcome) => outcome === "changed").length;
  find("try-all").disabled = busy || !tries.includes("open");
  find("tests-sum").textContent = own?.status === "done" && own.looks.length === 0
    ? "It answered without a look: there are no thoughts to replace."
    : judged.length > 0 ? `The answer changed in ${changed} of ${judged.length}.` : "Each is asked again, with the same number of looks.";
}

function testItem(test, onTry) {
  const button = element("button", { type: "button", title: test.means ?? null }, element("span", { class: "kind" }, test.by), element("span", { class: "outcome" }));
  button.addEventListener("click", () => onTry(test));
  return element("li", {}, button);
}

/** Fills one button; tells whether the test is "open", "closed", or how the answer came out of it. */
function fillTest(button, test, { entry, shown, busy }) {
  const own = entry?.runs[0];
  const run = entry?.runs.find(({ intervention }) => intervention === test.name);
  const kept = run?.status === "done" || run?.status === "asking";
  const possible = own?.status === "done" && own.looks.length >= (test.least ?? 1);
  button.setAttribute("aria-pressed", String(Boolean(run) && run === shown));
  button.disabled = run === own ? !run : !kept && (busy || !possible);
  const outcome = run === own || run?.status !== "done" ? null : sameAnswer(run.text, own.text) ? "same" : "changed";
  const words = [];
  if (kept) words.push(element("b", {}, run.text.trim() || (run.status === "asking" ? "…" : "–")));
  if (outcome) words.push(element("span", { class: outcome }, outcome));
  if (!kept) words.push(possible ? "try" : own?.status === "done" && own.looks.length > 0 ? `needs ${test.least} looks` : "–");
  button.lastChild.replaceChildren(...words);
  return outcome ?? (run !== own && !kept && possible ? "open" : "closed");
}

/** Tokens against what text reasoning would have spent, and all that was counted. */
export function showCost(run, textReasoning) {
  const used = run?.usage;
  find("cost").hidden = !used;
  if (!used) return;
  const [latent, said] = [latentSteps(used), textTokens(used)];
  const appended = used.lare?.appended_visual_tokens ?? 0;
  const spent = latent + said + appended;
  const most = Math.max(spent, textReasoning ?? 0);
  const parts = [["latent", latent], ["said", said], ["appended", appended]];
  const keys = [["latent", plural(latent, "thought")], ["said", `${said} in text`], ["appended", `${appended} of the picture`]];
  const shown = keys.filter((_, at) => parts[at][1] > 0).map(([kind, says]) => element("span", { class: "part" }, element("i", { class: `dot ${kind}`, "aria-hidden": "true" }), says));
  const bars = [bar("This answer", [`${plural(spent, "token")}: `, ...shown], parts, most)];
  if (textReasoning > 0) {
    bars.push(bar("Reasoning in text", [`${textReasoning} tokens, the mean measured on the suite`], [["text", textReasoning]], most));
    const saved = Math.round(100 * (1 - spent / textReasoning));
    bars.push(element("p", { class: "saved" }, saved >= 0 ? `${saved} % fewer tokens` : `${-saved} % more tokens`));
  }
  find("cost-bars").replaceChildren(...bars);
  const rows = [
    ["Text tokens", "generated", said],
    ["Latent steps", "thoughts fed back", latent],
    ["Refocused visual tokens", "memory entries read while refocusing", used.lare?.refocused_visual_tokens],
    ["Appended visual tokens", "added to the context after the prompt", used.lare?.appended_visual_tokens],
    ["Prompt tokens", "positions of the prompt, the picture included", used.prompt_tokens],
    ["Processed positions", "all that the language model computed", used.lare?.processed_positions],
    ["In the queue", "from being accepted to being begun", Number.isFinite(used.lare?.queued_ms) ? duration(used.lare.queued_ms) : undefined],
    ["Time to first token", "from being accepted to the first token of the answer", Number.isFinite(used.lare?.first_token_ms) ? duration(used.lare.first_token_ms) : undefined],
    ["Whole answer", "from being accepted to the end", Number.isFinite(used.lare?.total_ms) ? duration(used.lare.total_ms) : undefined],
    ["Seen here", "from asking on this page to the end, with the way to the server and back", run.totalMs ? duration(run.totalMs) : undefined],
  ].filter(([, , value]) => value !== undefined);
  find("cost-numbers").replaceChildren(...rows.map(([name, meaning, value]) => number(name, meaning, String(value))));
}

function bar(name, says, parts, most) {
  const track = element("span", { class: "track", "aria-hidden": "true" });
  for (const [kind, count] of parts) {
    if (count === 0) continue;
    const fill = element("i", { class: kind });
    fill.style.width = `${((100 * count) / most).toFixed(2)}%`;
    track.append(fill);
  }
  return element("div", { class: "bar-row" }, element("p", {}, element("span", {}, name), element("span", { class: "quiet" }, ...says)), track);
}

/** Earlier questions, newest first. */
export function showHistory(entries, shown, onPick) {
  find("history").hidden = entries.every((entry) => entry === shown);
  const item = (entry) => {
    const own = entry.runs[0];
    const button = element("button", { type: "button", "aria-current": String(entry === shown) },
      ...(entry.picture ? [element("img", { src: entry.picture.url, alt: "" })] : []),
      element("span", { class: "question" }, entry.question),
      element("span", { class: "short" }, own.text.trim() || { asking: "…", waiting: "waiting", failed: "failed", stopped: "stopped" }[own.status] || "–"));
    button.addEventListener("click", () => onPick(entry));
    return element("li", {}, button);
  };
  const list = find("history-list");
  const focused = Array.from(list.children).findIndex((row) => row.contains(document.activeElement));
  list.replaceChildren(...entries.toReversed().map(item));
  if (focused >= 0) list.children[focused]?.firstChild.focus();
}

/** What went wrong and the ways out; nothing when there is none. */
export function showTrouble(trouble, actions = []) {
  const place = find("trouble");
  place.hidden = trouble === null;
  if (!trouble) return place.replaceChildren();
  const buttons = actions.map(({ says, run }) => {
    const button = element("button", { type: "button" }, says);
    button.addEventListener("click", run);
    return button;
  });
  place.replaceChildren(
    element("h2", {}, trouble.title),
    element("p", {}, `${trouble.what} ${trouble.hint}`, trouble.counts ? element("span", { id: "countdown", "aria-hidden": "true" }) : ""),
    element("div", { class: "line" }, ...buttons),
  );
  place.scrollIntoView({ block: "nearest" });
}
