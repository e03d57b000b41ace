#!/usr/bin/env python3
"""Time whole merges, as a user runs them: `magic`, mergekit, and the floor under both.

    python3 benches/synth.py MODELS
    python3 benches/merge.py MODELS --mergekit path/to/mergekit-yaml [--json OUT.json]

MODELS holds `base` and `expert*` folders; every expert in it takes part. `--list` shows the rows,
`--only 'magic/ties*,floor'` picks some of them.

Rows
  floor          `cat` of all inputs to nowhere, then `cp` of one file of the output's size: what
                 reading and writing alone cost, with nothing computed
  floor+sync     the same, and the copy forced to disk; `magic` forces its output, mergekit does not
  floor/slerp    the floor of a merge of two models (and floor/slerp+sync)
  mergekit/...   `mergekit-yaml RECIPE OUT` with its own defaults, on the CPU
  mergekit@cuda/...  the same with its `--cuda`, where `--cuda` asks for it
  mergekit/start the part of each mergekit row that is Python and its imports (`--help`)
  magic/...      `magic merge RECIPE --out OUT --device cpu --overwrite`; `+wsc` adds `--calibrate wsc`
  magic@gpu/...  the same with `--device gpu`, where `--device cpu,gpu` asks for it; held against
                 mergekit@cuda where that is run

Method. Both tools read the same recipe file. All rows run together, one after the other, and
the whole round is repeated (A B C A B C), so that a slow minute of the machine hits every row. The
inputs are read once before each run, so the page cache is warm; the output is deleted after each
run and the disk is left to settle, outside the clock. Wall time is from start to exit of the
process. CPU time and peak resident memory are the kernel's own count for the child (wait4). Pages
of a memory-mapped input count as resident, so on Linux a second figure, sampled every 20 ms, gives
the memory that the process really allocated.

What is computed. With `--arithmetic own` (default) the recipe says `dtype: bfloat16` (the dtype of
the base): mergekit then computes in bfloat16, while `magic` always computes in float32 and rounds
once. With `--arithmetic float32` the recipe says `dtype: float32, out_dtype: bfloat16`, and both do
the same arithmetic.

Needs Python 3.9 on a Unix; no package. Keep it so: a child starts as a copy of this process, and
what that held would show as a lower bound of the child's peak memory.
"""

import argparse
import fnmatch
import json
import os
import platform
import re
import shlex
import shutil
import statistics
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

METHODS = ["task_arithmetic", "ties", "dare_ties", "slerp"]
MAGIC_ROWS = ["task_arithmetic", "task_arithmetic+wsc", "ties", "ties+wsc", "dare_ties", "slerp"]
PARAMETERS = {  # of each model
    "task_arithmetic": "{weight: 0.4}",
    "ties": "{weight: 0.4, density: 0.5}",
    "dare_ties": "{weight: 0.4, density: 0.5}",
}


class Row:
    """One line of the table: a command that makes `out`, and which floor and rival it is held against."""

    def __init__(self, name, command, inputs, rival=None, has_output=True):
        self.name, self.command, self.inputs = name, command, inputs
        self.rival, self.has_output = rival, has_output
        self.floor = "floor" if len(inputs) > 2 or not has_output else "floor/slerp"
        self.runs, self.error = [], None

    def get(self, key, how=statistics.median):
        values = [r[key] for r in self.runs if r[key] is not None]
        return how(values) if values else None


def weight_files(folder):
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        sys.exit(f"{folder} holds no .safetensors file; make a set with benches/synth.py")
    return files


def data_bytes(files):
    """Bytes of tensor data, read from the headers."""
    total = 0
    for path in files:
        with open(path, "rb") as f:
            entries = json.loads(f.read(struct.unpack("<Q", f.read(8))[0]))
        total += max(e["data_offsets"][1] for k, e in entries.items() if k != "__metadata__")
    return total


def base_dtype(files):
    with open(files[0], "rb") as f:
        entries = json.loads(f.read(struct.unpack("<Q", f.read(8))[0]))
    code = next(e["dtype"] for k, e in entries.items() if k != "__metadata__")
    return {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}[code]


