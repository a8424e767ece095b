"""A language model as judge, behind any OpenAI-compatible endpoint, asked and understood as the benchmarks' authors do.

| benchmark | asked | read |
| --- | --- | --- |
| AlpacaEval 2 | one token, temperature 1, top 5 log-probabilities; order by instruction | weights of "m" and "M" |
| Arena-Hard | temperature 0; v0.1: asked to go on once if there is no verdict | [[A>>B]] and the like |
| MT-Bench | temperature 0, 2048 tokens; references for math, reasoning, coding | [[7]] |
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from eval.alpacaeval2 import preferences
from eval.alpacaeval2.prompts import alpacaeval2_prompt
from eval.arenahard import verdicts
from eval.arenahard.prompts import arenahard_prompts
from eval.judges import Comparison, Conversation, Judgment
from eval.judges.answers import Answer
from eval.judges.client import Client
from eval.judges.config import JudgeConfig
from eval.judges.money import Body, size_of
from eval.judges.prompts import fill
from eval.judges.store import Store
from eval.judges.wire import body_of
from eval.mtbench import ratings
from eval.mtbench.prompts import NEED_REFERENCE, mtbench_prompts
from metaapo.data import DataError, Message
from metaapo.experiment import Experiment

ALPACAEVAL2 = {"max_tokens": 1, "temperature": 1, "logprobs": True, "top_logprobs": 5}
# arena-hard-auto's judge_config.yaml of 2024, and arena-hard-v2.0.yaml
ARENAHARD = {
    "v0.1-2024": {"max_tokens": 4096, "temperature": 0},
    "v2.0-2025": {"max_tokens": 16000, "temperature": 0},
}
GO_ON = "continue your judgment and finish by outputting a final verdict label"  # gen_judgment.py of 2024
MTBENCH = {"max_tokens": 2048, "temperature": 0}


def open_judge(name: str, config: JudgeConfig, experiment: Experiment, world: int, quote: bool) -> OpenAIJudge:
    """The judge of a catalogue's entry; where `quote`, it sends nothing and only notes what it would ask."""
    client = Client(config, Store(store_path(experiment, name)), quote=quote)
    return OpenAIJudge(name, config, client, experiment.evaluation.arenahard_version)


def store_path(experiment: Experiment, name: str) -> Path:
    """A judge's raw answers, shared by all experiments: nothing is asked, or paid, twice."""
    return Path(experiment.results_dir) / "judge_store" / f"{name}.sqlite"


def _in_one_turn(comparison: Comparison) -> tuple[str, str, str]:
    """(instruction, first, second) for AlpacaEval's prompt, which has room for one turn: earlier turns come before the
    last."""
    instruction = "\n\n".join(m["content"] for m in comparison.prompt if m["role"] == "user")
    first, second = (
        "\n\n".join([*(m["content"] for m in prompt if m["role"] == "assistant"), answer])
        for prompt, answer in zip(comparison.prompts, (comparison.first, comparison.second))
    )
    return instruction, first, second


