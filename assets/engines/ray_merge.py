#!/usr/bin/env python3
"""Do a planned merge with Ray: every shard is a task, which is tried again if it fails or its worker dies.

    magic plan RECIPE.yml --out DIR
    python ray_merge.py [--gpus 1] DIR [flags of magic, such as --device gpu]

Needs `ray`, and DIR, the inputs and `magic` under the same paths on all nodes. Without --address, or RAY_ADDRESS in the
environment, the cluster is this machine. The same command again goes on where it stopped.
"""

import argparse
import json
import shutil
import subprocess
from pathlib import Path

import ray

RETRIES = 3


@ray.remote(max_retries=RETRIES, retry_exceptions=True)
def run(*command):
    subprocess.run(command, check=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--magic", default="magic", help="the program")
    parser.add_argument("--address", help="the cluster, such as auto")
    parser.add_argument("--cpus", type=float, default=1, help="CPUs that Ray sets aside for a shard")
    parser.add_argument("--gpus", type=float, default=0, help="GPUs that Ray sets aside for a shard")
    parser.add_argument("dir", type=Path, help="the folder of the plan")
    parser.add_argument("flags", nargs=argparse.REMAINDER, help="flags of magic")
    args = parser.parse_args()
    magic = str(Path(shutil.which(args.magic) or args.magic).resolve())
    rest = [str(args.dir.resolve()), *args.flags]
    if not (args.dir / "plan.json").exists():  # it is finished, or was never planned
        raise SystemExit(subprocess.run([magic, "finalize", *rest]).returncode)
    plan = json.loads((args.dir / "plan.json").read_text())["content"]

    ray.init(address=args.address)
    task = run.options(num_cpus=args.cpus, num_gpus=args.gpus)
    if plan["measured"]:  # feature space: once, before the work
        ray.get(task.remote(magic, "measure", *rest))
    ray.get([task.remote(magic, "work", *rest, "--shard", str(shard)) for shard in range(len(plan["shards"]))])
    subprocess.run([magic, "finalize", *rest], check=True)


if __name__ == "__main__":
    main()
