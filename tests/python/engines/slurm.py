"""A Slurm of its own on one machine: munged, slurmctld and slurmd, in a folder, on free ports, without systemd, cgroups
or a database. A Slurm that the machine has already is not touched.
"""

import contextlib
import getpass
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

CONFIG = """
ClusterName=magic
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
NodeName={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=4 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=bf_interval=1
ReturnToService=2
MailProg=/bin/true
"""


def free_ports(count):
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


@contextlib.contextmanager
def cluster(folder, env, unpacked):
    """Environment in which sbatch submits to a cluster in `folder`; RuntimeError where it does not come up. `unpacked` is
    where Slurm's packages may be, if they are not installed.
    """
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True)
    (folder / "munge.key").write_bytes(os.urandom(1024))
    (folder / "munge.key").chmod(0o400)
    host = socket.gethostname().split(".")[0]
    config = CONFIG.format(host=host, ports=free_ports(2), user=getpass.getuser(), folder=folder)
    for plugins in unpacked.glob("usr/lib/*/slurm-wlm"):
        env = env | {"LD_LIBRARY_PATH": f"{plugins.parent}:{plugins}"}
        config += f"PluginDir={plugins}\n"
    env = env | {"SLURM_CONF": f"{folder}/slurm.conf"}
    (folder / "slurm.conf").write_text(config)
    (folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")  # the plugin that looks for none before use
    munged = ["munged", "--foreground", "--force", f"--key-file={folder}/munge.key", f"--socket={folder}/munge.socket"]
    munged += [f"--{name}-file={folder}/munge.{name}" for name in ("pid", "seed", "log")]
    step = Path(shutil.which("slurmd", path=env["PATH"])).parent / "slurmstepd"
    commands = [munged, ["slurmctld", "-D"], ["slurmd", "-D", "-N", host, "-d", step]]
    running = []
    try:
        for command in commands:
            with open(folder / f"{command[0]}.log", "w") as log:
                running.append(subprocess.Popen(command, env=env, stdout=log, stderr=log, stdin=subprocess.DEVNULL))
            wait(lambda: (folder / "munge.socket").exists(), running, folder)
        wait(lambda: output(["sinfo", "--noheader", "--format=%T"], env) == "idle", running, folder)
        yield env
        output(["scancel", "--user", getpass.getuser()], env)
    finally:
        for process in reversed(running):
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


def output(command, env):
    return subprocess.run(command, env=env, capture_output=True, text=True).stdout.strip()


def wait(ready, running, folder, seconds=30):
    end = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > end or any(process.poll() is not None for process in running):
            logs = [path for path in sorted(folder.glob("*.log")) if path.stat().st_size]
            raise RuntimeError("; ".join(f"{path.name}: {path.read_text()[-300:]}" for path in logs) or "no answer")
        time.sleep(0.1)
