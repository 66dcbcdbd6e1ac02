"""Folders of shapes that nobody chose, asked through `lare dump` and held against transformers.

    python3 tools/reference/fresh_folders.py --lare target/release/lare [--count 8] [--seed 0] [--longest 160] [--families NAME ...] [--place DIR]

Draws, for each number from --seed on and each family, a shape (heads and their groups, widths, depth, patches, windows, sections,
tied or not, bf16 or f32, one file or shards, old or new layout), random weights and pictures of odd sizes in several modes and
formats; writes the folder as users have it, with the text files of fixtures/chat; asks once without a picture and
once each with one and with two, and compares everything that `lare dump` writes as tools/reference/compare_dump.py does. Exit code 1:
something differs; its folder stays in --place. Needs the environment of tools/torch_environment.sh.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import zlib
from pathlib import Path

import compare_dump
import numpy as np
import torch
import transformers
from families import Case, make_model, old_config, old_preprocessor, picture, pixels, qwen_vision, rewrite, rope, text, tiles
from folders import CHAT, token_ids
from PIL import Image
from safetensors.numpy import load_file

VOCABULARY = 512  # of fixtures/chat
FAMILIES = ["qwen2_5_vl", "qwen3_vl", "smolvlm", "qwen2", "qwen3", "llama"]
# Files that people have: mode and format. Not grey of 16 bits, which Pillow cuts off at 255, so that nearly all is white.
FILES = [("RGB", "png"), ("RGB", "jpg"), ("RGB", "webp"), ("RGB", "bmp"), ("RGBA", "png"), ("RGBA", "webp"), ("L", "png"), ("L", "jpg"),
         ("LA", "png"), ("P", "png"), ("P", "gif"), ("CMYK", "jpg")]


def sections(rng, half):
    """Three parts of half a head, none empty."""
    first, second = sorted(rng.choice(np.arange(1, half), 2, replace=False).tolist())
    return [first, second - first, half - second]


def interleaved(rng, half):
    """Height and width take every third place each, so neither is more than a third."""
    height, width = rng.integers(1, half // 3 + 1, 2).tolist()
    return [half - height - width, height, width]


def decoder_of(rng, free_heads):
    """Sizes of a decoder and half its head's width; `free_heads` have a width of their own."""
    groups = int(rng.choice([1, 2, 3]))
    heads = groups * int(rng.choice([1, 2, 3, 5]))
    half = int(rng.integers(3, 13))
    width = int(rng.choice([24, 40, 56, 72])) if free_heads else 2 * half * heads
    sizes = dict(vocab_size=VOCABULARY, hidden_size=width, intermediate_size=int(rng.integers(20, 120)))
    sizes |= dict(num_hidden_layers=int(rng.integers(1, 5)), num_attention_heads=heads, num_key_value_heads=groups)
    sizes |= dict(rms_norm_eps=float(rng.choice([1e-5, 1e-6])))
    return text(**sizes, **({"head_dim": 2 * half} if free_heads else {})), half


def theta(rng):
    return float(rng.choice([1e4, 1e5, 1e6, 5e6]))


def draw(family, rng):
    """A case of that family."""
    common = dict(
        tied=bool(rng.integers(2)), dtype=str(rng.choice(["float32", "bfloat16"])), shards=bool(rng.integers(2)),
        old=bool(rng.integers(2)),
    )
    sizes, half = decoder_of(rng, family in ("qwen3_vl", "qwen3"))
    if family in ("qwen2", "qwen3", "llama"):
        return Case(family, sizes | rope(theta(rng)), **common)
    depth, heads = int(rng.integers(2, 6)), int(rng.choice([1, 2, 3]))
    width = 4 * heads * int(rng.integers(2, 7))
    if family == "smolvlm":
        patch, scale, side = int(rng.integers(3, 9)), int(rng.choice([1, 2, 3])), int(rng.integers(1, 4))
        image = patch * scale * side
        seen = dict(image_size=image, patch_size=patch, hidden_size=width, intermediate_size=int(rng.integers(10, 90)))
        seen |= dict(num_hidden_layers=depth, num_attention_heads=heads)
        processor = tiles(image, int(rng.integers(1, 4)), split=bool(rng.integers(2)))
        name = str(rng.choice(["smolvlm", "idefics3"]))
        return Case(name, sizes | rope(theta(rng)), seen, top={"scale_factor": scale}, processor=processor, **common)
    patch, some = int(rng.integers(3, 17)), int(rng.integers(1, depth + 1))
    layers = sorted(rng.choice(depth, some, replace=False).tolist())
    limits = dict(image_mean=rng.uniform(0.3, 0.6, 3).round(3).tolist(), image_std=rng.uniform(0.2, 0.5, 3).round(3).tolist())
    processor = pixels(patch, int(rng.integers(1, 6)), int(rng.integers(12, 80)), **limits)
    seen = qwen_vision(patch, width, sizes["hidden_size"], depth) | {"num_heads": heads, "intermediate_size": int(rng.integers(10, 90))}
    if family == "qwen2_5_vl":
        seen |= dict(window_size=2 * patch * int(rng.integers(1, 5)), fullatt_block_indexes=layers)
        return Case(family, sizes | rope(theta(rng), mrope_section=sections(rng, half)), seen, processor=processor,
                    native_names=bool(rng.integers(2)), **common)
    # Features of more vision layers than the decoder has would have nowhere to go.
    seen |= dict(num_position_embeddings=int(rng.integers(2, 9)) ** 2, deepstack_visual_indexes=layers[: sizes["num_hidden_layers"]])
    positions = rope(theta(rng), mrope_section=interleaved(rng, half), mrope_interleaved=True)
    return Case(family, sizes | positions, seen, processor=processor, **common)


