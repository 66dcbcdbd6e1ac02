"""The nano model written once more, in numpy, and what `lare eval --causal` does to its thoughts and looks, done again.

    lare eval --tasks read,locate,hop,relate --count 25 --causal --keep 25 --out run
    python3 tools/reference/interventions.py run weights/nano 8      # eight kept answers of each task

Needs numpy, Pillow, safetensors and tokenizers. From the pictures and questions of the kept traces it answers untouched, then with thoughts
and looks replaced, and compares: the same looks, thoughts and words where nothing is random (for two steps a shuffle is not), and how
many are right where something is, since the draws here are others. Written from docs/method.md and from reading the program; it runs none
of its code. It knows the shipped model's settings alone: a dot product that scores, revisiting, a window, fine memory, a gate.
"""

import copy
import json
import sys
import tomllib
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors.numpy import load_file
from tokenizers import Tokenizer

THINK_END, END, QUESTION, THINK = 4, 5, 2, 3
COARSE = [(5, 2, 2), (3, 2, 1), (3, 2, 1), (3, 2, 1)]  # side, stride, padding of each convolution
FINE = [(6, 4, 1), (3, 2, 1), (3, 2, 1)]


def rms(x, weight=1.0, eps=1e-6):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * weight


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def by_cell(x, n):
    """`[rows * n, cols * n, C]` to `[rows * cols * n * n, C]`, the entries of a cell together."""
    rows, cols, width = x.shape[0] // n, x.shape[1] // n, x.shape[2]
    return x.reshape(rows, n, cols, n, width).transpose(0, 2, 1, 3, 4).reshape(-1, width)


def places(rows, cols, per_cell, frequencies):
    """Sines and cosines of the middle of each place, in cells, `[rows, cols, 4 * frequencies]`."""
    lengths = 32 * (0.5 / 32) ** (np.arange(frequencies) / (frequencies - 1))
    def along(count):
        angle = 2 * np.pi * ((np.arange(count) + 0.5) / per_cell)[:, None] / lengths
        return np.stack([np.sin(angle), np.cos(angle)], -1).reshape(count, -1)
    row = np.repeat(along(rows)[:, None], cols, 1)
    column = np.repeat(along(cols)[None], rows, 0)
    return np.concatenate([row, column], -1).astype(np.float32)


class Model:
    def __init__(self, folder):
        self.weights = {name: x.astype(np.float32) for name, x in load_file(folder / "model.safetensors").items()}
        self.config = tomllib.loads((folder / "config.toml").read_text())
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.embedding = self.weights["language.embedding"]
        self.embedding_rms = np.sqrt((self.embedding**2).mean())

    def linear(self, x, name):
        return x @ self.weights[name + ".weight"].T + self.weights.get(name + ".bias", 0)

    def norm(self, x, name):
        return rms(x, self.weights[name + ".weight"])

    def feed_forward(self, x, name):
        gate, up = np.split(self.linear(self.norm(x, name + "_norm"), name + ".gate_up"), 2, -1)
        return self.linear(gate * sigmoid(gate) * up, name + ".down")

    def convolution(self, x, name, side, stride, padding):
        x = np.pad(x, ((padding, padding), (padding, padding), (0, 0)))
        windows = np.lib.stride_tricks.sliding_window_view(x, (side, side), axis=(0, 1))[::stride, ::stride]
        windows = windows.transpose(0, 1, 3, 4, 2).reshape(*windows.shape[:2], -1)
        return np.maximum(rms(self.linear(windows, name + ".conv"), self.weights[name + ".norm.weight"], 1e-4), 0)


def attend(queries, keys, values, added=0.0):
    """`[T, H, Dh]` against `[S, H, Dh]`; `added` to the logits `[H, T, S]`."""
    logits = np.einsum("thd,shd->hts", queries, keys) / np.sqrt(queries.shape[-1]) + added
    return np.einsum("hts,shd->thd", softmax(logits), values).reshape(len(queries), -1)


