"""docs/findings.md says what the kept results say, and every number in it leads to its file."""

import json
import re
import shutil

import pytest

from reports.findings import KEPT, PAGE, estimate, readable, render


def sentences(text):
    """Sentences of paragraphs, and items of lists; headings are left out."""
    for block in re.split(r"\n\s*\n|\n(?=\s*- )", text):
        if not block.lstrip().startswith("#"):
            yield from re.split(r"(?<=[.!?)])\s+(?=[A-Z*])", " ".join(block.split()))


def test_the_page_is_what_the_kept_results_give():
    assert PAGE.read_text(encoding="utf-8") == render(), "run python -m reports.findings"


def test_every_sentence_with_a_number_links_to_a_file():
    page = PAGE.read_text(encoding="utf-8")
    numbered = [s for s in sentences(page) if re.search(r"\d", re.sub(r"`[^`]*`|\bC[1-6]\b|\([^)]*\)", "", s))]
    assert len(numbered) > 5
    assert [s for s in numbered if "](" not in s] == []


def test_a_changed_result_changes_the_page(tmp_path):
    shutil.copytree(KEPT, tmp_path / "results")
    path = tmp_path / "results" / "assay" / "assay.json"
    rows = json.loads(path.read_text())
    rows[0]["value"] += 1
    path.write_text(json.dumps(rows))
    assert render(tmp_path / "results") != render()


@pytest.mark.parametrize(
    ("label", "words"), [("metaapo - dpo on pooled win_rate", "MetaAPO less DPO"), ("sampling rate", "sampling rate")]
)
def test_comparisons_are_put_into_words(label, words):
    assert readable(label) == words


def test_an_estimate_shows_its_interval():
    assert estimate({"value": 1.25, "ci_low": -0.31, "ci_high": 2.8}, digits=2) == "+1.25 [-0.31, 2.80]"
