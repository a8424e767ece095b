"""The verdicts: right when the truth is known, rarely wrong under the null, silent about what was not tested."""

import math

import numpy as np
import pytest

from reports import claims, parts, roles
from reports.claims import CLAIMS, decide, rule
from reports.evidence import FULL_BUDGET, MATCHED_RANDOM, OVERALL, no_room

SEEDS, PROMPTS = 5, 150
VARIANTS = (*claims.ADAPTIVE_SAMPLING, *claims.META_WEIGHTING, *claims.META_LEARNER, claims.UNTRAINED)
REQUIRED = roles.modules_that(roles.required)
PARTS = {FULL_BUDGET: "online_dpo", MATCHED_RANDOM: "random"}
EVERYTHING = ("metaapo", "random", *REQUIRED, *VARIANTS)
POOLED = ("pooled", "win_rate")
REFUTED = {"worse", "equivalent", "no gain that matters"}


class Constructed:
    """Evidence whose truth is known: every contrast has the given gain, every measure the given value."""

    replicates = "worlds"

    def __init__(
        self,
        gain=0.0,
        measures=None,
        seeds=SEEDS,
        gains=None,
        methods=None,
        chance=0,
        seed_sd=1.0,
        budgets=None,
        endpoint=POOLED,
        capped="metaapo@0.58",
        unmet=None,
        no_room="",
        prompt_sd=10.0,
        noise=15.0,
    ):
        self.rng = np.random.default_rng(chance)
        self.gain, self.gains = gain, gains or {}
        self.measures = {"annotation_ratio": 0.5, "sampling_decline": 0.15, "map_change": 0.3} | (measures or {})
        self.seeds, self.seed_sd = seeds, seed_sd
        present = EVERYTHING if methods is None else methods
        self.baselines = [name for name in present if name in REQUIRED]
        self.methods = {name: name for name in present} | {p: name for p, name in PARTS.items() if name in present}
        self.budgets = budgets or {}
        self.endpoint, self.capped, self.unmet, self.no_room = endpoint, capped, unmet or {}, no_room
        self.prompt_sd, self.noise = prompt_sd, noise
        self.drawn = {}

    def contrast(self, better, worse, benchmark, metric):
        key = (better, worse, benchmark, metric)
        if key not in self.drawn:
            scale = 0.1 if benchmark == "mtbench" else 1.0
            gain = self.gains.get((better, worse), self.gains.get(worse, self.gain))
            spread = (self.prompt_sd, self.noise)
            self.drawn[key] = scale * crossed(self.rng, gain, self.seeds, self.seed_sd, *spread)
        return self.drawn[key]

    def measure(self, method, name):
        if name not in self.drawn:
            noise = 0.5 if name != "map_change" else 0.1
            self.drawn[name] = crossed(self.rng, self.measures[name], self.seeds, 0.01, prompt_sd=noise, noise=noise)
        return self.drawn[name]

    def budget(self, method):
        return self.budgets.get(method, 0.5)

    def within(self, method, ratio):
        return self.capped

    def loss_gaps(self, method):
        return {1: [0.10, 0.14, 0.12], 2: [-0.05, 0.05, 0.0]}


class Deciding(Constructed):
    """The same without secondary metrics, for simulations."""

    def contrast(self, better, worse, benchmark, metric):
        return super().contrast(better, worse, benchmark, metric) if (benchmark, metric) == self.endpoint else None


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
    "C2": {"gain": 12.0, "measures": {"annotation_ratio": 0.9}},  # the price is right, the natural rate is not
    "C3": {"gain": 12.0, "gains": {"weights: uniform": -12.0}},
    "C4": {"gain": 12.0, "measures": {"sampling_decline": -0.3}},
    "C5": {"gain": 12.0, "gains": {claims.UNTRAINED: -12.0}},
    "C6": {"gain": 12.0, "gains": {"random": -12.0}},
}


@pytest.mark.parametrize("id", [claim.id for claim in CLAIMS])
def test_a_claim_that_is_plainly_false_is_worse_than_claimed(id):
    assert ruling_of(id, Constructed(**FALSE[id])) == "worse"


