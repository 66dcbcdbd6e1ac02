"""The training step of crates/kernels/benches/decoder.rs in PyTorch eager mode.

Called by that benchmark; prints one line: samples/s, peak MB, forward/backward/optimiser ms, processor
ms a step (all threads), first and last loss. Arguments: steps to time (after two to warm up), threads.
"""
import resource
import statistics
import sys
import time

import torch
import torch.nn as nn
import torch.nn.functional as F

WIDTH, LAYERS, HEADS, HIDDEN, VOCABULARY, LENGTH, BATCH = 256, 6, 8, 1024, 512, 128, 16
WARMUP_STEPS = 2


class Norm(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(WIDTH))

    def forward(self, x):
        return F.rms_norm(x, (WIDTH,), self.weight, 1e-6)


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        linear = lambda i, o: nn.Linear(i, o, bias=False)
        self.norm1, self.norm2 = Norm(), Norm()
        self.q, self.k, self.v, self.o = (linear(WIDTH, WIDTH) for _ in range(4))
        self.gate, self.up = linear(WIDTH, HIDDEN), linear(WIDTH, HIDDEN)
        self.down = linear(HIDDEN, WIDTH)

    def forward(self, x):
        split = lambda t: t.view(BATCH, LENGTH, HEADS, WIDTH // HEADS).transpose(1, 2)
        h = self.norm1(x)
        mixed = F.scaled_dot_product_attention(
            split(self.q(h)), split(self.k(h)), split(self.v(h)), is_causal=True
        )
        x = x + self.o(mixed.transpose(1, 2).reshape(BATCH, LENGTH, WIDTH))
        h = self.norm2(x)
        return x + self.down(F.silu(self.gate(h)) * self.up(h))


class Decoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, WIDTH)
        self.positions = nn.Parameter(torch.randn(LENGTH, WIDTH))
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))
        self.norm = Norm()
        self.head = nn.Linear(WIDTH, VOCABULARY, bias=False)
        for parameter in self.parameters():
            if parameter.dim() == 2:
                nn.init.normal_(parameter, std=0.02)

    def forward(self, ids, targets):
        x = self.embedding(ids) + self.positions
        for layer in self.layers:
            x = layer(x)
        return F.cross_entropy(self.head(self.norm(x)).view(-1, VOCABULARY), targets.view(-1))


def main():
    steps, threads = int(sys.argv[1]), int(sys.argv[2])
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model = Decoder()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    places = torch.arange(BATCH * LENGTH)
    tokens = lambda i: ((i * 7919 + 13) % 97 % VOCABULARY).view(BATCH, LENGTH)
    ids, targets = tokens(places), tokens(places + 1)
    times, losses = [], []
    for step in range(WARMUP_STEPS + steps):
        if step == WARMUP_STEPS:
            processor = time.process_time()
        start = time.perf_counter()
        loss = model(ids, targets)
        losses.append(loss.item())
        forward = time.perf_counter()
        loss.backward()
        backward = time.perf_counter()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        end = time.perf_counter()
        if step >= WARMUP_STEPS:
            times.append((end - start, forward - start, backward - forward, end - backward))
    total, *parts = (statistics.median(column) for column in zip(*times))
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    parts_ms = " ".join(f"{part * 1e3:.1f}" for part in parts)
    processor_ms = (time.process_time() - processor) / steps * 1e3
    print(f"{BATCH / total:.3f} {peak_mb:.1f} {parts_ms} {processor_ms:.1f} {losses[0]:.4f} {losses[-1]:.4f}")


if __name__ == "__main__":
    main()
