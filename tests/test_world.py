"""The small world: its gold reward, its prompts, its tokenizer, its noise; SFT and reward model at a few steps."""

import itertools
import random
import re

import numpy as np
import pytest
from conftest import experiment_document
from hypothesis import given, settings
from hypothesis import strategies as st

from metaapo.config import WorldConfig
from metaapo.data import DataError, read_json, read_jsonl, read_records, sha256_file
from metaapo.experiment import resolve
from metaapo.worlds.tiny.data import (
    _distinct,
    baseline_answers,
    best_and_other,
    build,
    demonstrations,
    evaluation_sets,
    preference_pairs,
    training_prompts,
)
from metaapo.worlds.tiny.gold import HIGH, LOW, RUBRIC, gold
from metaapo.worlds.tiny.tasks import (
    CATEGORIES,
    FAMILIES,
    GREETINGS,
    HEDGES,
    READERS,
    VAGUE,
    WANTED,
    PromptError,
    parse,
)
from metaapo.worlds.tiny.tokenizer import vocabulary
from metaapo.worlds.tiny.writers import (
    DEMONSTRATOR,
    EXPERT,
    answer,
    model_answer,
    newcomers,
    offline_beliefs,
    outdated_beliefs,
    spoil,
)

PROMPTS = list(itertools.islice(training_prompts(random.Random(0), outdated_beliefs(0)), 300))
WORDS = sorted(vocabulary())


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    document = experiment_document(
        tmp_path_factory.mktemp("world"),
        methods={"dpo": {}},
        world={"pairs_per_iteration": 64},
        sft={"demonstrations": 64, "epochs": 1},
        reward_model={"pairs": 180, "epochs": 1},
        sampling={"k": 3, "max_new_tokens": 12},
    )
    experiment = resolve(document)
    build(experiment, 0, experiment.world_path(0) / "data")
    return experiment


@given(st.sampled_from(PROMPTS), st.lists(st.sampled_from(WORDS), max_size=25))
def test_the_gold_reward_is_bounded_and_the_sum_of_its_rubric(prompt, words):
    graded = gold(prompt[1], " ".join(words))
    assert LOW <= graded.reward <= HIGH
    assert graded.reward == pytest.approx(sum(graded.rubric.values()), abs=1e-3)
    assert graded.rubric.keys() == RUBRIC.keys()


@pytest.mark.parametrize("family", [*FAMILIES, "compose"])
def test_the_model_answer_to_every_prompt_is_worth_everything(family):
    messages = [m for f, m in PROMPTS if f == family]
    assert len(messages) > 5
    for conversation in messages:
        assert gold(conversation, model_answer(parse(conversation))).reward == HIGH


@given(st.sampled_from(PROMPTS))
def test_an_empty_answer_is_the_worst_and_polite_nothing_earns_nothing(prompt):
    assert gold(prompt[1], "").reward == LOW
    assert gold(prompt[1], f"{WANTED[parse(prompt[1])[0].reader]}: here you go:").reward <= 0


@given(st.sampled_from(PROMPTS), st.sampled_from([*HEDGES, *VAGUE]))
def test_a_hedge_or_a_vague_word_always_costs(prompt, word):
    best = model_answer(parse(prompt[1]))
    assert gold(prompt[1], best.replace(": ", f": {word}, ", 1)).reward < HIGH


@given(st.sampled_from(PROMPTS), st.integers(0, 2**20))
def test_a_degenerate_answer_is_worth_less_than_the_answer_it_was_made_of(prompt, seed):
    best = model_answer(parse(prompt[1]))
    spoilt = spoil(best, random.Random(seed))
    assert spoilt == best or gold(prompt[1], spoilt).reward < HIGH


@given(st.sampled_from(PROMPTS), st.sampled_from([".", ",", "!", ":"]), st.integers(1, 30))
def test_a_loop_of_punctuation_costs_as_a_loop_of_words_does(prompt, mark, times):
    best = model_answer(parse(prompt[1]))
    assert gold(prompt[1], best + times * mark).reward == pytest.approx(HIGH - min(1.0, 0.1 * times))