class OpenAIJudge:
    """Asks a `Client` the official questions and reads the answers with the official parsers."""

    def __init__(self, name: str, config: JudgeConfig, client: Client, arenahard_version: str) -> None:
        self.name = name
        self.config = config
        self.client = client
        self._version = arenahard_version

    @cached_property
    def _alpacaeval2(self) -> list[Message]:
        return alpacaeval2_prompt(self.config.prompts.get("alpacaeval2", ""))

    @cached_property
    def _arenahard(self) -> Any:
        return arenahard_prompts(self.config.prompts.get("arenahard", ""))

    @cached_property
    def _mtbench(self) -> Mapping[str, Mapping[str, Any]]:
        return mtbench_prompts(self.config.prompts.get("mtbench", ""))

    def _body(self, messages: list[Message], settings: Mapping[str, Any]) -> Body:
        return body_of(self.config, messages, settings)

    def _ask(self, bodies: Sequence[Body], readable: Callable[[Answer], bool], of: int = 0) -> list[Answer]:
        """Answers; a request that cannot fit into the judge's context is refused without being sent."""
        context = self.config.context
        fits = [not context or size_of(body, self.config).counted <= context for body in bodies]
        asked = [body for body, fit in zip(bodies, fits) if fit]
        answers = iter(self.client.ask(asked, readable, max(of, len(bodies))))
        long = Answer(None, f"longer than the judge's context of {context} tokens")
        return [next(answers) if fit else long for fit in fits]

    def ask_about(
        self,
        conversations: Sequence[list[Message]],
        settings: Mapping[str, Any],
        readable: Callable[[Answer], bool],
    ) -> list[Answer]:
        """The judge's answers to questions in words of their own, for what no benchmark asks."""
        return self._ask([self._body(messages, settings) for messages in conversations], readable)

    def prefer(self, comparisons: Sequence[Comparison]) -> list[Judgment]:
        """AlpacaEval's preference, weighted by the log-probabilities of the judge's one token."""
        switched = [preferences.is_switched(comparison.prompt[-1]["content"]) for comparison in comparisons]
        bodies = [self._preference_body(c, swap) for c, swap in zip(comparisons, switched)]
        read = _preference if self.config.logprobs else _letter
        answers = self._ask(bodies, lambda answer: read(answer, False).value is not None)
        return [read(answer, swap) for answer, swap in zip(answers, switched)]

    def _preference_body(self, comparison: Comparison, switched: bool) -> Body:
        instruction, first, second = _in_one_turn(comparison)
        first, second = (second, first) if switched else (first, second)
        values = {"instruction": instruction, "output_1": first, "output_2": second}
        filled: list[Message] = [{"role": m["role"], "content": fill(m["content"], values)} for m in self._alpacaeval2]
        return self._body(filled, ALPACAEVAL2)

    def verdicts(self, comparisons: Sequence[Comparison]) -> list[Judgment]:
        """Arena-Hard's verdicts; under v0.1 a judgment without any label is continued once."""
        games = [
            self._arenahard.messages(
                comparison.category, comparison.prompt[-1]["content"], comparison.first, comparison.second
            )
            for comparison in comparisons
        ]
        settings = ARENAHARD[self._version]
        wants_retry = partial(verdicts.wants_retry, version=self._version)

        def has_verdict(answer: Answer) -> bool:
            return verdicts.parse_verdict(answer.text, self._version) is not None

        def is_settled(answer: Answer) -> bool:  # a judgment without any label is asked to go on below
            return has_verdict(answer) or (not answer.is_blank and wants_retry(answer.text))

        answers = self._ask([self._body(messages, settings) for messages in games], is_settled)
        again = [i for i, a in enumerate(answers) if not a.is_blank and wants_retry(a.text)]
        continued = [
            [*games[i], {"role": "assistant", "content": answers[i].text}, {"role": "user", "content": GO_ON}]
            for i in again
        ]
        bodies = [self._body(messages, settings) for messages in continued]
        more = dict(zip(again, self._ask(bodies, has_verdict, of=len(games))))
        judgments = []
        for i, answer in enumerate(answers):
            text = answer.text + (f"\n{more[i].text}" if i in more else "")
            value = verdicts.parse_verdict(text, self._version)
            text = text if text.strip() else answer.why_unreadable
            judgments.append(Judgment(value, text, games[i][-1]["content"]))
        return judgments

    def grade(self, conversations: Sequence[Conversation]) -> list[Judgment]:
        """MT-Bench's single-answer grades."""
        asked = [self._grade_messages(conversation) for conversation in conversations]
        bodies = [self._body(messages, MTBENCH) for _, messages in asked]
        answers = self._ask(bodies, lambda answer: ratings.parse_grade(answer.text) is not None)
        return [
            _read(answer, ratings.parse_grade, messages[-1]["content"], {"template": name})
            for answer, (name, messages) in zip(answers, asked)
        ]

    def _grade_messages(self, conversation: Conversation) -> tuple[str, list[Message]]:
        """The name of the prompt, and what the judge is asked about the last turn."""
        turns = [message["content"] for message in conversation.messages]
        with_reference = conversation.category in NEED_REFERENCE
        second = len(turns) > 2
        if with_reference and len(conversation.references) < 1 + second:
            raise DataError(
                f"MT-Bench question {conversation.question}: no reference answer, which {conversation.category} needs; "
                "set evaluation.mtbench_references"
            )
        name = ("single-math-v1" if with_reference else "single-v1") + ("-multi-turn" if second else "")
        values = dict(zip(("question_1", "answer_1", "question_2", "answer_2"), turns))
        if not second:
            values = {"question": turns[0], "answer": turns[1]}
        values |= {f"ref_answer_{i}": text for i, text in enumerate(conversation.references, start=1)}
        prompt = self._mtbench[name]
        return name, [
            {"role": "system", "content": prompt["system_prompt"]},
            {"role": "user", "content": fill(prompt["prompt_template"], values)},
        ]


def _preference(answer: Answer, switched: bool) -> Judgment:
    """AlpacaEval's preference in an answer; None where the log-probabilities are missing or name neither answer."""
    try:
        top = answer.choice["logprobs"]["content"][0]["top_logprobs"] if answer.choice else []
        value = preferences.preference_from_logprobs(top, switched)
    except (KeyError, IndexError, TypeError, ValueError):
        value = float("nan")
    return _annotation(answer, None if value != value else value)


def _letter(answer: Answer, switched: bool) -> Judgment:
    """The preference of a judge without log-probabilities: 1 or 2, by its one letter."""
    value = {"m": 1.0, "M": 2.0}.get(answer.text.strip().strip("'\"`.*"))
    return _annotation(answer, 3 - value if value is not None and switched else value)


def _annotation(answer: Answer, value: float | None) -> Judgment:
    details = {"preference_raw_completion": answer.choice or answer.refusal}
    return Judgment(value, answer.text or answer.why_unreadable, details=details)


def _read(answer: Answer, parse: Callable[[str], Any], prompt: str, details: dict[str, Any]) -> Judgment:
    if answer.is_blank:
        return Judgment(None, answer.why_unreadable, prompt, details)
    return Judgment(parse(answer.text), answer.text, prompt, details)
