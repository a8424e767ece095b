"""A world of real data: released checkpoints, pairs from a dataset, and a released or trained reward model."""

PREPARE = EXPERIMENT.hardware.prepare


rule sft:
    """Link or convert the released SFT policy; its tokenizer counts the data's tokens."""
    input:
        prefetched=[f"{RESULTS}/prefetch.json"] if EXPERIMENT.network else [],
    output:
        model=f"{WORLD}/sft/model.safetensors",
        config=f"{WORLD}/sft/config.json",
    log:
        f"{RESULTS}/logs/sft{{world}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/sft/{{world}}.tsv"
    conda:
        "../../../environment.yml"
    resources:
        mem_mb=PREPARE.memory_mb,
        runtime=PREPARE.minutes,
    params:
        config=CONFIG_FILE,
        code=code_hash("metaapo.assets.checkpoints"),
        changes=WORLD_PARTS["sft"]["checkpoint"],
    shell:
        "python -m metaapo.assets.checkpoints --config {params.config:q} --world {wildcards.world:q} --part sft > {log:q} 2>&1"


rule world:
    input:
        sft=rules.sft.output.config,
    output:
        manifest=f"{WORLD}/data/manifest.json",
        pairs=f"{WORLD}/data/pairs.jsonl",
    log:
        f"{RESULTS}/logs/world{{world}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/world/{{world}}.tsv"
    conda:
        "../../../environment.yml"
    resources:
        mem_mb=PREPARE.memory_mb,
        runtime=PREPARE.minutes,
    params:
        config=CONFIG_FILE,
        code=code_hash("metaapo.worlds.ultrafeedback.pairs"),
        changes=[WORLD_PARTS["world"], WORLD_PARTS["iterations"]],
    shell:
        "python -m metaapo.worlds.ultrafeedback.pairs"
        " --config {params.config:q} --world {wildcards.world:q} > {log:q} 2>&1"


rule reward_model:
    """Link or convert the released reward model, or train one from the SFT policy on a preference dataset."""
    input:
        sft=rules.sft.output.model,
    output:
        model=f"{WORLD}/reward_model/model.safetensors",
        config=f"{WORLD}/reward_model/config.json",
    log:
        f"{RESULTS}/logs/reward_model{{world}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/reward_model/{{world}}.tsv"
    conda:
        "../../../environment.yml"
    threads: PREPARE.cpus
    resources:
        gpu=PREPARE.gpus,
        nodes=1,
        mem_mb=PREPARE.memory_mb,
        runtime=PREPARE.minutes,
    params:
        on_gpus=PREPARE.on_gpus,
        config=CONFIG_FILE,
        code=code_hash("metaapo.assets.checkpoints", "metaapo.worlds.ultrafeedback.reward_model"),
        changes=WORLD_PARTS["reward_model"],
    shell:
        "OMP_NUM_THREADS={threads} {params.on_gpus}python -m metaapo.worlds.ultrafeedback.reward_model"
        " --config {params.config:q} --world {wildcards.world:q} > {log:q} 2>&1"


rule check_world:
    """Stop before training if the reward model does not agree with the dataset's preferences."""
    input:
        pairs=rules.world.output.pairs,
        reward_model=rules.reward_model.output.model,
    output:
        f"{WORLD}/health.json",
    log:
        f"{RESULTS}/logs/check_world{{world}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/check_world/{{world}}.tsv"
    conda:
        "../../../environment.yml"
    threads: PREPARE.cpus
    resources:
        gpu=PREPARE.gpus,
        nodes=1,
        mem_mb=PREPARE.memory_mb,
        runtime=PREPARE.minutes,
    params:
        on_gpus=PREPARE.on_gpus,
        config=CONFIG_FILE,
        code=code_hash("metaapo.worlds.ultrafeedback.reward_model"),
        enforce=EXPERIMENT.health.enforce,
    shell:
        "OMP_NUM_THREADS={threads} {params.on_gpus}python -m metaapo.worlds.ultrafeedback.reward_model"
        " --config {params.config:q} --world {wildcards.world:q} --check > {log:q} 2>&1"
