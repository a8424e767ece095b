"""Read an experiment's results as data frames: the public interface for notebooks and figures.

    from reports.runs import Results
    results = Results.load("config/default.yaml")
    results.scores          one row per model x benchmark x metric (scores.csv)
    results.claims          the verdicts (claims.json)
    results.curve           what scores cost in annotations (curve.json), if methods were trained at several budgets
    results.runs            one row per run, with its provenance
    results.iterations      one row per run x iteration: annotations, KL, length, seconds
    results.training        one row per optimizer step
    results.annotations     one row per prompt of every run: the annotation ledger
    results.probes          one row per probed response: KL, length and proxy reward during training
    results.answers         one row per model x benchmark: how many answers are empty or were cut off
    results.maps            h_phi on a grid, at the start of training and after each iteration
    results.items("arenahard", "gold")   one row per model x question

Every data frame identifies its runs by `method`, `budget` (text, such as "1.0"), `seed` and, if applicable,
`iteration`.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import orjson
import pandas as pd

from eval.benchmark import benchmark as declaration
from metaapo.data import read_json, read_jsonl
from metaapo.experiment import SFT, Experiment, Run, load
from metaapo.method import module_of
from reports.collect import responses_per_prompt, share

KEYS = ["method", "budget", "seed"]
T = TypeVar("T")


def read_log(path: Path) -> list[dict[str, Any]]:
    """A log's rows, several times as fast as with the standard library; an integer of more than 64 bits is a float.

    What orjson refuses (a lone surrogate, an infinite number, a broken line) is left to `metaapo.data.read_jsonl`,
    which reads it or names the line at fault.
    """
    raw = path.read_bytes()
    try:
        raw = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
        rows = [orjson.loads(line) for line in raw.split(b"\n") if line.strip()]
    except (OSError, EOFError, zlib.error, orjson.JSONDecodeError):
        return read_jsonl(path)
    return rows if all(type(row) is dict for row in rows) else read_jsonl(path)


@dataclass(frozen=True)
class Results:
    """One experiment's results folder, read as needed."""

    experiment: Experiment

    @classmethod
    def load(cls, config: str | Path) -> Results:
        """The results of a configuration file."""
        return cls(load(config))

    @property
    def folder(self) -> Path:
        """results/<experiment>."""
        return self.experiment.results

    @cached_property
    def scores(self) -> pd.DataFrame:
        """scores.csv; win rates in percent (0 to 100), MT-Bench grades 1 to 10."""
        return pd.read_csv(self.folder / "scores.csv", dtype={"budget": str}, float_precision="round_trip")

    @cached_property
    def claims(self) -> list[dict[str, Any]]:
        """claims.json: one verdict per claim."""
        return read_json(self.folder / "claims.json")

    @property
    def curve(self) -> dict[str, Any] | None:
        """curve.json; None if no method was trained at several budgets."""
        path = self.folder / "curve.json"
        return read_json(path) if path.exists() else None

    @cached_property
    def records(self) -> dict[Run, dict[str, Any]]:
        """run.json of every run, in the order of the configuration."""
        return {run: read_json(self.folder / "runs" / run.id / "run.json") for run in self.experiment.compared_runs()}

    @cached_property
    def runs(self) -> pd.DataFrame:
        """One row per run: world, commit, annotation totals, seconds."""
        rows = []
        for run, record in self.records.items():
            totals = record["totals"] | {"seconds": record["seconds"]}
            row = _keys(run) | {"run": run.id, "world": record["world"], "commit": record.get("commit", "unknown")}
            row["annotation_ratio_total"] = self._ratio(record["iterations"])
            rows.append(row | {name: value for name, value in totals.items() if np.isscalar(value)})
        return pd.DataFrame(rows)

    def _ratio(self, summaries: list[dict[str, Any]]) -> float:
        k = responses_per_prompt(self.experiment)
        return share(sum(s["responses_scored"] for s in summaries), k * sum(s["prompts"] for s in summaries))

    @cached_property
    def iterations(self) -> pd.DataFrame:
        """One row per run x iteration; `seconds_*` by stage, `sampling_rate` the share of prompts sampled online."""
        rows = []
        k = responses_per_prompt(self.experiment)
        for run, record in self.records.items():
            for number, summary in enumerate(record["iterations"], start=1):
                plain = {name: value for name, value in summary.items() if np.isscalar(value)}
                seconds = {f"seconds_{stage}": value for stage, value in summary.get("seconds", {}).items()}
                derived = {
                    "iteration": number,
                    "sampling_rate": share(summary["sampled"], summary["prompts"]),
                    "annotation_ratio": share(summary["responses_scored"], k * summary["prompts"]),
                }
                rows.append(_keys(run) | plain | seconds | derived)
        return pd.DataFrame(rows)

    @cached_property
    def training(self) -> pd.DataFrame:
        """One row per optimizer step; `progress` counts iterations, 0 at the start, T at the end."""
        frame = self._logs("train.jsonl")
        return _with_progress(frame)

    @cached_property
    def probes(self) -> pd.DataFrame:
        """One row per probed response, with `kl` = log pi(y) - log pi_sft(y) in nats, and `progress` as in training."""
        frame = self._logs("probes.jsonl")
        if len(frame):
            frame["kl"] = frame["policy_logp"] - frame["sft_logp"]
        return _with_progress(frame)

    @cached_property
    def probe_gold(self) -> pd.Series | None:
        """Gold reward of each probed response, aligned with the rows of `probes`; None if the world has no gold
        reward."""
        path = self.folder / "probe_gold.csv"
        if not len(self.probes) or not path.exists():
            return None
        keys = [*KEYS, "iteration", "step", "id"]
        graded = pd.read_csv(path, dtype={"budget": str, "id": str}, float_precision="round_trip")
        asked = self.probes[keys].astype({"id": str})
        # a prompt may be probed twice at a step: the n-th rows of both files correspond
        asked, graded = (frame.assign(nth=frame.groupby(keys).cumcount()) for frame in (asked, graded))
        return asked.merge(graded, "left", [*keys, "nth"])["gold"].set_axis(self.probes.index)

    @cached_property
    def answer_gold(self) -> dict[tuple[str, str, str], list[dict[str, float] | None]]:
        """Gold rubric of each turn's answer by (benchmark, run id, question); empty if the world has none."""
        path = self.folder / "answer_gold.jsonl.gz"
        rows = read_log(path) if path.exists() else []
        return {(row["benchmark"], _run_id(row), row["question"]): row["turns"] for row in rows}

    @property
    def gold_rubric(self) -> dict[str, str]:
        """Descriptions of the gold reward's parts; empty if the world has none."""
        path = self.folder / "gold_rubric.json"
        return read_json(path) if path.exists() else {}

    @cached_property
    def annotations(self) -> pd.DataFrame:
        """The ledger: one row per prompt of every run and iteration."""
        return self._logs("annotations.jsonl")

    @cached_property
    def maps(self) -> pd.DataFrame:
        """h_phi(score) on a grid: columns score, weight and `iteration`, 0 being the start of training."""
        rows = []
        for run, t, folder in self._iteration_folders():
            if not (folder / "meta_learner.json").exists():
                continue
            record = read_json(folder / "meta_learner.json")
            curves = {0: record["start"], 1: record["end"]} if t == 1 else {t: record["end"]}
            for iteration, curve in curves.items():
                keys = _keys(run) | {"iteration": iteration}
                rows += [keys | {"score": s, "weight": w} for s, w in zip(record["grid"], curve)]
        return pd.DataFrame(rows, columns=[*KEYS, "iteration", "score", "weight"])

    @cached_property
    def answers(self) -> pd.DataFrame:
        """One row per model x benchmark, with SFT policies; `cut` and `empty` are shares of the answers over all turns.

        An answer is cut off when it reaches the length limit, because it is long or loops.
        """
        rows = []
        policies = [Run(method=SFT, budget=0.0, seed=world) for world in self.experiment.world.seeds]
        for run in [*policies, *self.records]:
            path = self.folder / "answers" / f"{run.id}.json"
            for file, entry in (read_json(path)["answers"] if path.exists() else {}).items():
                benchmark, iteration = Path(file).parts[-5], int(Path(file).stem.removeprefix("iter"))
                turns = entry.get("turns", entry["n"] * declaration(benchmark).turns)
                shares = {"cut": share(entry["cut"], turns), "empty": share(entry["empty"], turns)}
                rows.append(_keys(run) | {"iteration": iteration, "benchmark": benchmark} | shares)
        return pd.DataFrame(rows, columns=[*KEYS, "iteration", "benchmark", "cut", "empty"])

    def items(self, benchmark: str, judge: str) -> pd.DataFrame:
        """One row per model x question; `value` is a fraction (0 to 1) or a grade, as the benchmark declares."""
        return self.once(("items", benchmark, judge), lambda: self._items(benchmark, judge))

    def _items(self, benchmark: str, judge: str) -> pd.DataFrame:
        path = self.folder / "scores" / benchmark / f"{judge}.items.csv.gz"
        return pd.read_csv(path, dtype={"budget": str, "question": str}, float_precision="round_trip")

    def read_logs(self) -> None:
        """Read the logs that most figures need."""
        self.scores, self.annotations, self.training, self.probes  # noqa: B018 - cached properties

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """What `make` returns, made once per key and kept as long as these results, since reading is slow."""
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    @cached_property
    def _made(self) -> dict[Hashable, Any]:
        return {}

    def baseline(self, benchmark: str) -> str | None:
        """The baseline of a pairwise benchmark, "sft" or a model's name; None if the benchmark has no baseline."""
        path = self.folder / "scores" / benchmark / f"{self.experiment.judges[0]}.json"
        return read_json(path)["baseline"]

    def at_full_budget(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Only the runs at each method's largest budget, without the other points of a budget sweep."""
        largest = {name: str(max(method.budget)) for name, method in self.experiment.methods.items()}
        return frame[frame["method"].map(largest).fillna(frame["budget"]) == frame["budget"]]

    @property
    def variants(self) -> list[str]:
        """MetaAPO's ablations and controls: entries that use its module under another name."""
        entries = self.experiment.methods.items()
        return [n for n, m in entries if n != "metaapo" and module_of(n, m) == "metaapo.metaapo"]

    def main(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Only the methods of the main comparison, at their largest budgets; variants have separate figures."""
        frame = self.at_full_budget(frame)
        return frame[~frame["method"].isin(self.variants)] if "metaapo" in self.experiment.methods else frame

    def _iteration_folders(self) -> list[tuple[Run, int, Path]]:
        return [
            (run, t, self.folder / "runs" / run.id / f"iter{t}")
            for run in self.experiment.compared_runs()
            for t in range(1, self.experiment.iterations + 1)
        ]

    def _logs(self, name: str) -> pd.DataFrame:
        """The rows of one log file over all runs; files that a method does not write are skipped."""
        rows: list[dict[str, Any]] = []
        keys: dict[str, list[Any]] = {key: [] for key in (*KEYS, "iteration")}
        for run, t, folder in self._iteration_folders():
            if (folder / name).exists():
                found = read_log(folder / name)
                rows += found
                for key, value in (_keys(run) | {"iteration": t}).items():
                    keys[key] += [value] * len(found)
        if not rows:
            return pd.DataFrame(columns=[*KEYS, "iteration", "step"])
        frame = pd.DataFrame(rows).assign(**keys)
        empty = frame.columns[frame.isna().all()]  # None in a log is a missing number
        return frame.astype(dict.fromkeys(empty, float))


def _keys(run: Run) -> dict[str, Any]:
    return {"method": run.method, "budget": str(run.budget), "seed": run.seed}


def _run_id(row: dict[str, Any]) -> str:
    return Run(method=row["method"], budget=float(row["budget"]), seed=row["seed"]).id


def _with_progress(frame: pd.DataFrame) -> pd.DataFrame:
    """Add `progress` = iteration - 1 + fraction of the iteration's steps done, comparable across different step
    counts."""
    if not len(frame):
        return frame.assign(progress=pd.Series(dtype=float))
    last = frame.groupby([*KEYS, "iteration"])["step"].transform("max").clip(lower=1)
    return frame.assign(progress=frame["iteration"] - 1 + frame["step"] / last)
