"""Compares two encoders at reading tags: small and trained from scratch, or a frozen EfficientNet-Lite0 trunk.

    cargo run --release --example pages -- pages/train train 600
    cargo run --release --example pages -- pages/val val 40
    python3 tools/reference/encoders.py pages efficientnet-lite0.safetensors [STEPS [STEPS_OF_THE_TRUNK]]

Both get the same pages in the same order, the same head (a window of 2 x 3 features of 16 px, one hidden layer of 128,
as in crates/train/src/reading.rs), AdamW with the same schedule, and are read on the same pages of `val`. The trunk gives
112 channels at stride 16, to which its 40 channels at stride 8 are added (four to a place). Needs torch, numpy and
safetensors.
"""

import csv
import math
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn

SIDE, CELL = 448, 16
PLACES = SIDE // CELL


class Scratch(nn.Module):
    """The fine encoder of crates/model/src/backbone/nano.rs: convolution, RMS norm over channels, ReLU."""

    def __init__(self):
        super().__init__()
        shapes = [(3, 64, 6, 4, 1), (64, 128, 3, 2, 1), (128, 128, 3, 2, 1), (128, 128, 3, 1, 1)]
        self.convs = nn.ModuleList(nn.Conv2d(i, o, k, s, p) for i, o, k, s, p in shapes)
        self.scales = nn.ParameterList(torch.ones(o) for _, o, _, _, _ in shapes)
        for conv in self.convs:
            nn.init.normal_(conv.weight, std=math.sqrt(2 / conv.weight[0].numel()))
            nn.init.zeros_(conv.bias)
        self.width = 128

    def forward(self, x):  # [B, 3, H, W] in 0..1
        x = 4 * x - 2.5
        for i, (conv, scale) in enumerate(zip(self.convs, self.scales)):
            y = conv(x)
            y = y * torch.rsqrt(y.square().mean(1, keepdim=True) + 1e-4) * scale[None, :, None, None]
            y = F.relu(y)
            x = x + y if i == 3 else y
        return x


