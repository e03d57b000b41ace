#!/usr/bin/env python3
"""A planned merge by real engines, each with a worker killed: the same bytes as in one process.

    MAGIC_BIN=target/debug/magic python3 tests/python/test_engines.py [ENGINE ...]

Runs the scripts of assets/engines as their users do, over a model of 16 tensors in 16 shards. What they take for `magic`
is engines/killed.py: the first one at a shard dies by SIGKILL while it works, and so does the engine's worker that
started it. Needs numpy and safetensors. Engines are those that tests/python/engines/install puts into target/engines, or
those on the PATH; one that is not there is skipped, and says so. MAGIC_TEST_ENGINES=require makes that an error.
"""

import contextlib
import hashlib
import json
import os
import shlex
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
SHARDS, VICTIM, DAMAGED = 16, 5, 3
# A shard for each tensor.
FLAGS = ["--method", "dare_ties", "--param", "density=0.5", "--calibrate", "dsc", "--shard-size", "300", "--quiet"]
CPU = ["--device", "cpu"]
# Variables by which engines find a cluster, or tell of one.
FOREIGN = ("RAY_", "DASK_", "SLURM_", "SBATCH_", "PARALLEL", "RANK", "JOB_COMPLETION_INDEX")

HIDDEN, MIDDLE, VOCABULARY = 64, 128, 96
CONFIG = {
    "model_type": "llama",
    "torch_dtype": "float32",
    "hidden_act": "silu",
    "hidden_size": HIDDEN,
    "intermediate_size": MIDDLE,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "num_hidden_layers": 1,
    "vocab_size": VOCABULARY,
    "rms_norm_eps": 1e-5,
    "max_position_embeddings": 64,
    "attention_bias": True,
    "tie_word_embeddings": False,
}


class Skip(Exception):
    pass


