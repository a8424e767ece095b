"""The tiny world: its data, and its SFT policy and reward model, shipped or trained from scratch."""

from metaapo.config import ConfigError
from metaapo.worlds.tiny.shipped import RECIPE, shipped_file, shipped_worlds

try:
    SHIPPED = shipped_worlds(EXPERIMENT)
except ConfigError as error:
    raise WorkflowError(f"configuration: {error}")

SHIPPED_WORLD = "|".join(map(str, SHIPPED)) or "none"
TRAINED_WORLD = "|".join(str(world) for world in EXPERIMENT.world.seeds if world not in SHIPPED) or "none"


include: "tune.smk"


rule world:
    output:
        manifest=f"{WORLD}/data/manifest.json",
        pairs=f"{WORLD}/data/pairs.jsonl",
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


rule shipped_world:
    input:
        tokenizer=rules.world.output.tokenizer,
        models=lambda w: shipped_file(int(w.world)),
        recipe=RECIPE,
    output:
        f"{WORLD}/sft/model.safetensors",
        f"{WORLD}/sft/config.json",
        f"{WORLD}/reward_model/model.safetensors",
        f"{WORLD}/reward_model/config.json",
        f"{WORLD}/health.json",
    log:
        f"{RESULTS}/logs/shipped_world{{world}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/shipped_world/{{world}}.tsv"
    wildcard_constraints:
        world=SHIPPED_WORLD,
    conda:
        "../../../environment.yml"
    params:
        config=CONFIG_FILE,
        code=code_hash("metaapo.worlds.tiny.shipped"),
    shell:
        "python -m metaapo.worlds.tiny.shipped unpack --config {params.config:q} --world {wildcards.world:q} > {log:q} 2>&1"


rule sft:
    input:
        tokenizer=rules.world.output.tokenizer,
    output:
        model=f"{WORLD}/sft/model.safetensors",
        config=f"{WORLD}/sft/config.json",
    log:
        f"{RESULTS}/logs/sft{{world}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/sft/{{world}}.tsv"
    wildcard_constraints:
        world=TRAINED_WORLD,
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
    wildcard_constraints:
        world=TRAINED_WORLD,
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
    wildcard_constraints:
        world=TRAINED_WORLD,
    conda:
        "../../../environment.yml"
    params:
        config=CONFIG_FILE,
        code=code_hash("metaapo.worlds.tiny.health"),
        enforce=EXPERIMENT.health.enforce,
    shell:
        "python -m metaapo.worlds.tiny.health" " --config {params.config:q} --world {wildcards.world:q} > {log:q} 2>&1"


rule compare_worlds:
    """Train the shipped worlds again and compare: `make worlds`."""
    input:
        health=expand(f"{WORLD}/health.json", world=EXPERIMENT.world.seeds),
        recipe=RECIPE,
    output:
        f"{RESULTS}/worlds.json",
    log:
        f"{RESULTS}/logs/compare_worlds.log",
    conda:
        "../../../environment.yml"
    params:
        config=CONFIG_FILE,
        code=code_hash("metaapo.worlds.tiny.shipped"),
    shell:
        "python -m metaapo.worlds.tiny.shipped compare --config {params.config:q} --out {output:q} 2>&1 | tee {log:q}"
