"""The annotator: a reward model trained on noisy preference pairs, with TRL's RewardTrainer.

It starts from the SFT policy's weights and is trained on several behaviours, including the SFT policy's samples. When
trained on foreign pairs alone, it misjudges the policy's responses, which every online method then exploits
(docs/world.md).

    OMP_NUM_THREADS=2 python -m metaapo.worlds.tiny.reward_model --config config/default.yaml --world 0
"""

from __future__ import annotations

import itertools
import math
import random
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from torch.nn.functional import cross_entropy, logsigmoid
from transformers import LlamaForSequenceClassification, PreTrainedTokenizerBase, set_seed
from trl import RewardConfig, RewardTrainer

from metaapo.command import errors_in_one_sentence, load_and_pin, world_arguments
from metaapo.data import Message, write_jsonl
from metaapo.experiment import Experiment
from metaapo.models.generate import Response, generate
from metaapo.models.load import encode_responses, load_policy, use_threads_of_environment
from metaapo.models.logps import collate, hidden_states
from metaapo.worlds.tiny.data import training_prompts
from metaapo.worlds.tiny.gold import gold, prefer
from metaapo.worlds.tiny.sft import check_lengths, save, tokenize, training_arguments
from metaapo.worlds.tiny.tasks import parse
from metaapo.worlds.tiny.writers import OFFLINE_WRITERS, offline_answers, offline_beliefs, outdated_beliefs, spoil

ON_POLICY, SPOILT = 4, 1  # answers per prompt: by the SFT policy, and degenerate versions of one of them
COMPARISONS = math.comb(ON_POLICY + len(OFFLINE_WRITERS) + SPOILT, 2)


def sft_samples(experiment: Experiment, seed: int, prompts: Sequence[list[Message]], n: int) -> list[list[Response]]:
    """Sample n responses of a world's SFT policy to each prompt, with the methods' sampling settings."""
    policy, tokenizer = load_policy(experiment.world_path(seed) / "sft")
    sampling = experiment.sampling
    return generate(
        policy,
        tokenizer,
        prompts,
        n=n,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        max_new_tokens=sampling.max_new_tokens,
        batch_size=sampling.batch_size,
        seed=seed,
    )


def _answers(experiment: Experiment, seed: int, prompts: Sequence[list[Message]]) -> list[list[str]]:
    """Answers to each prompt: ON_POLICY by the SFT policy, one by each offline writer, and SPOILT degenerate ones."""
    sampled = sft_samples(experiment, seed, prompts, ON_POLICY)
    rng, believed = random.Random(f"tiny/{seed}/reward_model/answers"), offline_beliefs(seed)
    rows = []
    for messages, responses in zip(prompts, sampled):
        own = [response.text for response in responses]
        foreign = offline_answers(parse(messages), rng, believed)
        rows.append([*own, *foreign, *(spoil(text, rng) for text in rng.sample(own, SPOILT))])
    return rows


def collect_comparisons(experiment: Experiment, seed: int) -> list[dict[str, Any]]:
    """Collect answers and noisy labels: {messages, task, answers, comparisons}, one row per prompt.

    All pairs of a prompt's answers, by the SFT policy, the offline writers and degenerate ones, are labelled with
    Bradley-Terry noise on gold rewards; a comparison is [better, worse], indices into `answers`. Equal answers are not
    compared.
    """
    rng = random.Random(f"tiny/{seed}/reward_model")
    count = math.ceil(experiment.reward_model.pairs / COMPARISONS)
    prompts = list(itertools.islice(training_prompts(rng, outdated_beliefs(seed)), count))
    rows = []
    for (task, messages), texts in zip(prompts, _answers(experiment, seed, [messages for _, messages in prompts])):
        rewards = [gold(messages, text).reward for text in texts]
        comparisons = []
        for one, two in itertools.combinations(range(len(texts)), 2):
            if texts[one] != texts[two]:
                first_wins = rng.random() < prefer(rewards[one], rewards[two], experiment.world.label_tau)
                comparisons.append([one, two] if first_wins else [two, one])
        if comparisons:
            rows.append({"messages": messages, "task": task, "answers": texts, "comparisons": comparisons})
    return rows


def _dataset(rows: Sequence[dict[str, Any]], tokenizer: PreTrainedTokenizerBase, max_positions: int) -> Dataset:
    prompts = tokenize(tokenizer, [row["messages"] for row in rows], None)
    answers = [encode_responses(tokenizer, row["answers"]) for row in rows]
    sequences = [[*prompt, *answer] for prompt, group in zip(prompts, answers) for answer in group]
    check_lengths(sequences, max_positions, "reward-model answers")
    columns = {"prompt": prompts, "answers": answers, "comparisons": [row["comparisons"] for row in rows]}
    return Dataset.from_dict(
        columns | {"length": [len(p) + sum(map(len, group)) for p, group in zip(prompts, answers)]}
    )


