"""The verdicts: right when the truth is known, rarely wrong under the null, silent about what was not tested."""

import math

import numpy as np
import pytest

from reports import claims, roles
from reports.claims import CLAIMS, decide, rule
from reports.evidence import FULL_BUDGET, MATCHED_RANDOM

SEEDS, PROMPTS = 5, 150
VARIANTS = (*claims.ADAPTIVE_SAMPLING, *claims.META_WEIGHTING, *claims.META_LEARNER, claims.UNTRAINED)
REQUIRED = roles.modules_that(roles.required)
PARTS = {FULL_BUDGET: "online_dpo", MATCHED_RANDOM: "random"}
EVERYTHING = ("metaapo", "random", *REQUIRED, *VARIANTS)


class Constructed:
    """Evidence whose truth is known: every contrast has the given gain, every measure the given value."""

    def __init__(
        self, gain=0.0, measures=None, seeds=SEEDS, gains=None, methods=None, chance=0, seed_sd=1.0, budgets=None
    ):
        self.rng = np.random.default_rng(chance)
        self.gain, self.gains = gain, gains or {}
        self.measures = {"annotation_ratio": 0.5, "sampling_decline": 0.15, "map_change": 0.3} | (measures or {})
        self.seeds, self.seed_sd = seeds, seed_sd
        present = EVERYTHING if methods is None else methods
        self.baselines = [name for name in present if name in REQUIRED]
        self.methods = {name: name for name in present} | {p: name for p, name in PARTS.items() if name in present}
        self.budgets = budgets or {}
        self.drawn = {}

    def contrast(self, better, worse, benchmark, metric):
        key = (better, worse, benchmark, metric)
        if key not in self.drawn:
            scale = 0.1 if benchmark == "mtbench" else 1.0
            gain = self.gains.get(worse, self.gain)
            self.drawn[key] = scale * crossed(self.rng, gain, self.seeds, self.seed_sd, prompt_sd=10, noise=15)
        return self.drawn[key]

    def measure(self, method, name):
        if name not in self.drawn:
            noise = 0.5 if name != "map_change" else 0.1
            self.drawn[name] = crossed(self.rng, self.measures[name], self.seeds, 0.01, prompt_sd=noise, noise=noise)
        return self.drawn[name]

    def budget(self, method):
        return self.budgets.get(method, 0.5)


def crossed(rng, mean, seeds, seed_sd, prompt_sd, noise):
    return (
        mean
        + rng.normal(0, seed_sd, (seeds, 1))
        + rng.normal(0, prompt_sd, (1, PROMPTS))
        + rng.normal(0, noise, (seeds, PROMPTS))
    )


def ruling_of(id, evidence):
    return {ruling.claim.id: ruling.verdict for ruling in rule(CLAIMS, evidence)}[id]


def verdict_of(id, evidence):
    return {record["id"]: record for record in decide(CLAIMS, evidence, "gold")}[id]


TRUE = {"gain": 12.0, "measures": {"annotation_ratio": 0.35, "sampling_decline": 0.3}}


@pytest.mark.parametrize("id", [claim.id for claim in CLAIMS])
def test_a_claim_that_is_plainly_true_is_supported(id):
    assert ruling_of(id, Constructed(**TRUE)) == "supported"


FALSE = {
    "C1": {"gain": 12.0, "gains": {"ppo": -12.0}},  # one baseline that wins is enough
    "C2": {"gain": 12.0, "measures": {"annotation_ratio": 0.9}},
    "C3": {"gain": 12.0, "gains": {"weights: uniform": -12.0}},
    "C4": {"gain": 12.0, "measures": {"sampling_decline": -0.3}},
    "C5": {"gain": 12.0, "gains": {claims.UNTRAINED: -12.0}},
    "C6": {"gain": 12.0, "gains": {"random": -12.0}},
}


