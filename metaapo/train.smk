"""The experiment's world, and one named rule for every method in the configuration: train_<method>."""

from metaapo.assets.hub import of_experiment
from metaapo.loop.run import modules_of

WORLD = f"{RESULTS}/world{{world}}"
WORLD_PARTS = EXPERIMENT.world_config()


include: f"worlds/{EXPERIMENT.world.name}/world.smk"
include: "worlds/tiny/tune.smk"


for method in EXPERIMENT.methods:

    rule:
        name:
            f"train_{method}"
        input:
            world=lambda wildcards: EXPERIMENT.world_files(int(wildcards.seed)),
            needs=lambda wildcards, method=method: EXPERIMENT.needed_files(method, **wildcards),
        output:
            f"{RESULTS}/runs/{method}/budget{{budget}}/seed{{seed}}/run.json",
        log:
            f"{RESULTS}/logs/train/{method}/budget{{budget}}-seed{{seed}}.log",
        benchmark:
            f"{RESULTS}/benchmarks/train_{method}/budget{{budget}}-seed{{seed}}.tsv"
        # Methods that others wait for go first.
        priority: 1 if method in EXPERIMENT.needed_methods() else 0
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
            "{params.launch} metaapo.train --config {params.config} --run {params.run} > {log} 2>&1"


rule prefetch:
    """Fetch everything that the experiment names; afterwards it runs with the network off."""
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
        "python -m metaapo.assets.prefetch --config {params.config} --out {output} > {log} 2>&1"


rule estimate:
    """Print GPU-hours, disk and dollars before anything is spent."""
    log:
        f"{RESULTS}/logs/estimate.log",
    localrule: True
    conda:
        "../environment.yml"
    params:
        config=CONFIG_FILE,
    shell:
        "python -m metaapo.estimate --config {params.config} | tee {log}"
