"""`snakemake decide`: look after look until nothing is left to decide; resumable, and never further than it must go."""

import os
import signal
import subprocess

import pytest
import yaml
from test_workflow import ENVIRONMENT, SNAKEMAKE, project_copy, wait_for_jobs

from metaapo import PROJECT
from metaapo.config import ConfigError
from metaapo.data import write_json
from metaapo.experiment import Run, load, resolve, write_resolved
from metaapo.jobs import jobs_of
from reports.decide import decide, standing

DEFAULT = yaml.safe_load((PROJECT / "config" / "default.yaml").read_text())
WORLDS = [0, 1, 2, 4, 5, 7, 8, 9, 10, 11, 12, 13]


def document(folder, **design):
    world = DEFAULT["world"] | {"seeds": WORLDS}
    looks = {"looks": [6, 9, 12]} | design
    return DEFAULT | {"results_dir": str(folder), "seeds": list(range(12)), "world": world, "design": looks}


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(document(tmp_path / "results")))
    return path


class Workflow:
    """Stands for Snakemake: notes what would be trained, and writes the verdicts of each look."""

    def __init__(self, config, open_until, fails_at=None):
        self.config, self.open_until, self.fails_at, self.trained = config, open_until, fails_at, []

    def __call__(self):
        experiment = load(self.config)
        self.trained.append(len(experiment.runs()))
        if self.fails_at == len(self.trained):
            return 1
        looks, number = experiment.design.looks, experiment.design.look
        following = looks[number] if number < self.open_until else None
        state = {"next": following, "decided": None if following else looks[number - 1], "futile": False}
        verdict = "inconclusive" if following else "supported"
        records = [{"id": "C1", "verdict": verdict, "replicates": "worlds", "deviations": ["a"], "looks": state}]
        write_json(experiment.results / "claims.json", records)
        return 0


def test_it_adds_worlds_until_every_claim_is_decided(config, capsys):
    workflow = Workflow(config, open_until=2)
    assert decide(str(config), workflow) == 0
    assert workflow.trained == [6 * 6, 6 * 9]
    said = capsys.readouterr().out
    assert "look 1 of 3, 6 worlds\n  C1 inconclusive, open until 9 worlds\n    deviation: a" in said
    assert "C1 supported, decided after 9 worlds" in said


def test_it_stops_at_the_last_look(config):
    workflow = Workflow(config, open_until=3)
    assert decide(str(config), workflow) == 0
    assert workflow.trained == [36, 54, 72]


def test_after_a_failure_it_resumes_at_the_look_it_had_reached(config):
    assert decide(str(config), Workflow(config, open_until=3, fails_at=2)) == 1
    workflow = Workflow(config, open_until=3)
    assert decide(str(config), workflow) == 0
    assert workflow.trained == [54, 72]
    assert load(config).design.look == 3  # where plain snakemake stays


def test_without_looks_it_says_what_to_add(config):
    config.write_text(yaml.safe_dump(document(config.parent / "results", looks=[])))
    with pytest.raises(ConfigError, match="registers no looks; add `design"):
        decide(str(config), lambda: 0)


# --- the experiment at a look --------------------------------------------------------------------------------------


def test_a_look_is_the_first_so_many_worlds_of_the_list_and_their_seeds(tmp_path):
    experiment = resolve(document(tmp_path))
    assert experiment.seeds == [0, 1, 2, 3, 4, 5]
    assert experiment.world.seeds == WORLDS[:6]
    later = experiment.at_look(2)
    assert later.world.seeds == WORLDS[:9]
    assert [later.world_of(seed) for seed in later.seeds] == WORLDS[:9]
    assert later.at_look(1).seeds == experiment.seeds


def test_a_seed_keeps_its_world_at_every_look(tmp_path):
    experiment = resolve(document(tmp_path))
    assert all(experiment.world_of(seed) == experiment.at_look(3).world_of(seed) for seed in experiment.seeds)


def test_the_resolved_configuration_keeps_all_worlds_and_the_look(tmp_path):
    experiment = resolve(document(tmp_path, look=2))
    again = load(write_resolved(experiment))
    assert again.dump() == experiment.dump()
    assert (len(again.seeds), again.dump()["seeds"]) == (9, list(range(12)))