def magic(*args):
    command = [str(word) for word in (MAGIC, *args)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr[-2000:]


def shapes():
    """A Llama of one layer, whose attention has biases: 16 tensors."""
    found = {name: (VOCABULARY, HIDDEN) for name in ("model.embed_tokens.weight", "lm_head.weight")}
    for name in "qkvo":
        found[f"model.layers.0.self_attn.{name}_proj.weight"] = (HIDDEN, HIDDEN)
        found[f"model.layers.0.self_attn.{name}_proj.bias"] = (HIDDEN,)
    for name, shape in {"gate": (MIDDLE, HIDDEN), "up": (MIDDLE, HIDDEN), "down": (HIDDEN, MIDDLE)}.items():
        found[f"model.layers.0.mlp.{name}_proj.weight"] = shape
    for name in ("layers.0.input_layernorm", "layers.0.post_attention_layernorm", "norm"):
        found[f"model.{name}.weight"] = (HIDDEN,)
    return found


def models(folder):
    """Base, two experts and data for feature space, which is measured before the work; the flags of their merge."""
    for seed, name in enumerate(("base", "a", "b")):
        (folder / name).mkdir()
        random = np.random.default_rng(seed)
        tensors = {name: random.standard_normal(shape, np.float32) for name, shape in shapes().items()}
        save_file(tensors, folder / name / "model.safetensors")
        (folder / name / "config.json").write_text(json.dumps(CONFIG))
    save_file({"input_ids": np.arange(64, dtype=np.int64).reshape(4, 16)}, folder / "data.safetensors")
    inputs = ["--base", folder / "base", "--model", folder / "a", "--model", folder / "b"]
    return [*inputs, "--data", folder / "data.safetensors", *FLAGS, *CPU]


def digests(folder):
    files = sorted(folder.glob("model*.safetensors*"))
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


class Run:
    """A plan, a `magic` that will be killed once, and an environment that leaves nothing behind."""

    def __init__(self, folder, flags, worker):
        folder.mkdir()
        self.folder, self.dir, self.magic = folder, folder / "out", folder / "magic"
        magic("plan", *flags, "--out", self.dir)
        file = json.loads((self.dir / "plan.json").read_text())["content"]["shards"][VICTIM]["file"]
        words = [sys.executable, ROOT / "tests/python/engines/killed.py", MAGIC, folder, VICTIM, file, worker]
        self.magic.write_text(f'#!/bin/sh\nexec {shlex.join(map(str, words))} "$@"\n')
        self.magic.chmod(0o755)
        for name in ("home", "tmp"):
            (folder / name).mkdir()
        paths = [*((ENGINES / "root/usr" / name) for name in ("bin", "sbin")), os.environ["PATH"], "/usr/sbin"]
        # No cluster that is there already.
        own = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
        self.env = own | {
            "PATH": ":".join(map(str, paths)),
            "HOME": str(folder / "home"),
            "TMPDIR": str(folder / "tmp"),
            "RAY_TMPDIR": str(folder / "tmp"),
            "RAY_USAGE_STATS_ENABLED": "0",
            "MAGIC": str(self.magic),
        }

    def program(self, name):
        return shutil.which(name, path=self.env["PATH"]) or skip(f"there is no {name}")

    def package(self, name):
        """Version of a package of target/engines."""
        code = "import importlib.metadata as m, sys; print(m.version(sys.argv[1]))"
        done = PYTHON.exists() and subprocess.run([PYTHON, "-c", code, name], capture_output=True, text=True)
        return done.stdout.strip() if done and done.returncode == 0 else skip(f"target/engines has no {name}")

    def do(self, *command, **env):
        command = [str(word) for word in command]
        env = self.env | env
        done = subprocess.run(command, env=env, cwd=self.folder, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, f"{command}: exit {done.returncode}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
        return done.stdout


def damage(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def skip(why):
    raise Skip(why)


def gnu_parallel(run):
    version = run.do(run.program("parallel"), "--version").splitlines()[0]
    version.startswith("GNU") or skip("`parallel` is not GNU's")
    # A second host, which is this machine: what ssh would do there, a shell does here. SHELL is sshd's to set; without
    # it, GNU parallel takes a job over ssh for done that never ran.
    ssh = run.folder / "ssh"
    ssh.write_text("""#!/bin/sh
while [ "$1" != other ]; do shift; done
shift
[ "$1" != -- ] || shift
SHELL=/bin/sh exec sh -c "$*"
""")
    ssh.chmod(0o755)
    run.do(SCRIPTS / "parallel.sh", run.dir, *CPU, HOSTS="2/:,2/other", JOBS="2", PARALLEL_SSH=str(ssh))
    jobs = (run.folder / "out.log").read_text().splitlines()[1:]
    assert {job.split("\t")[1] for job in jobs} == {":", "other"}, jobs
    return version


def in_slurm(run):
    for name in ("sbatch", "slurmctld", "slurmd", "munged"):
        run.program(name)
    with contextlib.ExitStack() as stack:
        try:
            env = stack.enter_context(slurm.cluster(run.folder / "cluster", run.env, ENGINES / "root"))
        except RuntimeError as error:
            skip(f"it does not start here: {error}")
        # One shard is there with its receipt, but was damaged later: it is made again.
        magic("measure", run.dir, *CPU)
        magic("work", run.dir, "--shard", DAMAGED, *CPU)
        damage(next((run.dir / "parts").glob(f"model-{DAMAGED + 1:05}-of-*.safetensors")))
        run.do(SCRIPTS / "slurm.sh", run.dir, *CPU, **env)
        end = time.monotonic() + 90
        while slurm.output(["squeue", "--noheader"], env):
            assert time.monotonic() < end, slurm.output(["squeue"], env)
            time.sleep(0.2)
        return f"Slurm {slurm.output(['sbatch', '--version'], env).split()[-1]}"


def in_ray(run):
    version = run.package("ray")
    run.do(PYTHON, SCRIPTS / "ray_merge.py", "--magic", run.magic, run.dir, *CPU)
    return f"Ray {version}"


def in_dask(run):
    version = run.package("distributed")
    run.do(PYTHON, SCRIPTS / "dask_merge.py", "--magic", run.magic, "--workers", 2, run.dir, *CPU)
    return f"Dask {version}"


def merged(engine, worker):
    """A test of `engine`, whose worker is killed too: the process that starts `magic`, with `worker` in its command."""

    def test(folder, flags, want):
        run = Run(folder, flags, worker)
        started = time.monotonic()
        version = engine(run)
        seconds = time.monotonic() - started
        killed, begun = run.folder / "killed", (run.folder / "begun").read_text().split()
        assert killed.exists() and begun.count(str(VICTIM)) > 1, f"nobody was killed: {begun}"
        assert worker in killed.read_text(), f"`{worker}` is not what started it: {killed.read_text()}"
        assert set(begun) == set(map(str, range(SHARDS))), begun
        assert digests(run.dir) == want, "other bytes"
        assert not any((run.dir / name).exists() for name in ("plan.json", "parts")), "the plan is still there"
        who = "`magic work` and the worker that started it" if worker else "`magic work`"
        return f"{version}: {who} killed at shard {VICTIM}, {len(begun)} starts, same bytes; {seconds:.1f} s"

    return test


def kubernetes(folder, flags, want):
    run = Run(folder, flags, "")
    version, file = run.package("kubernetes-validate"), SCRIPTS / "kubernetes.yaml"
    # Per-index back-off is stable from 1.33 on.
    run.do(ENGINES / "bin/kubernetes-validate", "--strict", "--kubernetes-version", "1.33", file)
    code = "import json, sys, yaml; print(json.dumps(list(yaml.safe_load_all(open(sys.argv[1])))))"
    specs = [job["spec"] for job in json.loads(run.do(PYTHON, "-c", code, file))]
    pods = [spec["template"]["spec"] for spec in specs]
    commands = [pod["containers"][0]["args"] for pod in pods]
    assert [command[0] for command in commands] == ["work", "finalize"] and commands[0][1] == commands[1][1], commands
    assert specs[0]["completionMode"] == "Indexed" and specs[0]["backoffLimitPerIndex"] > 0
    assert pods[0]["restartPolicy"] == "Never", "back-off for each index needs that"
    assert specs[0]["completions"] > 0
    text = file.read_text()
    assert "NOT RUN" in text and "`completions`: the number of shards" in text
    return f"kubernetes.yaml: fits the schema of batch/v1 in Kubernetes 1.33 (kubernetes-validate {version}); NOT RUN"


TESTS = {
    "parallel": merged(gnu_parallel, worker=""),
    "slurm": merged(in_slurm, worker="slurm_script"),
    "ray": merged(in_ray, worker="ray::"),
    "dask": merged(in_dask, worker="multiprocessing"),
    "kubernetes": kubernetes,
}


def running(folder):
    """Processes that have something to do with the folder."""
    processes = subprocess.run(["ps", "-eo", "args="], capture_output=True, text=True).stdout.splitlines()
    return [process for process in processes if str(folder) in process]


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
        end = time.monotonic() + 10
        while (left := running(folder)) and time.monotonic() < end:
            time.sleep(0.2)
        assert not left, f"still running: {left}"
    print(", ".join(f"{count} {outcome}" for outcome, count in counts.items()))
    sys.exit(1 if counts["failed"] else 0)


if __name__ == "__main__":
    main(sys.argv[1:])
