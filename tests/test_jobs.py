"""Runs that share a job: seeds of one method at one budget, in order, each in exactly one job."""

import pytest
from conftest import experiment_document

from metaapo.experiment import Run, resolve
from metaapo.jobs import jobs_of

METHODS = {"dpo": {}, "online_dpo": {"budget": [0.5, 1.0]}, "selm": {"seeds": [4]}}


EXPERIMENT = resolve(experiment_document("results", seeds=[0, 1, 2, 3, 4], methods=METHODS))


def test_one_run_per_job_is_one_rule_for_all_runs():
    (job,) = jobs_of(EXPERIMENT, EXPERIMENT.run_ids(), 1)
    assert job.ids == ["{method}/budget{budget}/seed{seed}"]
    wildcards = {"method": "dpo", "budget": "1.0", "seed": "3", "judge": "gold"}
    assert job.runs(wildcards) == [Run(method="dpo", budget=1.0, seed=3)]
    (job,) = jobs_of(EXPERIMENT, EXPERIMENT.run_ids("selm"), 1, "selm")
    assert job.ids == ["selm/budget{budget}/seed{seed}"]


@pytest.mark.parametrize("size", [2, 3, 5, 9])
def test_every_run_is_in_one_job_with_seeds_of_its_method_and_budget(size):
    jobs = jobs_of(EXPERIMENT, ["sft/budget0.0/seed0", *EXPERIMENT.run_ids()], size)
    assert [run for job in jobs for run in job.ids] == ["sft/budget0.0/seed0", *EXPERIMENT.run_ids()]
    for job in jobs:
        assert 1 <= len(job.ids) <= size
        assert {(run.method, str(run.budget)) for run in job.runs({})} == {(job.method, job.budget)}
    assert len({(job.method, job.label) for job in jobs}) == len(jobs)  # no two jobs write the same log


def test_a_job_s_log_is_named_by_its_runs():
    jobs = jobs_of(EXPERIMENT, EXPERIMENT.run_ids("dpo"), 2, "dpo")
    assert [job.label for job in jobs] == ["budget1.0-seed0-1", "budget1.0-seed2-3", "budget1.0-seed4"]


def test_seeds_that_are_added_at_the_end_leave_full_jobs_as_they_are():
    before = jobs_of(EXPERIMENT, EXPERIMENT.run_ids("dpo")[:2], 2)
    assert jobs_of(EXPERIMENT, EXPERIMENT.run_ids("dpo"), 2)[0] == before[0]
