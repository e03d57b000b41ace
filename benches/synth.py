#!/usr/bin/env python3
"""Make a synthetic set of checkpoints with the shapes of Qwen2 (3B: Qwen2.5).

    python3 benches/synth.py OUT [--scale 0.5B] [--experts 3] [--dtype bfloat16] [--seed 0] [--sparse]

writes OUT/base and OUT/expert0 .. OUT/expert(K-1), each a Hugging Face folder of one
`model.safetensors` and a `config.json` (`Qwen2ForCausalLM`). There is no tokenizer.

Values. Base weights are normal with standard deviation 0.02, norms lie near 1. An expert is the
base plus a task vector of its own: noise whose size differs from row to row (log-normal), plus a
component of rank one, together about `--delta` in root mean square. Embedding rows past the last
real token, which no fine-tune ever touches, stay equal to the base.

The same arguments give the same bytes for one version of numpy, and the bytes of a model do not
depend on how many experts are asked for. Tensors are made in chunks of rows, all models at once,
so memory stays far below 1 GB at any scale.

`--sparse` writes the headers and gives the files their full length without any data: they read as
zeros and take almost no disk. They serve planning, `inspect` and memory tests, not timing.

Needs numpy, nothing else.
"""

import argparse
import json
import os
import struct
import sys
import time
from pathlib import Path

try:
    import numpy as np
except ImportError:  # --sparse and --help work without it
    np = None

# Real sizes of the family, but for 0.1B: a small one with the same vocabulary, for quick trials.
SCALES = {
    "0.1B": dict(hidden=512, intermediate=1536, layers=8, heads=8, kv_heads=2, vocab=151936, tied=True),
    "0.5B": dict(hidden=896, intermediate=4864, layers=24, heads=14, kv_heads=2, vocab=151936, tied=True),
    "1.5B": dict(hidden=1536, intermediate=8960, layers=28, heads=12, kv_heads=2, vocab=151936, tied=True),
    "3B": dict(hidden=2048, intermediate=11008, layers=36, heads=16, kv_heads=2, vocab=151936, tied=True),
    "7B": dict(hidden=3584, intermediate=18944, layers=28, heads=28, kv_heads=4, vocab=152064, tied=False),
}
REAL_TOKENS = 151_665  # rows past this one only pad the embedding
DTYPES = {"bfloat16": ("BF16", 2), "float16": ("F16", 2), "float32": ("F32", 4)}
CHUNK = 4_000_000  # elements made at a time; part of the recipe for the bytes


def shapes(s):
    """Name and shape of every tensor, in the order of the file: by name, as Hugging Face writes."""
    h, inter = s["hidden"], s["intermediate"]
    kv = h // s["heads"] * s["kv_heads"]
    out = {"model.embed_tokens.weight": (s["vocab"], h), "model.norm.weight": (h,)}
    if not s["tied"]:
        out["lm_head.weight"] = (s["vocab"], h)
    for i in range(s["layers"]):
        p = f"model.layers.{i}."
        out[p + "input_layernorm.weight"] = (h,)
        out[p + "post_attention_layernorm.weight"] = (h,)
        out[p + "mlp.gate_proj.weight"] = (inter, h)
        out[p + "mlp.up_proj.weight"] = (inter, h)
        out[p + "mlp.down_proj.weight"] = (h, inter)
        for name, rows in (("q", h), ("k", kv), ("v", kv)):
            out[f"{p}self_attn.{name}_proj.weight"] = (rows, h)
            out[f"{p}self_attn.{name}_proj.bias"] = (rows,)
        out[p + "self_attn.o_proj.weight"] = (h, h)
    return dict(sorted(out.items()))


def config(s, dtype):
    return {
        "architectures": ["Qwen2ForCausalLM"],
        "attention_dropout": 0.0,
        "bos_token_id": 151643,
        "eos_token_id": 151643,
        "hidden_act": "silu",
        "hidden_size": s["hidden"],
        "initializer_range": 0.02,
        "intermediate_size": s["intermediate"],
        "max_position_embeddings": 32768,
        "max_window_layers": s["layers"],
        "model_type": "qwen2",
        "num_attention_heads": s["heads"],
        "num_hidden_layers": s["layers"],
        "num_key_value_heads": s["kv_heads"],
        "rms_norm_eps": 1e-06,
        "rope_theta": 1000000.0,
        "sliding_window": 32768,
        "tie_word_embeddings": s["tied"],
        "torch_dtype": dtype,
        "use_cache": True,
        "use_sliding_window": False,
        "vocab_size": s["vocab"],
    }


