// One look on its picture: weights in, pixels and outlines out. Colours and geometry are those of a trace's own page
// (crates/trace/src/render/overlay.rs and html/look.rs), so that the same look is the same picture in both.

/** Inferno, sampled evenly from 0 to 1: lightness grows with the value. */
export const INFERNO = [
  [0, 0, 4], [27, 12, 65], [74, 12, 107], [120, 28, 109], [165, 44, 96],
  [207, 68, 70], [237, 105, 37], [251, 155, 6], [247, 209, 61], [252, 255, 164],
];
/** Opacity where nothing is attended. */
export const OPACITY_LOW = 0.56;
/** Opacity at the focus. */
export const OPACITY_HIGH = 0.4;
/** Weights fall off steeply; below 1 the exponent lifts the lower ones into the visible. */
export const CONTRAST = 0.7;

const LAST_COLOUR = 1023;
const LAYER_PX_PER_CELL = 8;
/** With more selected patches than this their numbers would cover the picture. */
const MOST_NUMBERED = 12;
/** A window of patches lies close together; patches all over the picture have no common crop. */
const MOST_CROP_SHARE = 3;

/** Colour of a value from 0 to 1. */
export function colour(value) {
  const place = Math.min(Math.max(value, 0), 1) * (INFERNO.length - 1);
  const below = Math.min(Math.floor(place), INFERNO.length - 2);
  const part = place - below;
  return INFERNO[below].map((low, channel) => Math.round(low + part * (INFERNO[below + 1][channel] - low)));
}

/** Red, green, blue and opacity for evenly spaced weights, heaviest last. */
const palette = Array.from({ length: LAST_COLOUR + 1 }, (_, place) => {
  const value = (place / LAST_COLOUR) ** CONTRAST;
  const opacity = OPACITY_LOW + value * (OPACITY_HIGH - OPACITY_LOW);
  return [...colour(value), Math.round(opacity * 255)];
});

/** For each of `out` pixels that together show `shown` of `cells`: the two cells it lies between, and how far. */
function taps(cells, shown, out) {
  return Array.from({ length: out }, (_, pixel) => {
    // Cell i has its centre at i + 0.5; outside the first and last centre the weight stays level.
    const place = Math.min(Math.max(((pixel + 0.5) / out) * shown - 0.5, 0), cells - 1);
    const low = Math.floor(place);
    return { low, high: Math.min(low + 1, cells - 1), part: place - low };
  });
}

/** Draws the coloured layer of a look over a whole picture of `size` pixels; cells past its edge are cut off. */
export function drawLayer(canvas, look, size) {
  canvas.width = look.cols * LAYER_PX_PER_CELL;
  canvas.height = look.rows * LAYER_PX_PER_CELL;
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(canvas.width, canvas.height);
  const heaviest = look.scores.reduce((most, score) => Math.max(most, score), Number.MIN_VALUE);
  const columns = taps(look.cols, size.width / look.cell_px_x, canvas.width);
  const rows = taps(look.rows, size.height / look.cell_px_y, canvas.height);
  let at = 0;
  for (const row of rows) {
    for (const column of columns) {
      const across = (line) => {
        const left = look.scores[line * look.cols + column.low];
        return left + column.part * (look.scores[line * look.cols + column.high] - left);
      };
      const weight = across(row.low) + row.part * (across(row.high) - across(row.low));
      pixels.data.set(palette[Math.floor((weight / heaviest) * LAST_COLOUR)] ?? palette[0], at);
      at += 4;
    }
  }
  context.putImageData(pixels, 0, 0);
}

/** Outlines the selected patches inside an SVG that lies over the picture; the best is on top and thickest. */
export function drawMarks(svg, look, size) {
  svg.setAttribute("viewBox", `0 0 ${size.width} ${size.height}`);
  const longest = Math.max(size.width, size.height);
  const inset = longest / 300; // lines lie inside the cells they mark, or those on the edge would be cut in half
  const marks = look.chosen.map((patch, rank) => {
    const cell = cellOf(look, patch);
    const group = draw("g", { class: rank === 0 ? "selected best" : "selected" });
    group.append(draw("title", {}, patchName(look, patch)));
    const box = {
      x: cell.x + inset,
      y: cell.y + inset,
      width: Math.max(Math.min(cell.x + cell.width, size.width) - cell.x - 2 * inset, 1),
      height: Math.max(Math.min(cell.y + cell.height, size.height) - cell.y - 2 * inset, 1),
    };
    group.append(draw("rect", { class: "shadow", ...box }), draw("rect", { class: "line", ...box }));
    if (look.chosen.length <= MOST_NUMBERED) {
      const font = Math.min(Math.min(cell.width, cell.height) * 0.3, longest / 20);
      const place = { class: "rank", x: cell.x + font * 0.5, y: cell.y + font * 1.2, "font-size": font };
      group.append(draw("text", place, String(rank + 1)));
    }
    return group;
  });
  svg.replaceChildren(...marks.reverse());
}

