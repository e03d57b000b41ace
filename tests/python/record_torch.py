#!/usr/bin/env python3
"""Write files of PyTorch of every kind that is read, for tests/torch.rs.

    python3 tests/python/record_torch.py

Needs torch and safetensors; recorded with torch 2.15. In tests/golden/torch each `NAME.pt` (or folder `NAME/`) is what
`torch.save` wrote, and `NAME.safetensors` its tensors. `old.pt`, in the format before version 1.6, has none.
"""

import argparse
import json
import sys
import types
from collections import OrderedDict
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

OUT = Path(__file__).parent.parent / "golden" / "torch"
SIZES = [(4, 6), (5,), (), (0, 3), (1, 2, 1, 3)]


def values(dtype, shape):
    if dtype.is_floating_point or dtype.is_complex:
        return torch.randn(shape, dtype=torch.complex64 if dtype.is_complex else torch.float32).to(dtype)
    return torch.randint(0, 2 if dtype == torch.bool else 100, shape).to(dtype)


def state(dtypes, sizes=SIZES):
    return {f"{str(dtype)[6:]}.{i}": values(dtype, shape) for dtype in dtypes for i, shape in enumerate(sizes)}


class Visual(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 2, bias=False)
        self.class_embedding = nn.Parameter(torch.randn(4))
        self.ln_pre = nn.LayerNorm(4, eps=1e-6)
        self.blocks = nn.Sequential(OrderedDict(attn=nn.MultiheadAttention(4, 2), mlp=nn.Linear(4, 4, bias=False)))
        self.norm = nn.BatchNorm1d(4)
        self.act = partial(torch.nn.functional.gelu, approximate="tanh")
        self.register_parameter("proj", None)
        self.register_buffer("mask", torch.ones(2, 2), persistent=False)
        self.register_buffer("ids", torch.arange(5))


class Model(nn.Module):
    """As CLIP: the tower of images, and a few parameters beside it."""

    def __init__(self):
        super().__init__()
        self.visual = Visual()
        self.again = self.visual.blocks.mlp
        self.none = None
        self.add_module("text", None)
        self.logit_scale = nn.Parameter(torch.tensor(2.5))


class ImageEncoder(nn.Module):
    """As that of task_vectors, with what is no part of the model."""

    def __init__(self):
        super().__init__()
        self.model = Model()
        self.train_preprocess = [torch.nn.functional.interpolate, {"size": 224}]
        self.cache_dir = Path("/cache")


class Wrapper:
    """No module itself."""

    def __init__(self, model):
        self.model = model
        self.args = argparse.Namespace(lr=1e-4)


def write(name, value, tensors, **how):
    torch.save(value, OUT / f"{name}.pt", **how)
    # Shared storages and views are copied: safetensors has neither.
    save_file({key: tensor.detach().clone().contiguous() for key, tensor in tensors.items()}, OUT / f"{name}.safetensors")


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(1)
    floats = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
    whole = [torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool, torch.complex64]
    newer = [torch.uint16, torch.uint32, torch.uint64, torch.float8_e4m3fn, torch.float8_e5m2]
    tensors = state(floats)
    write("floats", tensors, tensors)
    write("ordered", OrderedDict(tensors, step=3, note="text", none=None, lr=0.1, shape=(1, 2)), tensors)
    tensors = state(whole + newer, SIZES[:2])
    write("types", tensors, tensors)
    for protocol in (3, 4, 5):
        tensors = state([torch.bfloat16, torch.float8_e4m3fn], SIZES[:2])
        write(f"protocol{protocol}", tensors, tensors, pickle_protocol=protocol)

    weight = torch.randn(6, 4)
    tensors = {"embed": weight, "head": weight, "rows": weight[2:5], "row": weight[3], "flat": weight.view(-1)[5:9],
               "one": weight[:1, :3].expand(1, 3), "alone": torch.randn(3)}
    write("views", tensors, tensors)

    model = nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 2))
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.randn(4, 3)).sum().backward()
    optimizer.step()
    tensors = model.state_dict()
    write("nested", {"epoch": 3, "state_dict": tensors, "optimizer": optimizer.state_dict(),
                     "args": argparse.Namespace(lr=1e-4), "best": float("inf"), "big": 1 << 80, "raw": b"\xff"}, tensors)
    write("nested_twice", {"model": {"state_dict": tensors, "step": 1}, "scaler": {}}, tensors)
    write("parameters", dict(model.named_parameters()), tensors)

    encoder = ImageEncoder()
    # Classes are found by name when a module is loaded again. Nobody loads these.
    for kind in (Visual, Model, ImageEncoder, Wrapper):
        kind.__module__ = "src.modeling"
    sys.modules["src"] = types.ModuleType("src")
    sys.modules["src.modeling"] = sys.modules["__main__"]
    write("module", encoder, encoder.state_dict())
    write("wrapper", Wrapper(encoder.model), encoder.model.state_dict())
    write("parallel", {"model": nn.DataParallel(model)}, nn.DataParallel(model).state_dict())

    folder = OUT / "sharded"
    folder.mkdir(exist_ok=True)
    tensors = state([torch.float16, torch.float32], SIZES[:2])
    names = list(tensors)
    shards = {f"pytorch_model-0000{i + 1}-of-00002.bin": names[i::2] for i in range(2)}
    for shard, members in shards.items():
        torch.save({name: tensors[name] for name in members}, folder / shard)
    index = {"metadata": {"total_size": 0}, "weight_map": {n: s for s, members in shards.items() for n in members}}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index, indent=1))
    save_file(tensors, OUT / "sharded.safetensors")

    torch.save({"a": torch.ones(3)}, OUT / "old.pt", _use_new_zipfile_serialization=False)
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), OUT / "script.pt")
    torch.save({"a": torch.randn(3, 4).T}, OUT / "transposed.pt")
    torch.save({"a": torch.randn(3).to_sparse()}, OUT / "sparse.pt")


main()
