"""Three latent steps in float64, from the formulas of docs/method.md section 3 and nothing of ours.

    python3 tools/reference/latent_step.py fixtures/latent_step.safetensors

Needs numpy and safetensors. The file holds the weights, the inputs and, for each step, what should come out;
crates/model/tests/reference.rs compares. Sizes are those of crates/model/tests/tiny.toml.
"""

import sys

import numpy as np
from safetensors.numpy import save_file

D, DV, HEADS, INNER, STEPS, PATCHES, PER_CELL, EPS = 32, 16, 4, 48, 6, 3, 16, 1e-6
S, P, B, TAKEN = 2, 6, 3, 3
REAL_CELLS = [4, 6]  # of each picture; the rest is padding
PICTURE_OF_ROW = [1, 0, 1]

rng = np.random.default_rng(2511_02360)
tensors = {}


def draw(name, *shape, spread=1.0, centre=0.0):
    """A float32 tensor of the file, as float64."""
    tensors[name] = (centre + spread * rng.standard_normal(shape)).astype(np.float32)
    return tensors[name].astype(np.float64)


def weight(name, outputs, inputs):
    return draw(f"refocus.{name}.weight", outputs, inputs, spread=inputs**-0.5)


w_query, w_key = weight("query", D, D), weight("key", D, D)
w_revisit, b_revisit = weight("revisit", 1, D), draw("refocus.revisit.bias", 1)
w_gate, b_gate = weight("gate", D, 2 * D), draw("refocus.gate.bias", D)
w_halt, b_halt = weight("halt", 1, D), draw("refocus.halt.bias", 1)
step_embedding = draw("refocus.qformer.step", STEPS, D, spread=0.1)
block = {
    name: weight(f"qformer.blocks.0.{name}", outputs, inputs)
    for name, outputs, inputs in [
        ("self_qkv", 3 * D, D),
        ("self_output", D, D),
        ("cross_query", D, D),
        ("cross_memory", 2 * D, DV),
        ("cross_output", D, D),
        ("feed_forward.gate_up", 2 * INNER, D),
        ("feed_forward.down", D, INNER),
    ]
}
norms = {
    name: draw(f"refocus.qformer.{name}.weight", D, spread=0.1, centre=1.0)
    for name in ["blocks.0.self_norm", "blocks.0.cross_norm", "blocks.0.feed_forward_norm", "norm"]
}

cells = draw("input.cells", S, P, D)  # last hidden states of the coarse tokens
fine = draw("input.fine", S, P * PER_CELL, DV)
states = draw("input.hidden", TAKEN, B, D)  # h before each step
tensors["input.real_cells"] = np.array(REAL_CELLS, np.uint32)
tensors["input.picture_of_row"] = np.array(PICTURE_OF_ROW, np.uint32)


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


def rms_norm(x, scale=1.0):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + EPS) * scale


def attend(q, k, v, bias=0.0):
    """Multi-head attention of [Q, D] over [M, D]."""
    out = np.empty_like(q)
    width = q.shape[1] // HEADS
    for head in range(HEADS):
        part = slice(head * width, (head + 1) * width)
        scores = q[:, part] @ k[:, part].T / np.sqrt(width) + bias
        out[:, part] = softmax(scores) @ v[:, part]
    return out


def lq_former(queries, memory, bias):
    x = queries
    q, k, v = np.split(rms_norm(x, norms["blocks.0.self_norm"]) @ block["self_qkv"].T, 3, axis=1)
    x = x + attend(q, k, v) @ block["self_output"].T
    q = rms_norm(x, norms["blocks.0.cross_norm"]) @ block["cross_query"].T
    k, v = np.split(memory @ block["cross_memory"].T, 2, axis=1)
    x = x + attend(q, k, v, bias) @ block["cross_output"].T
    gate, up = np.split(
        rms_norm(x, norms["blocks.0.feed_forward_norm"]) @ block["feed_forward.gate_up"].T, 2, axis=1
    )
    x = x + (gate * sigmoid(gate) * up) @ block["feed_forward.down"].T
    return rms_norm(x[0], norms["norm"])


def chain(row):
    picture = PICTURE_OF_ROW[row]
    real = REAL_CELLS[picture]
    thoughts, looked = [], None
    for k in range(TAKEN):
        h = states[k, row]
        scores = softmax((h @ w_query.T) @ (cells[picture, :real] @ w_key.T).T / np.sqrt(D))
        if looked is not None:
            pull = h @ w_revisit[0] + b_revisit[0]
            scores = softmax(np.log(scores) + pull * looked)
        looked = scores if looked is None else looked + scores
        chosen = np.argsort(-scores, kind="stable")[:PATCHES]
        entries = np.concatenate([np.arange(p * PER_CELL, (p + 1) * PER_CELL) for p in chosen])
        queries = [h + step_embedding[k]] + [z + step_embedding[i] for i, z in enumerate(thoughts)]
        u = lq_former(np.stack(queries), fine[picture, entries], np.repeat(np.log(scores[chosen]), PER_CELL))
        g = sigmoid(np.concatenate([h, u]) @ w_gate.T + b_gate)
        z = rms_norm(g * u + (1.0 - g) * h)
        thoughts.append(z)
        yield scores, chosen, g.mean(), z, h @ w_halt[0] + b_halt[0]


rows = [list(chain(row)) for row in range(B)]
for k in range(TAKEN):
    scores = np.zeros((B, P), np.float32)
    for row in range(B):
        scores[row, : REAL_CELLS[PICTURE_OF_ROW[row]]] = rows[row][k][0]
    tensors[f"step{k}.scores"] = scores
    tensors[f"step{k}.chosen"] = np.array([rows[row][k][1] for row in range(B)], np.uint32)
    tensors[f"step{k}.gate_mean"] = np.array([rows[row][k][2] for row in range(B)], np.float32)
    tensors[f"step{k}.thought"] = np.array([rows[row][k][3] for row in range(B)], np.float32)
    tensors[f"step{k}.halt"] = np.array([rows[row][k][4] for row in range(B)], np.float32)
save_file(tensors, sys.argv[1])
