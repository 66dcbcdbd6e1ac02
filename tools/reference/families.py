"""Tiny checkpoints of the supported families, as transformers makes them, and what they should compute.

    python3 tools/reference/families.py OUT [CASE ...]            makes OUT/CASE/, every case by default
    python3 tools/reference/families.py OUT [CASE ...] --check    loads the folders again and compares
    python3 tools/reference/families.py --list                    names the cases
    python3 tools/reference/families.py fixtures/families qwen2_5_vl qwen3_vl smolvlm llama

The last line makes the cases that are committed. Needs transformers 5.23 with torch, torchvision and Pillow. A folder
holds what a user's Hugging Face folder holds, except a tokenizer: config.json, generation_config.json,
preprocessor_config.json and the weights, in one file or in shards with an index; `-old` cases in the layout of
checkpoints released before transformers 5. Weights are random and large enough that attention is not uniform. All
reference values are computed in float32 with eager attention; where weights are stored as bfloat16, from the rounded ones.

`golden.safetensors` holds, for each picture I of the case:

    picture.I.rgb                   [H, W, 3] u8     the picture
    picture.I.pixel_values          f32              Qwen: [patches, 3 * 2 * patch * patch]; SmolVLM: [tiles, 3, S, S]
    picture.I.grid                  [3] i64          Qwen: image_grid_thw, in patches before merging
    picture.I.tiles                 [2] i64          SmolVLM: rows and columns, 0 0 where the picture is not split
    picture.I.split                 [1] u8           SmolVLM: whether do_image_splitting was on for this picture
    picture.I.pixel_attention_mask  [tiles, S, S] u8 SmolVLM

and for each prompt (PROMPTS and TEXT_PROMPTS below), T tokens, R of them with logits:

    PROMPT.pictures         [n] i64      its pictures, by number, in order; not for text
    PROMPT.input_ids        [T] i64
    PROMPT.positions        [3, T] i64   M-RoPE: time, height, width; [T] where the family has plain positions
    PROMPT.vision           [N, D] f32   features that take the place of image tokens, in order
    PROMPT.deepstack.J      [N, D] f32   Qwen3-VL: what is added to the image tokens after decoder layer J
    PROMPT.vision_hidden.J  f32          input of vision block J, J = depth: output of the last; Qwen: [patches, Dv], of
                                         Qwen2.5-VL in window order; SmolVLM: [tiles, patches, Dv]
    PROMPT.hidden.J         [T, D] f32   input of decoder layer J (Qwen3-VL: deepstack added); J = L: before the last norm
    PROMPT.attention_row.J  [H, T] f32   attention of the last position in decoder layer J
    PROMPT.logits           [R, V] f32   of the last R positions; R = T, but LOGIT_ROWS in committed cases except `text`
    PROMPT.greedy           [64] i64     what greedy decoding appends, end of text ignored

`batch` is two prompts, left-padded: a first axis of 2 (positions [3, 2, T]), `batch.mask` [2, T] u8, zeros at padding;
each row answers as the prompt alone. `continuation` feeds its ids after `square` (text families: `long`), whose keys and
values are cached; its attention rows cover the cached positions too. Committed cases keep hidden states for FULL only
and `vision_hidden` for none. Any greedy choice leads by more than MARGIN of the largest logit.

Ids: 0 padding, 1 and 2 begin and end of text, 3 and 4 around an image (Qwen), 5 image, 6 video, 7
<fake_token_around_image>, 8 <global-img>, 9 newline, 10 + 6 (r - 1) + (c - 1) <row_r_col_c>, from 64 on text. Qwen shows
a picture as 3 5..5 4. SmolVLM: each row of tiles as (7 <row_r_col_c> 5..5) per column and then 9; last 9 7 8 5..5 7. A
picture that is not split: 7 8 5..5 7.

Image processors are those AutoImageProcessor picks where torchvision is installed: Qwen2VLImageProcessor (bicubic) and
SmolVLMImageProcessor or Idefics3ImageProcessor (Lanczos), antialiased, on uint8: the horizontal pass first, then the
vertical one, each with weights of 16 bits and rounded to uint8. The PIL variant is not the same. Measured on these
pictures with Pillow 13: mostly within 1 level of 255 and at most 2, from its finer weights; up to 14 levels (0.21 in
Qwen2.5-VL's pixel_values) where it takes the vertical pass first, which it does for some sizes. --check prints the
largest difference of each case.
"""