@pytest.mark.parametrize("id", [claim.id for claim in CLAIMS])
def test_a_claim_that_is_plainly_false_is_contradicted(id):
    assert ruling_of(id, Constructed(**FALSE[id])) == "contradicted"


UNDECIDABLE = {
    "gain": 1.5,
    "seed_sd": 8.0,
    "measures": {"annotation_ratio": 0.57, "sampling_decline": 0.02, "map_change": 0.06},
}


@pytest.mark.parametrize("id", [claim.id for claim in CLAIMS])
def test_a_small_effect_between_few_noisy_seeds_stays_undecided(id):
    verdicts = [ruling_of(id, Constructed(**UNDECIDABLE, seeds=3, chance=c)) for c in range(5)]
    assert verdicts.count("undecided") >= 4


def test_true_claims_are_found_most_of_the_time_and_false_ones_refuted():
    right = {"supported": 0, "contradicted": 0}
    for chance in range(40):
        right["supported"] += ruling_of("C6", Constructed(**TRUE, chance=chance)) == "supported"
        right["contradicted"] += ruling_of("C6", Constructed(gain=-6.0, chance=chance)) == "contradicted"
    assert right["supported"] >= 38
    assert right["contradicted"] >= 34


def test_no_effect_at_all_can_be_shown_given_enough_seeds():
    """With a gain of exactly 0 and enough data, a gain of one point is ruled out."""
    table = np.random.default_rng(0).normal(0, 1, (30, 400))
    evidence = Constructed(gain=0)
    evidence.drawn["metaapo", "random", "overall", "score"] = table
    assert ruling_of("C6", evidence) == "contradicted"


ON_THE_BOUND = {"annotation_ratio": claims.PAPER_BUDGET, "sampling_decline": 0.0, "map_change": claims.MAP_CHANGE}
# the hardest null for conjunctions: all parts of each claim hold but one, which is exactly at its bound
ONE_PART_FALSE = {
    "gain": 40.0,
    "gains": {"ppo": 0.0, "weights: uniform": 0.0, claims.UNTRAINED: 0.0, "random": 0.0},
    "measures": {"annotation_ratio": claims.PAPER_BUDGET, "sampling_decline": 0.0, "map_change": 0.9},
}


@pytest.mark.parametrize("truth", [{"measures": ON_THE_BOUND}, ONE_PART_FALSE], ids=["all null", "one part null"])
@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize("seed_sd", [0.0, 2.0, 8.0])
def test_under_the_null_at_most_five_percent_of_experiments_report_any_false_support(truth, seeds, seed_sd):
    """At least one part of every claim is false, so each "supported" is an error."""
    simulated = 300
    false = sum(
        any(
            r.verdict == "supported" for r in rule(CLAIMS, Constructed(**truth, seeds=seeds, seed_sd=seed_sd, chance=c))
        )
        for c in range(simulated)
    )
    # 5 % plus two standard errors of the simulation
    assert false / simulated <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / simulated)


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_a_single_claim_under_the_null_is_seldom_supported(seeds):
    simulated = 400
    one = [claim for claim in CLAIMS if claim.id == "C6"]
    false = sum(
        rule(one, Constructed(0.0, seeds=seeds, chance=c, seed_sd=2.0))[0].verdict == "supported"
        for c in range(simulated)
    )
    assert false / simulated <= 0.05


def test_claims_whose_methods_are_absent_are_not_tested():
    records = {r["id"]: r for r in decide(CLAIMS, Constructed(12.0, methods=["metaapo", "dpo", "online_dpo"]), "gold")}
    for id, needed in {"C3": "metaapo with weights: uniform", "C6": "random"}.items():
        assert records[id]["verdict"] == "undecided"
        assert records[id]["reason"].startswith("not tested in this experiment: needs")
        assert needed in records[id]["reason"]
        assert records[id]["effect"] is None
    assert records["C1"]["verdict"] == "undecided"
    assert records["C1"]["missing"] == ["ppo", "selm"]