def test_no_greeting_is_wanted_more_often_than_another_and_no_rule_leads_from_belief_to_wish():
    assert {greeting: list(WANTED.values()).count(greeting) for greeting in GREETINGS} == dict.fromkeys(GREETINGS, 4)
    for seed in range(5):
        beliefs = outdated_beliefs(seed)
        assert beliefs.keys() == set(READERS)
        for reader, believed in beliefs.items():
            assert believed != WANTED[reader]
        for greeting in GREETINGS:
            believed = [beliefs[reader] for reader in READERS if WANTED[reader] == greeting]
            assert sorted(believed.count(other) for other in GREETINGS if other != greeting) == [1, 1, 2]


def test_worlds_differ_in_their_newcomers_and_beliefs():
    assert len({tuple(sorted(newcomers(seed))) for seed in range(6)}) == 6
    assert len({tuple(outdated_beliefs(seed).items()) for seed in range(6)}) == 6
    for seed in range(6):
        assert len(newcomers(seed)) == 8


def test_offline_writers_greet_known_readers_as_they_wish_and_newcomers_as_they_do_not():
    rng, believed = random.Random(0), offline_beliefs(0)
    right = {True: [], False: []}
    for _, messages in PROMPTS:
        tasks = parse(messages)
        word = answer(tasks, EXPERT, rng, believed).split(":")[0]
        right[tasks[0].reader in newcomers(0)].append(word == WANTED[tasks[0].reader])
    assert np.mean(right[False]) > 0.75
    assert np.mean(right[True]) == 0.0


def wanted_greetings(**changes):
    """Share of each reader's chosen answers that open with the wanted greeting: reader -> share, and the mean."""
    opens = {}
    for row in preference_pairs(WorldConfig(pairs_per_iteration=1500, **changes), 1, 0):
        reader = parse(row["messages"])[0].reader
        opens.setdefault(reader, []).append(row["chosen"].split(":")[0] == WANTED[reader])
    shares = {reader: float(np.mean(own)) for reader, own in opens.items()}
    return shares, float(np.mean(list(shares.values())))


@pytest.mark.parametrize("shown", [0.25, 0.5, 0.75])
def test_locality_says_for_whom_offline_pairs_lack_the_wanted_greeting_but_not_how_often(shown):
    (local, mean), (mixed, mixed_mean), (spread, spread_mean) = (
        wanted_greetings(shown=shown, locality=locality) for locality in (1.0, 0.5, 0.0)
    )
    unknown = newcomers(0, shown)
    assert len(unknown) == round(16 * (1 - shown))
    assert max(local[reader] for reader in unknown) == 0
    assert min(local[reader] for reader in set(READERS) - unknown) > 0.8
    assert mean == pytest.approx(mixed_mean, abs=0.06) == pytest.approx(spread_mean, abs=0.06)
    assert np.std(list(local.values())) > 1.5 * np.std(list(mixed.values())) > 2 * np.std(list(spread.values()))


@pytest.mark.parametrize("second", ["give me two more, nurse.", "now two more animals, nurse."])
def test_a_request_for_more_of_a_complete_list_can_still_be_graded(second):
    everything = "sure: " + ", ".join(CATEGORIES["animal"]) + ", plum."
    conversation = [
        {"role": "user", "content": "list four animals and two fruits, nurse."},
        {"role": "assistant", "content": everything},
        {"role": "user", "content": second},
    ]
    best = model_answer(parse(conversation))
    assert gold(conversation, best).reward == HIGH
    assert gold(conversation, "um, whatever.").reward < 0.5


def test_a_prompt_of_another_world_is_an_error_that_shows_it():
    with pytest.raises(PromptError, match="explain gravity"):
        gold([{"role": "user", "content": "explain gravity"}], "no.")


