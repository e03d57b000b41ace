#!/usr/bin/env python3
"""A planned merge by real engines, each with a worker killed: the same bytes as in one process.

    MAGIC_BIN=target/debug/magic python3 tests/python/test_engines.py [ENGINE ...]

Runs the scripts of assets/engines as their users do, over a model of 16 tensors in 16 shards. `magic` is a wrapper for
them, which kills the first one at a shard with SIGKILL while it works, and what started it too. Needs numpy and
safetensors; engines are those that tests/python/engines/install puts into target/engines, and those on the PATH. One
that is not there is skipped, and says so; MAGIC_TEST_ENGINES=require makes that an error.
"""

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from engines import slurm

ROOT = Path(__file__).resolve().parents[2]
MAGIC = Path(os.environ.get("MAGIC_BIN") or ROOT / "target/release/magic").resolve()
SCRIPTS = ROOT / "assets/engines"
ENGINES = ROOT / "target/engines"
PYTHON = ENGINES / "bin/python"
SHARDS, VICTIM = 16, 5
FLAGS = ["--method", "dare_ties", "--param", "density=0.5", "--calibrate", "wsc", "--shard-size", "40KB"]
CPU = ["--device", "cpu"]

# Stands for `magic`. The first one at the victim's shard starts the real one, and kills it when its file is there and
# its receipt is not; then what started it, if that is a worker of the engine; then itself.
WRAPPER = """#!{python}
import os, signal, subprocess, sys
from pathlib import Path

folder, args = Path({folder!r}), sys.argv[1:]
if args[0] == "work":
    shard = args[args.index("--shard") + 1] if "--shard" in args else os.environ["SLURM_ARRAY_TASK_ID"]
    with open(folder / "begun", "a") as begun:
        begun.write(shard + "\\n")
    if shard == {victim!r} and not (folder / "killed").exists():
        parts, receipt = Path(args[1]) / "parts", Path(args[1]) / "parts/{file}.json"
        while True:
            work = subprocess.Popen([{magic!r}, *args])
            while work.poll() is None and not list(parts.glob(".work-*/*{file}*")):
                pass
            work.kill()
            if work.wait() == -signal.SIGKILL and not receipt.exists():
                break
            receipt.unlink()  # it was faster; once more
        parent = subprocess.run(["ps", "-o", "args=", "-p", str(os.getppid())], capture_output=True, text=True).stdout
        (folder / "killed").write_text(parent.strip())
        if {worker!r}:
            os.kill(os.getppid(), signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)
os.execv({magic!r}, [{magic!r}, *args])
"""


class Skip(Exception):
    pass


