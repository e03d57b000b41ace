#!/usr/bin/env python3
"""Stands for `magic`, and has one worker killed.

    killed.py MAGIC FOLDER SHARD FILE WORKER ARGUMENT ...

Runs MAGIC with the arguments. The first time that it shall make shard SHARD, whose file is FILE, it kills that process
with SIGKILL when it has begun to write and is not done; then its own parent, if WORKER is in that one's command and not
empty; then itself. FOLDER/killed then holds the parent's command, and FOLDER/begun the shards that were begun.
"""

import glob
import os
import signal
import subprocess
import sys
from pathlib import Path


def kill_one(command, parts, file):
    """Runs the command until it is killed between its first byte and its receipt."""
    receipt = parts / f"{file}.json"
    while True:
        work = subprocess.Popen(command)
        while work.poll() is None and not glob.glob(f"{parts}/.work-*/*{file}*"):
            pass
        work.kill()
        if work.wait() == -signal.SIGKILL and not receipt.exists():
            return
        receipt.unlink()  # it was faster; once more


def main(magic, folder, victim, file, worker, *args):
    folder = Path(folder)
    if args[0] == "work":
        shard = args[args.index("--shard") + 1] if "--shard" in args else os.environ["SLURM_ARRAY_TASK_ID"]
        with open(folder / "begun", "a") as begun:
            begun.write(f"{shard}\n")
        if shard == victim and not (folder / "killed").exists():
            kill_one([magic, *args], Path(args[1]) / "parts", file)
            parent = str(os.getppid())
            command = subprocess.run(["ps", "-o", "args=", "-p", parent], capture_output=True, text=True).stdout
            (folder / "killed").write_text(command)
            if worker and worker in command:
                os.kill(int(parent), signal.SIGKILL)
            os.kill(os.getpid(), signal.SIGKILL)
    os.execv(magic, [magic, *args])


if __name__ == "__main__":
    main(*sys.argv[1:])
