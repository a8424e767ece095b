"""Arena-Hard: official scores to the digit, both parsers, the interval, and the layouts of real files."""

import json
import os
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
from evaldata import ROOT, shared

from eval.arenahard import score as arenahard
from eval.arenahard import style, verdicts
from eval.arenahard.answers import count_words, style_metadata, token_counter
from eval.arenahard.pool import Pool, pool_of
from eval.arenahard.published import BASELINE, LEADERBOARD
from eval.benchmark import Judged
from metaapo.config import EvaluationConfig
from metaapo.data import DataError, read_json, read_records, write_jsonl

V1, V2 = verdicts.VERSIONS


@pytest.fixture(scope="module")
def ko():
    """Judgments, answer metadata and expected numbers for the ten models of the published leaderboard."""
    folder = shared("arena_hard/ko")
    judgments = [row for path in sorted(folder.glob("model_judgment/*")) for row in read_records(path)]
    answers = [row for path in sorted(folder.glob("model_metadata/*")) for row in read_records(path)]
    return judgments, answers, read_json(folder / "expected.json")


def by_model(result):
    return {model["model"]: model for model in result["models"]}


def judgment(question, first, second, model="m", **more):
    games = [None if label is None else {"score": label} for label in (first, second)]
    return {"uid": str(question), "model": model, "judge": "j", "games": games} | more


def answer(question, model, tokens=10, headers=0, text=None):
    metadata = {"token_len": tokens, "header_count": {"h1": headers}, "list_count": {"ordered": 0}, "bold_count": 0}
    row = {"uid": str(question), "model": model, "metadata": metadata}
    return row if text is None else row | {"messages": [{"role": "assistant", "content": {"answer": text}}]}


def synthetic_pool(n_models, n_questions, seed=0):
    """Judgments and answers with random verdicts and styles."""
    rng = np.random.default_rng(seed)
    labels = ["A>>B", "A>B", "A=B", "B>A", "B>>A"]
    judgments = [
        judgment(q, labels[rng.integers(5)], labels[rng.integers(5)], f"m{m}")
        for m in range(n_models)
        for q in range(n_questions)
    ]
    answers = [
        answer(q, model, int(rng.integers(5, 60)), int(rng.integers(0, 3)))
        for model in ["base", *(f"m{m}" for m in range(n_models))]
        for q in range(n_questions)
    ]
    return judgments, answers


@pytest.mark.parametrize(
    ("control", "features"),
    [("style", arenahard.STYLE), ("length", arenahard.STYLE[:1]), ("markdown", arenahard.STYLE[1:])],
)
def test_style_controlled_scores_of_2024_equal_the_official_codes(ko, control, features):
    judgments, answers, expected = ko
    result = arenahard.score(judgments, answers, BASELINE, V1, True, features=features)
    official = expected["official_2024_code_on_this_pool"][control]
    for name, model in by_model(result).items():
        assert model["style_controlled_score"] == pytest.approx(official["winrate"][name], abs=0.0051)
        assert model["style_controlled_converged"] == pytest.approx(official["winrate"][name], abs=0.1)
    assert list(result["style"]["coefficients"].values()) == pytest.approx(official["coef"], abs=0.002)


def test_style_controlled_scores_of_2025_are_the_exact_maximum_likelihood(ko):
    judgments, answers, expected = ko
    result = arenahard.score(judgments, answers, BASELINE, V2, True)
    exact = expected["official_2025_code_on_this_pool"]
    for name, model in by_model(result).items():
        assert model["style_controlled_score"] == pytest.approx(exact["exact_mle"][name], abs=1e-4)
    assert list(result["style"]["coefficients"].values()) == pytest.approx(exact["style_coef_exact"], abs=1e-5)


