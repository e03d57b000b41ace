#!/usr/bin/env python3
"""Do a planned merge with Dask: every shard is a task, which is tried again if it fails or its worker dies.

    magic plan RECIPE.yml --out DIR
    python dask_merge.py [--scheduler tcp://HOST:8786] DIR [flags of magic, such as --device gpu]

Needs `distributed`, and DIR, the inputs and `magic` under the same paths on all nodes. Start a worker on each with
`dask worker --nthreads 1 tcp://HOST:8786`, so that it has one shard at a time; without --scheduler the cluster is this
machine. The same command again goes on where it stopped.
"""

import argparse
import json
import shutil
import subprocess
from pathlib import Path

from distributed import Client

RETRIES = 3


def run(*command):
    subprocess.run(command, check=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--magic", default="magic", help="the program")
    parser.add_argument("--scheduler", help="address of the cluster's scheduler")
    parser.add_argument("--workers", type=int, default=1, help="workers where the cluster is this machine")
    parser.add_argument("dir", type=Path, help="the folder of the plan")
    parser.add_argument("flags", nargs=argparse.REMAINDER, help="flags of magic")
    args = parser.parse_args()
    magic = str(Path(shutil.which(args.magic) or args.magic).resolve())
    rest = [str(args.dir.resolve()), *args.flags]
    if not (args.dir / "plan.json").exists():  # it is finished, or was never planned
        raise SystemExit(subprocess.run([magic, "finalize", *rest]).returncode)
    plan = json.loads((args.dir / "plan.json").read_text())["content"]

    here = {"n_workers": args.workers, "threads_per_worker": 1, "dashboard_address": None}
    with Client(args.scheduler) if args.scheduler else Client(**here) as client:
        if plan["measured"]:  # feature space: once, before the work
            client.submit(run, magic, "measure", *rest, pure=False, retries=RETRIES).result()
        works = [[magic, "work", *rest, "--shard", str(shard)] for shard in range(len(plan["shards"]))]
        client.gather([client.submit(run, *work, pure=False, retries=RETRIES) for work in works])
    subprocess.run([magic, "finalize", *rest], check=True)


if __name__ == "__main__":
    main()
