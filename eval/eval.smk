"""Answer, judge, score: three rules, so that a new judge reuses all answers and a new statistic reuses all judgments.

Answers and judgments are kept between reruns and only regenerated when out of date. So the rules' outputs are the
manifests, which are written once all files of a run exist.
"""

from dataclasses import asdict

from eval.agreement_on_policy import agreement_files, runs_of
from eval.aim import aimed_runs
from eval.benchmark import benchmarks, people_modules, scoring_code
from eval.checkpoints import (
    answer_code,
    answer_settings,
    answers_ready,
    checkpoints_ready,
    evaluated_runs,
    judge_settings_of,
    judged_runs,
    planted_runs,
    score_settings_of,
)
from eval.grade import gold_files, gold_module, grading_code
from eval.judges.catalogue import judge_settings, judging_code, kinds_of
from metaapo.jobs import jobs_of

ON_GPUS = EXPERIMENT.hardware.answer.on_gpus
SCORES = f"{RESULTS}/scores/{{benchmark}}/{{judge}}"


wildcard_constraints:
    judge=r"[A-Za-z0-9._-]+",


for number, job in enumerate(jobs_of(EXPERIMENT, evaluated_runs(EXPERIMENT), EXPERIMENT.hardware.answer.runs), start=1):

    rule:
        name:
            "answer" if number == 1 else f"answer.{number}"
        # All benchmarks and iterations of a job's runs in one process, since imports take seconds.
        input:
            checkpoints=lambda w, job=job: checkpoints_ready(EXPERIMENT, job.runs(w)),
        output:
            [f"{RESULTS}/answers/{run}.json" for run in job.ids],
        log:
            f"{RESULTS}/logs/answer/{job.method}/{job.label}.log",
        benchmark:
            f"{RESULTS}/benchmarks/answer/{job.method}-{job.label}.tsv"
        conda:
            "../environment.yml"
        threads: EXPERIMENT.hardware.answer.cpus
        resources:
            gpu=EXPERIMENT.hardware.answer.gpus,
            nodes=1,
            mem_mb=EXPERIMENT.hardware.answer.memory_mb,
            runtime=EXPERIMENT.hardware.answer.minutes * len(job.seeds),
        params:
            on_gpus=ON_GPUS,
            config=CONFIG_FILE,
            code=answer_code(EXPERIMENT),
            changes=answer_settings(EXPERIMENT),
            runs=job.ids,
        shell:
            "{params.on_gpus}python -m eval.answer --config {params.config:q} --run {params.runs:q} > {log:q} 2>&1"


PLANTED = planted_runs(EXPERIMENT)
JUDGED = evaluated_runs(EXPERIMENT) + [run.id for run in PLANTED]
for number, job in enumerate(jobs_of(EXPERIMENT, JUDGED, EXPERIMENT.hardware.answer.runs), start=1):

    rule:
        name:
            "judge" if number == 1 else f"judge.{number}"
        input:
            answers=lambda w, job=job: answers_ready(EXPERIMENT, w.benchmark, job.runs(w)),
        output:
            [f"{RESULTS}/judgments/{{benchmark}}/{{judge}}/{run}.json" for run in job.ids],
        log:
            f"{RESULTS}/logs/judge/{{benchmark}}/{{judge}}/{job.method}/{job.label}.log",
        benchmark:
            f"{RESULTS}/benchmarks/judge/{{benchmark}}-{{judge}}-{job.method}-{job.label}.tsv"
        conda:
            "../environment.yml"
        resources:
            # One process at a time queries an endpoint, with as many concurrent requests as the judge's entry allows.
            asking=lambda w: int("openai" in kinds_of(EXPERIMENT, w.judge)),
            nodes=1,
            gpu=lambda w: EXPERIMENT.hardware.answer.gpus * ("reward-model" in kinds_of(EXPERIMENT, w.judge)),
            mem_mb=EXPERIMENT.hardware.answer.memory_mb,
            runtime=EXPERIMENT.hardware.answer.minutes * len(job.seeds),
        params:
            config=CONFIG_FILE,
            code=lambda w: judging_code(EXPERIMENT, w.benchmark, w.judge),
            changes=lambda w: [judge_settings(EXPERIMENT, w.judge), judge_settings_of(EXPERIMENT, w.benchmark)],
            runs=job.ids,
            on_gpus=lambda w: ON_GPUS if "reward-model" in kinds_of(EXPERIMENT, w.judge) else "",
        shell:
            "{params.on_gpus}python -m eval.judge --config {params.config:q} --benchmark {wildcards.benchmark:q}"
            " --judge {wildcards.judge:q} --run {params.runs:q} > {log:q} 2>&1"


