"""What methods declare, and that no other code knows them by name."""

import ast

import pytest

from metaapo import PROJECT, provenance
from metaapo.experiment import load, resolve
from metaapo.method import declaration_of, known_declarations, known_methods
from reports import roles

BASELINES = set(known_methods()) - {"metaapo"}
# By file: constants that are spelled like a baseline but mean something else.
OTHER_MEANINGS = {
    "metaapo/method.py": {"dpo", "ipo", "simpo", "kto"},  # objectives: functions of metaapo.losses, named by papers
    # objectives; `select: random`, a rule of sampling; and the official code's start, an entry of the configuration
    "metaapo/metaapo.py": {"dpo", "simpo", "random"},
    "reports/paper.py": {"online_dpo", "selm"},  # what the paper printed of them
}
CORE = [path for folder in ("metaapo", "eval", "reports") for path in sorted((PROJECT / folder).rglob("*.py"))]


@pytest.mark.parametrize("path", CORE, ids=lambda path: str(path.relative_to(PROJECT)))
def test_no_module_outside_baselines_names_a_baseline(path):
    constants = {node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)}
    assert constants & BASELINES <= OTHER_MEANINGS.get(str(path.relative_to(PROJECT)), set())


@pytest.mark.parametrize("name", known_methods())
def test_a_method_samples_nothing_online_exactly_where_it_is_offline_or_not_trained(name):
    declared = declaration_of(name)
    assert (declared.sampled == 0) == (declared.family == "offline" or not declared.trains)


def test_each_role_that_a_claim_needs_is_declared_by_one_module():
    assert roles.modules_that(roles.full_budget) == ["online_dpo"]
    assert roles.modules_that(roles.matched_random) == ["random"]
    assert roles.modules_that(roles.required) == ["dpo", "online_dpo", "ppo", "selm"]


def test_colours_and_markers_are_distinct():
    looks = [declared.look for declared in known_declarations().values() if declared.look]
    assert len({color for color, _ in looks}) == len({marker for _, marker in looks}) == len(looks)


def document(**methods):
    return {"experiment": "t", "seeds": [0], "methods": methods}


def test_baselines_are_ordered_by_family_and_the_configuration_can_exclude_one():
    methods = {"selm": {}, "online_dpo": {}, "other": {"module": "online_dpo"}, "dpo": {}, "metaapo": {}, "random": {}}
    assert roles.baselines(resolve(document(**methods))) == ["dpo", "online_dpo", "other", "selm"]
    methods["other"]["role"] = "control"
    assert roles.baselines(resolve(document(**methods))) == ["dpo", "online_dpo", "selm"]


def test_a_role_goes_to_the_entry_named_like_its_module_else_to_the_first_that_uses_it():
    named = {"other": {"module": "online_dpo"}, "online_dpo": {}}
    assert roles.first_that(resolve(document(**named)), roles.full_budget) == "online_dpo"
    del named["online_dpo"]
    assert roles.first_that(resolve(document(**named)), roles.full_budget) == "other"
    assert roles.first_that(resolve(document(dpo={})), roles.full_budget) is None


def test_a_released_checkpoint_under_a_methods_name_represents_it():
    released = {"module": "released", "checkpoint": {"path": "org/model"}}
    assert roles.baselines(resolve(document(dpo=released, released_ppo=released))) == ["dpo"]


def test_an_entrys_role_and_a_modules_declaration_make_no_run_out_of_date(tmp_path):
    experiment = load(PROJECT / "config" / "controls.yaml")
    assert "role" not in experiment.method_config("online_dpo_from_sft")["params"]
    codes = []
    for title in ("One", "Two"):
        path = tmp_path / f"{title}.py"
        path.write_text(f'from metaapo.method import Declaration\n\nDECLARATION = Declaration(title="{title}")\n')
        codes.append(provenance._statements(path))
    assert codes[0] == codes[1]
