// The page that `lare serve` serves, end to end in Debian's Chromium. From this folder:
//
//   apt-get install chromium && npm ci
//   node check.mjs                          against mock.mjs, which plays back recorded answers
//   node check.mjs http://127.0.0.1:8080    against a running server: the checks that hold for any model
//   node check.mjs --accept                 takes the screenshots as reviewed; look at each before you commit it

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { after, before, test } from "node:test";
import { launch, open } from "./browser.mjs";
import { start } from "./mock.mjs";
import { compare } from "./screens.mjs";

const given = process.argv.slice(2).find((word) => word.startsWith("http"));
const accepts = process.argv.includes("--accept");
const HERE = new URL("./", import.meta.url);
const AXE = await readFile(new URL("node_modules/axe-core/axe.min.js", HERE), "utf8");
const THREE = "What is written on the object above the one left of the cloud?";
const TWO = "What is written on the object left of the cat?";
const WIDE = "What is written on the object above the tractor?";
const SAME_ORIGIN = given ? new URL("/", given).href : null;
const refused = (status) => [`the server responded with a status of ${status}`];

let browser;
before(async () => { browser = await launch(); });
after(() => browser.close());

/** A check that holds for any server. */
function holds(claim, options, act) {
  test(claim, async () => {
    const mock = given ? null : await start(options.mock);
    const { page, settle } = await open(browser.context, SAME_ORIGIN ?? mock.url, options);
    try {
      await act(page, mock);
      await settle();
    } finally {
      await mock?.stop();
      if (!page.isClosed()) await page.close();
    }
  });
}

/** A check that needs the mock: its failures, its answers or its screenshots. */
function holdsForMock(claim, options, act) {
  if (!given) holds(claim, options, act);
}

// ---- What a person does ----

const text = (page, id) => page.locator(`#${id}`).textContent();
const visible = (page, id) => page.locator(`#${id}`).isVisible();
const count = (page) => page.locator("#strip li").count();
const notBusy = (page) => page.waitForSelector("#ask", { state: "visible" });

async function sample(page) {
  await page.click("#sample");
  await page.waitForSelector("#frame", { state: "visible" });
}

async function askOnly(page, question) {
  await page.fill("#question", question);
  await page.click("#ask");
}

async function asked(page, question) {
  await askOnly(page, question);
  await notBusy(page);
}

async function sampleAsked(page, question) {
  await sample(page);
  await asked(page, question);
}

