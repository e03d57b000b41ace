#!/usr/bin/env python3
"""Time calibration in feature space: `magic merge --calibrate fsc`, and the same pass in PyTorch.

    python3 benches/features.py [--scale 0.5B] [-n 2] [--device cpu] [--work FOLDER] [--json OUT.json]

Makes a base and three experts with the shapes of Qwen2 (benches/synth.py) and, for each expert, ten
samples of 128 random tokens. Then, in turn and `-n` times:

  magic    the whole process: merge, measure, fold, write. `-v` lets it log where its time went.
  pytorch  a script of ours, below (`--torch`): transformers' own modules in float32, merged = mean of
           the experts; the merged model runs on each expert's samples with a forward hook at every
           leaf (Linear, Embedding, RMSNorm) that evaluates the leaf of the base and of the expert on
           the same input; then it folds and saves in bfloat16. Its measuring pass is timed by itself.

Both run on as many threads as the process may use cores. The factors of both are compared at the end.
Needs numpy for the set, torch, transformers and safetensors for the rival.
"""

import argparse
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
EXPERTS, SAMPLES, LENGTH = 3, 10, 128
REAL_TOKENS = 151_665  # of synth.py: later rows of the embedding are the same in all models


def samples(path, seed, np):
    """Random tokens that fine-tuning has changed, as `input_ids` [N, L], I64."""
    ids = np.random.Generator(np.random.PCG64(seed)).integers(0, REAL_TOKENS, (SAMPLES, LENGTH), dtype=np.int64)
    entry = {"dtype": "I64", "shape": list(ids.shape), "data_offsets": [0, ids.nbytes]}
    head = json.dumps({"input_ids": entry}).encode()
    head += b" " * (-len(head) % 8)
    path.write_bytes(struct.pack("<Q", len(head)) + head + ids.tobytes())


def timed(command, env=None):
    """Runs a command: wall and CPU seconds, peak resident MB, and what it printed."""
    with tempfile.TemporaryFile("w+") as output:
        start = time.monotonic()
        child = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=env)
        _, status, usage = os.wait4(child.pid, 0)
        wall = time.monotonic() - start
        child.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        text = output.read()
    if child.returncode != 0:
        sys.exit(f"exit {child.returncode}: {' '.join(map(str, command))}\n{text[-3000:]}")
    unit = 1 if sys.platform == "darwin" else 1024
    return {"wall": wall, "cpu": usage.ru_utime + usage.ru_stime, "rss": usage.ru_maxrss * unit / 1e6}, text


# ------------------------------------------------------------------------------------------------
# The rival


def pytorch(work, dtype):
    """The pass in PyTorch; prints its own times and factors as JSON."""
    start = time.monotonic()
    import torch
    from safetensors.torch import load_file
    from transformers import AutoModel

    dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16}[dtype]
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.set_grad_enabled(False)
    times = {"import": time.monotonic() - start}

    def load(name):
        # Without the output head, which shares its weights with the embedding and is not measured.
        return AutoModel.from_pretrained(work / "set" / name, dtype=dtype).eval()

    def leaves(model):
        return {name: module for name, module in model.named_modules() if not list(module.children())}

    begin = time.monotonic()
    base, merged = load("base"), load("base")
    experts = [load(f"expert{k}") for k in range(EXPERTS)]
    for name, parameter in merged.named_parameters():
        parameter.copy_(torch.stack([dict(e.named_parameters())[name].float() for e in experts]).mean(0))
    times["load and merge"] = time.monotonic() - begin

    begin = time.monotonic()
    of_base, of_merged = leaves(base), leaves(merged)
    ratios = {}
    for k, expert in enumerate(experts):
        of_expert, handles = leaves(expert), []

        def hook(name):
            own, other = of_base[name], of_expert[name]

            def measure(_, inputs, output):
                f_0 = own(*inputs)
                a = (other(*inputs) - f_0).abs().sum(-1, dtype=torch.float32)
                c = (output - f_0).abs().sum(-1, dtype=torch.float32)
                ratios.setdefault(name, []).append((a / c).mean().item())

            return measure

        for name, module in of_merged.items():
            if list(module.parameters(recurse=False)):
                handles.append(module.register_forward_hook(hook(name)))
        ids = load_file(work / f"data{k}.safetensors")["input_ids"]
        merged(input_ids=ids, use_cache=False)
        for handle in handles:
            handle.remove()
    times["pass"] = time.monotonic() - begin

    begin = time.monotonic()
    xi = {name: sum(of) / len(of) for name, of in ratios.items()}
    for name, factor in xi.items():
        for own, out in zip(of_base[name].parameters(), of_merged[name].parameters()):
            out.copy_(own + factor * (out - own))
    merged.to(torch.bfloat16).save_pretrained(work / "torch-out")
    times["fold and save"] = time.monotonic() - begin
    print("RESULT " + json.dumps({"times": times, "xi": xi, "torch": torch.__version__}))


