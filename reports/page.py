"""The report's HTML page: verdicts, figures, tables, runs and sample browser in one file that works offline.

    python -m reports.page --config config/default.yaml

Writes report/index.html with everything embedded, and each figure (PNG, PDF) and table (CSV, Markdown, LaTeX) next to
it.
"""

from __future__ import annotations

import argparse
import io
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from metaapo.data import read_json, write_bytes, write_text
from reports import (
    cards,
    drawing,
    embedded,
    figures,
    first_screen,
    health_gate,
    main_figure,
    mechanism,
    paper,
    questions,
    ranks,
    roles,
    samples,
    stability,
    tables,
    what_if,
)
from reports.assay import title_of
from reports.calibration import calibration
from reports.collect import share
from reports.judge_cards import judge_cards
from reports.runs import Results
from reports.spec_curve import FILE, agreement
from reports.timings import rule_seconds

HERE = Path(__file__).parent
SCRIPTS = ("what_if.js", "page.js")
PREVIEW = "preview.png"
PREVIEW_COLORS = 96
PIXELS_PER_POINT = 1.55  # of a figure in the page, where there is room


def build(results: Results, early: Callable[[], list[drawing.Saved]] | None = None, url: str = "") -> str:
    """Write the figures, tables and the page below report/; returns the page's HTML.

    Args:
        results: the experiment's results.
        early: waits for the figures of `figures.BEFORE_CLAIMS`, if they are being drawn already.
        url: see `render`.
    """
    folder = results.folder / "report"
    early = early or drawing.save_all(results, figures.BEFORE_CLAIMS, folder)
    late = drawing.save_all(results, figures.AFTER_CLAIMS, folder)
    made = tables.tables(results)
    for table in made:
        tables.save(table, folder)
    browser = samples.browse(results)
    page = render(results, figures.in_order([*early(), *late()]), made, browser, url)
    write_text(folder / "index.html", page)
    preview(folder)
    return page


