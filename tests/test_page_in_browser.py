"""The report's page in a real browser: silent, self-contained, accessible, with addresses that restore their view.

Needs Chromium (Debian's, or any on the PATH) and the packages playwright and axe-playwright-python, which make test
installs with the extra `browser`; skipped where one of them is missing.
"""

import importlib.util
import re
import shutil
from pathlib import Path

import pytest
from synthetic_results import everything, write_results

from eval.grade import grade
from metaapo.experiment import load, write_resolved
from reports import page, registration, samples, tables, what_if
from reports.__main__ import build
from reports.runs import Results

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
MISSING = [name for name in ("playwright", "axe_playwright_python") if importlib.util.find_spec(name) is None]
LACKS = [*([] if CHROMIUM else ["Chromium"]), *MISSING]
pytestmark = pytest.mark.skipif(bool(LACKS), reason=f"no {' and no '.join(LACKS)} here: pip install -e .[browser]")

HOSTILE = [
    "</script><script>document.title='broken'</script>",
    "<img src=x onerror=\"document.title='broken'\">",
    "</details></main></body></html><h1 id=verdicts>",
    "\u202eright to left\u2066",
    "<!-- <script> ]]> {{ 7 * 7 }} &lt;b&gt; \u2028 \u0000 \\",
]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    methods = everything(metaapo=63.0)
    truth = {
        "methods": methods,
        "questions": 12,
        "seeds": (0, 1, 2),
        "benchmarks": ("alpacaeval2", "arenahard", "pooled"),
    }
    found = Results(load(write_results(tmp_path_factory.mktemp("browser"), **truth)))
    write_resolved(found.experiment)
    grade(found.experiment)
    check, registration.check_scores = registration.check_scores, lambda experiment: None  # scores are made up
    try:
        build(found.experiment)
    finally:
        registration.check_scores = check
    return Results(found.experiment)


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


