"""The tiny world: data, SFT policy and reward model, all generated from scratch."""


include: "tune.smk"


rule world:
    output:
        manifest=f"{WORLD}/data/manifest.json",
        pairs=f"{WORLD}/data/pairs.jsonl",
        demonstrations=f"{WORLD}/data/sft.jsonl",
        tokenizer=f"{WORLD}/data/tokenizer/tokenizer.json",
    log:
        f"{RESULTS}/logs/world{{world}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/world/{{world}}.tsv"
    conda:
        "../../../environment.yml"
    params:
        config=CONFIG_FILE,
        code=code_hash("metaapo.worlds.tiny.data"),
        changes=WORLD_PARTS["world"],
    shell:
        "python -m metaapo.worlds.tiny.data --config {params.config:q} --world {wildcards.world:q} > {log:q} 2>&1"


rule sft:
    input:
        data=rules.world.output.demonstrations,
        tokenizer=rules.world.output.tokenizer,
    output:
        model=f"{WORLD}/sft/model.safetensors",
        config=f"{WORLD}/sft/config.json",
    log:
        f"{RESULTS}/logs/sft{{world}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/sft/{{world}}.tsv"
    conda:
        "../../../environment.yml"
    threads: EXPERIMENT.hardware.prepare.cpus
    params:
        config=CONFIG_FILE,
        code=code_hash("metaapo.worlds.tiny.sft"),
        changes=[WORLD_PARTS["model"], WORLD_PARTS["sft"]],
    shell:
        "python -m metaapo.worlds.tiny.sft --config {params.config:q} --world {wildcards.world:q} > {log:q} 2>&1"


rule reward_model:
    input:
        manifest=rules.world.output.manifest,
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
    threads: EXPERIMENT.hardware.prepare.cpus
    params:
        config=CONFIG_FILE,
        code=code_hash("metaapo.worlds.tiny.reward_model"),
        changes=WORLD_PARTS["reward_model"],
    shell:
        "python -m metaapo.worlds.tiny.reward_model --config {params.config:q} --world {wildcards.world:q} > {log:q} 2>&1"


rule check_world:
    """Stop before training if the world cannot show differences: no room to improve, or a misleading reward model."""
    input:
        sft=rules.sft.output.model,
        reward_model=rules.reward_model.output.model,
    output:
        f"{WORLD}/health.json",
    log:
        f"{RESULTS}/logs/check_world{{world}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/check_world/{{world}}.tsv"
    conda:
        "../../../environment.yml"
    params:
        config=CONFIG_FILE,
        code=code_hash("metaapo.worlds.tiny.health"),
        enforce=EXPERIMENT.health.enforce,
    shell:
        "python -m metaapo.worlds.tiny.health" " --config {params.config:q} --world {wildcards.world:q} > {log:q} 2>&1"