def test_evaluation_prompts_are_never_trained_on(experiment):
    folder = experiment.world_path(0) / "data"
    held_out = set()
    for kind in ("mixed", "composed", "two_turn"):
        held_out |= {row["turns"][0] for row in read_records(folder / "eval" / f"{kind}.jsonl")}
    assert len(held_out) > 300
    for seed in range(3):
        trained = itertools.islice(training_prompts(random.Random(f"tiny/{seed}/pairs"), outdated_beliefs(seed)), 3000)
        assert held_out.isdisjoint(messages[0]["content"] for _, messages in trained)


def test_the_same_seed_makes_the_same_files_and_another_seed_others(experiment, tmp_path):
    first = read_json(experiment.world_path(0) / "data" / "manifest.json")["files"]
    build(experiment, 0, tmp_path / "again")
    assert read_json(tmp_path / "again" / "manifest.json")["files"] == first
    for name, record in first.items():
        assert record["sha256"] == sha256_file(experiment.world_path(0) / "data" / name)
    build(experiment, 1, tmp_path / "other")
    other = read_json(tmp_path / "other" / "manifest.json")["files"]
    assert other["pairs.jsonl"] != first["pairs.jsonl"]
    for name in ("eval/two_turn.jsonl", "eval/composed_answers.jsonl"):
        assert other[name] == first[name]


def test_the_hard_baseline_is_better_than_the_demonstrator_and_leaves_room(experiment):
    asked = evaluation_sets(experiment.world)["composed"]
    prompts = [[{"role": "user", "content": row["turns"][0]}] for row in asked]
    rng = random.Random(0)
    sloppy = np.mean([gold(p, answer(parse(p), DEMONSTRATOR, rng, outdated_beliefs(0))).reward for p in prompts])
    baseline = [gold(p, row["answer"]).reward for p, row in zip(prompts, baseline_answers(asked), strict=True)]
    assert sloppy + 0.5 < np.mean(baseline) < HIGH - 0.5


def test_of_two_answers_the_better_one_is_chosen_with_bradley_terry_s_probability():
    messages = [{"role": "user", "content": "list three animals, potter."}]
    good, poor = "sure: cat, dog and hen.", "hello: cat, dog and hen."
    gap = gold(messages, good).reward - gold(messages, poor).reward
    rng = random.Random(0)
    wins = np.mean([best_and_other(messages, [good, poor], 1.0, rng)[0] == good for _ in range(4000)])
    assert wins == pytest.approx(1 / (1 + np.exp(-gap)), abs=0.03)


def test_the_rejected_answer_is_any_of_the_others_alike():
    messages = [{"role": "user", "content": "list three animals, potter."}]
    texts = ["sure: cat, dog and hen.", "um.", "well.", "maybe."]
    rng = random.Random(0)
    pairs = [best_and_other(messages, texts, 0.01, rng) for _ in range(3000)]
    assert {chosen for chosen, _ in pairs} == {texts[0]}
    for text in texts[1:]:
        assert np.mean([rejected == text for _, rejected in pairs]) == pytest.approx(1 / 3, abs=0.03)


def test_the_tokenizer_and_its_chat_template(experiment):
    from metaapo.models.load import encode_prompt, encode_response, load_tokenizer
    from metaapo.worlds.tiny.sft import tokenize

    tokenizer = load_tokenizer(experiment.world_path(0) / "data" / "tokenizer")
    for _, messages in PROMPTS:
        best = model_answer(parse(messages))
        prompt, response = encode_prompt(tokenizer, messages), encode_response(tokenizer, best)
        assert prompt.count(tokenizer.bos_token_id) == 1
        assert response.count(tokenizer.eos_token_id) == 1
        assert tokenizer.unk_token_id not in (*prompt, *response)
        assert [*prompt, *response] == tokenize(tokenizer, [messages], [best])[0]
        assert gold(messages, tokenizer.decode(response, skip_special_tokens=True)).reward == HIGH