UNDECIDABLE = {
    "gain": 1.5,
    "seed_sd": 8.0,
    "measures": {"annotation_ratio": 0.57, "sampling_decline": 0.02, "map_change": 0.06},
}


@pytest.mark.parametrize("id", [claim.id for claim in CLAIMS])
def test_a_small_effect_between_few_noisy_seeds_stays_inconclusive(id):
    verdicts = [ruling_of(id, Constructed(**UNDECIDABLE, seeds=3, chance=c)) for c in range(5)]
    assert verdicts.count("inconclusive") >= 4


def test_true_claims_are_found_most_of_the_time_and_false_ones_refuted():
    right = {"supported": 0, "worse": 0}
    for chance in range(40):
        right["supported"] += ruling_of("C6", Constructed(**TRUE, chance=chance)) == "supported"
        right["worse"] += ruling_of("C6", Constructed(gain=-6.0, chance=chance)) in REFUTED
    assert right["supported"] >= 38
    assert right["worse"] >= 34


# --- the states ----------------------------------------------------------------------------------------------------

PRECISE = {"seeds": 12, "seed_sd": 0.1, "prompt_sd": 0.5, "noise": 1.0}  # standard error of about 0.07 points


@pytest.mark.parametrize(
    ("gain", "verdict"),
    [
        (3.0, "supported"),
        (0.5, "equivalent"),  # certainly better, but by less than what matters
        (0.0, "equivalent"),
        (-0.5, "equivalent"),  # certainly worse, but by less than what matters
        (-3.0, "worse"),
    ],
)
def test_a_precise_comparison_has_the_state_of_its_true_effect_whichever_method_it_favours(gain, verdict):
    assert ruling_of("C6", Constructed(gain=gain, **PRECISE)) == verdict


def test_a_gain_can_be_ruled_out_where_better_worse_and_equal_are_open():
    """The interval reaches below -1 but not up to +1."""
    evidence = Constructed(gain=-1.0, seeds=12, seed_sd=1.5, prompt_sd=3.0, noise=5.0, chance=3)
    record = verdict_of("C6", evidence)
    assert record["verdict"] == "no gain that matters"
    assert record["ci_low"] < -1 < 0 < record["ci_high"] < 1


def test_one_part_that_is_equal_refutes_a_conjunction_and_one_that_is_worse_does_so_more_strongly():
    assert ruling_of("C1", Constructed(gain=9.0, gains={"selm": 0.0}, **PRECISE)) == "equivalent"
    assert ruling_of("C1", Constructed(gain=9.0, gains={"selm": 0.0, "ppo": -9.0}, **PRECISE)) == "worse"


def test_a_refuted_claim_is_contradicted_only_where_the_experiment_meets_its_conditions():
    met = verdict_of("C6", Constructed(gain=-12.0))
    assert met["reason"].startswith("contradicted: ")
    unmet = {"start": "training starts from elsewhere", "data and scale": "small"}
    record = verdict_of("C6", Constructed(gain=-12.0, unmet=unmet))
    assert record["verdict"] == met["verdict"] == "worse"
    assert record["reason"].startswith("not seen here: ")
    assert "the paper's start or data and scale" in record["reason"]
    assert record["conditions"] == unmet


def test_every_verdict_is_one_of_the_promised_states():
    truths = [TRUE, FALSE["C1"], UNDECIDABLE, {"methods": ["metaapo", "dpo"]}, {"no_room": "no room"}, {"seeds": 1}]
    found = {record["verdict"] for truth in truths for record in decide(CLAIMS, Constructed(**truth), "gold")}
    assert found <= set(parts.Verdict.__args__)
    assert {"supported", "worse", "inconclusive", "untestable here", "not tested"} <= found


def test_a_supported_claim_has_only_supported_parts():
    for chance in range(20):
        for record in decide(CLAIMS, Constructed(gain=3.0, seed_sd=0.5, seeds=6, noise=8.0, chance=chance), "gold"):
            if record["verdict"] == "supported":
                assert {part["verdict"] for part in record["parts"] if part["decides"]} == {"supported"}


# --- the primary endpoint ------------------------------------------------------------------------------------------


