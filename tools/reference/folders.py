"""Tiny model folders as users have them, and what transformers answers with them.

    python3 tools/reference/folders.py OUT [FAMILY ...]     makes OUT/FAMILY/, all three by default
    python3 tools/reference/folders.py fixtures/folders     makes what is committed

Needs transformers 5.23 with torch, torchvision and Pillow. Text files come from fixtures/chat (tools/reference/chat.py),
weights from the recipe of tools/reference/families.py, with the vocabulary and token ids of the text files. A folder
holds only what fixtures/chat/FAMILY does not: config.json, model.safetensors and

    golden.json     question, ids, tokens, text: of the prompt for PICTURE, and what generate appends, do_sample=False,
                    at most TOKENS, computed in float32, with the repetition penalty of generation_config.json
    photo.png       PICTURE

A user's folder is the files of both. The penalty matters: released folders of Qwen2.5-VL have one, and generate applies it
whether it draws or not. No step's two likeliest tokens are nearer than MARGIN, so rounding does not choose.
"""

import json
import shutil
import sys
import tempfile
from pathlib import Path

import torch
from families import Case, make_model, picture, rope, qwen_vision, text
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

CHAT = Path(__file__).resolve().parents[2] / "fixtures" / "chat"
PICTURE, TOKENS, MARGIN, QUESTION = (43, 88), 24, 2e-3, "What is this?"
SMALL = dict(vocab_size=512, hidden_size=24, intermediate_size=32, num_attention_heads=2, num_key_value_heads=1)
CASES = {
    "qwen2_5_vl": Case(
        "qwen2_5_vl", text(**SMALL, **rope(1e6, mrope_section=[1, 2, 3])),
        qwen_vision(4, 16, 24, 2, window_size=16, fullatt_block_indexes=[1]), tied=True, dtype="bfloat16",
    ),
    "qwen3_vl": Case(
        "qwen3_vl", text(**SMALL, head_dim=16, **rope(5e6, mrope_section=[4, 2, 2], mrope_interleaved=True)),
        qwen_vision(4, 16, 24, 2, num_position_embeddings=25, deepstack_visual_indexes=[0, 1]), dtype="bfloat16",
    ),
    "smolvlm": Case(
        "smolvlm", text(**SMALL, **rope(1e5)),
        dict(image_size=16, patch_size=4, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2),
        top={"scale_factor": 2}, tied=True, dtype="bfloat16",
    ),
}


def token_ids(folder, case):
    """Ids of the config as the tokenizer has them."""
    added = {a["content"]: a["id"] for a in json.loads((folder / "tokenizer.json").read_text())["added_tokens"]}
    if case.smol:
        return dict(image_token_id=added["<image>"])
    names = dict(image_token_id="image_pad", video_token_id="video_pad")
    names |= dict(vision_start_token_id="vision_start", vision_end_token_id="vision_end")
    return {key: added[f"<|{name}|>"] for key, name in names.items()}


def make(family, case, seed, whole):
    """A user's folder, with weights drawn from the seed."""
    shutil.copytree(CHAT / family, whole, dirs_exist_ok=True, ignore=shutil.ignore_patterns("golden.json", "config.json"))
    generation = (whole / "generation_config.json").read_bytes()
    model = make_model(f"{family} {seed}", case).to(torch.bfloat16)
    for key, value in token_ids(whole, case).items():
        setattr(model.config, key, value)
    ends = json.loads(generation)["eos_token_id"]
    model.config.text_config.eos_token_id = ends[0] if isinstance(ends, list) else ends
    model.save_pretrained(whole)
    (whole / "generation_config.json").write_bytes(generation)
    Image.fromarray(picture(*PICTURE)).save(whole / "photo.png")


def answer(folder):
    """What a user of transformers gets, and the smallest margin between the two likeliest tokens."""
    processor = AutoProcessor.from_pretrained(folder)
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    content = [{"type": "image", "image": Image.open(folder / "photo.png")}, {"type": "text", "text": QUESTION}]
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt",
    )
    with torch.no_grad():
        out = model.generate(
            **inputs, do_sample=False, max_new_tokens=TOKENS, output_scores=True, return_dict_in_generate=True
        )
    ids = inputs["input_ids"][0].tolist()
    tokens = out.sequences[0].tolist()[len(ids) :]
    best = torch.stack(out.scores)[:, 0].topk(2).values
    said = processor.tokenizer.decode(tokens, skip_special_tokens=True)
    golden = dict(question=QUESTION, ids=ids, tokens=tokens, text=said)
    return golden, (best[:, 0] - best[:, 1]).min().item()


def main(out, families):
    for family in families or CASES:
        for seed in range(50):
            with tempfile.TemporaryDirectory() as temporary:
                whole = Path(temporary)
                make(family, CASES[family], seed, whole)
                golden, margin = answer(whole)
                if margin < MARGIN or len(set(golden["tokens"])) < TOKENS // 3:
                    continue
                folder = out / family
                folder.mkdir(parents=True, exist_ok=True)
                for name in ["config.json", "model.safetensors", "photo.png"]:
                    shutil.copy(whole / name, folder / name)
                (folder / "golden.json").write_text(json.dumps(golden, ensure_ascii=False) + "\n")
                print(f"{family}: seed {seed}, margin {margin:.4f}, {golden['text']!r}")
                break
        else:
            raise SystemExit(f"{family}: no seed keeps the margin")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
