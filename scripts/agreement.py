#!/usr/bin/env python3
"""Prints the agreement of the judges' verdicts with the oracle: scripts/agreement.py world/pairs.jsonl world/verdicts

Utilities are integers (numbers of facts). Pairs of equal utility are left out; a tie or an invalid verdict counts as half
right.
"""

import json
import sys
from collections import defaultdict
from pathlib import Path

INSTRUCTIONS = ["accurate", "accurate and short", "accurate and very short", "accurate and cheerful"]


def lines(path):
    return [json.loads(line) for line in open(path)]


def right(p, gap):
    return 0.5 if p is None or p == 0.5 else float((p > 0.5) == (gap > 0))


def percent(values):
    return f"{100 * sum(values) / len(values):5.1f} %" if values else "      -"


pairs, folder = lines(sys.argv[1]), Path(sys.argv[2])
print("| judge | utilities differ by 1 or more | by 2 or more | " + " | ".join(INSTRUCTIONS) + " | one order | flips |")
print("|---" * (len(INSTRUCTIONS) + 5) + "|")
for name in sorted({path.name.split(".")[0] for path in folder.glob("*.jsonl")}):
    found = defaultdict(list)
    for i, instruction in enumerate(INSTRUCTIONS):
        for pair, verdict in zip(pairs, lines(folder / f"{name}.{instruction.replace(' ', '-')}.jsonl"), strict=True):
            gap = pair["utilities"][0][i] - pair["utilities"][1][i]
            p_12, p_21 = verdict["p_12"], verdict["p_21"]
            if p_12 is not None and p_21 is not None:
                found["flips"].append((p_12 > 0.5) != (p_21 > 0.5))
            if gap == 0:
                continue
            ok = right(verdict["p_first"], gap)
            found["all"].append(ok)
            if p_12 is not None:
                found["one order"].append(right(p_12, gap))
            found[instruction].append(ok)
            if abs(gap) >= 2:
                found["by 2"].append(ok)
    columns = ["all", "by 2", *INSTRUCTIONS, "one order", "flips"]
    print(f"| {name} | " + " | ".join(percent(found[column]) for column in columns) + " |")
