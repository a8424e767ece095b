"""The report's HTML page: verdicts, figures, tables, runs and sample browser in one file that works offline.

    python -m reports.page --config config/default.yaml

Writes report/index.html with everything embedded, and each figure (PNG, PDF) and table (CSV, Markdown, LaTeX) next to
it.
"""

from __future__ import annotations

import argparse
import base64
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from metaapo.data import read_json, write_text
from reports import drawing, figures, health_gate, samples, tables
from reports.assay import title_of
from reports.collect import share
from reports.decide import standing
from reports.judge_cards import judge_cards
from reports.runs import Results
from reports.spec_curve import agreement
from reports.timings import rule_seconds

HERE = Path(__file__).parent
SECTIONS = (
    ("results", "Results"),
    ("meta", "The meta-learner"),
    ("training", "Training"),
    ("costs", "Costs"),
)
MARKS = {
    "supported": "✓",
    "equivalent": "=",
    "worse": "✗",
    "no gain that matters": "≯",
    "inconclusive": "?",
    "untestable here": "∅",
    "not tested": "–",
}
UNITS = {"points": "points", "grade": "grades", "%": "%"}
BAR_WIDTH, BAR_HEIGHT = 220, 34  # size of an effect bar in CSS pixels


def build(results: Results, early: Callable[[], list[drawing.Saved]] | None = None) -> str:
    """Write the figures, tables and the page below report/; returns the page's HTML.

    Args:
        results: the experiment's results.
        early: waits for the figures of `figures.BEFORE_CLAIMS`, if they are being drawn already.
    """
    folder = results.folder / "report"
    early = early or drawing.save_all(results, figures.BEFORE_CLAIMS, folder)
    late = drawing.save_all(results, figures.AFTER_CLAIMS, folder)
    made = tables.tables(results)
    for table in made:
        tables.save(table, folder)
    browser = samples.browse(results)
    page = render(results, figures.in_order([*early(), *late()]), made, browser)
    write_text(folder / "index.html", page)
    return page


def render(
    results: Results,
    drawn: Sequence[drawing.Saved],
    made: Sequence[tables.Table],
    browser: dict[str, Any],
) -> str:
    """The page as HTML.

    Args:
        results: the experiment's results.
        drawn: the figures to show.
        made: the tables to show.
        browser: the sample browser's data (`samples.browse`).
    """
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    experiment = results.experiment
    agreed = agreement(results)
    return environment.get_template("page.html.j2").render(
        experiment=experiment,
        banner=banner(results),
        assay=assay_view(results),
        claims=[claim_view(claim) | {"agreement": agreed.get(claim["id"], "")} for claim in results.claims],
        counts=count_verdicts(results.claims),
        sections=[
            {"id": id, "title": title, "figures": [_figure(f) for f in drawn if f.section == id]}
            for id, title in SECTIONS
        ],
        tables={table.name: _table(table) for table in made},
        judges=experiment.judges,
        cards=judge_cards(results),
        health=[health_view(name, document) for name, document in health_gate.documents(experiment).items()],
        runs=[run_view(run.id, record) for run, record in results.records.items()],
        shared=shared_provenance(list(results.records.values())),
        timings=rule_seconds(results.folder),
        browser=browser,
        rubric=results.gold_rubric,
        browser_json=_script_json(browser_payload(browser)),
        css=Markup((HERE / "page.css").read_text(encoding="utf-8")),
        js=Markup((HERE / "page.js").read_text(encoding="utf-8")),
    )


def banner(results: Results) -> str:
    """What readers must know before they read any number."""
    experiment = results.experiment
    if experiment.world.name == "tiny":
        return (
            "Small world. These are proxy benchmarks in the formats of AlpacaEval 2, Arena-Hard and MT-Bench, "
            f"answered by small models trained from scratch and judged by {_list(experiment.judges)}. No number here "
            "is comparable with the paper's numbers; the comparisons between methods are the result."
        )
    return (
        f"Judged by {_list(experiment.judges)}. The judges of the paper (gpt-4-1106-preview, gpt-4-0613) are no longer "
        "served, so no number here is comparable with the paper's; the comparisons between methods are the result."
    )


def _list(names: Sequence[str]) -> str:
    words = ["a gold judge (a program that computes the true reward)" if n == "gold" else f"judge {n}" for n in names]
    return " and ".join(words)


def count_verdicts(claims: Sequence[dict[str, Any]]) -> str:
    """Such as "1 worse, 5 inconclusive"; verdicts that no claim has are left out."""
    counts = {verdict: sum(claim["verdict"] == verdict for claim in claims) for verdict in MARKS}
    return ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count)


