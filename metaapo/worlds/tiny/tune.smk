"""The target `tune`: score the trials of a tuning experiment (config/tuning.yaml) on held-out training-pool prompts."""


rule tune:
    input:
        runs=expand(f"{RESULTS}/runs/{{run}}/run.json", run=EXPERIMENT.run_ids()),
    output:
        table=f"{RESULTS}/tuning.md",
        trials=f"{RESULTS}/tuning.json",
    log:
        f"{RESULTS}/logs/tune.log",
    benchmark:
        f"{RESULTS}/benchmarks/tune/all.tsv"
    conda:
        "../../../environment.yml"
    params:
        config=CONFIG_FILE,
        code=code_hash("metaapo.worlds.tiny.tune"),
    shell:
        "python -m metaapo.worlds.tiny.tune --config {params.config:q} --out {output.table:q} > {log:q} 2>&1"
