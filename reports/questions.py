"""The questions that reviewers ask, each with an answer made from configuration, run records and scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from metaapo import PROJECT
from metaapo.experiment import Experiment, load
from metaapo.method import module_of
from reports import roles
from reports.evidence import Logs, unmet_conditions
from reports.first_screen import listed, number
from reports.ranks import improvements
from reports.runs import Results
from reports.tables import name_of

METHOD = "metaapo"
TUNING = [PROJECT / "config" / name for name in ("tuning.yaml", "tuning_full.yaml")]


@dataclass(frozen=True)
class Question:
    """A folded question.

    Attributes:
        id: its address within the page.
        question: in one sentence.
        answer: made from numbers.
        heads: of the table behind it; none if there is no table.
        rows: of that table, the first cell of each being its heading.
        note: what the table shows.
    """

    id: str
    question: str
    answer: str
    heads: tuple[str, ...] = ()
    rows: list[tuple[str, ...]] = field(default_factory=list)
    note: str = ""


def questions(results: Results) -> list[Question]:
    """Every question that this experiment has data for."""
    asked = (tuned_equally, untrained_sampling, other_worlds, equal_compute, departures)
    return [found for found in (ask(results) for ask in asked) if found]


def tuned_equally(results: Results) -> Question | None:
    """How many settings of each method were tried, from the configuration of the tuning runs."""
    experiment = results.experiment
    title = "Was every method tuned equally?"
    if experiment.world.name != "tiny" or not all(path.exists() for path in TUNING):
        text = "Not here: the tuning runs (config/tuning.yaml, tuning_full.yaml) are those of the small world."
        return Question("tuned", title, text)
    trials = _trials([load(path) for path in TUNING])
    rows, counts, untried, borrowed = [], {}, [], []
    for name in experiment.methods:
        module, train = module_of(name, experiment.methods[name]), experiment.train_of(name)
        tried = trials.get(module, [])
        used = (train.lr, train.beta)
        if tried:
            counts.setdefault(len(tried), []).append(name_of(name))
            untried += [name_of(name)] if used not in tried else []
        else:
            borrowed.append(name_of(name))
        rates = ", ".join(f"{lr:g}" for lr in dict.fromkeys(lr for lr, _ in tried)) or "–"
        chosen = "–" if not tried else "yes" if used in tried else "no"
        rows.append((name_of(name), f"{train.lr:g}", f"{train.beta:g}", str(len(tried)), chosen, rates))
    clauses = [f"{listed(names)}: {n} trials each" for n, names in sorted(counts.items(), reverse=True)]
    start = "Yes, of those that were tuned: " if len(counts) == 1 else "No: " if counts else "None was tuned"
    text = f"{start}{'; '.join(clauses)}."
    if borrowed:
        text += f" Without trials of their own: {listed(borrowed)}."
    if untried:
        text += f" With a setting that was not among the trials: {listed(untried)}."
    heads = ("method", "learning rate here", "beta here", "trials", "among the trials", "learning rates tried")
    note = (
        "Trials per module in config/tuning.yaml and tuning_full.yaml, each with the same seeds and scored on prompts "
        "used nowhere else."
    )
    return Question("tuned", title, text, heads, rows, note)


def _trials(tunings: Sequence[Experiment]) -> dict[str, list[tuple[float, float]]]:
    """Module -> (learning rate, beta) of each of its trials; what two files have in common counts once."""
    found: dict[str, dict[tuple[float, float], None]] = {}
    for tuning in tunings:
        for name, entry in tuning.methods.items():
            train = tuning.train_of(name)
            found.setdefault(module_of(name, entry), {})[train.lr, train.beta] = None
    return {module: list(settings) for module, settings in found.items()}


def untrained_sampling(results: Results) -> Question | None:
    """What the map would sample as it was initialised, on the scores that the trained one saw."""
    maps, ledger = (results.at_full_budget(frame) for frame in (results.maps, results.annotations))
    maps = maps[(maps["method"] == METHOD) & (maps["iteration"] == 0)]
    ledger = ledger[ledger["method"] == METHOD]
    if not len(maps) or not len(ledger):
        return None
    curves = {seed: curve.sort_values("score") for seed, curve in maps.groupby("seed")}
    rates = []
    for (iteration, seed), rows in ledger.groupby(["iteration", "seed"]):
        if seed in curves:
            start = np.interp(rows["offline_score"], curves[seed]["score"], curves[seed]["weight"])
            rates.append((iteration, 100 * float(np.mean(1 - start)), 100 * float(rows["sampled"].mean())))
    table = np.array(rates)
    iterations = sorted(set(table[:, 0]))
    means = {t: table[table[:, 0] == t, 1:].mean(axis=0) for t in iterations}
    untrained, trained = table[:, 1:].mean(axis=0)
    text = (
        f"The map as it was initialised would sample {untrained:.0f} % of the prompts, on the scores that the policy "
        f"gave; the trained map sampled {trained:.0f} %, {_more(trained - untrained)}."
    )
    twin = Logs(results, results.experiment.judges[0]).methods.get("map: untrained")
    if twin:
        frame = results.at_full_budget(results.iterations)
        real = 100 * frame[frame["method"] == twin]["sampling_rate"].mean()
        text += f" Trained with its map untouched ({name_of(twin)}), it sampled {real:.0f} %."
    rows = [(f"{int(t)}", f"{means[t][0]:.1f}", f"{means[t][1]:.1f}") for t in iterations]
    heads = ("iteration", "the untrained map would sample, %", "the trained map sampled, %")
    note = "Mean over runs of 1 − w(score) over all prompts; a policy trained with that map would give other scores."
    return Question("untrained", "How much would the untrained map sample?", text, heads, rows, note)


def _more(difference: float) -> str:
    size = f"{number(abs(difference), signed=False)} points"
    return f"{size} {'more' if difference > 0 else 'fewer'}"


def other_worlds(results: Results) -> Question | None:
    """In how many worlds the method under test came out ahead."""
    if METHOD not in results.experiment.methods:
        return None
    title = "Does it hold in other worlds?"
    seeds = results.experiment.world.seeds
    if len(seeds) < 2:
        text = "Not tested: every run shares one world (data, SFT policy, reward model)."
        return Question("worlds", title, text)
    rivals = roles.baselines(results.experiment)
    found = [row for row in improvements(results) if row["method"] in rivals]
    if not found:
        return None
    clauses = listed([f"{row['name']} in {row['ahead']} of {row['n']}" for row in found])
    text = (
        f"Each of {len(seeds)} worlds has its own data, SFT policy and reward model. {name_of(METHOD)} scores above "
        f"{clauses}. The intervals of every verdict cover this spread; worlds made by other rules were not tried."
    )
    return Question("worlds", title, text)


def equal_compute(results: Results) -> Question | None:
    """What each method's run costs beside its score."""
    frame = results.at_full_budget(results.iterations)
    stages = [column for column in frame if column.startswith("seconds_")]
    if not len(frame) or not stages:
        return None
    frame = frame.assign(seconds=frame[stages].sum(axis=1))
    columns = [c for c in ("seconds", "tokens_generated", "responses_scored") if c in frame]
    costs = frame.groupby(["method", "seed"], sort=False)[columns].sum().groupby("method", sort=False).mean()
    logs = Logs(results, results.experiment.judges[0])
    costs["score"] = [_score(logs, method) for method in costs.index]
    base = METHOD if METHOD in costs.index else costs.index[0]
    rows = [_cost_row(name, row, costs.loc[base]) for name, row in costs.sort_values("seconds").iterrows()]
    heads = (
        "method",
        "score",
        "seconds per run",
        f"seconds, {name_of(base)} = 1",
        "tokens generated",
        "responses scored",
    )
    text = _compute_answer(results, costs, base)
    note = (
        "Means over runs, cheapest first; score on the endpoint, no intervals. Runs shared their machine, so seconds "
        "are rough; they include sampling, annotation and training, not evaluation."
    )
    return Question("compute", "What happens at equal compute?", text, heads, rows, note)