def test_with_a_primary_endpoint_each_baseline_is_one_test_and_other_metrics_decide_nothing():
    evidence = Constructed(gain=12.0)
    for name in REQUIRED:
        for benchmark, metric in claims.MAIN_METRICS:
            evidence.drawn["metaapo", name, benchmark, metric] = crossed(evidence.rng, -12.0, SEEDS, 1.0, 10, 15)
    record = verdict_of("C1", evidence)
    assert record["verdict"] == "supported"
    deciding = [part for part in record["parts"] if part["decides"]]
    assert [(part["benchmark"], part["metric"]) for part in deciding] == [POOLED] * 4
    secondary = [part for part in record["parts"] if not part["decides"]]
    assert {(part["benchmark"], part["metric"]) for part in secondary} == set(claims.MAIN_METRICS)
    assert {part["verdict"] for part in secondary} == {None}
    assert all(part["effect"] < 0 and part["ci_low"] < part["ci_high"] for part in secondary)
    assert record["endpoint"] == {"benchmark": "pooled", "metric": "win_rate"}


def test_without_one_the_benchmarks_own_metrics_decide_c1_and_their_mean_the_others():
    evidence = Constructed(gain=12.0, endpoint=OVERALL)
    records = {record["id"]: record for record in decide(CLAIMS, evidence, "gold")}
    assert {record["verdict"] for record in records.values()} <= {"supported", "inconclusive"}
    assert len(records["C1"]["parts"]) == 4 * 5
    assert all(part["decides"] for part in records["C1"]["parts"])
    for id in ("C2", "C3", "C5", "C6"):
        assert {part["benchmark"] for part in records[id]["parts"] if part["benchmark"]} == {"overall"}


def test_all_other_contrasts_use_the_primary_endpoint():
    for record in decide(CLAIMS, Constructed(gain=12.0), "gold"):
        assert {part["benchmark"] for part in record["parts"] if part["benchmark"] and part["decides"]} <= {"pooled"}


# --- C2, C4 and C6 -------------------------------------------------------------------------------------------------


def parts_of(record, title):
    return [part for part in record["parts"] if part["title"] == title]


def test_c2_states_the_natural_rate_and_the_price_separately():
    record = verdict_of("C2", Constructed(gain=12.0, measures={"annotation_ratio": 0.9}))
    [rate], [price] = parts_of(record, "natural rate"), parts_of(record, "price")
    assert (rate["verdict"], price["verdict"]) == ("worse", "supported")
    assert price["label"] == "metaapo@0.58 - online_dpo"
    assert "natural rate: worse; price: supported" in record["reason"]


def test_the_price_asks_for_no_loss_that_matters_and_reports_superiority_beside_it():
    equal = Constructed(gain=0.0, measures={"annotation_ratio": 0.3}, **PRECISE)
    record = verdict_of("C2", equal)
    [price] = parts_of(record, "price")
    assert (record["verdict"], price["verdict"]) == ("supported", "supported")
    assert price["bound"] == -1
    assert price["p_superior"] > 0.01
    assert "one-sided p of being better" in record["reason"]
    better = verdict_of("C2", Constructed(gain=3.0, measures={"annotation_ratio": 0.3}, **PRECISE))
    assert parts_of(better, "price")[0]["p_superior"] < 1e-6
    lost = verdict_of("C2", Constructed(gain=-3.0, measures={"annotation_ratio": 0.3}, **PRECISE))
    assert parts_of(lost, "price")[0]["verdict"] == lost["verdict"] == "worse"


def test_without_a_run_within_58_percent_the_price_is_not_tested_and_the_run_is_named():
    record = verdict_of("C2", Constructed(gain=12.0, capped=None, measures={"annotation_ratio": 0.35}))
    assert record["verdict"] == "not tested"
    assert record["missing"] == ["metaapo at 58% of the annotations or less (a budget of at most 0.58)"]
    [rate], [price] = parts_of(record, "natural rate"), parts_of(record, "price")
    assert (rate["verdict"], price["verdict"], price["effect"]) == ("supported", "not tested", None)
    assert ruling_of("C2", Constructed(capped=None, measures={"annotation_ratio": 0.9})) == "worse"