import argparse
import copy
import json
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import transformers
from safetensors.numpy import load_file, save_file
from transformers import AutoImageProcessor, AutoModelForCausalLM, AutoModelForImageTextToText, GenerationConfig

PAD, BOS, EOS, VISION_START, VISION_END, IMAGE, VIDEO, FAKE, GLOBAL, NEWLINE, TILE, TEXT = *range(11), 64
VOCABULARY, GREEDY, MARGIN, LOGIT_ROWS = 320, 64, 1e-3, 2

# Height and width. The last differs: at a factor of 8, both sides of 20 x 28 are a half in smart_resize, which rounds to
# even; SmolVLM takes its last picture with do_image_splitting switched.
PICTURES = [(60, 60), (43, 88), (76, 34), (9, 7)]
LAST_OF_QWEN, LAST_OF_SMOLVLM = (20, 28), (50, 64)
PROMPTS = {"square": [0], "wide": [1], "tall": [2], "tiny": [3], "two": [1, 4], "text": []}
SWITCHED = {"switched": [4]}
TEXT_PROMPTS = {"text": [], "long": []}
FULL = ["wide", "text", "long", "continuation"]


@dataclass
class Case:
    family: str  # model_type
    text: dict
    vision: dict = field(default_factory=dict)
    top: dict = field(default_factory=dict)  # of config.json, outside text_config and vision_config
    processor: dict = field(default_factory=dict)
    tied: bool = False
    dtype: str = "float32"
    shards: bool = False
    old: bool = False  # config.json as before transformers 5
    native_names: bool = False  # Qwen2.5-VL: model.language_model and model.visual, not what save_pretrained writes
    magnify: int = 2  # of the pictures
    committed: bool = False

    @property
    def smol(self):
        return self.family in ("smolvlm", "idefics3")

    @property
    def pictures(self):
        return [*PICTURES, LAST_OF_SMOLVLM if self.smol else LAST_OF_QWEN] if self.vision else []

    @property
    def prompts(self):
        return PROMPTS | (SWITCHED if self.smol else {}) if self.vision else TEXT_PROMPTS

    @property
    def batch(self):
        return ["wide", "tiny"] if self.vision else ["long", "text"]

    @property
    def continued(self):
        return "square" if self.vision else "long"


def text(**changes):
    sizes = dict(vocab_size=VOCABULARY, hidden_size=48, intermediate_size=64, num_hidden_layers=2)
    heads = dict(num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=512, rms_norm_eps=1e-6)
    return sizes | heads | dict(bos_token_id=BOS, eos_token_id=EOS, pad_token_id=PAD) | changes


def rope(theta, **more):
    return {"rope_parameters": {"rope_type": "default", "rope_theta": theta, **more}}


def qwen_vision(patch, width, out, depth, **more):
    return dict(
        patch_size=patch, hidden_size=width, intermediate_size=5 * width // 3, num_heads=2, depth=depth,
        out_hidden_size=out, spatial_merge_size=2, temporal_patch_size=2, **more
    )


def pixels(patch, least, most, **more):
    """Limits in squares of two by two patches."""
    square = (2 * patch) ** 2
    return dict(patch_size=patch, size={"shortest_edge": least * square, "longest_edge": most * square}, **more)


def tiles(side, across, split=True):
    longest = {"longest_edge": across * side}
    return dict(size=longest, max_image_size={"longest_edge": side}, do_image_splitting=split)