def header(tensors, dtype):
    """The safetensors header, length prefix included, and the number of data bytes after it."""
    code, width = DTYPES[dtype]
    entries, at = {"__metadata__": {"format": "pt"}}, 0
    for name, shape in tensors.items():
        size = width
        for d in shape:
            size *= d
        entries[name] = {"dtype": code, "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text, at


def encode(x, dtype):
    """float32 to the bytes of `dtype`, to nearest, ties to even."""
    if dtype == "bfloat16":
        bits = x.view(np.uint32)
        x = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")
    return x.astype({"bfloat16": "<u2", "float16": "<f2", "float32": "<f4"}[dtype], copy=False)


def random(seed, *key):
    """An independent generator for each key: (tensor, model, chunk)."""
    return np.random.Generator(np.random.SFC64(np.random.SeedSequence(seed, spawn_key=key)))


def base_chunk(rng, name, rows, cols):
    x = rng.standard_normal((rows, cols), dtype=np.float32)
    if "norm" in name:
        x *= 0.05
        x += 1
    else:
        x *= 0.02
    return x


def delta_chunk(rng, direction, rows, cols, size):
    """Noise with a scale per row, and a rank-one part that has a fifth of the energy."""
    x = rng.standard_normal((rows, cols), dtype=np.float32)
    if rows > 1:
        # E[exp(2 sigma z)] = exp(2 sigma^2): the division keeps the mean square at one
        scale = np.exp(0.5 * rng.standard_normal((rows, 1), dtype=np.float32) - 0.25)
        x *= np.float32(0.8**0.5) * scale
        x += np.float32(0.2**0.5) * rng.standard_normal((rows, 1), dtype=np.float32) * direction
    x *= np.float32(size)
    return x


def write_set(folders, tensors, dtype, seed, delta):
    """Fill the data part of all models at once, so that each base chunk is made only once."""
    files = [open(f / "model.safetensors", "r+b") for f in folders]
    head, _ = header(tensors, dtype)
    for file in files:
        file.seek(len(head))
    for t, (name, shape) in enumerate(tensors.items()):
        rows, cols = (1, shape[0]) if len(shape) == 1 else shape
        # a tensor's direction has its own key, one no chunk uses
        directions = [random(seed, t, m, 1 << 30).standard_normal(cols, dtype=np.float32) for m in range(len(files))]
        step = max(1, CHUNK // cols)
        for c, r0 in enumerate(range(0, rows, step)):
            n = min(step, rows - r0)
            base = base_chunk(random(seed, t, 0, c), name, n, cols)
            files[0].write(encode(base, dtype))
            for m in range(1, len(files)):
                x = delta_chunk(random(seed, t, m, c), directions[m], n, cols, delta)
                if name in ("model.embed_tokens.weight", "lm_head.weight"):
                    x[max(0, REAL_TOKENS - r0) :] = 0
                x += base
                files[m].write(encode(x, dtype))
    for file in files:
        file.close()


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0], epilog="See the head of this file for the details.")
    p.add_argument("out", type=Path, metavar="OUT")
    p.add_argument("--scale", choices=SCALES, default="0.5B")
    p.add_argument("--experts", type=int, default=3, metavar="K")
    p.add_argument("--dtype", choices=DTYPES, default="bfloat16")
    p.add_argument("--delta", type=float, default=1e-3, help="root mean square of a task vector (default %(default)s)")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--sparse", action="store_true", help="headers and full length only, no data")
    a = p.parse_args()
    if np is None and not a.sparse:
        sys.exit("synth.py needs numpy, except with --sparse")

    s = SCALES[a.scale]
    tensors = shapes(s)
    head, size = header(tensors, a.dtype)
    folders = [a.out / n for n in ["base"] + [f"expert{k}" for k in range(a.experts)]]
    for f in folders:
        f.mkdir(parents=True, exist_ok=True)
        (f / "config.json").write_text(json.dumps(config(s, a.dtype), indent=2) + "\n")
        with open(f / "model.safetensors", "wb") as file:
            file.write(head)
            file.truncate(len(head) + size)
    start = time.time()
    if not a.sparse:
        write_set(folders, tensors, a.dtype, a.seed, a.delta)
    params = size // DTYPES[a.dtype][1]
    print(
        f"{len(folders)} models of {len(tensors)} tensors, {params:,} parameters, "
        f"{(len(head) + size) / 1e9:.2f} GB each{', sparse' if a.sparse else ''}, in {time.time() - start:.0f} s: {a.out}",
        file=sys.stderr,
    )


if __name__ == "__main__":
    main()