def test_without_metaapo_nothing_is_tested():
    for record in decide(CLAIMS, Constructed(12.0, methods=["dpo", "online_dpo", "selm", "ppo", "random"]), "gold"):
        assert record["verdict"] == "undecided"
        assert record["reason"].startswith("not tested in this experiment: needs metaapo")


def test_a_missing_baseline_rules_out_support_but_not_contradiction():
    methods = ["metaapo", "dpo", "online_dpo"]
    assert ruling_of("C1", Constructed(12.0, methods=methods)) == "undecided"
    assert ruling_of("C1", Constructed(12.0, gains={"dpo": -12.0}, methods=methods)) == "contradicted"


def test_random_selection_at_another_budget_is_no_test_of_c6():
    record = verdict_of("C6", Constructed(12.0, budgets={"metaapo": 0.5, "random": 0.7}))
    assert record["verdict"] == "undecided"
    assert "random at the budget of metaapo" in record["reason"]
    assert "20.0 points" in record["reason"]


def test_one_seed_decides_nothing():
    for record in decide(CLAIMS, Constructed(30.0, seeds=1), "gold"):
        assert record["verdict"] == "undecided"
        assert record["ci_low"] is None
    assert "one seed" in record["reason"]


def test_an_undecided_claim_says_how_many_seeds_would_decide_it():
    record = verdict_of("C6", Constructed(gain=4.0, seeds=3, seed_sd=3.0, chance=3))
    assert record["verdict"] == "undecided"
    assert record["seeds_to_decide"] > 3
    assert f"{record['seeds_to_decide']} seeds would decide it" in record["reason"]


def test_the_requested_number_of_seeds_decides_it():
    """The planned number of seeds finds the planned effect about four times in five."""
    one = [claim for claim in CLAIMS if claim.id == "C6"]
    truth = {"gain": 4.0, "seed_sd": 3.0}
    part = rule(one, Constructed(**truth, seeds=40))[0].parts[0]  # a pilot large enough to estimate the variances
    seeds, _ = claims._plan(part, 4.0, 0.0, alpha=2 * claims.ALPHA)
    found = [rule(one, Constructed(**truth, seeds=seeds, chance=100 + c))[0].verdict for c in range(60)]
    assert 0.65 <= found.count("supported") / 60 <= 0.95


def test_the_weakest_part_is_the_headline_and_every_part_is_on_record():
    record = verdict_of("C1", Constructed(12.0, gains={"selm": 3.0}))
    assert record["effect_of"].startswith("metaapo - selm")
    assert len(record["parts"]) == 4 * 5
    weakest = max(record["parts"], key=lambda part: part["p_for"])
    assert (record["effect"], record["ci_low"]) == (weakest["effect"], weakest["ci_low"])


def test_the_annotation_ratio_is_reported_as_such_and_compared_with_58_percent():
    evidence = Constructed(30.0)
    evidence.drawn["annotation_ratio"] = crossed(evidence.rng, 0.5, SEEDS, 0.01, 0.1, 0.1)
    record = verdict_of("C2", evidence)
    ratio = record["parts"][0]
    assert (ratio["bound"], ratio["relation"]) == (58, "at most")
    assert ratio["effect"] == pytest.approx(50, abs=5)
    assert ratio["ci_low"] < ratio["effect"] < ratio["ci_high"] < 58
    assert record["verdict"] == "supported"


def test_more_claims_make_each_verdict_harder():
    alone = decide([c for c in CLAIMS if c.id == "C6"], Constructed(12.0), "gold")[0]
    among = verdict_of("C6", Constructed(12.0))
    assert among["p_supported"] >= alone["p_supported"]


def test_swapping_the_sign_of_the_evidence_turns_support_into_contradiction():
    """The verdicts have no favourite: evidence that supports MetaAPO at +12 contradicts it at -12."""
    assert ruling_of("C6", Constructed(gain=12.0, chance=9)) == "supported"
    assert ruling_of("C6", Constructed(gain=-12.0, chance=9)) == "contradicted"
