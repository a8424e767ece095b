"""From scores to the page: scores.csv, verdicts on the claims, health, figures, tables and notebooks."""

import os

from eval.aim import aimed_runs
from eval.grade import gold_files
from metaapo import PROJECT
from metaapo.method import known_declarations, module_of

REPORT = f"{RESULTS}/report"
FILES = os.path.relpath(PROJECT / "reports")  # "reports", unless another workflow uses this one as a module
# Methods and benchmarks are looked up by name, so following imports does not find them.
DESCRIBED = [
    *(module_of(name, entry) for name, entry in EXPERIMENT.methods.items()),
    *(f"eval.{benchmark}.samples" for benchmark in EXPERIMENT.benchmarks),
]


rule register:
    """Write the plan before the first training run; it is never written again (docs/verdicts.md)."""
    output:
        f"{RESULTS}/plan.lock",
    log:
        f"{RESULTS}/logs/register.log",
    localrule: True
    conda:
        "../environment.yml"
    params:
        config=CONFIG_FILE,
    shell:
        "python -m reports.registration --config {params.config:q} > {log:q} 2>&1"


rule report:
    input:
        plan=rules.register.output,
        scores=expand(
            f"{RESULTS}/scores/{{benchmark}}/{{judge}}.{{kind}}",
            benchmark=EXPERIMENT.benchmarks,
            judge=EXPERIMENT.judges,
            kind=["json", "items.csv.gz"],
        ),
        gold=gold_files(EXPERIMENT),
        agreement=agreement_files(EXPERIMENT),
        cards=expand(f"{RESULTS}/judges/{{judge}}/judge_card.json", judge=EXPERIMENT.judges),
        runs=expand(f"{RESULTS}/runs/{{run}}/run.json", run=EXPERIMENT.run_ids()),
        worlds=expand(f"{RESULTS}/world{{world}}/health.json", world=EXPERIMENT.world.seeds),
        aim=f"{RESULTS}/aim.csv" if aimed_runs(EXPERIMENT) else [],
        looks=[f"{FILES}/{name}" for name in ("page.html.j2", "page.css", "page.js", "what_if.js", "style.mplstyle")],
        tuning=[os.path.relpath(path) for path in [PROJECT / "config" / "tuning.yaml"] if path.exists()],
    output:
        scores=report(f"{RESULTS}/scores.csv", caption="captions/scores.rst", category="Scores"),
        assay=report(f"{RESULTS}/assay.json", caption="captions/assay.rst", category="Sensitivity"),
        claims=report(f"{RESULTS}/claims.json", caption="captions/claims.rst", category="Verdicts"),
        health=report(f"{RESULTS}/health.json", caption="captions/health.rst", category="Health"),
        page=report(f"{REPORT}/index.html", caption="captions/page.rst", category="Report"),
        figure=report(f"{REPORT}/budget.png", caption="captions/budget.rst", category="Figures"),
        vector=f"{REPORT}/budget.pdf",
        tables=expand(f"{REPORT}/main_{{judge}}.{{kind}}", judge=EXPERIMENT.judges, kind=["csv", "md", "tex"]),
    log:
        f"{RESULTS}/logs/report.log",
    benchmark:
        f"{RESULTS}/benchmarks/report/all.tsv"
    conda:
        "../environment.yml"
    params:
        config=CONFIG_FILE,
        code=code_hash("reports.__main__", *DESCRIBED),
        changes=[str(declared) for declared in known_declarations().values()],
    shell:
        "python -m reports --config {params.config:q} > {log:q} 2>&1"


rule notebook:
    input:
        notebook=f"{FILES}/{{notebook}}.ipynb",
        scores=rules.report.output.scores,
        claims=rules.report.output.claims,
    output:
        f"{REPORT}/{{notebook}}.ipynb",
    log:
        f"{RESULTS}/logs/notebook/{{notebook}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/notebook/{{notebook}}.tsv"
    wildcard_constraints:
        notebook="results|budget",
    conda:
        "../environment.yml"
    params:
        config=CONFIG_FILE,
        code=code_hash("reports.figures", "reports.tables", *DESCRIBED),
    shell:
        "python -m papermill --no-progress-bar --kernel python3 --cwd ."
        " {input.notebook:q} {output:q} -p config {params.config:q} > {log:q} 2>&1"


rule check_health:
    """The last step, so that an experiment that fails its health checks still has a report that shows them."""
    input:
        page=rules.report.output.page,
        health=rules.report.output.health,
        notebooks=[f"{REPORT}/results.ipynb", f"{REPORT}/budget.ipynb"],
    output:
        f"{RESULTS}/health.ok",
    log:
        f"{RESULTS}/logs/check_health.log",
    benchmark:
        f"{RESULTS}/benchmarks/check_health/all.tsv"
    conda:
        "../environment.yml"
    params:
        config=CONFIG_FILE,
        code=code_hash("reports.health_gate"),
    shell:
        "python -m reports.health_gate --config {params.config:q} > {log:q} 2>&1"


rule decide:
    """Go from look to look until every claim is decided or futile: `snakemake decide --cores all`."""
    log:
        f"{RESULTS}/logs/decide.log",
    localrule: True
    conda:
        "../environment.yml"
    threads: workflow.cores or 1
    params:
        config=CONFIG_FILE,
    shell:
        "python -m reports.decide --config {params.config:q} --cores {threads} 2>&1 | tee {log:q}"


rule pack:
    """The experiment in the compact form that `replay` reads: `snakemake --cores all pack`."""
    input:
        page=rules.report.output.page,
    output:
        f"{RESULTS}/stored/stored.json",
    log:
        f"{RESULTS}/logs/pack.log",
    conda:
        "../environment.yml"
    params:
        config=CONFIG_FILE,
    shell:
        'python -m reports.replay pack --config {params.config:q} --out "$(dirname {output:q})" > {log:q} 2>&1'


rule replay:  # rebuild a stored experiment below results/replay/: `snakemake --cores all replay --config from=<folder>`
    log:
        "results/replay/replay.log",
    conda:
        "../environment.yml"
    params:
        source=REPLAY_FROM,
    shell:
        "python -m reports.replay run --from {params.source:q} 2>&1 | tee {log:q}"
