"""The enumerable world as the shared loop sees it: models, tokenizer, sampler and annotator in place of real ones.

The loop runs unchanged on them, in float64, from scoring the offline pairs to the losses of a micro-batch.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor, nn

from conformance.exact import BOS, EDGES, EOS, PAD, PROMPTS, RESPONSES, ROOT, VOCABULARY, Array, World, logps
from metaapo.config import MethodConfig
from metaapo.experiment import Run, resolve
from metaapo.loop.forward import Scorer
from metaapo.loop.kept import Kept
from metaapo.loop.ledger import LedgerRow
from metaapo.loop.processes import Processes
from metaapo.loop.prompts import PreferencePair, Prompt
from metaapo.loop.run import RunContext
from metaapo.loop.workbench import Workbench
from metaapo.models.generate import Response
from metaapo.models.logps import SequenceBatch, collate, sequence_logps

IMPOSSIBLE = -1e4  # logit of tokens that are not in the tree; exp of it is 0, and unlike -inf it gives no nan
TEXTS = tuple(" ".join(map(str, response[:-1])) for response in RESPONSES)
MATCHED = "metaapo"  # the method whose run a control may match
SAMPLED_BY_MATCHED = (5, 3)  # of 8 prompts, in iterations 1 and 2


@contextmanager
def float64() -> Iterator[None]:
    """Let new tensors be float64."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _table(values: Tensor) -> Tensor:
    """Values of edges, (prompts, edges), as (prompts, token before, token); elsewhere IMPOSSIBLE."""
    prompts = torch.arange(len(PROMPTS)).unsqueeze(1)
    before = torch.tensor([[ids[-1] if a == ROOT else a for a, _ in EDGES] for ids in PROMPTS])
    tokens = torch.tensor([b for _, b in EDGES]).expand_as(before)
    table = values.new_full((len(PROMPTS), VOCABULARY, VOCABULARY), IMPOSSIBLE)
    return table.index_put((prompts.expand_as(before), before, tokens), values)


def _prompt_of(input_ids: Tensor, attention_mask: Tensor) -> Tensor:
    """Which prompt each token sees through the attention mask, int64 (rows, width); 0 if it sees none."""
    sees = [
        (attention_mask.squeeze(1) & (input_ids == ids[-1]).unsqueeze(1)).any(-1).long() * number
        for number, ids in enumerate(PROMPTS)
    ]
    return torch.stack(sees).sum(0)


