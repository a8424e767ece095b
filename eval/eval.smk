"""Answer, judge, score: three rules, so that a new judge regenerates no answer and a new statistic judges nothing again.

Answers and judgments themselves are kept over reruns (only what is out of date is made again), so what the rules declare
are the manifests that are written when all of a run's files are there.
"""

from eval.benchmark import scoring_code
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
from eval.judges.catalogue import judge_settings, judging_code

ANSWERS = f"{RESULTS}/answers/{{method}}/budget{{budget}}/seed{{seed}}.json"
JUDGMENTS = f"{RESULTS}/judgments/{{benchmark}}/{{judge}}/{{method}}/budget{{budget}}/seed{{seed}}.json"
SCORES = f"{RESULTS}/scores/{{benchmark}}/{{judge}}"


wildcard_constraints:
    judge=r"[A-Za-z0-9._-]+",


rule answer:
    """All benchmarks and iterations of a run in one process: imports cost seconds."""
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
        # One process asks an endpoint, as many questions side by side as the judge's entry says.
        asking=lambda w: int(judge_settings(EXPERIMENT, w.judge)["kind"] == "openai"),
        gpu=lambda w: EXPERIMENT.hardware.answer.gpus * (judge_settings(EXPERIMENT, w.judge)["kind"] == "reward-model"),
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
        """The gold reward of what policies sampled and answered, for figures and samples: one process, no model."""
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


rule canaries:
    """On demand: is the judge's judgment free of the order of answers, and does a constant answer lose?"""
    input:
        answers=f"{RESULTS}/answers/{evaluated_runs(EXPERIMENT)[-1]}.json",
        baselines=[f"{RESULTS}/answers/{run}.json" for run in evaluated_runs(EXPERIMENT) if run.startswith("sft/")],
    output:
        f"{RESULTS}/canaries/{{benchmark}}/{{judge}}.json",
    log:
        f"{RESULTS}/logs/canaries/{{benchmark}}/{{judge}}.log",
    conda:
        "../environment.yml"
    resources:
        asking=lambda w: int(judge_settings(EXPERIMENT, w.judge)["kind"] == "openai"),
    params:
        config=CONFIG_FILE,
        code=lambda w: code_hash("eval.judge_checks", f"eval.{w.benchmark}.judging"),
    shell:
        "python -m eval.judge_checks --config {params.config:q} --benchmark {wildcards.benchmark:q} --judge {wildcards.judge:q}"
        " > {log:q} 2>&1"


rule succession:
    """On demand: do the models keep their ranks under the experiment's other judges?"""
    input:
        expand(f"{SCORES}.items.csv.gz", benchmark=EXPERIMENT.benchmarks, judge=EXPERIMENT.judges),
    output:
        f"{RESULTS}/succession.json",
    log:
        f"{RESULTS}/logs/succession.log",
    conda:
        "../environment.yml"
    params:
        config=CONFIG_FILE,
        code=code_hash("eval.rank_agreement"),
    shell:
        "python -m eval.rank_agreement --config {params.config:q} > {log:q} 2>&1"
