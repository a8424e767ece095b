"""Rules for the experiment's world, and one rule train_<method> for every method in the configuration."""

from metaapo.assets.hub import of_experiment
from metaapo.jobs import jobs_of
from metaapo.loop.run import modules_of

WORLD = f"{RESULTS}/world{{world}}"
WORLD_PARTS = EXPERIMENT.world_config()
NEEDED_METHODS = {needed.method for run in EXPERIMENT.runs() for needed in EXPERIMENT.needs(run)}


# What a run reads of its world; health.json: the world was checked.
WORLD_FILES = ("data/pairs.jsonl", "sft/model.safetensors", "reward_model/model.safetensors", "health.json")


include: f"worlds/{EXPERIMENT.world.name}/world.smk"


for method in EXPERIMENT.methods:
    for number, job in enumerate(
        jobs_of(EXPERIMENT, EXPERIMENT.run_ids(method), EXPERIMENT.hardware.train.runs, method), start=1
    ):

        rule:
            name:
                f"train_{method}" if number == 1 else f"train_{method}.{number}"
            input:
                plan=ancient(f"{RESULTS}/plan.lock"),  # comes first, but is no reason to train again
                world=lambda w, job=job: [
                    f"{EXPERIMENT.world_path(EXPERIMENT.world_of(run.seed))}/{file}"
                    for run in job.runs(w)
                    for file in WORLD_FILES
                ],
                needs=lambda w, job=job: [
                    f"{EXPERIMENT.run_path(needed)}/run.json"
                    for run in job.runs(w)
                    for needed in EXPERIMENT.needs(run)
                ],
            output:
                [f"{RESULTS}/runs/{run}/run.json" for run in job.ids],
            log:
                f"{RESULTS}/logs/train/{method}/{job.label}.log",
            benchmark:
                f"{RESULTS}/benchmarks/train_{method}/{job.label}.tsv"
            # Methods that others depend on first, and short jobs last, which fill the processors to the end.
            priority: 2 if method in NEEDED_METHODS else 1
            conda:
                "../environment.yml"
            threads: EXPERIMENT.hardware.train.cpus
            resources:
                **EXPERIMENT.hardware.node_tasks,
                gpu=EXPERIMENT.hardware.train.gpus * EXPERIMENT.hardware.nodes,
                nodes=EXPERIMENT.hardware.nodes,
                mem_mb=EXPERIMENT.hardware.train.memory_mb,
                runtime=EXPERIMENT.hardware.train.minutes * len(job.seeds),
            params:
                config=CONFIG_FILE,
                code=code_hash(*modules_of(method, EXPERIMENT)),
                changes=EXPERIMENT.method_config(method),
                runs=job.ids,
                launch=EXPERIMENT.hardware.launch,
            shell:
                "{params.launch} metaapo.train --config {params.config:q} --run {params.runs:q} > {log:q} 2>&1"


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
