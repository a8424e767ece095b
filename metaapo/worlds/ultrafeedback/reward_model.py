"""The annotator of a world of real data: a released reward model, or one trained here on a preference dataset.

    python -m metaapo.worlds.ultrafeedback.reward_model --config FILE --world 0            world{w}/reward_model
    python -m metaapo.worlds.ultrafeedback.reward_model --config FILE --world 0 --check    world{w}/health.json

A trained one starts from the SFT policy's weights and uses TRL's RewardTrainer. Before any policy is trained, its
agreement with the dataset's annotators is measured on the world's pairs.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, PreTrainedTokenizerBase, set_seed

from metaapo.assets import hub
from metaapo.assets.checkpoints import put_checkpoint
from metaapo.command import errors_in_one_sentence, load_and_pin, world_arguments
from metaapo.data import check_row, read_jsonl
from metaapo.experiment import Experiment
from metaapo.models.load import (
    encode_prompt,
    encode_response,
    load_reward_model,
    load_tokenizer,
    on_best_device,
    use_threads_of_environment,
)
from metaapo.models.rewards import reward_responses
from metaapo.worlds.tiny.health import conclude
from metaapo.worlds.ultrafeedback.pairs import read_pairs, token_counter

CHECKED_PAIRS = 256  # standard error of the agreement: 3 points
AGREEMENT = (0.55, 1.0)  # UltraFeedback's labels are noisy: good 8B reward models reach 0.7 to 0.8; chance is 0.5


def make_reward_model(experiment: Experiment, world: int) -> Path:
    """Install the released reward model, or train one.

    Returns:
        the checkpoint's folder, world{w}/reward_model.

    Raises:
        DataError: a checkpoint or dataset is missing or unusable.
    """
    if experiment.reward_model.checkpoint.path:
        return put_checkpoint(experiment, world, "reward_model")
    return train(experiment, world)


def train(experiment: Experiment, world: int) -> Path:
    """Train a reward model on a preference dataset, from the SFT policy's weights.

    Raises:
        DataError: the dataset is missing or unusable.
    """
    from trl import RewardConfig, RewardTrainer

    from metaapo.worlds.tiny.sft import training_arguments

    settings, folder = experiment.reward_model, experiment.world_path(world) / "reward_model"
    sft = experiment.world_path(world) / "sft"
    tokenizer = load_tokenizer(sft)
    data = _dataset(experiment, tokenizer)
    print(f"reward model: {len(data)} pairs", file=sys.stderr)
    set_seed(world)
    model = AutoModelForSequenceClassification.from_pretrained(sft, num_labels=1, dtype=torch.float32)
    model.config.pad_token_id = tokenizer.pad_token_id
    partial = folder.with_name(f".{folder.name}.partial")
    arguments = RewardConfig(
        **training_arguments(partial, world),
        learning_rate=settings.lr,
        num_train_epochs=settings.epochs,
        per_device_train_batch_size=settings.batch_size,
        max_length=None,
    )
    RewardTrainer(model, args=arguments, train_dataset=data, processing_class=tokenizer).train()
    tokenizer.save_pretrained(partial)
    model.save_pretrained(partial)
    shutil.rmtree(folder, ignore_errors=True)
    return partial.rename(folder)


def _dataset(experiment: Experiment, tokenizer: PreTrainedTokenizerBase) -> Any:
    """Build token ids in the form that `metaapo.models.rewards` scores: prompt, response and EOS."""
    from datasets import Dataset

    settings, key = experiment.reward_model, "reward_model.dataset.path"
    source = hub.of_dataset(key, settings.dataset).locate(experiment.assets_dir)
    rows, counts = read_pairs(settings.dataset, source, key, token_counter(tokenizer))
    print(f"{key}: {counts}", file=sys.stderr)
    columns: dict[str, list[Any]] = {"chosen_ids": [], "rejected_ids": [], "length": []}
    for row in rows[: settings.pairs]:
        prompt = encode_prompt(tokenizer, row["messages"])
        chosen, rejected = ([*prompt, *encode_response(tokenizer, row[side])] for side in ("chosen", "rejected"))
        columns["chosen_ids"].append(chosen)
        columns["rejected_ids"].append(rejected)
        columns["length"].append(max(len(chosen), len(rejected)))
    return Dataset.from_dict(columns)


def checks(experiment: Experiment, world: int) -> list[dict[str, Any]]:
    """Measure how often the reward model prefers the world's chosen answers; return the world's health table."""
    folder = experiment.world_path(world)
    model, tokenizer = load_reward_model(folder / "reward_model")
    rows = read_jsonl(folder / "data" / "pairs.jsonl")[:CHECKED_PAIRS]
    answers = [[row["chosen"], row["rejected"]] for row in rows]
    size = experiment.hardware.score_batch_size
    rewards, _ = reward_responses(on_best_device(model), tokenizer, [row["messages"] for row in rows], answers, size)
    share = sum(chosen > rejected for chosen, rejected in rewards) / len(rewards)
    name = f"reward model agrees with the labels of {len(rows)} offline pairs"
    note = "if it is lower, use another reward model"
    return [check_row(name, share, *AGREEMENT, "share of pairs", note)]


def main() -> None:
    """Command line: make or check the reward model of one world."""
    parser = world_arguments("Make or check the reward model of a world of real data.")
    parser.add_argument("--check", action="store_true", help="measure the reward model instead of making it")
    arguments = parser.parse_args()
    use_threads_of_environment()
    with errors_in_one_sentence():
        experiment = load_and_pin(arguments.config)
        if arguments.check:
            conclude(experiment, arguments.world, checks(experiment, arguments.world))
        else:
            make_reward_model(experiment, arguments.world)


if __name__ == "__main__":
    main()