class TabularPolicy(nn.Module):
    """A policy whose parameters are the logits of the token tree's edges, (prompts, edges)."""

    def __init__(self, logits: Array) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(logits, dtype=torch.float64))

    def states(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Logits of the next token, (rows, width, vocabulary)."""
        return _table(self.logits)[_prompt_of(input_ids, attention_mask), input_ids]

    def forward(self, batch: SequenceBatch) -> Tensor:
        """Log-probability of each response token, (m,), as of any wrapped policy."""
        states = self.states(batch.input_ids, batch.attention_mask(batch.input_ids.device)).flatten(0, 1)[batch.sources]
        return states.log_softmax(-1).gather(-1, batch.targets.unsqueeze(-1)).squeeze(-1)

    def response_logps(self) -> Tensor:
        """Log-probability of each response, (prompts, responses), with gradients."""
        ids = [prompt for prompt in PROMPTS for _ in RESPONSES]
        return sequence_logps(self, collate(ids, list(RESPONSES) * len(PROMPTS), PAD)).view(len(PROMPTS), -1)

    @torch.no_grad()
    def probabilities(self) -> Array:
        """Probability of each response, (prompts, responses)."""
        return np.exp(logps(self.logits.numpy()))


class LanguageModel(nn.Module):
    """A tabular policy with the interface of a transformers model."""

    def __init__(self, policy: TabularPolicy) -> None:
        super().__init__()
        self.policy = policy

    def base_model(self, input_ids: Tensor, attention_mask: Tensor, **unused: Any) -> SimpleNamespace:
        """The logits of the next token as last hidden states."""
        return SimpleNamespace(last_hidden_state=self.policy.states(input_ids, attention_mask))

    def get_output_embeddings(self) -> nn.Module:
        """Nothing is left to do after the hidden states."""
        return nn.Identity()


class ValueTable(nn.Module):
    """A value per prompt and token before, with the interface of a reward model."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        shape = (len(PROMPTS), VOCABULARY)
        self.values = nn.Parameter(torch.randn(shape, generator=generator, dtype=torch.float64))
        self.score = nn.Identity()

    def base_model(self, input_ids: Tensor, attention_mask: Tensor, **unused: Any) -> SimpleNamespace:
        """The values as last hidden states of one number."""
        values = self.values[_prompt_of(input_ids, attention_mask), input_ids]
        return SimpleNamespace(last_hidden_state=values.unsqueeze(-1))


class Tokenizer:
    """Texts are token ids in decimal."""

    pad_token_id, eos_token_id, bos_token_id = PAD, EOS, BOS

    def __call__(self, text: str, add_special_tokens: bool = False) -> dict[str, list[int]]:
        """The token ids of a text, without EOS."""
        return {"input_ids": [int(token) for token in text.split()]}


@dataclass(frozen=True)
class Row:
    """One outcome of everything that is random about a prompt, in response numbers.

    Attributes:
        prompt: number of the prompt.
        chosen: of the offline pair.
        rejected: of the offline pair.
        drawn: responses that the policy draws if it samples for this prompt; None: the prompt is not sampled.
    """

    prompt: int
    chosen: int
    rejected: int
    drawn: tuple[int, ...] | None = None


@dataclass
class TabularPolicies:
    """The models of a run, in place of `metaapo.loop.policies.Policies`."""

    policy: Any
    reference: Any
    config: Any
    tokenizer: Tokenizer = field(default_factory=Tokenizer)
    checkpoint: Any = None


class EnumeratingSampler:
    """Returns the responses that a row says are drawn; at temperature 0, the greedy one."""

    works_while_training = True
    one_engine = nullcontext

    def __init__(self, policy: TabularPolicy, settings: Any) -> None:
        self.policy, self.settings = policy, settings
        self.rows: Sequence[Row] = ()

    def sample(
        self, prompts: Sequence[Prompt], n: int, temperature: float, top_p: float, seed: int
    ) -> list[list[Response]]:
        """As `metaapo.loop.sampling.Sampler.sample`."""
        rows = [self.rows[int(prompt.id)] for prompt in prompts]
        drawn = [row.drawn for row in rows] if temperature else [(self._greedy(row.prompt),) for row in rows]
        return [[Response(TEXTS[y], list(RESPONSES[y]), [], True) for y in responses[:n]] for responses in drawn]

    def _greedy(self, prompt: int) -> int:
        table = _table(self.policy.logits.detach())[prompt]
        ids = [PROMPTS[prompt][-1]]
        while ids[-1] != EOS:
            ids.append(int(table[ids[-1]].argmax()))
        return RESPONSES.index(tuple(ids[1:]))


class TableOfRewards:
    """Annotates with the world's rewards, in place of a reward model."""

    def __init__(self, rewards: Array) -> None:
        self.table = rewards

    def reward(self, ids: Sequence[int], text: str) -> float:
        """Reward of one response to a prompt, given as token ids."""
        return float(self.table[PROMPTS.index(tuple(ids)), TEXTS.index(text)])

    def rewards(self, prompts: Sequence[Prompt], texts: Sequence[Sequence[str]]) -> list[list[float]]:
        """As `metaapo.loop.annotate.Annotator.rewards`."""
        return [[self.reward(prompt.ids, text) for text in own] for prompt, own in zip(prompts, texts, strict=True)]


@dataclass(frozen=True)
class Context(RunContext):
    """A run whose reference is neither the policy that it starts from nor kept on disk."""

    def reference_path(self, iteration: int) -> Path:
        """A folder of the run itself, so that the loop computes the reference's log-probabilities."""
        return self.path / "reference"


@dataclass(frozen=True)
class Bench(Workbench):
    """A workbench whose prompts are enumerated rows."""

    def read_prompts(self, iteration: int) -> list[Prompt]:
        """The rows as prompts, in order."""
        return [make_prompt(number, row) for number, row in enumerate(self.sampler.rows)]

    def hold(self, rows: Sequence[Row]) -> None:
        """Make these the rows that are read and sampled."""
        self.sampler.rows = rows


def make_prompt(number: int, row: Row) -> Prompt:
    """A row as a prompt of the loop; its `messages` are the token ids."""
    ids, texts = PROMPTS[row.prompt], (TEXTS[row.chosen], TEXTS[row.rejected])
    pair = PreferencePair(RESPONSES[row.chosen], RESPONSES[row.rejected])
    return Prompt(str(number), list(ids), ids, texts, pair, LedgerRow(str(number)))


@contextmanager
def gold_is(world: World) -> Iterator[None]:
    """Let the world's rewards be the gold rewards, which a method may read that is a bound and no rival."""
    from metaapo.worlds import gain

    rewards, before = TableOfRewards(world.rewards), gain.gold
    gain.gold = lambda messages, text: SimpleNamespace(reward=rewards.reward(messages, text))
    try:
        yield
    finally:
        gain.gold = before


def make_context(name: str, module: str, entry: dict[str, Any], budget: float, folder: Path) -> Context:
    """A run of one method in a folder, with the files of the runs that it waits for."""
    settings = {MATCHED: {}, name: {"module": module} | entry | {"budget": [budget] if budget else [1.0]}}
    train = {"batch_size": 4096, "micro_batch_size": 4096}
    document = {"experiment": name, "results_dir": str(folder), "seeds": [0], "iterations": 2, "methods": settings}
    experiment = resolve(document | {"train": train, "sampling": {"k": 2}})
    context = Context(experiment, Run(method=name, budget=budget, seed=0))
    for needed in experiment.methods[name].needs():
        path = context.other(needed).path
        path.mkdir(parents=True, exist_ok=True)
        summaries = [{"sampled": sampled, "prompts": 8} for sampled in SAMPLED_BY_MATCHED]
        (path / "run.json").write_text(json.dumps({"iterations": summaries}))
    return context


def make_bench(world: World, context: Context) -> Bench:
    """Everything that the loop needs to run in the world."""
    AcceleratorState._reset_state()
    processes = Processes(Accelerator(cpu=True))
    policy, reference = TabularPolicy(world.policy), TabularPolicy(world.reference)
    method = context.run.method
    return Bench(
        context,
        processes,
        TabularPolicies(policy, reference, context.experiment.train_of(method)),
        EnumeratingSampler(policy, context.experiment.sampling_of(method)),
        Scorer(processes, PAD, 256),
        TableOfRewards(world.rewards),
        Kept(context, processes),
    )


def params_of(context: Context) -> MethodConfig:
    """The method's settings."""
    return context.experiment.methods[context.run.method]