def test_the_quirks_of_2025_give_the_official_unconverged_numbers(ko):
    judgments, answers, expected = ko
    result = arenahard.score(judgments, answers, BASELINE, V2, True, official_quirks=True)
    single = expected["official_2025_code_on_this_pool"]["official_single_fit"]
    printed = expected["official_2025_printed_seed0"]
    for name, model in by_model(result).items():
        official = model["official"]
        # single precision and the order of the battles move upstream's unconverged fit by 0.03
        assert official["style_controlled_single_fit"] == pytest.approx(single[name], abs=0.06)
        centre, below, above = printed["no_control (mean of bootstraps, 5%/95%)"][name]
        assert official["score"] == pytest.approx(centre, abs=0.5)  # upstream sets no seed
        assert official["ci_low"] == pytest.approx(centre + below, abs=0.8)
        assert official["ci_high"] == pytest.approx(centre + above, abs=0.8)
    assert abs(by_model(result)["o3-high"]["style_controlled_score"] - single["o3-high"]) > 0.4


def test_the_quirks_of_2024_give_the_published_score_and_an_interval_that_is_too_narrow(ko):
    # the published intervals cannot be compared directly: upstream anchors its resamples at "gpt-4-0314" only
    judgments, answers, _ = ko
    models = by_model(arenahard.score(judgments, answers, BASELINE, V1, official_quirks=True, n_bootstrap=500))
    for name, model in models.items():
        official = model["official"]
        assert round(official["score"], 2) == LEADERBOARD[name]["score"]
        # upstream treats the three battles of one verdict as three observations
        assert model["ci_high"] - model["ci_low"] > 1.2 * (official["ci_high"] - official["ci_low"])


@pytest.mark.parametrize("name", ["DeepSeek-R1-Distill-Llama-70B__bagel-8b-v1.0", "gpt-4o__gpt-4o"])
def test_the_parser_agrees_with_every_stored_judgment(name):
    rows = read_records(shared(f"arena_hard/v0.1/judgment_text/{name}.jsonl.gz"))
    games = [game for row in rows for game in row["games"]]
    assert len(games) > 250
    for game in games:
        assert verdicts.parse_verdict(game["judgment"], V1) == game["score"]


def test_real_judgments_score_as_official_code_scores_them_under_both_rules():
    expected = read_json(shared("arena_hard/v0.1/judgment_text/expected.json"))
    for path in shared("arena_hard/v0.1/judgment_text").glob("*.jsonl.gz"):
        rows = read_records(path)
        numbers = expected[rows[0]["model"].split("/")[-1]]
        for version, rule, battles in (
            (V1, "score_2024_rule_drop_null_game", "n_battles_2024"),
            (V2, "score_2025_rule_drop_question", "n_battles_2025"),
        ):
            model = arenahard.score(rows, [], "gpt-4-0314", version)["models"][0]
            assert model["score"] == pytest.approx(numbers[rule], abs=1e-9)
            assert model["n_battles"] == numbers[battles]
            assert model["n_null"] == numbers["null_games"]


def test_the_quirks_of_2025_give_the_interval_that_official_code_prints_on_real_judgments():
    printed = {"bagel-8b-v1.0": (6.2, 1.5, 1.5), "gpt-4o": (92.1, 2.1, 1.6)}  # by show_result.py, numpy seed 0
    for path in shared("arena_hard/v0.1/judgment_text").glob("*.jsonl.gz"):
        rows = read_records(path)
        official = arenahard.score(rows, [], "gpt-4-0314", V2, official_quirks=True)["models"][0]["official"]
        centre, below, above = printed[rows[0]["model"].split("/")[-1]]
        assert official["score"] == pytest.approx(centre, abs=0.3)
        assert official["score"] - official["ci_low"] == pytest.approx(below, abs=0.5)
        assert official["ci_high"] - official["score"] == pytest.approx(above, abs=0.5)


def test_style_counts_equal_the_official_metadata():
    rows = read_records(shared("arena_hard/v2.0/style_metadata_o3-mini_sample.jsonl.gz"))
    assert len(rows) == 150
    for row in rows:
        found = style_metadata(row["answer"], count_words)
        assert found | {"token_len": row["metadata"]["token_len"]} == row["metadata"]


