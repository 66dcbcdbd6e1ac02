"""GGUF files of tiny models, what transformers computes from them, and the same of a published one.

    python3 tools/reference/gguf_models.py make fixtures/gguf [CASE ...]    makes what is committed
    python3 tools/reference/gguf_models.py check LARE FILE.gguf ...         compares LARE, the program, with transformers
    python3 tools/reference/gguf_models.py record LARE FILE.gguf OUT.json   the same, and writes down what the answers are

Needs transformers 5 with torch, and `gguf` 0.19. Weights are drawn at random, or are random blocks where `gguf` has no
way to quantise (the K types), and written with `gguf`'s writer; tokenizers and templates are those of fixtures/chat. The
reference never sees how this project reads the files: `gguf` reads them, and its numpy code widens their blocks, into
transformers' own model in float32 with eager attention. Rows of queries and keys are written for interleaved rotary
positions in the architecture `llama`, as llama.cpp's converter does, and put back in order for transformers.

CASE.json beside CASE.gguf holds

    ids      of a text
    logits   of its last ROWS positions
    greedy   64 ids that greedy decoding appends, ends ignored
    question, prompt, tokens, text    a question, the ids of its chat, and what generate answers, at most ANSWER tokens

No step's two likeliest tokens are nearer than MARGIN of the largest logit, so rounding does not choose; OUT.json keeps the
questions that hold to it.

The vocabularies of llama.cpp are a test of the crate `lare-infer`, `tests/vocabularies.rs`: LARE_GGUF_VOCABULARIES is the
folder `vendor/llama.cpp/models` of the source distribution of `llama-cpp-python` 0.3.36 on PyPI.
"""

import argparse
import json
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Type
from safetensors.numpy import load_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

ROOT = Path(__file__).resolve().parents[2]
CHAT = ROOT / "fixtures" / "chat"
ROWS, GREEDY, ANSWER, MARGIN, QUESTION = 2, 64, 24, 1e-3, "What is this?"
QUESTIONS = [QUESTION, "What is the capital of France?", "What is a cup?", "Name three colours of the rainbow."]
VOCABULARY, TEXT = 512, 40
TOLERANCE = 1e-4
# Control tokens that end an answer, as llama.cpp has it.
ENDS = ["<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|endoftext|>", "<|end_of_text|>"]
PRE = {"qwen2": "qwen2", "qwen3": "qwen2", "llama": "llama-bpe"}
# Of a block of a K type: its bytes, where its scales of 16 bits lie, and the second as a multiple of the first.
BLOCKS = {
    Type.Q2_K: (84, 80, 82, 1.5), Type.Q3_K: (110, 108, None, 0), Type.Q4_K: (144, 0, 2, 7.5),
    Type.Q5_K: (176, 0, 2, 15.5), Type.Q6_K: (210, 208, None, 0),
}
IN_A_BLOCK = {
    "attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj", "attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm",
    "attn_output": "self_attn.o_proj", "ffn_norm": "post_attention_layernorm", "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}
OUTSIDE = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}


@dataclass
class Case:
    family: str
    sizes: dict
    types: dict = field(default_factory=dict)  # by a tensor's name in a block; the rest is F16, norms and biases F32
    tied: bool = False
    rope: dict = field(default_factory=dict)


def sizes(width, inner, layers, heads, kv_heads, **more):
    names = ["hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads"]
    return dict(zip(names, [width, inner, layers, heads, kv_heads]), **more)


CASES = {
    "qwen2": Case(
        "qwen2", sizes(64, 96, 2, 4, 2), tied=True,
        types=dict(token_embd=Type.Q8_0, attn_q=Type.Q8_0, attn_k=Type.Q4_0, attn_v=Type.Q5_0, attn_output=Type.Q5_1,
                   ffn_gate=Type.Q4_1, ffn_up=Type.Q8_0, ffn_down=Type.Q4_0),
    ),
    "qwen3": Case(
        "qwen3", sizes(32, 64, 2, 2, 1, head_dim=32),
        types=dict(token_embd=Type.F16, output=Type.BF16, attn_q=Type.BF16, attn_k=Type.F32, ffn_gate=Type.Q8_0),
    ),
    "llama": Case(
        "llama", sizes(256, 256, 1, 8, 2), tied=True,
        types=dict(token_embd=Type.Q4_0, attn_q=Type.Q4_K, attn_k=Type.Q8_0, attn_v=Type.Q5_K, attn_output=Type.Q3_K,
                   ffn_gate=Type.Q2_K, ffn_up=Type.Q4_K, ffn_down=Type.Q6_K),
        rope=dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                  original_max_position_embeddings=64),
    ),
}


