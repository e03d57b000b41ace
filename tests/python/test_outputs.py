#!/usr/bin/env python3
"""Check what `magic merge` writes with the tools its readers use: numpy, safetensors, transformers.

    pytest tests/python            or, without pytest,            python3 tests/python/test_outputs.py

Merges the small Llama set in tests/golden/mergekit/models with the built binary and reads the
results back. Needs numpy and safetensors. The tests named *_transformers_* also need torch and
transformers, and say that they were skipped where those are missing.

Environment
  MAGIC_BIN      the binary to check (default target/release/magic)
  MAGIC_MODELS   the folder with base, expert0, expert1, expert2 (default as above)

The expected values here are computed by numpy in float64 from the definitions, not recorded.
"""

import atexit
import functools
import importlib.util
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

try:
    import pytest
except ImportError:
    pytest = None

ROOT = Path(__file__).resolve().parents[2]
MAGIC = Path(os.environ.get("MAGIC_BIN") or ROOT / "target/release/magic").resolve()
MODELS = Path(os.environ.get("MAGIC_MODELS") or ROOT / "tests/golden/mergekit/models").resolve()
BASE, EXPERTS = MODELS / "base", [MODELS / f"expert{k}" for k in range(3)]
SHARD_BYTES = 50_000

# method -> its parameters and the number of models it takes
METHODS = {
    "linear": ([], 3),
    "task_arithmetic": ([], 3),
    "ties": (["density=0.5"], 3),
    "dare_linear": (["density=0.5"], 3),
    "dare_ties": (["density=0.5"], 3),
    "slerp": (["t=0.5"], 1),
    "passthrough": ([], 1),
}
# passthrough leaves no room for a calibration: it has one model, and nothing was lost
CASES = [(m, c) for m in METHODS for c in ("none", "wsc") if (m, c) != ("passthrough", "wsc")]


# ------------------------------------------------------------------------------------------------
# A test is a function test_*; `cases` gives it arguments. Both pytest and main() below understand.


def cases(names, values):
    def mark(test):
        if pytest:
            return pytest.mark.parametrize(names, values)(test)
        test.cases = values
        return test

    return mark


class Skip(Exception):
    pass


def skip(reason):
    if pytest and "PYTEST_CURRENT_TEST" in os.environ:
        pytest.skip(reason)
    raise Skip(reason)


# ------------------------------------------------------------------------------------------------
# Running and reading


@functools.lru_cache(maxsize=None)
def scratch():
    folder = tempfile.mkdtemp(prefix="magic-test-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


@functools.lru_cache(maxsize=None)
def run(base, models, *args):
    """`magic merge` in its quick form; the same merge is made once and shared by all tests."""
    assert MAGIC.is_file(), f"{MAGIC} is not there: build it (cargo build --release) or set MAGIC_BIN"
    assert BASE.is_dir(), f"{BASE} is not there: set MAGIC_MODELS"
    out = Path(tempfile.mkdtemp(dir=scratch())) / "out"
    command = [MAGIC, "merge", "--base", base]
    for m in models:
        command += ["--model", m]
    command += [*args, "--out", out, "--device", "cpu"]
    command = [str(c) for c in command]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"exit {done.returncode}: {' '.join(command)}\n{done.stderr[-2000:]}"
    return out


def merge(method, calibrate="none", *extra):
    """Merge the set with the method's own parameters; the folder."""
    params, models = METHODS[method]
    args = ["--method", method, "--calibrate", calibrate]
    for p in params:
        args += ["--param", p]
    return run(BASE, tuple(EXPERTS[:models]), *args, *extra)


def read(path):
    """A safetensors file read by hand: name -> (dtype code, array), bfloat16 as its 16-bit patterns."""
    data = Path(path).read_bytes()
    (n,) = struct.unpack("<Q", data[:8])
    entries = json.loads(data[8 : 8 + n])
    entries.pop("__metadata__", None)
    kinds = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}
    tensors = {}
    for name, e in entries.items():
        start, end = e["data_offsets"]
        array = np.frombuffer(data[8 + n + start : 8 + n + end], dtype=kinds[e["dtype"]])
        tensors[name] = (e["dtype"], array.reshape(e["shape"]))
    return tensors


def load(folder):
    return load_file(Path(folder) / "model.safetensors")


def wide(folder):
    return {k: v.astype(np.float64) for k, v in load(folder).items()}


def assert_same_layout(got, want):
    """Same names, shapes and dtypes, and every value a number."""
    assert set(got) == set(want), f"missing {set(want) - set(got)}, unexpected {set(got) - set(want)}"
    for name, w in want.items():
        g = got[name]
        assert g.shape == w.shape, f"{name}: {g.shape} instead of {w.shape}"
        assert g.dtype == w.dtype, f"{name}: {g.dtype} instead of {w.dtype}"
        assert np.isfinite(g).all(), f"{name}: NaN or infinity"


def assert_near(got, want, tolerance=1e-6):
    for name, w in want.items():
        worst = np.abs(got[name].astype(np.float64) - w).max()
        assert worst <= tolerance, f"{name}: off by {worst:.2e}, allowed {tolerance:.0e}"