def test_tokens_are_counted_as_upstream_counts_them():
    rows = read_records(shared("arena_hard/v2.0/style_metadata_o3-mini_sample.jsonl.gz"))
    try:
        count = token_counter(V2)
    except DataError as error:
        pytest.skip(str(error))
    assert [count(row["answer"]) for row in rows] == [row["metadata"]["token_len"] for row in rows]


@pytest.mark.parametrize(
    ("text", "in_2024", "in_2025"),
    [
        ("My final verdict is: [[A>B]]", "A>B", "A>B"),
        ("First [[A>B]], then after thought [[B>>A]]", None, "B>>A"),
        ("[[A>B]] and again [[A>B]]", "A>B", "A>B"),
        ("final verdict [a=b]", None, "A=B"),
        ("[[a>>b]]", None, "A>>B"),
        ("[[B<A]]", None, "B<A"),
        ("[A>B] but formally [[B>A]]", "B>A", "B>A"),
        ("[[AB]]", None, None),
        ("no verdict", None, None),
        ("", None, None),
    ],
)
def test_the_two_parsers(text, in_2024, in_2025):
    assert verdicts.parse_verdict(text, V1) == in_2024
    assert verdicts.parse_verdict(text, V2) == in_2025


def test_only_2024_asks_again_and_only_if_there_is_no_label_at_all():
    assert verdicts.wants_retry("no verdict", V1)
    assert not verdicts.wants_retry("[[A>B]] [[B>A]]", V1)
    assert not verdicts.wants_retry("no verdict", V2)


def test_a_strong_verdict_counts_three_times_and_a_tie_is_half_a_win():
    rows = [judgment(1, "B>>A", "A=B"), judgment(2, "A>B", "B>A")]
    model = arenahard.score(rows, [], "base", V2)["models"][0]
    assert model["score"] == pytest.approx(100 * (3 + 0.5) / 6)
    assert (model["n"], model["n_battles"]) == (2, 6)
    assert [item["value"] for item in arenahard.items(rows, [], "base", V2)] == [3.5 / 4, 0]


@pytest.mark.parametrize("null", [None, "nonsense", ""])
def test_a_null_game_is_dropped_alone_in_2024_and_with_its_question_in_2025(null):
    rows = [judgment(1, "B>A", null), judgment(2, "A>B", "A>B"), judgment(3, None, None)]
    old, new = (arenahard.score(rows, [], "base", version)["models"][0] for version in (V1, V2))
    assert (old["score"], old["n_battles"], old["n"], old["n_null"], old["n_failed"]) == (200 / 3, 3, 2, 3, 1)
    assert (new["score"], new["n_battles"], new["n"], new["n_null"], new["n_failed"]) == (50, 2, 1, 3, 2)


def test_position_conflicts_are_questions_whose_games_name_different_winners():
    rows = [judgment(1, "A>B", "A>B"), judgment(2, "A>B", "B>A"), judgment(3, "A=B", "A>B"), judgment(4, "A>B", None)]
    model = arenahard.score(rows, [], "base", V2)["models"][0]
    assert model["position_conflicts"] == pytest.approx(1 / 3)


def test_equal_styles_leave_the_plain_score_and_say_so():
    rows = [judgment(q, "B>A", "A>B" if q else "B>A") for q in range(4)]
    answers = [answer(q, model) for q in range(4) for model in ("m", "base")]
    result = arenahard.score(rows, answers, "base", V2, True)
    assert result["models"][0]["style_controlled_score"] == pytest.approx(result["models"][0]["score"], abs=1e-4)
    assert result["style"]["left_out"] == list(arenahard.STYLE)
    assert "without any variation" in result["notes"][0]


