#!/usr/bin/env python3
"""How time and memory of `magic merge` grow with the number of experts and with the size of the models.

    python3 benches/scaling.py DIR [--series experts,data,sparse] [-n 3] [--quick] [--json OUT.json]

DIR holds the models: a set that is missing is made there with benches/synth.py, one that is there is
only read. Outputs go to DIR for a moment.

Series
  experts   models of 0.1B shapes with data, in DIR/0.1B: base and 1 to 16 experts
  data      base and three experts of 0.1B and 0.5B shapes with data, in DIR/0.1B and DIR/0.5B (`--data-sizes`)
  sparse    base and three experts of 0.1B to 7B shapes without data, in DIR/7B-sparse and so on (`--sizes`)

Rows
  task_arithmetic+wsc, ties   `magic merge RECIPE --out OUT --device cpu --overwrite`, recipes as in
                              benches/merge.py; `+wsc` adds `--calibrate wsc`
  floor                       `cat` of the inputs to nowhere, then `cp` of the base, forced to disk as
                              `magic` forces its output

Sparse files read as zeros. Reading, computing and writing have the same length as with data; of the
kernels of task_arithmetic and WSC one alone decides by values what to do, for rows in which one
expert dwarfs all others. But no input comes from a disk, and
thresholds of ties would have nothing to tell apart, so `sparse` has no row of ties. The sizes that
`data` has as well say whether zeros cost what data costs.

Method. As in benches/merge.py: all rows of all series run one after the other, and the round is
repeated; inputs are read once before each run, unless they are more than half of the memory; the
output is deleted after each run and the disk is left to settle. Moved are the bytes of all inputs and
of the output, each once. Peak RSS is that of the process itself, sampled every 20 ms (VmHWM); on
other systems than Linux it is the kernel's count, in which a child starts with what this process
holds. A run whose output would leave less than `--spare` GB of the disk is left out.

Fits are least squares of a + b * GB through the points of one row. `magic` hashes inputs of up to
1 GB in all, which takes more time than their merge: those points have a mark and are in no fit.

Needs Python 3.9 on a Unix; numpy only to make a set with data. Keep it so, see benches/merge.py.
"""

import argparse
import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from merge import PARAMETERS, Row, base_dtype, clear, data_bytes, executable, first_line, measure, recipe, weight_files

BENCHES = Path(__file__).resolve().parent
WSC = "task_arithmetic+wsc"
ROWS = {"experts": ["floor", WSC, "ties"], "data": ["floor", WSC, "ties"], "sparse": ["floor", WSC]}
FITTED = {"median s": "wall_s", "CPU s": "cpu_s"}
HASHED = 1_000_000_000  # bytes; HASHED in src/job.rs


class Point(Row):
    """One row of a series at one place of it: so many experts, or models of that size."""

    def __init__(self, series, row, at, a, folders):
        super().__init__(f"{series}/{row}/{at}", None, folders)
        self.series, self.row, self.at = series, row, at
        files = [f for folder in folders for f in weight_files(folder)]
        base = weight_files(folders[0])
        self.size = data_bytes(base)
        self.moved = sum(f.stat().st_size for f in files + base)
        self.hashed = row != "floor" and sum(data_bytes(weight_files(f)) for f in folders) <= HASHED
        if self.moved > os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2:
            self.inputs = []  # to read them before would only push out what comes first
        if row == "floor":
            linux = platform.system() == "Linux"
            # without these a file system would copy nothing, or leave the holes out
            cp = "cp --reflink=never --sparse=never" if linux else "cp"
            text = lambda paths: " ".join(shlex.quote(str(p)) for p in paths)
            sync = f"sync {text([a.out])}/*" if linux else "sync"
            shell = f"mkdir -p {text([a.out])} && cat {text(files)} > /dev/null && {cp} {text(base)} {text([a.out])} && {sync}"
            self.command = ["sh", "-c", shell]
        else:
            method, _, calibrate = row.partition("+")
            path = a.work / f"{series}-{row}-{at}.yml"
            path.write_text(recipe(method, folders[0], folders[1:], base_dtype(base), "own"))
            self.command = [a.magic, "merge", str(path), "--out", str(a.out), "--device", "cpu", "--overwrite"]
            self.command += (["--calibrate", calibrate] if calibrate else []) + a.magic_arg


