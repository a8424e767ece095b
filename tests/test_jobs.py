"""Runs that share a job: seeds of one method at one budget, in order, each in exactly one job."""

import pytest
from conftest import experiment_document

from metaapo.experiment import Run, resolve
from metaapo.jobs import jobs_of

METHODS = {"dpo": {}, "online_dpo": {"budget": [0.5, 1.0]}, "selm": {"seeds": [4]}}


def experiment_with(runs_per_job):
    return resolve(
        experiment_document("results", seeds=[0, 1, 2, 3, 4], methods=METHODS, hardware={"runs_per_job": runs_per_job})
    )


def test_one_run_per_job_is_one_rule_for_all_runs():
    experiment = experiment_with(1)
    (job,) = jobs_of(experiment, experiment.run_ids())
    assert job.ids == ["{method}/budget{budget}/seed{seed}"]
    wildcards = {"method": "dpo", "budget": "1.0", "seed": "3", "judge": "gold"}
    assert job.runs(wildcards) == [Run(method="dpo", budget=1.0, seed=3)]
    (job,) = jobs_of(experiment, experiment.run_ids("selm"), "selm")
    assert job.ids == ["selm/budget{budget}/seed{seed}"]


@pytest.mark.parametrize("runs_per_job", [2, 3, 5, 9])
def test_every_run_is_in_one_job_with_seeds_of_its_method_and_budget(runs_per_job):
    experiment = experiment_with(runs_per_job)
    jobs = jobs_of(experiment, ["sft/budget0.0/seed0", *experiment.run_ids()])
    assert [run for job in jobs for run in job.ids] == ["sft/budget0.0/seed0", *experiment.run_ids()]
    for job in jobs:
        assert 1 <= len(job.ids) <= runs_per_job
        assert {(run.method, str(run.budget)) for run in job.runs({})} == {(job.method, job.budget)}
    assert len({(job.method, job.label) for job in jobs}) == len(jobs)  # no two jobs write the same log


def test_a_job_s_log_is_named_by_its_runs():
    experiment = experiment_with(2)
    jobs = jobs_of(experiment, experiment.run_ids("dpo"), "dpo")
    assert [job.label for job in jobs] == ["budget1.0-seed0-1", "budget1.0-seed2-3", "budget1.0-seed4"]


def test_seeds_that_are_added_at_the_end_leave_full_jobs_as_they_are():
    experiment = experiment_with(2)
    before = jobs_of(experiment, experiment.run_ids("dpo")[:2])
    assert jobs_of(experiment, experiment.run_ids("dpo"))[0] == before[0]
