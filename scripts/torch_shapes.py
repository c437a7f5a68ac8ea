#!/usr/bin/env python3
"""Times forward, loss and backward of Llama-shaped models in PyTorch, in float32 without TF32, at the shapes and under
the names of `oaif bench passes`. Prints each result immediately as one line of JSON.

    scripts/torch_shapes.py --model smollm2-135m --batch 1x128,8x512
    scripts/torch_shapes.py --model llama-3.2-1b --batch 1x512 --lora-r 16 --modes eager
"""

import argparse
import json
import statistics
import sys
import time

import torch
import torch.nn.functional as F
from torch import nn

# C, F, L, H, K, D, V, as in src/bench/shape.rs.
SHAPES = {
    "stories260k": (64, 172, 5, 8, 4, 8, 512),
    "c192": (192, 512, 6, 6, 6, 32, 4096),
    "smollm2-135m": (576, 1536, 30, 9, 3, 64, 49152),
    "smollm2-360m": (960, 2560, 32, 15, 5, 64, 49152),
    "qwen3-0.6b": (1024, 3072, 28, 16, 8, 128, 151936),
    "llama-3.2-1b": (2048, 8192, 16, 32, 8, 64, 128256),
    "gemma-3-1b": (1152, 6912, 26, 4, 1, 256, 262144),
}


class Linear(nn.Module):
    """y = x Wᵀ with a trained W; with a rank, W is frozen and y = x Wᵀ + 2 (x Aᵀ) Bᵀ."""

    def __init__(self, inputs, outputs, rank):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) * 0.02, requires_grad=not rank)
        self.a = nn.Parameter(torch.randn(rank, inputs) * 0.02) if rank else None
        self.b = nn.Parameter(torch.zeros(outputs, rank)) if rank else None

    def forward(self, x):
        y = F.linear(x, self.weight)
        return y if self.a is None else y + 2.0 * F.linear(F.linear(x, self.a), self.b)


def rotate(x, cos, sin):
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin


