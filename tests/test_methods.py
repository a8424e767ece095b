"""Every method in the real loop on a miniature world, and each decision against a computation by hand."""

import numpy as np
import pytest
import torch
from conftest import experiment_document, make_policy, write_world

from metaapo.config import ConfigError
from metaapo.data import read_json, read_jsonl
from metaapo.experiment import Run, resolve
from metaapo.train import train

METHODS = {
    "dpo": {},
    "ipo": {"train": {"beta": 0.5}},
    "simpo": {},
    "kto": {},
    "selective_dpo": {},
    "online_dpo": {},
    "selm": {},
    "adpo": {"threshold": 0.05},
    "metaapo": {"t_meta": 2},
    "random": {},
    "metaapo_simpo": {"module": "metaapo", "objective": "simpo", "t_meta": 2},
    "metaapo_kto": {"module": "metaapo", "objective": "kto", "t_meta": 2},
    "metaapo_all_sampling": {"module": "metaapo", "select": "all", "t_meta": 2},
    "metaapo_random_sampling": {"module": "metaapo", "select": "random", "t_meta": 2},
    "metaapo_threshold_sampling": {"module": "metaapo", "select": "threshold", "t_meta": 2},
    "metaapo_uniform_weights": {"module": "metaapo", "weights": "uniform", "t_meta": 2},
    "metaapo_shuffled_weights": {"module": "metaapo", "weights": "shuffled", "t_meta": 2},
    "metaapo_no_meta_learner": {"module": "metaapo", "map": "sigmoid"},
    "metaapo_untrained": {"module": "metaapo", "map": "untrained", "t_meta": 2},
    "metaapo_frozen": {"module": "metaapo", "map": "frozen", "t_meta": 2},
    "metaapo_from_dpo": {"module": "metaapo", "train": {"start": "dpo"}, "t_meta": 2},
    "metaapo_rich_input": {"module": "metaapo", "meta_inputs": ["scores", "length_gaps", "reward_gaps"], "t_meta": 2},
    "metaapo_k2": {"module": "metaapo", "sampling": {"k": 2}, "t_meta": 2},
}
PROMPTS = 8  # in each of 2 iterations


def experiment_in(folder, methods, **changes):
    experiment = resolve(experiment_document(folder, methods=methods, iterations=2, seeds=[0], **changes))
    write_world(experiment.world_path(0), pairs=2 * PROMPTS, iterations=2)
    return experiment


def run_of(method, budget=1.0):
    return Run(method=method, budget=budget, seed=0)


def folder_of(experiment, method, iteration, budget=1.0):
    return experiment.run_path(run_of(method, budget)) / f"iter{iteration}"


def ledger(experiment, method, iteration, budget=1.0):
    return read_jsonl(folder_of(experiment, method, iteration, budget) / "annotations.jsonl")


def log(experiment, method, iteration):
    return read_jsonl(folder_of(experiment, method, iteration) / "train.jsonl")


def summaries(experiment, method):
    return read_json(experiment.run_path(run_of(method)) / "run.json")["iterations"]


def weights_of(folder):
    from safetensors.torch import load_file

    return torch.cat([t.flatten() for _, t in sorted(load_file(folder / "model" / "model.safetensors").items())])


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One finished run of every method."""
    experiment = experiment_in(tmp_path_factory.mktemp("results"), METHODS)
    for method in METHODS:
        train(experiment, run_of(method))
    return experiment


@pytest.mark.parametrize("method", METHODS)
def test_a_run_moves_the_policy_and_writes_its_records(finished, method):
    before = weights_of(folder_of(finished, method, 1))
    assert not torch.equal(before, weights_of(folder_of(finished, method, 2)))
    for iteration, summary in enumerate(summaries(finished, method), start=1):
        rows = ledger(finished, method, iteration)
        assert len(rows) == summary["prompts"] == PROMPTS
        assert summary["sampled"] == sum(row["sampled"] for row in rows)
        assert summary["responses_scored"] == sum(row["responses_scored"] for row in rows)
        assert summary["annotation_ratio"] == summary["responses_scored"] / (3 * PROMPTS)
        assert all(np.isfinite(row["loss"]) for row in log(finished, method, iteration))


def test_no_two_methods_are_the_same(finished):
    """Each option changes the trained policy; only DPO's iteration 1 may be shared."""
    models = {method: weights_of(folder_of(finished, method, 2)) for method in METHODS}
    for method, weights in models.items():
        others = [other for other in METHODS if other != method]
        assert not any(torch.equal(weights, models[other]) for other in others), method


