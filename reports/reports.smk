"""From scores to the page: scores.csv, verdicts on the claims, health, figures, tables and notebooks."""

REPORT = f"{RESULTS}/report"
REPORT_CODE = ["__main__", "claims", "collect", "figures", "health", "page", "runs", "samples", "tables"]


rule report:
    input:
        scores=expand(
            f"{RESULTS}/scores/{{benchmark}}/{{judge}}.{{kind}}",
            benchmark=EXPERIMENT.benchmarks,
            judge=EXPERIMENT.judges,
            kind=["json", "items.csv.gz"],
        ),
        runs=expand(f"{RESULTS}/runs/{{run}}/run.json", run=EXPERIMENT.run_ids()),
        worlds=expand(f"{RESULTS}/world{{world}}/health.json", world=EXPERIMENT.world.seeds),
        code=[f"reports/{name}.py" for name in REPORT_CODE] + ["eval/stats.py"],
        looks=[f"reports/{name}" for name in ("page.html.j2", "page.css", "page.js", "style.mplstyle")],
    output:
        scores=report(f"{RESULTS}/scores.csv", category="Scores"),
        claims=report(f"{RESULTS}/claims.json", category="Verdicts"),
        health=report(f"{RESULTS}/health.json", category="Health"),
        page=report(f"{REPORT}/index.html", category="Report"),
        figure=report(f"{REPORT}/budget.png", category="Figures"),
        vector=f"{REPORT}/budget.pdf",
        tables=expand(f"{REPORT}/main_{{judge}}.{{kind}}", judge=EXPERIMENT.judges, kind=["csv", "md", "tex"]),
    log:
        f"{RESULTS}/logs/report.log",
    benchmark:
        f"{RESULTS}/benchmarks/report/all.tsv"
    params:
        config=CONFIG_FILE,
    shell:
        "python -m reports --config {params.config} > {log} 2>&1"


rule check_health:
    """The last step, so that an unhealthy experiment has a report that says so before it fails."""
    input:
        page=rules.report.output.page,
        health=rules.report.output.health,
        code="reports/gate.py",
    output:
        f"{RESULTS}/health.ok",
    log:
        f"{RESULTS}/logs/check_health.log",
    benchmark:
        f"{RESULTS}/benchmarks/check_health/all.tsv"
    params:
        config=CONFIG_FILE,
    shell:
        "python -m reports.gate --config {params.config} > {log} 2>&1"
