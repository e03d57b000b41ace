#!/usr/bin/env python3
"""What merges of 405B and 671B parameters are, as `magic plan` plans them, and how long their bytes take.

    python3 benches/plans.py DIR [--magic target/release/magic] [--device cpu] [--rate 2e9] [--machines 1,8,32]
                             [--json OUT.json]

Makes headers with the shapes of Llama 3.1 405B and of DeepSeek V3 (671B, without the layer that
predicts one more token), both in bfloat16, as base and three experts in shards of 5 GB; files have
their full length and no data, so that they take no disk. DIR is emptied of them afterwards. Then
`magic plan` plans task_arithmetic with WSC, and one shard is made.

Columns
  tensors, read, written, shards   of the plan; read is every input byte once
  plan s, plan MB                  wall time and peak RSS of `magic plan`, and the size of plan.json
  worker MB                        most memory of a worker, host and device, as planned, with the default limits
  largest tensor                   its bytes in the output, and in how many blocks it is merged
  at RATE on N                     (read + written) / RATE on N machines that have RATE bytes/s each, shards going
                                   to whichever machine is free: arithmetic, not a measurement
  one shard s                      `magic work` at shard 1, read as zeros from no disk, written to DIR and synced

Needs Python 3.9 on a Unix, nothing else.
"""

import argparse
import heapq
import json
import os
import shutil
import struct
import subprocess
import sys
import time
from pathlib import Path

SHARD = 5_000_000_000


def llama():
    """Llama 3.1 405B: https://huggingface.co/meta-llama/Llama-3.1-405B, config.json."""
    h, inter, kv, vocab = 16384, 53248, 1024, 128256
    yield "model.embed_tokens.weight", (vocab, h)
    for i in range(126):
        p = f"model.layers.{i}."
        yield p + "input_layernorm.weight", (h,)
        yield p + "post_attention_layernorm.weight", (h,)
        for name, rows in (("q", h), ("k", kv), ("v", kv), ("o", h)):
            yield f"{p}self_attn.{name}_proj.weight", (rows, h)
        yield p + "mlp.gate_proj.weight", (inter, h)
        yield p + "mlp.up_proj.weight", (inter, h)
        yield p + "mlp.down_proj.weight", (h, inter)
    yield "model.norm.weight", (h,)
    yield "lm_head.weight", (vocab, h)


def deepseek():
    """DeepSeek V3: https://huggingface.co/deepseek-ai/DeepSeek-V3, config.json."""
    h, vocab, expert, dense, experts = 7168, 129280, 2048, 18432, 256

    def mlp(p, width):
        yield p + "gate_proj.weight", (width, h)
        yield p + "up_proj.weight", (width, h)
        yield p + "down_proj.weight", (h, width)

    yield "model.embed_tokens.weight", (vocab, h)
    for i in range(61):
        p = f"model.layers.{i}."
        yield p + "input_layernorm.weight", (h,)
        yield p + "post_attention_layernorm.weight", (h,)
        a = p + "self_attn."
        yield a + "q_a_proj.weight", (1536, h)
        yield a + "q_a_layernorm.weight", (1536,)
        yield a + "q_b_proj.weight", (24576, 1536)
        yield a + "kv_a_proj_with_mqa.weight", (576, h)
        yield a + "kv_a_layernorm.weight", (512,)
        yield a + "kv_b_proj.weight", (32768, 512)
        yield a + "o_proj.weight", (h, 16384)
        if i < 3:
            yield from mlp(p + "mlp.", dense)
            continue
        yield p + "mlp.gate.weight", (experts, h)
        yield p + "mlp.gate.e_score_correction_bias", (experts,)
        yield from mlp(p + "mlp.shared_experts.", expert)
        for e in range(experts):
            yield from mlp(f"{p}mlp.experts.{e}.", expert)
    yield "model.norm.weight", (h,)
    yield "lm_head.weight", (vocab, h)


MODELS = {"405B": ("llama", llama), "671B": ("deepseek_v3", deepseek)}


def size(shape):
    count = 2  # bytes of bfloat16
    for d in shape:
        count *= d
    return count


