"""AlpacaEval 2: published weights, alpaca-eval's own code, and sound behaviour in small worlds."""

import json
import math
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
from evaldata import ROOT, shared

from eval.alpacaeval2 import length_control, preferences
from eval.alpacaeval2 import score as alpacaeval2
from eval.alpacaeval2.published import LEADERBOARD, PUBLISHED_C
from eval.benchmark import Judged
from eval.stats import interval_over_prompts
from metaapo.config import EvaluationConfig
from metaapo.data import DataError, read_json, read_records, write_json

MODELS = tuple(LEADERBOARD)


@pytest.fixture(scope="module")
def published():
    return read_json(shared("alpaca_eval/expected.json"))


@pytest.fixture(scope="module")
def gamed():
    return alpacaeval2.read_gamed(shared("alpaca_eval/df_gamed_surrogate.csv.gz"))


@pytest.fixture(scope="module")
def difficulty():
    return alpacaeval2.read_difficulty(shared("alpaca_eval/instruction_difficulty.csv"))


def annotations(name):
    return read_records(shared(f"alpaca_eval/annotations/{name}.jsonl.gz"))


def row(preference, len_1=100, len_2=100, **more):
    return {"preference": preference, "generator_1": "base", "generator_2": "m", "len_1": len_1, "len_2": len_2} | more