def _score(logs: Logs, method: str) -> float:
    scores = list(logs.scores(method).values())
    return float(np.mean(scores)) if scores else float("nan")


def _cost_row(name: Any, row: Any, base: Any) -> tuple[str, ...]:
    times = f"{row['seconds'] / base['seconds']:.2f}" if base["seconds"] else "–"
    counts = (f"{row[c]:.0f}" if c in row else "–" for c in ("tokens_generated", "responses_scored"))
    return (name_of(name), number(row["score"], signed=False), f"{row['seconds']:.1f}", times, *counts)


def _compute_answer(results: Results, costs: Any, base: str) -> str:
    rival = roles.first_that(results.experiment, roles.full_budget)
    text = ""
    if rival in costs.index and rival != base:
        ratio = costs.loc[base, "seconds"] / max(costs.loc[rival, "seconds"], 1e-9)
        text = f"A run of {name_of(base)} takes {ratio:.2f} times the seconds of one of {name_of(rival)}. "
    others = costs.drop(index=base)
    cheaper = others[others["seconds"] <= costs.loc[base, "seconds"]]
    ahead = [name_of(name) for name in cheaper[cheaper["score"] >= costs.loc[base, "score"]].index]
    if ahead:
        return text + f"At its cost or less, these score as high or higher: {listed(ahead)}."
    at_most = (
        f"none of the {len(cheaper)} methods that cost no more" if len(cheaper) else "no method that costs no more"
    )
    return text + f"{at_most[0].upper()}{at_most[1:]} scores as high."


def departures(results: Results) -> Question | None:
    """The conditions of the paper that are not met, and how each difference between paper and code is set."""
    experiment = results.experiment
    if METHOD not in experiment.methods:
        return None
    entry = experiment.methods[METHOD]
    if not hasattr(entry, "fidelity"):  # a released checkpoint is not trained here
        return None
    switches = type(entry.fidelity).model_fields
    others = {key: getattr(entry.fidelity, key) for key in switches}
    changed = [key for key, field in switches.items() if others[key] != field.default]
    unmet = [f"{name} ({how})" for name, how in unmet_conditions(experiment).items()]
    text = f"{name_of(METHOD)} follows " + (
        f"the paper, except for {listed(changed)}"
        if changed
        else f"the paper wherever the authors' code differs ({len(switches)} switches)"
    )
    text += f". Not as in the paper: {'; '.join(unmet)}." if unmet else ". Every condition of the claims is met."
    variants = [
        name
        for name, other in experiment.methods.items()
        if name != METHOD and getattr(other, "fidelity", entry.fidelity) != entry.fidelity
    ]
    if variants:
        text += f" Also trained, with other switches: {listed([name_of(name) for name in variants])}."
    rows = [
        (key, others[key], ", ".join(_of_variant(experiment, name, key) for name in variants) or "–", field.description)
        for key, field in switches.items()
    ]
    heads = ("switch", f"{name_of(METHOD)} here", "other entries", "what it decides")
    note = "docs/fidelity.md explains each switch and what the code's choice does."
    return Question("departures", "Which departures of paper and code apply?", text, heads, rows, note)


def _of_variant(experiment: Experiment, name: str, key: str) -> str:
    return f"{name_of(name)}: {getattr(experiment.methods[name].fidelity, key)}"