async function accessible(page) {
  await page.evaluate(AXE);
  const { violations } = await page.evaluate(() => globalThis.axe.run(document, { runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"] }));
  assert.deepEqual(violations.map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.html.slice(0, 120)).join(" | ")}`), []);
}

/** Times are not the same twice. */
async function stillTimes(page) {
  await page.mouse.move(0, 0);
  await page.evaluate(() => {
    document.activeElement.blur();
    for (const node of document.querySelectorAll("#facts b, #look-time, #cost-numbers dd")) {
      if (/\d m?s$/.test(node.textContent)) node.textContent = "100 ms";
    }
  });
}

const pictureBytes = async (name) => (await readFile(new URL(name, HERE))).toString("base64");

/** Drops or pastes a file, as the browser would tell the page. */
async function transfer(page, kind, { name, type, base64 }) {
  await page.evaluate(({ kind, name, type, base64 }) => {
    const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
    const data = new DataTransfer();
    data.items.add(new File([bytes], name, { type }));
    const event = kind === "paste"
      ? new ClipboardEvent("paste", { clipboardData: data, bubbles: true, cancelable: true })
      : new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true });
    document.body.dispatchEvent(event);
  }, { kind, name, type, base64 });
}

// ---- Asking ----

holds("an answer comes with a look for each latent step, its words and its cost", {}, async (page) => {
  await sampleAsked(page, TWO);
  assert.ok((await text(page, "answer")).trim().length > 0);
  const looks = await count(page);
  assert.ok(looks > 0);
  assert.equal(await text(page, "look-title"), `Look ${looks} of ${looks}`);
  assert.ok((await page.locator("#marks .selected").count()) > 0);
  assert.ok((await page.locator("#look-body .words li").count()) > 0);
  const cost = await text(page, "cost-numbers");
  for (const name of ["Text tokens", "Latent steps", "Refocused visual tokens", "Processed positions", "Time to first token"]) assert.ok(cost.includes(name), cost);
  assert.match(await text(page, "status"), /^Answer: .+ looks\.$/);
});

holdsForMock("each look appears as it comes, before the answer", {}, async (page) => {
  await sample(page);
  await askOnly(page, `slow: ${THREE}`);
  for (const look of [1, 2, 3]) {
    await page.waitForFunction((n) => document.querySelectorAll("#strip li").length === n, look);
    assert.equal(await text(page, "look-title"), `Look ${look} of ${look}`);
    assert.ok((await page.locator("#answer.pending").count()) === 1);
  }
  await page.waitForFunction(() => document.getElementById("answer").textContent === "A");
  await notBusy(page);
  assert.equal(await text(page, "answer"), "A2");
});

holdsForMock("the newest look is followed until the person moves, and again at the end", {}, async (page) => {
  await sample(page);
  await askOnly(page, `slow: ${THREE}`);
  await page.waitForFunction(() => document.querySelectorAll("#strip li").length === 2);
  await page.locator("#place").focus();
  await page.keyboard.press("ArrowLeft");
  await page.waitForFunction(() => document.querySelectorAll("#strip li").length === 3);
  assert.equal(await text(page, "look-title"), "Look 1 of 3");
  assert.equal(await page.inputValue("#place"), "1");
  await notBusy(page);
  await page.keyboard.press("End");
  assert.equal(await text(page, "look-title"), "Look 3 of 3");
});

holds("the number of looks is the number that was asked for", {}, async (page) => {
  await sample(page);
  await page.selectOption("#steps", "1");
  assert.equal(await visible(page, "halting"), false);
  await asked(page, TWO);
  assert.equal(await count(page), 1);
  await page.selectOption("#steps", "0");
  await asked(page, TWO);
  assert.equal(await count(page), 0);
  assert.equal(await visible(page, "walk"), false);
  assert.match(await text(page, "tests-sum"), /no thoughts to replace/);
});

holdsForMock("what is set reaches the server as the contract has it", {}, async (page, mock) => {
  await sample(page);
  await page.fill("#threshold", "0.8");
  await asked(page, THREE);
  await page.selectOption("#steps", "2");
  await asked(page, THREE);
  await page.locator("#tests-list button").nth(1).click();
  await page.waitForSelector("#verdict", { state: "visible" });
  const [auto, two, noise] = mock.log.map(({ body }) => body.lare);
  assert.deepEqual(auto, { steps: "auto", trace: true, drawings: true, halt_threshold: 0.8 });
  assert.deepEqual(two, { steps: 2, trace: true, drawings: true });
  assert.deepEqual(noise, { steps: 2, trace: true, drawings: true, intervention: "noise" });
  assert.equal(mock.log[0].sha256, createHash("sha256").update(await readFile(new URL("../../examples/desk.png", HERE))).digest("hex"));
});

// ---- Thoughts replaced ----

holds("a replaced thought's answer stands beside the untouched one", {}, async (page) => {
  await sampleAsked(page, TWO);
  const own = await text(page, "answer");
  await page.locator("#tests-list button").nth(1).click();
  await page.waitForSelector("#verdict", { state: "visible" });
  assert.equal(await text(page, "own-answer"), own.trim());
  assert.equal(await text(page, "now-kind"), "With noise for its thoughts");
  const survives = (await text(page, "answer")).trim().toLowerCase() === own.trim().toLowerCase();
  assert.equal(await text(page, "verdict"), survives ? "The answer survives." : "The answer does not survive.");
  await page.locator("#tests-list button").nth(0).click();
  assert.equal(await text(page, "answer"), own);
  assert.equal(await visible(page, "own"), false);
});

holdsForMock("all replacements are tried in turn and counted", {}, async (page) => {
  await sampleAsked(page, THREE);
  await page.click("#try-all");
  await page.waitForFunction(() => document.getElementById("tests-sum").textContent.includes("of 5"));
  assert.equal(await text(page, "tests-sum"), "The answer changed in 4 of 5.");
  assert.equal(await text(page, "answer"), "A2");
});

holdsForMock("one look has no first to repeat", {}, async (page) => {
  await sampleAsked(page, "What is written under the dog?");
  const repeat = page.locator("#tests-list button").nth(3);
  assert.equal(await repeat.isDisabled(), true);
  assert.match(await repeat.textContent(), /needs 2 looks/);
});

// ---- Pictures ----

/** Where the layer is lightest, in shares of the picture's sides. */
const lightest = (page) => page.evaluate(() => {
  const layer = document.getElementById("layer");
  const copy = Object.assign(document.createElement("canvas"), { width: layer.width, height: layer.height });
  copy.getContext("2d", { willReadFrequently: true }).drawImage(layer, 0, 0);
  const { data } = copy.getContext("2d").getImageData(0, 0, layer.width, layer.height);
  let best = 0;
  for (let at = 0; at < data.length; at += 4) if (data[at + 1] > data[best + 1]) best = at;
  return { x: ((best / 4) % layer.width) / layer.width, y: Math.floor(best / 4 / layer.width) / layer.height };
});

holdsForMock("on a wide picture the light lies on the patch that was looked at, and cells past the edge are cut off", {}, async (page) => {
  await page.setInputFiles("#file", new URL("wide.jpg", HERE).pathname);
  await asked(page, WIDE);
  assert.equal(await text(page, "answer"), "D7");
  // 600 x 350 pixels on 10 x 6 cells of 64: the best patch is number 15, columns 320 to 384, rows 64 to 128.
  const { x, y } = await lightest(page);
  assert.ok(x * 600 > 320 && x * 600 < 384 && y * 350 > 64 && y * 350 < 128, `${x * 600}, ${y * 350}`);
  const best = await page.locator("#marks .best rect").first().evaluate((rect) => ["x", "y", "width", "height"].map((name) => Number(rect.getAttribute(name))));
  assert.deepEqual(best, [322, 66, 60, 60]);
  assert.equal(await page.locator("#marks").getAttribute("viewBox"), "0 0 600 350");
  const box = await page.locator("#frame").boundingBox();
  assert.ok(Math.abs(box.width / box.height - 600 / 350) < 0.01);
});

holds("on a wide picture the marks lie within it, on cells of the server's size", {}, async (page) => {
  await page.setInputFiles("#file", new URL("wide.jpg", HERE).pathname);
  await asked(page, WIDE);
  const marks = await page.locator("#marks .selected .line").evaluateAll((rects) => rects.map((rect) => {
    const [left, top, width, height] = ["x", "y", "width", "height"].map((name) => Number(rect.getAttribute(name)));
    return { right: left + width, bottom: top + height, left, top };
  }));
  assert.ok(marks.length > 0);
  for (const { left, top, right, bottom } of marks) assert.ok(left >= 0 && top >= 0 && right <= 600 && bottom <= 350);
});

holdsForMock("where motion is welcome the light flows to the next look, and gets there", { motion: true }, async (page) => {
  await sampleAsked(page, THREE);
  await page.waitForTimeout(600);
  const last = await lightest(page);
  await page.keyboard.press("Escape");
  await page.locator("#strip button").first().click();
  await page.waitForTimeout(600);
  const first = await lightest(page);
  // Best patches of 7 x 7: number 27 (row 4, column 7) in the first look, number 12 (row 2, column 6) in the last.
  assert.deepEqual([first, last].map(({ x, y }) => [Math.floor(x * 7), Math.floor(y * 7)]), [[6, 3], [5, 1]]);
});

for (const kind of ["drop", "paste"]) {
  holds(`a picture can come by ${kind}`, {}, async (page) => {
    await transfer(page, kind, { name: "wide.jpg", type: "image/jpeg", base64: await pictureBytes("wide.jpg") });
    await page.waitForSelector("#frame", { state: "visible" });
    assert.equal(await text(page, "picture-facts"), "600 × 350 px");
    await asked(page, WIDE);
    assert.ok((await text(page, "answer")).trim().length > 0);
  });
}

holds("what is no picture is refused in words", {}, async (page) => {
  await transfer(page, "drop", { name: "notes.txt", type: "text/plain", base64: Buffer.from("no picture").toString("base64") });
  await page.waitForSelector("#trouble", { state: "visible" });
  assert.match(await text(page, "trouble"), /not a picture the browser can show.*notes\.txt.*text\/plain/s);
  assert.equal(await visible(page, "frame"), false);
});

const small = [{ id: "nano", lare: { max_steps: 8, pictures: 1, can_draw: true, limits: { picture_pixels: 50_000 } } }];
holdsForMock("a picture above the server's limit is made smaller, in its shape, and no other is touched", { mock: { models: small } }, async (page, mock) => {
  await page.setInputFiles("#file", new URL("wide.jpg", HERE).pathname);
  await asked(page, WIDE);
  assert.match(await text(page, "picture-facts"), /^293 × 171 px, made smaller from 600 × 350$/);
  assert.match(mock.log[0].body.messages[0].content[0].image_url.url, /^data:image\/jpeg/);
});

holds("SHA-256 without the browser's own is the same", {}, async (page) => {
  const lengths = [0, 1, 55, 56, 63, 64, 65, 1000];
  const got = await page.evaluate(async (lengths) => {
    const { digestOf } = await import("./picture.js");
    return lengths.map((length) => Array.from(digestOf(Uint8Array.from({ length }, (_, at) => (at * 7) % 256)), (byte) => byte.toString(16).padStart(2, "0")).join(""));
  }, lengths);
  const hash = (length) => createHash("sha256").update(Uint8Array.from({ length }, (_, at) => (at * 7) % 256)).digest("hex");
  assert.deepEqual(got, lengths.map(hash));
});

// ---- What is kept ----

holds("the trace has the looks, the answer and the request, with the picture's hash for its bytes", {}, async (page) => {
  await sampleAsked(page, TWO);
  const waits = page.waitForEvent("download");
  await page.click("#download");
  const file = await waits;
  assert.match(file.suggestedFilename(), /^lare-what-is-written.*\.json$/);
  const words = await readFile(await file.path(), "utf8");
  const [run] = JSON.parse(words).runs;
  const [picture, question] = run.request.messages[0].content;
  const desk = await readFile(new URL("../../examples/desk.png", HERE));
  assert.equal(picture.image_url.sha256, createHash("sha256").update(desk).digest("hex"));
  assert.equal(question.text, TWO);
  assert.equal(run.answer.trim(), (await text(page, "answer")).trim());
  assert.equal(run.looks.length, await count(page));
  assert.equal(run.looks[0].scores.length, run.looks[0].rows * run.looks[0].cols);
  assert.ok(!words.includes(desk.toString("base64").slice(0, 200)));
});

holds("earlier questions can be gone back to, with their pictures", {}, async (page) => {
  await sampleAsked(page, TWO);
  const first = await text(page, "answer");
  await page.setInputFiles("#file", new URL("wide.jpg", HERE).pathname);
  await asked(page, WIDE);
  assert.equal(await page.locator("#history-list button").count(), 2);
  await page.locator("#history-list button").nth(1).click();
  assert.equal(await text(page, "answer"), first);
  assert.equal(await page.inputValue("#question"), TWO);
  assert.equal(await text(page, "picture-facts"), "448 × 448 px");
});

// ---- Keys, screens, eyes ----

holds("everything can be done with keys alone", {}, async (page) => {
  const reach = async (id) => {
    for (let press = 0; press < 40; press++) {
      if (await page.evaluate((id) => document.activeElement?.id === id, id)) return;
      await page.keyboard.press("Tab");
    }
    assert.fail(`Tab does not reach #${id}`);
  };
  await reach("sample");
  await page.keyboard.press("Enter");
  await page.waitForFunction(() => document.activeElement.id === "question");
  await page.keyboard.type(TWO);
  await page.keyboard.press("Enter");
  await page.waitForSelector("#look", { state: "visible" });
  await notBusy(page);
  const looks = await count(page);
  await reach("download");
  await page.keyboard.press("ArrowLeft");
  assert.equal(await text(page, "look-title"), `Look ${Math.max(looks - 1, 1)} of ${looks}`);
  await page.keyboard.press("ArrowRight");
  assert.equal(await text(page, "look-title"), `Look ${looks} of ${looks}`);
});

