"""PPO (Schulman et al. 2017; for language models Ziegler et al. 2019, Ouyang et al. 2022), on the shared components.

PPO has its own update. Each iteration goes through its prompts in rollouts: sample one response to each prompt, score
it, subtract a KL penalty from the rewards, estimate advantages, and take several epochs of clipped steps on the policy
and the value model. The equations and their sources are in metaapo/policy_gradient.py.

Design choices:
- The value model is a separate model initialised from the reward model (Ouyang et al. 2022): with a head on the
  policy's trunk, the large initial value errors would disturb the policy.
- The KL coefficient is `train.beta`. DPO with beta solves max E[r] - beta KL for a reward in log-odds, which the reward
  model's Bradley-Terry loss yields, so all methods are regularised alike; `kl_target` makes the coefficient adaptive.
- Each pass over the prompts samples one response per prompt (`responses` passes in total): PPO benefits from fresh
  samples, so K responses from one policy are worth less than K passes. Its annotation ratio is responses / K; compare
  methods at measured budgets.
- Samples are drawn at temperature 1 without top_p, since the importance ratio refers to the policy itself.
- A response cut off before EOS loses `sampling.cut_penalty` (Huang et al. 2024), as in every method: the reward model
  scores it as if it were complete.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from pydantic import Field

from metaapo.config import ConfigError, MethodConfig
from metaapo.method import Declaration

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.random import Generator
    from torch import Tensor

    from metaapo.loop.ledger import LedgerRow
    from metaapo.loop.prompts import Prompt
    from metaapo.loop.run import RunContext
    from metaapo.loop.stages import Clock
    from metaapo.models.generate import Response
    from metaapo.policy_gradient import Rollout

DECLARATION = Declaration(
    title="PPO",
    family="online",
    responses=1,  # per pass; `responses: 1` is the default
    required=True,
    look=("#56B4E9", "P"),
)


class Params(MethodConfig):
    """Configuration keys of PPO; `train.lr` is the policy's learning rate, `train.beta` the KL coefficient."""

    responses: int = Field(1, ge=1, description="passes over the prompts, with one response per prompt each")
    rollout: int = Field(64, ge=2, description="responses sampled between updates of the sampling policy")
    epochs: int = Field(4, ge=1, description="passes over a rollout")
    minibatch: int = Field(32, ge=1, description="responses per optimizer step")
    clip: float = Field(0.2, gt=0, description="clipping range of the importance ratio")
    value_clip: float = Field(
        0.2, gt=0, description="clipping range of a value's change from the rollout, in units of reward"
    )
    value_lr: float = Field(3e-4, gt=0, description="peak learning rate of the value model")
    discount: float = Field(1.0, gt=0, le=1, description="gamma")
    trace: float = Field(0.95, ge=0, le=1, description="lambda of generalized advantage estimation")
    kl_target: float | None = Field(
        None, gt=0, description="target KL to the reference, in nats per response; none: fixed coefficient"
    )
    kl_horizon: float = Field(2000, gt=0, description="number of responses over which the coefficient adapts")


def train(params: Params, context: RunContext) -> None:
    """Run every unfinished iteration; called by metaapo.train instead of the shared loop."""
    from metaapo.loop.run import run_iterations

    run_iterations(context, PPO(params, context).iterate)


