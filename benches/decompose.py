#!/usr/bin/env python3
"""Time merges that take matrices apart against `torch.linalg.svd`, on the same threads, in turn.

    cargo bench --bench decompose --no-run       # prints the path of the bench
    python3 benches/decompose.py PATH [-n 5] [--rules iso_c,tsv_m]

The rival is the reference's own arithmetic in float32: one SVD of the sum for iso_c, one for each expert and two for the
polar factors for tsv_m, both together for iso_cts. Task vectors are in memory on both sides, `PATH` is a new process each
time and prints what it measured itself after a warm-up. Errors are relative to a float64 SVD in numpy.
Matrices: `gauss`, independent normal numbers; `falling`, singular values that fall from 1 to 0.02 for each expert, with a
shared part. Needs numpy and torch.
"""

import argparse
import os
import subprocess
import tempfile
import time
from pathlib import Path

# Threads that spin while they wait are what makes PyTorch slow where cores are shared.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("KMP_BLOCKTIME", "0")

import numpy as np
import torch

EXPERTS = 8


def gauss(m, n, rng):
    return [rng.standard_normal((m, n), dtype=np.float32) for _ in range(EXPERTS)]


def falling(m, n, rng):
    r = min(m, n)
    sigma = 0.02 + 0.98 * np.exp(-np.arange(r) / (r / 10))

    def one():
        u, v = (np.linalg.qr(rng.standard_normal((size, r)))[0] for size in (m, n))
        return u * sigma @ v.T

    shared = one()
    return [(0.5 * shared + one()).astype(np.float32) for _ in range(EXPERTS)]


def polar(x, svd):
    u, _, v = svd(x)
    return u @ v


def iso_c(taus, svd, cat):
    total = sum(taus)
    u, s, v = svd(total)
    return s.mean() * (u @ v)


def tsv_m(taus, svd, cat):
    r = min(taus[0].shape) // len(taus)
    parts = [svd(tau) for tau in taus]
    u, v = cat([p[0][:, :r] for p in parts], 1), cat([p[2][:r] for p in parts], 0)
    return (polar(u, svd) * cat([p[1][:r] for p in parts], 0)) @ polar(v, svd)


def iso_cts(taus, svd, cat):
    k, count = min(taus[0].shape), len(taus)
    common = int(0.8 * k)
    common = k - count * round((k - common) / count)
    own = (k - common) // count
    u, s, v = (part[..., :common] if i < 2 else part[:common] for i, part in enumerate(svd(sum(taus))))
    parts = [svd(tau - u @ (u.T @ tau)) for tau in taus]
    all_u = cat([p[0][:, :own] for p in parts] + [u], 1)
    all_s = cat([p[1][:own] for p in parts] + [s], 0)
    all_v = cat([p[2][:own] for p in parts] + [v], 0)
    return all_s.mean() * (polar(all_u, svd) @ polar(all_v, svd))


RULES = {"iso_c": iso_c, "iso_cts": iso_cts, "tsv_m": tsv_m}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bench", type=Path)
    parser.add_argument("-n", type=int, default=5)
    parser.add_argument("--rules", default=",".join(RULES))
    parser.add_argument("--kinds", default="gauss,falling")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    env = {**os.environ, "RAYON_NUM_THREADS": str(args.threads)}
    thin = lambda x: np.linalg.svd(x, full_matrices=False)
    torch_thin = lambda x: torch.linalg.svd(x, full_matrices=False)
    print("| rule | eight of | matrices | magic ms, best to worst | torch ms, best to worst | torch ÷ magic: best by best, "
          "median of pairs | error of magic | of torch |\n|---|---|---|--:|--:|--:|--:|--:|")
    with tempfile.TemporaryDirectory() as folder:
        taus_file, out_file = Path(folder, "taus"), Path(folder, "out")
        for kind in args.kinds.split(","):
            for shape in [(1024, 1024), (768, 3072)]:
                taus = {"gauss": gauss, "falling": falling}[kind](*shape, np.random.default_rng(0))
                np.concatenate([tau.ravel() for tau in taus]).tofile(taus_file)
                tensors = [torch.from_numpy(tau) for tau in taus]
                for rule in args.rules.split(","):
                    exact = RULES[rule]([tau.astype(np.float64) for tau in taus], thin, np.concatenate)
                    ours, theirs = [], []
                    command = [args.bench, "--file", taus_file, "--shape", f"{shape[0]}x{shape[1]}", "--rule", rule]
                    command += ["--out", out_file, "--warm"]
                    RULES[rule](tensors, torch_thin, torch.cat)  # warm
                    for _ in range(args.n):
                        ours.append(float(subprocess.run(command, env=env, check=True, stdout=subprocess.PIPE).stdout))
                        start = time.perf_counter()
                        found = RULES[rule](tensors, torch_thin, torch.cat)
                        theirs.append(time.perf_counter() - start)
                    mine = np.fromfile(out_file, dtype=np.float32).reshape(shape)
                    off = [np.linalg.norm(x - exact) / np.linalg.norm(exact) for x in (mine, found.numpy())]
                    ms = ["{:.0f} to {:.0f}".format(1e3 * min(t), 1e3 * max(t)) for t in (ours, theirs)]
                    pairs = sorted(b / a for a, b in zip(ours, theirs))
                    ratio = f"{min(theirs) / min(ours):.2f}, {pairs[len(pairs) // 2]:.2f}"
                    print(f"| {rule} | {shape[0]} × {shape[1]} | {kind} | {ms[0]} | {ms[1]} | {ratio} | {off[0]:.1e} | "
                          f"{off[1]:.1e} |", flush=True)


if __name__ == "__main__":
    main()