def model_set(a, scale, experts, sparse=False):
    """The folders of a set, made if it is not there."""
    where = a.models / (scale + "-sparse" * sparse)
    if not where.exists():
        command = [sys.executable, str(BENCHES / "synth.py"), str(where), "--scale", scale, "--experts", str(experts)]
        if subprocess.run(command + ["--sparse"] * sparse).returncode:
            shutil.rmtree(where, ignore_errors=True)
            sys.exit(f"{where} could not be made")
    folders = [where.resolve() / name for name in ["base", *(f"expert{k}" for k in range(experts))]]
    lacking = [f.name for f in folders if not f.is_dir()]
    if lacking:
        sys.exit(f"{where} lacks {', '.join(lacking)}; delete it to have it made anew")
    return folders


def make_points(a):
    most = max(a.experts) if "experts" in a.series else 3
    points = []
    for series in a.series:
        if series == "experts":
            folders = model_set(a, "0.1B", most)
            places = [(f"{k}", folders[: 1 + k]) for k in a.experts]
        else:
            sparse = series == "sparse"
            sizes = a.sizes if sparse else a.data_sizes
            places = [(s, model_set(a, s, most if s == "0.1B" and not sparse else 3, sparse)[:4]) for s in sizes]
        points += [Point(series, row, at, a, folders) for at, folders in places for row in ROWS[series]]
    return points


def fit(xs, ys):
    """Least squares of a + b x; the largest deviation, as a part of what was measured, and where it is."""
    mx, my = sum(xs) / len(xs), sum(ys) / len(ys)
    b = sum((x - mx) * (y - my) for x, y in zip(xs, ys)) / sum((x - mx) ** 2 for x in xs)
    a = my - b * mx
    worst = max(range(len(xs)), key=lambda i: abs(ys[i] - a - b * xs[i]))
    return a, b, ys[worst] - a - b * xs[worst], worst