def test_c4_shows_the_loss_gap_of_each_iteration_with_an_interval_over_worlds():
    record = verdict_of("C4", Constructed(**TRUE))
    first, second = record["loss_gaps"]
    assert (first["iteration"], first["value"], first["n_seeds"]) == (1, pytest.approx(0.12), 3)
    half = 4.302653 * 0.02 / math.sqrt(3)
    assert (first["ci_low"], first["ci_high"]) == (pytest.approx(0.12 - half), pytest.approx(0.12 + half))
    assert second["ci_low"] < 0 < second["ci_high"]
    assert verdict_of("C6", Constructed(**TRUE))["loss_gaps"] == []


def test_c6_compares_with_random_selection_under_the_same_weights_and_under_equal_ones():
    record = verdict_of("C6", Constructed(gain=12.0, gains={claims.SAME_WEIGHTS: -12.0}))
    [same], [equal] = parts_of(record, "same weights"), parts_of(record, "equal weights")
    assert (same["label"], equal["label"]) == ("metaapo - select: random", "metaapo - random")
    assert (record["verdict"], same["verdict"], equal["verdict"]) == ("worse", "worse", "supported")
    alone = verdict_of("C6", Constructed(12.0, methods=[*REQUIRED, "metaapo", "random"]))
    assert alone["verdict"] == "not tested"
    assert alone["missing"] == ["metaapo with select: random"]


# --- the assay -----------------------------------------------------------------------------------------------------


def row(name, value, low=None, high=None):
    return {"name": name, "value": value, "ci_low": low, "ci_high": high}


def test_room_below_the_smallest_gain_that_matters_or_flat_sampling_leaves_nothing_to_select():
    assert "oracle" in no_room([row("room_selection", 0.2, -0.3, 0.7)], 1.0)
    assert no_room([row("room_selection", 0.9, 0.4, 1.4)], 1.0) == ""
    assert no_room([row("room_selection", None)], 1.0) == ""
    assert "random in effect" in no_room([row("spread_iter1", 0.0), row("spread_iter2", 0.03)], 1.0)
    assert no_room([row("spread_iter1", 0.0), row("spread_iter2", 0.06)], 1.0) == ""
    assert no_room([], 1.0) == ""


@pytest.mark.parametrize("gain", [12.0, 0.0, -12.0])
def test_without_room_selection_cannot_be_tested_whatever_came_out(gain):
    record = verdict_of("C6", Constructed(gain=gain, no_room="there is no room"))
    assert record["verdict"] == "untestable here"
    assert record["reason"].startswith("there is no room")
    assert {part["verdict"] for part in record["parts"]} == {"untestable here"}
    assert record["effect"] is not None


def test_without_room_the_other_components_of_c3_can_still_refute_it():
    assert ruling_of("C3", Constructed(gain=12.0, no_room="none")) == "untestable here"
    truth = {"gain": 12.0, "gains": {"weights: uniform": -12.0}}
    assert ruling_of("C3", Constructed(**truth, no_room="none")) == "worse"
    assert ruling_of("C3", Constructed(gain=12.0, gains={claims.SAME_WEIGHTS: -12.0}, no_room="none")) == (
        "untestable here"
    )


# --- error rates ---------------------------------------------------------------------------------------------------


ON_THE_BOUND = {"annotation_ratio": claims.PAPER_BUDGET, "sampling_decline": 0.0, "map_change": claims.MAP_CHANGE}
# the hardest null for conjunctions: all parts of each claim hold but one, which is exactly at its bound
ONE_PART_FALSE = {
    "gain": 40.0,
    "gains": {
        "ppo": 0.0,
        "weights: uniform": 0.0,
        claims.UNTRAINED: 0.0,
        "random": 0.0,
        ("metaapo@0.58", "online_dpo"): -1.0,  # its claim is "not worse by a point"
    },
    "measures": {"annotation_ratio": claims.PAPER_BUDGET, "sampling_decline": 0.0, "map_change": 0.9},
}


NULL = {"measures": ON_THE_BOUND, "gains": {("metaapo@0.58", "online_dpo"): -1.0}}


