"""Run a command on its own share of this machine's GPUs.

    python -m metaapo.gpus 1 python -m eval.answer ...

Where several local jobs run at a time (`snakemake --resources gpu=8`), each would otherwise take GPU 0. A GPU belongs
to the command for as long as it runs, by a file lock that the system releases whatever ends it. Under SLURM and
Kubernetes the scheduler has assigned the GPUs, and on a machine without any there is nothing to share; the command
then just runs.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SCHEDULERS = ("SLURM_JOB_ID", "KUBERNETES_SERVICE_HOST")
PAUSE = 1.0  # seconds between two looks for free GPUs


def main() -> None:
    """Command line: wait for so many free GPUs, then become the command."""
    wanted, command = int(sys.argv[1]), sys.argv[2:]
    gpus = visible_gpus()
    if gpus and not any(name in os.environ for name in SCHEDULERS):
        if len(gpus) < wanted:
            sys.exit(
                f"error: the job needs {wanted} GPUs (hardware), but {len(gpus)} are visible; request fewer, or use a "
                "larger machine"
            )
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(take(gpus, wanted))
    os.execvp(command[0], command)


def visible_gpus() -> list[str]:
    """Names of the GPUs that jobs may use: CUDA_VISIBLE_DEVICES, or all that the driver lists."""
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        return [name for name in os.environ["CUDA_VISIBLE_DEVICES"].split(",") if name]
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
    except OSError:
        return []
    count = sum(line.startswith("GPU ") for line in listed.stdout.splitlines())
    return [str(number) for number in range(count)]


def take(gpus: list[str], wanted: int) -> list[str]:
    """Wait until so many GPUs are free and lock them for this process and what it becomes."""
    folder = Path(tempfile.gettempdir()) / f"metaapo-gpus-{os.getuid()}"
    folder.mkdir(exist_ok=True)
    while True:
        with open(folder / "all.lock", "a") as everybody:
            fcntl.flock(everybody, fcntl.LOCK_EX)  # two jobs that each hold half of what both need would wait forever
            locked = [(gpu, handle) for gpu in gpus if (handle := _lock(folder / f"{gpu}.lock")) is not None]
            for _, handle in locked[wanted:] if len(locked) >= wanted else locked:
                os.close(handle)
        if len(locked) >= wanted:
            for _, handle in locked[:wanted]:
                os.set_inheritable(handle, True)
            return [gpu for gpu, _ in locked[:wanted]]
        time.sleep(PAUSE)


def _lock(path: Path) -> int | None:
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return None
    return handle


if __name__ == "__main__":
    main()