@pytest.mark.parametrize("version", [V1, V2])
@pytest.mark.filterwarnings("error")
def test_a_model_that_wins_everything_is_at_the_bound_and_finite(version):
    judgments, answers = synthetic_pool(2, 20)
    judgments += [judgment(q, "B>>A", "A>>B", "champion") for q in range(20)]
    answers += [answer(q, "champion", 5 + q) for q in range(20)]
    result = arenahard.score(judgments, answers, "base", version, True)
    champion = by_model(result)["champion"]
    assert champion["score"] == 100
    assert 95 < champion["style_controlled_score"] <= 100
    assert any("champion won or lost every battle" in note for note in result["notes"])
    assert not any("did not converge" in note for note in result["notes"])
    json.dumps(result, allow_nan=False)


@pytest.mark.filterwarnings("error")
def test_a_model_without_any_verdict_has_no_score_and_does_not_disturb_the_others():
    judgments, answers = synthetic_pool(2, 20)
    alone = arenahard.score(judgments, answers, "base", V2, True)
    judgments += [judgment(q, None, None, "mute") for q in range(20)]
    result = arenahard.score(judgments, answers, "base", V2, True, official_quirks=True)
    assert by_model(result)["mute"]["score"] is None
    assert by_model(result)["mute"]["official"]["style_controlled_score"] is None
    assert by_model(result)["mute"]["style_controlled_score"] is None
    for name, model in by_model(alone).items():
        assert by_model(result)[name]["style_controlled_score"] == pytest.approx(
            model["style_controlled_score"], abs=1e-6
        )
    json.dumps(result, allow_nan=False)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("version", [V1, V2])
def test_nothing_judged_gives_no_scores_instead_of_nan(version):
    rows = [judgment(q, None, None) for q in range(5)]
    result = arenahard.score(rows, [], "base", version, True, official_quirks=True)
    assert result["models"][0]["score"] is None
    assert result["models"][0]["style_controlled_score"] is None
    json.dumps(result, allow_nan=False)


def test_the_style_control_finds_the_skill_behind_a_length_bias():
    """Two models of equal skill, one of them twice as long, under a judge that likes length."""
    rng = np.random.default_rng(0)
    judgments, answers = [], []
    for q in range(600):
        answers.append(answer(q, "base", 100))
        for model, tokens in (("plain", int(rng.integers(60, 150))), ("wordy", int(rng.integers(120, 300)))):
            answers.append(answer(q, model, tokens))
            bias = 6 * (tokens - 100) / (tokens + 100)
            labels = ["A>B" if rng.random() < 1 / (1 + np.exp(-bias)) else "B>A" for _ in range(2)]
            judgments.append(judgment(q, {"A>B": "B>A", "B>A": "A>B"}[labels[0]], labels[1], model))
    models = by_model(arenahard.score(judgments, answers, "base", V2, True, features=("token_len",)))
    assert models["wordy"]["score"] - models["plain"]["score"] > 20
    assert abs(models["wordy"]["style_controlled_score"] - models["plain"]["style_controlled_score"]) < 8


def test_the_interval_covers_the_true_win_rate_although_verdicts_of_a_question_are_correlated():
    rng = np.random.default_rng(1)
    labels = {0: ("A>>B", "B>>A"), 1: ("A>B", "B>A"), 2: ("B>A", "A>B"), 3: ("B>>A", "A>>B")}
    hits = 0
    for _ in range(200):
        rows = [judgment(q, *labels[k]) for q, k in enumerate(rng.integers(0, 4, size=80))]
        model = arenahard.score(rows, [], "base", V2, n_bootstrap=300)["models"][0]
        hits += model["ci_low"] <= 50 <= model["ci_high"]
    assert hits / 200 >= 0.9


def fitted(pool, raw, version):
    """Converged scores in percent, and the influence of every question on them."""
    standardised, _, _ = style.standardise(raw, pool.battles, version, style.STYLE)
    penalty = style._penalty(pool.baselines, standardised.shape[-1], version)
    estimate, converged = style.fit(standardised, pool.wins, pool.battles, penalty)
    assert converged
    influence = style.influence(pool, standardised, version, estimate, penalty)
    return 100 / (1 + np.exp(-estimate[: len(pool.models)])), influence