WIDE = dict(hidden_size=64, intermediate_size=96, num_hidden_layers=3)  # the cases that are not committed
MULTI_QUERY = dict(num_key_value_heads=1)
HALF = dict(image_mean=[0.5] * 3, image_std=[0.5] * 3)
LLAMA3 = dict(
    rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=64
)
CASES = {
    # A window of 2 x 2 merged patches; 5 x 2, 3 x 3 and 2 x 4 of them are in the pictures.
    "qwen2_5_vl": Case(
        "qwen2_5_vl", text(**rope(1e6, mrope_section=[1, 2, 3])),
        qwen_vision(4, 16, 48, 2, window_size=16, fullatt_block_indexes=[1]),
        processor=pixels(4, 4, 12), tied=True, native_names=True, magnify=1, committed=True,
    ),
    "qwen2_5_vl-old": Case(
        "qwen2_5_vl", text(**WIDE, **MULTI_QUERY, **rope(1e6, mrope_section=[2, 3, 3])),
        qwen_vision(14, 32, 64, 3, window_size=56, fullatt_block_indexes=[1]),
        processor=pixels(14, 4, 12), shards=True, old=True,
    ),
    "qwen2_5_vl-bf16": Case(
        "qwen2_5_vl", text(**WIDE, **rope(1e6, mrope_section=[2, 3, 3])),
        qwen_vision(6, 48, 64, 4, window_size=36, fullatt_block_indexes=[0, 2]),
        processor=pixels(6, 4, 30), tied=True, dtype="bfloat16",
    ),
    "qwen3_vl": Case(
        "qwen3_vl", text(head_dim=16, **rope(5e6, mrope_section=[4, 2, 2], mrope_interleaved=True)),
        qwen_vision(4, 16, 48, 2, num_position_embeddings=25, deepstack_visual_indexes=[0, 1]),
        processor=pixels(4, 4, 12, **HALF), dtype="bfloat16", magnify=1, committed=True,
    ),
    "qwen3_vl-old": Case(
        "qwen3_vl", text(**WIDE, **MULTI_QUERY, head_dim=24, **rope(5e6, mrope_section=[6, 3, 3], mrope_interleaved=True)),
        qwen_vision(16, 32, 64, 4, num_position_embeddings=49, deepstack_visual_indexes=[0, 1, 3]),
        processor=pixels(16, 4, 12, **HALF), shards=True, old=True,
    ),
    "qwen3_vl-f32": Case(
        "qwen3_vl", text(**WIDE, head_dim=32, **rope(5e6, mrope_section=[6, 5, 5], mrope_interleaved=True)),
        qwen_vision(6, 48, 64, 3, num_position_embeddings=16, deepstack_visual_indexes=[1, 2]),
        processor=pixels(6, 4, 30, **HALF), tied=True,
    ),
    "smolvlm": Case(
        "smolvlm", text(**rope(1e5)),
        dict(image_size=16, patch_size=4, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2),
        top={"scale_factor": 2}, processor=tiles(16, 2), tied=True, magnify=1, committed=True,
    ),
    "smolvlm-old": Case(
        "idefics3", text(**WIDE, **MULTI_QUERY, **rope(1e5)),
        dict(image_size=32, patch_size=4, hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4),
        top={"scale_factor": 4}, processor=tiles(32, 3), tied=True, dtype="bfloat16", shards=True, old=True,
    ),
    "smolvlm-whole": Case(
        "smolvlm", text(**WIDE, **rope(1e5)),
        dict(image_size=54, patch_size=6, hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4),
        top={"scale_factor": 3}, processor=tiles(54, 4, split=False),
    ),
    "qwen2": Case("qwen2", text(**WIDE, **rope(1e6)), tied=True),
    "qwen2-old": Case("qwen2", text(**WIDE, **MULTI_QUERY, **rope(1e6)), dtype="bfloat16", shards=True, old=True),
    "qwen3": Case("qwen3", text(**WIDE, head_dim=24, **rope(1e6))),
    "qwen3-old": Case(
        "qwen3", text(**WIDE, **MULTI_QUERY, head_dim=32, **rope(1e6)), tied=True, dtype="bfloat16", shards=True, old=True
    ),
    "llama": Case("llama", text(**rope(5e5, **LLAMA3)), tied=True, committed=True),
    "llama-old": Case("llama", text(**WIDE, **MULTI_QUERY, **rope(1e4)), dtype="bfloat16", shards=True, old=True),
}


def make_model(name, case):
    """Float32, its parameters drawn by name order and rounded where they will be stored as bfloat16."""
    config_class = transformers.CONFIG_MAPPING[case.family]
    if case.vision:
        tokens = dict(image_token_id=IMAGE)
        if not case.smol:
            tokens |= dict(video_token_id=VIDEO, vision_start_token_id=VISION_START, vision_end_token_id=VISION_END)
        text_config = case.text | ({"model_type": "llama"} if case.smol else {})
        config = config_class(
            text_config=text_config, vision_config=case.vision, tie_word_embeddings=case.tied, **tokens, **case.top
        )
    else:
        config = config_class(tie_word_embeddings=case.tied, **case.text)
    auto = AutoModelForImageTextToText if case.vision else AutoModelForCausalLM
    model = auto.from_config(config, attn_implementation="eager", dtype=torch.float32).eval()
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    for key, value in sorted(model.named_parameters()):
        noise = rng.standard_normal(value.shape)
        if key.endswith("bias"):
            noise = 0.2 * noise
        elif "norm" in key or "ln_q" in key:
            # Heads normalised one by one (Qwen3) would otherwise leave attention nearly uniform.
            noise = (1.6 if "q_norm" in key or "k_norm" in key else 1.0) + 0.2 * noise
        elif "embed_tokens" in key:
            # Small beside what the layers add, or a tied head would repeat the last token for ever.
            noise = 0.3 * noise
        elif "pos" not in key:
            noise = 1.4 * noise / np.sqrt(noise[0].size)
        with torch.no_grad():
            value.copy_(torch.from_numpy(noise.astype(np.float32)).to(getattr(torch, case.dtype)))
    # Sampling settings are for the saved folder; here generate decodes greedily and never stops early.
    model.generation_config = GenerationConfig(pad_token_id=PAD)
    return model