def magic(*args):
    command = [str(word) for word in (MAGIC, *args)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr[-2000:]


def models(folder):
    """Base and two experts of 16 tensors; the flags that name them."""
    for seed, name in enumerate(("base", "a", "b")):
        (folder / name).mkdir()
        random = np.random.default_rng(seed)
        tensors = {
            f"model.layers.{i}.mlp.up_proj.weight": random.standard_normal((128, 64), np.float32) for i in range(SHARDS)
        }
        save_file(tensors, folder / name / "model.safetensors")
        (folder / name / "config.json").write_text('{"model_type": "llama", "torch_dtype": "float32"}')
    return ["--base", folder / "base", "--model", folder / "a", "--model", folder / "b", *FLAGS, *CPU]


def digests(folder):
    files = sorted(folder.glob("model*.safetensors*"))
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


class Run:
    """A plan, a `magic` that will be killed once, and an environment that leaves nothing behind."""

    def __init__(self, folder, flags, worker):
        folder.mkdir()
        self.folder, self.dir, self.magic = folder, folder / "out", folder / "magic"
        magic("plan", *flags, "--out", self.dir)
        file = json.loads((self.dir / "plan.json").read_text())["plan"]["shards"][VICTIM]["file"]
        facts = {"python": sys.executable, "folder": str(folder), "victim": str(VICTIM), "magic": str(MAGIC)}
        self.magic.write_text(WRAPPER.format(**facts, file=file, worker=worker))
        self.magic.chmod(0o755)
        for name in ("home", "tmp"):
            (folder / name).mkdir()
        paths = [*((ENGINES / "root/usr" / name) for name in ("bin", "sbin")), os.environ["PATH"], "/usr/sbin"]
        libraries = [path.parent for path in ENGINES.glob("root/usr/lib/*/slurm-wlm")]
        self.env = os.environ | {
            "PATH": ":".join(map(str, paths)),
            "HOME": str(folder / "home"),
            "TMPDIR": str(folder / "tmp"),
            "RAY_TMPDIR": str(folder / "tmp"),
            "RAY_USAGE_STATS_ENABLED": "0",
            "MAGIC": str(self.magic),
        }
        if libraries:
            self.env["LD_LIBRARY_PATH"] = f"{libraries[0]}:{libraries[0]}/slurm-wlm"

    def program(self, name):
        return shutil.which(name, path=self.env["PATH"]) or skip(f"there is no {name}")

    def package(self, name):
        """Version of a package of target/engines."""
        code = "import importlib.metadata as m, sys; print(m.version(sys.argv[1]))"
        done = PYTHON.exists() and subprocess.run([PYTHON, "-c", code, name], capture_output=True, text=True)
        return done.stdout.strip() if done and done.returncode == 0 else skip(f"target/engines has no {name}")

    def do(self, *command, **env):
        command = [str(word) for word in command]
        done = subprocess.run(
            command, env=self.env | env, cwd=self.folder, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, f"{command}: exit {done.returncode}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
        return done.stdout


def skip(why):
    raise Skip(why)


def gnu_parallel(run):
    version = run.do(run.program("parallel"), "--version").splitlines()[0]
    version.startswith("GNU") or skip("`parallel` is not GNU's")
    # A second host, which is this machine without ssh.
    ssh = run.folder / "ssh"
    ssh.write_text('#!/bin/sh\nwhile [ "$1" != other ]; do shift; done; shift\n[ "$1" != -- ] || shift\nexec sh -c "$*"\n')
    ssh.chmod(0o755)
    run.do(SCRIPTS / "parallel.sh", run.dir, *CPU, HOSTS="2/:,2/other", JOBS="2", PARALLEL_SSH=str(ssh))
    jobs = (run.folder / "out.log").read_text().splitlines()[1:]
    assert {job.split("\t")[1] for job in jobs} == {":", "other"}, jobs
    return version


def in_slurm(run):
    for name in ("sbatch", "slurmctld", "slurmd", "munged"):
        run.program(name)
    version = run.do("sbatch", "--version").strip()
    with contextlib.ExitStack() as stack:
        try:
            env = stack.enter_context(slurm.cluster(run.folder / "cluster", run.env))
        except RuntimeError as error:
            skip(f"{version} does not start here: {error}")
        run.do(SCRIPTS / "slurm.sh", run.dir, *CPU, SLURM_CONF=env["SLURM_CONF"])
        end = time.monotonic() + 90
        while slurm.output(["squeue", "--noheader"], env):
            assert time.monotonic() < end, slurm.output(["squeue"], env)
            time.sleep(0.2)
    return version


def in_ray(run):
    version = run.package("ray")
    run.do(PYTHON, SCRIPTS / "ray_merge.py", "--magic", run.magic, run.dir, *CPU)
    return f"Ray {version}"


def in_dask(run):
    version = run.package("distributed")
    run.do(PYTHON, SCRIPTS / "dask_merge.py", "--magic", run.magic, "--workers", 2, run.dir, *CPU)
    return f"Dask {version}"


def merged(engine, worker):
    """A test of `engine`, whose `worker` is killed too if that is a process that starts `magic`."""

    def test(folder, flags, want):
        run = Run(folder, flags, worker)
        started = time.monotonic()
        version = engine(run)
        seconds = time.monotonic() - started
        killed, begun = run.folder / "killed", (run.folder / "begun").read_text().split()
        assert killed.exists() and begun.count(str(VICTIM)) > 1, f"nobody was killed: {begun}"
        assert set(begun) == set(map(str, range(SHARDS))), begun
        assert digests(run.dir) == want, "other bytes"
        assert not (run.dir / "plan.json").exists() and not (run.dir / "parts").exists(), "something is left of the plan"
        who = f"`magic work`{f' and its parent, `{killed.read_text()[:40]}`,' if worker else ''}"
        return f"{version}: {who} killed at shard {VICTIM}, {len(begun)} starts, same bytes; {seconds:.1f} s"

    return test


def kubernetes(folder, flags, want):
    run = Run(folder, flags, False)
    version, file = run.package("kubernetes-validate"), SCRIPTS / "kubernetes.yaml"
    # Per-index back-off is stable from 1.33 on.
    said = run.do(ENGINES / "bin/kubernetes-validate", "--strict", "--kubernetes-version", "1.33", file)
    code = "import json, sys, yaml; print(json.dumps(list(yaml.safe_load_all(open(sys.argv[1])))))"
    work, finalize = json.loads(run.do(PYTHON, "-c", code, file))
    spec, pod = work["spec"], work["spec"]["template"]["spec"]
    assert spec["completionMode"] == "Indexed" and spec["backoffLimitPerIndex"] > 0 and spec["completions"] == SHARDS
    assert pod["restartPolicy"] == "Never", "podFailurePolicy and backoffLimitPerIndex want that"
    command = lambda job: job["spec"]["template"]["spec"]["containers"][0]["args"]
    assert command(work)[0] == "work" and command(finalize)[0] == "finalize" and command(work)[1:] == command(finalize)[1:]
    text = file.read_text()
    assert "NOT RUN" in text and "`completions`: the number of shards" in text
    return f"kubernetes.yaml: fits the schema of batch/v1 in Kubernetes 1.33 (kubernetes-validate {version}); NOT RUN"


TESTS = {
    "parallel": merged(gnu_parallel, worker=False),
    "slurm": merged(in_slurm, worker=True),
    "ray": merged(in_ray, worker=True),
    "dask": merged(in_dask, worker=True),
    "kubernetes": kubernetes,
}


def main(names):
    required, counts = os.environ.get("MAGIC_TEST_ENGINES") == "require", {"passed": 0, "skipped": 0, "failed": 0}
    # Under /tmp, since paths of Ray's sockets must be short.
    with tempfile.TemporaryDirectory(prefix="magic-", dir="/tmp") as folder:
        folder = Path(folder)
        flags = models(folder)
        magic("merge", *flags, "--out", folder / "one")
        want = digests(folder / "one")
        assert len(want) == SHARDS + 1, "shards and their index"
        for name in names or TESTS:
            try:
                outcome, what = "passed", TESTS[name](folder / name, flags, want)
            except Skip as why:
                outcome, what = "failed" if required else "skipped", f"{name}: {why}"
            except (AssertionError, subprocess.TimeoutExpired) as error:
                outcome, what = "failed", f"{name}: {error}"
            counts[outcome] += 1
            print(f"{outcome:7} {what}", flush=True)
        left = [line for line in subprocess.run(["ps", "-eo", "args="], capture_output=True, text=True).stdout.splitlines()
                if str(folder) in line]
        assert not left, f"still running: {left}"
    print(", ".join(f"{count} {outcome}" for outcome, count in counts.items()))
    sys.exit(1 if counts["failed"] else 0)


if __name__ == "__main__":
    main(sys.argv[1:])
