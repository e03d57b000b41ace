#!/usr/bin/env python3
"""Install a built wheel into a fresh environment, and merge with what it brings.

    python3 tests/python/test_wheel.py WHEEL

Needs nothing but Python with venv and pip, and no network.
"""

import json
import os
import struct
import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MODELS = ROOT / "tests/golden/mergekit/models"


def check_contents(wheel):
    """One program, its metadata and both licences; nothing else."""
    names = zipfile.ZipFile(wheel).namelist()
    programs = [name for name in names if ".data/scripts/" in name]
    assert len(programs) == 1 and Path(programs[0]).stem == "magic", programs
    assert {Path(name).name for name in names if "/licenses/" in name} == {"LICENSE-MIT", "LICENSE-APACHE"}, names
    others = [name for name in names if name not in programs and ".dist-info/" not in name]
    assert not others, others


def install(wheel, folder):
    """Path of the program, in an environment of its own."""
    venv.create(folder, with_pip=True)
    bin = folder / ("Scripts" if os.name == "nt" else "bin")
    pip = [bin / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index", wheel]
    subprocess.run(pip, check=True)
    return bin / "magic"


def header(path):
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length])


def main(wheel):
    check_contents(wheel)
    with tempfile.TemporaryDirectory() as folder:
        magic, out = install(wheel, Path(folder) / "env"), Path(folder) / "merged"

        def run(*args):
            command = [magic, *args]
            return subprocess.run(command, check=True, capture_output=True, text=True, encoding="utf-8").stdout

        version = run("--version").split()
        assert version == ["magic", Path(wheel).name.split("-")[1]], version
        assert "Merge small models" in run("demo", "--help")
        experts = [f"--model={MODELS / f'expert{k}'}" for k in range(3)]
        flags = ["--method", "ties", "--calibrate", "wsc", "--device", "cpu", "--out", out]
        run("merge", "--base", MODELS / "base", *experts, *flags)
        run("verify", out, "--all")
        base, merged = header(MODELS / "base/model.safetensors"), header(out / "model.safetensors")
        names = set(base) - {"__metadata__"}
        assert names and names == set(merged) - {"__metadata__"}
        assert all(merged[name]["shape"] == base[name]["shape"] for name in names)
    print(f"{Path(wheel).name}: installed, merged and verified")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