def write(folder, kind, tensors):
    """A folder of headers and holes; returns the number of parameters."""
    shards, at = [[]], 0
    for name, shape in tensors:
        if at and at + size(shape) > SHARD:
            shards.append([])
            at = 0
        shards[-1].append((name, shape))
        at += size(shape)
    folder.mkdir(parents=True)
    places, total = {}, 0
    for i, shard in enumerate(shards):
        file, entries, at = f"model-{i + 1:05}-of-{len(shards):05}.safetensors", {}, 0
        for name, shape in shard:
            entries[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, at + size(shape)]}
            at += size(shape)
            places[name] = file
        text = json.dumps(entries).encode()
        with open(folder / file, "wb") as out:
            out.write(struct.pack("<Q", len(text)) + text)
            out.truncate(8 + len(text) + at)
        total += at
    index = {"metadata": {"total_size": total}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "config.json").write_text(json.dumps({"model_type": kind, "torch_dtype": "bfloat16"}))
    return total // 2


def run(command):
    """Standard output, wall time in s and peak RSS in MB of a command."""
    start = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    out = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(map(str, command))} ended with {process.returncode}")
    scale = 1 if sys.platform == "darwin" else 1024
    return out, time.monotonic() - start, usage.ru_maxrss * scale / 1e6


def makespan(jobs, machines):
    """Seconds until the last of `jobs` is done, each taken by the machine that is free first."""
    free = [0.0] * machines
    for job in sorted(jobs, reverse=True):
        heapq.heapreplace(free, free[0] + job)
    return max(free)


def human(seconds):
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0], epilog="See the head of this file for the details.")
    p.add_argument("dir", type=Path, metavar="DIR")
    p.add_argument("--magic", default="target/release/magic")
    p.add_argument("--device", default="cpu")
    p.add_argument("--rate", type=float, default=2e9, help="bytes/s of a machine's disk (default %(default)g)")
    p.add_argument("--machines", default="1,8,32")
    p.add_argument("--json", type=Path)
    a = p.parse_args()
    machines = [int(n) for n in a.machines.split(",")]
    rows = []
    for scale, (kind, shapes) in MODELS.items():
        root = a.dir / f"plan-{scale}"
        shutil.rmtree(root, ignore_errors=True)
        tensors = list(shapes())
        names = ["base", "expert0", "expert1", "expert2"]
        parameters = [write(root / name, kind, tensors) for name in names][0]
        command = [a.magic, "plan", "--method", "task_arithmetic", "--calibrate", "wsc", "--device", a.device, "--json"]
        command += ["--base", root / "base"] + [word for name in names[1:] for word in ("--model", root / name)]
        said, seconds, peak = run(command + ["--out", root / "out"])
        said = json.loads(said)
        document = root / "out" / "plan.json"
        plan = json.loads(document.read_text())["content"]
        largest = max((t for s in plan["shards"] for t in s["tensors"]), key=lambda t: t["bytes"])
        moved = [(shard["read"] + shard["bytes"]) / a.rate for shard in plan["shards"]]
        _, work, work_peak = run([a.magic, "work", root / "out", "--shard", "1", "--device", a.device, "--quiet"])
        rows.append(
            {
                "model": scale, "parameters": parameters, "tensors": said["tensors"], "read": said["bytes"]["read"],
                "written": said["bytes"]["written"], "shards": said["shards"], "plan_s": seconds, "plan_peak_mb": peak,
                "plan_json_mb": document.stat().st_size / 1e6, "worker_mb": (said["memory"]["host"] + said["memory"]["device"]) / 1e6,
                "largest": largest["name"], "largest_bytes": largest["bytes"], "blocks": said["largest"]["blocks"],
                "shard_bytes": plan["shards"][1]["bytes"], "work_s": work, "work_peak_mb": work_peak,
                "machines": {n: makespan(moved, n) for n in machines},
            }
        )
        shutil.rmtree(root)
    head = ["model", "tensors", "read", "written", "shards", "plan s", "plan MB", "plan.json", "worker MB", "largest tensor"]
    head += [f"at {a.rate / 1e9:g} GB/s on {n}" for n in machines] + ["one shard s (peak MB)"]
    print("| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    for r in rows:
        cells = [
            f"{r['model']} ({r['parameters'] / 1e9:.1f}e9)", f"{r['tensors']:,}", f"{r['read'] / 1e12:.2f} TB",
            f"{r['written'] / 1e12:.2f} TB", r["shards"], f"{r['plan_s']:.2f}", f"{r['plan_peak_mb']:.0f}",
            f"{r['plan_json_mb']:.1f} MB", f"{r['worker_mb']:.0f}",
            f"{r['largest_bytes'] / 1e9:.1f} GB in {r['blocks']:,} blocks",
        ]
        cells += [human(r["machines"][n]) for n in machines] + [f"{r['work_s']:.1f} ({r['work_peak_mb']:.0f})"]
        print("| " + " | ".join(map(str, cells)) + " |")
    if a.json:
        a.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
