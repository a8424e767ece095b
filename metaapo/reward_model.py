"""The annotator: a reward model trained on noisy preference pairs, with TRL's RewardTrainer.

It starts from the SFT policy's weights and sees several behaviours, the SFT policy's own samples among them: trained on
foreign pairs alone it misjudges what the policy says, and every online method follows its errors (docs/world.md).

    OMP_NUM_THREADS=2 python -m metaapo.reward_model --config config/default.yaml --world 0
"""

from __future__ import annotations

import argparse
import itertools
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import LlamaForSequenceClassification, PreTrainedTokenizerBase, set_seed
from trl import RewardConfig, RewardTrainer

from metaapo.config import ConfigError, Experiment, load
from metaapo.data import DataError, Message, write_jsonl
from metaapo.generate import generate
from metaapo.models import load_policy, use_threads_of_environment
from metaapo.sft import check_lengths, save, tokenize, training_arguments
from metaapo.worlds import tiny

OWN, FOREIGN = 4, 2  # answers to each prompt: by the SFT policy, by the writers of the offline pairs


def _answers(experiment: Experiment, seed: int, prompts: Sequence[list[Message]]) -> list[list[str]]:
    """OWN answers by the SFT policy and FOREIGN ones by the offline writers to each prompt."""
    policy, tokenizer = load_policy(experiment.world_path(seed) / "sft")
    sampling = experiment.sampling
    own = generate(
        policy,
        tokenizer,
        prompts,
        n=OWN,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        max_new_tokens=sampling.max_new_tokens,
        batch_size=sampling.batch_size,
        seed=seed,
    )
    rng = random.Random(f"tiny/{seed}/reward_model/foreign")
    foreign = [[tiny.offline_answer(tiny.parse(messages), rng) for _ in range(FOREIGN)] for messages in prompts]
    return [[r.text for r in mine] + theirs for mine, theirs in zip(own, foreign)]


def collect_pairs(experiment: Experiment, seed: int) -> list[dict[str, Any]]:
    """Pairs for the reward model: {messages, chosen, rejected, task}, labelled with Bradley-Terry noise.

    Each prompt's answers, the SFT policy's and those of the offline writers, are compared each with each, so that 6 of
    15 pairs are on-policy, 8 mixed and 1 foreign.
    """
    wanted = experiment.reward_model.pairs
    rng = random.Random(f"tiny/{seed}/reward_model")
    per_prompt = (OWN + FOREIGN) * (OWN + FOREIGN - 1) // 2
    # a tenth more prompts than needed: equal answers make no pair
    prompts = list(itertools.islice(tiny.training_prompts(rng), 8 + int(1.1 * wanted / per_prompt)))
    rows = []
    for (task, messages), texts in zip(prompts, _answers(experiment, seed, [messages for _, messages in prompts])):
        for one, two in itertools.combinations(texts, 2):
            if one != two:
                chosen, rejected = tiny.label(messages, one, two, experiment.world.label_tau, rng)
                rows.append({"messages": messages, "chosen": chosen, "rejected": rejected, "task": task})
    rng.shuffle(rows)
    return rows[:wanted]


def _dataset(rows: Sequence[dict[str, Any]], tokenizer: PreTrainedTokenizerBase, max_positions: int) -> Dataset:
    conversations = [row["messages"] for row in rows]
    ids = {side: tokenize(tokenizer, conversations, [row[side] for row in rows]) for side in ("chosen", "rejected")}
    lengths = [max(len(one), len(two)) for one, two in zip(ids["chosen"], ids["rejected"])]
    for side, sequences in ids.items():
        check_lengths(sequences, max_positions, f"reward-model pairs, {side}")
    return Dataset.from_dict({"chosen_ids": ids["chosen"], "rejected_ids": ids["rejected"], "length": lengths})


def train(experiment: Experiment, seed: int) -> Path:
    """Train the reward model of a world and save it with its tokenizer and its pairs.

    Returns:
        The checkpoint's folder, world{seed}/reward_model.
    """
    world, settings = experiment.world_path(seed), experiment.reward_model
    _, tokenizer = load_policy(world / "sft")
    rows = collect_pairs(experiment, seed)
    set_seed(seed)
    model = LlamaForSequenceClassification.from_pretrained(world / "sft", num_labels=1)
    print(f"reward model: {len(rows)} pairs", file=sys.stderr)
    arguments = RewardConfig(
        **training_arguments(world / "reward_model", seed),
        learning_rate=settings.lr,
        num_train_epochs=settings.epochs,
        per_device_train_batch_size=settings.batch_size,
        max_length=None,
    )
    data = _dataset(rows, tokenizer, experiment.model.max_positions)
    RewardTrainer(model, args=arguments, train_dataset=data, processing_class=tokenizer).train()
    write_jsonl(world / "reward_model" / "pairs.jsonl.gz", rows)
    return save(model, tokenizer, world / "reward_model")


def main() -> None:
    """Command line: train the reward model of one world."""
    parser = argparse.ArgumentParser(description="Train the reward model of a world.")
    parser.add_argument("--config", required=True, help="the experiment's configuration file")
    parser.add_argument("--world", type=int, required=True, help="the world's seed")
    arguments = parser.parse_args()
    use_threads_of_environment()
    try:
        train(load(arguments.config), arguments.world)
    except (ConfigError, DataError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