holdsForMock("Escape stops, keeps what came, and leaves the focus on a button that asks", {}, async (page) => {
  await sample(page);
  await askOnly(page, `slow: ${THREE}`);
  await page.waitForFunction(() => document.querySelectorAll("#strip li").length === 1);
  await page.keyboard.press("Escape");
  await notBusy(page);
  assert.equal(await count(page), 1);
  assert.match(await text(page, "facts"), /Stopped; what came is kept/);
  assert.equal(await page.evaluate(() => document.activeElement.id), "ask");
});

for (const dark of [false, true]) {
  holds(`axe finds nothing to object to in ${dark ? "the dark" : "the light"}`, { dark }, async (page) => {
    await accessible(page);
    await sampleAsked(page, TWO);
    await page.locator("#tests-list button").nth(1).click();
    await page.waitForSelector("#verdict", { state: "visible" });
    await accessible(page);
    await page.fill("#question", "");
    await page.click("#ask");
    await page.waitForSelector("#trouble", { state: "visible" });
    await accessible(page);
  });
}

holds("at 360 px nothing is wider than the screen or too small to touch", { width: 360, height: 740 }, async (page) => {
  await sampleAsked(page, THREE);
  assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), 360);
  const low = await page.locator("button:visible, select:visible, label.button:visible").evaluateAll((all) => all.filter((one) => one.getBoundingClientRect().height < 24).map((one) => one.outerHTML));
  assert.deepEqual(low, []);
});