class ComparisonTrainer(RewardTrainer):
    """TRL's RewardTrainer on all comparisons of a prompt's answers at once: the same loss at a tenth of the cost.

    Each answer is read once instead of once per comparison, and the prompt once for all answers. The loss of writing
    the preferred answer is added (GRM, Yang et al. 2024, arXiv 2406.10216): without it, it depends on luck whether a
    reward model learns who wants which greeting.
    """

    def _prepare_dataset(self, dataset: Dataset, *args: Any, **kwargs: Any) -> Dataset:
        """The dataset is tokenized already."""
        return dataset

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Tensor:
        """Bradley-Terry loss, -log sigmoid(r_better - r_worse), mean over comparisons, plus the text loss."""
        batch = inputs["batch"]
        states = hidden_states(model, batch)
        rewards = model.score(states[batch.ends]).squeeze(-1)
        better, worse = (rewards[inputs[side]] for side in ("better", "worse"))
        self._metrics["train"]["accuracy"].append((better > worse).float().mean().item())
        return -logsigmoid(better - worse).mean() + self._text_loss(model, states, inputs)

    @staticmethod
    def _text_loss(model: Any, states: Tensor, inputs: dict[str, Any]) -> Tensor:
        """Mean cross-entropy of the tokens of each prompt's preferred answer, by the tied output embeddings."""
        batch = inputs["batch"]
        preferred = torch.isin(batch.owners, inputs["preferred"])
        logits = states[batch.sources[preferred]] @ model.get_input_embeddings().weight.T
        return cross_entropy(logits, batch.targets[preferred])


def collate_comparisons(rows: Sequence[dict[str, Any]], pad_id: int) -> dict[str, Any]:
    """A batch of comparisons: {batch, better, worse, preferred}.

    `batch` packs all answers; `better` and `worse`, int64, hold an answer's index for each comparison, and `preferred`
    for each prompt: the answer that wins most comparisons, the first of several.
    """
    prompts = [row["prompt"] for row in rows for _ in row["answers"]]
    answers = [answer for row in rows for answer in row["answers"]]
    starts = list(itertools.accumulate((len(row["answers"]) for row in rows), initial=0))
    pairs = torch.tensor([[start + i for i in pair] for start, row in zip(starts, rows) for pair in row["comparisons"]])
    preferred = torch.tensor([start + _preferred(row) for start, row in zip(starts, rows)])
    batch = collate(prompts, answers, pad_id)
    return {"batch": batch, "better": pairs[:, 0], "worse": pairs[:, 1], "preferred": preferred}


def _preferred(row: dict[str, Any]) -> int:
    wins = [better for better, _ in row["comparisons"]]
    return max(range(len(row["answers"])), key=wins.count)


def train(experiment: Experiment, seed: int) -> Path:
    """Train the reward model of a world and save it with its tokenizer and its comparisons.

    Returns:
        The checkpoint's folder, world{seed}/reward_model.
    """
    world, settings = experiment.world_path(seed), experiment.reward_model
    _, tokenizer = load_policy(world / "sft")
    rows = collect_comparisons(experiment, seed)
    set_seed(seed)
    model = LlamaForSequenceClassification.from_pretrained(world / "sft", num_labels=1)
    print(f"reward model: {sum(len(row['comparisons']) for row in rows)} comparisons", file=sys.stderr)
    arguments = RewardConfig(
        **training_arguments(world / "reward_model", seed),
        learning_rate=settings.lr,
        num_train_epochs=settings.epochs,
        per_device_train_batch_size=max(1, settings.batch_size // COMPARISONS),
        max_length=None,
    )
    ComparisonTrainer(
        model,
        args=arguments,
        train_dataset=_dataset(rows, tokenizer, experiment.model.max_positions),
        processing_class=tokenizer,
        data_collator=partial(collate_comparisons, pad_id=tokenizer.pad_token_id),
    ).train()
    write_jsonl(world / "reward_model" / "comparisons.jsonl.gz", rows)
    return save(model, tokenizer, world / "reward_model")


def main() -> None:
    """Command line: train the reward model of one world."""
    arguments = world_arguments("Train the reward model of a world.").parse_args()
    use_threads_of_environment()
    with errors_in_one_sentence():
        train(load_and_pin(arguments.config), arguments.world)


if __name__ == "__main__":
    main()
