"""The shipped experiments: comparable with each other, complete, and fair."""

import pytest

from metaapo import PROJECT
from metaapo.experiment import load
from metaapo.method import known_declarations, known_methods, module_of

SMALL_WORLD = ("ablations", "controls", "budget", "full", "assay")
# Instruments of the assay (docs/assay.md), which have the settings of what they are compared with
INSTRUMENTS = {name for name, declared in known_declarations().items() if declared.dose_response or declared.reads_gold}
DEFAULT = load(PROJECT / "config" / "default.yaml")


@pytest.mark.parametrize("name", SMALL_WORLD)
def test_experiments_differ_from_the_default_in_methods_and_seeds_only(name):
    experiment, plain = load(PROJECT / "config" / f"{name}.yaml").dump(), DEFAULT.dump()
    for section in set(plain) - {"experiment", "seeds", "methods", "assay"}:
        own, others = dict(experiment)[section], plain[section]
        if section == "world":
            own, others = ({k: v for k, v in part.items() if k != "seeds"} for part in (own, others))
        assert own == others, section


@pytest.mark.parametrize("name", SMALL_WORLD)
def test_what_is_shared_with_the_default_has_the_same_settings(name):
    experiment = load(PROJECT / "config" / f"{name}.yaml")
    for method in set(experiment.methods) & set(DEFAULT.methods):
        assert experiment.method_config(method) == DEFAULT.method_config(method)


@pytest.mark.parametrize("name", SMALL_WORLD)
def test_an_ablation_trains_as_metaapo_does(name):
    """Learning rate and beta equal MetaAPO's; only an entry's subject may differ: its objective, start or reference."""
    experiment = load(PROJECT / "config" / f"{name}.yaml")
    for method, entry in experiment.methods.items():
        if module_of(method, entry) == "metaapo.metaapo" and entry.objective == "dpo":
            own, metaapo = (
                experiment.train_of(m).model_dump(exclude={"start", "reference"}) for m in (method, "metaapo")
            )
            assert own == metaapo, method


@pytest.mark.parametrize("name", ["full", "smoke"])
def test_the_full_and_the_smoke_experiment_have_every_method(name):
    experiment = load(PROJECT / "config" / f"{name}.yaml")
    modules = {entry.module or name for name, entry in experiment.methods.items()}
    assert modules | INSTRUMENTS == set(known_methods()) - {"released"}  # a released checkpoint, for real models


def test_every_seed_of_the_full_experiment_has_a_separate_world():
    experiment = load(PROJECT / "config" / "full.yaml")
    assert len({experiment.world_of(seed) for seed in experiment.seeds}) == len(experiment.seeds) > 1


def test_the_full_experiment_has_what_the_claims_compare():
    from reports.claims import CLAIMS
    from reports.evidence import entries

    experiment = load(PROJECT / "config" / "full.yaml")
    needed = {name for claim in CLAIMS for group in claim.required for name in group}
    assert needed <= set(entries(experiment))


def tuned():
    """Learning rate and beta of each method's best trial, printed in bold in docs/tuning.md."""
    found = {}
    for line in (PROJECT / "docs" / "tuning.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 9 and cells[3].startswith("**"):
            found[cells[0]] = (float(cells[1]), float(cells[2]))
    return found


@pytest.mark.parametrize("name", ["default", *SMALL_WORLD])
def test_every_method_trains_with_its_tuned_settings(name):
    experiment, settings = load(PROJECT / "config" / f"{name}.yaml"), tuned()
    assert set(settings) == set(known_methods()) - INSTRUMENTS - {"random", "released"}
    for method in set(experiment.methods) & set(settings):
        train = experiment.train_of(method)
        assert (train.lr, train.beta) == settings[method], method
