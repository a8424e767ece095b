"""Reproduce MetaAPO (arXiv 2509.23371): train, evaluate, report.

snakemake --cores all                                        the embedded experiment, config/default.yaml
snakemake --cores all --configfile config/<name>.yaml        another one, under results/<name>/
"""

from snakemake.exceptions import WorkflowError

from metaapo.arithmetic import pin_arithmetic
from metaapo.config import ConfigError
from metaapo.experiment import resolve, write_resolved
from metaapo.provenance import code_hash
from metaapo.stale_lock import claim

if "experiment" not in config:

    configfile: "config/default.yaml"


REPLAY_FROM = config.pop("from", "")  # used by the target `replay`; not part of an experiment's configuration

try:
    EXPERIMENT = resolve(config)
except ConfigError as error:
    raise WorkflowError(f"configuration: {error}")

pin_arithmetic(EXPERIMENT.hardware)
RESULTS = str(EXPERIMENT.results)
CONFIG_FILE = write_resolved(EXPERIMENT)

claim(RESULTS, may_remove=workflow.is_main_process)


wildcard_constraints:
    world=r"\d+",
    method=r"[A-Za-z0-9_]+",
    budget=r"[0-9.]+",
    seed=r"\d+",
    iteration=r"\d+",
    benchmark="|".join(EXPERIMENT.benchmarks),


rule all:
    default_target: True
    input:
        f"{RESULTS}/scores.csv",
        f"{RESULTS}/claims.json",
        f"{RESULTS}/report/index.html",
        f"{RESULTS}/health.ok",


include: "metaapo/train.smk"
include: "eval/eval.smk"
include: "reports/reports.smk"


onsuccess:
    shell("python -m reports.timings {RESULTS:q}")