const two = [{ id: "nano", lare: { max_steps: 8, pictures: 1, can_draw: true } }, { id: "plain", lare: { max_steps: 0, pictures: 1, can_draw: false } }];
holdsForMock("a model without latent steps is asked for none of them", { mock: { models: two } }, async (page, mock) => {
  await page.selectOption("#model", "plain");
  assert.equal(await visible(page, "settings"), false);
  await sampleAsked(page, TWO);
  assert.equal(await visible(page, "tests"), false);
  assert.equal(mock.log[0].body.model, "plain");
  assert.equal(mock.log[0].body.lare, undefined);
  assert.equal(await visible(page, "looks-told"), false);
});

const reader = [{ id: "reader", lare: { max_steps: 0, pictures: 0, can_draw: false } }];
holdsForMock("a model that reads text alone is asked without a picture", { mock: { models: reader } }, async (page, mock) => {
  assert.equal(await page.locator("section.picture").isVisible(), false);
  await page.fill("#question", TWO);
  await page.click("#ask");
  await page.waitForFunction(() => document.getElementById("ask").hidden === false && document.getElementById("answer").textContent !== "");
  assert.deepEqual(mock.log[0].body.messages[0].content, [{ type: "text", text: TWO }]);
  assert.equal(await visible(page, "trouble"), false);
});