def small_world(n, rate_logit=0.2, length_effect=0.0, seed=0):
    """Annotations whose true win rate at equal length is the sigmoid of rate_logit, up to attenuation by noise."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(10, 60, size=(n, 2))
    relative = np.tanh((lengths[:, 1] - lengths[:, 0]) / 20)
    wins = rng.random(n) < 1 / (1 + np.exp(-(rate_logit + length_effect * relative)))
    return [row(1.0 + win, int(a), int(b)) for win, (a, b) in zip(wins, lengths)]


@pytest.mark.parametrize("name", MODELS)
def test_at_the_published_C_the_weights_are_the_published_ones(name, published, gamed, difficulty):
    result = alpacaeval2.score(annotations(name), difficulty, gamed, PUBLISHED_C[name], n_bootstrap=10)
    weights = published[name]["published_glm_weights"]
    assert result["length_control"]["weights"] == pytest.approx(
        weights, abs=0.02
    )  # some published rows come from older fits


@pytest.mark.parametrize("name", MODELS)
def test_by_cross_validation_it_equals_the_official_codes_result(name, published, gamed, difficulty):
    result = alpacaeval2.score(annotations(name), difficulty, gamed, "cv", n_bootstrap=10)
    official = published[name]["official_code_here"]["length_controlled_v1"]
    assert result["length_controlled_winrate"] == pytest.approx(official["lc"], abs=1e-5)
    assert result["length_control"]["C"] == pytest.approx(official["C"])
    assert result["length_controlled_winrate"] == pytest.approx(
        LEADERBOARD[name]["length_controlled_winrate"], abs=0.16
    )


@pytest.mark.parametrize("form", ["noreg", "minimal"])
@pytest.mark.parametrize("name", MODELS)
def test_the_other_official_forms_agree_too(name, form, published, difficulty):
    given = difficulty if form == "noreg" else None
    result = alpacaeval2.score(annotations(name), given, C="cv", n_bootstrap=10)
    official = published[name]["official_code_here"][f"length_controlled_{form}"]
    assert result["length_control"]["form"] == f"length_controlled_{form}"
    assert result["length_controlled_winrate"] == pytest.approx(official["lc"], abs=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_the_exact_solver_is_the_optimum_that_liblinear_approaches(name, published, gamed, difficulty):
    rows = annotations(name)
    preference = np.array([alpacaeval2._preference(r) for r in rows])
    delta = np.array([r["len_1"] - r["len_2"] for r in rows], float)
    design = length_control.design_of(delta, preference, difficulty, gamed)
    for C, lc in published[name]["official_code_here"]["lc_v1_at_fixed_C_tol_1e_10"].items():
        exact_C = min(np.logspace(-4, 4, 10), key=lambda c: abs(math.log(c / float(C))))
        weights, converged = length_control.refit(design, exact_C)
        assert converged
        assert length_control.predict(design, weights) == pytest.approx(lc, abs=1e-5)


def test_alpaca_evals_own_code_gives_the_same_numbers(monkeypatch, gamed):
    import sklearn
    from alpaca_eval.metrics import glm_winrate

    path = str(shared("alpaca_eval/df_gamed_surrogate.csv.gz"))
    monkeypatch.setattr(glm_winrate, "hf_hub_download", lambda **_: path)
    rows = [
        {**r, "output_1": "x" * r["len_1"], "output_2": "y" * r["len_2"]}
        for r in annotations("FuseChat-Gemma-2-9B-Instruct")
    ]
    rows = [{key: value for key, value in r.items() if not key.startswith("len_")} for r in rows]
    theirs = glm_winrate.get_length_controlled_winrate(rows, save_weights_dir=None)
    sklearn.set_config(enable_metadata_routing=False)  # alpaca-eval leaves it enabled globally
    ours = alpacaeval2.score(rows, gamed=gamed, n_bootstrap=10)
    for key in ("win_rate", "standard_error", "discrete_win_rate", "n_wins", "n_wins_base", "n_draws"):
        assert ours[key] == pytest.approx(theirs[key])
    assert ours["length_controlled_winrate"] == pytest.approx(theirs["length_controlled_winrate"], abs=1e-6)


def test_our_fit_leaves_scikit_learns_configuration_alone(gamed):
    import sklearn

    before = sklearn.get_config()
    alpacaeval2.score(annotations("claude-2"), gamed=gamed, n_bootstrap=2)
    assert sklearn.get_config() == before


@pytest.mark.parametrize("name", ["claude-2", "vicuna-7b-v1.5", "NullModel", "alpaca-7b_concise"])
def test_preferences_follow_from_the_stored_log_probabilities_and_the_order_of_the_answers(name):
    rows = [r for r in annotations(name) if r.get("top_logprobs")]
    assert len(rows) > 800
    for r in rows:
        switched = preferences.is_switched(r["instruction"])
        assert preferences.preference_from_logprobs(r["top_logprobs"], switched) == pytest.approx(r["preference"])


def test_a_missing_token_has_probability_zero_and_two_give_no_preference():
    assert preferences.preference_from_logprobs({"m": -0.1, "The": -3}) == 1
    assert preferences.preference_from_logprobs({"M": -0.1}) == 2
    assert preferences.preference_from_logprobs({"M": -0.1}, switched=True) == 1
    assert math.isnan(preferences.preference_from_logprobs({"The": -0.1}))
    assert math.isnan(preferences.preference_from_logprobs({}))
    openai = [{"token": "m", "logprob": math.log(0.2)}, {"token": "M", "logprob": math.log(0.6)}]
    assert preferences.preference_from_logprobs(openai) == pytest.approx(1.75)
    assert preferences.preference_from_logprobs({"m": -2000.0, "M": -2001.0}) == pytest.approx(
        2 - 1 / (1 + math.exp(-1))
    )


def test_the_order_is_random_but_fixed():
    order = [preferences.is_switched(f"instruction {i}") for i in range(400)]
    assert order == [preferences.is_switched(f"instruction {i}") for i in range(400)]
    assert 150 < sum(order) < 250


def test_a_judge_that_always_takes_the_first_answer_is_detected():
    rows = [row(2.0 if preferences.is_switched(f"q{i}") else 1.0, instruction=f"q{i}") for i in range(100)]
    assert alpacaeval2.score(rows)["first_slot_rate"] == 1


def test_rows_without_a_preference_count_only_as_failed():
    rows = [row(2.0), row(1.0), row(None), row(math.nan), row(7.0)]
    result = alpacaeval2.score(rows)
    assert (result["n"], result["n_failed"], result["win_rate"]) == (2, 3, 50)
    assert any("outside 1 to 2" in note for note in result["notes"])


def test_a_tie_is_half_a_win_and_upstreams_old_zero_is_a_tie():
    result = alpacaeval2.score([row(1.5), row(0), row(2.0), row(1.2)])
    assert (result["discrete_win_rate"], result["n_draws"]) == (50, 2)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("rows", "low", "high", "note"),
    [
        ([row(2.0, 50, i) for i in range(40)], 99.9, 100, "all preferences are equal"),
        ([row(1.0, 50, i) for i in range(40)], 0, 0.1, "all preferences are equal"),
        ([row(1.0 + i % 2) for i in range(40)], 49.9, 50.1, "all length differences are equal"),
        ([row(2.0), row(1.0, 5, 9), row(2.0, 9, 5)], 0, 100, "only 3 preferences"),
        ([row(1.75)], 70, 80, "only 1 preferences"),
    ],
)
def test_degenerate_worlds_give_a_number_and_a_note_and_no_warning(rows, low, high, note):
    result = alpacaeval2.score(rows)
    assert low <= result["length_controlled_winrate"] <= high
    assert result["length_controlled_ci_low"] <= result["length_controlled_winrate"] + 1e-6
    assert any(note in found for found in result["notes"])
    assert not any("converge" in found for found in result["notes"])
    json.dumps(result, allow_nan=False)


@pytest.mark.filterwarnings("error")
def test_nothing_judged_gives_no_score_instead_of_nan():
    result = alpacaeval2.score([row(None), row(math.nan)])
    assert result["win_rate"] is None
    assert result["length_controlled_winrate"] is None
    assert any("no row has a preference" in note for note in result["notes"])
    json.dumps(result, allow_nan=False)


def test_the_baseline_against_itself_is_fifty_by_definition():
    result = alpacaeval2.score([row(1.5, generator_2="base") for _ in range(9)])
    assert result["length_controlled_winrate"] == 50


def test_length_control_takes_a_length_bias_out_and_leaves_an_unbiased_judge_alone():
    biased = alpacaeval2.score([{**r, "len_2": r["len_2"] + 15} for r in small_world(4000, 0.0, length_effect=3.0)])
    assert abs(biased["length_controlled_winrate"] - biased["win_rate"]) > 5
    fair = alpacaeval2.score(small_world(4000, 0.5))
    assert fair["length_controlled_winrate"] == pytest.approx(fair["win_rate"], abs=0.5)


def test_the_default_in_small_worlds_does_not_collapse_to_fifty():
    rows = small_world(128, 0.1, seed=3)
    assert alpacaeval2.score(rows, C="cv")["length_controlled_winrate"] == 50
    default = alpacaeval2.score(rows)
    assert default["length_controlled_winrate"] == pytest.approx(default["win_rate"], abs=1)
    assert default["length_control"]["C_from"] == "default"


def design_for(rows, difficulty=None, gamed=None):
    delta = np.array([r["len_1"] - r["len_2"] for r in rows], float)
    return length_control.design_of(delta, np.array([alpacaeval2._preference(r) for r in rows]), difficulty, gamed)


def without(design, prompt):
    """The data of all prompts but one."""
    rest = np.arange(len(design.delta)) != prompt
    difficulty = None if design.difficulty is None else design.difficulty[rest]
    return replace(design, delta=design.delta[rest], preference=design.preference[rest], difficulty=difficulty)


def largest_error_of_leaving_one_out(design, C, prompts):
    """Of the influence values, as a share of the score, and as one of their standard deviation."""
    weights, _ = length_control.refit(design, C)
    score, influence = length_control.predict(design, weights), length_control.influence(design, weights)
    changes = -influence / (len(influence) - 1)
    others = [without(design, prompt) for prompt in prompts]
    refitted = [length_control.predict(rest, length_control.refit(rest, C)[0]) for rest in others]
    errors = np.abs(np.array(refitted) - score - changes[prompts])
    return errors.max() / score, errors.max() / changes.std()


def test_influence_values_predict_the_score_without_each_prompt():
    rows = small_world(300, 0.3, length_effect=1.5, seed=4)
    rows[7]["preference"] = None  # an unreadable judgment still counts through the lengths
    for C, difficulty in ((1e4, None), (1e4, np.linspace(-2, 2, 300)), (0.05, np.linspace(-2, 2, 300))):
        of_score, of_spread = largest_error_of_leaving_one_out(design_for(rows, difficulty), C, range(300))
        assert of_score < 1e-3
        assert of_spread < 0.2


@pytest.mark.parametrize("name", MODELS)
def test_influence_values_predict_published_scores_without_each_of_forty_prompts(name, published, gamed, difficulty):
    C = published[name]["regularisation_C_implied_by_published_lc"]
    prompts = np.random.default_rng(0).choice(800, 40, replace=False)
    of_score, _ = largest_error_of_leaving_one_out(design_for(annotations(name), difficulty, gamed), C, prompts)
    assert of_score < 1e-3


def test_values_per_prompt_average_to_the_length_controlled_rate():
    rows = [r | {"instruction": str(i)} for i, r in enumerate(small_world(90, length_effect=1.0))]
    judged = Judged({"m": rows}, [], list, list, sft_baseline=True)
    scores = alpacaeval2.score_models(judged, EvaluationConfig(), seed=0)
    found = scores.rows["m"]["metrics"]["length_controlled_winrate"]
    values = 100 * np.array([item["length_controlled_winrate"] for item in scores.items])
    assert values.mean() == pytest.approx(found["value"], abs=1e-9)
    assert values.std(ddof=1) / math.sqrt(90) == pytest.approx(found["stderr"])


def test_the_interval_of_the_length_controlled_rate_covers_the_truth():
    def scored(n, seed):
        """Score and interval of a judge that follows skill, difficulty and a length effect."""
        rng = np.random.default_rng(seed)
        delta, difficulty = rng.normal(-200, 500, n).round(), rng.normal(0, 1, n)
        wins = rng.random(n) < 1 / (1 + np.exp(-(0.4 + 0.5 * difficulty + 1.0 * np.tanh(delta / 500))))
        design = length_control.design_of(delta, wins.astype(float), difficulty, None)
        weights, _ = length_control.refit(design, 1e4)
        score = length_control.predict(design, weights)
        low, high, _ = interval_over_prompts(score + length_control.influence(design, weights))
        return score, low, high

    truth, *_ = scored(300_000, 0)
    intervals = [scored(200, seed)[1:] for seed in range(1, 801)]
    assert 0.92 <= np.mean([low <= truth <= high for low, high in intervals]) <= 0.97


@pytest.mark.parametrize(
    ("longer", "overlap", "extrapolated"), [(50, 1.0, False), (6, 0.12, False), (4, 0.08, True), (0, 0.0, True)]
)
def test_length_control_extrapolates_if_one_side_is_nearly_always_longer(longer, overlap, extrapolated):
    rows = [row(1.0 + i % 3 / 2, 100, 150 + i if i < longer else 50 - i // 4) for i in range(100)]
    result = alpacaeval2.score(rows)
    assert result["length_overlap"] == pytest.approx(overlap)
    assert result["length_control_extrapolates"] is extrapolated
    assert any("extrapolation" in note for note in result["notes"]) is extrapolated


def test_a_collapsed_policy_is_flagged():
    """Its answers are all a few characters long, so its high rate at equal length is the fitted curve's tail."""
    rng = np.random.default_rng(0)
    rows = [row(1.0 + (rng.random() < 0.6 - 0.3 * (n > 60)), int(n), 9) for n in rng.integers(30, 90, 300)]
    result = alpacaeval2.score(rows)
    assert result["length_controlled_winrate"] - result["win_rate"] > 20
    assert result["length_control_extrapolates"]


