"""Error rates beside the verdicts: the experiment's own, or those of a kept one that was planned alike."""

import pytest
import yaml
from synthetic_results import write_results

from metaapo.data import write_json
from metaapo.experiment import load
from reports.calibration import calibration
from reports.registration import LOCK, register
from reports.runs import Results


def row(name, value):
    return {
        "name": name,
        "value": value,
        "ci_low": 0.0,
        "ci_high": 0.1,
        "low": None,
        "high": None,
        "unit": "",
        "ok": True,
        "note": "n",
    }


ASSAY = [row("dose_response", 3.0), row("planted_3", 2.9), row("aa_supported", 0.01)]


@pytest.fixture
def config(tmp_path):
    return write_results(tmp_path, seeds=(0, 1), iterations=1, questions=6, benchmarks=("pooled",))


@pytest.fixture
def kept(tmp_path, config):
    """A kept assay with other methods, planned with the same settings."""
    document = yaml.safe_load(config.read_text())
    path = tmp_path / "other.yaml"
    path.write_text(yaml.safe_dump(document | {"experiment": "assay", "results_dir": str(tmp_path / "kept")}))
    register(load(path))
    write_json(tmp_path / "kept" / "assay" / "assay.json", ASSAY)
    return tmp_path / "kept"


def test_without_own_measurements_those_of_the_kept_assay_are_shown(config, kept):
    found = calibration(Results(load(config)), kept)
    assert found["source"] == "docs/results/assay"
    assert [shown["value"] for shown in found["rows"]] == [2.9, 0.01]
    assert found["simulated"] == []


def test_own_measurements_come_first(config, kept):
    experiment = load(config)
    write_json(experiment.results / "assay.json", [row("aa_against", 0.02)])
    assert calibration(Results(experiment), kept)["source"] == "this experiment"


def test_an_assay_of_other_settings_is_not_shown(config, kept):
    document = yaml.safe_load(config.read_text())
    config.write_text(yaml.safe_dump(document | {"train": document.get("train", {}) | {"beta": 0.3}}))
    assert calibration(Results(load(config)), kept) == {"source": "", "rows": [], "simulated": []}


def test_simulated_rates_are_those_of_the_kept_file(config, kept):
    rates = {"truth": "all null", "seed_sd": 0.0, "simulated": 10, "fixed": 0.0, "registered": 0.0, "unregistered": 0.1}
    write_json(kept / "error_rates.json", {"looks": [6], "rows": [rates]})
    assert calibration(Results(load(config)), kept)["simulated"] == [rates]


def test_the_kept_plan_is_needed(config, kept):
    (kept / "assay" / LOCK).unlink()
    assert calibration(Results(load(config)), kept)["rows"] == []