def preview(folder: Path) -> None:
    """Write the image for link previews, 1200 x 630 pixels: the main figure on white."""
    path = folder / "budget.png"
    if not path.exists():
        return
    picture = Image.open(path).convert("RGB")
    picture.thumbnail((1160, 590))
    sheet = Image.new("RGB", (1200, 630), "white")
    sheet.paste(picture, ((1200 - picture.width) // 2, (630 - picture.height) // 2))
    buffer = io.BytesIO()
    sheet.quantize(PREVIEW_COLORS).save(buffer, "PNG", optimize=True)
    write_bytes(folder / PREVIEW, buffer.getvalue())


def render(
    results: Results,
    drawn: Sequence[drawing.Saved],
    made: Sequence[tables.Table],
    browser: dict[str, Any],
    url: str = "",
) -> str:
    """The page as HTML.

    Args:
        results: the experiment's results.
        drawn: the figures to show.
        made: the tables to show.
        browser: the sample browser's data (`samples.browse`).
        url: where the report's folder will be published, so that the page can name its image for link previews, which
            must be an absolute address; "" names none.
    """
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    experiment, records = results.experiment, list(results.records.values())
    health = health_gate.documents(experiment)
    claims = cards.cards(results, agreement(results))
    names = embedded.names(results) | {"shared": embedded.shared(results)}
    first = results.claims[0]
    return environment.get_template("page.html.j2").render(
        experiment=experiment,
        paper=paper,
        headline=first_screen.headline(results),
        certainty=first_screen.certainty(results),
        matrix=first_screen.matrix(results),
        seen=first_screen.could_have_seen(results),
        panels=main_figure.panels(results),
        banner=banner(results),
        failures=[named(text, results) for text in health_gate.failures(list(health.values()))],
        endpoint=cards.endpoint_name(first["endpoint"]),
        replicates=first["replicates"],
        assay=assay_view(results),
        calibration=calibration_view(results),
        claims=claims,
        counts=cards.count_verdicts(results.claims),
        what_if=bool(records),
        steps=mechanism.steps(results),
        worlds=stability.worlds(results),
        reference=stability.reference(results),
        specification=specification_view(results),
        ranking=ranks.ranking(results),
        asked=questions.questions(results),
        figures=[_figure(figure) for figure in drawn],
        tables={table.name: _table(table) for table in made},
        judges=experiment.judges,
        cards=judge_cards(results),
        health=[health_view(name, document, results) for name, document in health.items()],
        runs=[run_view(run.id, record) for run, record in results.records.items()],
        provenance=embedded.provenance(results),
        preview=f"{url.rstrip('/')}/{PREVIEW}" if url else "",
        timings=rule_seconds(results.folder),
        browser=browser,
        rubric=results.gold_rubric,
        browser_json=_script_json(embedded.answers(results, browser)),
        files_json=_script_json(embedded.files(results)),
        runs_json=_script_json(embedded.runs(results)),
        names_json=_script_json(names),
        what_if_json=_script_json(what_if.payload(results)),
        css=Markup((HERE / "page.css").read_text(encoding="utf-8")),
        plots=_styles(drawn),
        scripts=[Markup((HERE / name).read_text(encoding="utf-8")) for name in SCRIPTS],
    )


def specification_view(results: Results) -> dict[str, Any] | None:
    """The specification curve as bars of verdicts, one row per claim; None without spec_curve.json."""
    path = results.folder / FILE
    found = read_json(path) if path.exists() else {"claims": []}
    rows = []
    for claim in found["claims"]:
        if claim["share"] is None:
            continue
        bars = [
            {"verdict": v, "count": n, "slug": v.replace(" ", "-"), "mine": v == claim["verdict"]}
            for v, n in claim["counts"].items()
        ]
        rows.append({"id": claim["id"], "bars": bars})
    return {"n": len(found["specifications"]), "rows": rows} if rows else None


def banner(results: Results) -> str:
    """What readers must know before they read any number."""
    experiment = results.experiment
    judged = f"judged by {_list(experiment.judges)}"
    if experiment.world.name == "tiny":
        return (
            f"Here, models of 0.3 million parameters learn made-up errands, {judged}, on questions in the benchmarks' "
            "formats. No score is comparable with the paper's; differences between methods are the result."
        )
    return (
        f"Here, answers are {judged}. The paper's judges (gpt-4-1106-preview, gpt-4-0613) are no longer served, so no "
        "score is comparable with the paper's; differences between methods are the result."
    )


def _list(names: Sequence[str]) -> str:
    words = ["a program that computes the true reward" if n == "gold" else f"judge {n}" for n in names]
    return " and ".join(words)


def assay_view(results: Results) -> list[dict[str, Any]]:
    """The rows of assay.json as the page shows them; empty without the file."""
    path = results.folder / "assay.json"
    return [_assay_row(row) for row in (read_json(path) if path.exists() else [])]


def calibration_view(results: Results) -> dict[str, Any]:
    """How often verdicts are wrong, as the page shows it; see `reports.calibration`."""
    found = calibration(results)
    return found | {"rows": [_assay_row(row) for row in found["rows"]]}


def _assay_row(row: dict[str, Any]) -> dict[str, Any]:
    ends = (row["ci_low"], row["ci_high"])
    return {
        "question": title_of(row["name"]),
        "value": _plain(row["value"]),
        "interval": "" if None in ends else "[{:.3g}, {:.3g}]".format(*ends),
        "unit": row["unit"] if row["value"] is not None else "",
        "range": _range(row["low"], row["high"]),
        "ok": row["ok"],
        "note": row["note"],
    }


def named(text: str, results: Results) -> str:
    """A text with the display names of methods and benchmarks; the random control's is also a plain word, and stays."""
    experiment = results.experiment
    plain = [method for method in experiment.methods if roles.declaration(experiment, method).matched_random]
    names = {method: tables.name_of(method) for method in experiment.methods if method not in plain}
    names |= tables.TITLES
    return re.sub(r"\w+", lambda word: names.get(word[0], word[0]), text)


def health_view(name: str, document: Any, results: Results) -> dict[str, Any]:
    """A health record as a titled table: value and sane range of each check."""
    rows = [
        {
            "name": named(row["name"], results),
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
    """One run in the list of runs; its whole record is embedded (`embedded.runs`)."""
    return {
        "id": id,
        "anchor": "run-" + id.replace("/", "-"),
        "world": record["world"],
        "rates": " / ".join(f"{100 * share(s['sampled'], s['prompts']):.0f}" for s in record["iterations"]),
        "scored": record["totals"]["responses_scored"],
        "seconds": f"{record['seconds']:.0f}",
        "kl": f"{record['iterations'][-1].get('kl', float('nan')):.2f}",
    }


def _figure(drawn: drawing.Saved) -> dict[str, Any]:
    """A figure for the page: its panels, each wide enough for its text to be legible."""
    shown = [{"svg": Markup(panel.svg), "width": round(PIXELS_PER_POINT * panel.width)} for panel in drawn.panels]
    return {"name": drawn.name, "title": drawn.title, "caption": drawn.caption, "panels": shown}


def _styles(drawn: Sequence[drawing.Saved]) -> Markup:
    """The style sheet of all figures, whose classes are named after what they declare."""
    styles = {slug: style for figure in drawn for panel in figure.panels for slug, style in panel.styles.items()}
    return Markup("\n".join(f".plot .{slug}{{{styles[slug]}}}" for slug in sorted(styles)))


def _table(table: tables.Table) -> dict[str, Any]:
    return {"name": table.name, "title": table.title, "note": table.note, "html": Markup(table.to_html())}


def _script_json(document: Any) -> Markup:
    return Markup(embedded.script_json(document))


def main() -> None:
    """Command line: python -m reports.page --config FILE."""
    parser = argparse.ArgumentParser(prog="python -m reports.page", description=__doc__.splitlines()[0])
    parser.add_argument("--config", required=True, help="configuration file of the experiment")
    parser.add_argument("--url", default="", help="where report/ will be published: names the image for link previews")
    arguments = parser.parse_args()
    if arguments.url and not arguments.url.startswith(("https://", "http://")):
        parser.error(f"--url {arguments.url}: expected an address that begins with https://")
    build(Results.load(arguments.config), url=arguments.url)


if __name__ == "__main__":
    main()