def tables(points, series):
    own = [p for p in points if p.series == series]
    unit = "experts" if series == "experts" else "size"
    lines = [
        f"| row | {unit} | GB moved | median s | min s | s per GB | CPU s | CPU s per GB | peak RSS MB | load before |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    fits = ["| row | figure | a, s | b, s per GB | largest deviation, s | of the measured | at |", "|---|---|--:|--:|--:|--:|--:|"]
    for row in ROWS[series]:
        done = [p for p in own if p.row == row and p.runs]
        for p in done:
            gb, wall, cpu = p.moved / 1e9, p.get("wall_s"), p.get("cpu_s")
            rss = max(r["peak_own"] or r["peak_rss"] for r in p.runs) / 1e6
            load = f"{p.get('load_before', min):.1f} to {p.get('load_before', max):.1f}"
            lines.append(
                f"| {row} | {p.at}{' ¹' * p.hashed} | {gb:.2f} | {wall:.2f} | {p.get('wall_s', min):.2f} | {wall / gb:.2f} "
                f"| {cpu:.2f} | {cpu / gb:.2f} | {rss:.0f} | {load} |"
            )
        for figure, key in FITTED.items():
            fitted = [p for p in done if not p.hashed]
            if len(fitted) < 3:  # two points are on a line whatever they are
                continue
            ys = [p.get(key) for p in fitted]
            a, b, off, worst = fit([p.moved / 1e9 for p in fitted], ys)
            fits.append(f"| {row} | {figure} | {a:.3f} | {b:.3f} | {off:+.2f} | {off / ys[worst]:+.0%} | {fitted[worst].at} |")
    if any(p.hashed and p.runs for p in own):
        lines += ["", "¹ Inputs of at most 1 GB, which are hashed; in no fit."]
    return "\n".join(lines + ([""] + fits if len(fits) > 2 else []))


def main():
    names = lambda text: [n.strip() for n in text.split(",") if n.strip()]
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0], epilog="See the head of this file for the method.")
    p.add_argument("models", type=Path, metavar="DIR", help="folder for the sets")
    p.add_argument("--magic", default=str(BENCHES.parent / "target/release/magic"), metavar="PATH")
    p.add_argument("--series", type=names, default=list(ROWS), metavar="NAME,...", help="experts, data, sparse; all by default")
    p.add_argument("--experts", type=names, default=["1", "2", "4", "6", "8", "12", "16"], metavar="K,...")
    p.add_argument("--sizes", type=names, default=["0.1B", "0.5B", "1.5B", "3B", "7B"], metavar="SIZE,...", help="of sparse")
    p.add_argument("--data-sizes", type=names, default=["0.1B", "0.5B"], metavar="SIZE,...", help="of data")
    p.add_argument("-n", "--repeat", type=int, default=3, metavar="N", help="repetitions (default %(default)s)")
    p.add_argument("--spare", type=float, default=15, metavar="GB", help="disk that stays free (default %(default)s)")
    p.add_argument("--magic-arg", action="append", default=[], metavar="ARG", help="one more argument; repeatable, --magic-arg=--threads=2")
    p.add_argument("--json", type=Path, metavar="OUT", help="write every single run there")
    p.add_argument("--quick", action="store_true", help="one round of 1, 4 and 6 experts and of sizes up to 0.5B, 0.1B with data")
    a = p.parse_args()
    if a.quick:
        a.experts, a.sizes, a.data_sizes, a.repeat = ["1", "4", "6"], ["0.1B", "0.5B"], ["0.1B"], 1
    a.experts = [int(k) for k in a.experts]
    if not set(a.series) <= set(ROWS):
        p.error(f"--series takes {', '.join(ROWS)}")

    a.magic = executable(a.magic)
    a.models = a.models.resolve()
    a.work = a.models / ".bench-scaling"  # a folder of our own, since it is deleted at the end
    a.work.mkdir(parents=True, exist_ok=True)
    a.out = a.work / "out"
    points = make_points(a)
    try:
        for rep in range(a.repeat):
            for point in points:
                if point.error:
                    continue
                if shutil.disk_usage(a.work).free - point.size < a.spare * 1e9:
                    print(f"{point.name} left out: its output would leave less than {a.spare} GB of disk", file=sys.stderr)
                    continue
                m, status = measure(point, a, point.size)
                note = "" if status == 0 else f"  FAILED {point.error}"
                print(
                    f"{rep + 1}/{a.repeat} {point.name:32} {m['wall_s']:8.2f} s  cpu {m['cpu_s']:7.2f} s  "
                    f"rss {(m['peak_own'] or m['peak_rss']) / 1e6:6.0f} MB  load {m['load_before']:.1f}{note}",
                    file=sys.stderr,
                )
    except KeyboardInterrupt:
        print("interrupted; the tables hold what was done", file=sys.stderr)
    finally:
        clear(a.out)
    shutil.rmtree(a.work)

    print(f"{first_line([a.magic, '--version'])}, parameters {PARAMETERS['ties']} (task_arithmetic: weight alone), repetitions {a.repeat}")
    for series in a.series:
        print(f"\n{series}\n\n{tables(points, series)}")
    for point in points:
        if point.error:
            print(f"\n{point.name} failed. {point.error}")
    if a.json:
        rows = [
            {"series": q.series, "row": q.row, "at": q.at, "moved": q.moved, "command": q.command, "error": q.error, "runs": q.runs}
            for q in points
        ]
        a.json.write_text(json.dumps({"schema": "magic-bench-scaling/1", "rows": rows}, indent=1) + "\n")
    sys.exit(1 if any(q.error for q in points) else 0)


if __name__ == "__main__":
    main()
