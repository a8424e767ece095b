"""A synthetic results tree with the same files as the workflow writes, whose truth is known by construction.

`write_results` takes the true win rate of each method and generates runs, answers, judgments, scores and items from it,
so that tests can check whether the report recovers the truth.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import yaml

from eval.arenahard.answers import count_words, style_metadata
from metaapo.data import write_bytes, write_json, write_jsonl, write_text
from metaapo.loop.ledger import LedgerRow, run_totals, totals
from metaapo.method import known_methods
from metaapo.worlds.tiny import tasks

PROMPTS = 48  # prompts per iteration
K = 8
STEPS = 6
PROBED = 8
PPO_SIGNS = ("kl", "entropy", "clip_fraction", "explained_variance", "eos_rate", "length")
NUMBERS, PLURALS, READERS = list(tasks.NUMBERS), list(tasks.PLURALS), tasks.READERS[:8]
WORDS = tasks.NOUNS[:12]
CATEGORIES = ("lists", "plans")


@dataclass(frozen=True)
class FakeMethod:
    """The truth about one method: `win_rate` in points after the last iteration, and what it samples."""

    win_rate: float
    rates: tuple[float, ...] = (1.0, 1.0, 1.0)
    learns: bool = False  # writes meta_learner.json
    map_shift: float = 1.0  # how far h_phi moves, in logits
    reinforces: bool = False  # logs PPO's diagnostics
    config: dict = field(default_factory=dict)

    @property
    def looks_at_offline_pairs(self) -> bool:
        """Whether the method uses offline pairs; the ledger of a purely online one has no offline scores."""
        return min(self.rates) < 1 or bool(self.config)


BASIC = {
    "dpo": FakeMethod(54, (0.0, 0.0, 0.0)),
    "online_dpo": FakeMethod(58),
    "metaapo": FakeMethod(62, (0.62, 0.55, 0.50), learns=True),
    "random": FakeMethod(57, (0.62, 0.55, 0.50)),
}


def _module(name: str, method: FakeMethod) -> str:
    """The module of that name; else MetaAPO's for its variants and DPO's for the rest, since nothing is trained."""
    if name in known_methods():
        return name
    return "metaapo" if {"map", "select", "weights"} & set(method.config) else "dpo"


def everything(**win_rates: float) -> dict[str, FakeMethod]:
    """All methods that the claims need, with the given win rates; the default is 52."""
    sampled = (0.62, 0.55, 0.50)
    methods = {
        "dpo": ((0.0, 0.0, 0.0), {}),
        "online_dpo": ((1.0, 1.0, 1.0), {}),
        "selm": ((1.0, 1.0, 1.0), {}),
        "ppo": ((1.0, 1.0, 1.0), {}),
        "metaapo": (sampled, {}),
        "random": (sampled, {}),
        "random_sampling": (sampled, {"select": "random"}),
        "uniform_weights": (sampled, {"weights": "uniform"}),
        "no_meta_learner": (sampled, {"map": "sigmoid"}),
        "untrained": (sampled, {"map": "untrained"}),
    }
    return {
        name: FakeMethod(win_rates.get(name, 52), rates, learns=name == "metaapo", config=config)
        for name, (rates, config) in methods.items()
    }


def prompts(n: int) -> list[str]:
    """Distinct prompts; the tiny world can parse only the first few hundred."""
    known = [f"list {n} {p}, {reader}." for reader in READERS for p in PLURALS for n in NUMBERS]
    return known[:n] + [f"list something else {i}." for i in range(n - len(known))]


def write_results(
    folder: Path,
    methods: dict[str, FakeMethod] | None = None,
    seeds: tuple[int, ...] = (0, 1, 2),
    iterations: int = 3,
    questions: int = 60,
    seed_sd: float = 0.5,
    noise: float = 0.12,
    judges: tuple[str, ...] = ("gold",),
    benchmarks: tuple[str, ...] = ("alpacaeval2", "arenahard", "mtbench"),
    worlds: tuple[int, ...] = (0,),
    chance: int = 0,
    failed: int = 0,
) -> Path:
    """Write results/<experiment>/ and its configuration below `folder`.

    Args:
        folder: an empty folder.
        methods: name -> truth.
        seeds: training seeds.
        iterations: iterations per run.
        questions: questions per benchmark.
        seed_sd: standard deviation between training seeds, in points of win rate.
        noise: standard deviation of one judgment, as a share (0 to 1).
        judges: names of judges; all agree up to noise.
        benchmarks: names of benchmarks.
        worlds: world seeds.
        chance: random seed.
        failed: unreadable judgments per model and benchmark.

    Returns:
        The path of the configuration file.
    """
    methods = BASIC if methods is None else methods
    config = {
        "experiment": "synthetic",
        "results_dir": str(folder / "results"),
        "seeds": list(seeds),
        "iterations": iterations,
        "world": {"seeds": list(worlds)},
        "methods": {name: {"module": _module(name, method), **method.config} for name, method in methods.items()},
        "evaluation": {
            "judges": list(judges),
            "benchmarks": list(benchmarks),
            "baselines": {"arenahard": "sft"},
        },
    }
    path = folder / "config.yaml"
    write_text(path, yaml.safe_dump(config, sort_keys=False))
    tree = _Tree(folder / "results" / "synthetic", methods, seeds, iterations, questions, worlds, failed)
    tree.rng = np.random.default_rng(chance)
    tree.write(seed_sd, noise, judges, benchmarks)
    return path


@dataclass
class _Tree:
    root: Path
    methods: dict[str, FakeMethod]
    seeds: tuple[int, ...]
    iterations: int
    questions: int
    worlds: tuple[int, ...]
    failed: int

    def write(self, seed_sd: float, noise: float, judges: tuple[str, ...], benchmarks: tuple[str, ...]) -> None:
        for world in self.worlds:
            self._world(world, benchmarks)
        for name, method in self.methods.items():
            for seed in self.seeds:
                self._run(name, method, seed)
        models = [("sft", "0.0", world, 0, 50.0) for world in self.worlds]
        for name, method in self.methods.items():
            for budget in method.config.get("budget", [1.0]):
                for seed in self.seeds:
                    luck = self.rng.normal(0, seed_sd)
                    for t in range(1, self.iterations + 1):
                        truth = 50 + (method.win_rate - 50) * t / self.iterations + luck
                        models.append((name, str(float(budget)), seed, t, truth))
        for benchmark in benchmarks:
            easy = self.rng.normal(0, 0.05, self._count(benchmark))
            shares = {m[:4]: m[4] / 100 + easy * (m[0] != "sft") for m in models}
            texts = {key: self._answers(benchmark, key) for key in shares}
            judged = {key: share for key, share in shares.items() if benchmark == "mtbench" or key[0] != "sft"}
            for judge in judges:
                self._judge(benchmark, judge, judged, texts, noise)

    def _count(self, benchmark: str) -> int:
        """Questions of a benchmark: those of one kind, or of all three."""
        return self.questions * (3 if benchmark == "pooled" else 1)

    def _world(self, world: int, benchmarks: tuple[str, ...]) -> None:
        data = self.root / f"world{world}" / "data"
        asked = prompts(self.questions)
        for kind, more in (("mixed", []), ("composed", []), ("two_turn", ["give me two more."])):
            rows = [{"id": i, "category": CATEGORIES[i % 2], "turns": [p, *more]} for i, p in enumerate(asked)]
            write_jsonl(data / f"eval/{kind}.jsonl", rows)
        pairs = [
            {
                "id": f"{t}-{i}",
                "messages": [{"role": "user", "content": prompts(PROMPTS)[i]}],
                "chosen": "cat.",
                "rejected": "dog.",
                "task": ("list", "describe")[i % 2],
                "iteration": t,
            }
            for t in range(1, self.iterations + 1)
            for i in range(PROMPTS)
        ]
        write_jsonl(data / "pairs.jsonl", pairs)
        write_json(data / "manifest.json", {"world": "tiny", "seed": world, "files": {}})
        write_json(
            self.root / f"world{world}" / "health.json",
            [
                _health("room", 0.5, 0.15, 0.95, "share of the gold scale"),
                _health("reward model agrees with gold, on-policy", 0.84, 0.8, 0.95, "share of pairs"),
            ],
        )

    def _run(self, name: str, method: FakeMethod, seed: int) -> None:
        for budget in method.config.get("budget", [1.0]):
            folder = self.root / "runs" / name / f"budget{float(budget)}" / f"seed{seed}"
            summaries = [
                self._iteration(folder / f"iter{t}", method, min(method.rates[t - 1], budget), t)
                for t in range(1, self.iterations + 1)
            ]
            write_json(
                folder / "run.json",
                {
                    "method": name,
                    "module": "baselines.dpo",
                    "budget": float(budget),
                    "seed": seed,
                    "world": self.worlds[seed % len(self.worlds)],
                    "config": {"experiment": "synthetic"},
                    "commit": "0" * 40,
                    "packages": {"torch": "2.13.0", "python": "3.11"},
                    "data": {"data/pairs.jsonl": "ab" * 32},
                    "iterations": summaries,
                    "totals": asdict(run_totals(summaries)),
                    "seconds": sum(sum(s["seconds"].values()) for s in summaries),
                },
            )

    def _iteration(self, folder: Path, method: FakeMethod, rate: float, t: int) -> dict:
        sampled = self.rng.permutation(PROMPTS) < round(rate * PROMPTS)
        scores = -np.abs(self.rng.normal(0, 1 / t, PROMPTS))
        ledger = [
            LedgerRow(
                id=f"{t}-{i}",
                task=("list", "describe")[i % 2],
                offline_score=float(scores[i]) if method.looks_at_offline_pairs else None,
                sample_probability=rate + (-1) ** i * min(rate, 1 - rate, 0.1),
                sampled=bool(sampled[i]),
                responses_generated=K * int(sampled[i]),
                tokens_generated=10 * K * int(sampled[i]),
                responses_scored=K * int(sampled[i]),
                reward_model_calls=K * int(sampled[i]),
                outcome="pair" if sampled[i] else "not_sampled",
                reward_chosen=1.0 if sampled[i] else None,
                reward_rejected=-1.0 if sampled[i] else None,
            )
            for i in range(PROMPTS)
        ]
        write_jsonl(folder / "annotations.jsonl", [row.record() for row in ledger])
        write_jsonl(
            folder / "train.jsonl",
            [
                {
                    "iteration": t,
                    "step": step,
                    "lr": 1e-4,
                    "loss": 0.69 - 0.02 * step,
                    "offline_loss": 0.69 - 0.02 * step if rate < 1 else None,
                    "online_loss": 0.6 - 0.02 * step if rate else None,
                    "meta_weight": 0.45,
                    "loss_gap": 0.1 * t - 0.2 if 0 < rate < 1 else None,
                    "offline_score": -0.69 + 0.02 * step if rate < 1 else None,
                    "grad_norm": 1.0,
                    **dict.fromkeys(PPO_SIGNS if method.reinforces else (), 0.5),
                }
                for step in range(1, STEPS + 1)
            ],
        )
        write_jsonl(
            folder / "probes.jsonl",
            [
                {
                    "iteration": t,
                    "step": step,
                    "id": f"{t}-{i}",
                    "response": f"{WORDS[i % 12]}, {WORDS[(i + t) % 12]}.",
                    "policy_logp": -10.0,
                    "sft_logp": -10.0 - 0.3 * (t - 1 + step / STEPS) - 0.01 * i,
                    "reward": 0.2 * t + 0.1 * step / STEPS,
                    "tokens": 8 + t,
                    "finished": True,
                }
                for step in (0, STEPS // 2, STEPS)
                for i in range(PROBED)
            ],
        )
        if method.learns:
            write_json(folder / "meta_learner.json", _map(t, method.map_shift))
        summary = {
            "iteration": t,
            **asdict(totals(ledger)),
            "annotation_ratio": float(sampled.mean()),
            "kl": 0.3 * t,
            "mean_length": 8.0 + t,
            "proxy_reward": 0.2 * t + 0.1,
            "seconds": {"score": 1.0, "sample": 3.0 * rate, "annotate": 1.5 * rate, "train": 8.0},
        }
        write_json(folder / "summary.json", summary)
        return summary

    def _answers(self, benchmark: str, key: tuple[str, str, int, int]) -> list[str]:
        method, budget, seed, t = key
        path = f"answers/{benchmark}/{method}/budget{budget}/seed{seed}/iter{t}"
        asked = prompts(self.questions)
        texts = [
            f"{WORDS[int(self.rng.integers(12))]}, {WORDS[int(self.rng.integers(12))]} and {WORDS[i % 12]}."
            for i in range(self._count(benchmark))
        ]
        model = model_id(*key)
        if benchmark == "alpacaeval2":
            rows = [
                {"dataset": "tiny", "instruction": p, "output": x, "generator": model} for p, x in zip(asked, texts)
            ]
            write_json(self.root / f"{path}.json", rows)
        elif benchmark == "arenahard":
            rows = [
                {
                    "uid": hard_id(i),
                    "ans_id": f"{model}-{i}",
                    "model": model,
                    "messages": [
                        {"role": "user", "content": p},
                        {"role": "assistant", "content": {"answer": x}},
                    ],
                    "metadata": style_metadata(x, count_words),
                }
                for i, (p, x) in enumerate(zip(asked, texts))
            ]
            write_jsonl(self.root / f"{path}.jsonl", rows)
        elif benchmark == "pooled":
            rows = [
                {"question": id, "model": model, "turns": [x, "cat and dog."][: turns_of(id)]}
                for id, x in zip(pooled_ids(self.questions), texts)
            ]
            write_jsonl(self.root / f"{path}.jsonl", rows)
        else:
            rows = [
                {"question_id": i + 1, "answer_id": f"{model}-{i}", "model_id": model}
                | {"choices": [{"index": 0, "turns": [x, "cat and dog."]}]}
                for i, x in enumerate(texts)
            ]
            write_jsonl(self.root / f"{path}.jsonl", rows)
        return texts

    def _judge(self, benchmark: str, judge: str, shares: dict, texts: dict, noise: float) -> None:
        items, rows = [], []
        asked = prompts(self.questions)
        ids = {
            "alpacaeval2": asked,
            "arenahard": [hard_id(i) for i in range(self.questions)],
            "pooled": pooled_ids(self.questions),
        }.get(benchmark)
        for key, share in shares.items():
            method, budget, seed, t = key
            path = self.root / f"judgments/{benchmark}/{judge}/{method}/budget{budget}/seed{seed}/iter{t}"
            values = np.clip(share + self.rng.normal(0, noise, len(share)), 0, 1)
            values = self._write_judgments(benchmark, judge, path, key, values, texts)
            lengths = [len(text) for text in texts[key]]
            for i, value in enumerate(values):
                shown = "" if math.isnan(value) else value
                controlled = "" if math.isnan(value) else value + 0.005  # half a point above, as the score
                items.append([*key, ids[i] if ids else i + 1, shown, lengths[i], CATEGORIES[i % 2], controlled])
            rows.append(self._score_row(benchmark, key, values, lengths))
        baseline = None if benchmark == "mtbench" else "sft"
        document = {"benchmark": benchmark, "version": VERSIONS[benchmark], "judge": judge, "baseline": baseline}
        write_json(self.root / f"scores/{benchmark}/{judge}.json", document | {"rows": rows})
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        controlled = {"alpacaeval2": "length_controlled_winrate", "arenahard": "style_controlled_win_rate"}
        columns = "method budget seed iteration question value length category".split()
        writer.writerow([*columns, controlled.get(benchmark, "none")])
        writer.writerows(items)
        write_bytes(
            self.root / f"scores/{benchmark}/{judge}.items.csv.gz", gzip.compress(text.getvalue().encode(), mtime=0)
        )

    def _write_judgments(self, benchmark, judge, path, key, values, texts) -> np.ndarray:
        """Write raw judgments near `values`; returns the values that they encode, NaN for a failed one."""
        method, _, seed, _ = key
        base = ("sft", "0.0", self.worlds[seed % len(self.worlds)], 0)
        asked = prompts(self.questions)
        lost = np.arange(self.questions) < (self.failed if method != "sft" else 0)
        if benchmark == "alpacaeval2":
            values = np.where(lost, np.nan, np.round(values, 6))
            write_json(
                Path(f"{path}.json"),
                [
                    {
                        "dataset": "tiny",
                        "instruction": p,
                        "output_1": texts[base][i],
                        "output_2": texts[key][i],
                        "generator_1": model_id(*base),
                        "generator_2": model_id(*key),
                        "annotator": judge,
                        "preference": None if lost[i] else 1 + values[i],
                        "preference_raw_completion": None,
                    }
                    for i, p in enumerate(asked)
                ],
            )
            return values
        if benchmark == "arenahard":
            wins = self.rng.random((2, self.questions)) < values
            write_jsonl(
                Path(f"{path}.jsonl"),
                [
                    {
                        "uid": hard_id(i),
                        "category": "hard",
                        "judge": judge,
                        "model": model_id(*key),
                        "baseline": model_id(*base),
                        "games": [
                            {"score": ("B>A" if wins[0, i] else "A>B") if not lost[i] else None, "judgment": "seen"},
                            {"score": ("A>B" if wins[1, i] else "B>A") if not lost[i] else None, "judgment": "seen"},
                        ],
                    }
                    for i in range(self.questions)
                ],
            )
            return np.where(lost, np.nan, wins.mean(axis=0))
        if benchmark == "pooled":
            lost = np.arange(len(values)) < (self.failed if method != "sft" else 0)
            values = np.round(values, 6)
            write_jsonl(
                Path(f"{path}.jsonl"),
                [
                    {
                        "question": id,
                        "category": CATEGORIES[i % 2],
                        "judge": judge,
                        "model": model_id(*key),
                        "baseline": model_id(*base),
                        "turns": [
                            {
                                "instruction": "asked",
                                "preference": None if lost[i] else 1 + values[i],
                                "judgment": "seen",
                            }
                            for _ in range(turns_of(id))
                        ],
                    }
                    for i, id in enumerate(pooled_ids(self.questions))
                ],
            )
            return np.where(lost, np.nan, values)
        grades = np.round(1 + 9 * np.clip(values - 0.1, 0, 1), 1)
        write_jsonl(
            Path(f"{path}.jsonl"),
            [
                {
                    "question_id": i + 1,
                    "model": model_id(*key),
                    "judge": [judge, "single-v1"],
                    "user_prompt": asked[i],
                    "judgment": f"Graded. Rating: [[{grades[i]}]]",
                    "score": -1 if lost[i] else float(grades[i]),
                    "turn": turn,
                }
                for i in range(self.questions)
                for turn in (1, 2)
            ],
        )
        return np.where(lost, np.nan, grades)

    def _score_row(self, benchmark: str, key: tuple, values: np.ndarray, lengths: list[int]) -> dict:
        method, budget, seed, t = key
        scale = 1.0 if benchmark == "mtbench" else 100.0
        mean = float(np.nanmean(values)) * scale
        stderr = float(np.nanstd(values, ddof=1)) * scale / math.sqrt(int((~np.isnan(values)).sum()))
        metric = {"value": mean, "ci_low": mean - 2 * stderr, "ci_high": mean + 2 * stderr, "stderr": stderr}
        shifted = {k: v + 0.5 if k != "stderr" else v for k, v in metric.items()}
        metrics = {
            "alpacaeval2": {"win_rate": metric, "length_controlled_winrate": shifted, "discrete_win_rate": metric},
            "arenahard": {"win_rate": metric, "style_controlled_win_rate": shifted},
            "mtbench": {"average": metric, "turn_1": metric, "turn_2": metric, "category:lists": metric},
            "pooled": {"win_rate": metric, "kind:mixed": metric},
        }[benchmark]
        world = seed if method == "sft" else self.worlds[seed % len(self.worlds)]
        return {
            "method": method,
            "budget": budget,
            "seed": seed,
            "world": world,
            "iteration": t,
            "metrics": metrics,
            "n": int((~np.isnan(values)).sum()),
            "n_failed": int(np.isnan(values).sum()),
            "mean_length": float(np.mean(lengths)),
            "position_inconsistency": 0.1 if benchmark == "arenahard" else None,
        }


VERSIONS = {"alpacaeval2": "2.0-minimal", "arenahard": "v0.1-2024", "mtbench": "1.0", "pooled": "pooled-1"}


def pooled_ids(n: int) -> list[str]:
    """The ids of the pooled benchmark's questions, n of each kind."""
    return [f"{kind}-{i:03d}" for kind in ("mixed", "composed", "two_turn") for i in range(n)]


def turns_of(id: str) -> int:
    """The user turns of a pooled question."""
    return 2 if id.startswith("two_turn") else 1


def hard_id(i: int) -> str:
    """The id of Arena-Hard's i-th question."""
    return f"tiny-hard-{i:03d}"


def model_id(method: str, budget: str, seed: int, iteration: int) -> str:
    """A model's name in upstream's files."""
    return f"{method}-budget{budget}-seed{seed}-iter{iteration}"


def _health(name: str, value: float, low: float, high: float, unit: str) -> dict:
    return {"name": name, "value": value, "low": low, "high": high, "ok": True, "unit": unit, "note": "made up"}


def _map(t: int, shift: float) -> dict:
    grid = np.linspace(-6, 0, 61)

    def h(logit_shift: float) -> list[float]:
        return [
            round(float(x), 6) for x in 1 / (1 + np.exp(-(10 * np.tanh(0.1 * grid) + logit_shift * (1 + grid / 3))))
        ]

    return {"grid": grid.round(6).tolist(), "start": h(shift * (t - 1)), "end": h(shift * t), "updates": 1}


if __name__ == "__main__":
    import sys

    print(json.dumps({"config": str(write_results(Path(sys.argv[1])))}))