def largest_error_of_leaving_one_out(judgments, answers, baseline, version, questions):
    """Of the influence values, relative to the scores, or to 5 points for lower scores."""
    pool = pool_of(judgments, {row["model"]: baseline for row in judgments}, version)
    raw = style.style_features(pool, arenahard._by_model_and_question(answers), version, style.STYLE, None)
    scores, influence = fitted(pool, raw, version)
    assert influence.sum(axis=1) == pytest.approx(0, abs=1e-6)
    errors = []
    for left_out in questions:
        rest = np.arange(len(pool.questions)) != left_out
        fields = ("outcomes", "null_games", "judged", "conflicts", "complete")
        names = tuple(name for name, keep in zip(pool.questions, rest) if keep)
        others = replace(pool, questions=names, **{field: getattr(pool, field)[:, rest] for field in fields})
        predicted = scores - influence[:, left_out] / (len(pool.questions) - 1)
        errors.append(np.abs(fitted(others, raw[:, rest], version)[0] - predicted) / np.maximum(scores, 5))
    return np.max(errors)


@pytest.mark.parametrize("version", [V1, V2])
def test_influence_values_predict_the_scores_without_each_question(version):
    judgments, answers = synthetic_pool(4, 300)
    del judgments[5], judgments[400:430]  # models need not be judged on all questions
    assert largest_error_of_leaving_one_out(judgments, answers, "base", version, range(0, 300, 10)) < 1e-3


@pytest.mark.parametrize("version", [V1, V2])
def test_influence_values_predict_the_scores_of_a_real_pool_without_each_of_thirty_questions(version, ko):
    judgments, answers, _ = ko
    judgments = [row for row in judgments if row["model"] != BASELINE]
    assert largest_error_of_leaving_one_out(judgments, answers, BASELINE, version, range(0, 500, 17)) < 1e-3


def test_the_interval_of_the_style_controlled_score_covers_the_truth():
    def world(n, seed):
        """Verdicts that favour the longer answer, of two models with their own styles and their own skill."""
        rng = np.random.default_rng(seed)
        style = rng.normal([[0.3], [-0.2]], 1.0, (2, n))
        share = 1 / (1 + np.exp(-np.array([[0.5], [-0.4]]) - 0.8 * style - rng.normal(0, 0.7, n)))
        outcomes = np.zeros((2, n, 3), dtype=np.int64)
        outcomes[..., 2] = rng.binomial(2, share)
        outcomes[..., 0] = 2 - outcomes[..., 2]
        blank = np.zeros((2, n))
        names = tuple(map(str, range(n)))
        return Pool(("a", "b"), ("x", "x"), names, outcomes, blank, blank == 0, blank > 0, blank == 0), style[..., None]

    def score(pool, raw):
        standardised, *_ = style.standardise(raw, pool.battles, V2, ["token_len"])
        return style.style_controlled(pool, standardised, V2, [])[0]

    truth = [model["style_controlled_score"] for model in score(*world(200_000, 0))]
    hits = [
        [
            m["style_controlled_ci_low"] <= t <= m["style_controlled_ci_high"]
            for m, t in zip(score(*world(150, s)), truth)
        ]
        for s in range(1, 601)
    ]
    assert (np.mean(hits, axis=0) >= 0.92).all()
    assert (np.mean(hits, axis=0) <= 0.97).all()