class Trunk(nn.Module):
    """EfficientNet-Lite0 up to stride 16, frozen."""

    BLOCKS = [(1, 3, 1, 1), (2, 3, 2, 6), (2, 5, 2, 6), (3, 3, 2, 6), (3, 5, 1, 6)]  # repeats, kernel, stride, expand

    def __init__(self, path):
        super().__init__()
        self.weights = load_file(path)
        self.width = 112 + 4 * 40

    def _norm(self, x, name):
        w = self.weights
        mean, var = w[name + ".running_mean"], w[name + ".running_var"]
        return F.batch_norm(x, mean, var, w[name + ".weight"], w[name + ".bias"], eps=1e-3)

    def _conv(self, x, name, stride=1, groups=1):
        weight = self.weights[name + ".weight"]
        k, size = weight.shape[-1], x.shape[-1]
        pad = max((math.ceil(size / stride) - 1) * stride + k - size, 0)  # TensorFlow's SAME
        x = F.pad(x, [pad // 2, pad - pad // 2] * 2)
        return F.conv2d(x, weight, stride=stride, groups=groups)

    @torch.no_grad()
    def forward(self, x):
        x = (x * 255 - 127) / 128
        x = F.relu6(self._norm(self._conv(x, "_conv_stem", 2), "_bn0"))
        index, eighth = 0, None
        for stage, (repeats, _, stride, expand) in enumerate(self.BLOCKS):
            for repeat in range(repeats):
                name, came = f"_blocks.{index}", x
                if expand > 1:
                    x = F.relu6(self._norm(self._conv(x, name + "._expand_conv"), name + "._bn0"))
                step = stride if repeat == 0 else 1
                x = self._conv(x, name + "._depthwise_conv", step, groups=x.shape[1])
                x = F.relu6(self._norm(x, name + "._bn1"))
                x = self._norm(self._conv(x, name + "._project_conv"), name + "._bn2")
                if step == 1 and came.shape == x.shape:
                    x = x + came
                index += 1
            if stage == 2:
                eighth = x
        return torch.cat([x, F.pixel_unshuffle(eighth, 2)], 1)


class Readers(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.tag = nn.Linear(6 * width, 128)
        self.letter, self.digit = nn.Linear(128, 26), nn.Linear(128, 10)

    def forward(self, features, page, tags):
        features = self.norm(features.permute(0, 2, 3, 1))
        middle = lambda low, high, size: ((low + high) / 2 / CELL - size / 2).round().clamp(0, PLACES - size).long()
        top, left = middle(tags[:, 1], tags[:, 3], 2), middle(tags[:, 0], tags[:, 2], 3)
        window = [features[page, top + i // 3, left + i % 3] for i in range(6)]
        seen = F.relu(self.tag(torch.cat(window, 1)))
        return self.letter(seen), self.digit(seen)


def load(folder):
    pages = np.fromfile(folder / "pages.rgb", np.uint8).reshape(-1, SIDE, SIDE, 3)
    rows = list(csv.DictReader(open(folder / "tags.csv")))
    boxes = torch.tensor([[float(r[k]) for k in ("left", "top", "right", "bottom")] for r in rows])
    names = torch.tensor([[ord(r["letter"]) - 65, int(r["digit"])] for r in rows])
    page = torch.tensor([int(r["page"]) for r in rows])
    return pages, page, boxes, names


def batch(data, which):
    pages, page, boxes, names = data
    pixels = torch.from_numpy(pages[which]).permute(0, 3, 1, 2).float() / 255
    rows = torch.cat([(page == p).nonzero()[:, 0] for p in which])
    return pixels, torch.searchsorted(torch.tensor(which), page[rows]), boxes[rows], names[rows]


def main():
    folder, trunk, counts = Path(sys.argv[1]), sys.argv[2], [int(count) for count in sys.argv[3:5]] or [1000]
    train, val = load(folder / "train"), load(folder / "val")
    for name, make, steps in [("from scratch", Scratch, counts[0]), ("frozen trunk", lambda: Trunk(trunk), counts[-1])]:
        torch.manual_seed(1)
        encoder = make()
        readers = Readers(encoder.width)
        params = list(encoder.parameters()) + list(readers.parameters())
        optimizer = torch.optim.AdamW(params, lr=1.5e-3, betas=(0.9, 0.98), weight_decay=0.02)
        started, order = time.time(), np.random.default_rng(1)
        for step in range(steps):
            for group in optimizer.param_groups:
                group["lr"] = 1.5e-3 * min(1, (step + 1) / 50) * (0.01 + 0.99 * (1 + math.cos(math.pi * step / steps)) / 2)
            pixels, page, boxes, names = batch(train, sorted(order.choice(len(train[0]), 4, replace=False).tolist()))
            letter, digit = readers(encoder(pixels), page, boxes)
            loss = F.cross_entropy(letter, names[:, 0]) + F.cross_entropy(digit, names[:, 1])
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(params, 1.0)
            optimizer.step()
        minutes = (time.time() - started) / 60
        right, seconds = torch.zeros(2), 0.0
        with torch.no_grad():
            for first in range(0, len(val[0]), 4):
                pixels, page, boxes, names = batch(val, list(range(first, min(first + 4, len(val[0])))))
                began = time.time()
                features = encoder(pixels)
                seconds += time.time() - began
                letter, digit = readers(features, page, boxes)
                right += torch.tensor([(letter.argmax(1) == names[:, 0]).sum(), (digit.argmax(1) == names[:, 1]).sum()])
        share = (right / len(val[1])).tolist()
        print(f"{name}: letter {share[0]:.3f}, digit {share[1]:.3f} of {len(val[1])} tags on held-out pages; "
              f"{minutes:.1f} min for {steps} steps; encoder {1000 * seconds / len(val[0]):.0f} ms a picture", flush=True)


if __name__ == "__main__":
    main()