def save_model(folder, case, model):
    saved = copy.deepcopy(model).to(getattr(torch, case.dtype))
    saved.generation_config = GenerationConfig(bos_token_id=BOS, eos_token_id=[EOS, PAD], pad_token_id=PAD)
    size = dict(max_shard_size=100_000) if case.shards else {}
    saved.save_pretrained(folder, save_original_format=not case.native_names, **size)
    if case.vision:
        class_of = {"smolvlm": "SmolVLMImageProcessor", "idefics3": "Idefics3ImageProcessor"}
        processor = getattr(transformers, class_of.get(case.family, "Qwen2VLImageProcessor"))(**case.processor)
        processor.save_pretrained(folder)
    if case.old:
        rewrite(folder / "config.json", lambda config: old_config(case, config))
        if case.vision:
            rewrite(folder / "preprocessor_config.json", lambda config: old_preprocessor(case, config))


def rewrite(path, change):
    path.write_text(json.dumps(change(json.loads(path.read_text())), indent=2, sort_keys=True) + "\n")


def old_text_config(config):
    """rope_theta and rope_scaling instead of rope_parameters, torch_dtype instead of dtype."""
    parameters = config.pop("rope_parameters")
    config["rope_theta"] = parameters.pop("rope_theta")
    config["rope_scaling"] = parameters if len(parameters) > 1 else None
    if "dtype" in config:
        config["torch_dtype"] = config.pop("dtype")
    config.pop("layer_types", None)
    return config


def old_config(case, config):
    config["transformers_version"] = "4.49.0"
    if not case.vision:
        return old_text_config(config)
    config["torch_dtype"] = config.pop("dtype")
    config.pop("_pad_token_id", None)
    vision = config["vision_config"]
    for key in ("rope_parameters", "dtype"):
        vision.pop(key, None)
    text = config["text_config"] = old_text_config(config["text_config"])
    text.pop("torch_dtype", None)
    if case.family == "qwen2_5_vl":
        # Released flat: what is now in text_config stood beside vision_config.
        del config["text_config"], text["model_type"]
        text["rope_scaling"]["type"] = "mrope"
        del text["rope_scaling"]["rope_type"]
        vision["in_chans"], vision["spatial_patch_size"] = vision.pop("in_channels"), vision["patch_size"]
        del vision["model_type"]
        return text | config
    if case.smol:
        # The rest was left to the defaults of the class.
        kept = [*case.vision, "model_type"]
        config["vision_config"] = {key: vision[key] for key in kept} | {"tie_word_embeddings": False}
        config["vision_config"]["max_image_size"] = case.processor["max_image_size"]
        text |= {"rope_interleaved": False, "qk_layer_norms": False, "pixel_shuffle_factor": config["scale_factor"]}
        return config | {"vocab_size": text["vocab_size"], "pad_token_id": 128002}
    vision["model_type"] = case.family
    text["tie_word_embeddings"] = case.tied
    return config


def old_preprocessor(case, config):
    if case.smol:
        return config | {"processor_class": "Idefics3Processor"}
    kept = ["image_mean", "image_std", "merge_size", "patch_size", "temporal_patch_size"]
    old = {key: config[key] for key in kept} | {"image_processor_type": "Qwen2VLImageProcessor"}
    if case.family == "qwen3_vl":
        return old | {"size": config["size"], "image_processor_type": "Qwen2VLImageProcessorFast"}
    return old | {"min_pixels": config["size"]["shortest_edge"], "max_pixels": config["size"]["longest_edge"]}


