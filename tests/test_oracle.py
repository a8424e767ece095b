"""Random mixing and the oracle of the assay: exact budgets, the right prompts, weights on the better pair."""

import csv
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import experiment_document, write_world

from baselines import oracle
from metaapo.config import ConfigError
from metaapo.data import read_json, read_jsonl
from metaapo.experiment import Run, resolve
from metaapo.method import AnnotatedPrompt, Annotations, declaration_of
from metaapo.train import train
from metaapo.worlds.gain import gold_gain

PROMPTS = 10  # in each of 2 iterations
BUDGET = 0.3
METHODS = {
    "metaapo": {"t_meta": 2},
    "mixing": {"budget": [BUDGET, 1.0]},
    "oracle": {"budget": [BUDGET]},
    "oracle_chosen": {"module": "oracle", "gain": "chosen", "budget": [BUDGET]},
    "oracle_weights": {"module": "oracle", "choose": "weights", "budget": [BUDGET]},
}


def fake_gold(messages, text):
    """A gold reward for random words: letters of the alphabet's first half count for, words count against."""
    return SimpleNamespace(reward=sum(letter < "n" for letter in text) - 0.5 * len(text.split()))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One finished run of every method at every budget, and what the oracle's gains were in each iteration."""
    experiment = resolve(
        experiment_document(tmp_path_factory.mktemp("results"), methods=METHODS, iterations=2, seeds=[0])
    )
    write_world(experiment.world_path(0), pairs=2 * PROMPTS, iterations=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("metaapo.worlds.gain.gold", fake_gold)
        for run in experiment.runs():
            train(experiment, run)
    return experiment


def folder(experiment, method, iteration, budget=BUDGET):
    return experiment.run_path(Run(method=method, budget=budget, seed=0)) / f"iter{iteration}"


def ledger(experiment, method, iteration, budget=BUDGET):
    return read_jsonl(folder(experiment, method, iteration, budget) / "annotations.jsonl")


def outcomes(rows):
    return [row["outcome"] for row in rows]


@pytest.mark.parametrize("iteration", [1, 2])
def test_mixing_samples_exactly_its_budget_at_random_with_equal_weights(finished, iteration):
    for budget, count in ((BUDGET, 3), (1.0, PROMPTS)):
        rows = ledger(finished, "mixing", iteration, budget)
        assert sum(row["sampled"] for row in rows) == count
        assert {row["sample_probability"] for row in rows} == {budget}
        steps = read_jsonl(folder(finished, "mixing", iteration, budget) / "train.jsonl")
        assert {row["meta_weight"] for row in steps} == {0.5}
        assert len(steps) == np.ceil(PROMPTS / finished.train.batch_size)  # prompts without an online pair train too


@pytest.mark.parametrize("method", ["oracle", "oracle_chosen"])
def test_an_oracle_of_prompts_pays_for_all_annotations_and_trains_on_the_budget(finished, method):
    for iteration in (1, 2):
        rows = ledger(finished, method, iteration)
        assert all(row["responses_scored"] == finished.sampling.k for row in rows)
        assert outcomes(rows).count("pair") == 3
        assert set(outcomes(rows)) <= {"pair", "left_out", "tie", "identical"}
    summary = read_json(folder(finished, method, 1) / "summary.json")
    assert summary["annotation_ratio"] == 1.0
    assert (summary["pairs"], summary["sampled"]) == (3, PROMPTS)


def test_the_oracle_keeps_the_prompts_with_the_largest_gain(finished):
    """Recomputed from the candidates that the first iteration samples and the rewards that the reward model gives."""
    from metaapo.loop.annotate import best_worst, scores_of
    from metaapo.loop.run import RunContext
    from metaapo.loop.workbench import Workbench

    context = RunContext(finished, Run(method="oracle", budget=BUDGET, seed=0))
    bench = Workbench.of(context)
    bench.policies.start(1)
    prompts = bench.read_prompts(1)
    sampled = bench.sampler.sample(prompts, finished.sampling.k, 1.0, 1.0, context.torch_seed(1, "sample"))
    texts = [[response.text for response in responses] for responses in sampled]
    gains, chosen_gains = {}, {}
    rewards = bench.annotator.rewards(prompts, texts)
    for prompt, responses, candidates, scored in zip(prompts, sampled, texts, rewards):
        pair = best_worst(candidates, scores_of(scored, responses, bench.sampling.cut_penalty))
        if pair.outcome == "pair":
            golds = [fake_gold([], text).reward for text in (candidates[pair.chosen], candidates[pair.rejected])]
            offline = [fake_gold([], text).reward for text in prompt.texts]
            gains[prompt.id] = golds[0] - golds[1] - offline[0] + offline[1]
            chosen_gains[prompt.id] = golds[0] - offline[0]
    for method, by in (("oracle", gains), ("oracle_chosen", chosen_gains)):
        kept = [by[row["id"]] for row in ledger(finished, method, 1) if row["outcome"] == "pair"]
        assert sorted(kept) == sorted(by.values())[-3:]
    assert len(set(gains.values())) > 3  # the choice is a real one


def test_an_oracle_of_weights_samples_what_mixing_samples(finished):
    for iteration in (1, 2):
        own, matched = (ledger(finished, method, iteration) for method in ("oracle_weights", "mixing"))
        assert [row["sampled"] for row in own] == [row["sampled"] for row in matched]
        assert "left_out" not in outcomes(own)
    assert ledger(finished, "oracle_weights", 1) == ledger(finished, "mixing", 1)  # same policy, same samples
    mean = {row["meta_weight"] for row in read_jsonl(folder(finished, "oracle_weights", 1) / "train.jsonl")}
    assert mean != {0.5}


def test_aim_gives_every_prompt_its_logged_probability_and_its_gain(finished, monkeypatch):
    """In iteration 1 all methods start from the same policy: the largest gains are those of the oracle's prompts."""
    from eval.aim import aim

    monkeypatch.setattr("metaapo.worlds.gain.gold", fake_gold)
    aim(finished)
    with (finished.results / "aim.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * PROMPTS
    for iteration in (1, 2):
        logged = {row["id"]: row["sample_probability"] for row in ledger(finished, "metaapo", iteration, 1.0)}
        found = [row for row in rows if row["iteration"] == str(iteration)]
        assert {row["id"]: float(row["p_sample"]) for row in found} == logged
    gains = {row["id"]: float(row["gain"]) for row in rows if row["iteration"] == "1"}
    kept = [gains[row["id"]] for row in ledger(finished, "oracle", 1) if row["outcome"] == "pair"]
    assert sorted(kept) == sorted(gains.values())[-3:]


def test_the_aim_is_measured_on_as_many_prompts_as_asked_for(finished, monkeypatch):
    from eval.aim import aim_of_run

    monkeypatch.setattr("metaapo.worlds.gain.gold", fake_gold)
    fewer = finished.model_copy(update={"assay": finished.assay.model_copy(update={"aim_prompts": 4})})
    run = Run(method="metaapo", budget=1.0, seed=0)
    first, again = ([row["id"] for row in aim_of_run(fewer, run)] for _ in range(2))
    assert first == again
    assert len(set(first)) == 2 * 4


def annotated(*online):
    """Prompts with the same offline pair, worth 1 and 0 in gold, and each of the online pairs."""
    return [AnnotatedPrompt([], ("a", ""), pair) for pair in online]


@pytest.fixture
def letters(monkeypatch):
    """A gold reward that counts letters."""
    monkeypatch.setattr("metaapo.worlds.gain.gold", lambda messages, text: SimpleNamespace(reward=len(text)))


def revise(prompts, budget=0.5, **params):
    method = oracle.build(oracle.Params(**params), None)
    return method.revise(Annotations(prompts, budget, np.random.default_rng(0)))


def test_gains_compare_margins_or_chosen_responses(letters):
    (prompt,) = annotated(("bbbb", "bbb"))
    assert gold_gain(prompt, "margin") == (4 - 3) - (1 - 0)
    assert gold_gain(prompt, "chosen") == 4 - 1


def test_prompts_without_an_online_pair_are_never_kept(letters):
    prompts = annotated(None, ("", "bbb"), None, ("bb", ""))
    assert revise(prompts, budget=1.0).keep.tolist() == [False, True, False, True]
    assert revise(prompts, budget=0.25).keep.tolist() == [False, False, False, True]


def test_equal_gains_are_chosen_between_at_random():
    draws = [tuple(oracle.largest(np.zeros(4), 1, np.random.default_rng(seed))) for seed in range(50)]
    assert len(set(draws)) == 4
    assert all(sum(draw) == 1 for draw in draws)


def test_the_better_pair_has_all_the_weight(letters):
    revision = revise(annotated(("bbb", ""), ("bbb", "bbb"), ("b", ""), None), choose="weights")
    assert revision.keep.all()
    np.testing.assert_array_equal(revision.weights, [0.0, 1.0, 0.5, np.nan])


def test_fixed_weights_replace_the_methods_only_where_they_are_set():
    from metaapo.loop.step import prompt_losses
    from metaapo.losses import PairLogps

    pairs = PairLogps(*(torch.arange(3.0) + i for i in range(6)))
    method = oracle.build(oracle.Params(), None)
    fixed = torch.tensor([1.0, torch.nan, 0.0])
    losses, columns = prompt_losses(method, 0.1, pairs, pairs, torch.ones(3, dtype=bool), torch.zeros(3), fixed)
    assert columns.weights.tolist() == [1.0, 0.5, 0.0]
    torch.testing.assert_close(losses, columns.weights * columns.offline + (1 - columns.weights) * columns.online)


def test_an_oracle_needs_a_world_that_a_program_can_grade():
    world = {"name": "ultrafeedback", "dataset": {"path": "org/pairs"}}
    document = experiment_document("x", methods={"oracle": {}}, world=world, sft={"checkpoint": {"path": "org/sft"}})
    document |= {"reward_model": {"checkpoint": {"path": "org/rm"}}, "evaluation": {"judges": ["rm"]}}
    with pytest.raises(ConfigError, match=r"methods\.oracle: reads the gold reward, which only the tiny world has"):
        resolve(document)


def test_both_are_controls_so_no_claim_counts_them_as_baselines():
    assert {declaration_of(name).role for name in ("mixing", "oracle")} == {"control"}