def config_of(case):
    rope = {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, **case.rope}}
    common = dict(vocab_size=VOCABULARY, max_position_embeddings=512, rms_norm_eps=1e-5, tie_word_embeddings=case.tied)
    return AutoConfig.for_model(case.family, **case.sizes, **common, **rope)


def theirs(name):
    """transformers' name of a tensor in the file."""
    stem, kind = name.rsplit(".", 1)
    if stem in OUTSIDE:
        return f"{OUTSIDE[stem]}.{kind}"
    _, layer, rest = stem.split(".")
    return f"model.layers.{layer}.{IN_A_BLOCK[rest]}.{kind}"


def interleaved(rows, heads):
    """The two halves of each head's rows, one row in turn."""
    return rows.reshape(heads, 2, rows.shape[0] // heads // 2, -1).swapaxes(1, 2).reshape(rows.shape)


def in_halves(rows, heads):
    return rows.reshape(heads, rows.shape[0] // heads // 2, 2, -1).swapaxes(1, 2).reshape(rows.shape)


def heads_of(config, name):
    """Heads of a matrix whose rows are interleaved in the file."""
    if config.model_type != "llama" or not name.endswith(".weight"):
        return None
    return {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}.get(name.split(".")[-2])


def random_blocks(random, shape, kind):
    size, first, second, ratio = BLOCKS[kind]
    blocks = random.integers(0, 256, (shape[0] * shape[1] // 256, size), dtype=np.uint8)
    rows = (shape[0], shape[1] // 256 * size)

    def scaled(by):
        blocks[:, first : first + 2] = np.frombuffer(np.float16(by).tobytes(), np.uint8)
        if second is not None:
            blocks[:, second : second + 2] = np.frombuffer(np.float16(by * ratio).tobytes(), np.uint8)
        return blocks.reshape(rows)

    return scaled(1.5 / np.sqrt(shape[1]) / gguf.quants.dequantize(scaled(1 / 64), kind).std() / 64)


def draw(random, name, shape, kind):
    """A tensor as it is stored."""
    if kind in BLOCKS:
        return random_blocks(random, shape, kind)
    spread = {"bias": 0.3}.get(name.rsplit(".", 1)[1], 0.2 if len(shape) == 1 else 1.5 / np.sqrt(shape[-1]))
    values = random.normal(1.0 if "norm" in name else 0.0, spread, shape).astype(np.float32)
    return gguf.quants.quantize(values, kind)


def add_tokenizer(writer, folder, family):
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    config = json.loads((folder / "tokenizer_config.json").read_text())
    template = folder / "chat_template.jinja"
    text = template.read_text() if template.exists() else config["chat_template"]
    ids = {token: id for token, id in tokenizer["model"]["vocab"].items()}
    added = {token["content"]: token for token in tokenizer["added_tokens"]}
    ids |= {content: token["id"] for content, token in added.items()}
    by_id = {id: token for token, id in ids.items()}
    tokens = [by_id.get(id, f"[PAD{id}]") for id in range(VOCABULARY)]

    def kind(token, id):
        if id not in by_id:
            return gguf.TokenType.UNUSED
        if token not in added:
            return gguf.TokenType.NORMAL
        return gguf.TokenType.CONTROL if added[token]["special"] else gguf.TokenType.USER_DEFINED

    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(PRE[family])
    writer.add_token_list(tokens)
    writer.add_token_types([kind(token, id) for id, token in enumerate(tokens)])
    merges = tokenizer["model"]["merges"]
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in merges])
    name = lambda key: config.get(key) if isinstance(config.get(key), (str, type(None))) else config[key]["content"]
    writer.add_eos_token_id(ids[name("eos_token")])
    if name("bos_token"):
        writer.add_bos_token_id(ids[name("bos_token")])
    writer.add_add_bos_token(False)
    writer.add_chat_template(text)


def write(path, case, config, seed):
    random = np.random.default_rng(seed)
    writer = gguf.GGUFWriter(path, case.family)
    writer.add_name(f"tiny {case.family}")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(VOCABULARY)
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    if case.family == "qwen3":
        writer.add_key_length(head)
        writer.add_value_length(head)
    else:
        writer.add_rope_dimension_count(head)
    add_tokenizer(writer, CHAT / case.family, case.family)
    if case.rope:
        writer.add_tensor("rope_freqs.weight", llama3_factors(case.rope, head))
    model = AutoModelForCausalLM.from_config(config)
    wanted = {theirs_name: tuple(tensor.shape) for theirs_name, tensor in model.state_dict().items()}
    names = [f"blk.{layer}.{own}" for layer in range(config.num_hidden_layers) for own in IN_A_BLOCK]
    for stem in ["token_embd", "output_norm", "output", *names]:
        for name in [f"{stem}.weight", f"{stem}.bias"]:
            if theirs(name) not in wanted or (stem == "output" and case.tied):
                continue
            shape = wanted[theirs(name)]
            kind = case.types.get(stem.split(".")[-1], Type.F16) if len(shape) > 1 else Type.F32
            stored = draw(random, name, shape, kind)
            writer.add_tensor(name, stored, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def llama3_factors(rope, head):
    """As llama.cpp's converter writes them."""
    low = rope["original_max_position_embeddings"] / rope["low_freq_factor"]
    high = rope["original_max_position_embeddings"] / rope["high_freq_factor"]
    factors = []
    for i in range(0, head, 2):
        wave = 2 * np.pi * 10000.0 ** (i / head)
        if wave < high:
            factors.append(1.0)
        elif wave > low:
            factors.append(rope["factor"])
        else:
            smooth = (rope["original_max_position_embeddings"] / wave - rope["low_freq_factor"]) / (
                rope["high_freq_factor"] - rope["low_freq_factor"]
            )
            factors.append(1 / ((1 - smooth) / rope["factor"] + smooth))
    return np.array(factors, dtype=np.float32)


def config_in(reader, case=None):
    """The config of a file, from its metadata alone unless a case says more."""
    value = lambda key, default=None: reader.fields[key].contents() if key in reader.fields else default
    family = value("general.architecture")
    own = lambda key, default=None: value(f"{family}.{key}", default)
    names = {tensor.name for tensor in reader.tensors}
    rope = {"rope_type": "default", "rope_theta": own("rope.freq_base", 10000.0), **(case.rope if case else {})}
    sizes = dict(
        vocab_size=len(value("tokenizer.ggml.tokens")), hidden_size=own("embedding_length"),
        intermediate_size=own("feed_forward_length"), num_hidden_layers=own("block_count"),
        num_attention_heads=own("attention.head_count"), num_key_value_heads=own("attention.head_count_kv"),
        rms_norm_eps=own("attention.layer_norm_rms_epsilon"), max_position_embeddings=own("context_length"),
        tie_word_embeddings="output.weight" not in names, rope_parameters=rope,
    )
    if own("attention.key_length"):
        sizes["head_dim"] = own("attention.key_length")
    return AutoConfig.for_model(family, **sizes)


def reference(path, case=None):
    """transformers' model with the file's weights."""
    reader = gguf.GGUFReader(path)
    config = config_in(reader, case)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").float().eval()
    state = {}
    for tensor in reader.tensors:
        if tensor.name == "rope_freqs.weight":
            continue
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        heads = heads_of(config, tensor.name)
        if heads:
            values = in_halves(values, heads)
        state[theirs(tensor.name)] = torch.from_numpy(values.copy())
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected and set(missing) <= ({"lm_head.weight"} if config.tie_word_embeddings else set()), missing
    model.tie_weights()
    return reader, model


@torch.no_grad()
def greedy(model, ids, count, ends=()):
    """Ids that greedy decoding appends, and the smallest lead of a choice over the largest logit."""
    said, lead, cache, given = [], 1.0, None, torch.tensor([ids])
    while len(said) < count and not (said and said[-1] in ends):
        out = model(input_ids=given, past_key_values=cache, use_cache=True)
        cache, logits = out.past_key_values, out.logits[0, -1]
        best = logits.topk(2)
        lead = min(lead, ((best.values[0] - best.values[1]) / logits.abs().max()).item())
        said.append(best.indices[0].item())
        given = torch.tensor([said[-1:]])
    return said, lead


@torch.no_grad()
def logits_of(model, ids):
    return model(input_ids=torch.tensor([ids])).logits[0].numpy()


def golden_of(path, case):
    reader, model = reference(path, case)
    tokenizer = AutoTokenizer.from_pretrained(CHAT / case.family)
    tokens = reader.fields["tokenizer.ggml.tokens"].contents()
    ends = [id for id, token in enumerate(tokens) if token in ENDS] + [tokenizer.eos_token_id]
    ids = np.random.default_rng(1).integers(0, 470, TEXT).tolist()
    said, lead = greedy(model, ids, GREEDY)
    messages = [{"role": "user", "content": QUESTION}]
    now = dict(date_string="26 Jul 2024") if case.family == "llama" else {}
    prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=True, return_dict=True, **now)
    prompt = list(prompt["input_ids"])
    answer, second = greedy(model, prompt, ANSWER, ends)
    golden = dict(ids=ids, logits=logits_of(model, ids)[-ROWS:].tolist(), greedy=said, question=QUESTION)
    golden |= dict(prompt=prompt, tokens=answer, text=tokenizer.decode(answer, skip_special_tokens=True))
    return golden, min(lead, second)


def make(out, names):
    out.mkdir(parents=True, exist_ok=True)
    for name in names or CASES:
        case = CASES[name]
        for seed in range(60):
            path = out / f"{name}.gguf"
            write(path, case, config_of(case), seed)
            golden, lead = golden_of(path, case)
            if lead >= MARGIN and len(set(golden["tokens"])) >= 4:
                rounded = [[float(f"{x:.7g}") for x in row] for row in golden["logits"]]
                (out / f"{name}.json").write_text(json.dumps(golden | {"logits": rounded}, ensure_ascii=False) + "\n")
                print(f"{name}: seed {seed}, lead {lead:.4f}, {path.stat().st_size} bytes, {golden['text']!r}")
                break
        else:
            raise SystemExit(f"{name}: no seed keeps the margin")


def prompt_of(lare, path, question):
    """What the program makes of a question: ids and logits."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "all.safetensors"
        command = [lare, "dump", "--model", path, "--prompt", question, "--dtype", "f32", "--out", out]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return load_file(out)


def answer_of(lare, path, question, *more):
    command = [lare, "ask", "--model", path, question, "--json", "--max-tokens", str(GREEDY), *more]
    return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)["answer"]


def check(lare, path):
    """Compares logits on each question, and greedy answers of up to 64 tokens, with weights widened to f32."""
    reader, model = reference(path, CASES.get(Path(path).stem))
    tokens = reader.fields["tokenizer.ggml.tokens"].contents()
    records = []
    for question in QUESTIONS:
        ours = prompt_of(lare, path, question)
        ids = ours["input_ids"].tolist()
        expected = logits_of(model, ids)
        off = np.abs(ours["logits"] - expected).max() / np.abs(expected).max()
        said, lead = greedy(model, ids, GREEDY)
        text = text_of(reader, until(tokens, said))
        same = answer_of(lare, path, question, "--dtype", "f32") == text
        loaded = answer_of(lare, path, question) == text
        print(f"{Path(path).name}, {question!r}: logits of {len(ids)} positions off by {off:.1e} of the largest")
        print(f"  {text!r}, least lead {lead:.1e}; in f32 {'the same' if same else 'ANOTHER'}, as loaded", end=" ")
        print("the same" if loaded else "another")
        assert off <= TOLERANCE and same, question
        records.append(dict(question=question, prompt=ids, tokens=said, text=text, lead=float(f"{lead:.1e}")))
    return records


def text_of(reader, ids):
    """The text of ids, from the file's own vocabulary: bytes as GPT-2 writes them."""
    tokens = reader.fields["tokenizer.ggml.tokens"].contents()
    kinds = reader.fields["tokenizer.ggml.token_type"].contents()
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    alphabet = {chr(byte): byte for byte in shown}
    alphabet |= {chr(256 + n): byte for n, byte in enumerate(byte for byte in range(256) if byte not in shown)}
    kept = "".join(tokens[id] for id in ids if kinds[id] == 1)
    return bytes(alphabet[char] for char in kept).decode(errors="replace")


def until(tokens, ids):
    """Up to the first id that ends an answer."""
    ends = [id for id, token in enumerate(tokens) if token in ENDS]
    stop = next((place for place, id in enumerate(ids) if id in ends), len(ids))
    return ids[:stop]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["make", "check", "record"])
    parser.add_argument("arguments", nargs="+")
    given = parser.parse_args()
    if given.what == "make":
        return make(Path(given.arguments[0]), given.arguments[1:])
    lare, *files = given.arguments
    out = files.pop() if given.what == "record" else None
    for path in files:
        records = check(lare, path)
        if out:
            kept = [record for record in records if record["lead"] >= MARGIN]
            Path(out).write_text(json.dumps(kept, ensure_ascii=False, indent=1) + "\n")


if __name__ == "__main__":
    main()
