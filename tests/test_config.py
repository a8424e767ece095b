"""Configuration: every mistake gives one sentence that names the key and the fix, before any work is done."""

import subprocess
import sys

import pytest
import yaml

from metaapo import PROJECT
from metaapo.config import ConfigError
from metaapo.experiment import Run, load, resolve

MINIMAL = {"experiment": "test", "seeds": [0], "methods": {"dpo": {}}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": [1]}, r"seed: unknown key; did you mean 'seeds'\?"),
        ({"train": {"learning_rat": 1}}, r"train\.learning_rat: unknown key"),
        ({"train": {"bata": 1}}, r"train\.bata: unknown key; did you mean 'beta'\?"),
        ({"train": {"lr": "fast"}}, r"train\.lr: .*valid number.*found 'fast'"),
        ({"train": {"beta": -1}}, r"train\.beta: .*greater than 0.*found -1"),
        ({"train": {"batch_size": 10, "micro_batch_size": 4}}, r"train: micro_batch_size 4 must divide batch_size 10"),
        ({"seeds": []}, r"seeds: .*at least 1 item"),
        ({"seeds": [1, 1]}, r"seeds: seeds must be distinct"),
        ({"methods": {"dp": {}}}, r"methods\.dp: unknown method 'dp'; did you mean 'dpo'\? known: metaapo, .*dpo"),
        ({"methods": {"metaapo": {"tmeta": 3}}}, r"methods\.metaapo\.tmeta: unknown key; did you mean 't_meta'\?"),
        ({"methods": {"dpo": {"train": {"lrr": 3}}}}, r"methods\.dpo\.train\.lrr: unknown key; did you mean 'lr'\?"),
        ({"methods": {"dpo": {"budget": [1.5]}}}, r"methods\.dpo\.budget: each budget must be above 0 and at most 1"),
        ({"methods": {"random": {}}}, r"methods\.random: needs the method 'metaapo'; add it under methods"),
        ({"methods": {"metaapo": {"fidelity": "papr"}}}, r"methods\.metaapo\.fidelity\.score: .*'paper'"),
        ({"methods": {"metaapo": {"fidelity": "official-code"}}}, r"needs the method 'dpo'"),
        (
            {"evaluation": {"benchmarks": ["alpaca"]}},
            r"evaluation\.benchmarks: unknown benchmark 'alpaca'; did you mean 'alpacaeval2'",
        ),
        ({"world": {"name": "ultrafeedback"}}, r"world\.dataset\.path: this key is required where world\.name is"),
        ({"world": {"dataset": {"path": "x"}}}, r"world\.dataset\.path: the tiny world makes its own"),
        ({"sft": {"checkpoint": {"revison": "x"}}}, r"sft\.checkpoint\.revison: unknown key; did you mean 'revision'"),
    ],
)
def test_mistakes_are_reported(change, message):
    with pytest.raises(ConfigError, match=message):
        resolve(MINIMAL | change)


@pytest.mark.parametrize("document", [None, [], "dpo"])
def test_a_document_that_is_not_a_mapping_is_an_error(document):
    with pytest.raises(ConfigError, match="expected a mapping"):
        resolve(document)


def test_a_missing_file_and_broken_yaml_are_reported(tmp_path):
    with pytest.raises(ConfigError, match="nowhere.yaml: cannot be read"):
        load(tmp_path / "nowhere.yaml")
    (tmp_path / "broken.yaml").write_text("a: [1")
    with pytest.raises(ConfigError, match="broken.yaml: not valid YAML"):
        load(tmp_path / "broken.yaml")


@pytest.mark.parametrize("path", sorted((PROJECT / "config").glob("*.yaml")), ids=lambda p: p.stem)
def test_shipped_configurations_are_valid_and_resolve_to_themselves(path):
    document = yaml.safe_load(path.read_text())
    if not isinstance(document.get("experiment"), str):  # judges, or a series of experiments
        pytest.skip("not an experiment")
    experiment = load(path)
    assert resolve(yaml.safe_load(yaml.safe_dump(experiment.dump()))) == experiment


def test_runs_are_methods_times_budgets_times_seeds():
    experiment = resolve(MINIMAL | {"seeds": [3, 4], "methods": {"dpo": {}, "online_dpo": {"budget": [0.25, 1]}}})
    assert experiment.run_ids() == [
        "dpo/budget1.0/seed3",
        "dpo/budget1.0/seed4",
        "online_dpo/budget0.25/seed3",
        "online_dpo/budget0.25/seed4",
        "online_dpo/budget1.0/seed3",
        "online_dpo/budget1.0/seed4",
    ]
    assert [Run.parse(run_id) for run_id in experiment.run_ids()] == experiment.runs()


def test_a_malformed_run_name_is_an_error():
    with pytest.raises(ConfigError, match="expected METHOD/budgetB/seedS"):
        Run.parse("dpo/seed0")


def test_official_code_changes_start_and_reference_of_that_method_only():
    methods = {"dpo": {}, "metaapo": {"fidelity": "official-code"}}
    experiment = resolve(MINIMAL | {"methods": methods})
    assert (experiment.train_of("metaapo").start, experiment.train_of("metaapo").reference) == ("dpo", "lagged")
    assert (experiment.train_of("dpo").start, experiment.train_of("dpo").reference) == ("sft", "fixed")
    assert experiment.needs(Run(method="metaapo", budget=1.0, seed=0)) == [Run(method="dpo", budget=1.0, seed=0)]


def test_reading_a_configuration_imports_no_torch():
    code = (
        "import sys; from metaapo.experiment import load; load('config/default.yaml'); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=PROJECT, check=False).returncode == 0


def test_the_documentation_of_the_keys_is_in_step_with_the_code():
    from metaapo.config_docs import reference

    written = (PROJECT / "docs" / "configuration.md").read_text()
    assert written == reference(), "refresh it: python -m metaapo.config_docs > docs/configuration.md"
