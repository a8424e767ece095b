"""The specification curve: the registered analysis first, every other one from the same runs."""

import pytest
from synthetic_results import FakeMethod, everything, write_results

from metaapo.data import read_json, write_json
from metaapo.experiment import load
from reports import claims, collect
from reports.runs import Results
from reports.spec_curve import FILE, Specification, agreement, spec_curve, specifications, write

REGISTERED = {"margin": "as registered", "correction": "Holm", "cut": "all runs", "fidelity": "metaapo"}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    official = FakeMethod(40, (0.62, 0.55, 0.50), learns=True, config={"fidelity": {"score": "official-code"}})
    path = write_results(
        tmp_path_factory.mktemp("curve"),
        methods=everything(metaapo=70) | {"metaapo_published": official},
        seeds=(0, 1, 2, 3),
        questions=8,
        benchmarks=("pooled", "mtbench"),
    )
    text = path.read_text().replace("module: dpo\n    fidelity", "module: metaapo\n    fidelity")
    path.write_text(text)
    found = Results(load(path))
    collect.collect(found.experiment)
    write_json(found.folder / "claims.json", claims.verdicts(found))
    write(found)
    return found


@pytest.fixture(scope="module")
def curve(results):
    return read_json(results.folder / FILE)


def test_the_first_specification_is_the_registered_one_and_gives_the_verdicts_of_claims_json(results, curve):
    first = curve["specifications"][0]
    assert first == asdict_of("pooled win_rate", "gold")
    assert [claim["verdict"] for claim in curve["claims"]] == [claim["verdict"] for claim in results.claims]


def asdict_of(metric, judge):
    return Specification(metric=metric, judge=judge, **REGISTERED).__dict__


def test_every_choice_is_crossed_with_every_other(curve):
    found = curve["specifications"]
    assert len({tuple(s.values()) for s in found}) == len(found) == 2 * 3 * 3 * 2 * 2
    assert {s["fidelity"] for s in found} == {"metaapo", "metaapo_published"}


def test_a_fidelity_switch_whose_runs_lose_changes_the_verdict_and_the_share_shows_it(curve):
    [claim] = [claim for claim in curve["claims"] if claim["id"] == "C3"]
    found = zip(curve["specifications"], claim["verdicts"])
    verdicts = [v for s, v in found if (s["fidelity"], s["metric"]) == ("metaapo_published", "pooled win_rate")]
    assert "worse" in verdicts
    assert "supported" not in verdicts
    assert claim["verdict"] == "supported"
    assert 0.2 < claim["share"] == claim["agree"] / claim["n"] <= 0.5


def test_wider_margins_never_make_it_harder_to_call_methods_equivalent(curve):
    for claim in curve["claims"]:
        at = {tuple(s.values()): v for s, v in zip(curve["specifications"], claim["verdicts"])}
        for (metric, margin, *rest), verdict in at.items():
            if margin == "half" and verdict == "equivalent":
                assert at[metric, "double", *rest] == "equivalent"


def test_runs_that_cut_their_answers_are_left_out_where_a_specification_says_so(results, curve):
    path = results.folder / "answers" / "metaapo/budget1.0"
    for seed in range(4):
        share = 0.5 if seed < 2 else 0.0
        files = {
            f"a/pooled/metaapo/budget1.0/seed{seed}/iter3.jsonl": {"n": 10, "turns": 10, "cut": 10 * share, "empty": 0}
        }
        write_json(path / f"seed{seed}.json", {"answers": files})
    from reports.spec_curve import Specified

    fresh = Results(results.experiment)
    kept = [
        len(
            Specified(fresh, "gold", ("pooled", "win_rate"), most, "metaapo").contrast(
                "metaapo", "dpo", "pooled", "win_rate"
            )
        )
        for most in (1.0, 0.03)
    ]
    assert kept == [4, 2]


def test_the_share_stands_beside_the_verdict_and_the_figure_has_a_row_for_each_claim(results, curve):
    said = agreement(results)
    tested = [claim for claim in curve["claims"] if claim["share"] is not None]
    assert set(said) == {claim["id"] for claim in tested}
    assert said["C3"].endswith("specifications of the analysis give this verdict")
    drawn = specifications(results)
    assert len(drawn.figure.axes[0].get_yticklabels()) == len(tested)
    assert len(drawn.data) == len(curve["specifications"])


def test_without_metaapo_there_is_nothing_to_draw(tmp_path):
    path = write_results(tmp_path, methods={"dpo": FakeMethod(54, (0.0,))}, seeds=(0,), iterations=1, questions=6)
    results = Results(load(path))
    collect.collect(results.experiment)
    assert all(claim["share"] is None for claim in spec_curve(results)["claims"])
    assert specifications(results) is None
