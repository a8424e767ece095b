"""Rules for the experiment's world, and one rule train_<method> for every method in the configuration."""

from metaapo.assets.hub import of_experiment
from metaapo.experiment import Run
from metaapo.loop.run import modules_of

WORLD = f"{RESULTS}/world{{world}}"
WORLD_PARTS = EXPERIMENT.world_config()
NEEDED_METHODS = {needed.method for run in EXPERIMENT.runs() for needed in EXPERIMENT.needs(run)}


def world_files(wildcards):
    """Files of its world that a run reads; health.json shows that the world was checked."""
    world = EXPERIMENT.world_path(EXPERIMENT.world_of(int(wildcards.seed)))
    parts = ("data/pairs.jsonl", "sft/model.safetensors", "reward_model/model.safetensors", "health.json")
    return [f"{world}/{part}" for part in parts]


def needed_runs(method, wildcards):
    """The run.json of every run that this run depends on."""
    run = Run(method=method, budget=float(wildcards.budget), seed=int(wildcards.seed))
    return [f"{EXPERIMENT.run_path(needed)}/run.json" for needed in EXPERIMENT.needs(run)]


include: f"worlds/{EXPERIMENT.world.name}/world.smk"


for method in EXPERIMENT.methods:

    rule:
        name:
            f"train_{method}"
        input:
            world=world_files,
            needs=lambda wildcards, method=method: needed_runs(method, wildcards),
        output:
            f"{RESULTS}/runs/{method}/budget{{budget}}/seed{{seed}}/run.json",
        log:
            f"{RESULTS}/logs/train/{method}/budget{{budget}}-seed{{seed}}.log",
        benchmark:
            f"{RESULTS}/benchmarks/train_{method}/budget{{budget}}-seed{{seed}}.tsv"
        # Run methods that others depend on first.
        priority: 1 if method in NEEDED_METHODS else 0
        conda:
            "../environment.yml"
        threads: EXPERIMENT.hardware.train.cpus
        resources:
            gpu=EXPERIMENT.hardware.train.gpus,
            mem_mb=EXPERIMENT.hardware.train.memory_mb,
            runtime=EXPERIMENT.hardware.train.minutes,
        params:
            config=CONFIG_FILE,
            code=code_hash(*modules_of(method, EXPERIMENT)),
            changes=EXPERIMENT.method_config(method),
            run=f"{method}/budget{{budget}}/seed{{seed}}",
            launch=EXPERIMENT.hardware.launch,
        shell:
            "{params.launch} metaapo.train --config {params.config:q} --run {params.run:q} > {log:q} 2>&1"


rule prefetch:
    """Fetch everything the experiment needs; afterwards it runs offline."""
    output:
        f"{RESULTS}/prefetch.json",
    log:
        f"{RESULTS}/logs/prefetch.log",
    localrule: True
    conda:
        "../environment.yml"
    params:
        config=CONFIG_FILE,
        changes=[str(asset) for asset in of_experiment(EXPERIMENT)],
    shell:
        "python -m metaapo.assets.prefetch --config {params.config:q} --out {output:q} > {log:q} 2>&1"


rule estimate:
    """Print the estimated GPU-hours, disk and dollars."""
    log:
        f"{RESULTS}/logs/estimate.log",
    localrule: True
    conda:
        "../environment.yml"
    params:
        config=CONFIG_FILE,
    shell:
        "python -m metaapo.estimate --config {params.config:q} | tee {log:q}"
