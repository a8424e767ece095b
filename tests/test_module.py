"""Among Snakemake's workflows: use as a module, the catalog's layout, captions, and the configuration's schema."""

import json
import os
import re
import subprocess
import sys

import jsonschema
import pytest
import yaml

from metaapo import PROJECT
from metaapo.config_schema import schema, text

# A whole workflow that runs ours: config/README.md shows these lines.
USER = """
module metaapo:
    snakefile: "{project}/workflow/Snakefile"
    config: config

use rule * from metaapo as metaapo_*
"""
EXPERIMENTS = [path for path in sorted((PROJECT / "config").glob("*.yaml")) if "\nexperiment: " in path.read_text()]


def snakemake(folder, *arguments):
    command = [sys.executable, "-m", "snakemake", "--cores", "1", *map(str, arguments)]
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(PROJECT)}
    )


def test_another_workflow_uses_ours_as_a_module(tmp_path):
    (tmp_path / "Snakefile").write_text(USER.format(project=PROJECT))
    (tmp_path / "mine.yaml").write_text((PROJECT / "config" / "smoke.yaml").read_text())
    done = snakemake(tmp_path, "--configfile", "mine.yaml", "--dry-run", "metaapo_all")
    assert done.returncode == 0, done.stdout + done.stderr
    planned = {line.split()[0] for line in (done.stdout + done.stderr).splitlines() if line.startswith("metaapo_")}
    assert {"metaapo_world", "metaapo_train_metaapo", "metaapo_judge", "metaapo_report", "metaapo_notebook"} <= planned


def test_the_readme_of_the_configuration_shows_these_lines():
    shown = (PROJECT / "config" / "README.md").read_text()
    assert USER.format(project="path/to/metaapo").strip() in shown


def test_the_catalogs_files_are_there_and_say_what_a_user_needs():
    catalog = yaml.safe_load((PROJECT / ".snakemake-workflow-catalog.yml").read_text())["usage"]
    assert catalog["software-stack-deployment"]["conda"] is True
    assert catalog["report"] is True
    assert "pip install" in catalog["mandatory-flags"]["desc"]
    assert (PROJECT / "config" / "README.md").is_file()


def test_every_result_in_snakemakes_report_has_a_caption():
    rules = (PROJECT / "reports" / "reports.smk").read_text()
    marked, captions = re.findall(r"report\(f", rules), re.findall(r'caption="(captions/\w+\.rst)"', rules)
    assert len(marked) == len(captions) == len(list((PROJECT / "reports" / "captions").iterdir()))
    assert all((PROJECT / "reports" / caption).read_text().strip() for caption in captions)


def test_the_stored_schema_is_current():
    stored = (PROJECT / "config" / "schema.json").read_text(encoding="utf-8")
    assert stored == text(), "refresh it: python -m metaapo.config_schema > config/schema.json"


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_every_experiment_is_valid_by_the_schema(path):
    jsonschema.Draft202012Validator(schema()).validate(yaml.safe_load(path.read_text()))


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"iterations": 0}, ["iterations"]),
        ({"sedes": [0]}, []),
        ({"methods": {"metaapo": {"t_mta": 2}}}, ["methods", "metaapo"]),
        ({"train": {"lr": "high"}}, ["train", "lr"]),
    ],
)
def test_a_mistake_is_found_where_it_is(change, key):
    document = yaml.safe_load((PROJECT / "config" / "smoke.yaml").read_text()) | change
    errors = list(jsonschema.Draft202012Validator(schema()).iter_errors(document))
    assert key in [list(error.absolute_path) for error in errors]


def test_the_schema_describes_every_method_and_is_plain_json():
    found = json.loads(text())
    assert {"metaapo", "dpo", "ppo", "selm"} <= found["properties"]["methods"]["properties"].keys()
    jsonschema.Draft202012Validator.check_schema(found)