# --- offline methods -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["dpo", "ipo", "simpo", "kto", "selective_dpo"])
def test_offline_methods_annotate_nothing(finished, method):
    assert [s["responses_scored"] for s in summaries(finished, method)] == [0, 0]


def test_scores_are_minus_the_objective(finished):
    """SimPO's scores at the start, recomputed from the SFT policy's log-probabilities per token."""
    from metaapo.models.load import encode_prompt, encode_response, load_policy
    from metaapo.models.logps import all_sequence_logps

    policy, tokenizer = load_policy(finished.world_path(0) / "sft")
    rows = [r for r in read_jsonl(finished.world_path(0) / "data" / "pairs.jsonl") if r["iteration"] == 1]
    prompts = [encode_prompt(tokenizer, row["messages"]) for row in rows]
    averages = []
    for side in ("chosen", "rejected"):
        responses = [encode_response(tokenizer, row[side]) for row in rows]
        logps = all_sequence_logps(policy, prompts, responses, tokenizer.pad_token_id)
        averages.append(logps / torch.tensor([len(r) for r in responses]))
    expected = torch.nn.functional.logsigmoid(2.5 * (averages[0] - averages[1]) - 0.6)
    found = [row["offline_score"] for row in ledger(finished, "metaapo_simpo", 1)]
    assert found == pytest.approx(expected.tolist(), rel=1e-4)


def test_selective_dpo_keeps_the_easiest_half_from_easy_to_hard(finished):
    from baselines import selective_dpo
    from metaapo.offline_pairs import OfflinePairs

    method = selective_dpo.build(finished.methods["selective_dpo"], None)
    scores = torch.tensor([-0.7, -0.1, -2.0, -0.4])
    assert method.at(2).order(OfflinePairs(scores, scores, scores)).tolist() == [1, 3]
    assert method.at(1).order is None
    assert len(log(finished, "selective_dpo", 1)) == PROMPTS / 4
    assert len(log(finished, "selective_dpo", 2)) == PROMPTS / 2 / 4


# --- SELM ------------------------------------------------------------------------------------------------------------


def test_selm_starts_as_dpo(finished):
    for method in ("selm", "selective_dpo"):
        assert torch.equal(weights_of(folder_of(finished, method, 1)), weights_of(folder_of(finished, "dpo", 1)))


def test_selm_ranks_one_greedy_response_with_the_offline_pair(finished):
    from metaapo.models.generate import generate
    from metaapo.models.load import load_policy

    rows = ledger(finished, "selm", 2)
    assert all(row["responses_generated"] == 1 and row["responses_scored"] == 3 for row in rows)
    policy, tokenizer = load_policy(folder_of(finished, "selm", 1) / "model")
    messages = [
        r["messages"] for r in read_jsonl(finished.world_path(0) / "data" / "pairs.jsonl") if r["iteration"] == 2
    ]
    greedy = generate(policy, tokenizer, messages, 1, 0.0, 1.0, 8, 64, seed=5)
    assert [row["tokens_generated"] for row in rows] == [len(response.token_ids) for (response,) in greedy]


def test_selm_references_move(finished):
    from metaapo.loop.run import RunContext

    context = RunContext(finished, run_of("selm"))
    assert context.reference_path(1) == finished.world_path(0) / "sft"
    assert context.reference_path(2) == context.path / "iter1" / "model"


