"""A series of experiments and its phase diagram: the file, the order of the cells, the fit, the page."""

import shutil
import subprocess

import numpy as np
import pandas as pd
import pytest
import yaml

from metaapo import PROJECT
from metaapo.config import ConfigError
from metaapo.data import DataError, read_json, write_json
from reports import phase, series

FOUND = series.read(PROJECT / "config" / "phase.yaml")
WORDS = {name: contrast.words for name, contrast in FOUND.contrasts.items()}
MADE = {"command": "x", "commit": "0" * 40, "minutes": 1.0, "machine": {}, "margin": 1.0, "words": WORDS}


def synthetic(mean=0.33, shown=-1.0, locality=0.8, noise=-0.4, error=0.0, seed=0):
    """Tables of all cells in which the adaptive gain is linear in the factors, and the oracle's twice as large."""
    rng, by_world, by_cell = np.random.default_rng(seed), [], []
    for name, cell in FOUND.cells.items():
        levels = phase.factors_of(cell)
        where = {"cell": name, "held_out": name in FOUND.held_out} | levels
        gain = mean + shown * (2 * levels["shown"] - 1) + locality * (levels["locality"] - 0.5)
        gain += noise * (levels["noise"] / 3 - 0.5)
        for contrast, factor in (("adaptive", 1.0), ("room", 2.0), ("full_budget", -1.0)):
            values = factor * gain + error * rng.normal(size=3)
            by_world += [
                where | {"world": world, "contrast": contrast, "value": value}
                for world, value in zip(cell.world.seeds, values)
            ]
            value = values.mean()
            by_cell.append(
                where | {"quantity": contrast, "value": value, "ci_low": value - 0.1, "ci_high": value + 0.1}
            )
        by_cell.append(where | {"quantity": "aim", "value": 0.5, "ci_low": 0.4, "ci_high": 0.6})
    return pd.DataFrame(by_world), pd.DataFrame(by_cell)


def predicted(worlds):
    fitted = worlds[~worlds["held_out"]]
    others = worlds[worlds["held_out"]].drop_duplicates("cell")
    return {"predictions": phase.predict(fitted, others, ["adaptive", "room"])}


def test_the_fit_recovers_linear_effects():
    worlds, _ = synthetic()
    assert phase.fit(worlds[~worlds["held_out"]], "adaptive") == pytest.approx([0.33, -1.0, 0.8, -0.4])


def test_without_error_every_sign_is_predicted_and_the_effects_are_exact():
    worlds, cells = synthetic()
    found = phase.analyse(worlds, cells, predicted(worlds))
    outcome = found["prediction"]["adaptive"]
    assert (outcome["n"], outcome["right"], outcome["rms_error"]) == (9, 9, pytest.approx(0, abs=1e-5))
    effects = {(row["contrast"], row["factor"]): row for row in found["effects"]}
    assert effects["room", "shown"]["value"] == pytest.approx(-2.0)
    assert found["contrasts"]["adaptive"]["above_0"] == sum(cells[cells["quantity"] == "adaptive"]["ci_low"] > 0)


def test_noise_alone_is_predicted_about_as_often_as_by_a_coin():
    shares = []
    for seed in range(40):
        worlds, cells = synthetic(mean=0, shown=0, locality=0, noise=0, error=1.0, seed=seed)
        shares.append(phase.analyse(worlds, cells, predicted(worlds))["prediction"]["adaptive"]["share"])
    assert 0.35 < np.mean(shares) < 0.65


def test_the_halves_are_balanced_and_in_different_worlds():
    fitted, held_out = ([FOUND.cells[name] for name in names] for names in (FOUND.fitted, FOUND.held_out))
    assert len(fitted) == len(held_out) == 9
    for cells in (fitted, held_out):
        for factor, (_, levels) in phase.FACTORS.items():
            counts = [sum(phase.factors_of(cell)[factor] == level for cell in cells) for level in levels]
            assert max(counts) - min(counts) <= 1, factor
    worlds = [{world for cell in half for world in cell.world.seeds} for half in (fitted, held_out)]
    assert not worlds[0] & worlds[1]
    assert len({tuple(phase.factors_of(cell).items()) for cell in FOUND.cells.values()}) == 18