def recipe(method, base, experts, dtype, arithmetic):
    text = [f"merge_method: {method}", f"base_model: {json.dumps(str(base))}", "models:"]
    if method == "slerp":
        text += [f"- model: {json.dumps(str(m))}" for m in (base, experts[0])]
        text += ["parameters: {t: 0.5}"]
    else:
        for m in experts:
            text += [f"- model: {json.dumps(str(m))}", f"  parameters: {PARAMETERS[method]}"]
    if arithmetic == "float32" and dtype != "float32":
        text += ["dtype: float32", f"out_dtype: {dtype}"]
    else:
        text += [f"dtype: {dtype}"]
    return "\n".join(text) + "\n"


def make_rows(a, base, experts):
    folders = [base, *experts]
    rows = []
    for suffix, models in (("", folders), ("/slerp", folders[:2])):
        inputs = [f for m in models for f in weight_files(m)]
        read = "cat " + " ".join(shlex.quote(str(f)) for f in inputs) + " > /dev/null"
        # without this a copy-on-write file system would copy nothing
        cp = "cp --reflink=never" if platform.system() == "Linux" else "cp"
        copy = " ".join([cp, *(shlex.quote(str(f)) for f in weight_files(base)), shlex.quote(str(a.out))])
        shell = f"mkdir -p {shlex.quote(str(a.out))} && {read} && {copy}"
        rows.append(Row("floor" + suffix, ["sh", "-c", shell], models))
        if platform.system() == "Linux":  # sync takes file names there
            rows.append(Row(f"floor{suffix}+sync", ["sh", "-c", f"{shell} && sync {shlex.quote(str(a.out))}/*"], models))

    recipes = {}
    for method in METHODS:
        recipes[method] = a.work / f"{method}.yml"
        recipes[method].write_text(recipe(method, base, experts, base_dtype(weight_files(base)), a.arithmetic))

    used = lambda method: folders[:2] if method == "slerp" else folders
    if not a.skip_mergekit:
        rows.append(Row("mergekit/start", [a.mergekit, "--help"], folders, has_output=False))
        for method in METHODS:
            command = [a.mergekit, str(recipes[method]), str(a.out), *a.mergekit_arg]
            rows.append(Row(f"mergekit/{method}", command, used(method)))
            if a.cuda:
                rows.append(Row(f"mergekit@cuda/{method}", [*command, "--cuda"], used(method)))
    if not a.skip_magic:
        for place, device in enumerate(a.device.split(",")):
            tool = f"magic@{device}" if place else "magic"
            rival = "mergekit@cuda" if place and a.cuda else "mergekit"
            for name in MAGIC_ROWS:
                method, _, calibrate = name.partition("+")
                command = [a.magic, "merge", str(recipes[method]), "--out", str(a.out), "--device", device, "--overwrite"]
                command += (["--calibrate", calibrate] if calibrate else []) + a.magic_arg
                rows.append(Row(f"{tool}/{name}", command, used(method), rival=f"{rival}/{method}"))
    if a.only:
        want = [p.strip() for p in a.only.split(",")]
        rows = [r for r in rows if any(fnmatch.fnmatch(r.name, p) for p in want)]
        if not rows:
            sys.exit(f"no row matches --only {a.only}; see --list")
    return rows


class AnonymousPeak(threading.Thread):
    """Samples the private memory of a process, and its own peak RSS; Linux only, elsewhere both stay None."""

    def __init__(self, pid):
        super().__init__(daemon=True)
        self.path, self.peak, self.own, self.stop = f"/proc/{pid}/status", None, None, threading.Event()

    def run(self):
        while not self.stop.is_set():
            try:
                with open(self.path) as f:
                    status = f.read()
            except OSError:
                return
            anonymous, own = (re.search(rf"{key}:\s+(\d+) kB", status) for key in ("RssAnon", "VmHWM"))
            if anonymous and own:
                self.peak = max(self.peak or 0, int(anonymous[1]) * 1024)
                self.own = int(own[1]) * 1024
            self.stop.wait(0.02)


