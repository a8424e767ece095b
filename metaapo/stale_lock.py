"""After a kill, the same Snakemake command goes on by itself.

Snakemake locks the files of a run in .snakemake/locks and removes the lock when it ends. A process that was killed
(SIGKILL, out of memory, a power cut) removes nothing, and every later Snakemake stops until somebody types `--unlock`.
Snakemake does not note whose lock it is, so it cannot know that nobody is left.

Here every Snakemake process holds an flock on .snakemake/running/<experiment> for as long as it lives. The kernel
releases it however the process ends, so no process id can be mistaken for another's. The Snakefile is parsed before
Snakemake looks at its locks: where nobody else holds the flock, the locks on this experiment's files are left over, and
`claim` removes them. Otherwise they stay, and Snakemake refuses a second run in its own words. They stay as well where

- a job of a killed Snakemake still runs: it would write the same files as its successor;
- another machine has worked here: on some network file systems an flock does not reach across machines.
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

import psutil  # Snakemake depends on it

LOCKS = Path(".snakemake") / "locks"
RUNNING = Path(".snakemake") / "running"
PACKAGES = ("metaapo", "baselines", "eval", "reports")
_MARK = "METAAPO_STARTED_BY"  # in the environment of a run's jobs: whose they are
_PATIENCE = 5.0  # seconds; the jobs of a run that was killed a moment ago may still be dying

_held: list[IO[str]] = []  # an flock ends with its file


def claim(results: str | Path, may_remove: bool) -> None:
    """Declare that this process works on an experiment, and remove the locks that killed processes left on its files.

    Call it while the Snakefile is parsed, in the folder that holds .snakemake.

    Args:
        results: the experiment's folder, as the rules' paths begin.
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
        print(f"{file.name}: cannot be locked ({error.strerror}); a killed run needs `--unlock`", file=sys.stderr)
        return
    _note(file, _machine())
    if may_remove:
        os.environ[_MARK] = mark


def _alone(file: IO[str]) -> bool:
    """Take the flock for this process only, where no other has it."""
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
            print(f"{results}: jobs of a killed run still work here (processes {processes})", file=sys.stderr)
            return
        time.sleep(0.1)
    for lock in locks:
        lock.unlink(missing_ok=True)
    file.truncate(0)
    print(f"{results}: the last run was killed; its lock is removed", file=sys.stderr)


def _names_files_in(lock: Path, folder: Path) -> bool:
    lines = lock.read_text(encoding="utf-8", errors="replace").splitlines()
    return any(line.startswith(f"{folder}/") for line in lines)


def _machine() -> tuple[str, str]:
    """The running kernel, which containers share, and the host's name, which outlives a restart."""
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
    """Processes that run one of our modules for a Snakemake that claimed the same experiment."""
    found = []
    for process in psutil.process_iter():
        try:
            words = process.cmdline()
            modules = [word.partition(".")[0] for flag, word in zip(words, words[1:]) if flag == "-m"]
            if set(modules) & set(PACKAGES) and process.environ().get(_MARK) == mark:
                found.append(process.pid)
        except psutil.Error:  # gone meanwhile, or another user's
            continue
    return found
