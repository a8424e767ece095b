"""Start a training job on all nodes of a SLURM allocation: one launcher of accelerate per node.

    python -m metaapo.nodes 2 --config_file F --num_processes 16 -m metaapo.train ...

The arguments after the number of nodes are those of `accelerate launch`. Run once on any node of the allocation, it
starts itself on each of them with srun; there, SLURM's environment gives the machine's rank. The first node's name is
the address where the processes meet.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping

HERE = "--here"
FIRST_PORT, PORTS = 20000, 20000  # a port per job, so that two jobs on one node do not meet


def main() -> None:
    """Command line: become srun, or on each node the launcher."""
    nodes, arguments = int(sys.argv[1]), sys.argv[2:]
    if "SLURM_JOB_ID" not in os.environ:
        sys.exit(
            "error: hardware.nodes is above 1, and only SLURM starts several nodes; use profiles/slurm, or start "
            "`accelerate launch --machine_rank R --main_process_ip A` on each machine yourself (docs/scaling.md)"
        )
    if arguments[:1] == [HERE]:
        command = launch_command(os.environ, nodes, arguments[1], arguments[2:])
    else:
        hosts = allocated_hosts(os.environ["SLURM_JOB_ID"])
        if len(hosts) != nodes:
            sys.exit(f"error: hardware.nodes is {nodes}, but the SLURM job has {len(hosts)}; check its resources")
        command = srun_command(os.environ["SLURM_JOB_ID"], nodes, hosts[0], arguments)
    os.execvp(command[0], command)


def srun_command(job: str, nodes: int, address: str, arguments: list[str]) -> list[str]:
    """The command that starts this module once on every node of the allocation; if one ends badly, all end."""
    each = [f"--jobid={job}", "--overlap", f"--nodes={nodes}", f"--ntasks={nodes}", "--ntasks-per-node=1"]
    module = [sys.executable, "-m", "metaapo.nodes", str(nodes), HERE, address]
    return ["srun", *each, "--kill-on-bad-exit=1", *module, *arguments]


def launch_command(environment: Mapping[str, str], nodes: int, address: str, arguments: list[str]) -> list[str]:
    """The launcher of this node.

    Args:
        environment: SLURM's variables.
        nodes: number of nodes.
        address: name of the first node.
        arguments: of `accelerate launch`.
    """
    port = FIRST_PORT + int(environment["SLURM_JOB_ID"]) % PORTS
    place = ["--num_machines", str(nodes), "--machine_rank", environment["SLURM_PROCID"]]
    return ["accelerate", "launch", *place, "--main_process_ip", address, "--main_process_port", str(port), *arguments]


def allocated_hosts(job: str) -> list[str]:
    """Names of a job's nodes, from SLURM itself: Snakemake's jobs do not see all of its variables."""
    nodes = _scontrol("show", "job", job).partition(" NodeList=")[2].split()[0]
    return _scontrol("show", "hostnames", nodes).split()


def _scontrol(*arguments: str) -> str:
    return subprocess.run(["scontrol", *arguments], capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    main()