class Visit:
    """An open page that notes what a silent, self-contained page does not do."""

    def __init__(self, browser, path: Path, hash: str = "", **context):
        self.context = browser.new_context(**context)
        self.page = self.context.new_page()
        self.messages, self.requests = [], []
        self.page.on("console", lambda message: self.messages.append(message.text))
        self.page.on("pageerror", lambda error: self.messages.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.address = f"file://{path.resolve()}"
        self.page.goto(self.address + hash)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.context.close()


@pytest.fixture
def visit(browser, results):
    return lambda hash="", **context: Visit(browser, results.folder / "report" / "index.html", hash, **context)


def test_the_page_is_silent_and_asks_for_nothing(visit):
    with visit() as v:
        v.page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
        v.page.wait_for_timeout(200)
        assert v.messages == []
        assert [url for url in v.requests if not url.startswith("data:")] == [v.address]


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_axe_finds_nothing_with_all_details_open(visit, width, scheme):
    from axe_playwright_python.sync_playwright import Axe

    with visit(viewport={"width": width, "height": 800}, color_scheme=scheme) as v:
        v.page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
        v.page.wait_for_timeout(200)
        found = Axe().run(v.page).response["violations"]
        assert [(row["id"], row["impact"], row["nodes"][0]["html"]) for row in found] == []


def test_nothing_but_tables_and_pictures_scrolls_sideways_on_a_phone(visit):
    with visit(viewport={"width": 390, "height": 844}) as v:
        v.page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
        assert v.page.evaluate("document.documentElement.scrollWidth") <= 390


def test_what_if_equals_python_on_every_cell(visit, results):
    expected = list(what_if.verdicts(results))
    with visit() as v:
        found = v.page.evaluate(
            """(asked) => {
              const data = JSON.parse(document.getElementById("what-if-data").textContent);
              return asked.map((a) => WhatIf.verdicts(data, data.cells[a.cell], a.margin, a.correction));
            }""",
            [{key: row[key] for key in ("cell", "margin", "correction")} for row in expected],
        )
    assert len(expected) > 100
    assert found == [row["verdicts"] for row in expected]


def test_what_if_shows_verdicts_that_change_and_keeps_the_choice_in_the_address(visit):
    with visit() as v:
        v.page.select_option("#w-margin", "3")
        v.page.select_option("#w-correction", "none")
        shown, address = v.page.inner_text("#w-verdicts"), v.page.url
        assert "margin=3" in address
    with visit(address[address.index("#") :]) as v:
        assert v.page.inner_text("#w-verdicts") == shown
        assert v.page.input_value("#w-margin") == "3"


@pytest.mark.parametrize(
    ("hash", "heading", "inside"),
    [
        ("#/run/metaapo/budget1.0/seed1", "Run metaapo/budget1.0/seed1", "Annotation ledger"),
        ("#/score/dpo@1.0/alpacaeval2/win_rate/gold", "DPO: AlpacaEval 2, raw win rate", "dpo/budget1.0/seed2"),
        ("#/contrast/metaapo/ppo/pooled/win_rate", "MetaAPO against PPO: Pooled questions", "ppo/budget1.0/seed0"),
    ],
)
def test_an_address_opens_its_evidence(visit, hash, heading, inside):
    with visit(hash) as v:
        assert v.page.inner_text("#evidence-title").startswith(heading)
        assert inside in v.page.inner_text("#evidence-body")
        v.page.keyboard.press("Escape")
        assert not v.page.evaluate("document.getElementById('evidence').open")
        assert "#" not in v.page.url


def test_a_number_leads_to_its_runs_and_from_there_to_their_answers_by_keyboard(visit):
    with visit() as v:
        v.page.focus(".matrix td a")
        v.page.keyboard.press("Enter")
        v.page.wait_for_selector("#evidence-body table")
        v.page.focus("#evidence-body a")
        v.page.keyboard.press("Enter")
        v.page.wait_for_selector("#evidence-body a[href*='outcome=lost']")
        run = v.page.inner_text("#evidence-title").removeprefix("Run ")
        v.page.focus("#evidence-body a[href*='outcome=lost']")
        v.page.keyboard.press("Enter")
        v.page.wait_for_selector("#sample-list .answer")
        assert v.page.input_value("#f-run") == run
        assert v.page.evaluate("document.getElementById('samples').open")


def test_an_address_restores_the_filters_of_the_answers(visit):
    with visit("#/answers?benchmark=arenahard&order=benchmark&page=2") as v:
        assert v.page.input_value("#f-benchmark") == "arenahard"
        assert v.page.inner_text("#page-number").startswith("2 of")
        assert all("Arena-Hard" in head for head in v.page.locator(".sample h4").all_inner_texts())


def test_an_address_opens_the_section_it_names(visit):
    with visit("#health") as v:
        assert v.page.evaluate("document.getElementById('health').open")


def test_the_first_screen_is_above_the_fold_and_within_two_screens_on_a_phone(visit):
    bottom = "Math.max(...[...document.querySelector('.first').children].map((e) => e.getBoundingClientRect().bottom))"
    with visit(viewport={"width": 1280, "height": 800}) as v:
        assert v.page.evaluate(bottom) <= 800
    with visit(viewport={"width": 390, "height": 844}) as v:
        assert v.page.evaluate(bottom) <= 2 * 844 + 250  # nine baselines here; the default has four


def test_hostile_answers_change_nothing_in_the_structure(visit, results, browser, tmp_path):
    def outline(v):
        return v.page.evaluate("[...document.querySelectorAll('*')].map((e) => e.tagName + '#' + e.id).join()")

    drawn = []
    data = samples.browse(results)
    calm, wild = tmp_path / "calm.html", tmp_path / "wild.html"
    made = tables.tables(results)
    calm.write_text(page.render(results, drawn, made, data), encoding="utf-8")
    answers = [answer for question in data["questions"] for answer in question["a"]]
    texts = [HOSTILE[i % len(HOSTILE)] if i % 50 else "x" * 100_000 for i in range(500)]
    for i, answer in enumerate(answers):
        answer["x"] = [texts[i % len(texts)]] * len(answer["x"])
        answer["v"] = [HOSTILE[i % len(HOSTILE)]] * len(answer["v"])
    assert len(answers) >= 500
    wild.write_text(page.render(results, drawn, made, data), encoding="utf-8")
    with Visit(browser, calm) as before, Visit(browser, wild) as after:
        assert outline(after) == outline(before)
        for v in (before, after):
            v.page.evaluate("document.getElementById('samples').open = true")
            v.page.wait_for_selector(".sample")
        assert outline(after) == outline(before)
        assert after.page.title() == before.page.title()
        assert after.messages == []


def test_the_print_is_a_summary(visit):
    with visit() as v:
        v.page.emulate_media(media="print")
        assert v.page.is_visible("#matrix")
        assert v.page.is_visible("#claim-C1")
        for hidden in ("#questions", "#what-if", "#evidence"):
            assert not v.page.is_visible(hidden)


@pytest.mark.parametrize("paper", ["A4", "Letter"])
def test_the_print_has_two_sheets(visit, paper):
    with visit() as v:
        printed = v.page.pdf(format=paper, margin=dict.fromkeys(("top", "bottom", "left", "right"), "11mm"))
    assert len(re.findall(rb"/Type\s*/Page\b", printed)) <= 2


def test_panels_of_a_figure_stack_on_a_phone_with_legible_text(visit):
    with visit(viewport={"width": 390, "height": 844}) as v:
        v.page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
        lefts = v.page.evaluate(
            "[...document.querySelectorAll('.panels > div')].map((e) => e.getBoundingClientRect().left)"
        )
        sizes = v.page.evaluate(
            """[...document.querySelectorAll("svg.plot text")].map((text) => {
              const plot = text.closest("svg"), scale = plot.getBoundingClientRect().width / plot.viewBox.baseVal.width;
              return parseFloat(getComputedStyle(text).fontSize) * scale;
            })"""
        )
    assert len(lefts) > 10
    assert {round(left) for left in lefts} == {round(lefts[0])}
    assert min(sizes) >= 9
