"""The RO-Crate of an experiment names its workflow, inputs, results and training runs."""

import argparse
import json

import pytest

from metaapo.data import DataError, write_json, write_text
from reports import crate

pytest.importorskip("rocrate", reason="pip install rocrate, or make .venv again")


@pytest.fixture
def results(tmp_path):
    """The files of a small finished experiment with two runs."""
    folder = tmp_path / "results"
    write_text(folder / "config.yaml", "experiment: small\n")
    for name in crate.RESULTS:
        write_text(folder / name, "{}\n")
    for seed in (0, 1):
        record = {
            "module": "baselines.dpo", "commit": f"{seed}" * 40, "packages": {"torch": "2.13.0", "peft": None},
            "finished": "2026-11-25T17:37:04Z", "totals": {"responses_scored": 96}, "seconds": 64.0,
        }  # fmt: skip
        write_json(folder / "runs" / "dpo" / "budget1.0" / f"seed{seed}" / "run.json", record)
    return folder


def command(*arguments):
    parser = argparse.ArgumentParser()
    crate.add_arguments(parser)
    return crate.run(parser.parse_args([str(argument) for argument in arguments]))


def entities(folder):
    graph = json.loads((folder / "ro-crate-metadata.json").read_text())["@graph"]
    return {entity["@id"]: entity for entity in graph}


def test_the_crate_holds_every_file_that_it_describes(results, tmp_path, capsys):
    assert command("--run", results, "--out", tmp_path / "crate", "--organization", "My lab") == 0
    found = entities(tmp_path / "crate")
    files = [part["@id"] for part in found["./"]["hasPart"]]
    assert {"Snakefile", "config.yaml", *crate.RESULTS, "runs/dpo/budget1.0/seed1/run.json"} <= set(files)
    assert all((tmp_path / "crate" / name).is_file() for name in files)
    assert {profile["@id"] for profile in found["./"]["conformsTo"]} == set(crate.PROFILES)
    assert found["./"]["mainEntity"] == {"@id": "Snakefile"}
    assert found["#organization"]["name"] == "My lab"


def test_a_training_run_is_an_action_with_its_annotations_commit_and_packages(results, tmp_path):
    command("--run", results, "--out", tmp_path / "crate")
    found = entities(tmp_path / "crate")
    action = found["#train-dpo-budget1.0-seed1"]
    assert action["description"] == "96 annotations, 64 seconds"
    assert (action["startTime"], action["endTime"]) == ("2026-11-25T17:36:00+00:00", "2026-11-25T17:37:04+00:00")
    trainer = found[action["instrument"]["@id"]]
    assert (trainer["softwareVersion"], trainer["softwareRequirements"]) == ("1" * 40, "torch 2.13.0")
    assert {"@id": "#workflow-run"} in found["./"]["mentions"]
    assert "agent" not in action


@pytest.mark.slow
def test_the_validator_finds_nothing_to_correct(results, tmp_path):
    services = pytest.importorskip(
        "rocrate_validator.services", reason="pip install roc-validator; it fetches w3id.org"
    )
    from rocrate_validator.models import Severity

    command("--run", results, "--out", tmp_path / "crate")
    for profile in ("workflow-ro-crate", "process-run-crate", "workflow-run-crate"):
        found = services.validate(
            services.ValidationSettings(
                rocrate_uri=str(tmp_path / "crate"), profile_identifier=profile,
                requirement_severity=Severity.REQUIRED, skip_availability_check=True,
            )
        )  # fmt: skip
        assert [issue.message for issue in found.get_issues()] == []


def test_an_unfinished_experiment_has_no_crate(results, tmp_path, capsys):
    (results / "claims.json").unlink()
    with pytest.raises(DataError, match=r"claims.json is missing; finish the experiment first"):
        crate.crate_of(results)
    assert command("--run", results, "--out", tmp_path / "crate") == 2
    assert not (tmp_path / "crate").exists()


def test_a_folder_that_exists_is_not_overwritten(results, capsys):
    assert command("--run", results, "--out", results) == 2
    assert "exists already" in capsys.readouterr().err
