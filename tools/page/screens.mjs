// Screenshots against reviewed ones. Both are halved and cut to 32 levels a channel first, which keeps the reviewed files
// small and forgives the last bit of a font's edges. A screenshot passes when at most MOST_SHARE of its pixels differ by
// more than THRESHOLD (pixelmatch's scale, 0 to 1). The reviewed ones show Debian bookworm's Chromium with its DejaVu fonts.

import assert from "node:assert/strict";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import pixelmatch from "pixelmatch";
import { PNG } from "pngjs";

const THRESHOLD = 0.12;
const MOST_SHARE = 0.01;
const LEVEL_BITS = 5;
const REVIEWED = new URL("reviewed/", import.meta.url);
const GOT = new URL("got/", import.meta.url);

/** Compares the page with `reviewed/NAME.png`, or writes it there when `accepts`. */
export async function compare(page, name, accepts) {
  const shot = reduced(PNG.sync.read(await page.screenshot({ fullPage: true })));
  const file = PNG.sync.write(shot, { colorType: 2, deflateLevel: 9 });
  if (accepts) return await writeFile(new URL(`${name}.png`, REVIEWED), file);
  const reviewed = PNG.sync.read(await readFile(new URL(`${name}.png`, REVIEWED)));
  const same = reviewed.width === shot.width && reviewed.height === shot.height;
  const differing = same ? pixelmatch(reviewed.data, shot.data, null, shot.width, shot.height, { threshold: THRESHOLD }) : shot.width * shot.height;
  const share = differing / (shot.width * shot.height);
  if (share > MOST_SHARE) {
    await mkdir(GOT, { recursive: true });
    await writeFile(new URL(`${name}.png`, GOT), file);
  }
  assert.ok(share <= MOST_SHARE, `${name}: ${(100 * share).toFixed(2)} % of the pixels differ from reviewed/${name}.png `
    + `(${reviewed.width} x ${reviewed.height}, got ${shot.width} x ${shot.height}); see got/${name}.png, and take it with --accept if it is right`);
}

/** Half the size, each pixel the mean of four, and fewer levels. */
function reduced(png) {
  const half = new PNG({ width: png.width >> 1, height: png.height >> 1 });
  const step = 256 >> LEVEL_BITS;
  for (let y = 0; y < half.height; y++) {
    for (let x = 0; x < half.width; x++) {
      for (let channel = 0; channel < 4; channel++) {
        const at = (row, column) => png.data[((2 * y + row) * png.width + 2 * x + column) * 4 + channel];
        const mean = (at(0, 0) + at(0, 1) + at(1, 0) + at(1, 1)) / 4;
        half.data[(y * half.width + x) * 4 + channel] = channel === 3 ? 255 : Math.min(Math.round(mean / step) * step, 255);
      }
    }
  }
  return half;
}