rule score:
    input:
        judgments=lambda w: [
            f"{RESULTS}/judgments/{w.benchmark}/{w.judge}/{run}.json" for run in judged_runs(EXPERIMENT, w.benchmark)
        ],
    output:
        scores=f"{SCORES}.json",
        per_question=f"{SCORES}.items.csv.gz",
    log:
        f"{RESULTS}/logs/score/{{benchmark}}/{{judge}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/score/{{benchmark}}-{{judge}}.tsv"
    conda:
        "../environment.yml"
    params:
        config=CONFIG_FILE,
        code=lambda w: scoring_code(w.benchmark),
        changes=lambda w: score_settings_of(EXPERIMENT, w.benchmark),
    shell:
        "python -m eval.score --config {params.config:q} --benchmark {wildcards.benchmark:q} --judge {wildcards.judge:q}"
        " > {log:q} 2>&1"


if gold_files(EXPERIMENT):

    rule grade:
        """Gold rewards of sampled responses and answers, for figures and samples, in one process without a model."""
        input:
            runs=expand(f"{RESULTS}/runs/{{run}}/run.json", run=EXPERIMENT.run_ids()),
            answers=expand(f"{RESULTS}/answers/{{run}}.json", run=evaluated_runs(EXPERIMENT)),
        output:
            gold_files(EXPERIMENT),
        log:
            f"{RESULTS}/logs/grade.log",
        benchmark:
            f"{RESULTS}/benchmarks/grade/all.tsv"
        conda:
            "../environment.yml"
        params:
            config=CONFIG_FILE,
            code=grading_code(EXPERIMENT),
        shell:
            "python -m eval.grade --config {params.config:q} > {log:q} 2>&1"

    rule agreement_on_policy:
        """Whether the reward model is still right at the end of a plain method, all its runs in one process."""
        input:
            runs=lambda w: [f"{RESULTS}/runs/{run.id}/run.json" for run in runs_of(EXPERIMENT, w.method)],
        output:
            f"{RESULTS}/agreement/{{method}}.json",
        log:
            f"{RESULTS}/logs/agreement/{{method}}.log",
        benchmark:
            f"{RESULTS}/benchmarks/agreement/{{method}}.tsv"
        conda:
            "../environment.yml"
        threads: EXPERIMENT.hardware.answer.cpus
        resources:
            gpu=EXPERIMENT.hardware.answer.gpus,
            nodes=1,
            mem_mb=EXPERIMENT.hardware.answer.memory_mb,
            runtime=EXPERIMENT.hardware.answer.minutes,
        params:
            on_gpus=ON_GPUS,
            config=CONFIG_FILE,
            code=code_hash("eval.agreement_on_policy", gold_module(EXPERIMENT.world.name)),
        shell:
            "{params.on_gpus}python -m eval.agreement_on_policy --config {params.config:q} --method {wildcards.method:q} > {log:q} 2>&1"


if PLANTED:

    ruleorder: plant > answer

    rule plant:
        """Answers with a known effect, made from samples of the final policies of one method."""
        input:
            runs=expand(f"{RESULTS}/runs/{{run}}/run.json", run=EXPERIMENT.run_ids(EXPERIMENT.assay.planted.of)),
            baselines=[f"{RESULTS}/answers/{run}.json" for run in evaluated_runs(EXPERIMENT) if run.startswith("sft/")],
        output:
            answers=[f"{RESULTS}/answers/{run.id}.json" for run in PLANTED],
            record=f"{RESULTS}/planted.json",
        log:
            f"{RESULTS}/logs/plant.log",
        benchmark:
            f"{RESULTS}/benchmarks/plant/all.tsv"
        conda:
            "../environment.yml"
        threads: EXPERIMENT.hardware.answer.cpus
        resources:
            gpu=EXPERIMENT.hardware.answer.gpus,
            nodes=1,
            mem_mb=EXPERIMENT.hardware.answer.memory_mb,
            runtime=EXPERIMENT.hardware.answer.minutes,
        params:
            on_gpus=ON_GPUS,
            config=CONFIG_FILE,
            code=[answer_code(EXPERIMENT), code_hash("eval.planted")],
            changes=[answer_settings(EXPERIMENT), EXPERIMENT.assay.planted.model_dump()],
        shell:
            "{params.on_gpus}python -m eval.planted --config {params.config:q} > {log:q} 2>&1"