class Layer(nn.Module):
    def __init__(self, c, f, h, k, d, rank):
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = h, k, d
        self.norm_attention = nn.Parameter(torch.ones(c), requires_grad=not rank)
        self.norm_feed_forward = nn.Parameter(torch.ones(c), requires_grad=not rank)
        self.q, self.k, self.v = (Linear(c, heads * d, rank) for heads in (h, k, k))
        self.o = Linear(h * d, c, rank)
        self.gate, self.up, self.down = Linear(c, f, rank), Linear(c, f, rank), Linear(f, c, rank)

    def forward(self, x, cos, sin):
        s, l, c = x.shape
        n = F.rms_norm(x, (c,), self.norm_attention, 1e-5)
        q = self.q(n).view(s, l, self.heads, self.head_dim).transpose(1, 2)
        k = self.k(n).view(s, l, self.kv_heads, self.head_dim).transpose(1, 2)
        v = self.v(n).view(s, l, self.kv_heads, self.head_dim).transpose(1, 2)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        # Repeated instead of enable_gqa=True: in float32 only the memory-efficient kernel is fast, and it has no
        # groups.
        k, v = (t.repeat_interleave(self.heads // self.kv_heads, dim=1) for t in (k, v))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.o(mixed.transpose(1, 2).reshape(s, l, -1))
        n = F.rms_norm(x, (c,), self.norm_feed_forward, 1e-5)
        return x + self.down(F.silu(self.gate(n)) * self.up(n))


class Decoder(nn.Module):
    def __init__(self, sizes, rank):
        super().__init__()
        c, f, l, h, k, d, v = sizes
        self.embedding = nn.Parameter(torch.randn(v, c) * 0.02, requires_grad=not rank)
        self.layers = nn.ModuleList(Layer(c, f, h, k, d, rank) for _ in range(l))
        self.norm = nn.Parameter(torch.ones(c), requires_grad=not rank)
        self.frequencies = [10000.0 ** (-i / d) for i in range(0, d, 2)]

    def forward(self, ids, cos, sin):
        x = F.embedding(ids, self.embedding)
        for layer in self.layers:
            x = layer(x, cos, sin)
        return F.linear(F.rms_norm(x, x.shape[-1:], self.norm, 1e-5), self.embedding)

    def tables(self, length, device):
        angles = torch.outer(torch.arange(length).float(), torch.tensor(self.frequencies)).repeat(1, 2)
        return angles.cos().to(device), angles.sin().to(device)


def synchronize(device):
    if device == "cuda":
        torch.cuda.synchronize()
    elif device == "mps":
        torch.mps.synchronize()


def measure(call, device, runs, warm_up):
    """Returns the milliseconds of each run."""
    for _ in range(warm_up):
        call()
    synchronize(device)
    times = []
    for _ in range(runs):
        started = time.perf_counter()
        call()
        synchronize(device)
        times.append((time.perf_counter() - started) * 1e3)
    return times


def parts(model, ids, targets, tables):
    def loss():
        logits = model(ids, *tables)
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())

    @torch.no_grad()
    def forward():
        model(ids, *tables)

    @torch.no_grad()
    def forward_loss():
        loss()

    def backward():
        model.zero_grad(set_to_none=True)
        loss().backward()

    # The most important one comes first: compiling may exceed the time limit.
    return [("forward + loss + backward", backward), ("forward + loss", forward_loss), ("forward", forward)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="a name, or sizes as c=576,f=1536,l=30,h=9,k=3,d=64,v=49152")
    parser.add_argument("--batch", default="1x128", help="sequences by tokens, one or several")
    parser.add_argument("--lora-r", type=int, default=0, help="rank of a LoRA adapter on frozen weights")
    parser.add_argument("--modes", default="eager,compile")
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--warm-up", type=int, default=3)
    parser.add_argument("--device", help="cuda, mps or cpu [default: the first that is available]")
    args = parser.parse_args()

    found = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    device = args.device or found
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.set_float32_matmul_precision("highest")
    if "=" in args.model:
        given = {key: int(value) for key, value in (part.split("=") for part in args.model.lower().split(","))}
        given.setdefault("k", given["h"])
        given.setdefault("d", given["c"] // given["h"])
        sizes = tuple(given[letter] for letter in "cflhkdv")
    elif args.model in SHAPES:
        sizes = SHAPES[args.model]
    else:
        sys.exit(f"torch_shapes.py: {args.model} is not one of {', '.join(SHAPES)}")
    name = torch.cuda.get_device_name() if device == "cuda" else device
    torch.manual_seed(1)
    weights = f"float32, LoRA of rank {args.lora_r}" if args.lora_r else "float32, all trained"
    with torch.device(device):
        model = Decoder(sizes, args.lora_r)

    for mode in args.modes.split(","):
        torch.compiler.reset()
        timed = torch.compile(model, dynamic=False) if mode == "compile" else model
        for batch in args.batch.split(","):
            s, l = (int(n) for n in batch.lower().split("x"))
            ids = (torch.arange(s * l, device=device) * 37 % sizes[-1]).view(s, l)
            targets = (ids + 1) % sizes[-1]
            for part, call in parts(timed, ids, targets, model.tables(l, device)):
                row = {
                    "suite": f"torch {mode}", "case": f"{part}, {s} x {l}", "model": args.model,
                    "shape": " ".join(f"{letter} {size}" for letter, size in zip("CFLHKDV", sizes)),
                    "weights": weights, "tokens": s * l, "torch": torch.__version__, "device": name,
                }  # fmt: skip
                try:
                    started = time.perf_counter()
                    call()
                    synchronize(device)
                    row["first_ms"] = (time.perf_counter() - started) * 1e3
                    times = measure(call, device, args.runs, args.warm_up)
                    row |= {"runs": len(times), "ms": statistics.median(times), "min_ms": min(times)}
                    row |= {"max_ms": max(times)}
                except Exception as error:  # The other cases may still work.
                    row["skipped"] = f"{type(error).__name__}: {str(error).splitlines()[0][:200] if str(error) else ''}"
                print(json.dumps(row, separators=(",", ":")), flush=True)
                model.zero_grad(set_to_none=True)


if __name__ == "__main__":
    main()