def test_no_writer_uses_a_word_that_the_tokenizer_lacks(experiment):
    """An unknown word would decode to nothing, and the policy would be graded on a text that it did not write."""
    rows, known = demonstrations(300, 0) + read_jsonl(experiment.world_path(0) / "data" / "pairs.jsonl"), set(WORDS)
    for row in rows:
        texts = [message["content"] for message in row["messages"]]
        texts += [row[side] for side in ("response", "chosen", "rejected") if side in row]
        assert set(re.findall("[a-z]+", " ".join(texts))) <= known


def test_asking_for_more_evaluation_prompts_than_there_are_is_an_error_that_names_the_family():
    """Without it the search for a new prompt would never end."""
    with pytest.raises(DataError, match="too many for the family 'pack'; ask for fewer"):
        _distinct(["pack"], 5000, random.Random(0))


def test_sft_and_reward_model_are_ordinary_checkpoints(experiment):
    from metaapo.models.load import load_policy, load_reward_model
    from metaapo.worlds.tiny import reward_model, sft

    sft.train(experiment, 0)
    policy, tokenizer = load_policy(experiment.world_path(0) / "sft")
    assert policy.config.vocab_size == len(tokenizer)
    reward_model.train(experiment, 0)
    model, _ = load_reward_model(experiment.world_path(0) / "reward_model")
    assert model.config.num_labels == 1
    rows = read_jsonl(experiment.world_path(0) / "reward_model" / "comparisons.jsonl.gz")
    for row in rows:
        assert len(row["answers"]) == 9
        for better, worse in row["comparisons"]:
            assert row["answers"][better] != row["answers"][worse]


def test_the_comparison_loss_equals_trl_s_on_the_same_pairs(experiment):
    """Each answer read once, packed, against reading chosen and rejected in full for each comparison."""
    import torch
    from conftest import make_reward_model

    from metaapo.models.logps import hidden_states
    from metaapo.worlds.tiny.reward_model import collate_comparisons

    model = make_reward_model()
    rows = [
        {"prompt": [1, 4, 7, 5], "answers": [[8, 2], [9, 10, 2], [11, 2]], "comparisons": [[0, 1], [2, 0], [1, 2]]},
        {"prompt": [1, 4, 12, 13, 5], "answers": [[8, 2], [9, 2]], "comparisons": [[1, 0]]},
    ]
    inputs = collate_comparisons(rows, pad_id=0)
    rewards = model.score(hidden_states(model, inputs["batch"])[inputs["batch"].ends]).squeeze(-1)
    ours = -torch.nn.functional.logsigmoid(rewards[inputs["better"]] - rewards[inputs["worse"]]).mean()

    def reward(row, answer):
        return model(input_ids=torch.tensor([[*row["prompt"], *row["answers"][answer]]])).logits.squeeze()

    theirs = [reward(row, b) - reward(row, w) for row in rows for b, w in row["comparisons"]]
    assert ours.item() == pytest.approx(-torch.nn.functional.logsigmoid(torch.stack(theirs)).mean().item(), rel=1e-4)


@settings(max_examples=20)
@given(st.integers(0, 100))
def test_agreement_is_one_for_gold_itself_and_one_half_for_a_constant(seed):
    from metaapo.worlds.tiny.health import agreement

    gold = np.random.default_rng(seed).normal(size=(20, 4))
    assert agreement(gold, gold) == 1.0
    assert agreement(gold, -gold) == 0.0
    assert agreement(gold, np.zeros_like(gold)) == 0.5


def test_a_world_out_of_range_stops_and_says_which_value(experiment, capsys, monkeypatch):
    import yaml

    from metaapo.worlds.tiny import health

    config = experiment.results / "config.yaml"
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text(yaml.safe_dump(experiment.dump()))
    monkeypatch.setattr("sys.argv", ["health", "--config", str(config), "--world", "0"])
    row = {"name": "room", "value": 0.01, "low": 0.15, "high": 0.95, "ok": False, "unit": "share", "note": ""}
    monkeypatch.setattr(health, "checks", lambda *_: [row])
    with pytest.raises(SystemExit, match=r"world 0: room is 0\.01, outside \[0\.15, 0\.95\]"):
        health.main()
    assert not (experiment.world_path(0) / "health.json").exists()