class Answer:
    """One conversation about one picture."""

    def __init__(self, model, rgb, question):
        self.model, self.config = model, model.config
        cell, per_side = self.config["vision"]["cell_px"], self.config["vision"]["fine_per_side"]
        height, width, _ = rgb.shape
        assert height % cell == 0 and width % cell == 0, "pictures of whole cells, as the suite draws them"
        self.rows, self.cols = height // cell, width // cell
        x = rgb.astype(np.float32) / 255 * 4 - 2.5
        shrink = self.config["vision"]["coarse_shrink"]
        coarse = x.reshape(height // shrink, shrink, width // shrink, shrink, 3).mean((1, 3))
        for stage, shape in enumerate(COARSE):
            coarse = model.convolution(coarse, f"vision.coarse.stages.{stage}", *shape)
        fine = x
        for stage, shape in enumerate(FINE):
            fine = model.convolution(fine, f"vision.fine.stages.{stage}", *shape)
        for block in range(self.config["vision"]["fine_blocks"]):
            fine = fine + model.convolution(fine, f"vision.fine.blocks.{block}", 3, 1, 1)

        def placed(x, name, n):
            where = places(self.rows * n, self.cols * n, n, self.config["vision"]["position_frequencies"])
            return model.norm(by_cell(x, n), f"vision.{name}_norm") + model.linear(by_cell(where, n), f"vision.{name}_position")

        self.per_cell, self.position = per_side**2, 0
        self.cache = [([], []) for _ in range(self.config["language"]["layers"])]
        self.keys = model.linear(self.read(placed(coarse, "coarse", 1), first=True), "refocus.key")
        self.position = 1  # all of a picture stands at 0
        fine = placed(fine, "fine", per_side)
        blocks = range(self.config["refocus"]["blocks"])
        self.memory = [model.linear(fine, f"refocus.qformer.blocks.{block}.cross_memory") for block in blocks]
        ids = [QUESTION, *model.tokenizer.encode(question, add_special_tokens=False).ids, THINK]
        self.hidden = self.read(model.embedding[ids])[-1]
        self.thoughts, self.scores, self.chosen, self.looked = [], [], [], None

    def turned(self, x, positions):
        half = x.shape[-1] // 2
        angles = np.asarray(positions)[:, None] * self.config["language"]["rope_theta"] ** (-np.arange(half) / half)
        cos, sin = np.cos(angles)[:, None].astype(np.float32), np.sin(angles)[:, None].astype(np.float32)
        a, b = x[..., :half], x[..., half:]
        return np.concatenate([a * cos - b * sin, b * cos + a * sin], -1)

    def read(self, x, first=False):
        """Appends embeddings `[T, D]`; all of the picture (`first`) see each other, later ones what came before."""
        model, count, heads = self.model, len(x), self.config["language"]["heads"]
        positions = np.zeros(count) if first else np.arange(self.position, self.position + count)
        for layer, (keys, values) in enumerate(self.cache):
            name = f"language.blocks.{layer}"
            qkv = model.linear(model.norm(x, name + ".attention_norm"), name + ".qkv")
            q, k, v = (part.reshape(count, heads, -1) for part in np.split(qkv, 3, -1))
            keys.append(self.turned(k, positions))
            values.append(v)
            all_keys, all_values = np.concatenate(keys), np.concatenate(values)
            before = len(all_keys) - count
            hidden = np.arange(len(all_keys))[None] > before + np.arange(count)[:, None]
            added = 0.0 if first else np.where(hidden, -1e30, 0.0)[None]
            x = x + model.linear(attend(self.turned(q, positions), all_keys, all_values, added), name + ".output")
            x = x + model.feed_forward(x, name + ".feed_forward")
        self.position += 0 if first else count
        return model.norm(x, "language.norm")

    def stops(self):
        return sigmoid(self.model.linear(self.hidden, "refocus.halt")[0]) >= 0.5

    def window(self, scores):
        side = round(self.config["refocus"]["patches"] ** 0.5)
        height, width = min(side, self.rows), min(side, self.cols)
        grid = np.arange(self.rows * self.cols).reshape(self.rows, self.cols)
        corners = [(top, left) for top in range(self.rows - height + 1) for left in range(self.cols - width + 1)]
        windows = [grid[top : top + height, left : left + width].ravel() for top, left in corners]
        return max(windows, key=lambda cells: scores[cells].sum())

    def fused(self, log_scores, cells):
        model, heads = self.model, self.config["refocus"]["heads"]
        entries = (np.asarray(cells)[:, None] * self.per_cell + np.arange(self.per_cell)).ravel()
        bias, steps = np.repeat(log_scores[cells], self.per_cell), model.weights["refocus.qformer.step"]
        now = self.hidden + steps[len(self.thoughts)]
        x = np.stack([now, *(thought + steps[k] for k, thought in enumerate(self.thoughts))])
        for block, memory in enumerate(self.memory):
            name = f"refocus.qformer.blocks.{block}."
            qkv = model.linear(model.norm(x, name + "self_norm"), name + "self_qkv")
            own = (part.reshape(len(x), heads, -1) for part in np.split(qkv, 3, -1))
            x = x + model.linear(attend(*own), name + "self_output")
            queries = model.linear(model.norm(x, name + "cross_norm"), name + "cross_query").reshape(len(x), heads, -1)
            seen = memory[entries].reshape(len(entries), 2, heads, -1)
            x = x + model.linear(attend(queries, seen[:, 0], seen[:, 1], bias), name + "cross_output")
            x = x + model.feed_forward(x, name + "feed_forward")
        return model.norm(x[0], "refocus.qformer.norm")

    def step(self, thought=None, cells=None):
        """One latent step; `thought` and `cells` replace its own."""
        model, h = self.model, self.hidden
        log_scores = np.log(softmax(self.keys @ model.linear(h, "refocus.query") / np.sqrt(len(h))) + 1e-9)
        if self.looked is not None:
            log_scores = np.log(softmax(log_scores + self.looked * model.linear(h, "refocus.revisit")[0]))
        scores = np.exp(log_scores)
        read = scores
        if cells is None:
            cells = self.window(scores)
        else:
            read = np.isin(np.arange(len(scores)), cells) / len(cells)
        u = self.fused(log_scores, cells)
        gate = sigmoid(model.linear(np.concatenate([h, u]), "refocus.gate"))
        own = rms(gate * u + (1 - gate) * h)
        own = own if thought is None else np.asarray(thought, np.float32)
        self.hidden = self.read((own * model.embedding_rms)[None].astype(np.float32))[0]
        self.looked = read if self.looked is None else self.looked + read
        self.thoughts.append(own)
        self.scores.append(scores)
        self.chosen.append(cells)

    def says(self):
        said, fed = [], THINK_END
        while self.position < self.config["language"]["max_positions"] - 2:
            logits = self.read(self.model.embedding[[fed]])[-1] @ self.model.embedding.T
            fed = END + int(logits[END:].argmax())  # marks before the end are no words of an answer
            if fed == END:
                break
            said.append(fed)
        return self.model.tokenizer.decode(said)


def oracle(trace, step):
    """Cells that hold the true region of a step, most first; nothing where none is known."""
    region, grid = trace["steps"][step].get("region"), trace["grid"]
    if region is None:
        return None
    def shared(count, cell, start, length):
        at = np.arange(count) * cell
        return np.clip(np.minimum(at + cell, start + length) - np.maximum(at, start), 0, None)
    across = shared(grid["cols"], grid["cell_px_x"], region["x"], region["width"])
    down = shared(grid["rows"], grid["cell_px_y"], region["y"], region["height"])
    areas = np.outer(down, across).ravel()
    count = min(len(trace["steps"][step]["selected"]), int((areas > 0).sum()))
    return np.argsort(-areas, kind="stable")[: max(1, count)]


def answers(model, rgb, question, trace, dice):
    """The words said untouched and under each intervention, and the untouched conversation."""
    start = Answer(model, rgb, question)
    own = copy.deepcopy(start)
    while len(own.thoughts) < model.config["refocus"]["max_steps"] and not own.stops():
        own.step()
    steps = len(own.thoughts)
    said = {"untouched": copy.deepcopy(own).says()}

    def again(name, count, thought=lambda k: None, cells=lambda k: None):
        other = copy.deepcopy(start)
        for k in range(count):
            other.step(thought(k), cells(k))
        said[name] = other.says()

    def noise(k):
        drawn = dice.standard_normal(len(own.thoughts[k]))
        return drawn * np.linalg.norm(own.thoughts[k]) / np.linalg.norm(drawn)

    again("markers-only", 0)
    if steps > 0:
        again("zero", steps, lambda k: np.zeros_like(own.thoughts[k]))
        again("noise", steps, noise)
        patches = model.config["refocus"]["patches"]
        again("random-patches", steps, cells=lambda k: dice.permutation(len(start.keys))[:patches])
        again("oracle-patches", steps, cells=lambda k: oracle(trace, k) if k < len(trace["steps"]) else None)
    if steps > 1:
        by = dice.integers(1, steps)
        again("repeat-first", steps, lambda k: own.thoughts[0])
        again("shuffle", steps, lambda k: own.thoughts[(k + by) % steps])
    return said, own


def plain(text):
    return text.replace(" ", "").rstrip(".").lower()


def main(run, weights, most):
    model, dice = Model(weights), np.random.default_rng(1)
    taken, tried = Counter(), defaultdict(Counter)
    far = {"scores": 0.0, "thoughts": 0.0}
    for number, line in enumerate(open(run / "items.jsonl"), 1):
        item, folder = json.loads(line), run / "traces" / str(number)
        if not folder.exists() or taken[item["task"]] >= most:
            continue
        taken[item["task"]] += 1
        trace = json.loads((folder / "trace.json").read_text())
        rgb = np.array(Image.open(folder / "picture.png").convert("RGB"))
        said, own = answers(model, rgb, item["prompt"], trace, dice)
        theirs = {"untouched": item["said"]} | {one["what"]: one["said"] for one in item.get("replaced", [])}
        tried["steps"].update(items=1, same=len(own.thoughts) == len(trace["steps"]))
        for ours, step in zip(own.scores, trace["steps"]):
            far["scores"] = max(far["scores"], np.abs(ours - step["weights"]).max())
        if (folder / "thoughts.json").exists():
            for ours, thought in zip(own.thoughts, json.loads((folder / "thoughts.json").read_text())):
                far["thoughts"] = max(far["thoughts"], np.abs(ours - thought).max())
        right = plain(item["expected"])
        for what in said.keys() & theirs.keys():
            count = tried[what]
            count.update(items=1, here=plain(said[what]) == right, there=plain(theirs[what]) == right)
            if what not in ("noise", "random-patches") and (what != "shuffle" or len(own.thoughts) == 2):
                count.update(compared=1, same=plain(said[what]) == plain(theirs[what]))
    print(f"answers {sum(taken.values())}, with as many steps {tried.pop('steps')['same']}; largest difference of scores {far['scores']:.1e}, of thoughts {far['thoughts']:.1e}")
    print(f"{'':16}{'answers':>8}{'right here':>12}{'in the run':>12}{'same words':>14}")
    for what, n in sorted(tried.items()):
        same = f"{n['same']} of {n['compared']}" if n["compared"] else "-"
        print(f"{what:<16}{n['items']:>8}{n['here']:>12}{n['there']:>12}{same:>14}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