def test_equal_seeds_pair_the_resamples_of_two_models():
    rows = [r | {"preference": 1 + i / 300} for i, r in enumerate(small_world(300))]
    first, again, other = (alpacaeval2.score(rows, seed=seed) for seed in (0, 0, 1))
    assert first == again
    assert first["win_rate_ci_low"] != other["win_rate_ci_low"]
    assert first["length_controlled_ci_low"] == other["length_controlled_ci_low"]


def test_items_are_named_by_their_instruction_whatever_the_order():
    rows = [row(1.25, instruction="a", len_2=7), row(None, instruction="b"), row(2.0, instruction="a")]
    items = alpacaeval2.items(rows)
    assert [item["value"] for item in items] == [0.25, None, 1.0]
    assert items[0]["length"] == 7
    assert items[2]["question"] == items[0]["question"] + "#2"
    assert {i["question"] for i in alpacaeval2.items(rows[:2])} == {
        i["question"] for i in alpacaeval2.items(rows[1::-1])
    }


def test_a_shifted_file_is_scored_like_upstream_and_says_so(gamed):
    result = alpacaeval2.score(annotations("alpaca-7b_concise"), gamed=gamed, n_bootstrap=10)
    assert any("804 rows instead of 805" in note for note in result["notes"])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: alpacaeval2.score([]), "nothing to score"),
        (lambda: alpacaeval2.score([row(1.0), {"preference": 1.0}]), "record 2: key 'generator_1'"),
        (lambda: alpacaeval2.score([{"preference": 1, "generator_1": "a", "generator_2": "b"}]), "key 'output_1'"),
        (
            lambda: alpacaeval2.score([row(1.0), row(1.0, generator_2="k")]),
            "2 values of generator_2 are mixed.*--model",
        ),
        (lambda: alpacaeval2.score([row(1.0), row(1.0, annotator="k")]), "2 values of annotator are mixed"),
        (lambda: alpacaeval2.score([row("m")]), "record 1: preference is 'm'"),
        (lambda: alpacaeval2.score([row(1.0)] * 3, difficulty=[0.1]), "1 values for 3 annotations"),
        (lambda: alpacaeval2.score([row(1.0)] * 9, C="high"), "'high'; expected a positive number or 'cv'"),
        (lambda: alpacaeval2.score([row(1.0)] * 9, C=-1), "-1; expected a positive number"),
        (lambda: alpacaeval2.score([row(1.0)] * 3, C="cv"), "at least 5 preferences"),
    ],
)
def test_bad_input_is_reported(call, message):
    with pytest.raises(DataError, match=message):
        call()


