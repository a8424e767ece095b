"""One card per judge: the evidence on how far it can be trusted.

    python -m eval.judge_card --config results/default/config.yaml --judge gold

Does not query the judge: it reads the judge's judgments and scores, those of the experiment's other judges, and the
results of `eval.judge_checks` if it ran. Writes judges/{judge}/judge_card.json, which the report shows; values that
were not measured are null, and `warnings` lists caveats in words.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from eval.agreement import (
    bland_altman,
    bootstrap_items,
    bounds_over_unreadable,
    cohen_kappa,
    krippendorff_alpha,
    order_effects,
)
from eval.benchmark import Benchmark, judging_of, questions_of
from eval.benchmark import benchmark as declaration
from eval.equating import equate
from eval.families import families_of, family_warnings
from eval.judge import describe_judge
from eval.judge_checks import TIE_WIDTH, repeated
from eval.judges.config import find_judge
from eval.rank_agreement import Items, compare_judges, read_items
from eval.score import judged_models
from eval.stats import Estimate, percentile_interval, resample_counts
from metaapo.data import read_json, read_records, write_json
from metaapo.experiment import Experiment, load

Record = dict[str, Any]
N_BOOTSTRAP = 300  # each resample goes over all judgments of all models
# Thresholds for warnings.
UNREADABLE = 0.05  # of all judgments, as for refusals
CONSTANT = 0.9  # share of the most frequent value
REVERSED = 0.2  # of comparisons, when the order is swapped; GPT-4 in Zheng et al. 2023, table 2: 0.35 of hard pairs
SLOT = 0.1  # advantage of a position, as a share of comparisons


def judge_card(experiment: Experiment, name: str) -> Record:
    """Build a judge's card.

    Returns:
        {judge: {name, kind, model, date, families}, warnings: [sentence], benchmarks: {name: see `benchmark_card`},
        cost: the store's ledger or None}

    Raises:
        DataError: the judge's judgments or scores are missing.
    """
    judge = describe_judge(experiment, name)
    judge["model"] = judge["model"] or ", ".join(_models_behind(experiment, name))
    benchmarks = {benchmark: benchmark_card(experiment, name, benchmark) for benchmark in experiment.benchmarks}
    judge["families"] = sorted(families_of(judge["model"]))
    return {
        "judge": judge,
        "warnings": _warnings(experiment, judge, benchmarks),
        "benchmarks": benchmarks,
        "cost": _cost(experiment, name),
    }


def _models_behind(experiment: Experiment, name: str) -> list[str]:
    """The models of a panel's members."""
    members = find_judge(experiment.evaluation.judges_file, name).members
    return [find_judge(experiment.evaluation.judges_file, member).model or member for member in members]


def benchmark_card(experiment: Experiment, name: str, benchmark: str) -> Record:
    """Build the part of a judge's card for one benchmark.

    Returns:
        {n, unreadable, bounds: see `widest_bounds`, values: see `spread_of`, length: see `length_association`, orders,
        members, checks, others: [see `compare_with`]}; `orders` as `eval.agreement.order_effects`, `members` of a panel
        or of repeated asking {labels, retest, alpha}, `checks` what `eval.judge_checks` wrote. None if not measured.
    """
    stage, declared = judging_of(benchmark), declaration(benchmark)
    of_models = {
        model.id: read_records(model.judgments(experiment, benchmark, name))
        for model in judged_models(experiment, benchmark)
    }
    records = [row for rows in of_models.values() for row in rows]
    readings = [reading for row in records for reading in stage.readings(row)]
    pooled = np.array([reading[0] for reading in readings])
    both = [pair for row in records if (pair := stage.orders(row)) is not None]
    question_of = questions_of(benchmark).question_of
    questions = [question_of(row) for row in records for _ in stage.readings(row)]
    items = {
        judge: path for judge in experiment.judges if (path := _items_path(experiment, benchmark, judge)).is_file()
    }
    this = read_items(_items_path(experiment, benchmark, name))
    checks = experiment.results / "judge_checks" / benchmark / f"{name}.json"
    return {
        "n": len(pooled),
        "unreadable": int(np.isnan(pooled).sum()),
        "bounds": widest_bounds(of_models, stage.readings, declared),
        "values": spread_of(pooled),
        "length": length_association(_items_path(experiment, benchmark, name)),
        "orders": order_effects(*np.array(both).T, TIE_WIDTH) if both else None,
        "members": _members(experiment, name, declared, readings, questions),
        "checks": read_json(checks) if checks.is_file() else None,
        "others": [
            {"judge": other, **compare_with(this, read_items(path), declared)}
            for other, path in items.items()
            if other != name and path.is_file()
        ],
    }


def _items_path(experiment: Experiment, benchmark: str, judge: str) -> Path:
    return experiment.results / "scores" / benchmark / f"{judge}.items.csv.gz"


def widest_bounds(
    records: Mapping[str, Sequence[Record]], readings: Callable[[Record], list[list[float]]], declared: Benchmark
) -> Record | None:
    """Bounds on the mean of the model most affected by unreadable judgments, in the unit of scores.

    Returns:
        {model, low, high}; None if all judgments are readable.
    """
    widest: Record | None = None
    lowest, highest = (end / declared.item_scale for end in declared.scale)
    for model, rows in records.items():
        values = [reading[0] for row in rows for reading in readings(row)]
        low, high = (declared.item_scale * end for end in bounds_over_unreadable(values, lowest, highest))
        if high - low > (widest["high"] - widest["low"] if widest else 0):
            widest = {"model": model, "low": low, "high": high}
    return widest


def spread_of(values: np.ndarray) -> Record | None:
    """Number of distinct values a judge gives, and the share of the most frequent: a constant judge is useless."""
    known = Counter(np.round(values[~np.isnan(values)], 3).tolist())
    if not known:
        return None
    (favourite, count), *_ = known.most_common(1)
    return {"distinct": len(known), "most_frequent": favourite, "share": count / known.total()}


def _members(
    experiment: Experiment, name: str, declared: Benchmark, readings: Sequence[list[float]], questions: Sequence[str]
) -> Record | None:
    """Agreement between the members of a panel, or of a repeatedly asked judge with itself."""
    size = max((len(reading) for reading in readings), default=1) - 1
    if size < 2:
        return None
    # Identical answers are not sent to the judge, so such a comparison has no members.
    asked = [(reading, question) for reading, question in zip(readings, questions) if len(reading) == size + 1]
    table = np.array([reading[1:] for reading, _ in asked]).T
    config = find_judge(experiment.evaluation.judges_file, name)
    alpha = bootstrap_items(
        lambda t: krippendorff_alpha(t, "interval"), table, [question for _, question in asked], N_BOOTSTRAP
    )
    return {
        "labels": config.members or [f"#{n}" for n in range(1, size + 1)],
        "retest": None if config.members else repeated(table, 0.5 if declared.pairwise else None),
        "alpha": _plain(alpha),
    }


def length_association(path: Path) -> Record | None:
    """Correlation of value and log length of the answers to one question, pooled over questions.

    It does not prove a bias, since longer answers may be better. Read it together with the check `pad`.

    Returns:
        {value, ci_low, ci_high, n (answers)}, a bootstrap interval over questions; None if values or lengths do not
        vary.
    """
    groups = _values_and_lengths(path)
    sums = []
    for pairs in groups.values():
        value, length = np.array(pairs).T
        value, length = value - value.mean(), np.log1p(length) - np.log1p(length).mean()
        sums.append([(value * length).sum(), (value**2).sum(), (length**2).sum()])
    table = np.array(sums).reshape(-1, 3)
    if len(table) < 2 or not (table[:, 1].sum() > 0 and table[:, 2].sum() > 0):
        return None
    drawn = resample_counts(len(table), N_BOOTSTRAP) @ table
    drawn = drawn[(drawn[:, 1] > 0) & (drawn[:, 2] > 0)]
    low, high = percentile_interval(_correlation(drawn))
    value = float(_correlation(table.sum(axis=0)))
    return {"value": value, "ci_low": low, "ci_high": high, "n": sum(len(pairs) for pairs in groups.values())}


def _correlation(sums: np.ndarray) -> np.ndarray:
    return sums[..., 0] / np.sqrt(sums[..., 1] * sums[..., 2])


def _values_and_lengths(path: Path) -> Mapping[str, list[tuple[float, float]]]:
    values, lengths = read_items(path), read_items(path, "length")
    groups: dict[str, list[tuple[float, float]]] = {}
    for model, of_model in values.items():
        for question, value in of_model.items():
            if question in lengths.get(model, {}):
                groups.setdefault(question, []).append((value, lengths[model][question]))
    return {question: pairs for question, pairs in groups.items() if len(pairs) > 1}


def compare_with(this: Items, other: Items, declared: Benchmark) -> Record:
    """Agreement of two judges on the same answers.

    Args:
        this: model -> question -> value of the judge.
        other: the same of another judge.
        declared: the benchmark.

    Returns:
        {n, winners (share of the same winner, pairwise), kappa (likewise), alpha, bias (Bland-Altman, this - other),
        ranks (Kendall's tau of models), equating (other's scores from this)}, in the unit of scores.
    """
    models = [model for model in this if model in other]
    pairs = [(q, this[m][q], other[m][q]) for m in models for q in this[m] if q in other[m]]
    table = np.array([pair[1:] for pair in pairs]).reshape(-1, 2).T
    questions = [question for question, _, _ in pairs]
    winners = np.where(np.abs(table - 0.5) <= TIE_WIDTH, 0.5, np.round(table)) if declared.pairwise else None

    def measured(statistic: Any, ratings: np.ndarray) -> Record:
        return _plain(bootstrap_items(statistic, ratings, questions, N_BOOTSTRAP))

    return {
        "n": len(pairs),
        "winners": measured(lambda t: float((t[0] == t[1]).mean()), winners) if winners is not None else None,
        "kappa": measured(lambda t: cohen_kappa(*t), winners) if winners is not None else None,
        "alpha": measured(lambda t: krippendorff_alpha(t, "interval"), table),
        "bias": bland_altman(*(table * declared.item_scale)),
        "ranks": compare_judges(this, other),
        "equating": _equating(this, other, models, declared.item_scale),
    }


def _equating(this: Items, other: Items, models: Sequence[tuple[str, ...]], scale: float) -> Record | None:
    """The other judge's scores from this one's, over the models' means."""
    asked = list(dict.fromkeys(itertools.chain.from_iterable(this[model] for model in models)))
    questions = [q for q in asked if all(q in table[model] for model in models for table in (this, other))]
    tables = [
        np.array([[table[m][q] for q in questions] for m in models]).reshape(len(models), -1) for table in (this, other)
    ]
    found = equate(scale * tables[1], scale * tables[0], N_BOOTSTRAP)
    if found is None:
        return None
    keys = ("slope", "intercept", "slope_low", "slope_high", "error", "shift", "correlation", "n_models", "n_questions")
    values = {key: getattr(found, key) for key in keys}
    return {k: v if np.isfinite(v) else None for k, v in values.items()} | {"range": list(found.new_range)}


def _plain(estimate: Estimate) -> Record:
    """A number of a JSON file: None for NaN."""
    values = {"value": estimate.value, "ci_low": estimate.low, "ci_high": estimate.high}
    return {k: None if np.isnan(v) else float(v) for k, v in values.items()} | {"n": estimate.n_prompts}


def _cost(experiment: Experiment, name: str) -> Record | None:
    """The judge's cost so far over all experiments that share its store; None if nothing was sent."""
    path = Path(experiment.results_dir) / "judge_store" / f"{name}.sqlite"
    if not path.is_file():
        return None
    from eval.judges.store import Store

    store = Store(path)
    try:
        return store.ledger()
    finally:
        store.close()


# --- in words ------------------------------------------------------------------------------------------------------


def _warnings(experiment: Experiment, judge: Record, benchmarks: Mapping[str, Record]) -> list[str]:
    """Caveats that a reader must know before trusting the judge."""
    found = family_warnings(judge["name"], judge["model"], _models_judged(experiment, judge["name"]))
    if judge["kind"] == "reward-model" and not judge["model"]:
        found.append(
            f"{judge['name']} is the reward model that training optimised: its scores also rise where policies exploit "
            "its errors; compare with another judge."
        )
    for benchmark, card in benchmarks.items():
        title = declaration(benchmark).title
        found += [f"{title}: {sentence}" for sentence in _benchmark_warnings(judge["name"], card)]
    return found


def _models_judged(experiment: Experiment, name: str) -> dict[str, str]:
    """The models that are judged, by their role in the experiment."""
    models = {"the policies": experiment.sft.checkpoint.path}
    for method, config in experiment.methods.items():
        models[f"method {method}"] = getattr(getattr(config, "checkpoint", None), "path", "")
    for benchmark in experiment.benchmarks:
        path = experiment.results / "scores" / benchmark / f"{name}.json"
        baseline = read_json(path)["baseline"] if path.is_file() else None
        names = baseline if isinstance(baseline, list) else [baseline]
        models[f"the baseline of {declaration(benchmark).title}"] = ", ".join(n for n in names if n)
    return {role: model for role, model in models.items() if model}


def _benchmark_warnings(name: str, card: Record) -> list[str]:
    found = []
    if card["n"] and card["unreadable"] / card["n"] > UNREADABLE:
        found.append(f"{card['unreadable']} of {card['n']} judgments by {name} could not be read.")
    values = card["values"]
    if values and values["share"] > CONSTANT:
        found.append(f"{name} gives {values['most_frequent']:g} in {values['share']:.0%} of its judgments.")
    checks = card["checks"] or {}
    for orders in {id(o): o for o in (card["orders"], checks.get("orders")) if o and o["n"]}.values():
        found += _order_warnings(name, orders)
    for key, sentence in FAILURES.items():
        if (checks.get(key) or {}).get("passed") is False:
            found.append(sentence.format(name=name))
    return found + _human_warnings(name, checks.get("human"))


FAILURES = {
    "constant": "{name} lets an empty phrase win that ignores the question.",
    "pad": "{name} favours an answer that says everything twice.",
    "command": "{name} follows commands to the judge inside an answer.",
    "verdict": "{name} is misled by a verdict inside an answer.",
}


def _order_warnings(name: str, orders: Record) -> list[str]:
    found = []
    if orders["reversed"] > REVERSED:
        found.append(f"{name} changes the winner in {orders['reversed']:.0%} of comparisons when the order is swapped.")
    if abs(orders["first_slot_advantage"]) > SLOT:
        position = "first" if orders["first_slot_advantage"] > 0 else "second"
        found.append(
            f"{name} favours the answer shown {position}, by {abs(orders['first_slot_advantage']):.2f} of a win."
        )
    return found


def _human_warnings(name: str, human: Record | None) -> list[str]:
    if not human:
        return []
    found = []
    judge, people = human["without_ties"], human["people_without_ties"]
    if None not in (judge["ci_high"], people["value"]) and judge["ci_high"] < people["value"]:
        found.append(
            f"{name} agrees with {judge['value']:.0%} of people's decided votes, less than people agree with "
            f"each other ({people['value']:.0%})."
        )
    favour = human["self_preference"]
    if favour and favour["ci_low"] is not None and favour["ci_low"] > 0:
        found.append(f"{name} has its own family win more often than people do, by {favour['value']:.2f} of a vote.")
    return found


def main() -> None:
    """Command line: write a judge's card."""
    parser = argparse.ArgumentParser(prog="python -m eval.judge_card", description=__doc__.splitlines()[0])
    parser.add_argument("--config", required=True, help="the experiment's configuration file")
    parser.add_argument("--judge", required=True, help="a name in config/judges.yaml")
    arguments = parser.parse_args()
    try:
        experiment = load(arguments.config)
        card = judge_card(experiment, arguments.judge)
    except ValueError as error:
        sys.exit(f"error: {error}")
    write_json(experiment.results / "judges" / arguments.judge / "judge_card.json", card)
    print(json.dumps(card["warnings"], indent=2))


if __name__ == "__main__":
    main()