def test_values_per_question_average_to_the_scores():
    judgments, answers = synthetic_pool(3, 60)
    judgments = [row | {"baseline": "base", "category": "c"} for row in judgments[:-1]]  # the last model lacks one
    by_model_id = {f"m{m}": [row for row in judgments if row["model"] == f"m{m}"] for m in range(3)}
    others, own = ([row for row in answers if (row["model"] == "base") is base] for base in (False, True))
    judged = Judged(by_model_id, [], lambda: others, lambda: own, sft_baseline=False)
    for version in (V1, V2):
        scores = arenahard.score_models(judged, EvaluationConfig(arenahard_version=version), seed=0)
        for name, model in scores.rows.items():
            rows = [item for item in scores.items if item["model"] == name]
            found = model["metrics"]["style_controlled_win_rate"]
            values = 100 * np.array([item["style_controlled_win_rate"] for item in rows])
            assert values.mean() == pytest.approx(found["value"], abs=1e-9)
            assert values.std(ddof=1) / 60**0.5 == pytest.approx(found["stderr"])
            raw = 100 * np.array([item["win_rate"] for item in rows])
            assert raw.mean() == pytest.approx(model["metrics"]["win_rate"]["value"], abs=1e-9)
            assert raw.std(ddof=1) / 60**0.5 == pytest.approx(model["metrics"]["win_rate"]["stderr"], rel=0.1)
            assert sum(item["value"] is not None for item in rows) == model["n"]


def test_a_question_s_raw_value_is_its_influence_on_the_win_rate():
    judgments, _ = synthetic_pool(1, 60)
    rows = arenahard.items(judgments, [], "base", V2)
    rate = arenahard.score(judgments, [], "base", V2)["models"][0]["score"]
    for row in rows[:5]:
        without = [judgment for judgment in judgments if judgment["uid"] != row["question"]]
        left_out = arenahard.score(without, [], "base", V2)["models"][0]["score"]
        assert rate - left_out == pytest.approx((100 * row["win_rate"] - rate) / 59, abs=0.05)


def test_the_same_seed_gives_the_same_result_and_another_seed_another_interval():
    judgments, answers = synthetic_pool(3, 30)
    first, again, other = (
        arenahard.score(judgments, answers, "base", V2, True, official_quirks=True, seed=seed) for seed in (0, 0, 1)
    )
    assert first == again
    assert first["models"][0]["ci_low"] != other["models"][0]["ci_low"]
    assert first["models"][0]["style_controlled_score"] == other["models"][0]["style_controlled_score"]


def test_models_of_different_worlds_may_have_their_own_baselines():
    judgments, answers = synthetic_pool(2, 30)
    answers += [
        answer(row["uid"], "base2", 2 * row["metadata"]["token_len"]) for row in answers if row["model"] == "base"
    ]
    for version in (V1, V2):
        result = arenahard.score(judgments, answers, {"m0": "base", "m1": "base2"}, version, True)
        assert result["baseline"] == ["base", "base2"]
        assert [by_model(result)[name]["baseline"] for name in ("m0", "m1")] == ["base", "base2"]


def test_the_2024_fit_of_two_baselines_is_the_optimum_too():
    judgments, answers = synthetic_pool(3, 60)
    answers += [
        answer(row["uid"], "base2", 2 * row["metadata"]["token_len"]) for row in answers if row["model"] == "base"
    ]
    result = arenahard.score(judgments, answers, {"m0": "base", "m1": "base2", "m2": "base"}, V1, True)
    for model in result["models"]:
        assert model["style_controlled_score"] == pytest.approx(model["style_controlled_converged"], abs=0.3)


def test_the_baseline_judged_against_itself_is_not_a_contender():
    judgments, _ = synthetic_pool(1, 5)
    rows = [*judgments, judgment(0, "A=B", "A=B", "base")]
    assert arenahard.score(rows, [], "base", V2)["pool"] == ["m0"]