def assert_bits(got, want):
    assert set(got) == set(want)
    for name, w in want.items():
        assert got[name].tobytes() == w.tobytes(), f"{name} differs"


def to_bfloat16(x):
    """Bit patterns, to nearest, ties to even."""
    bits = np.ascontiguousarray(x, dtype=np.float32).view(np.uint32)
    return ((bits + np.uint32(0x7FFF) + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


# ------------------------------------------------------------------------------------------------
# Every method


@cases("method, calibrate", CASES)
def test_layout(method, calibrate):
    out = merge(method, calibrate)
    assert_same_layout(load(out), load(BASE))


@cases("method, calibrate", CASES)
def test_result_is_a_merge(method, calibrate):
    """Some of every kind of tensor moved away from the base: nothing was copied by mistake."""
    got, base = load(merge(method, calibrate)), load(BASE)
    still = [n for n in base if (got[n] == base[n]).all()]
    assert not still, f"equal to the base: {still}"


@cases("method, calibrate", CASES)
def test_folder(method, calibrate):
    """The files a merge leaves behind, and no half-written ones."""
    out = merge(method, calibrate)
    names = {f.name for f in out.iterdir()}
    want = {"model.safetensors", "config.json", "recipe.yml", "magic.json", "README.md"}
    assert want <= names, f"missing {want - names}"
    assert not [n for n in names if n.endswith((".tmp", ".part"))], names
    assert "schema" in json.loads((out / "magic.json").read_text())
    config = json.loads((out / "config.json").read_text())
    base = json.loads((BASE / "config.json").read_text())
    for key in base:
        assert config.get(key) == base[key], f"config.json: {key} is {config.get(key)!r}, was {base[key]!r}"


# ------------------------------------------------------------------------------------------------
# Values, from the definitions


@cases("weights", [None, (0.2, 0.3, 0.9)])
def test_linear_is_the_weighted_mean(weights):
    if weights is None:  # a weight left out is 1
        out = merge("linear")
    else:
        models = tuple(f"{e}={w}" for e, w in zip(EXPERTS, weights))
        out = run(BASE, models, "--method", "linear")
    w = np.array(weights or (1, 1, 1), dtype=np.float64)
    experts = [wide(e) for e in EXPERTS]
    want = {n: sum(wk * e[n] for wk, e in zip(w, experts)) / w.sum() for n in experts[0]}
    assert_near(load(out), want)


def test_task_arithmetic_is_the_sum():
    base, experts = wide(BASE), [wide(e) for e in EXPERTS]
    models = tuple(f"{e}=0.4" for e in EXPERTS)
    out = run(BASE, models, "--method", "task_arithmetic")
    assert_near(load(out), {n: b + 0.4 * sum(e[n] - b for e in experts) for n, b in base.items()})


def test_passthrough_is_the_model():
    assert_bits(load(merge("passthrough")), load(EXPERTS[0]))


@cases("method", ["linear", "task_arithmetic", "ties", "dare_ties"])
def test_equal_models_stay_as_they_are(method):
    params = METHODS[method][0]
    args = ["--method", method] + [x for p in params for x in ("--param", p)]
    out = run(BASE, (BASE, BASE, BASE), *args)
    assert_bits(load(out), load(BASE))


@cases("method", ["linear", "task_arithmetic"])
def test_wsc_is_its_formula(method):
    """Weight-space calibration, mixed manifold: each row of the merged task vector gets its own scale."""
    base, experts = wide(BASE), [wide(e) for e in EXPERTS]
    plain, calibrated = wide(merge(method)), wide(merge(method, "wsc"))
    for name, b in base.items():
        tm = plain[name] - b
        got = calibrated[name] - b
        want = tm
        if b.ndim >= 2 and name.endswith("weight"):
            rows = len(b)
            tm, tk = tm.reshape(rows, -1), [(e[name] - b).reshape(rows, -1) for e in experts]
            square = lambda x: np.sum(x * x, axis=1)
            alpha = [np.sum(tm * t, axis=1) / square(t) for t in tk]
            rest = tm - sum(a[:, None] * t for a, t in zip(alpha, tk))
            mean = np.mean([np.sqrt(square(t)) for t in tk], axis=0)
            xi = 1 / np.sqrt(sum(a * a for a in alpha) + square(rest) / mean**2)
            want = (xi[:, None] * tm).reshape(b.shape)
        # what storing theta in float32 may cost, plus the arithmetic
        slack = 1.2e-7 * np.linalg.norm(calibrated[name]) + 1e-4 * np.linalg.norm(want)
        assert np.linalg.norm(got - want) <= slack, f"{name}: {np.linalg.norm(got - want):.2e} > {slack:.2e}"


@cases("method", ["dare_linear", "dare_ties"])
def test_random_masks_follow_the_seed(method):
    first = merge(method, "none", "--seed", "1")
    again = merge(method, "none", "--seed", "1", "--threads", "1")
    other = merge(method, "none", "--seed", "2")
    assert_bits(load(again), load(first))
    name = "model.layers.0.mlp.up_proj.weight"
    assert load(other)[name].tobytes() != load(first)[name].tobytes(), "the seed has no effect"


# ------------------------------------------------------------------------------------------------
# Shards and dtypes


def sharded():
    return merge("linear", "wsc", "--shard-size", "50KB")


def test_shards_and_index():
    out, whole = sharded(), load(merge("linear", "wsc"))
    index = json.loads((out / "model.safetensors.index.json").read_text())
    files = sorted(f.name for f in out.glob("*.safetensors"))
    assert len(files) > 2
    assert sorted(set(index["weight_map"].values())) == files, "index and files disagree"
    for i, name in enumerate(files, 1):
        assert re.fullmatch(rf"model-{i:05}-of-{len(files):05}\.safetensors", name), name
    assert set(index["weight_map"]) == set(whole)
    assert index["metadata"]["total_size"] == sum(t.nbytes for t in whole.values())
    got = {}
    for f in files:
        tensors = load_file(out / f)
        assert {index["weight_map"][n] for n in tensors} == {f}, f"{f} holds what the index puts elsewhere"
        # 1024 to the KB is as good a reading as 1000
        size = sum(t.nbytes for t in tensors.values())
        assert len(tensors) == 1 or size <= SHARD_BYTES * 1.024, f"{f}: {size} bytes"
        got.update(tensors)
    assert_bits(got, whole)


@cases("dtype", ["bfloat16", "float16"])
def test_narrow_dtypes_are_rounded_once(dtype):
    exact = load(merge("linear"))
    out = merge("linear", "none", "--dtype", dtype)
    got = read(out / "model.safetensors")
    assert set(got) == set(exact)
    for name, x in exact.items():
        code, bits = got[name]
        assert code == {"bfloat16": "BF16", "float16": "F16"}[dtype], f"{name}: {code}"
        want = to_bfloat16(x) if dtype == "bfloat16" else x.astype(np.float16)
        assert bits.shape == x.shape and bits.tobytes() == want.tobytes(), f"{name} is not the rounded float32 result"
    config = json.loads((out / "config.json").read_text())
    assert config.get("torch_dtype", config.get("dtype")) == dtype


# ------------------------------------------------------------------------------------------------
# transformers


@functools.lru_cache(maxsize=None)
def transformers():
    for package in ("torch", "transformers"):
        if importlib.util.find_spec(package) is None:
            skip(f"{package} is not installed")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(1)
    return torch, transformers


def logits(folder, dtype):
    """Load the folder as a user would; the logits of a short sequence, in float32."""
    torch, hf = transformers()
    model, info = hf.AutoModelForCausalLM.from_pretrained(folder, torch_dtype="auto", output_loading_info=True)
    for what in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"):
        assert not info.get(what), f"{what}: {info[what]}"
    kinds = {p.dtype for p in model.parameters()}
    assert kinds == {getattr(torch, dtype)}, kinds
    with torch.no_grad():
        out = model.eval()(torch.arange(24)[None] % model.config.vocab_size).logits.float()
    assert torch.isfinite(out).all(), "logits are not finite"
    return out


@cases("method, calibrate", CASES)
def test_transformers_loads_float32(method, calibrate):
    logits(merge(method, calibrate), "float32")


@cases("method, calibrate", CASES)
def test_transformers_loads_bfloat16(method, calibrate):
    logits(merge(method, calibrate, "--dtype", "bfloat16"), "bfloat16")


def test_transformers_loads_shards():
    torch, _ = transformers()
    assert torch.equal(logits(sharded(), "float32"), logits(merge("linear", "wsc"), "float32"))


def test_transformers_result_is_not_the_base():
    torch, _ = transformers()
    assert not torch.allclose(logits(merge("linear"), "float32"), logits(BASE, "float32"))


# ------------------------------------------------------------------------------------------------


def parametrized(test):
    """The cases of a test, whichever way `cases` stored them."""
    if hasattr(test, "cases"):
        return test.cases
    for mark in getattr(test, "pytestmark", []):
        if mark.name == "parametrize":
            return mark.args[1]
    return [()]


def main():
    counts = {"passed": 0, "skipped": 0, "failed": 0}
    for name, test in list(globals().items()):
        if not name.startswith("test_"):
            continue
        for case in parametrized(test):
            args = case if isinstance(case, tuple) and test.__code__.co_argcount != 1 else (case,)
            label = name + (f"[{'-'.join(map(str, args))}]" if args else "")
            try:
                test(*args)
                outcome, why = "passed", ""
            except Skip as reason:
                outcome, why = "skipped", f": {reason}"
            except AssertionError as e:
                where = traceback.extract_tb(e.__traceback__)[-1]
                outcome, why = "failed", f": {e or where.line}"
            except Exception:
                outcome, why = "failed", ":\n" + traceback.format_exc()
            counts[outcome] += 1
            print(f"{outcome:7} {label}{why}", flush=True)
    print(", ".join(f"{n} {outcome}" for outcome, n in counts.items()))
    sys.exit(1 if counts["failed"] else 0)


if __name__ == "__main__":
    main()