def test_the_loss_of_a_selm_pair_by_hand():
    """-log sigmoid(beta Delta) + alpha beta [log pi(y_0) - log ref(y_0)], y_0 being neither best nor worst."""
    from baselines import selm
    from metaapo.loop.forward import forward_pairs
    from metaapo.loop.ledger import LedgerRow
    from metaapo.loop.prompts import PreferencePair, Prompt
    from metaapo.loop.step import prompt_losses
    from metaapo.models.logps import all_sequence_logps

    method = selm.build(selm.Params(alpha=0.01), None).at(2)
    model, ids = make_policy(4), [1, 4, 6, 5]
    pair = PreferencePair([7, 2], [8, 9, 2], -3.0, -2.0, [10, 11, 2], -1.5)
    prompt = Prompt("p", [], ids, ("", ""), PreferencePair([6, 2], [7, 2]), LedgerRow("p"), pair)
    _, online = forward_pairs(model, [], [prompt], pad_id=0, with_greedy=True)
    loss, _ = prompt_losses(method, 0.3, None, online, torch.tensor([True]), torch.zeros(1))
    logps = all_sequence_logps(model, [ids] * 3, [pair.chosen, pair.rejected, pair.greedy], 0)
    chosen, rejected, greedy = logps.tolist()
    expected = np.log1p(np.exp(-0.3 * ((chosen + 3.0) - (rejected + 2.0)))) + 0.01 * 0.3 * (greedy + 1.5)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_optimism_takes_probability_from_the_greedy_response():
    """The term's slope in log pi(y_0) is +alpha beta: a step down the gradient lowers it."""
    from baselines import selm
    from metaapo.losses import PairLogps

    greedy = torch.tensor([-4.0, -9.0], requires_grad=True)
    pairs = PairLogps(*torch.zeros(6, 2), greedy=greedy, reference_greedy=torch.tensor([-5.0, -7.0]))
    bonus = selm.build(selm.Params(alpha=1e-3), None).at(2).bonus(pairs, 0.2)
    bonus.sum().backward()
    assert bonus.tolist() == pytest.approx([2e-4, -4e-4])
    assert greedy.grad.tolist() == pytest.approx([2e-4, 2e-4])


def test_extra_candidates_give_the_papers_112_percent(tmp_path):
    """In MetaAPO's figure SELM takes 9/8 of Online DPO's generations: the greedy response and K sampled ones."""
    experiment = experiment_in(tmp_path, {"selm": {"extra": 3}})
    train(experiment, run_of("selm"))
    summary = summaries(experiment, "selm")[1]
    assert summary["responses_generated"] == 4 * PROMPTS
    assert summary["responses_scored"] == 6 * PROMPTS


# --- ADPO, thresholds ------------------------------------------------------------------------------------------------


def test_adpo_annotates_where_the_margin_is_small(finished):
    threshold = finished.methods["adpo"].threshold
    for iteration in (1, 2):
        for row in ledger(finished, "adpo", iteration):
            margin = -np.log(np.expm1(-row["offline_score"]))
            assert row["sampled"] == (abs(margin) <= threshold)
    assert all(row["sampled"] for row in ledger(finished, "adpo", 1))
    assert not all(row["sampled"] for row in ledger(finished, "adpo", 2))


def test_adpo_margins_invert_the_score():
    from baselines.adpo import margins

    x = np.array([-5.0, -0.5, 0.0, 0.5, 5.0])
    assert margins(-np.log1p(np.exp(-x))) == pytest.approx(x)


def test_adpo_mixes_with_a_fixed_weight(finished):
    for row in log(finished, "adpo", 2):
        assert row["meta_weight"] == 0.5


def test_threshold_sampling_takes_pairs_with_which_the_policy_disagrees(finished):
    rows = ledger(finished, "metaapo_threshold_sampling", 2)
    assert {row["sampled"] for row in rows} == {True, False}
    for row in rows:
        assert row["sampled"] == (row["offline_score"] < np.log(0.5) - 1e-6)


