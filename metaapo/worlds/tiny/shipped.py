"""The trained models of the tiny worlds that ship with the project, so that an experiment need not train them again.

A world's SFT policy and reward model take minutes to train and a second to read. `shipped/world{w}.safetensors` holds
both in half precision; training rounds its results to half precision too (`sft.save`), so reading them back loses
nothing. `shipped/recipe.json` records the configuration that they were trained with, each file's hash, each world's
health and the machine. An experiment with `world.shipped: true` uses them if its configuration is the recipe's.

    python -m metaapo.worlds.tiny.shipped unpack --config config/default.yaml --world 0
    python -m metaapo.worlds.tiny.shipped pack --config config/worlds.yaml       keep newly trained worlds
    python -m metaapo.worlds.tiny.shipped compare --config config/worlds.yaml    compare them with those that are kept

`make worlds` trains all of them from their recipe and compares.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save

from metaapo.command import errors_in_one_sentence, seed_argument
from metaapo.config import ConfigError
from metaapo.data import DataError, read_json, sha256_file, write_bytes, write_json
from metaapo.experiment import Experiment, load
from metaapo.provenance import machine

FOLDER = Path(__file__).parent / "shipped"
RECIPE = FOLDER / "recipe.json"
MODELS = ("sft", "reward_model")
# Where another processor rounds differently, a rebuilt world agrees in what it can do, not in its bytes.
TOLERANCES = {
    "SFT policy: gold reward": 0.15,
    "reward model agrees with gold, on-policy": 0.04,
    "SFT policy: response length": 1.0,
}


def recipe_of(experiment: Experiment) -> dict[str, Any]:
    """Everything in the configuration that the models of a world depend on; where checkpoints and their data come from
    is no part of it, since here they are trained."""
    parts = experiment.world_config()
    world = {"label_tau": parts["world"]["label_tau"]}
    sampling = {key: getattr(experiment.sampling, key) for key in ("temperature", "top_p", "max_new_tokens")}
    models = {
        section: {key: value for key, value in parts[section].items() if key not in ("checkpoint", "dataset")}
        for section in ("model", "sft", "reward_model")
    }
    return json.loads(json.dumps({"world": world, "sampling": sampling} | models))


def shipped_file(world: int) -> Path:
    """The file with a world's models."""
    return FOLDER / f"world{world}.safetensors"


def shipped_worlds(experiment: Experiment) -> list[int]:
    """The worlds whose shipped models an experiment uses; the others are trained.

    Raises:
        ConfigError: `world.shipped` is set, but the experiment's configuration is not the recipe's.
    """
    if not experiment.world.shipped:
        return []
    wanted, found = recipe_of(experiment), read_json(RECIPE)["recipe"]
    for section, settings in wanted.items():
        if settings != found[section]:
            raise ConfigError(
                f"world.shipped: the shipped worlds were made with other settings in `{section}` ({found[section]}); "
                "use these, or set world.shipped to false to train worlds of your own"
            )
    return [world for world in experiment.world.seeds if shipped_file(world).exists()]


def unpack(experiment: Experiment, world: int) -> None:
    """Write the checkpoints of a shipped world, in float32, and its health, as training and the check would.

    Raises:
        DataError: the file is not the one in the recipe.
    """
    folder, recipe, file = experiment.world_path(world), read_json(RECIPE), shipped_file(world)
    entry = recipe["worlds"][str(world)]
    if sha256_file(file) != entry["sha256"]:
        raise DataError(f"{file}: not the file in {RECIPE.name} (another SHA-256); restore it from the repository")
    tensors = load_file(file)
    for model in MODELS:
        own = {name: value for name, value in tensors.items() if name.startswith(f"{model}.")}
        weights = {name.removeprefix(f"{model}."): value.astype(np.float32) for name, value in own.items()}
        for path in sorted((folder / "data" / "tokenizer").iterdir()):
            write_bytes(folder / model / path.name, path.read_bytes())
        write_json(folder / model / "config.json", recipe["configs"][model])
        write_bytes(folder / model / "model.safetensors", save(weights, metadata={"format": "pt"}))
    write_json(folder / "health.json", entry["health"])
    made = f"trained on {entry['made']}, {entry['machine']['processor']}"
    print(f"world {world}: shipped SFT policy and reward model, {made}", file=sys.stderr)


