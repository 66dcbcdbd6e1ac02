"""Whether a device computes what transformers computed, and answers as the CPU does: what to run first where there is a GPU.

    cargo build --release --features cuda
    python3 tools/reference/devices.py --lare target/release/lare --device cuda

Every committed family of fixtures/families is dumped on the device in f32 and as it is stored, and held against golden.safetensors, in
f32 to 1e-4 of a tensor's largest value; the shipped model answers examples/desk.png on the device and on the CPU. Exit code 1:
something differs, or did not run. Needs numpy, Pillow and safetensors. `--device cpu` tests this script where there is no GPU.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors.numpy import load_file

ROOT = Path(__file__).resolve().parents[2]
FAMILIES = {"qwen2_5_vl": ("wide", 1), "qwen3_vl": ("wide", 1), "smolvlm": ("wide", 1), "llama": ("long", None)}
# Of a tensor's largest value, where activations are rounded to the weights' type.
TOLERANCE = {"f32": 1e-4, "stored": 5e-2}
QUESTION = "What is written on the object left of the cat?"


def run(*command):
    ended = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    if ended.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, command))}\n{ended.stderr.strip()}")
    return ended.stdout


def dumped(lare, device, family, dtype, place):
    """The largest difference of any tensor that both sides have."""
    prompt, number = FAMILIES[family]
    golden = load_file(ROOT / "fixtures" / "families" / family / "golden.safetensors")
    ids = ",".join(map(str, golden[f"{prompt}.input_ids"].tolist()))
    out = place / "ours.safetensors"
    command = [lare, "dump", "--device", device, "--model", ROOT / "fixtures" / "families" / family, "--ids", ids, "--out", out]
    if dtype != "stored":
        command += ["--dtype", dtype]
    if number is not None:
        Image.fromarray(golden[f"picture.{number}.rgb"]).save(place / "picture.png")
        command += ["--image", place / "picture.png"]
    run(*command)
    worst, compared = 0.0, 0
    for name, got in load_file(out).items():
        expected = golden.get(f"{prompt}.{name}")
        if expected is None or not np.issubdtype(expected.dtype, np.floating):
            continue
        got = got[-len(expected) :] if name == "logits" else got
        worst = max(worst, float(np.abs(got - expected).max() / np.abs(expected).max()))
        compared += 1
    return worst, compared


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lare", type=Path, required=True)
    parser.add_argument("--device", default="cuda")
    given = parser.parse_args()
    good = True
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        for family in FAMILIES:
            for dtype, tolerance in TOLERANCE.items():
                worst, compared = dumped(given.lare, given.device, family, dtype, place)
                sound = compared > 4 and worst <= tolerance
                good &= sound
                print(f"{'ok  ' if sound else 'FAIL'} {family:<12} {dtype:<7} {compared} tensors within {worst:.1e}", flush=True)
        ask = [given.lare, "--json", "ask", "--no-looks", ROOT / "examples" / "desk.png", QUESTION]
        answers = [json.loads(run(*ask, "--device", device))["answer"] for device in ("cpu", given.device)]
        good &= answers[0] == answers[1]
        print(f"{'ok  ' if answers[0] == answers[1] else 'FAIL'} the shipped model says {answers[0]!r} and {answers[1]!r}")
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
