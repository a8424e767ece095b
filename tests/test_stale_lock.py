"""Locks left by a killed Snakemake are removed; locks of living processes are not."""

import os
import signal
import subprocess
import sys
import time

import pytest

from metaapo import PROJECT

RESULTS = "results/smoke"
LOCK = f"{RESULTS}/scores.csv\n"
CLAIM = f"""
import sys, time
sys.path.insert(0, {str(PROJECT)!r})
from metaapo import stale_lock
stale_lock._PATIENCE = 0.3
stale_lock.claim({RESULTS!r}, may_remove=len(sys.argv) == 1)
"""
WAIT = """
print("claimed", flush=True)
time.sleep(300)
"""
# What a job looks like from outside; it ends by itself if a test leaves it running.
JOB = """
import subprocess
job = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", "-m", "metaapo.train"])
print(job.pid, flush=True)
"""


@pytest.fixture
def lock(tmp_path):
    """Where Snakemake writes its lock, after the Snakefile is parsed."""
    path = tmp_path / ".snakemake" / "locks" / "0.output.lock"
    path.parent.mkdir(parents=True)
    return path


def start(folder, code=CLAIM + WAIT, *arguments):
    """Start a process that claims the experiment and stays alive."""
    command = [sys.executable, "-c", code, *arguments]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True)
    process.first_line = process.stdout.readline().strip()
    assert process.first_line
    return process


def kill(process):
    process.kill()
    process.wait()


def claim(folder, *arguments):
    """Claim the experiment and exit; return what was printed."""
    command = [sys.executable, "-c", CLAIM, *arguments]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stderr


def test_the_lock_of_a_killed_run_is_removed(tmp_path, lock):
    run = start(tmp_path)
    lock.write_text(LOCK)
    kill(run)
    assert lock.exists()
    assert "removed its lock" in claim(tmp_path)
    assert not lock.exists()


@pytest.mark.parametrize("kind", [(), ("job",)], ids=["run", "job of a run"])
def test_the_lock_of_a_living_run_stays(tmp_path, lock, kind):
    """A job may outlive its run on another cluster node: it parses the Snakefile too, so it counts as alive."""
    living = start(tmp_path, CLAIM + WAIT, *kind)
    lock.write_text(LOCK)
    claim(tmp_path)
    assert lock.exists()
    kill(living)
    claim(tmp_path)
    assert not lock.exists()


def test_a_job_removes_no_lock(tmp_path, lock):
    lock.write_text(LOCK)
    claim(tmp_path, "job")
    assert lock.exists()


def test_the_lock_stays_while_a_killed_runs_job_still_runs(tmp_path, lock):
    run = start(tmp_path, CLAIM + JOB + WAIT)
    job = run.first_line
    lock.write_text(LOCK)
    kill(run)
    try:
        assert f"jobs of a killed run are still running (processes {job})" in claim(tmp_path)
        assert lock.exists()
    finally:
        os.kill(int(job), signal.SIGKILL)
    claim(tmp_path)
    assert not lock.exists()


def test_another_experiments_lock_is_left_alone(tmp_path, lock):
    lock.write_text("results/smoke2/scores.csv\nreports/page.css\n")
    claim(tmp_path)
    assert lock.exists()


def test_another_machines_lock_stays(tmp_path, lock):
    """On some network file systems this machine cannot see that a process on the other is alive."""
    kill(start(tmp_path))
    lock.write_text(LOCK)
    (running,) = (tmp_path / ".snakemake" / "running").iterdir()
    running.write_text("another-boot\tanother-host\n")
    claim(tmp_path)
    assert lock.exists()


def test_containers_of_one_machine_and_restarts_of_it_are_the_same_machine(tmp_path, lock):
    kill(start(tmp_path))
    (running,) = (tmp_path / ".snakemake" / "running").iterdir()
    boot, host = running.read_text().strip().split("\t")
    for known in (f"{boot}\tanother-host\n", f"another-boot\t{host}\n"):
        running.write_text(known)
        lock.write_text(LOCK)
        claim(tmp_path)
        assert not lock.exists(), known


WORKFLOW = """
from metaapo.stale_lock import claim
claim("results/smoke", may_remove=workflow.is_main_process)

rule all:
    input:
        "results/smoke/1",
        "results/smoke/2",

rule one:
    output:
        "results/smoke/{n}",
    shell:
        "echo half > {output}; echo started >> jobs; test -e go || sleep 60; echo whole > {output}"
"""


def test_snakemake_resumes_after_kills_and_refuses_a_second_run(tmp_path):
    """The same command each time, with nothing in between."""
    (tmp_path / "Snakefile").write_text(WORKFLOW)
    command = [sys.executable, "-m", "snakemake", "--cores", "1", "--rerun-incomplete"]
    settings = {"cwd": tmp_path, "env": os.environ | {"PYTHONPATH": str(PROJECT)}, "text": True}
    jobs = tmp_path / "jobs"
    for killed in range(2):
        run = subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL, **settings)
        while not jobs.exists() or len(jobs.read_text().splitlines()) <= killed:
            assert run.poll() is None, "the run ended before it could be killed"
            time.sleep(0.02)
        if killed == 0:
            second = subprocess.Popen([*command, "--quiet"], stderr=subprocess.PIPE, **settings)
            assert "Directory cannot be locked" in second.communicate()[1]
            assert second.returncode != 0
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
    assert list((tmp_path / ".snakemake" / "locks").iterdir()) != []
    (tmp_path / "go").touch()
    last = subprocess.run(command, capture_output=True, check=False, **settings)
    assert last.returncode == 0, last.stderr
    assert [(tmp_path / "results" / "smoke" / name).read_text() for name in "12"] == ["whole\n"] * 2