if aimed_runs(EXPERIMENT):

    rule aim:
        """Whether the method under test samples the prompts that gain most by it, all runs in one process."""
        input:
            runs=[f"{RESULTS}/runs/{run.id}/run.json" for run in aimed_runs(EXPERIMENT)],
        output:
            f"{RESULTS}/aim.csv",
        log:
            f"{RESULTS}/logs/aim.log",
        benchmark:
            f"{RESULTS}/benchmarks/aim/all.tsv"
        conda:
            "../environment.yml"
        threads: EXPERIMENT.hardware.answer.cpus
        resources:
            gpu=EXPERIMENT.hardware.answer.gpus,
            nodes=1,
            mem_mb=EXPERIMENT.hardware.answer.memory_mb,
            runtime=EXPERIMENT.hardware.answer.minutes,
        params:
            on_gpus=ON_GPUS,
            config=CONFIG_FILE,
            code=code_hash("eval.aim"),
            changes=EXPERIMENT.assay.aim_prompts,
        shell:
            "{params.on_gpus}python -m eval.aim --config {params.config:q} > {log:q} 2>&1"


rule judge_checks:
    """Check a judge with questions that a trustworthy one gets right; for all judges if evaluation.trust.checks is
    set."""
    input:
        answers=lambda w: f"{RESULTS}/answers/{evaluated_runs(EXPERIMENT, w.benchmark)[-1]}.json",
        baselines=[f"{RESULTS}/answers/{run}.json" for run in evaluated_runs(EXPERIMENT) if run.startswith("sft/")],
    output:
        f"{RESULTS}/judge_checks/{{benchmark}}/{{judge}}.json",
    log:
        f"{RESULTS}/logs/judge_checks/{{benchmark}}/{{judge}}.log",
    conda:
        "../environment.yml"
    resources:
        asking=lambda w: int("openai" in kinds_of(EXPERIMENT, w.judge)),
    params:
        config=CONFIG_FILE,
        code=lambda w: [
            judging_code(EXPERIMENT, w.benchmark, w.judge),
            code_hash("eval.judge_checks", *people_modules(w.benchmark)),
        ],
        changes=lambda w: [
            judge_settings(EXPERIMENT, w.judge),
            judge_settings_of(EXPERIMENT, w.benchmark),
            EXPERIMENT.evaluation.trust.model_dump(mode="json"),
        ],
    shell:
        "python -m eval.judge_checks --config {params.config:q} --benchmark {wildcards.benchmark:q} --judge {wildcards.judge:q}"
        " > {log:q} 2>&1"


rule judge_card:
    """Collect the evidence on how far a judge can be trusted, for the report; does not query the judge."""
    input:
        scores=expand(
            f"{SCORES}.{{kind}}",
            benchmark=EXPERIMENT.benchmarks,
            judge=EXPERIMENT.judges,
            kind=["json", "items.csv.gz"],
        ),
        checks=lambda w: (
            expand(f"{RESULTS}/judge_checks/{{benchmark}}/{w.judge}.json", benchmark=EXPERIMENT.benchmarks)
            if EXPERIMENT.evaluation.trust.checks
            else []
        ),
    output:
        f"{RESULTS}/judges/{{judge}}/judge_card.json",
    log:
        f"{RESULTS}/logs/judge_card/{{judge}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/judge_card/{{judge}}.tsv"
    conda:
        "../environment.yml"
    params:
        config=CONFIG_FILE,
        code=code_hash("eval.judge_card", *[f"eval.{name}.judging" for name in EXPERIMENT.benchmarks]),
        changes=[asdict(benchmarks()[name]) for name in EXPERIMENT.benchmarks],  # titles and scales
    shell:
        "python -m eval.judge_card --config {params.config:q} --judge {wildcards.judge:q} > {log:q} 2>&1"


rule rank_agreement:
    """On demand: how well the experiment's judges agree on the ranks of the models."""
    input:
        expand(f"{SCORES}.items.csv.gz", benchmark=EXPERIMENT.benchmarks, judge=EXPERIMENT.judges),
    output:
        f"{RESULTS}/rank_agreement.json",
    log:
        f"{RESULTS}/logs/rank_agreement.log",
    conda:
        "../environment.yml"
    params:
        config=CONFIG_FILE,
        code=code_hash("eval.rank_agreement"),
    shell:
        "python -m eval.rank_agreement --config {params.config:q} > {log:q} 2>&1"
