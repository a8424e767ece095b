"""`reports.check` distinguishes another training run from another experiment."""

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from metaapo.data import DataError, write_json
from reports import check

METHODS, METRICS = ("dpo", "online_dpo", "metaapo"), ("win_rate", "length_controlled_winrate", "average")


def scores(rng, worlds=6, seeds_per_world=1, shift=0.0, shifted=("online_dpo", "metaapo"), truth=None):
    """A score table: each method has a level in each world, each run has training noise."""
    truth = np.random.default_rng(7).normal(60, 4, (len(METHODS), worlds, len(METRICS))) if truth is None else truth
    rows = []
    for m, method in enumerate(METHODS):
        for seed in range(worlds * seeds_per_world):
            world, noise = seed % worlds, rng.normal(0, 0.5)
            for k, metric in enumerate(METRICS):
                value = truth[m, world, k] + noise + rng.normal(0, 0.5) + shift * (method in shifted)
                row = {"method": method, "budget": "1.0", "seed": seed, "world": world, "iteration": 3}
                row |= {"benchmark": "mtbench", "judge": "gold", "metric": metric, "value": value}
                rows.append(row | {"annotation_ratio_total": 0.6 if method == "metaapo" else float(m)})
    return pd.DataFrame(rows)


def folder(path, frame, verdicts=None):
    path.mkdir()
    frame.to_csv(path / "scores.csv", index=False)
    write_json(
        path / "claims.json", [{"id": id, "verdict": v} for id, v in (verdicts or {"C1": "inconclusive"}).items()]
    )
    return path


def rejections(shift, repeats=100):
    rng = np.random.default_rng(1)
    tables = ((scores(rng, shift=shift), scores(rng)) for _ in range(repeats))
    p_values = [check.joint_test(check.compare_scores(*pair))[0] for pair in tables]
    return np.mean(np.array(p_values) < check.LEVEL)


def test_a_rerun_disagrees_by_chance_in_at_most_5_percent_and_a_bias_of_two_noise_levels_is_found():
    assert rejections(0.0) <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 100)
    assert rejections(1.5) > 0.8


def test_the_sign_flip_test_is_exact():
    table = np.array([[3.0, 1.0, 2.0, 4.0, 1.5, 2.5]])  # all positive: only this pattern (and its mirror) is as extreme
    assert check._sign_flip(table, 0) == 1 / 32


def test_other_seeds_of_the_same_worlds_agree_and_the_report_names_what_was_compared(tmp_path):
    rng = np.random.default_rng(3)
    new, old = folder(tmp_path / "new", scores(rng)), folder(tmp_path / "old", scores(rng))
    found = check.check(new, old)
    assert found["agree"]
    assert not found["identical"]
    assert found["n_scores"] == len(METHODS) * (len(METRICS) + 1)
    assert {c["metric"] for c in found["comparisons"]} == {*METRICS, "annotation_ratio_total"}
    assert all(c["low"] <= c["reference"] <= c["high"] for c in found["comparisons"])


def test_a_folder_agrees_with_itself(tmp_path):
    old = folder(tmp_path / "old", scores(np.random.default_rng(3)))
    found = check.check(old, old)
    assert (found["agree"], found["identical"], found["p_value"], found["outside"]) == (True, True, 1.0, 0)
    assert found["test"] == "none needed: no score differs in any of 6 worlds"


def test_with_equal_seeds_and_arithmetic_a_method_that_differs_at_all_was_changed(tmp_path):
    frame = scores(np.random.default_rng(3))
    old = folder(tmp_path / "old", frame)
    frame.loc[(frame["method"] == "metaapo") & (frame["seed"] == 2), "value"] += 0.001
    found = check.check(folder(tmp_path / "new", frame), old)
    assert (found["agree"], found["changed"]) == (False, ["metaapo/1.0"])
    frame["value"] += 0.001  # other arithmetic: no method is the same, so nothing shows that one was changed
    assert check.check(folder(tmp_path / "other", frame), old)["changed"] == []
    frame = scores(np.random.default_rng(3))
    frame.loc[frame["method"] == "metaapo", "seed"] += 100  # other seeds may give other scores
    frame.loc[frame["method"] == "metaapo", "value"] += 0.001
    assert check.check(folder(tmp_path / "seeds", frame), old)["changed"] == []


