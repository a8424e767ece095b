"""Write the model card of a trained policy: how it was trained, what it cost, how it scored, what the verdicts say.

    python -m reports.model_card --run results/default --policy metaapo/budget1.0/seed0 --out README.md

The card is Markdown with the metadata that the Hugging Face hub reads (scores as `model-index`), to be put beside the
policy's weights. Everything in it is read from the results folder. A policy of the small world says that it is one.

Needs huggingface_hub, which the extra `train` brings along.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from metaapo.data import DataError, read_json, write_text
from metaapo.doors import command_line
from reports.collect import share

if TYPE_CHECKING:
    from huggingface_hub import ModelCard

PAPER = "2509.23371"
TEMPLATE = """---
{{ card_data }}
---

# {{ name }}

A policy trained with `{{ module }}` by the reproducibility suite of MetaAPO
([arXiv 2509.23371](https://arxiv.org/abs/2509.23371)).
{% if small_world %}
**It lives in a small world**: prompts, preferences and judge are made by a program. It answers nothing else, its scores
are not comparable with those of the paper, and it is of use to those who study the methods.
{% endif %}
## Training

| | |
| --- | --- |
{% for key, value in settings %}| {{ key }} | {{ value }} |
{% endfor %}
## Annotations

What the reward model was asked, from the run's ledger. Ratios are relative to {{ k }} responses for every prompt.

| iteration | prompts | sampled online | responses scored | ratio | KL to SFT, nats per response |
| ---: | ---: | ---: | ---: | ---: | ---: |
{% for row in ledger %}| {{ row | join(" | ") }} |
{% endfor %}
## Scores

{% if scores %}After the last iteration. Brackets: 95 % interval over questions.

| benchmark | judge | metric | score | n |
| --- | --- | --- | ---: | ---: |
{% for row in scores %}| {{ row | join(" | ") }} |
{% endfor %}{% else %}Not evaluated.
{% endif %}
## What the experiment says about the method

Verdicts concern methods over all runs of the experiment `{{ experiment }}`, not this policy alone.

| claim | verdict | why |
| --- | --- | --- |
{% for claim in claims %}| **{{ claim.id }}** {{ claim.statement }} | {{ claim.verdict }} | {{ claim.reason }} |
{% endfor %}
## Provenance

Commit `{{ record.commit }}`, code `{{ record.code_sha256 }}`, finished {{ record.finished }} after
{{ "%.0f" | format(record.seconds) }} s on {{ record.machine.values() | join(", ") }}.

| what | SHA-256 or version |
| --- | --- |
{% for key, value in made_of %}| {{ key }} | {{ value }} |
{% endfor %}"""


def model_card(results: str | Path, policy: str) -> ModelCard:
    """The card of one policy after its last iteration.

    Args:
        results: the experiment's folder, such as results/default.
        policy: METHOD/budgetB/seedS.

    Raises:
        DataError: huggingface_hub is not installed, or there is no such finished run.
    """
    try:
        from huggingface_hub import ModelCard, ModelCardData
    except ImportError as error:
        raise DataError("huggingface_hub is not installed; run pip install '.[train]'") from error
    folder = Path(results)
    path = folder / "runs" / policy / "run.json"
    if not path.is_file():
        known = ", ".join(
            str(p.parent.relative_to(folder / "runs")) for p in sorted(folder.glob("runs/*/*/*/run.json"))
        )
        raise DataError(f"{path}: no finished run; give one of {known or 'the runs, once they are trained'}")
    record = read_json(path)
    scores = _scores(folder / "scores.csv", record)
    claims = folder / "claims.json"
    base = record["config"]["sft"]["checkpoint"]["path"]
    name = f"{record['config']['experiment']}-{policy.replace('/', '-')}"
    data = ModelCardData(
        model_name=name,
        base_model=base or None,
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["preference-optimization", record["method"], f"arxiv:{PAPER}"],
        eval_results=[_result(row) for row in scores] or None,
    )
    return ModelCard.from_template(
        data,
        template_str=TEMPLATE,
        name=name,
        module=record["module"],
        small_world=record["config"]["world"]["name"] == "tiny",
        settings=_settings(record),
        k=record["config"]["sampling"]["k"],
        ledger=_ledger(record),
        scores=[_shown(row) for row in scores],
        experiment=record["config"]["experiment"],
        claims=read_json(claims) if claims.is_file() else [],
        record=record,
        made_of=[*record["data"].items(), *((k, v) for k, v in record["packages"].items() if v)],
    )


def _settings(record: dict[str, Any]) -> list[tuple[str, Any]]:
    """What a reader asks first; the rest is in run.json."""
    train = record["train"]
    keys = ("lr", "beta", "batch_size", "start", "reference", "precision")
    return [
        ("budget, seed, world", f"{record['budget']}, {record['seed']}, {record['world']}"),
        *((key, train[key]) for key in keys),
        *((key, value) for key, value in record["params"].items() if not isinstance(value, dict)),
    ]


def _ledger(record: dict[str, Any]) -> list[Sequence[Any]]:
    k = record["config"]["sampling"]["k"]
    rows = [
        (
            str(number),
            row["prompts"],
            row["sampled"],
            row["responses_scored"],
            f"{share(row['responses_scored'], k * row['prompts']):.3f}",
            f"{row['kl']:.2f}" if row.get("kl") is not None else "",
        )
        for number, row in enumerate(record["iterations"], start=1)
    ]
    sums = [sum(row[column] for row in rows) for column in (1, 2, 3)]
    return [*rows, ("all", *sums, f"{share(sums[2], k * sums[0]):.3f}", "")]


def _scores(path: Path, record: dict[str, Any]) -> list[dict[str, Any]]:
    """The policy's rows of scores.csv after its last iteration; empty before the report."""
    if not path.is_file():
        return []
    frame = pd.read_csv(path, dtype={"budget": str})
    own = (frame.method == record["method"]) & (frame.budget == str(record["budget"])) & (frame.seed == record["seed"])
    last = frame[own & (frame.iteration == len(record["iterations"])) & frame.value.notna()]
    return last[~last.metric.str.contains(":")].to_dict("records")


def _shown(row: dict[str, Any]) -> Sequence[str]:
    known = not pd.isna(row["ci_low"])
    interval = f" [{row['ci_low']:.1f}, {row['ci_high']:.1f}]" if known else ""
    words = (f"{row['benchmark']} ({row['version']})", row["judge"], row["metric"])
    return (*words, f"{row['value']:.1f}{interval}", str(row["n"]))


def _result(row: dict[str, Any]) -> Any:
    from huggingface_hub import EvalResult

    return EvalResult(
        task_type="text-generation",
        dataset_type=row["benchmark"],
        dataset_name=f"{row['benchmark']} ({row['version']}, judge {row['judge']})",
        metric_type=row["metric"],
        metric_value=round(float(row["value"]), 3),
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options to a command-line parser."""
    parser.add_argument("--run", required=True, help="results folder of an experiment, such as results/default")
    parser.add_argument("--policy", required=True, help="METHOD/budgetB/seedS, such as metaapo/budget1.0/seed0")
    parser.add_argument("--out", required=True, help="the card's file, such as README.md beside the weights")


def run(arguments: argparse.Namespace) -> int:
    """Write the card. Returns the exit status: 0, or 2 with one sentence if that is impossible."""
    try:
        card = model_card(arguments.run, arguments.policy)
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    write_text(Path(arguments.out), str(card))
    print(arguments.out)
    return 0


if __name__ == "__main__":
    sys.exit(command_line(__spec__.name, __doc__, add_arguments, run))