def claim_view(claim: dict[str, Any]) -> dict[str, Any]:
    """A verdict with the extra fields that the page shows."""
    parts = [_part_view(part) for part in claim["parts"]]
    names = {part["effect_of"]: part["name"] for part in parts}
    return (
        {"other_judges": {}, "looks": None, "deviations": None}
        | claim
        | {
            "mark": MARKS[claim["verdict"]],
            "slug": claim["verdict"].replace(" ", "-"),
            "endpoint_name": _endpoint_name(claim["endpoint"]),
            "detectable": _quantity(claim["smallest_effect"], claim["smallest_effect_unit"]),
            "text": _interval(claim),
            "bar": effect_bar(claim),
            "parts": parts,
            "effect_name": names.get(claim["effect_of"], ""),
            "standing": standing(claim),
        }
    )


def _part_view(part: dict[str, Any]) -> dict[str, Any]:
    """A comparison with the texts that the page shows; a number that is missing is a dash."""
    decided = {"for": "for", "against": "against"}.get(part["seeds_direction"], "")
    needed = "–" if part["seeds_to_decide"] is None else f"{part['seeds_to_decide']} {decided}{_reach(part)}"
    ps = {key: "–" if part[key] is None else f"{part[key]:.3g}" for key in ("p_for", "p_against")}
    state = part["verdict"] or "secondary"
    shown = {"text": _interval(part) or "–", "name": _part_name(part), "needed": needed, "state": state}
    return part | shown | ps | {"detectable": _quantity(part["smallest_effect"], part["unit"]) or "–"}


def _reach(part: dict[str, Any]) -> str:
    """The interval of the number of worlds or seeds to decide, such as " [7, 31]"; open if its end is out of reach."""
    return f" [{part['seeds_low']}, {part['seeds_high'] or '∞'}]"


def _endpoint_name(endpoint: dict[str, str]) -> str:
    """The endpoint in words, such as "Pooled questions, win rate"."""
    if endpoint["benchmark"] not in tables.TITLES:
        return "the mean of all benchmarks, each on 0 to 100"
    return f"{tables.TITLES[endpoint['benchmark']]}, {endpoint['metric'].replace('_', ' ')}"


def _quantity(value: float | None, unit: str | None) -> str:
    """A size such as "1.2 points"; empty if there is none."""
    return "" if value is None else f"{value:.2g} {UNITS[unit]}"


def _part_name(part: dict[str, Any]) -> str:
    title = f"{part['title']}: " if part["title"] else ""
    if not part["benchmark"]:
        return title + part["label"]
    better, worse = (tables.name_of(name) for name in part["label"].split(" - "))
    where = (
        "overall"
        if part["benchmark"] == "overall"
        else f"{tables.TITLES[part['benchmark']]}, {part['metric'].replace('_', ' ')}"
    )
    return f"{title}{better} − {worse}, {where}"


def _interval(part: dict[str, Any]) -> str:
    if part["effect"] is None:
        return ""
    unit = f" {UNITS[part['unit']]}"
    sign = "" if part["unit"] == "%" else "+"
    interval = "" if part["ci_low"] is None else f" [{part['ci_low']:{sign}.2f}, {part['ci_high']:{sign}.2f}]"
    return f"{part['effect']:{sign}.2f}{interval}{unit}"


def effect_bar(claim: dict[str, Any]) -> Markup:
    """A small SVG of the deciding effect, its interval and its bound; empty if there is no effect or interval."""
    if claim["ci_low"] is None:
        return Markup("")
    bound = claim["bound"]
    ends = [claim["ci_low"], claim["ci_high"], bound]
    low, high = min(ends), max(ends)
    pad = 0.12 * ((high - low) or 1.0)

    def x(value: float) -> float:
        return round(8 + (BAR_WIDTH - 16) * (value - low + pad) / (high - low + 2 * pad), 1)

    middle = BAR_HEIGHT / 2 - 4
    return Markup(
        f'<svg class="bar" viewBox="0 0 {BAR_WIDTH} {BAR_HEIGHT}" role="img" aria-label="effect {claim["effect"]:g}, '
        f'interval {claim["ci_low"]:g} to {claim["ci_high"]:g}, bound {bound:g}">'
        f'<line x1="{x(bound)}" x2="{x(bound)}" y1="2" y2="{BAR_HEIGHT - 12}" class="zero"/>'
        f'<text x="{min(max(x(bound), 14), BAR_WIDTH - 14)}" y="{BAR_HEIGHT - 1}" text-anchor="middle">{bound:g}</text>'
        f'<line x1="{x(claim["ci_low"])}" x2="{x(claim["ci_high"])}" y1="{middle}" y2="{middle}" class="ci"/>'
        f'<circle cx="{x(claim["effect"])}" cy="{middle}" r="4.5"/></svg>'
    )


