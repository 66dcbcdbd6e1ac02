"""Recorded answers that mock.mjs plays back: what `lare ask --trace` saw, in the words of the server's stream.

    cargo build --release && python3 tools/page/record.py     from the repository's root; writes tools/page/streams/

Each file holds the question, the looks as the server sends them, the pieces of the answer and its usage. The shipped model
answered; what it says when its thoughts are replaced is not recorded but made up in mock.mjs.
"""

import base64
import json
import pathlib
import struct
import subprocess
import tempfile
import zlib

HERE = pathlib.Path(__file__).parent
DESK, WIDE = "examples/desk.png", "tools/page/wide.jpg"
STREAMS = {
    "three": (DESK, "What is written on the object above the one left of the cloud?", "auto"),
    "two": (DESK, "What is written on the object left of the cat?", "auto"),
    "one": (DESK, "What is written under the dog?", "auto"),
    "plain": (DESK, "What is written under the dog?", "0"),
    "wide": (WIDE, "What is written on the object above the tractor?", "auto"),
}


def png(width: int, height: int, rgb: bytes) -> bytes:
    """The pixels as a PNG file."""
    rows = b"".join(b"\0" + rgb[y * width * 3 : (y + 1) * width * 3] for y in range(height))

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")


def look(step: dict, grid: dict) -> dict:
    """A step of a trace as the server's stream has it."""
    words = lambda kind: [{"text": word["text"], "score": round(word["score"], 4)} for word in step[kind]]
    made = {
        "step": step["index"] + 1,
        "rows": grid["rows"],
        "cols": grid["cols"],
        "cell_px_x": grid["cell_px_x"],
        "cell_px_y": grid["cell_px_y"],
        "scores": [round(weight, 6) for weight in step["weights"]],
        "chosen": step["selected"],
        "nearest": words("nearest_words"),
        "named": words("named_words"),
        "gate_mean": round(step["gate_mean"], 4),
        "halt_probability": round(step["halt_probability"], 6),
        "time_ms": round(step["time_ms"], 2),
    }
    drawn = step.get("thought_picture")
    if drawn:
        file = png(drawn["width"], drawn["height"], base64.b64decode(drawn["rgb"]))
        made["drawing"] = "data:image/png;base64," + base64.b64encode(file).decode()
    return made


def stream(picture: str, question: str, steps: str) -> dict:
    """One answer of the shipped model."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["target/release/lare", "ask", picture, question, "--steps", steps, "--trace", f"{folder}/trace"]
        subprocess.run(command, check=True, capture_output=True)
        trace = json.loads(pathlib.Path(folder, "trace", "trace.json").read_text())
    used = trace["usage"]
    spent = used["text_tokens"] + used["latent_steps"]
    answer = trace["answer"]
    return {
        "question": question,
        "looks": [look(step, trace["grid"]) for step in trace["steps"]],
        "text": list(answer) if answer.isupper() else [answer],
        "usage": {
            "prompt_tokens": used["processed_positions"] - spent,
            "completion_tokens": spent,
            "total_tokens": used["processed_positions"],
            "completion_tokens_details": {"reasoning_tokens": used["latent_steps"]},
            "lare": {
                "latent_steps": used["latent_steps"],
                "refocused_visual_tokens": used["refocused_visual_tokens"],
                "appended_visual_tokens": used["appended_visual_tokens"],
                "processed_positions": used["processed_positions"],
                "first_token_ms": round(trace["timing_ms"]["total"] - trace["timing_ms"]["answer"], 1),
            },
        },
    }


for name, asked in STREAMS.items():
    text = json.dumps(stream(*asked), separators=(",", ":"), ensure_ascii=False)
    (HERE / "streams" / f"{name}.json").write_text(text + "\n")
    print(name, len(text))
