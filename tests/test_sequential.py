"""Registered looks: however often they are used, they err no more often than one test, and cost little power."""

import math

import numpy as np
import pytest
from test_claims import AT_THE_MARGIN, NULL, ONE_PART, ONE_PART_FALSE, REFUTED, Constructed, Deciding

from reports.claims import CLAIMS, decide, rule, rule_at_looks
from reports.parts import ALPHA
from reports.sequential import FIXED, LEVELS, SIMULATED, _null_p_values, boundaries, looks_of, spent

LOOKS = (6, 9, 12, 18)
DESIGN = looks_of(LOOKS, "obrien_fleming")


class Growing(Deciding):
    """The evidence after the first n worlds of an experiment with more."""

    def __init__(self, whole, n):
        self.whole, self.n = whole, n
        self.__dict__ |= {k: v for k, v in whole.__dict__.items() if k not in ("whole", "n")}

    def contrast(self, *key):
        table = self.whole.contrast(*key)
        return None if table is None else table[: self.n]

    def measure(self, *key):
        return self.whole.measure(*key)[: self.n]


def at_looks(whole, looks=LOOKS):
    return [Growing(whole, n) for n in looks]


# --- the boundaries ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spending", ["obrien_fleming", "pocock"])
@pytest.mark.parametrize("overall", [ALPHA, ALPHA / 6, 0.2])
def test_all_looks_together_reach_the_overall_level_and_no_more(spending, overall):
    """On other draws than those that the levels come from."""
    looks = looks_of(LOOKS, spending)
    rng, n = np.random.default_rng(1), 60_000
    data = rng.standard_normal((n, LOOKS[-1]), dtype=np.float32)
    crossed = np.zeros(n, bool)
    for look in looks:
        part = data[:, : look.n]
        t = part.mean(axis=1) * math.sqrt(look.n) / part.std(axis=1, ddof=1)
        crossed |= t > _quantile(look.n - 1, look.level(overall))
    error = 3 * math.sqrt(overall / n)
    assert overall * 0.93 - error <= crossed.mean() <= overall + error


def _quantile(df, level):
    from scipy.special import stdtrit

    return stdtrit(df, 1 - level)


def test_the_first_look_spends_what_the_function_says_and_the_last_one_has_most_of_the_rest():
    assert DESIGN[0].level(ALPHA) == pytest.approx(spent(ALPHA, 1 / 3, "obrien_fleming"), rel=0.02)
    nominal = [look.level(ALPHA) for look in DESIGN]
    assert nominal == sorted(nominal)
    assert 0.85 * ALPHA < nominal[-1] < ALPHA
    assert [spent(ALPHA, 1.0, name) for name in ("pocock", "obrien_fleming")] == pytest.approx([ALPHA, ALPHA])


def test_the_levels_are_those_of_t_statistics_not_of_normal_ones():
    """With known variance the overlap of two early looks is larger than that of t statistics from 3 and 4 values."""
    early = looks_of((3, 4, 20), "pocock")
    p_values = _null_p_values((3, 4, 20))
    both = np.mean((p_values[0] < 0.01) & (p_values[1] < 0.01)) / 0.01
    rng = np.random.default_rng(0)
    z = np.cumsum(rng.standard_normal((SIMULATED, 4)), axis=1)
    from scipy.special import ndtr

    normal = np.mean((ndtr(-z[:, 2] / math.sqrt(3)) < 0.01) & (ndtr(-z[:, 3] / 2) < 0.01)) / 0.01
    assert both < normal - 0.05
    assert early[1].level(ALPHA) < early[0].level(ALPHA)


def test_an_overall_p_value_is_the_level_at_which_the_look_would_reject():
    for look in DESIGN:
        for level in (0.001, ALPHA, 0.3):
            assert look.overall(look.level(level)) == pytest.approx(level, rel=1e-6)
        assert look.overall(0.0) == LEVELS[0]
        assert look.overall(1.0) == 1.0
        assert look.overall(0.01) >= 0.01 - 1e-9


def test_the_levels_are_the_same_in_every_process():
    boundaries.cache_clear()
    assert [look.level(ALPHA) for look in looks_of(LOOKS, "obrien_fleming")] == [look.level(ALPHA) for look in DESIGN]


def test_one_look_or_none_is_the_fixed_design():
    evidence = Constructed(gain=3.0, seeds=6)
    fixed = decide(CLAIMS, evidence, "gold")
    [single] = looks_of([6], "obrien_fleming")
    assert looks_of([], "obrien_fleming") == [FIXED]
    registered = decide(CLAIMS, evidence, "gold", (), [single])
    assert [r | {"looks": None} for r in registered] == fixed
    assert registered[0]["looks"]["nominal"] == [ALPHA]


# --- an anytime-valid witness --------------------------------------------------------------------------------------


def e_value(n, t, scale=1.0):
    """Evidence of n normal values with the t statistic t against "mean / sd = 0", valid at any stopping time.

    The t-test e-process with a normal prior on the standardised effect (Wang & Ramdas, "Anytime-valid t-tests and
    confidence sequences for Gaussian means with unknown variance", 2023, theorem 4.7, from Lai 1976).
    """
    share = 1 + n * scale**2
    return share**-0.5 * ((1 + t**2 / (n - 1)) / (1 + t**2 / (n - 1) / share)) ** (n / 2)


def test_what_an_anytime_valid_test_rejects_at_a_look_the_registered_design_rejects_too():
    """The e-process may stop at any world, so it needs more: its two-sided 5 % implies the design's one-sided 2.5 %."""
    from scipy.special import stdtr

    for look in DESIGN[1:]:
        for t in np.linspace(0.5, 12, 60):
            if e_value(look.n, t) >= 1 / 0.05:
                assert look.overall(float(stdtr(look.n - 1, -t))) <= ALPHA * 1.05, (look.n, t)


