"""Small JPEG files of every kind that people have, and what Pillow, that is libjpeg-turbo, reads in them.

    python3 tools/reference/jpegs.py crates/data/fixtures/jpeg     makes what is committed
    python3 tools/reference/jpegs.py OUT --count 500               makes so many of random kinds and sizes

Each NAME.jpg has its pixels beside it as NAME.png, in RGB. Needs Pillow and numpy.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

# Odd sides, so that the last blocks and the last colour samples are cut.
SIDES = (45, 27)
KINDS = {
    "420": dict(subsampling=2, quality=75),
    "422": dict(subsampling=1, quality=60),
    "444": dict(subsampling=0, quality=90),
    "progressive": dict(subsampling=2, quality=75, progressive=True),
    "restarts": dict(subsampling=2, quality=40, restart_marker_blocks=1),
    "rgb": dict(keep_rgb=True, subsampling=0, quality=80),
    "grey": dict(mode="L", quality=70),
    "cmyk": dict(mode="CMYK", quality=85),
}


def scene(width, height, seed):
    """Gradients, a hard coloured edge and noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    rgb = np.stack([255 * x // max(width - 1, 1), 255 * y // max(height - 1, 1), (x * 7 + y * 13) % 256], -1).astype(np.int64)
    rgb[(x + y) % 17 < 3] = [230, 20, 40]
    rgb[height // 2 :, : width // 2] += rng.integers(-50, 51, rgb[height // 2 :, : width // 2].shape)
    return Image.fromarray(np.clip(rgb, 0, 255).astype(np.uint8))


def save(out, name, image, mode="RGB", **how):
    image.convert(mode).save(out / f"{name}.jpg", **how)
    with Image.open(out / f"{name}.jpg") as read:
        read.convert("RGB").save(out / f"{name}.png", optimize=True)


def random_kind(rng):
    how = dict(quality=int(rng.integers(5, 101)), progressive=bool(rng.integers(2)), optimize=bool(rng.integers(2)))
    how["mode"] = str(rng.choice(["RGB", "RGB", "RGB", "L", "CMYK"]))
    if how["mode"] == "RGB":
        how["subsampling"] = int(rng.integers(3))
    if rng.integers(4) == 0:
        how["restart_marker_blocks"] = int(rng.integers(1, 9))
    return how


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--count", type=int, default=0)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    if given.count == 0:
        for name, how in KINDS.items():
            save(given.out, name, scene(*SIDES, 1), **how)
    for number in range(given.count):
        rng = np.random.default_rng(number)
        width, height = rng.integers(1, 200, 2).tolist()
        save(given.out, f"{number:04d}", scene(width, height, number), **random_kind(rng))


if __name__ == "__main__":
    main()