@pytest.mark.parametrize("truth", [NULL, ONE_PART_FALSE], ids=["all null", "one part null"])
@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize("seed_sd", [0.0, 2.0, 8.0])
def test_under_the_null_at_most_five_percent_of_experiments_report_any_false_support(truth, seeds, seed_sd):
    """At least one part of every claim is false, so each "supported" is an error."""
    simulated = 300
    false = sum(
        any(r.verdict == "supported" for r in rule(CLAIMS, Deciding(**truth, seeds=seeds, seed_sd=seed_sd, chance=c)))
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


AT_THE_MARGIN = {  # every claim holds by exactly the smallest gain that matters, so that nothing speaks against it
    "gain": 1.0,
    "measures": {
        "annotation_ratio": claims.PAPER_BUDGET,
        "sampling_decline": 0.01,
        "map_change": claims.MAP_CHANGE,
    },
    "gains": {("metaapo@0.58", "online_dpo"): -1.0},
}


@pytest.mark.parametrize("seeds", [2, 3, 6])
def test_where_every_gain_matters_at_most_five_percent_of_experiments_refute_a_claim(seeds):
    simulated = 300
    false = sum(
        any(r.verdict in REFUTED for r in rule(CLAIMS, Deciding(**AT_THE_MARGIN, seeds=seeds, seed_sd=2.0, chance=c)))
        for c in range(simulated)
    )
    assert false / simulated <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / simulated)


@pytest.mark.parametrize("gain", [1.0, -1.0])
def test_a_difference_of_the_margin_is_seldom_called_equivalent(gain):
    simulated = 400
    one = [claim for claim in CLAIMS if claim.id == "C6"]
    truth = {"seeds": 6, "seed_sd": 0.3, "prompt_sd": 1.0, "noise": 2.0}
    false = sum(rule(one, Constructed(gain, **truth, chance=c))[0].verdict == "equivalent" for c in range(simulated))
    assert false / simulated <= 0.025 + 2 * math.sqrt(0.025 * 0.975 / simulated)


@pytest.mark.parametrize("seeds", [3, 6])
def test_under_the_null_parts_are_seldom_supported_even_one_by_one(seeds):
    """C3's parts at 0: Hochberg's correction keeps the chance of any false support at 2.5 %."""
    simulated = 400
    one = [claim for claim in CLAIMS if claim.id == "C3"]
    rulings = (rule(one, Constructed(0.0, seeds=seeds, seed_sd=2.0, chance=c))[0] for c in range(simulated))
    false = sum("supported" in ruling.states.values() for ruling in rulings)
    assert false / simulated <= 0.025 + 2 * math.sqrt(0.025 * 0.975 / simulated)


# --- absence -------------------------------------------------------------------------------------------------------


def test_claims_whose_methods_are_absent_are_not_tested():
    records = {r["id"]: r for r in decide(CLAIMS, Constructed(12.0, methods=["metaapo", "dpo", "online_dpo"]), "gold")}
    for id, needed in {"C3": "metaapo with weights: uniform", "C6": "random"}.items():
        assert records[id]["verdict"] == "not tested"
        assert records[id]["reason"].startswith("not tested in this experiment: needs")
        assert needed in records[id]["reason"]
        assert records[id]["effect"] is None
    assert records["C1"]["verdict"] == "not tested"
    assert [part["label"] for part in records["C1"]["parts"] if part["verdict"] == "not tested"] == ["ppo", "selm"]
    assert records["C1"]["missing"] == ["ppo", "selm"]


def test_without_metaapo_nothing_is_tested():
    for record in decide(CLAIMS, Constructed(12.0, methods=["dpo", "online_dpo", "selm", "ppo", "random"]), "gold"):
        assert record["verdict"] == "not tested"
        assert record["reason"].startswith("not tested in this experiment: needs metaapo")


def test_a_missing_baseline_rules_out_support_but_not_refutation():
    methods = ["metaapo", "dpo", "online_dpo"]
    assert ruling_of("C1", Constructed(12.0, methods=methods)) == "not tested"
    assert ruling_of("C1", Constructed(12.0, gains={"dpo": -12.0}, methods=methods)) == "worse"


