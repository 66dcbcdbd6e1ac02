// A picture on its way to the model: taken as it is where the server can read it, made smaller only where it must be.

import { Trouble } from "./wire.js";

/** What the server decodes; anything else that the browser can show is sent as PNG. */
const SENT_AS_IS = ["image/png", "image/jpeg", "image/webp"];
/** What `lare serve` takes unless it is told otherwise: a body of 32 MiB, in which three bytes are four; its pixels; its sides. */
const LIMITS = { bytes: 24 * 2 ** 20 - 2 ** 16, pixels: 32_000_000, side: 16_384 };
const JPEG_QUALITY = 0.92;
/** Below this a picture is not made smaller: little would be left to see. */
const LEAST_SIDE_PX = 64;

/** Reads a file, shrunk if it is above `limits`; gives what is shown and what is sent. */
export async function take(file, limits = {}) {
  const image = await decode(file);
  const [width, height] = [image.naturalWidth, image.naturalHeight];
  const most = { ...LIMITS, ...limits };
  const scale = Math.min(1, most.side / Math.max(width, height), Math.sqrt(most.pixels / (width * height)));
  let blob = file;
  if (scale < 1 || !SENT_AS_IS.includes(file.type)) blob = await redraw(image, scale, scale < 1 ? "image/jpeg" : "image/png");
  return await fitted({ blob, name: file.name || "picture", shrunkFrom: null }, image, most);
}

/** The same picture at half its size. */
export async function halved(picture) {
  const blob = await redraw(picture.image, 0.5, "image/jpeg");
  return await finished({ ...picture, blob, shrunkFrom: picture.shrunkFrom ?? sizeOf(picture) });
}

/** Halves until the file is within the limit. */
async function fitted(picture, image, most) {
  const before = { width: image.naturalWidth, height: image.naturalHeight };
  let { blob } = picture;
  for (let scale = 1; blob.size > most.bytes; scale /= Math.SQRT2) {
    if (Math.max(before.width, before.height) * scale < LEAST_SIDE_PX) break;
    blob = await redraw(image, scale, "image/jpeg");
  }
  const made = await finished({ ...picture, blob });
  return made.width < before.width ? { ...made, shrunkFrom: before } : made;
}

async function finished(picture) {
  const image = await decode(picture.blob);
  const bytes = new Uint8Array(await picture.blob.arrayBuffer());
  return {
    ...picture,
    image,
    url: image.src,
    width: image.naturalWidth,
    height: image.naturalHeight,
    bytes: bytes.length,
    sha256: await sha256(bytes),
  };
}

function sizeOf({ width, height }) {
  return { width, height };
}

async function decode(blob) {
  const image = new Image();
  image.src = URL.createObjectURL(blob); // kept: the page's history shows it again
  try {
    await image.decode();
    if (image.naturalWidth === 0) throw new Error("an SVG without a size of its own");
  } catch {
    URL.revokeObjectURL(image.src);
    throw new Trouble({
      kind: "change",
      title: "This is not a picture the browser can show",
      what: `“${blob.name || "It"}” is ${blob.type ? `of the type ${blob.type}` : "of no known type"}${blob.size ? "" : " and empty"}.`,
      hint: "PNG, JPEG and WebP work everywhere.",
    });
  }
  return image;
}

function redraw(image, scale, type) {
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(Math.round(image.naturalWidth * scale), 1);
  canvas.height = Math.max(Math.round(image.naturalHeight * scale), 1);
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(image, 0, 0, canvas.width, canvas.height);
  return new Promise((resolve, fail) => {
    const tooLarge = { kind: "change", title: "The picture is too large for this browser", what: `It has ${image.naturalWidth} × ${image.naturalHeight} pixels.`, hint: "Scale it down with another program first." };
    canvas.toBlob((blob) => (blob ? resolve(blob) : fail(new Trouble(tooLarge))), type, JPEG_QUALITY);
  });
}

/** The picture as the API takes it. */
export function dataUrl(picture) {
  return new Promise((resolve, fail) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => fail(new Trouble({ kind: "change", title: "The picture cannot be read any more", what: "Its file was moved or changed.", hint: "Choose it again." }));
    reader.readAsDataURL(picture.blob);
  });
}

/** SHA-256 in hexadecimal. */
async function sha256(bytes) {
  // Browsers give `subtle` to https and to this machine's own address alone; a phone in the same network has neither.
  const digest = globalThis.crypto?.subtle ? new Uint8Array(await crypto.subtle.digest("SHA-256", bytes)) : digestOf(bytes);
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** SHA-256 as FIPS 180-4 has it. */
export function digestOf(bytes) {
  const constants = [];
  const state = [];
  for (let number = 2; constants.length < 64; number++) {
    let divisor = 2;
    while (number % divisor !== 0) divisor++;
    if (divisor < number) continue;
    if (state.length < 8) state.push(fraction(Math.sqrt(number)));
    constants.push(fraction(Math.cbrt(number)));
  }
  const padded = new Uint8Array(Math.ceil((bytes.length + 9) / 64) * 64);
  padded.set(bytes);
  padded[bytes.length] = 0x80;
  const view = new DataView(padded.buffer);
  view.setBigUint64(padded.length - 8, BigInt(bytes.length) * 8n);
  const words = new Uint32Array(64);
  for (let block = 0; block < padded.length; block += 64) compress(state, view, block, { words, constants });
  const digest = new DataView(new ArrayBuffer(32));
  state.forEach((word, place) => digest.setUint32(place * 4, word));
  return new Uint8Array(digest.buffer);
}

function fraction(number) {
  return ((number - Math.floor(number)) * 2 ** 32) >>> 0;
}

function compress(state, view, block, { words, constants }) {
  const turn = (word, by) => (word >>> by) | (word << (32 - by));
  for (let t = 0; t < 64; t++) {
    if (t < 16) {
      words[t] = view.getUint32(block + t * 4);
      continue;
    }
    const [early, late] = [words[t - 15], words[t - 2]];
    const first = turn(early, 7) ^ turn(early, 18) ^ (early >>> 3);
    const second = turn(late, 17) ^ turn(late, 19) ^ (late >>> 10);
    words[t] = words[t - 16] + first + words[t - 7] + second;
  }
  let [a, b, c, d, e, f, g, h] = state;
  for (let t = 0; t < 64; t++) {
    const first = (h + (turn(e, 6) ^ turn(e, 11) ^ turn(e, 25)) + ((e & f) ^ (~e & g)) + constants[t] + words[t]) | 0;
    const second = ((turn(a, 2) ^ turn(a, 13) ^ turn(a, 22)) + ((a & b) ^ (a & c) ^ (b & c))) | 0;
    [a, b, c, d, e, f, g, h] = [(first + second) | 0, a, b, c, (d + first) | 0, e, f, g];
  }
  [a, b, c, d, e, f, g, h].forEach((word, place) => { state[place] = (state[place] + word) >>> 0; });
}