// ---- When something goes wrong ----

async function refusedWith(page, question, words) {
  await sampleAsked(page, question);
  assert.equal(await visible(page, "trouble"), true);
  assert.match(await text(page, "trouble"), words);
}

for (const [status, words] of [
  [400, /refused this question.*lare\.halt_threshold.*got 7.*Change what it names/s],
  [500, /failed at this question.*The answer failed inside the server.*mock-1.*Ask again/s],
  [503, /takes no questions now.*shutting down.*in a moment/s],
]) {
  holdsForMock(`a ${status} says what happened and what to do`, { expected: refused(status) }, (page) => refusedWith(page, `fail: ${status}`, words));
}

holdsForMock("a 413 offers the picture at half the size", { expected: refused(413) }, async (page, mock) => {
  await refusedWith(page, "fail: 413", /too large for this server.*A body has at most 4194304 bytes/s);
  await page.getByRole("button", { name: "half the size" }).click();
  await page.waitForSelector("#download", { state: "visible" });
  assert.equal(await text(page, "picture-facts"), "224 × 224 px, made smaller from 448 × 448");
  assert.ok(mock.log[1].bytes < mock.log[0].bytes);
});

holdsForMock("a 429 is asked again when the server said", { expected: refused(429) }, async (page) => {
  await sample(page);
  await askOnly(page, "fail: 429");
  await page.waitForSelector("#trouble", { state: "visible" });
  assert.match(await text(page, "trouble"), /busy.*64 requests are waiting.*Asking again in 2 s/s);
  assert.equal(await text(page, "answer"), "Waiting for its turn");
  await page.waitForSelector("#download", { state: "visible" });
  assert.equal(await visible(page, "trouble"), false);
  assert.equal(await text(page, "answer"), "A2");
});

holdsForMock("Escape gives up waiting for a busy server", { expected: refused(429) }, async (page, mock) => {
  await sample(page);
  await askOnly(page, "fail: 429");
  await page.waitForSelector("#trouble", { state: "visible" });
  await page.keyboard.press("Escape");
  await notBusy(page);
  assert.match(await text(page, "facts"), /Stopped/);
  await page.waitForTimeout(2500);
  assert.equal(mock.log.length, 1);
});