def run_once(command, log):
    """Run to the end; the measurements, and the exit status as subprocess would give it."""
    # no row may reach out for anything: all it needs is on disk
    env = dict(os.environ, HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1")
    load = os.getloadavg()[0]
    with open(log, "wb") as sink:
        start = time.perf_counter()
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, env=env)
        sampler = AnonymousPeak(child.pid)
        sampler.start()
        try:
            _, status, usage = os.wait4(child.pid, 0)
        except KeyboardInterrupt:
            child.kill()
            raise
        wall = time.perf_counter() - start
    child.returncode = os.waitstatus_to_exitcode(status)  # reaped here, so Popen must not wait for it
    sampler.stop.set()
    sampler.join()
    scale = 1 if platform.system() == "Darwin" else 1024  # ru_maxrss: bytes there, KiB elsewhere
    measured = {
        "wall_s": wall,
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "peak_rss": usage.ru_maxrss * scale,
        "peak_anonymous": sampler.peak,
        "peak_own": sampler.own,
        "load_before": load,
    }
    return measured, child.returncode


def warm(folders):
    for folder in folders:
        for path in weight_files(folder):
            with open(path, "rb", buffering=0) as f:
                while f.read(1 << 24):
                    pass


def clear(out):
    """Delete an output and let the disk settle, so that no run pays for the one before."""
    shutil.rmtree(out, ignore_errors=True)
    os.sync()


def measure(row, a, expected):
    clear(a.out)
    warm(row.inputs)
    measured, status = run_once(row.command, a.work / "log.txt")
    if status == 0 and row.has_output:
        files = list(a.out.glob("*.safetensors"))
        got = data_bytes(files) if files else 0
        # a tool may add a tied head or drop padding, but not a block of the network
        if not 0.95 <= got / expected <= 1.35:
            status, row.error = -1, f"wrote {got:,} bytes of tensors, expected about {expected:,}"
    elif status != 0:
        text = (a.work / "log.txt").read_text(errors="replace").strip()
        row.error = f"exit {status}: " + " | ".join(text.splitlines()[-3:])[-500:]
    if status == 0:
        row.runs.append(measured)
    clear(a.out)
    return measured, status