def test_threshold_sampling_takes_no_pair_on_which_the_policy_is_indifferent(finished):
    """In iteration 1 the policy equals the reference: all scores are log 1/2, however float32 rounds them."""
    from metaapo.metaapo import Params, build_select
    from metaapo.method import SelectionRequest
    from metaapo.offline_pairs import OfflinePairs

    assert not any(row["sampled"] for row in ledger(finished, "metaapo_threshold_sampling", 1))
    select = build_select(Params(select="threshold"), None, None)
    half = torch.tensor(np.log(0.5), dtype=torch.float32)
    around = torch.stack([half, torch.nextafter(half, -torch.ones(())), torch.nextafter(half, torch.zeros(()))])
    pairs = OfflinePairs(torch.cat([around, torch.tensor([-0.7, -0.69])]), torch.zeros(5), torch.zeros(5))
    chosen = select(SelectionRequest(pairs, 1, 1.0, np.random.default_rng(0))).sampled
    assert chosen.tolist() == [False, False, False, True, False]


# --- MetaAPO's ablations and controls --------------------------------------------------------------------------------


def map_of(experiment, method, iteration):
    return read_json(folder_of(experiment, method, iteration) / "meta_learner.json")


def test_all_sampling_samples_all_and_weights_by_the_map(finished):
    assert all(row["sampled"] for row in ledger(finished, "metaapo_all_sampling", 2))
    assert len({row["meta_weight"] for row in log(finished, "metaapo_all_sampling", 1)}) > 1


def test_random_sampling_has_metaapos_budget_and_weights(finished):
    for iteration in (1, 2):
        own, matched = (ledger(finished, m, iteration) for m in ("metaapo_random_sampling", "metaapo"))
        assert sum(row["sampled"] for row in own) == sum(row["sampled"] for row in matched)
    assert len({row["meta_weight"] for row in log(finished, "metaapo_random_sampling", 1)}) > 1


def test_uniform_weights_still_learn_the_map_that_samples(finished):
    assert {row["meta_weight"] for row in log(finished, "metaapo_uniform_weights", 2)} == {0.5}
    record = map_of(finished, "metaapo_uniform_weights", 1)
    assert record["start"] != record["end"]
    for row in ledger(finished, "metaapo_uniform_weights", 2):
        assert row["sample_probability"] not in (0.5, 1.0)


def test_without_a_meta_learner_the_weight_is_sigmoid_of_the_score(finished):
    for row in ledger(finished, "metaapo_no_meta_learner", 2):
        assert row["sample_probability"] == pytest.approx(1 - 1 / (1 + np.exp(-row["offline_score"])), rel=1e-5)
    assert not (folder_of(finished, "metaapo_no_meta_learner", 1) / "meta_learner.json").exists()


def test_an_untrained_map_stays_as_it_starts(finished):
    first, last = (map_of(finished, "metaapo_untrained", t) for t in (1, 2))
    assert first["start"] == first["end"] == last["end"] == map_of(finished, "metaapo", 1)["start"]
    assert last["updates"] == 0


def test_a_frozen_map_is_the_matched_runs_final_one_from_the_start(finished):
    final = map_of(finished, "metaapo", 2)["end"]
    for t in (1, 2):
        record = map_of(finished, "metaapo_frozen", t)
        assert record["start"] == record["end"] == final


def test_shuffled_weights_are_the_right_ones_on_the_wrong_samples(finished):
    from metaapo.loop.run import RunContext
    from metaapo.metaapo import build
    from metaapo.offline_pairs import OfflinePairs

    scores, zeros = torch.tensor([-3.0, -1.0, -0.1]), torch.zeros(3)
    weights = {}
    for name in ("metaapo", "metaapo_shuffled_weights"):
        method = build(finished.methods[name], RunContext(finished, run_of(name)))
        weights[name] = method.weigh(OfflinePairs(scores, zeros, zeros)).tolist()
    right, wrong = weights.values()
    assert sorted(right) == sorted(wrong)
    assert all(a != b for a, b in zip(right, wrong))