def write(folder, family, case, name):
    """A user's folder."""
    ignored = shutil.ignore_patterns("golden.json", "config.json", "preprocessor_config.json")
    shutil.copytree(CHAT / family, folder, dirs_exist_ok=True, ignore=ignored)
    model = make_model(name, case).to(getattr(torch, case.dtype))
    generation = folder / "generation_config.json"
    kept = generation.read_bytes() if generation.exists() else None
    if case.vision:
        for key, value in token_ids(folder, case).items():
            setattr(model.config, key, value)
    size = dict(max_shard_size=60_000) if case.shards else {}
    model.save_pretrained(folder, save_original_format=not case.native_names, **size)
    if kept is not None:
        generation.write_bytes(kept)
    if case.vision:
        class_of = {"smolvlm": "SmolVLMImageProcessor", "idefics3": "Idefics3ImageProcessor"}
        processor = getattr(transformers, class_of.get(case.family, "Qwen2VLImageProcessor"))(**case.processor)
        processor.save_pretrained(folder)
    if case.smol:
        tokens = (case.vision["image_size"] // case.vision["patch_size"] // case.top["scale_factor"]) ** 2
        settings = folder / "processor_config.json"
        settings.write_text(json.dumps(json.loads(settings.read_text()) | {"image_seq_len": tokens}))
    if case.family == "idefics3":
        for file in folder.glob("*_config.json"):
            file.write_text(file.read_text().replace("SmolVLMProcessor", "Idefics3Processor"))
    if case.old:
        rewrite(folder / "config.json", lambda config: old_config(case, config))
        if case.vision:
            rewrite(folder / "preprocessor_config.json", lambda config: old_preprocessor(case, config))


def photo(folder, rng, number, longest):
    """A picture of an odd size, in a mode and a format that people have."""
    height, width = rng.integers(1, longest, 2).tolist()
    if rng.integers(4) == 0:  # a strip
        height, width = (max(1, height // 12), width) if rng.integers(2) else (height, max(1, width // 12))
    least = max(2, max(height, width) // 150)  # Qwen's processor takes sides up to 200 times each other
    height, width = max(height, least), max(width, least)
    mode, ending = FILES[rng.integers(len(FILES))]
    image = Image.fromarray(picture(height, width))
    if mode in ("RGBA", "LA"):
        image.putalpha(Image.fromarray((np.add.outer(np.arange(height), np.arange(width)) % 256).astype(np.uint8)))
    file, how = folder / f"photo-{number}.{ending}", {}
    image = image.convert(mode)
    if ending == "jpg":
        how["quality"] = int(rng.integers(30, 100))
    if ending == "webp":
        how["lossless"] = bool(rng.integers(2))
    if ending in ("jpg", "webp", "png") and rng.integers(3) == 0:  # turned by the camera
        exif = Image.Exif()
        exif[0x0112] = int(rng.integers(1, 9))
        how["exif"] = exif
    image.save(file, **how)
    return file, f"{mode} {ending} {width}x{height}{' turned' if 'exif' in how else ''}{' lossy' if how.get('lossless') is False else ''}"


def ask(lare, folder, images, prompt):
    """Whether one dump agrees, and what was said of it."""
    out = folder / "ours.safetensors"
    out.unlink(missing_ok=True)
    command = [lare, "dump", "--model", folder, "--prompt", prompt, "--out", out]
    for image in images:
        command += ["--image", image]
    ended = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    if ended.returncode != 0:
        return False, [ended.stderr.strip()]
    lines = []
    ours = load_file(out)
    sound = compare_dump.compare(ours, compare_dump.theirs(folder, images, prompt, None), 1e-4, lines.append)
    worst = max(float(line.split()[-1]) for line in lines if line.split()[0] == "logits") if sound else float("nan")
    return sound, [f"logits within {worst:.1e}"] if sound else lines


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lare", type=Path, required=True)
    parser.add_argument("--count", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--longest", type=int, default=160, help="side of the largest pictures in pixels")
    parser.add_argument("--families", nargs="*", default=FAMILIES)
    parser.add_argument("--place", type=Path)
    given = parser.parse_args()
    transformers.logging.disable_progress_bar()
    transformers.logging.set_verbosity_error()
    place = given.place or Path(tempfile.mkdtemp())
    asked = failed = 0
    for seed in range(given.seed, given.seed + given.count):
        for family in given.families:
            rng = np.random.default_rng([seed, zlib.crc32(family.encode())])
            case, folder = draw(family, rng), place / f"{family}-{seed}"
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            write(folder, family, case, f"{family} {seed}")
            photos = [photo(folder, rng, number, given.longest) for number in range(3 if case.vision else 0)]
            shown = [[], photos[:1], photos[1:]] if case.vision else [[]]
            good = True
            for pictures in shown:
                asked += 1
                what = ", ".join(of for _, of in pictures) or "text"
                sound, said = ask(given.lare, folder, [file for file, _ in pictures], "What is left of the cup?")
                good &= sound
                print(f"{'ok  ' if sound else 'FAIL'} {folder.name:<16} {what:<44} {said[0] if sound else ''}", flush=True)
                if not sound:
                    failed += 1
                    print("\n".join(f"       {line}" for line in said), flush=True)
            if good:
                shutil.rmtree(folder)
    print(f"{asked} dumps, {failed} differ" + (f"; folders in {place}" if failed else ""))
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
