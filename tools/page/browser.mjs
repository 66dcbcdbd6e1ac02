// Debian's Chromium for the checks: one browser, a fresh page for each check, and what no page may do.

import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { chromium } from "playwright-core";

const EXECUTABLE = "/usr/bin/chromium";
const FLAGS = [
  "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync", "--force-color-profile=srgb", "--font-render-hinting=none",
];

/** Starts the browser with an empty profile that goes when it is closed. */
export async function launch() {
  const profile = await mkdtemp(join(tmpdir(), "lare-page-"));
  const context = await chromium.launchPersistentContext(profile, {
    executablePath: EXECUTABLE, headless: true, args: FLAGS, viewport: { width: 1280, height: 860 }, reducedMotion: "reduce", acceptDownloads: true,
  });
  context.setDefaultTimeout(15_000);
  const close = async () => {
    await context.close();
    await rm(profile, { recursive: true, force: true });
  };
  return { context, close };
}

/**
 * Opens the page at `url` in a tab of its own. `settle` closes it and fails if it wrote an error to the console, ran into one,
 * or asked anything outside its origin. `expected` are statuses that the check provokes: the browser logs those by itself.
 */
export async function open(context, url, { expected = [], width = 1280, height = 860, dark = false, motion = false, ready = true } = {}) {
  const page = await context.newPage();
  await page.setViewportSize({ width, height });
  await page.emulateMedia({ colorScheme: dark ? "dark" : "light", reducedMotion: motion ? "no-preference" : "reduce" });
  const wrong = [];
  page.on("pageerror", (error) => wrong.push(`error: ${error.stack ?? error}`));
  page.on("console", (message) => {
    const provoked = expected.some((what) => message.text().includes(what));
    if (["error", "warning"].includes(message.type()) && !provoked) wrong.push(`console: ${message.text()}`);
  });
  page.on("request", (request) => {
    const inside = request.url().startsWith(url) || /^(data|blob):/.test(request.url());
    if (!inside) wrong.push(`request outside its origin: ${request.url()}`);
  });
  await page.goto(url);
  if (ready) await page.waitForFunction(() => document.getElementById("model-place").textContent !== "");
  const settle = async () => {
    await page.close();
    assert.deepEqual(wrong, []);
  };
  return { page, settle };
}
