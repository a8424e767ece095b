"""Imports between packages point one way: rules -> methods -> loop -> tensor functions and records."""

import ast

import pytest

from metaapo import PROJECT
from metaapo.experiment import load
from metaapo.loop.run import modules_of
from metaapo.method import OBJECTIVES, known_methods
from metaapo.provenance import code_of, imports_of

SMOKE = load(PROJECT / "config" / "smoke.yaml")
PACKAGES = ("metaapo", "baselines", "eval", "reports")
TRAINING = ("metaapo/loop", "metaapo/models", "metaapo/policy_gradient.py", "metaapo/meta_learner.py", "baselines")


def modules(package):
    """Importable names of all modules in a package."""
    files = sorted((PROJECT / package).rglob("*.py"))
    names = [".".join(file.relative_to(PROJECT).with_suffix("").parts).removesuffix(".__init__") for file in files]
    assert len(names) > 5
    return names


def code_below(*names):
    """The files that modules run, including late imports, as text."""
    return {path.as_posix() for path in code_of(*names)}


def below(files, *folders):
    return sorted(file for file in files if file.startswith(folders))


def test_training_imports_nothing_from_evaluation_or_reports():
    assert not below(code_below(*modules("metaapo"), *modules("baselines")), "eval/", "reports/")


def test_evaluation_imports_neither_reports_nor_baselines():
    assert not below(code_below(*modules("eval")), "reports/", "baselines/")


@pytest.mark.parametrize("name", modules("reports"))
def test_reports_import_neither_worlds_nor_training(name):
    """Late imports included; `reports.replay` may run evaluation to score stored judgments again."""
    forbidden = ("metaapo.worlds", "metaapo.loop", "metaapo.models", "metaapo.meta_learner", "baselines")
    assert not [module for module in imports_of(name) if module.startswith(forbidden)]
    assert not below(code_below("eval.stats"), "metaapo/worlds/", *TRAINING)


def test_only_the_aim_of_selection_samples_and_annotates_with_the_loop():
    assert {"metaapo/loop/online.py", "metaapo/loop/annotate.py", "metaapo/loop/sampling.py"} <= code_below("eval.aim")


def test_judging_depends_on_models_and_worlds_but_not_on_the_training_loop():
    files = code_below(*set(modules("eval")) - {"eval.aim"})
    assert {"eval/judges/reward_model.py", "metaapo/models/rewards.py", "metaapo/models/generate.py"} <= files
    assert not below(files, "metaapo/loop/", "baselines/")


def test_the_loop_imports_no_method_and_no_world():
    files = code_below(*modules("metaapo/loop"))
    assert "metaapo/loop/trainer.py" in files
    assert not below(files, "metaapo/metaapo.py", "metaapo/meta_learner.py", "metaapo/worlds/", "baselines/")


def test_pure_modules_import_no_module_with_effects():
    for name in ("metaapo.loop.step", "metaapo.loop.ledger", "metaapo.losses", "metaapo.selection"):
        assert below(code_below(name), "metaapo/loop/") in (
            ["metaapo/loop/__init__.py", f"{name.replace('.', '/')}.py"],
            [],
        ), name


def circle_through(name, imports, path=()):
    """A chain of imports that leads back to its start, or None."""
    if name in path:
        return [*path[path.index(name) :], name]
    return next((found for n in imports[name] if (found := circle_through(n, imports, (*path, name)))), None)


def without_leaves(imports):
    """Imports among the modules that may be part of a circle; modules that import nothing else are removed."""
    while leaves := {name for name, others in imports.items() if not others}:
        imports = {name: others - leaves for name, others in imports.items() if name not in leaves}
    return imports


def test_nothing_imports_the_conformance_kit_and_its_answers_import_no_training():
    everything = [name for package in PACKAGES for name in modules(package)]
    assert not below(code_below(*everything), "conformance/")
    assert code_below("conformance.answers") == {f"conformance/{name}.py" for name in ("__init__", "answers", "exact")}


def test_no_modules_import_each_other_in_a_circle():
    names = [name for package in PACKAGES for name in modules(package)]
    imports = {name: set(imports_of(name, late=False)) & set(names) for name in names}
    assert imports["metaapo.loop.trainer"] >= {"metaapo.loop.epoch", "metaapo.loop.workbench"}
    left = without_leaves(imports)
    assert not left, circle_through(next(iter(left)), left)


def test_a_circle_would_be_found():
    assert without_leaves({"a": {"b"}, "b": {"a"}, "c": {"a"}, "d": set()}).keys() == {"a", "b", "c"}
    assert circle_through("c", {"a": {"b"}, "b": {"a"}, "c": {"a"}}) == ["a", "b", "a"]
    assert without_leaves({"a": {"b"}, "b": {"c"}, "c": set()}) == {}


# --- what a run's stamp covers ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", SMOKE.methods)
def test_a_run_depends_on_its_method_the_loop_and_both_ways_to_sample(method):
    files = code_below(*modules_of(method, SMOKE))
    assert {"metaapo/models/generate.py", "metaapo/models/vllm_worker.py", "metaapo/train.py"} <= files
    assert {f"metaapo/loop/{path.name}" for path in (PROJECT / "metaapo" / "loop").glob("*.py")} <= files
    assert f"{modules_of(method, SMOKE)[1].replace('.', '/')}.py" in files
    assert ("metaapo/policy_gradient.py" in files) == (method == "ppo")


# --- names ------------------------------------------------------------------------------------------------------------


def strings(path):
    """The string constants of a module."""
    return {
        n.value for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Constant) and type(n.value) is str
    }


def test_neither_the_loop_nor_the_schema_names_a_baseline():
    names = set(known_methods()) - {"metaapo", "random"}
    loop = [*(PROJECT / "metaapo" / "loop").glob("*.py"), *(PROJECT / "metaapo" / "models").glob("*.py")]
    core = [PROJECT / "metaapo" / f"{name}.py" for name in ("config", "experiment", "train", "selection", "losses")]
    for path in [*loop, *core]:
        assert not names & strings(path), path
    assert names & strings(PROJECT / "metaapo" / "method.py") == names & set(OBJECTIVES)
