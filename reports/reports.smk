"""Scores with their budgets, verdicts on the claims, health, figures, tables, notebooks and the page."""

SCORED = expand(
    f"{RESULTS}/scores/{{benchmark}}/{{judge}}.{{kind}}",
    benchmark=EXPERIMENT.benchmarks,
    judge=EXPERIMENT.judges,
    kind=["json", "items.csv.gz"],
)
RUN_RECORDS = expand(f"{RESULTS}/runs/{{run}}/run.json", run=EXPERIMENT.run_ids())


rule collect:
    """One table of all scores with what they cost, and the verdicts and health checks that rest on it."""
    input:
        scores=SCORED,
        runs=RUN_RECORDS,
        code=["reports/collect.py", "reports/claims.py", "reports/health.py", "reports/runs.py", "eval/stats.py"],
    output:
        scores=report(f"{RESULTS}/scores.csv", category="Scores"),
        claims=report(f"{RESULTS}/claims.json", category="Verdicts"),
        health=report(f"{RESULTS}/health.json", category="Health"),
    log:
        f"{RESULTS}/logs/collect.log",
    benchmark:
        f"{RESULTS}/benchmarks/collect/all.tsv"
    params:
        config=CONFIG_FILE,
    shell:
        "(python -m reports.collect --config {params.config} &&"
        " python -m reports.claims --config {params.config} &&"
        " python -m reports.health --config {params.config}) > {log} 2>&1"


rule report:
    input:
        rules.collect.output,
        code=[f"reports/{name}.py" for name in ("figures", "tables", "samples", "page")],
        looks=[f"reports/{name}" for name in ("page.html.j2", "page.css", "page.js", "style.mplstyle")],
    output:
        page=report(f"{RESULTS}/report/index.html", category="Report"),
        figure=report(f"{RESULTS}/report/budget.png", category="Report"),
        vector=f"{RESULTS}/report/budget.pdf",
        tables=expand(f"{RESULTS}/report/main_{{judge}}.{{kind}}", judge=EXPERIMENT.judges, kind=["csv", "md", "tex"]),
    log:
        f"{RESULTS}/logs/report.log",
    benchmark:
        f"{RESULTS}/benchmarks/report/all.tsv"
    params:
        config=CONFIG_FILE,
    shell:
        "python -m reports.page --config {params.config} > {log} 2>&1"


rule check_health:
    """The last step, so that an unhealthy experiment has a report that says so before it fails."""
    input:
        rules.report.output.page,
        rules.collect.output.health,
    output:
        f"{RESULTS}/health.ok",
    log:
        f"{RESULTS}/logs/check_health.log",
    benchmark:
        f"{RESULTS}/benchmarks/check_health/all.tsv"
    params:
        config=CONFIG_FILE,
    shell:
        "python -m reports.health --config {params.config} --enforce > {log} 2>&1"