function draw(name, attributes, text = "") {
  const node = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.textContent = text;
  return node;
}

function cellOf(look, patch) {
  const [row, column] = [Math.floor(patch / look.cols), patch % look.cols];
  return { x: column * look.cell_px_x, y: row * look.cell_px_y, width: look.cell_px_x, height: look.cell_px_y };
}

/** A patch, for people. */
export function patchName(look, patch) {
  const [row, column] = [Math.floor(patch / look.cols) + 1, (patch % look.cols) + 1];
  return `row ${row}, column ${column}: ${(100 * look.scores[patch]).toFixed(1)} %`;
}

/** Draws a small copy of the picture with the look on it. */
export function drawThumbnail(canvas, image, look, size, longestPx) {
  const scale = longestPx / Math.max(size.width, size.height);
  canvas.width = Math.max(Math.round(size.width * scale), 1);
  canvas.height = Math.max(Math.round(size.height * scale), 1);
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(image, 0, 0, canvas.width, canvas.height);
  const layer = document.createElement("canvas");
  drawLayer(layer, look, size);
  context.drawImage(layer, 0, 0, canvas.width, canvas.height);
}

/** The part of the picture that the selected patches cover; around the best one alone where they lie far apart. */
export function readBox(look, size) {
  const around = (patches) => {
    const cells = patches.map((patch) => cellOf(look, patch));
    const left = Math.min(...cells.map((cell) => cell.x));
    const top = Math.min(...cells.map((cell) => cell.y));
    const right = Math.min(Math.max(...cells.map((cell) => cell.x + cell.width)), size.width);
    const bottom = Math.min(Math.max(...cells.map((cell) => cell.y + cell.height)), size.height);
    return { left, top, width: right - left, height: bottom - top };
  };
  const all = around(look.chosen);
  const area = look.chosen.length * look.cell_px_x * look.cell_px_y;
  return all.width * all.height > MOST_CROP_SHARE * area ? around(look.chosen.slice(0, 1)) : all;
}

/** Draws that part of the picture. */
export function drawCrop(canvas, image, box, longestPx) {
  const scale = longestPx / Math.max(box.width, box.height);
  canvas.width = Math.max(Math.round(box.width * scale), 1);
  canvas.height = Math.max(Math.round(box.height * scale), 1);
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(image, box.left, box.top, box.width, box.height, 0, 0, canvas.width, canvas.height);
}

/** A look on the way from one to the next, for a layer that flows instead of jumping. */
export function between(from, to, part) {
  const mix = (score, cell) => from.scores[cell] + part * (score - from.scores[cell]);
  return { ...to, scores: to.scores.map(mix) };
}

/** Width of the focus in nats: 0 on one patch, `even` when spread evenly. */
export function entropy(look) {
  const nats = look.scores.reduce((sum, share) => sum - (share > 0 ? share * Math.log(share) : 0), 0);
  return { nats, even: Math.log(look.scores.length) };
}

/** Share of the attention that moved between two looks, 0 to 1. */
export function moved(from, to) {
  return to.scores.reduce((sum, share, cell) => sum + Math.abs(share - from.scores[cell]), 0) / 2;
}

/** What a reader who does not see the picture is told about a look. */
export function spoken(look, place, count) {
  const patches = look.chosen.slice(0, 3).map((patch) => patchName(look, patch)).join("; ");
  const names = look.named.map((word) => word.text).join(", ");
  return `Look ${place + 1} of ${count}: ${patches || "no patch read again"}${names ? `. Names ${names}` : ""}`;
}

/** Whether what the server sent as a look can be drawn. */
export function isLook(look) {
  const cells = look?.rows * look?.cols;
  return cells > 0 && look.scores?.length === cells && look.scores.every(Number.isFinite)
    && look.cell_px_x > 0 && look.cell_px_y > 0
    && Array.isArray(look.chosen) && look.chosen.every((patch) => Number.isInteger(patch) && patch >= 0 && patch < cells);
}