def test_a_later_look_changes_no_job_of_an_earlier_one(tmp_path):
    plan = document(tmp_path, looks=[4, 5, 12])  # not multiples of the three runs per job
    early, late = resolve(plan), resolve(plan).at_look(3)
    jobs = [[job.ids for job in jobs_of(e, e.run_ids("dpo"), 3, "dpo")] for e in (early, late)]
    assert (
        jobs[1][: len(jobs[0])] == jobs[0] == [[f"dpo/budget1.0/seed{s}" for s in (0, 1, 2)], ["dpo/budget1.0/seed3"]]
    )
    assert late.look_of(Run.parse("sft/budget0.0/seed5")) == 1  # world 5 is the fifth of the list


def test_in_one_world_looks_count_seeds(tmp_path):
    plan = document(tmp_path, looks=[2, 5])
    plan["world"] = plan["world"] | {"seeds": [0]}
    experiment = resolve(plan)
    assert (experiment.seeds, experiment.world.seeds) == ([0, 1], [0])
    assert experiment.at_look(2).seeds == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("design", "message"),
    [
        ({"looks": [6, 18]}, "the last look needs 18 entries of `world.seeds`.*found 12"),
        ({"looks": [9, 6]}, "looks must be ascending"),
        ({"looks": [6, 6]}, "looks must be ascending"),
        ({"looks": [1, 6]}, "greater than or equal to 2"),
        ({"looks": [6, 9], "look": 3}, "look 3 does not exist, since there are 2 looks"),
    ],
)
def test_a_design_that_does_not_fit_is_reported_in_a_sentence(tmp_path, design, message):
    with pytest.raises(ConfigError, match=message):
        resolve(document(tmp_path, **design))


def test_a_method_without_a_seed_at_the_first_look_is_reported(tmp_path):
    plan = document(tmp_path)
    plan["methods"] = plan["methods"] | {"kto": {"seeds": [11]}}
    with pytest.raises(ConfigError, match="methods.kto.seeds: none belongs to the first look"):
        resolve(plan)


def test_a_futile_claim_is_called_so():
    record = {"replicates": "worlds", "looks": {"decided": None, "futile": True, "chance_by_last": 0.04, "next": None}}
    assert standing(record) == ", futile (4 % chance of a decision by the last look)"


# --- the whole workflow, in miniature ------------------------------------------------------------------------------


@pytest.mark.slow
def test_killed_while_it_decides_the_same_command_goes_on_to_the_same_verdicts(tmp_path):
    """`snakemake decide` with two looks of one world at smoke scale, undisturbed and with two SIGKILLs of the group."""
    document = yaml.safe_load((PROJECT / "config" / "smoke.yaml").read_text())
    methods = {"dpo": {}, "online_dpo": {}, "metaapo": {"t_meta": 2}, "random": {}}
    document |= {"experiment": "decided", "seeds": [0, 1, 2, 3], "methods": methods, "design": {"looks": [2, 4]}}
    ended = {}
    for name, kills in (("undisturbed", 0), ("killed", 2)):
        folder = project_copy(tmp_path / name)
        (folder / "config" / "decided.yaml").write_text(yaml.safe_dump(document))
        results = folder / "results" / "decided"
        for number in range(kills + 1):
            log = tmp_path / f"{name}{number}.log"
            with log.open("w") as file:
                command = [*SNAKEMAKE, "decide", "--configfile", "config/decided.yaml"]
                process = subprocess.Popen(
                    command, cwd=folder, stdout=file, stderr=subprocess.STDOUT, env=ENVIRONMENT, start_new_session=True
                )
            if number < kills:
                wait_for_jobs(process, log, 12 if number == 0 else 6)
                os.killpg(process.pid, signal.SIGKILL)
            code = process.wait()
            assert code == (-signal.SIGKILL if number < kills else 0), log.read_text()[-4000:]
        assert "look 1 of 2, 2 seeds" in "".join(path.read_text() for path in tmp_path.glob(f"{name}*.log"))
        ended[name] = {file: (results / file).read_bytes() for file in ("scores.csv", "claims.json")}
        look = results / "look.json"  # absent if nothing was open after the first
        ended[name]["look"] = look.read_bytes() if look.exists() else b""
    assert ended["undisturbed"] == ended["killed"]
