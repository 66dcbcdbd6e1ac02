"""A language model in the shape of crates/model/benches/whole.rs in PyTorch: random weights, 64 tokens read, 32 said.

Called by language_models.sh; argument: f32 or bf16. Prints one line: tokens a second of both.
"""
import statistics
import sys
import time

import torch
import torch.nn.functional as F

LAYERS, WIDTH, HEADS, KV_HEADS, HEAD_WIDTH, HIDDEN, VOCABULARY = 28, 1536, 12, 2, 128, 8960, 151_936
PREFILL, DECODE, ROUNDS = 64, 32, 5


class Model:
    def __init__(self, dtype):
        matrix = lambda rows, cols: ((torch.rand(rows, cols) - 0.5) * 0.05).to(dtype)
        self.ones = torch.ones(WIDTH, dtype=dtype)
        self.embedding = matrix(VOCABULARY, WIDTH)
        self.frequencies = 1e6 ** (-torch.arange(0, HEAD_WIDTH, 2).float() / HEAD_WIDTH)
        projected = WIDTH + 2 * KV_HEADS * HEAD_WIDTH
        self.layers = [
            {"qkv": matrix(projected, WIDTH), "bias": torch.zeros(projected, dtype=dtype), "output": matrix(WIDTH, WIDTH),
             "gate": matrix(HIDDEN, WIDTH), "up": matrix(HIDDEN, WIDTH), "down": matrix(WIDTH, HIDDEN)}
            for _ in range(LAYERS)
        ]

    def norm(self, x):
        return F.rms_norm(x, (WIDTH,), self.ones, 1e-6)

    def turned(self, x, positions):
        angles = positions[:, None].float() * self.frequencies
        cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
        a, b = x.chunk(2, dim=-1)
        return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)

    def logits(self, ids, cache):
        count, past = ids.shape[0], cache[0][0].shape[1] if cache else 0
        x, positions, kept = self.embedding[ids], torch.arange(past, past + count), []
        for number, layer in enumerate(self.layers):
            qkv = F.linear(self.norm(x), layer["qkv"], layer["bias"])
            q, k, v = qkv.split([WIDTH, KV_HEADS * HEAD_WIDTH, KV_HEADS * HEAD_WIDTH], -1)
            heads = lambda t: t.view(count, -1, HEAD_WIDTH).transpose(0, 1)
            q, k, v = self.turned(heads(q), positions), self.turned(heads(k), positions), heads(v)
            if cache:
                k, v = torch.cat([cache[number][0], k], 1), torch.cat([cache[number][1], v], 1)
            kept.append((k, v))
            seen = F.scaled_dot_product_attention(q[None], k[None], v[None], is_causal=count > 1, enable_gqa=True)[0]
            x = x + F.linear(seen.transpose(0, 1).reshape(count, WIDTH), layer["output"])
            inner = self.norm(x)
            x = x + F.linear(F.silu(F.linear(inner, layer["gate"])) * F.linear(inner, layer["up"]), layer["down"])
        return F.linear(self.norm(x[-1:]), self.embedding), kept


@torch.inference_mode()
def main():
    torch.set_num_threads(len(__import__("os").sched_getaffinity(0)))
    name = sys.argv[1]
    model = Model({"f32": torch.float32, "bf16": torch.bfloat16}[name])
    ids, reading, saying = torch.arange(PREFILL) * 37 + 1000, [], []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        logits, cache = model.logits(ids, None)
        reading.append(time.perf_counter() - started)
    for _ in range(DECODE):
        started = time.perf_counter()
        logits, cache = model.logits(logits.float().argmax(-1), cache)
        saying.append(time.perf_counter() - started)
    prefill, decode = PREFILL / statistics.median(reading), 1 / statistics.median(saying)
    print(f"PyTorch {name:5} prefill {prefill:6.1f} tokens/s  decode {decode:5.1f} tokens/s")


main()
