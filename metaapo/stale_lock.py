"""Let the same Snakemake command resume after it was killed.

Snakemake locks the files of a run in .snakemake/locks and removes the lock when it ends. A killed process (SIGKILL, out
of memory, power failure) leaves its lock behind, and every later Snakemake refuses to start until the user passes
`--unlock`. Snakemake does not record the owner of a lock, so it cannot tell that the owner is gone.

Therefore every Snakemake process holds an flock on .snakemake/running/<experiment> as long as it lives. The kernel
releases it however the process ends, so reused process ids cannot cause confusion. The Snakefile is parsed before
Snakemake checks its locks: if no other process holds the flock, the locks on this experiment's files are stale and
`claim` removes them. Otherwise they stay, and Snakemake refuses a second run as usual. They also stay if

- a job of a killed Snakemake is still running, since it would write the same files as its successor;
- another machine has worked here, since flock does not work across machines on some network file systems.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import sys
import time
from pathlib import Path
from typing import IO

import psutil

LOCKS = Path(".snakemake") / "locks"
RUNNING = Path(".snakemake") / "running"
PACKAGES = ("metaapo", "baselines", "eval", "reports")
_MARK = "METAAPO_STARTED_BY"  # environment variable of a run's jobs that identifies their run
_PATIENCE = 5.0  # seconds; the jobs of a run killed a moment ago may still be exiting

_held: list[IO[str]] = []  # closing the file releases its flock


def claim(results: str | Path, may_remove: bool) -> None:
    """Register this process as working on an experiment, and remove locks left by killed processes.

    Call this while the Snakefile is parsed, in the folder that contains .snakemake.

    Args:
        results: the experiment's folder, written like the beginning of the rules' paths.
        may_remove: True in the process that the user started; False in one that runs a job for it.
    """
    RUNNING.mkdir(parents=True, exist_ok=True)
    name = f"{Path(results).name}-{hashlib.sha256(str(results).encode()).hexdigest()[:12]}"
    file = (RUNNING / name).open("a+", encoding="utf-8")
    _held.append(file)
    mark = "{0.st_dev}:{0.st_ino}".format(os.fstat(file.fileno()))
    try:
        if may_remove and _alone(file):
            _remove_stale(Path(results), file, mark)
        fcntl.flock(file, fcntl.LOCK_SH)
    except OSError as error:  # a file system without flock
        print(f"{file.name}: cannot be locked ({error.strerror}); after a kill use `--unlock`", file=sys.stderr)
        return
    _note(file, _machine())
    if may_remove:
        os.environ[_MARK] = mark


def _alone(file: IO[str]) -> bool:
    """Try to take the flock exclusively; return False if another process holds it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _remove_stale(results: Path, file: IO[str], mark: str) -> None:
    locks = [lock for lock in sorted(LOCKS.glob("*.lock")) if _names_files_in(lock, results)]
    if not locks or _others(file):
        return
    deadline = time.monotonic() + _PATIENCE
    while jobs := _jobs(mark):
        if time.monotonic() > deadline:
            processes = ", ".join(map(str, jobs))
            print(f"{results}: jobs of a killed run are still running (processes {processes})", file=sys.stderr)
            return
        time.sleep(0.1)
    for lock in locks:
        lock.unlink(missing_ok=True)
    file.truncate(0)
    print(f"{results}: the last run was killed; removed its lock", file=sys.stderr)


def _names_files_in(lock: Path, folder: Path) -> bool:
    lines = lock.read_text(encoding="utf-8", errors="replace").splitlines()
    return any(line.startswith(f"{folder}/") for line in lines)


def _machine() -> tuple[str, str]:
    """Identify the machine by its running kernel, shared by containers, and its host name, stable across reboots."""
    host, boot = platform.node(), Path("/proc/sys/kernel/random/boot_id")  # only Linux has the second
    return boot.read_text().strip() if boot.exists() else host, host


def _machines(file: IO[str]) -> list[list[str]]:
    file.seek(0)
    return [line.split("\t") for line in file.read().splitlines()]


def _others(file: IO[str]) -> bool:
    """Whether another machine has worked here since the locks were last removed."""
    boot, host = _machine()
    return any(boot not in machine and host not in machine for machine in _machines(file))


def _note(file: IO[str], machine: tuple[str, str]) -> None:
    if list(machine) not in _machines(file):
        print(*machine, sep="\t", file=file, flush=True)


def _jobs(mark: str) -> list[int]:
    """Find processes that run one of our modules for a Snakemake working on the same experiment."""
    found = []
    for process in psutil.process_iter():
        try:
            words = process.cmdline()
            modules = [word.partition(".")[0] for flag, word in zip(words, words[1:]) if flag == "-m"]
            if set(modules) & set(PACKAGES) and process.environ().get(_MARK) == mark:
                found.append(process.pid)
        except psutil.Error:  # exited meanwhile, or belongs to another user
            continue
    return found