for (const [kind, words] of [
  ["broken", /broke off.*What came is kept/s],
  ["damaged", /broke off.*damaged/s],
  ["inside", /took too long.*within 300 seconds/s],
]) {
  holdsForMock(`a stream that ends as "${kind}" keeps the looks that came`, { expected: ["net::ERR_INCOMPLETE_CHUNKED_ENCODING"] }, async (page) => {
    await refusedWith(page, `fail: ${kind}`, words);
    assert.equal(await count(page), 1);
    assert.match(await text(page, "facts"), /Not complete/);
  });
}

holdsForMock("a server that is gone is named, and asked again when it is back", { expected: ["net::ERR_CONNECTION_REFUSED"] }, async (page, mock) => {
  await sample(page);
  await mock.stop();
  await asked(page, THREE);
  assert.match(await text(page, "trouble"), /does not answer.*http:\/\/127\.0\.0\.1.*lare serve/s);
  const again = await start({ port: Number(new URL(mock.url).port) });
  try {
    await page.getByRole("button", { name: "Ask again" }).click();
    await page.waitForSelector("#download", { state: "visible" });
    assert.equal(await text(page, "answer"), "A2");
  } finally {
    await again.stop();
  }
});

holdsForMock("a key is asked for, refused, taken, and kept for this tab alone", { mock: { key: "right" }, expected: refused(401), ready: false }, async (page) => {
  await page.waitForSelector("#key-dialog[open]");
  await page.fill("#key", "wrong");
  await page.keyboard.press("Enter");
  await page.waitForFunction(() => document.getElementById("key-what").textContent.includes("does not know"));
  await page.fill("#key", "right");
  await page.keyboard.press("Enter");
  await page.waitForFunction(() => document.getElementById("model-place").textContent === "nano");
  await sampleAsked(page, THREE);
  assert.equal(await text(page, "answer"), "A2");
  assert.deepEqual(await page.evaluate(() => [sessionStorage.length, localStorage.length, document.cookie]), [1, 0, ""]);
});

holds("a question without a picture, and a picture without a question, are asked for", {}, async (page) => {
  await asked(page, TWO);
  assert.match(await text(page, "trouble"), /picture is missing/);
  await sample(page);
  await asked(page, "  ");
  assert.match(await text(page, "trouble"), /question is missing/);
});

// ---- How it looks ----

test("colours and outlines are those of a trace's own page", async () => {
  const read = (path) => readFile(new URL(`../../crates/${path}`, HERE), "utf8");
  const [overlay, lookCss, css] = await Promise.all([read("trace/src/render/overlay.rs"), read("trace/src/render/look.css"), read("server/src/page/page.css")]);
  const script = await read("server/src/page/look.js");
  const numbers = (words) => words.match(/[\d.]+/g).map(Number);
  const inferno = (words) => numbers(/INFERNO[^=]*= \[([^;]+)\];/.exec(words)[1]);
  assert.equal(inferno(script).length, 30);
  assert.deepEqual(inferno(script), inferno(overlay));
  for (const name of ["OPACITY_LOW", "OPACITY_HIGH", "CONTRAST"]) {
    const value = (words) => Number(new RegExp(`${name}[^=]*= ([\\d.]+)`).exec(words)[1]);
    assert.equal(value(script), value(overlay), name);
  }
  const rules = lookCss.split("\n").filter((line) => /^\.look \.(shadow|line|best|rank)/.test(line));
  assert.equal(rules.length, 5);
  for (const rule of rules) assert.ok(css.includes(rule), rule);
});

const SCREENS = [
  ["empty", {}, async () => {}],
  ["answer", {}, (page) => sampleAsked(page, THREE)],
  ["replaced-dark", { dark: true }, async (page) => {
    await sampleAsked(page, THREE);
    await page.click("#try-all");
    await page.waitForFunction(() => document.getElementById("tests-sum").textContent.includes("of 5"));
    await page.locator("#tests-list button").nth(1).click();
    await page.locator("#strip button").nth(1).click();
  }],
  ["phone", { width: 360, height: 740 }, (page) => sampleAsked(page, TWO)],
  ["wide", {}, async (page) => {
    await page.setInputFiles("#file", new URL("wide.jpg", HERE).pathname);
    await asked(page, WIDE);
  }],
  ["trouble", { expected: refused(503) }, (page) => sampleAsked(page, "fail: 503")],
];
for (const [name, options, act] of SCREENS) {
  holdsForMock(`the page looks as it was reviewed: ${name}`, options, async (page) => {
    await act(page);
    await stillTimes(page);
    await compare(page, name, accepts);
  });
}