def test_shuffling_needs_more_than_one_prompt(tmp_path):
    methods = {"metaapo": {"weights": "shuffled", "train": {"micro_batch_size": 1}}}
    with pytest.raises(ConfigError, match=r"methods\.metaapo\.weights: shuffled needs train\.micro_batch_size of 2"):
        train(experiment_in(tmp_path, methods), run_of("metaapo"))


def test_a_start_from_dpo_is_the_dpo_runs_last_policy(finished):
    from metaapo.loop.run import RunContext

    context = RunContext(finished, run_of("metaapo_from_dpo"))
    assert context.start_path(1) == folder_of(finished, "dpo", 2) / "model"
    assert context.reference_path(2) == finished.world_path(0) / "sft"


def test_extra_inputs_start_as_the_same_map_and_count_their_annotations(finished):
    assert map_of(finished, "metaapo_rich_input", 1)["start"] == map_of(finished, "metaapo", 1)["start"]
    for row in ledger(finished, "metaapo_rich_input", 1):
        assert row["responses_scored"] == 2 + 3 * row["sampled"]
        assert row["responses_generated"] == 3 * row["sampled"]


def test_k_scores_k_responses(finished):
    for row in ledger(finished, "metaapo_k2", 1):
        assert row["responses_scored"] == 2 * row["sampled"]


def test_reward_gaps_are_the_reward_models(tmp_path):
    from metaapo.loop.offline import score_offline
    from metaapo.loop.run import RunContext
    from metaapo.loop.workbench import Workbench
    from metaapo.metaapo import build
    from metaapo.models.load import encode_prompt, encode_response, load_reward_model
    from metaapo.offline_pairs import OfflinePairs

    experiment = experiment_in(tmp_path, {"metaapo": {"meta_inputs": ["scores", "reward_gaps", "length_gaps"]}})
    context = RunContext(experiment, run_of("metaapo"))
    bench = Workbench.of(context)
    context.path.mkdir(parents=True)
    bench.policies.start(1)
    prompts, pairs = score_offline(bench, build(experiment.methods["metaapo"], context), 1)
    assert isinstance(pairs, OfflinePairs)
    model, tokenizer = load_reward_model(experiment.world_path(0) / "reward_model")
    for prompt, gap, lengths in zip(prompts, pairs.reward_gaps.tolist(), pairs.length_gaps.tolist()):
        sides = [encode_response(tokenizer, text) for text in prompt.texts]
        rewards = [model(torch.tensor([encode_prompt(tokenizer, prompt.messages) + s])).logits.item() for s in sides]
        assert gap == pytest.approx(rewards[0] - rewards[1], abs=1e-4)
        chosen, rejected = map(len, sides)
        assert lengths == pytest.approx((chosen - rejected) / (chosen + rejected))


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"meta_inputs": ["length_gaps"]}, "meta_inputs must begin with scores"),
        ({"objective": "kto", "fidelity": "official-code"}, "fidelity.score official-code has no meaning"),
        ({"objective": "simpa"}, r"methods\.metaapo\.objective"),
    ],
)
def test_mistakes_in_metaapos_keys_are_reported(entry, message):
    with pytest.raises(ConfigError, match=message):
        resolve(experiment_document("x", methods={"metaapo": entry, "dpo": {}}))


def test_the_authors_score_is_the_margin_without_beta():
    from metaapo.losses import PairLogps
    from metaapo.metaapo import raw_score

    columns = [torch.tensor([x]) for x in (-4.0, -6.0, 0.0, 0.0, 3.0, 2.0)]
    assert raw_score(PairLogps(*columns), 0.1).item() == pytest.approx(-np.log1p(np.exp(-2.0)))


