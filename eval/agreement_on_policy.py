"""How often the reward model ranks the samples of trained policies as the gold reward does.

    python -m eval.agreement_on_policy --config results/default/config.yaml --method dpo

A reward model is trained on answers of other writers, and policies move away from them: what counts is whether it is
still right where a policy ends. Each run of the method, at its largest budget, samples its last checkpoint on prompts
of its last iteration; both rewards grade the samples. Writes agreement/{method}.json for the health check of the report
(`reports.health`); nothing here enters a score.
"""

from __future__ import annotations

import importlib
import json
import sys
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

from eval.grade import gold_module
from metaapo.command import errors_in_one_sentence, experiment_arguments
from metaapo.data import DataError, Message, read_jsonl, write_json
from metaapo.experiment import Experiment, Run, load
from metaapo.method import known_declarations

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Record = dict[str, Any]
PROMPTS, SAMPLES = 128, 6  # about 1,900 pairs per run: a standard error of about 0.015


def checked_methods(experiment: Experiment) -> list[str]:
    """The plain methods whose ends are checked, if the world has a gold reward to check with."""
    if gold_module(experiment.world.name) is None:
        return []
    declared = known_declarations()
    return [name for name in experiment.methods if name in declared and declared[name].shows_signal]


def agreement_files(experiment: Experiment) -> list[str]:
    """The files this module writes, as a Snakemake input."""
    return [str(experiment.results / "agreement" / f"{name}.json") for name in checked_methods(experiment)]


def runs_of(experiment: Experiment, method: str) -> list[Run]:
    """The runs of a method at its largest budget."""
    largest = max(experiment.methods[method].budget)
    return [run for run in experiment.runs() if run.method == method and run.budget == largest]


def check_method(experiment: Experiment, method: str) -> Record:
    """Measure the agreement at the end of every run of a method.

    Returns:
        {method, prompts, samples, runs: [{run, world, agreement (share of pairs, 0 to 1), gold and proxy (means)}]}.

    Raises:
        DataError: a checkpoint or the world's pairs are missing, or all samples have the same gold reward.
    """
    from metaapo.models.load import load_policy, load_reward_model, on_best_device, use_threads_of_environment
    from metaapo.worlds.tiny.health import agreement

    use_threads_of_environment()
    rows = []
    for run in runs_of(experiment, method):
        world = experiment.world_of(run.seed)
        policy, tokenizer = load_policy(experiment.run_path(run) / f"iter{experiment.iterations}" / "model")
        reward_model, its_tokenizer = load_reward_model(experiment.world_path(world) / "reward_model")
        prompts = last_prompts(experiment, world)
        texts = _sample(experiment, run, on_best_device(policy), tokenizer, prompts)
        golds, proxies = _rewards(experiment, on_best_device(reward_model), its_tokenizer, prompts, texts)
        means = {"gold": round(float(golds.mean()), 4), "proxy": round(float(proxies.mean()), 4)}
        rows.append({"run": run.id, "world": world, "agreement": round(agreement(golds, proxies), 4), **means})
    return {"method": method, "prompts": PROMPTS, "samples": SAMPLES, "runs": rows}


def last_prompts(experiment: Experiment, world: int) -> list[list[Message]]:
    """The first prompts of a world's last iteration.

    Raises:
        DataError: the world has no prompt of that iteration.
    """
    path = experiment.world_path(world) / "data" / "pairs.jsonl"
    rows = [row["messages"] for row in read_jsonl(path) if row["iteration"] == experiment.iterations]
    if not rows:
        raise DataError(f"{path}: no prompt of iteration {experiment.iterations}; rebuild the world's data")
    return rows[:PROMPTS]


def _sample(
    experiment: Experiment,
    run: Run,
    policy: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: list[list[Message]],
) -> list[list[str]]:
    """SAMPLES responses to each prompt, sampled as for annotation."""
    from metaapo.models.generate import generate

    sampling = experiment.sampling_of(run.method)
    seed = zlib.crc32(json.dumps([run.id, "agreement"]).encode())
    settings = (sampling.temperature, sampling.top_p, sampling.max_new_tokens, sampling.batch_size, seed)
    return [[r.text for r in row] for row in generate(policy, tokenizer, prompts, SAMPLES, *settings)]


def _rewards(
    experiment: Experiment,
    reward_model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: list[list[Message]],
    texts: list[list[str]],
) -> tuple[np.ndarray, np.ndarray]:
    """Gold and reward-model rewards, each (prompts, samples)."""
    from metaapo.models.rewards import reward_responses

    world = importlib.import_module(str(gold_module(experiment.world.name)))
    golds = [[world.gold(messages, text).reward for text in row] for messages, row in zip(prompts, texts)]
    proxies = reward_responses(reward_model, tokenizer, prompts, texts, experiment.hardware.score_batch_size)[0]
    return np.array(golds), np.array(proxies)


def main() -> None:
    """Command line: measure the agreement at the end of one method's runs."""
    parser = experiment_arguments(__doc__.splitlines()[0])
    parser.add_argument("--method", required=True, help="an entry of the configuration")
    arguments = parser.parse_args()
    with errors_in_one_sentence():
        experiment = load(arguments.config)
        if arguments.method not in experiment.methods:
            known = ", ".join(experiment.methods)
            raise DataError(f"--method {arguments.method}: not in this experiment; its methods: {known}")
        found = check_method(experiment, arguments.method)
        write_json(experiment.results / "agreement" / f"{arguments.method}.json", found)
        print(json.dumps(found), file=sys.stderr)


if __name__ == "__main__":
    main()