def test_the_witness_errs_in_at_most_five_percent_although_it_looks_after_every_world():
    rng = np.random.default_rng(0)
    data = rng.standard_normal((20_000, 40))
    ever = np.zeros(len(data), bool)
    for n in range(2, 41):
        t = data[:, :n].mean(axis=1) * math.sqrt(n) / data[:, :n].std(axis=1, ddof=1)
        ever |= e_value(n, t) >= 20
    assert 0.001 < ever.mean() <= 0.05
    assert e_value(2, 0.0) < 1 < e_value(10, 5.0)


# --- the whole procedure -------------------------------------------------------------------------------------------


def any_support(truth, chance, looks):
    whole = Deciding(**truth, seeds=LOOKS[-1], chance=chance)
    return any(r.verdict == "supported" for r in rule_at_looks(CLAIMS, at_looks(whole), looks))


@pytest.mark.parametrize(("truth", "bound"), [(NULL, 0.025), (ONE_PART_FALSE, 0.05)], ids=["all null", "one part null"])
def test_with_a_test_at_every_look_false_support_stays_within_the_level_over_all_claims(truth, bound):
    simulated = 50
    false = sum(any_support(truth | {"seed_sd": 2.0}, chance, DESIGN) for chance in range(simulated))
    assert false / simulated <= bound + 2 * math.sqrt(bound * (1 - bound) / simulated)


def peeking(looks, chances, ns):
    """Share of null experiments with one claim in which a test at any of the numbers of worlds finds support."""
    found = 0
    for chance in range(chances):
        whole = Deciding(0.0, seeds=ns[-1], seed_sd=2.0, prompt_sd=1.0, noise=2.0, chance=chance)
        rulings = rule_at_looks([ONE_PART], at_looks(whole, ns), looks)
        found += rulings[0].verdict == "supported"
    return found / chances


def test_unregistered_peeking_is_the_defect_that_looks_repair():
    """A look after every world from the third to the tenth: today's rule against the registered one."""
    ns = tuple(range(3, 11))
    naive, registered = peeking([FIXED] * len(ns), 250, ns), peeking(looks_of(ns, "pocock"), 250, ns)
    assert naive > 0.04
    assert registered <= 0.025 + 2 * math.sqrt(0.025 / 250)


def test_refutations_too_stay_within_the_level():
    simulated = 50
    false = 0
    for chance in range(simulated):
        whole = Deciding(**AT_THE_MARGIN, seeds=LOOKS[-1], seed_sd=2.0, chance=chance)
        false += any(r.verdict in REFUTED for r in rule_at_looks(CLAIMS, at_looks(whole), DESIGN))
    assert false / simulated <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / simulated)


def test_looks_cost_little_power():
    """An effect that the fixed design of 18 worlds finds about four times in five."""
    found = {"fixed": 0, "looks": 0}
    for chance in range(60):
        whole = Deciding(2.4, seeds=18, seed_sd=3.0, chance=chance)
        found["fixed"] += rule([ONE_PART], whole)[0].verdict == "supported"
        found["looks"] += rule_at_looks([ONE_PART], at_looks(whole), DESIGN)[0].verdict == "supported"
    assert found["fixed"] > 30
    assert found["looks"] >= found["fixed"] - 8


# --- what is decided stays decided, what is hopeless is futile -----------------------------------------------------


def test_what_a_look_decided_stays_decided_whatever_later_worlds_bring():
    early, late = Constructed(12.0, seeds=6), Constructed(-12.0, seeds=9)
    [ruling] = rule_at_looks([ONE_PART], [early, late], DESIGN)
    assert (ruling.verdict, ruling.look.n) == ("supported", 6)
    assert ruling.parts[0].estimate.n_seeds == 6


def test_the_record_says_at_which_look_a_claim_was_decided_and_where_it_goes_on():
    open_, done = Constructed(2.0, seeds=6, seed_sd=4.0, chance=2), Constructed(20.0, seeds=6)
    [record] = decide([ONE_PART], open_, "gold", (), DESIGN)
    assert record["verdict"] == "inconclusive"
    assert record["looks"] == record["looks"] | {"at": list(LOOKS), "reached": 6, "decided": None, "next": 9}
    [record] = decide([ONE_PART], done, "gold", (), DESIGN)
    assert record["looks"] == record["looks"] | {"decided": 6, "next": None, "futile": False}
    assert "at the look after 6 worlds" in record["reason"]


def test_a_claim_that_the_last_look_can_hardly_decide_is_futile():
    hopeless = Constructed(0.5, seeds=12, seed_sd=9.0, chance=4)
    [record] = decide([ONE_PART], hopeless, "gold", [Constructed(0.5, seeds=n, seed_sd=9.0) for n in (6, 9)], DESIGN)
    assert record["verdict"] == "inconclusive"
    assert record["looks"]["futile"]
    assert record["looks"]["next"] is None
    assert record["looks"]["chance_by_last"] < 0.1


def test_the_interval_at_a_look_is_the_one_that_holds_at_every_look():
    evidence = Constructed(3.0, seeds=6)
    [fixed] = decide([ONE_PART], evidence, "gold")
    [repeated] = decide([ONE_PART], evidence, "gold", (), DESIGN)
    assert repeated["ci_low"] < fixed["ci_low"] < fixed["effect"] < fixed["ci_high"] < repeated["ci_high"]