def test_bad_csv_files_are_reported_with_their_line(tmp_path):
    path = tmp_path / "difficulty.csv"
    path.write_text("index,instruction_difficulty\n0,0.5\n1,high\n")
    with pytest.raises(DataError, match=r"difficulty.csv:3: column 'instruction_difficulty' holds 'high'"):
        alpacaeval2.read_difficulty(path)
    with pytest.raises(DataError, match=r"difficulty.csv:2: key 'index'|key 'preference'"):
        alpacaeval2.read_gamed(path)
    with pytest.raises(DataError, match="cannot be read"):
        alpacaeval2.read_difficulty(tmp_path / "absent.csv")


def test_one_model_with_length_control_and_bootstrap_takes_less_than_three_seconds(gamed, difficulty):
    rows = annotations("claude-2")
    import sklearn.linear_model  # noqa: F401  (its import is no work of ours)

    start = time.process_time()
    result = alpacaeval2.score(rows, difficulty, gamed)
    assert time.process_time() - start < 3
    assert result["n_bootstrap"] >= 1000


def test_forty_five_small_models_take_seconds():
    rows = small_world(256)
    start = time.process_time()
    for seed in range(45):
        alpacaeval2.score(rows, seed=seed)
    assert time.process_time() - start < 5


def test_the_command_reads_what_alpaca_eval_writes_without_torch(tmp_path):
    import pandas as pd

    rows = [
        {
            "instruction": f"q{i}", "dataset": "d", "output_1": "short", "generator_1": "base",
            "output_2": "longer " * i, "generator_2": "m", "annotator": "judge", "time_per_example": 1.0,
            "preference": None if i == 3 else 1 + i / 30, "preference_raw_completion": {"text": "M"},
        }
        for i in range(30)
    ]  # fmt: skip
    pd.DataFrame(rows).to_json(tmp_path / "annotations.json", orient="records", indent=2)  # as alpaca-eval does
    command = [sys.executable, "-X", "importtime", "-m", "eval.alpacaeval2", "score"]
    command += ["--annotations", str(tmp_path / "annotations.json"), "--out", str(tmp_path / "deep" / "scores.json")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0
    printed = json.loads(done.stdout)
    assert printed == read_json(tmp_path / "deep" / "scores.json")
    assert (printed["n"], printed["n_failed"], printed["judge"]) == (29, 1, "judge")
    modules = {line.split("|")[-1].strip() for line in done.stderr.splitlines() if "|" in line}
    assert not modules & {"torch", "pandas", "sklearn", "transformers"}


def test_the_command_reports_an_error_in_one_line(tmp_path):
    write_json(tmp_path / "annotations.json", [row(1.0), row(1.0, generator_2="other")])
    command = [sys.executable, "-m", "eval.alpacaeval2", "score", "--annotations", str(tmp_path / "annotations.json")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
