#!/usr/bin/env python3
"""Trains a model of the small world with PyTorch and transformers, if there is no GPU for `make models`.

Uses the same rows in the same order, shapes, initial weights, loss, optimiser and schedule as `oaif sft` in scripts/models.sh:

    scripts/models.py world/judge-small world/likelihood.jsonl world/runs/judge-small --steps 2000 --learning-rate 3e-3

The rows and the initial weights are written by `cargo run --release --example small_world`.
"""

import argparse
import json
import math
import time
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import LlamaForCausalLM


def save(weights, source, folder, dtype):
    """Writes the weights and the other files of a model folder."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    kept = {name: w.detach().to(dtype).contiguous() for name, w in weights.items() if name != "lm_head.weight"}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((Path(source) / "config.json").read_text())
    config["torch_dtype"] = str(dtype).removeprefix("torch.")
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    for name in ["tokenizer.json", "tokenizer_config.json"]:
        (folder / name).write_text((Path(source) / name).read_text())


def read_rows(path, vocab, limit):
    """(ids, length of the prompt) of each row: BOS, prompt, completion, EOS."""
    rows = []
    with open(path) as lines:
        for line, _ in zip(lines, range(limit)):
            row = json.loads(line)
            prompt = [1] + [vocab[word] for word in row["prompt"].split()]
            rows.append((prompt + [vocab[word] for word in row["completion"].split()] + [2], len(prompt)))
    return rows


def train(args):
    torch.set_num_threads(1)
    vocab = json.loads((Path(args.model) / "tokenizer.json").read_text())["model"]["vocab"]
    rows = read_rows(args.rows, vocab, args.steps * args.batch_size)
    model = LlamaForCausalLM.from_pretrained(args.model, dtype=torch.float32)
    # As the defaults of `oaif sft`: AdamW without weight decay, gradients clipped to 1.
    optimiser = torch.optim.AdamW(model.parameters(), lr=args.learning_rate, weight_decay=0.0)
    total, warmup = args.steps, 100

    def factor(step):
        if step < warmup:
            return step / warmup
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, factor)
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    began, cpu, tokens = time.time(), time.process_time(), 0
    with open(out / "metrics.jsonl", "w") as metrics:
        for step in range(args.steps):
            batch = [rows[(step * args.batch_size + i) % len(rows)] for i in range(args.batch_size)]
            longest = max(len(ids) for ids, _ in batch)
            # Attention is causal: padding on the right has no effect on the tokens before it.
            ids = torch.tensor([ids + [0] * (longest - len(ids)) for ids, _ in batch])
            labels = torch.tensor([[-100] * n + ids[n:] + [-100] * (longest - len(ids)) for ids, n in batch])
            logits = model(input_ids=ids).logits[:, :-1]
            loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten())
            optimiser.zero_grad()
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            schedule.step()
            tokens += sum(len(ids) for ids, _ in batch)
            line = {"step": step + 1, "loss": loss.item(), "grad_norm": norm.item(), "tokens": tokens,
                    "wall_s": round(time.time() - began, 2), "cpu_s": round(time.process_time() - cpu, 2)}
            metrics.write(json.dumps(line) + "\n")
            if (step + 1) % 50 == 0:
                metrics.flush()
                print(json.dumps(line), flush=True)
            if args.save_steps and (step + 1) % args.save_steps == 0:
                save(model.state_dict(), args.model, out / "model", torch.float16)
    save(model.state_dict(), args.model, out / "model", torch.float16)


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("model", help="folder with config.json, tokenizer.json and model.safetensors")
parser.add_argument("rows", help="JSON lines of prompt and completion")
parser.add_argument("out", help="where metrics.jsonl and model/ are written")
parser.add_argument("--steps", type=int, required=True)
parser.add_argument("--learning-rate", type=float, required=True)
parser.add_argument("--batch-size", type=int, default=64)
parser.add_argument("--save-steps", type=int, default=250)
if __name__ == "__main__":
    train(parser.parse_args())