class PPO:
    """One PPO run: the shared loop's components plus a value model."""

    def __init__(self, params: Params, context: RunContext) -> None:
        from metaapo.loop.workbench import Workbench

        self.params, self.context, self.bench = params, context, Workbench.of(context)
        if self.bench.processes.n > 1:
            raise ConfigError(f"methods.{context.run.method}: PPO runs in one process; start it without a launcher")

    def iterate(self, iteration: int, folder: Path) -> dict[str, Any]:
        """Run one iteration of rollouts and updates; write `folder` and return the summary."""
        from metaapo.loop.optim import adamw
        from metaapo.loop.probe import probe, start_probe
        from metaapo.loop.records import summary, write_records
        from metaapo.loop.saving import save_policy
        from metaapo.loop.stages import Clock

        clock, bench = Clock(), self.bench
        self._load(iteration)
        prompts = bench.read_prompts(iteration)
        rollouts = self._plan(iteration, prompts)
        steps = self.params.epochs * sum(math.ceil(len(batch) / self.params.minibatch) for batch in rollouts)
        optimizers = [
            adamw(model, bench.train, steps, lr)
            for model, lr in ((bench.policies.policy, bench.train.lr), (self.value_model, self.params.value_lr))
        ]
        bench.policies.checkpoint = None  # the policy's weights change from here on
        log: list[dict[str, Any]] = []
        probes = start_probe(bench, iteration, prompts)
        for number, batch in enumerate(rollouts, start=1):
            sampled = self._sample(batch, self.context.torch_seed(iteration, f"rollout{number}"), clock)
            with clock("train"):
                log += self._update(batch, sampled, optimizers, self.context.rng(iteration, f"minibatch{number}"))
        probes += probe(bench, iteration, len(log), prompts)
        log = [{"iteration": iteration, "step": step} | row for step, row in enumerate(log, start=1)]
        save_policy(bench.policies, folder)
        write_records(bench, folder, prompts, log, probes)
        self.value_model.save_pretrained(folder / "value_model", safe_serialization=True)
        bench.policies.reward_tokenizer.save_pretrained(folder / "value_model")
        return summary(bench, prompts, probes, clock) | {"kl_coefficient": self.kl_coefficient}

    def _load(self, iteration: int) -> None:
        import torch

        from metaapo.data import read_json
        from metaapo.models.load import load_reward_model

        self.bench.policies.start(iteration)
        path, self.kl_coefficient = self.context.reward_model, self.bench.train.beta
        if iteration > 1:
            path = self.context.iteration_path(iteration - 1) / "value_model"
            self.kl_coefficient = read_json(path.parent / "summary.json")["kl_coefficient"]
        self.value_model = load_reward_model(path, torch.float32)[0].to(self.bench.processes.device)

    def _plan(self, iteration: int, prompts: list[Prompt]) -> list[list[Prompt]]:
        """Select prompts within the budget, record that in the ledger, and split shuffled passes into rollouts."""
        from metaapo.loop.online import enter_selection
        from metaapo.selection import random_fraction

        rng = self.context.rng(iteration, "select")
        enter_selection(prompts, random_fraction(len(prompts), self.context.run.budget, rng))
        chosen = [prompt for prompt in prompts if prompt.ledger.sampled]
        if not chosen:
            raise ConfigError(
                f"{self.context.run.id}: the budget leaves no prompt in iteration {iteration}; increase it"
            )
        order = [chosen[i] for _ in range(self.params.responses) for i in rng.permutation(len(chosen))]
        return [order[start : start + self.params.rollout] for start in range(0, len(order), self.params.rollout)]

    def _sample(self, prompts: list[Prompt], seed: int, clock: Clock) -> list[tuple[Response, float]]:
        """Sample and score one response per prompt, and record them in the ledger."""
        with clock("sample"):
            responses = [response for (response,) in self.bench.sampler.sample(prompts, 1, 1.0, 1.0, seed)]
        with clock("annotate"):
            rewards = [
                reward
                for (reward,) in self.bench.annotator.rewards(prompts, [[response.text] for response in responses])
            ]
        for prompt, response, reward in zip(prompts, responses, rewards):
            enter_response(prompt.ledger, response, reward)
        return list(zip(responses, rewards))

    def _update(
        self, prompts: list[Prompt], sampled: list[tuple[Response, float]], optimizers: list[Any], rng: Generator
    ) -> list[dict[str, Any]]:
        """Estimate advantages for one rollout and train on its minibatches; return one log row per optimizer step."""
        from metaapo import policy_gradient
        from metaapo.loop.annotate import scores_of

        params, policies = self.params, self.bench.policies
        sequences = [(prompt.ids, response.token_ids) for prompt, (response, _) in zip(prompts, sampled)]
        with self.bench.processes.arithmetic():
            models = (policies.policy, policies.reference, self.value_model)
            rollout = policy_gradient.measure(*models, sequences, policies.tokenizer.pad_token_id)
        responses, rewards = zip(*sampled)
        scores = rollout.mask.new_tensor(scores_of(rewards, responses, self.bench.sampling.cut_penalty))
        advantages, returns = policy_gradient.estimate(
            rollout, scores, self.kl_coefficient, params.discount, params.trace
        )
        facts = {
            "reward": sum(reward for _, reward in sampled) / len(sampled),
            "kl": rollout.kl,
            "kl_coefficient": self.kl_coefficient,
            "explained_variance": policy_gradient.explained_variance(rollout.values, returns, rollout.mask),
            "eos_rate": sum(response.finished for response, _ in sampled) / len(sampled),
            "length": float(rollout.mask.sum(-1).mean()),
        }
        rows = []
        for _ in range(params.epochs):
            order = rng.permutation(len(prompts))
            for start in range(0, len(order), params.minibatch):
                minibatch = order[start : start + params.minibatch]
                rows.append(self._step(rollout, advantages, returns, minibatch, optimizers) | facts)
        if params.kl_target is not None:
            self.kl_coefficient = policy_gradient.adapt(
                self.kl_coefficient, rollout.kl, params.kl_target, len(prompts), params.kl_horizon
            )
        return rows

    def _step(
        self, rollout: Rollout, advantages: Tensor, returns: Tensor, minibatch: Any, optimizers: list[Any]
    ) -> dict[str, Any]:
        """Take one clipped step on policy and value model, on the rollout's responses indexed by `minibatch`."""
        from metaapo import policy_gradient

        params, policy = self.params, self.bench.policies.policy
        sequences = [rollout.sequences[i] for i in minibatch]
        batch = policy_gradient.batch_of(sequences, self.bench.policies.tokenizer.pad_token_id)
        with self.bench.processes.arithmetic():
            logps, entropies = policy_gradient.logps_and_entropies(policy, batch)
            values = policy_gradient.token_values(self.value_model, batch)
        old_logps, old_values, advantages, returns, mask = (
            x[minibatch, : logps.shape[1]] for x in (rollout.logps, rollout.values, advantages, returns, rollout.mask)
        )
        surrogate, clipped = policy_gradient.policy_loss(logps, old_logps, advantages, mask, params.clip)
        error, value_clipped = policy_gradient.value_loss(values, old_values, returns, mask, params.value_clip)
        row = {"lr": optimizers[0][1].get_last_lr()[0], "loss": surrogate.item(), "value_loss": error.item()}
        models, names = (policy, self.value_model), ("grad_norm", "value_grad_norm")
        for name, model, loss, (optimizer, schedule) in zip(names, models, (surrogate, error), optimizers):
            row[name] = policy_gradient.step(model, loss, optimizer, self.bench.train.max_grad_norm)
            schedule.step()
        return row | {
            "approximate_kl": policy_gradient.approximate_kl(logps, old_logps, mask),
            "entropy": float(policy_gradient.masked_mean(entropies, mask)),
            "clip_fraction": float(clipped),
            "value_clip_fraction": float(value_clipped),
        }


def enter_response(ledger: LedgerRow, response: Response, reward: float) -> None:
    """Count one sampled and scored response of a prompt."""
    ledger.outcome = "scored"
    ledger.responses_generated += 1
    ledger.tokens_generated += len(response.token_ids)
    ledger.responses_scored += 1
    ledger.reward_model_calls += 1
    ledger.reward_chosen = reward if ledger.reward_chosen is None else max(reward, ledger.reward_chosen)
    ledger.reward_rejected = reward if ledger.reward_rejected is None else min(reward, ledger.reward_rejected)