def pack(experiment: Experiment) -> None:
    """Keep the models of a finished experiment's worlds as the shipped ones.

    Raises:
        DataError: a weight is not a half-precision number, so it would change.
    """
    worlds, configs = {}, {}
    for world in experiment.world.seeds:
        folder, tensors = experiment.world_path(world), {}
        for model in MODELS:
            for name, value in load_file(folder / model / "model.safetensors").items():
                half = value.astype(np.float16)
                if not np.array_equal(half.astype(np.float32), value):
                    raise DataError(f"{folder / model}: {name} is not in half precision; train the world again")
                tensors[f"{model}.{name}"] = half
            configs[model] = read_json(folder / model / "config.json")
        write_bytes(shipped_file(world), save(tensors))
        worlds[str(world)] = {
            "sha256": sha256_file(shipped_file(world)),
            "made": time.strftime("%Y-%m-%d", time.gmtime()),
            "machine": machine(),
            "health": read_json(folder / "health.json"),
        }
    write_json(RECIPE, {"recipe": recipe_of(experiment), "configs": configs, "worlds": worlds})


def compare(experiment: Experiment) -> dict[str, Any]:
    """Compare an experiment's newly trained worlds with the shipped ones.

    Returns:
        {agrees, worlds: [{world, identical, largest_difference, health: [{name, shipped, rebuilt, tolerance, ok}]}]}.
        A world agrees if its bytes are identical or all its health values lie within `TOLERANCES`.
    """
    recipe = read_json(RECIPE)
    rows = [_compare(experiment, world, recipe["worlds"][str(world)]["health"]) for world in experiment.world.seeds]
    return {"agrees": all(row["identical"] or all(h["ok"] for h in row["health"]) for row in rows), "worlds": rows}


def _compare(experiment: Experiment, world: int, health: list[dict[str, Any]]) -> dict[str, Any]:
    folder, shipped = experiment.world_path(world), load_file(shipped_file(world))
    rebuilt = {
        f"{model}.{name}": value
        for model in MODELS
        for name, value in load_file(folder / model / "model.safetensors").items()
    }
    difference = max(float(np.abs(shipped[name].astype(np.float32) - rebuilt[name]).max()) for name in shipped)
    before, after = (
        {row["name"]: row["value"] for row in table} for table in (health, read_json(folder / "health.json"))
    )
    rows = [
        {
            "name": name,
            "shipped": before[name],
            "rebuilt": after[name],
            "tolerance": tolerance,
            "ok": abs(before[name] - after[name]) <= tolerance,
        }
        for name, tolerance in TOLERANCES.items()
    ]
    return {"world": world, "identical": difference == 0.0, "largest_difference": difference, "health": rows}


def main() -> None:
    """Command line: unpack, pack or compare shipped worlds."""
    parser = argparse.ArgumentParser(prog="python -m metaapo.worlds.tiny.shipped", description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=("unpack", "pack", "compare"))
    parser.add_argument("--config", required=True, help="the experiment's configuration file")
    parser.add_argument("--world", type=seed_argument, default=0, help="unpack: the world's seed")
    parser.add_argument("--out", help="compare: also write the comparison here")
    arguments = parser.parse_args()
    with errors_in_one_sentence():
        experiment = load(arguments.config)
        if arguments.action == "unpack":
            unpack(experiment, arguments.world)
        elif arguments.action == "pack":
            pack(experiment)
        else:
            found = compare(experiment)
            print(json.dumps(found, indent=1))
            if arguments.out:
                write_json(arguments.out, found)
            sys.exit(0 if found["agrees"] else 1)


if __name__ == "__main__":
    main()