def test_random_selection_at_another_budget_is_no_test_of_c6():
    record = verdict_of("C6", Constructed(12.0, budgets={"metaapo": 0.5, "random": 0.7}))
    assert record["verdict"] == "not tested"
    assert "random at the budget of metaapo" in record["reason"]
    assert "20.0 points" in record["reason"]


def test_one_seed_decides_nothing():
    for record in decide(CLAIMS, Constructed(30.0, seeds=1), "gold"):
        assert record["verdict"] == "inconclusive"
        assert record["ci_low"] is None
        assert record["smallest_effect"] is None
    assert "one seed" in record["reason"]


# --- planning ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("gain", "direction"), [(4.0, "for"), (-5.0, "against")])
def test_an_inconclusive_claim_says_how_many_worlds_would_decide_it_and_in_which_direction(gain, direction):
    record = verdict_of("C5", Constructed(gain=gain, seeds=3, seed_sd=3.0, chance=3))
    assert record["verdict"] == "inconclusive"
    assert record["seeds_to_decide"] > 3
    assert record["seeds_direction"] == direction
    side = {"for": "in favour of the claim", "against": "against the claim"}[direction]
    assert f"{record['seeds_to_decide']} worlds would decide it {side}" in record["reason"]


def test_a_card_and_its_table_ask_for_the_same_number_of_worlds():
    record = verdict_of("C5", Constructed(gain=4.0, seeds=3, seed_sd=3.0, chance=3))
    assert record["seeds_to_decide"] in {part["seeds_to_decide"] for part in record["parts"]}


ONE_PART = claims.Claim("X", "", "", (claims.Contrast("metaapo", MATCHED_RANDOM),), ())


def test_the_requested_number_of_seeds_decides_it():
    """The planned number of seeds finds the planned effect about four times in five."""
    truth = {"gain": 4.0, "seed_sd": 3.0}
    pilot = rule([ONE_PART], Constructed(**truth, seeds=40))[0].parts[0]  # large enough to estimate the variances
    seeds, _ = parts.seeds_for(pilot, 4.0, 0.0, alpha=2 * claims.ALPHA)
    found = [rule([ONE_PART], Constructed(**truth, seeds=seeds, chance=100 + c))[0].verdict for c in range(60)]
    assert 0.65 <= found.count("supported") / 60 <= 0.95


@pytest.mark.parametrize("seeds", [4, 6])
def test_the_smallest_detectable_effect_is_found_four_times_in_five(seeds):
    """As a single test at two-sided 5 %, without the correction for other claims."""
    pilots = [rule([ONE_PART], Constructed(seeds=seeds, seed_sd=2.0, chance=c))[0].parts[0] for c in range(40)]
    effect = float(np.mean([pilot.smallest_effect for pilot in pilots]))
    tested = (Constructed(effect, seeds=seeds, seed_sd=2.0, chance=1000 + c) for c in range(200))
    found = [rule([ONE_PART], evidence)[0].parts[0].p_for < claims.ALPHA for evidence in tested]
    assert 0.7 <= np.mean(found) <= 0.92


def test_a_claims_smallest_detectable_effect_is_the_largest_of_its_deciding_parts():
    record = verdict_of("C1", Constructed(12.0))
    deciding = [part["smallest_effect"] for part in record["parts"] if part["decides"]]
    assert record["smallest_effect"] == max(deciding)
    assert record["smallest_effect_unit"] == "points"
    assert all(record["smallest_effect"] > 0 for record in decide(CLAIMS, Constructed(12.0), "gold"))


def test_the_weakest_part_is_the_headline_and_every_part_is_on_record():
    record = verdict_of("C1", Constructed(12.0, gains={"selm": 3.0}))
    assert record["effect_of"].startswith("metaapo - selm")
    assert len(record["parts"]) == 4 * 6
    weakest = max((part for part in record["parts"] if part["decides"]), key=lambda part: part["p_for"])
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


def test_swapping_the_sign_of_the_evidence_turns_support_into_its_opposite():
    """The verdicts have no favourite: evidence that supports MetaAPO at +12 finds it worse at -12."""
    assert ruling_of("C6", Constructed(gain=12.0, chance=9)) == "supported"
    assert ruling_of("C6", Constructed(gain=-12.0, chance=9)) == "worse"