def test_kept_tables_give_the_same_bytes_again(tmp_path):
    worlds, cells = synthetic(error=0.3)
    once, again = tmp_path / "once", tmp_path / "again"
    write_json(once / "prediction.json", predicted(worlds))
    write_json(once / "made.json", MADE)
    for name, frame in (("worlds", worlds), ("cells", cells)):
        frame.to_csv(once / f"{name}.csv", index=False)
    shutil.copytree(once, again)
    for folder in (once, again):
        phase.write(folder)
    for file in sorted(once.iterdir()):
        assert file.read_bytes() == (again / file.name).read_bytes(), file.name
    assert "adaptive less random" in (once / "README.md").read_text()


def test_a_folder_without_kept_tables_is_reported_in_a_sentence(tmp_path):
    with pytest.raises(DataError, match=r"worlds.csv: no such file; name a folder"):
        phase.write(tmp_path)


def test_a_prediction_is_made_once(tmp_path, monkeypatch):
    worlds, cells = synthetic()
    moved = {name: cell.model_copy(update={"results_dir": str(tmp_path)}) for name, cell in FOUND.cells.items()}
    found = series.Series("phase", moved, FOUND.contrasts, FOUND.held_out)
    monkeypatch.setattr(phase, "tables", lambda found, names: (worlds[worlds["cell"].isin(names)], cells))
    for name in found.fitted:
        write_json(moved[name].results / "scores.csv", {"of": name})
    phase._write_prediction(tmp_path, found)
    first = read_json(tmp_path / "prediction.json")
    assert {row["cell"] for row in first["predictions"]} == set(FOUND.held_out)
    phase._write_prediction(tmp_path, found)
    assert read_json(tmp_path / "prediction.json") == first
    write_json(moved[found.fitted[0]].results / "scores.csv", {"of": "another run"})
    with pytest.raises(DataError, match="not made twice"):
        phase._write_prediction(tmp_path, found)


def test_each_cell_is_run_on_its_own_configuration_and_a_failure_names_its_log(tmp_path, monkeypatch):
    moved = [cell.model_copy(update={"results_dir": str(tmp_path)}) for cell in list(FOUND.cells.values())[:3]]
    seen = []

    def snakemake(command, **_):
        seen.append((command[command.index("--configfile") + 1], command[-1]))
        return subprocess.CompletedProcess(command, 1 if "mixed" in command[-1] else 0)

    monkeypatch.setattr(series.subprocess, "run", snakemake)
    with pytest.raises(DataError, match="snakemake.log: the workflow failed"):
        series.run(moved, 2, ["--quiet"])
    assert sorted(seen) == sorted((str(c.results / "config.yaml"), str(c.results / "scores.csv")) for c in moved)


def document():
    return yaml.safe_load((PROJECT / "config" / "phase.yaml").read_text())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cells": {}}, "cells"),
        ({"held_out": ["nowhere"]}, "held_out: 'nowhere' is not among the cells"),
        ({"cells": {"a": {"world": {"show": 1}}}, "held_out": []}, "cells.a: world.show: unknown key"),
        ({"series": "../x"}, "series"),
        ({"contrasts": {"a": {"of": "x", "against": "dpo", "words": "w"}}}, "contrasts.a: 'x' is not a method"),
        ({"cell": {}}, "cell"),
    ],
)
def test_a_wrong_file_is_explained(tmp_path, change, message):
    path = tmp_path / "phase.yaml"
    path.write_text(yaml.safe_dump(document() | change))
    with pytest.raises(ConfigError, match=message):
        series.read(path)


def test_changes_are_merged_key_by_key():
    base = {"world": {"shown": 0.5, "seeds": [0]}, "seeds": [1]}
    assert series.merged(base, {"world": {"shown": 0.25}, "seeds": [2]}) == {
        "world": {"shown": 0.25, "seeds": [0]},
        "seeds": [2],
    }
    assert base["world"]["shown"] == 0.5