# ------------------------------------------------------------------------------------------------


def report(name, runs):
    print(f"\n{name}")
    for key, unit in (("wall", "s"), ("cpu", "s"), ("rss", "MB")):
        values = sorted(run[key] for run in runs)
        print(f"  {key:5} best {values[0]:.1f}, worst {values[-1]:.1f} {unit}")


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0], epilog="See the head of this file for the details.")
    p.add_argument("--scale", default="0.5B")
    p.add_argument("-n", type=int, default=2, help="rounds (default %(default)s)")
    p.add_argument("--work", type=Path, help="folder for the set and the outputs, kept; a temporary one if not given")
    p.add_argument("--magic", type=Path, default=HERE.parent / "target/release/magic")
    p.add_argument("--device", default="cpu", help="of magic (default %(default)s)")
    p.add_argument("--fast-gemm", action="store_true", help="products by the GPU's matrix units")
    p.add_argument("--calibrate", default="fsc", choices=["fsc", "dsc"])
    p.add_argument("--skip-torch", action="store_true")
    p.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"], help="of the rival")
    p.add_argument("--json", type=Path)
    p.add_argument("--torch", type=Path, metavar="WORK", help=argparse.SUPPRESS)
    a = p.parse_args()
    if a.torch:
        return pytorch(a.torch, a.dtype)

    import numpy as np

    kept = a.work is not None
    work = a.work or Path(tempfile.mkdtemp(prefix="magic-features-"))
    try:
        if not (work / "set/base/model.safetensors").exists():
            synth = [sys.executable, HERE / "synth.py", work / "set", "--scale", a.scale, "--experts", EXPERTS]
            subprocess.run([str(x) for x in synth], check=True)
        for k in range(EXPERTS):
            samples(work / f"data{k}.safetensors", k, np)
        command = [a.magic, "merge", "--base", work / "set/base", "--method", "linear", "--device", a.device, "-v"]
        command += ["--calibrate", a.calibrate, "--out", work / "magic-out", "--overwrite"]
        command += ["--fast-gemm"] if a.fast_gemm else []
        for k in range(EXPERTS):
            command += ["--model", work / f"set/expert{k}", "--data", work / f"data{k}.safetensors"]
        ours, rival, spent, passes, theirs = [], [], [], [], {}
        for _ in range(a.n):
            for file in work.glob("set/*/*.safetensors"):  # into the page cache
                subprocess.run(["cat", str(file)], stdout=subprocess.DEVNULL, check=True)
            run, text = timed([str(x) for x in command])
            ours.append(run)
            spent.append({m[1]: float(m[2]) for m in re.finditer(r"CPU time of `(\w+)`: ([\d.]+) s", text)})
            measured = re.search(r"pass: ([\d.]+) s", text)
            run["pass"] = float(measured[1]) if measured else None
            print(f"magic    {run}", flush=True)
            if not a.skip_torch:
                script = [sys.executable, __file__, "--torch", str(work), "--dtype", a.dtype]
                run, text = timed(script)
                result = json.loads(re.search(r"RESULT (.*)", text)[1])
                theirs = result["xi"]
                rival.append(run)
                passes.append(result["times"])
                print(f"pytorch  {run} {result['times']}", flush=True)
        report(f"magic, whole process ({a.calibrate})", ours)
        if all(run["pass"] for run in ours):
            print(f"  pass  best {min(r['pass'] for r in ours):.1f}, worst {max(r['pass'] for r in ours):.1f} s (merging, folding and writing included)")
        best = min(range(a.n), key=lambda i: ours[i]["wall"])
        total = sum(spent[best].values())
        if total:
            products = sum(s for name, s in spent[best].items() if name.startswith("matmul"))
            print(f"  products: {products:.1f} of {total:.1f} s in kernels, {products / ours[best]['wall']:.0%} of the wall time")
            for name, seconds in sorted(spent[best].items(), key=lambda x: -x[1])[:10]:
                print(f"    {name:14} {seconds:7.2f} s")
        if rival:
            report(f"pytorch, whole process ({a.dtype})", rival)
            for key in passes[0]:
                print(f"  {key}: best {min(p[key] for p in passes):.1f}, worst {max(p[key] for p in passes):.1f} s")
        if theirs and a.calibrate == "fsc":
            document = json.loads((work / "magic-out/magic.json").read_text())
            found = {leaf["leaf"].removeprefix("model."): leaf["xi"] for leaf in document["features"]["leaves"]}
            off = max(abs(found[name] / xi - 1) for name, xi in theirs.items())
            print(f"\n{len(found)} factors against {len(theirs)}: off by {off:.1e} at most")
        if a.json:
            a.json.write_text(json.dumps({"magic": ours, "spent": spent, "pytorch": rival, "passes": passes}, indent=1))
    finally:
        if not kept:
            shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