def test_the_registered_endpoint_decides_and_not_a_secondary_score(tmp_path):
    rng = np.random.default_rng(3)
    old, new = scores(rng), scores(rng)
    new.loc[new["metric"] == "average", "value"] += 30 + new["world"]  # not the endpoint
    folders = [folder(tmp_path / name, frame) for name, frame in (("new", new), ("old", old))]
    assert not check.check(*folders)["agree"]
    write_json(folders[1] / "plan.lock", {"plan": {"endpoint": ["mtbench", "win_rate"]}})
    found = check.check(*folders)
    assert found["agree"]
    assert found["test"] == "sign flips of 6 worlds, 3 scores"
    assert any(c["inside"] is False for c in found["comparisons"] if c["metric"] == "average")


def test_a_reversed_verdict_disagrees_for_any_scores(tmp_path):
    frame = scores(np.random.default_rng(3))
    new = folder(tmp_path / "new", frame, {"C1": "worse", "C2": "inconclusive"})
    found = check.check(new, folder(tmp_path / "old", frame, {"C1": "supported", "C2": "supported"}))
    assert not found["agree"]
    assert found["conclusions"] == [
        {"id": "C1", "run": "worse", "reference": "supported"},
        {"id": "C2", "run": "inconclusive", "reference": "supported"},
    ]


def test_seeds_of_one_world_count_as_one_observation():
    rng = np.random.default_rng(3)
    [first, *_] = check.compare_scores(scores(rng, worlds=3, seeds_per_world=4), scores(rng, worlds=3))
    assert len(first.differences) == 3


def test_without_common_worlds_the_interval_is_for_another_sample_of_worlds():
    rng = np.random.default_rng(3)
    other = scores(rng, truth=np.random.default_rng(8).normal(60, 4, (len(METHODS), 6, len(METRICS))))
    other["world"] += 10
    found = check.compare_scores(other, scores(rng))
    assert {len(c.differences) for c in found} == {0}
    paired = check.compare_scores(scores(rng), scores(rng))
    assert found[0].high - found[0].low > 3 * (paired[0].high - paired[0].low)


def test_one_world_leaves_nothing_to_test_and_says_so(tmp_path):
    rng = np.random.default_rng(3)
    found = check.check(folder(tmp_path / "a", scores(rng, worlds=1)), folder(tmp_path / "b", scores(rng, worlds=1)))
    assert found["p_value"] is None
    assert found["test"].startswith("none")
    assert {c["inside"] for c in found["comparisons"]} == {None}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        ("", "not a score table"),
        ("a,b\n1,2\n", "missing columns"),
        ("only the SFT policy", "no trained method found"),
    ],
)
def test_a_bad_folder_is_explained_in_a_sentence(tmp_path, content, message):
    if content == "only the SFT policy":
        scores(np.random.default_rng(0)).assign(iteration=0).to_csv(tmp_path / "scores.csv")
    elif content is not None:
        (tmp_path / "scores.csv").write_text(content)
    with pytest.raises(DataError, match=message):
        check.read_scores(tmp_path)


def test_the_command_prints_json_and_its_status_says_whether_they_agree(tmp_path):
    rng = np.random.default_rng(3)
    old, biased = folder(tmp_path / "old", scores(rng)), folder(tmp_path / "biased", scores(rng, shift=4.0))
    for new, status in ((old, 0), (biased, 1), (tmp_path / "nothing", 2)):
        command = [sys.executable, "-m", "reports.check", "--run", str(new), "--reference", str(old)]
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
        assert answer.returncode == status
        if new == tmp_path / "nothing":
            assert answer.stderr.startswith("error: ")
            assert "Traceback" not in answer.stderr
        else:
            assert json.loads(answer.stdout)["agree"] is (status == 0)
