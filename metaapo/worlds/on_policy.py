"""Samples of a trained policy, graded by gold and by the reward model: is the reward model still right where it ended?

Tuning (worlds/tiny/tune.py) excludes trials by it; `eval.agreement_on_policy` checks finished experiments by it.
"""

from __future__ import annotations

import json
import zlib
from typing import TYPE_CHECKING

from metaapo.data import DataError, Message, read_jsonl
from metaapo.experiment import Experiment, Run
from metaapo.worlds.tiny.gold import gold

if TYPE_CHECKING:
    import numpy as np

PROMPTS, SAMPLES = 128, 6  # about 1,900 pairs per run: a standard error of about 0.015


def last_prompts(experiment: Experiment, world: int) -> list[list[Message]]:
    """The prompts of a world's last iteration.

    Raises:
        DataError: the world has no prompt of that iteration.
    """
    path = experiment.world_path(world) / "data" / "pairs.jsonl"
    rows = [row["messages"] for row in read_jsonl(path) if row["iteration"] == experiment.iterations]
    if not rows:
        raise DataError(f"{path}: no prompt of iteration {experiment.iterations}; rebuild the world's data")
    return rows


def rewards_at_the_end(
    experiment: Experiment, run: Run, n_prompts: int = PROMPTS, n_samples: int = SAMPLES
) -> tuple[np.ndarray, np.ndarray]:
    """Gold and reward-model rewards of what a run's last checkpoint samples, as for annotation.

    Args:
        experiment: the run's experiment.
        run: a finished run.
        n_prompts: the first prompts of its world's last iteration.
        n_samples: responses per prompt.

    Returns:
        Two arrays (prompts, samples): gold rewards and reward-model rewards.

    Raises:
        DataError: a checkpoint or the world's pairs are missing.
    """
    import numpy as np

    from metaapo.models.generate import generate
    from metaapo.models.load import load_policy, load_reward_model, on_best_device
    from metaapo.models.rewards import reward_responses, with_errors

    world, sampling = experiment.world_of(run.seed), experiment.sampling_of(run.method)
    prompts = last_prompts(experiment, world)[:n_prompts]
    policy, tokenizer = load_policy(experiment.run_path(run) / f"iter{experiment.iterations}" / "model")
    seed = zlib.crc32(json.dumps([run.id, "agreement"]).encode())
    settings = (sampling.temperature, sampling.top_p, sampling.max_new_tokens, sampling.batch_size, seed)
    drawn = generate(on_best_device(policy), tokenizer, prompts, n_samples, *settings)
    texts = [[response.text for response in row] for row in drawn]
    golds = [[gold(messages, text).reward for text in row] for messages, row in zip(prompts, texts)]
    judge, its_tokenizer = load_reward_model(experiment.world_path(world) / "reward_model")
    size = experiment.hardware.score_batch_size
    proxies = reward_responses(on_best_device(judge), its_tokenizer, prompts, texts, size)[0]
    return np.array(golds), np.array(with_errors(proxies, prompts, texts, sampling.annotator_noise))