def test_the_authors_simpo_weighs_by_the_score_without_beta_and_selects_by_the_one_with_it(tmp_path):
    """Per token, x = -4 / 3 + 6 / 2; the loss is log(1 + exp(-(2.5 x - 0.6))), and w = h_phi(log sigmoid(x - 0.24))."""
    from metaapo.loop.run import RunContext
    from metaapo.losses import PairLogps
    from metaapo.metaapo import build
    from metaapo.method import SelectionRequest
    from metaapo.offline_pairs import OfflinePairs

    methods = {"metaapo": {"objective": "simpo", "fidelity": "official-code"}, "dpo": {}}
    experiment = experiment_in(tmp_path, methods)
    method = build(experiment.methods["metaapo"], RunContext(experiment, run_of("metaapo")))
    columns = [torch.tensor([x]) for x in (-4.0, -6.0, 0.0, 0.0, 3.0, 2.0)]
    x = -4 / 3 + 6 / 2
    scores = -method.objective.loss(PairLogps(*columns), 2.5)
    assert scores.item() == pytest.approx(-np.log1p(np.exp(-(2.5 * x - 0.6))), rel=1e-5)
    assert method.score is None  # selection and h_phi's training see minus the loss
    pairs = OfflinePairs(scores, torch.zeros(1), torch.zeros(1))
    weight = method.learner.weigh(torch.tensor([-np.log1p(np.exp(-(x - 0.24)))]))
    assert method.weigh(pairs).item() == pytest.approx(weight.item(), rel=1e-5)
    request = SelectionRequest(pairs, 1, 1.0, np.random.default_rng(0))
    assert method.select(request).probability[0] == pytest.approx(1 - method.learner.weigh(scores).item(), rel=1e-5)


def test_taking_beta_out_of_a_score_is_exact_at_both_ends():
    from metaapo.metaapo import without_beta

    x = torch.tensor([-40.0, -3.0, 0.0, 2.0, 6.0])
    expected = torch.nn.functional.logsigmoid(x)
    torch.testing.assert_close(
        without_beta(torch.nn.functional.logsigmoid(2.5 * x), 2.5), expected, rtol=1e-2, atol=1e-6
    )
    assert without_beta(torch.zeros(1), 2.5).item() == 0  # a score that float32 rounds to 0


# --- budgets ---------------------------------------------------------------------------------------------------------

BUDGETED = {
    "online_dpo": {},
    "selm": {},
    "adpo": {},
    "metaapo": {"t_meta": 2},
    "random": {},
    "metaapo_all_sampling": {"module": "metaapo", "select": "all"},
    "metaapo_threshold_sampling": {"module": "metaapo", "select": "threshold"},
}


@pytest.fixture(scope="module")
def budgeted(tmp_path_factory):
    """One finished run of each at a quarter of the prompts; MetaAPO first, whose draws the random control matches."""
    methods = {name: entry | {"budget": [0.25]} for name, entry in BUDGETED.items()}
    experiment = experiment_in(tmp_path_factory.mktemp("budgeted"), methods)
    for method in sorted(methods, key=lambda name: name != "metaapo"):
        train(experiment, run_of(method, 0.25))
    return experiment


@pytest.mark.parametrize("method", BUDGETED)
def test_a_budget_caps_the_prompts_that_are_sampled(budgeted, method):
    for iteration in (1, 2):
        rows = ledger(budgeted, method, iteration, 0.25)
        probabilities = [row["sample_probability"] for row in rows]
        if method == "random":  # its budget is the number that MetaAPO drew, which may exceed the expectation
            matched = ledger(budgeted, "metaapo", iteration, 0.25)
            assert [row["sampled"] for row in rows].count(True) == [row["sampled"] for row in matched].count(True)
            assert probabilities == [np.mean([row["sampled"] for row in matched])] * PROMPTS
        else:
            assert np.mean(probabilities) <= 0.25 + 1e-9
        if method == "metaapo":  # only the expectation is capped; the order of the probabilities is kept
            ranked = sorted(rows, key=lambda row: row["offline_score"])
            probabilities = [row["sample_probability"] for row in ranked]
            assert probabilities == sorted(probabilities, reverse=True)
        elif method != "random":
            assert sum(row["sampled"] for row in rows) <= 2
