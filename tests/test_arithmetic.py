"""Pinned arithmetic: a run's bytes do not depend on what the environment says about the processor."""

import os
import subprocess
import sys

import pytest
import torch
import yaml
from conftest import experiment_document, write_world

from metaapo.arithmetic import PIN
from metaapo.experiment import resolve

ENVIRONMENTS = {"unset": {}, "lowered": {"ATEN_CPU_CAPABILITY": "default"}, "avx2": {"ATEN_CPU_CAPABILITY": "avx2"}}


def weights_after_training(folder, beforehand, pinned):
    """The bytes of a tiny DPO policy that was trained in a process of its own."""
    document = experiment_document(folder, iterations=1, hardware={"pinned_arithmetic": pinned})
    experiment = resolve(document)
    write_world(experiment.world_path(0))
    config = folder / "config.yaml"
    config.write_text(yaml.safe_dump(document))
    environment = {name: value for name, value in os.environ.items() if name not in PIN} | beforehand
    command = [sys.executable, "-m", "metaapo.train", "--config", str(config), "--run", "dpo/budget1.0/seed0"]
    subprocess.run(command, env=environment, check=True, capture_output=True)
    run = experiment.results / "runs" / "dpo" / "budget1.0" / "seed0"
    return (run / "iter1" / "model" / "model.safetensors").read_bytes()


@pytest.mark.skipif(torch.backends.cpu.get_cpu_capability() == "DEFAULT", reason="needs a CPU with AVX2")
def test_the_pin_wins_over_the_environment(tmp_path):
    trained = {}
    for name, beforehand in ENVIRONMENTS.items():
        (tmp_path / name).mkdir()
        trained[name] = weights_after_training(tmp_path / name, beforehand, pinned=True)
    assert trained["unset"] == trained["lowered"] == trained["avx2"]
    (tmp_path / "free").mkdir()
    free = weights_after_training(tmp_path / "free", ENVIRONMENTS["lowered"], pinned=False)
    assert free != trained["lowered"]  # the variable matters: without the pin it changes the bytes