def test_files_of_both_years_are_read():
    games = [{"score": "B>A", "judgment": "..."}, {"score": "A>B", "judgment": "..."}]
    old = [{"question_id": "q", "model": "m", "judge": "j", "games": games}]
    new = [{"uid": "q", "category": "hard_prompt", "judge": "j", "model": "m", "baseline": "base", "games": games}]
    text = "# Head\n\n- **one**\n- two\n"
    old_answers = [
        {"question_id": "q", "model_id": name, "choices": [{"index": 0, "turns": [{"content": text}]}]}
        for name in ("m", "base")
    ]
    new_answers = [
        {"uid": "q", "model": name, "messages": [{"role": "user", "content": "?"}, {"content": {"answer": text}}]}
        for name in ("m", "base")
    ]
    for judgments, answers in ((old, old_answers), (new, new_answers)):
        result = arenahard.score(judgments, answers, "base", V2, True, count_tokens=count_words)
        assert result["models"][0]["score"] == 100
        assert result["models"][0]["mean_length"] == len(text)
        assert arenahard.items(judgments, answers, "base", V2)[0]["length"] == len(text)
    assert style_metadata(text, count_words) == {
        "token_len": 6,
        "header_count": {"h1": 1, "h2": 0, "h3": 0, "h4": 0, "h5": 0, "h6": 0},
        "list_count": {"ordered": 0, "unordered": 2},
        "bold_count": {"**": 1, "__": 0},
    }


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: verdicts.parse_verdict("", "v3"), "'v3' is unknown; use one of v0.1-2024, v2.0-2025"),
        (lambda: arenahard.score([], [], "base", V2), "nothing to score"),
        (lambda: arenahard.score([{"uid": "1", "model": "m"}], [], "base", V2), "record 1: key 'games'"),
        (
            lambda: arenahard.score([judgment(1, "A>B", "A>B") | {"games": ["A>B"]}], [], "base", V2),
            "list of two games",
        ),
        (lambda: arenahard.score([judgment(1, "A>B", "A>B", baseline="o3")], [], "base", V2), "against 'o3'"),
        (lambda: arenahard.score([judgment(1, "A>B", "A>B")], [], {}, V2), "no baseline is given for model 'm'"),
        (
            lambda: arenahard.score([judgment(1, "A>B", "A>B"), judgment(2, "A>B", "A>B", judge="k")], [], "base", V2),
            "2 judges are mixed",
        ),
        (lambda: arenahard.score([judgment(7, "A>B", "A>B")], [], "base", V2, True), "'m' has no answer to '7'"),
        (
            lambda: arenahard.score([judgment(1, "A>B", "A>B")], [], "base", V2, True, features=("emoji",)),
            "choose among token_len",
        ),
        (lambda: arenahard.score([judgment(1, "A>B", "A>B")], [{"uid": "1"}], "base", V2), "answers, record 1"),
    ],
)
def test_bad_input_is_reported(call, message):
    with pytest.raises(DataError, match=message):
        call()


def test_without_the_encoding_the_error_says_what_to_do_and_nothing_is_downloaded(monkeypatch):
    monkeypatch.delenv("TIKTOKEN_CACHE_DIR", raising=False)
    with pytest.raises(DataError, match="--tokens words"):
        token_counter(V2)


def test_a_pool_of_45_models_is_scored_in_seconds():
    judgments, answers = synthetic_pool(45, 200)
    start = time.process_time()
    arenahard.score(judgments, answers, "base", V2, True)
    assert time.process_time() - start < 10


def test_the_command_scores_files_without_torch(tmp_path):
    judgments, answers = synthetic_pool(2, 10)
    write_jsonl(tmp_path / "judgments.jsonl.gz", judgments)
    write_jsonl(tmp_path / "answers.jsonl", answers)
    command = [sys.executable, "-X", "importtime", "-m", "eval.arenahard", "score", "--version", V2, "--style-control"]
    command += ["--judgments", str(tmp_path / "judgments.jsonl.gz"), "--answers", str(tmp_path / "answers.jsonl")]
    command += ["--baseline", "base", "--out", str(tmp_path / "scores.json")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=os.environ)
    assert done.returncode == 0
    assert json.loads(done.stdout) == read_json(tmp_path / "scores.json")
    assert " torch" not in done.stderr
    wrong = subprocess.run([*command[:-1], "/dev/null/x"], cwd=ROOT, capture_output=True, text=True)
    assert wrong.returncode != 0