def picture(height, width):
    """Two gradients, a fine chequer and a disc whose edge inverts all three: whatever resampling does shows."""
    y, x = np.mgrid[:height, :width]
    chequer = 40 + 160 * ((x // 3 + y // 5) % 2) + (7 * x * y) % 31
    rgb = np.stack([255 * x // (width - 1), 255 * y // (height - 1), chequer], axis=-1)
    disc = (3 * x - width) ** 2 + (3 * y - 2 * height) ** 2 < (height + width) ** 2 // 4
    return np.where(disc[..., None], 255 - rgb, rgb).astype(np.uint8)


def process(case, processor, rgb, number):
    """What the image processor makes of one picture: golden tensors without their prefix."""
    if not case.smol:
        out = processor(rgb, return_tensors="np")
        return {"pixel_values": out["pixel_values"], "grid": out["image_grid_thw"][0]}
    split = case.processor["do_image_splitting"] != (number in SWITCHED["switched"])
    out = processor(rgb, do_image_splitting=split, return_row_col_info=True, return_tensors="np")
    return {
        "pixel_values": out["pixel_values"][0],
        "tiles": np.array([out["rows"][0][0], out["cols"][0][0]]),
        "split": np.array([split], np.uint8),
        "pixel_attention_mask": out["pixel_attention_mask"][0].astype(np.uint8),
    }


def make_pictures(case, processor):
    made = []
    for number, (height, width) in enumerate(case.pictures):
        rgb = picture(height * case.magnify, width * case.magnify)
        made.append({"rgb": rgb} | process(case, processor, rgb, number))
    return made


def picture_ids(case, shown):
    """The ids that stand for one picture, as the docstring lays them out."""
    if not case.smol:
        time, high, wide = shown["grid"].tolist()
        return [VISION_START, *[IMAGE] * (time * high * wide // case.vision["spatial_merge_size"] ** 2), VISION_END]
    side = case.vision["image_size"] // case.vision["patch_size"] // case.top["scale_factor"]
    seen, ids = [IMAGE] * side**2, []
    rows, columns = shown["tiles"].tolist()
    for row in range(rows):
        for column in range(columns):
            ids += [FAKE, TILE + 6 * row + column, *seen]
        ids.append(NEWLINE)
    return ids + [NEWLINE] * (rows > 0) + [FAKE, GLOBAL, *seen, FAKE]


def prompt_ids(case, prompt, shown, salt):
    rng = np.random.default_rng([zlib.crc32(prompt.encode()), salt])
    draw = lambda count: rng.integers(TEXT, VOCABULARY, count).tolist()
    ids = [BOS, *draw(2)]
    for one in shown:
        ids += picture_ids(case, one) + draw(2)
    return ids + draw(28 if prompt == "long" else 5)


def model_inputs(case, rows, shown):
    """Inputs of the model for rows of ids, each with its list of pictures; left-padded where lengths differ."""
    length = max(map(len, rows))
    ids = torch.tensor([[PAD] * (length - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (length - len(row)) + [1] * len(row) for row in rows])
    inputs = {"input_ids": ids, "attention_mask": mask}
    if not case.vision or case.smol:
        inputs["position_ids"] = (mask.cumsum(-1) - 1).clamp(min=0)
    if not any(shown):
        return inputs
    tensor = lambda key, of: torch.from_numpy(np.concatenate([one[key] for one in of]))
    if not case.smol:
        flat = [one for row in shown for one in row]
        inputs["pixel_values"] = tensor("pixel_values", flat)
        inputs["image_grid_thw"] = tensor("grid", flat).reshape(-1, 3)
        inputs["mm_token_type_ids"] = (ids == IMAGE).int()
        return inputs
    for key in ("pixel_values", "pixel_attention_mask"):
        # Rows with fewer tiles are filled up with tiles of zeros, which the model drops.
        inputs[key] = torch.nn.utils.rnn.pad_sequence([tensor(key, row) for row in shown], batch_first=True)
    return inputs


def part(model, *names):
    """The first of these submodules that the family has."""
    return next((getattr(model.model, name) for name in names if hasattr(model.model, name)), model.model)


@torch.no_grad()
def observe(case, model, inputs, **more):
    """One forward pass: the output and what the hooks saw, as golden tensors with the batch axis."""
    decoder, seen, hooks = part(model, "language_model", "text_model"), {}, []
    before = lambda module, call: hooks.append(module.register_forward_pre_hook(call, with_kwargs=True))
    after = lambda module, call: hooks.append(module.register_forward_hook(call))
    keep = lambda name: lambda _, given, named: seen.update({name: given[0] if given else named["hidden_states"]})
    row = lambda name: lambda _, given, out: seen.update({name: out[1][:, :, -1]})
    for index, layer in enumerate([*decoder.layers, decoder.norm]):
        before(layer, keep(f"hidden.{index}"))
    for index, layer in enumerate(decoder.layers):
        after(layer.self_attn, row(f"attention_row.{index}"))
    before(decoder.rotary_emb, lambda _, given, named: seen.update(positions=[*given[1:], *named.values()][0]))
    if case.smol:
        tower = model.model.vision_model
        stages = [*tower.encoder.layers, tower.post_layernorm]
        after(model.model.connector, lambda _, given, out: seen.update(vision=out.flatten(0, 1)))
    elif case.vision:
        tower = model.model.visual
        stages = [*tower.blocks, tower.merger]
        after(tower, lambda _, given, out: seen.update(vision=out.pooler_output))
        for index, merger in enumerate(getattr(tower, "deepstack_merger_list", [])):
            after(merger, lambda _, given, out, name=f"deepstack.{index}": seen.update({name: out}))
    for index, stage in enumerate(stages if case.vision else []):
        before(stage, keep(f"vision_hidden.{index}"))
    output = model(**inputs, **more)
    for hook in hooks:
        hook.remove()
    seen["logits"] = output.logits
    return output, {key: value.numpy() for key, value in seen.items()}


@torch.no_grad()
def greedy(model, inputs):
    """The ids that greedy decoding appends, and by how much of the largest logit its choices lead at least."""
    inputs = {key: value for key, value in inputs.items() if key != "position_ids"}
    out = model.generate(
        **inputs, max_new_tokens=GREEDY, do_sample=False, return_dict_in_generate=True, output_logits=True
    )
    logits = torch.stack(out.logits)
    best = logits.topk(2).values
    return out.sequences[:, -GREEDY:].numpy(), ((best[..., 0] - best[..., 1]).min() / logits.abs().max()).item()


def settle(case, model, prompt, shown):
    """The first draw of text whose greedy answer no rounding can change, is no image and does not repeat one word."""
    for salt in range(1000):
        ids = prompt_ids(case, prompt, shown, salt)
        inputs = model_inputs(case, [ids], [shown])
        answer, margin = greedy(model, inputs)
        if margin > MARGIN and len(set(answer[0])) >= 8 and not set(answer[0]) & {VISION_START, IMAGE, VIDEO}:
            return ids, inputs, answer[0]
    raise SystemExit(f"{prompt}: no text gives a greedy answer with a margin of {MARGIN}")


def trim(case, prompt, seen):
    """Drops the batch axis of a single prompt, and what a committed file has no room for."""
    batch = prompt == "batch"
    out = {}
    for key, value in seen.items():
        if case.committed and (key.startswith("vision_") or key.startswith("hidden") and prompt not in FULL):
            continue
        if not batch and (key.startswith(("hidden", "attention", "logits")) or key == "positions"):
            value = value[0] if key != "positions" or value.ndim == 2 else value[:, 0]
        if key == "logits" and case.committed and prompt != "text":
            value = value[..., -LOGIT_ROWS:, :]
        out[key] = value
    return out


def make_golden(case, model, processor):
    shown, golden, prompts = make_pictures(case, processor), {}, {}
    for number, one in enumerate(shown):
        golden |= {f"picture.{number}.{key}": value for key, value in one.items()}
    for prompt, numbers in case.prompts.items():
        ids, inputs, answer = prompts[prompt] = settle(case, model, prompt, [shown[n] for n in numbers])
        output, seen = observe(case, model, inputs, use_cache=True)
        seen = trim(case, prompt, seen) | {"input_ids": inputs["input_ids"][0].numpy(), "greedy": answer}
        if numbers:
            seen["pictures"] = np.array(numbers)
        golden |= {f"{prompt}.{key}": value for key, value in seen.items()}
        if prompt == case.continued:
            more = prompt_ids(case, "continuation", [], 0)[1:]
            _, seen = observe(case, model, {"input_ids": torch.tensor([more])}, past_key_values=output.past_key_values)
            seen = trim(case, "continuation", seen) | {"input_ids": np.array(more)}
            golden |= {f"continuation.{key}": value for key, value in seen.items()}
    pictures = [[shown[n] for n in case.prompts[prompt]] for prompt in case.batch]
    inputs = model_inputs(case, [prompts[prompt][0] for prompt in case.batch], pictures)
    _, seen = observe(case, model, inputs)
    mask = inputs["attention_mask"].numpy()
    for key, value in seen.items():
        if key.startswith(("hidden", "logits")):
            seen[key] = value * mask[..., None]
    seen |= {"input_ids": inputs["input_ids"].numpy(), "mask": mask.astype(np.uint8), "greedy": greedy(model, inputs)[0]}
    if case.vision:
        seen["pictures"] = np.array([n for prompt in case.batch for n in case.prompts[prompt]])
    return golden | {f"batch.{key}": value for key, value in trim(case, "batch", seen).items()}


def make(folder, name, case):
    folder.mkdir(parents=True, exist_ok=True)
    model = make_model(name, case)
    save_model(folder, case, model)
    processor = AutoImageProcessor.from_pretrained(folder) if case.vision else None
    golden = make_golden(case, model, processor)
    save_file({key: np.ascontiguousarray(value) for key, value in golden.items()}, folder / "golden.safetensors")
    sizes = {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
    print(f"{name}: {sum(sizes.values()) / 1000:.0f} kB, of it golden {sizes['golden.safetensors'] / 1000:.0f}", flush=True)


def check(folder, name, case):
    """Loads the folder as a user would and holds it against the golden values by other ways than make went."""
    golden = load_file(folder / "golden.safetensors")
    auto = AutoModelForImageTextToText if case.vision else AutoModelForCausalLM
    model, report = auto.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="sdpa", output_loading_info=True
    )
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), report
    model.eval()
    shown, pil = [], 0.0
    if case.vision:
        processor = AutoImageProcessor.from_pretrained(folder)
        other = AutoImageProcessor.from_pretrained(folder, backend="pil")
        shown = make_pictures(case, processor)
        for number, one in enumerate(shown):
            for key, value in one.items():
                assert np.array_equal(golden[f"picture.{number}.{key}"], value), (number, key)
            slow = process(case, other, one["rgb"], number)["pixel_values"]
            pil = max(pil, np.abs(slow - one["pixel_values"]).max())
    worst = 0.0
    for prompt, numbers in case.prompts.items():
        ids = golden[f"{prompt}.input_ids"].tolist()
        answer = golden[f"{prompt}.greedy"].tolist()
        with torch.no_grad():
            logits = model(**model_inputs(case, [ids + answer], [[shown[n] for n in numbers]])).logits[0].numpy()
        assert logits[len(ids) - 1 : -1].argmax(-1).tolist() == answer, prompt
        expected = golden[f"{prompt}.logits"]
        found = logits[len(ids) - len(expected) : len(ids)]
        worst = max(worst, np.abs(found - expected).max() / np.abs(expected).max())
        if prompt in case.batch:
            row = case.batch.index(prompt)
            assert golden["batch.greedy"][row].tolist() == answer, prompt
            alone = golden["batch.logits"][row, -1]
            worst = max(worst, np.abs(alone - expected[-1]).max() / np.abs(expected).max())
        if prompt == case.continued:
            joined = [ids + golden["continuation.input_ids"].tolist()]
            with torch.no_grad():
                logits = model(**model_inputs(case, joined, [[shown[n] for n in numbers]])).logits[0].numpy()
            expected = golden["continuation.logits"]
            worst = max(worst, np.abs(logits[-len(expected) :] - expected).max() / np.abs(expected).max())
    assert worst < 1e-5, worst
    peak = np.mean([value.max(-1).mean() for key, value in golden.items() if "attention_row" in key])
    pictures = f", PIL within {pil:.4f}" if case.vision else ""
    print(f"{name}: logits within {worst:.1e}, mean attention peak {peak:.2f}{pictures}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", nargs="?", type=Path)
    parser.add_argument("cases", nargs="*")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--check", action="store_true")
    given = parser.parse_args()
    if unknown := [name for name in given.cases if name not in CASES]:
        parser.error(f"no case is called {unknown[0]}; --list names them")
    if given.list or not given.out:
        for name, case in CASES.items():
            print(name + (" (committed)" if case.committed else ""))
        return
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    for name in given.cases or CASES:
        (check if given.check else make)(given.out / name, name, CASES[name])


if __name__ == "__main__":
    main()