def assay_view(results: Results) -> list[dict[str, Any]]:
    """The rows of assay.json as the page shows them; empty without the file."""
    path = results.folder / "assay.json"
    shown = []
    for row in read_json(path) if path.exists() else []:
        ends = (row["ci_low"], row["ci_high"])
        shown.append(
            {
                "question": title_of(row["name"]),
                "value": _plain(row["value"]),
                "interval": "" if None in ends else "[{:.3g}, {:.3g}]".format(*ends),
                "unit": row["unit"] if row["value"] is not None else "",
                "range": _range(row["low"], row["high"]),
                "ok": row["ok"],
                "note": row["note"],
            }
        )
    return shown


def health_view(name: str, document: Any) -> dict[str, Any]:
    """A health record as a titled table: value and sane range of each check."""
    rows = [
        {
            "name": row["name"],
            "value": _plain(row.get("value")),
            "unit": row.get("unit") or "",
            "range": _range(row.get("low"), row.get("high")),
            "ok": row.get("ok", True),
            "note": row.get("note") or "",
        }
        for row in health_gate.checks_of(document)
    ]
    return {"title": name.capitalize(), "rows": rows}


def _range(low: float | None, high: float | None) -> str:
    if low is None and high is None:
        return ""
    if high is None:
        return f"≥ {_plain(low)}"
    return f"≤ {_plain(high)}" if low is None else f"{_plain(low)} to {_plain(high)}"


def _plain(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else "–" if value is None else str(value)


def run_view(id: str, record: dict[str, Any]) -> dict[str, Any]:
    """One run with its provenance."""
    return {
        "id": id,
        "anchor": "run-" + id.replace("/", "-"),
        "method": tables.name_of(record["method"], str(record["budget"])),
        "seed": record["seed"],
        "world": record["world"],
        "commit": record.get("commit", "unknown"),
        "rates": " / ".join(f"{100 * share(s['sampled'], s['prompts']):.0f}" for s in record["iterations"]),
        "scored": record["totals"]["responses_scored"],
        "seconds": f"{record['seconds']:.0f}",
        "kl": f"{record['iterations'][-1].get('kl', float('nan')):.2f}",
        "details": json.dumps(_details(record), indent=1, ensure_ascii=False),
    }


def _details(record: dict[str, Any]) -> dict[str, Any]:
    """The run's settings, code and data, without the tables shown elsewhere."""
    shown = (
        "module",
        "budget",
        "seed",
        "world",
        "params",
        "train",
        "sampling",
        "commit",
        "code_sha256",
        "data",
        "finished",
    )
    return {key: record[key] for key in shown if key in record}


def shared_provenance(records: Sequence[dict[str, Any]]) -> dict[str, list[str]]:
    """Commits and package versions over all runs; one entry each if all agree."""
    packages = [", ".join(f"{k} {v}" for k, v in sorted(record.get("packages", {}).items())) for record in records]
    commits = [record.get("commit", "unknown") for record in records]
    return {"commits": list(dict.fromkeys(commits)), "packages": list(dict.fromkeys(packages))}


def browser_payload(browser: dict[str, Any]) -> dict[str, Any]:
    """The sample browser's data with display names."""
    models = [{"name": tables.name_of(model["method"]), "seed": model["seed"]} for model in browser["models"]]
    return browser | {"models": models, "benchmarks": tables.TITLES}


def _figure(drawn: drawing.Saved) -> dict[str, Any]:
    width, height = drawn.size
    return {
        "name": drawn.name,
        "title": drawn.title,
        "caption": drawn.caption,
        "alt": drawn.alt,
        "src": "data:image/png;base64," + base64.b64encode(drawn.png).decode(),
        "width": round(96 * width * 1.25),
        "height": round(96 * height * 1.25),
    }


def _table(table: tables.Table) -> dict[str, Any]:
    return {"name": table.name, "title": table.title, "note": table.note, "html": Markup(table.to_html())}


def _script_json(document: Any) -> Markup:
    """JSON that is safe inside a script element."""
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029"))


def main() -> None:
    """Command line: python -m reports.page --config FILE."""
    parser = argparse.ArgumentParser(prog="python -m reports.page", description=__doc__.splitlines()[0])
    parser.add_argument("--config", required=True, help="configuration file of the experiment")
    build(Results.load(parser.parse_args().config))


if __name__ == "__main__":
    main()
