"""A reward model as judge: any sequence-classification checkpoint with one output."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from eval.judges import Comparison, Conversation, Judgment
from eval.judges.config import JudgeConfig
from eval.judges.rewards import Scale, grade, preference, verdict
from metaapo.data import Message, sha256_file
from metaapo.experiment import Experiment


def open_judge(name: str, config: JudgeConfig, experiment: Experiment, world: int, quote: bool) -> RewardModelJudge:
    """The judge of a catalogue entry: the entry's checkpoint, or the reward model of the judged model's world."""
    checkpoint = config.checkpoint or experiment.world_path(world) / "reward_model"
    return RewardModelJudge(name, config, checkpoint, experiment.hardware.score_batch_size)


class RewardModelJudge:
    """Judges by a model's rewards; torch is imported with the first question."""

    def __init__(self, name: str, config: JudgeConfig, checkpoint: str | Path, batch_size: int = 256) -> None:
        self.name = name
        self._batch_size = batch_size
        self._checkpoint = checkpoint
        self._scale = Scale(config.tau, config.lowest, config.highest)

    def _rewards(self, prompts: Sequence[list[Message]], answers: Sequence[list[str]]) -> list[list[float]]:
        from metaapo.models.load import load_reward_model, on_best_device, use_threads_of_environment
        from metaapo.models.rewards import reward_responses

        if not prompts:
            return []
        use_threads_of_environment()
        model, tokenizer = load_reward_model(self._checkpoint)
        return reward_responses(on_best_device(model), tokenizer, prompts, answers, self._batch_size)[0]

    def depends_on(self, benchmark: str) -> dict[str, str]:
        """Checksums of the weights; none for a name on the hub."""
        return {file.name: sha256_file(file) for file in sorted(Path(self._checkpoint).glob("*.safetensors"))}

    def prefer(self, comparisons: Sequence[Comparison]) -> list[Judgment]:
        """A preference in [1, 2]: the Bradley-Terry probability of the second answer."""
        return self._compare(comparisons, preference, "Preference {}")

    def verdicts(self, comparisons: Sequence[Comparison]) -> list[Judgment]:
        """A five-level verdict."""
        return self._compare(comparisons, verdict, "My final verdict is [[{}]]")

    def _compare(
        self, comparisons: Sequence[Comparison], decide: Callable[..., float | str], words: str
    ) -> list[Judgment]:
        prompts = [prompt for comparison in comparisons for prompt in comparison.prompts]
        answers = [[answer] for comparison in comparisons for answer in (comparison.first, comparison.second)]
        rewards = [reward for (reward,) in self._rewards(prompts, answers)]
        judgments = []
        for first, second in zip(rewards[::2], rewards[1::2]):
            value = decide(first, second, self._scale)
            judgments.append(Judgment(value, f"Rewards: A {first:.4f}, B {second:.4f}\n{words.format(value)}"))
        return judgments

    def grade(self, conversations: Sequence[Conversation]) -> list[Judgment]:
        """A grade from 1 to 10, linear in the reward."""
        prompts = [conversation.messages[:-1] for conversation in conversations]
        rewards = self._rewards(prompts, [[c.messages[-1]["content"]] for c in conversations])
        grades = [grade(reward, self._scale) for (reward,) in rewards]
        return [
            Judgment(value, f"Reward {reward:.4f}\nRating: [[{value:g}]]") for value, (reward,) in zip(grades, rewards)
        ]