def table(rows):
    by_name = {r.name: r for r in rows}

    def number(x, digits=2, unit=1):
        return "" if x is None else f"{x / unit:.{digits}f}"

    def ratio(x, y):
        return "" if not x or not y else f"{x / y:.2f}×"

    lines = [
        "| row | median s | min s | CPU s | peak RSS MB | of it allocated MB | time ÷ floor | speed vs mergekit |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for r in rows:
        if not r.runs:
            lines.append(f"| {r.name} | failed | | | | | | |")
            continue
        wall = r.get("wall_s")
        floor, rival = by_name.get(r.floor), by_name.get(r.rival)
        cells = [
            r.name,
            number(wall),
            number(r.get("wall_s", min)),
            number(r.get("cpu_s")),
            number(r.get("peak_rss", max), 0, 1e6),
            number(r.get("peak_anonymous", max), 0, 1e6),
            ratio(wall, floor and floor.get("wall_s")),
            ratio(rival and rival.get("wall_s"), wall),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def first_line(command):
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        return done.stdout.strip().splitlines()[0] if done.returncode == 0 and done.stdout.strip() else None
    except (OSError, subprocess.TimeoutExpired):
        return None


def about(a, base, experts, size):
    """What a reader must know to judge the numbers."""
    cpu = None
    if platform.system() == "Linux":
        found = re.search(r"model name\s*:\s*(.*)", Path("/proc/cpuinfo").read_text())
        cpu = found and found[1]
    elif platform.system() == "Darwin":
        cpu = first_line(["sysctl", "-n", "machdep.cpu.brand_string"])
    info = {
        "cpu": cpu or platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
        "models": 1 + len(experts),
        "bytes_per_model": size,
        "dtype": base_dtype(weight_files(base)),
        "arithmetic": a.arithmetic,
        "device": a.device,
        "repetitions": a.repeat,
    }
    if not a.skip_magic:
        info["magic"] = first_line([a.magic, "--version"])
    if not a.skip_mergekit:
        python = Path(a.mergekit).parent / "python"
        for package in ("mergekit", "torch"):
            code = f"import importlib.metadata as m; print(m.version('{package}'))"
            info[package] = first_line([str(python), "-c", code])
    return info


def executable(name):
    found = shutil.which(name)
    if not found:
        sys.exit(f"{name} is not there or cannot be run")
    return os.path.abspath(found)


def main():
    root = Path(__file__).resolve().parent.parent
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0], epilog="See the head of this file for the method.")
    p.add_argument("models", type=Path, metavar="MODELS", help="folder with base/ and expert*/, from benches/synth.py")
    p.add_argument("--magic", default=str(root / "target/release/magic"), metavar="PATH")
    p.add_argument("--mergekit", default="mergekit-yaml", metavar="PATH", help="the mergekit-yaml executable")
    p.add_argument("--cuda", action="store_true", help="rows of mergekit with --cuda, too")
    p.add_argument("--device", default="cpu", metavar="NAME", help="--device of magic (default %(default)s); after a comma more of them, whose rows are magic@NAME/...")
    p.add_argument("-n", "--repeat", type=int, default=3, metavar="N", help="repetitions (default %(default)s)")
    p.add_argument("--arithmetic", choices=["own", "float32"], default="own", help="own (default): dtype of the base")
    p.add_argument("--only", metavar="GLOB,...", help="rows to run")
    p.add_argument("--skip-mergekit", action="store_true")
    p.add_argument("--skip-magic", action="store_true")
    p.add_argument("--magic-arg", action="append", default=[], metavar="ARG", help="one more argument; repeatable, --magic-arg=--threads=2")
    p.add_argument("--mergekit-arg", action="append", default=[], metavar="ARG")
    p.add_argument("--work", type=Path, metavar="DIR", help="where outputs go for a moment (default MODELS)")
    p.add_argument("--json", type=Path, metavar="OUT", help="write every single run there")
    p.add_argument("--list", action="store_true", help="show the rows and their commands, run nothing")
    a = p.parse_args()

    # absolute, because relative paths in a recipe mean different things to different tools
    a.models = a.models.resolve()
    base, experts = a.models / "base", sorted(f for f in a.models.glob("expert*") if f.is_dir())
    if not base.is_dir() or not experts:
        sys.exit(f"{a.models} lacks base/ or expert*/; make a set with benches/synth.py")
    if not a.list:
        a.magic = a.magic if a.skip_magic else executable(a.magic)
        a.mergekit = a.mergekit if a.skip_mergekit else executable(a.mergekit)
    # a folder of our own, since it is deleted at the end
    a.work = (a.work or a.models).resolve() / ".bench-merge"
    a.work.mkdir(parents=True, exist_ok=True)
    a.out = a.work / "out"
    rows = make_rows(a, base, experts)
    if a.list:
        for r in rows:
            print(f"{r.name:28} {shlex.join(r.command)}")
        shutil.rmtree(a.work)
        return

    size = data_bytes(weight_files(base))
    info = about(a, base, experts, size)
    try:
        for rep in range(a.repeat):
            for row in rows:
                if row.error:
                    continue
                m, status = measure(row, a, size)
                note = "" if status == 0 else f"  FAILED {row.error}"
                print(
                    f"{rep + 1}/{a.repeat} {row.name:28} {m['wall_s']:8.2f} s  cpu {m['cpu_s']:7.2f} s  "
                    f"rss {m['peak_rss'] / 1e6:6.0f} MB  load {m['load_before']:.1f}{note}",
                    file=sys.stderr,
                )
    except KeyboardInterrupt:
        print("interrupted; the table holds what was done", file=sys.stderr)
    finally:
        clear(a.out)
    shutil.rmtree(a.work)

    print(", ".join(f"{k} {v}" for k, v in info.items()), end="\n\n")
    print(table(rows))
    for r in rows:
        if r.error:
            print(f"\n{r.name} failed. {r.error}")
    if a.json:
        document = {
            "schema": "magic-bench-merge/1",
            "about": info,
            "rows": [
                {
                    "row": r.name,
                    "command": r.command,
                    "median_s": r.get("wall_s"),
                    "min_s": r.get("wall_s", min),
                    "peak_rss": r.get("peak_rss", max),
                    "peak_anonymous": r.get("peak_anonymous", max),
                    "error": r.error,
                    "runs": r.runs,
                }
                for r in rows
            ],
        }
        a.json.write_text(json.dumps(document, indent=1) + "\n")
    sys.exit(1 if any(r.error for r in rows) else 0)


if __name__ == "__main__":
    main()
