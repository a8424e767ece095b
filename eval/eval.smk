"""Answer, judge, score: three rules, so that a new judge reuses all answers and a new statistic reuses all judgments.

Answers and judgments are kept between reruns and only regenerated when out of date. So the rules' outputs are the
manifests, which are written once all files of a run exist.
"""

from dataclasses import asdict

from eval.benchmark import benchmarks, people_modules, scoring_code
from eval.checkpoints import (
    answer_code,
    answer_settings,
    answers_ready,
    checkpoints_ready,
    evaluated_runs,
    judge_settings_of,
    judged_runs,
    score_settings_of,
)
from eval.grade import gold_files, grading_code
from eval.judges.catalogue import judge_settings, judging_code, kinds_of

ANSWERS = f"{RESULTS}/answers/{{method}}/budget{{budget}}/seed{{seed}}.json"
JUDGMENTS = f"{RESULTS}/judgments/{{benchmark}}/{{judge}}/{{method}}/budget{{budget}}/seed{{seed}}.json"
SCORES = f"{RESULTS}/scores/{{benchmark}}/{{judge}}"


wildcard_constraints:
    judge=r"[A-Za-z0-9._-]+",


rule answer:
    """All benchmarks and iterations of a run in one process, since imports take seconds."""
    input:
        checkpoints=lambda w: checkpoints_ready(EXPERIMENT, w.method, w.budget, w.seed),
    output:
        ANSWERS,
    log:
        f"{RESULTS}/logs/answer/{{method}}/budget{{budget}}-seed{{seed}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/answer/{{method}}-budget{{budget}}-seed{{seed}}.tsv"
    conda:
        "../environment.yml"
    threads: EXPERIMENT.hardware.answer.cpus
    resources:
        gpu=EXPERIMENT.hardware.answer.gpus,
        mem_mb=EXPERIMENT.hardware.answer.memory_mb,
        runtime=EXPERIMENT.hardware.answer.minutes,
    params:
        config=CONFIG_FILE,
        code=answer_code(EXPERIMENT),
        changes=answer_settings(EXPERIMENT),
        run="{method}/budget{budget}/seed{seed}",
    shell:
        "python -m eval.answer --config {params.config:q} --run {params.run:q} > {log:q} 2>&1"


rule judge:
    input:
        answers=lambda w: answers_ready(EXPERIMENT, w.benchmark, w.method, w.budget, w.seed),
    output:
        JUDGMENTS,
    log:
        f"{RESULTS}/logs/judge/{{benchmark}}/{{judge}}/{{method}}/budget{{budget}}-seed{{seed}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/judge/{{benchmark}}-{{judge}}-{{method}}-budget{{budget}}-seed{{seed}}.tsv"
    conda:
        "../environment.yml"
    resources:
        # One process at a time queries an endpoint, with as many concurrent requests as the judge's entry allows.
        asking=lambda w: int("openai" in kinds_of(EXPERIMENT, w.judge)),
        gpu=lambda w: EXPERIMENT.hardware.answer.gpus * ("reward-model" in kinds_of(EXPERIMENT, w.judge)),
        mem_mb=EXPERIMENT.hardware.answer.memory_mb,
        runtime=EXPERIMENT.hardware.answer.minutes,
    params:
        config=CONFIG_FILE,
        code=lambda w: judging_code(EXPERIMENT, w.benchmark, w.judge),
        changes=lambda w: [judge_settings(EXPERIMENT, w.judge), judge_settings_of(EXPERIMENT, w.benchmark)],
        run="{method}/budget{budget}/seed{seed}",
    shell:
        "python -m eval.judge --config {params.config:q} --benchmark {wildcards.benchmark:q} --judge {wildcards.judge:q}"
        " --run {params.run:q} > {log:q} 2>&1"


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


rule judge_checks:
    """Check a judge with questions that a trustworthy one gets right; for all judges if evaluation.trust.checks is
    set."""
    input:
        answers=f"{RESULTS}/answers/{evaluated_runs(EXPERIMENT)[-1]}.json",
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
