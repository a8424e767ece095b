"use strict";
// Recomputes the verdicts from the estimates that the page ships: the tests of reports/parts.py and reports/claims.py.
const WhatIf = (() => {
  const lgamma = (x) => { // Lanczos, g = 7, n = 9
    const c = [0.99999999999980993, 676.5203681218851, -1259.1392167224028, 771.32342877765313, -176.61502916214059,
      12.507343278686905, -0.13857109526572012, 9.9843695780195716e-6, 1.5056327351493116e-7];
    if (x < 0.5) return Math.log(Math.PI / Math.sin(Math.PI * x)) - lgamma(1 - x);
    const t = x + 6.5;
    let sum = c[0];
    for (let i = 1; i < 9; i += 1) sum += c[i] / (x - 1 + i);
    return 0.5 * Math.log(2 * Math.PI) + (x - 0.5) * Math.log(t) - t + Math.log(sum);
  };
  const fraction = (a, b, x) => { // of the incomplete beta function, by Lentz's method
    let c = 1, d = 1 / (1 - (a + b) * x / (a + 1)), h = d;
    for (let m = 1; m < 500; m += 1) {
      for (const step of [m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
        -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))]) {
        d = 1 / (1 + step * d); c = 1 + step / c; h *= c * d;
      }
      if (Math.abs(c * d - 1) < 1e-15) break;
    }
    return h;
  };
  const beta = (a, b, x) => {
    if (x <= 0) return 0;
    if (x >= 1) return 1;
    const front = Math.exp(lgamma(a + b) - lgamma(a) - lgamma(b) + a * Math.log(x) + b * Math.log1p(-x));
    return x < (a + 1) / (a + b + 2) ? front * fraction(a, b, x) / a : 1 - front * fraction(b, a, 1 - x) / b;
  };
  const studentBelow = (df, t) => { // P(T <= t)
    const tail = 0.5 * beta(df / 2, 0.5, df / (df + t * t));
    return t < 0 ? tail : 1 - tail;
  };

  const upper = (part, bound) => { // one-sided p-value against "mean <= bound"
    const [value, stderr, df, seeds] = part;
    if (stderr === null || seeds < 2) return 0.5;
    const distance = value - bound;
    if (stderr === 0) return distance === 0 ? 0.5 : Number(distance < 0);
    return studentBelow(df, -distance / stderr);
  };
  const overall = (p, boundary) => { // the p-value of all registered looks
    if (!boundary) return p;
    const [nominal, levels] = boundary;
    if (p <= nominal[0]) return levels[0];
    let i = nominal.findIndex((x) => x > p);
    if (i < 0) i = nominal.length - 1;
    const [x0, x1, y0, y1] = [nominal[i - 1], nominal[i], levels[i - 1], levels[i]].map(Math.log);
    return Math.exp(x1 === x0 ? y1 : y0 + (y1 - y0) * (Math.log(p) - x0) / (x1 - x0));
  };
  const tested = (part, factor, boundary) => {
    const inBound = part[7], bound = inBound ? part[4] * factor : part[4], margin = inBound ? part[5] : part[5] * factor;
    const over = (p) => overall(p, boundary);
    const above = 1 - upper(part, bound + margin);
    return {
      for: over(upper(part, bound)), against: over(above), worse: over(1 - upper(part, bound)),
      equivalent: margin ? over(Math.max(above, upper(part, bound - margin))) : 1,
    };
  };

  const stepDown = (ps) => { // Holm
    const order = ps.map((p, i) => [p, i]).sort((a, b) => a[0] - b[0]), found = [];
    let most = 0;
    order.forEach(([p, i], rank) => { most = Math.max(most, Math.min(1, (ps.length - rank) * p)); found[i] = most; });
    return found;
  };
  const CORRECT = { Holm: stepDown, Bonferroni: (ps) => ps.map((p) => Math.min(1, ps.length * p)), none: (ps) => ps };

  // One verdict per claim of a cell: see claims.rule_on_parts, claims._ruling and parts.refutation.
  const verdicts = (data, cell, factor, correction) => {
    const { alpha } = data;
    const claims = cell.claims.map((claim) => {
      const parts = claim.parts.filter((part) => !part[6]).map((part) => tested(part, factor, data.boundary));
      return { ...claim, tests: parts, untestable: claim.parts.some((part) => part[6]) };
    });
    const some = claims.filter((claim) => claim.tests.length);
    const whole = some.filter((claim) => !claim.lacks && !claim.untestable);
    const pFor = CORRECT[correction](whole.map((claim) => Math.max(...claim.tests.map((t) => t.for))));
    const pAgainst = CORRECT[correction](some.map((claim) => Math.min(...stepDown(claim.tests.map((t) => t.against)))));
    const refuted = (claim) => {
      const below = (name) => stepDown(claim.tests.map((t) => t[name])).map((p) => some.length * p < alpha);
      const worse = below("worse"), equal = below("equivalent");
      if (worse.some((w, i) => w && !equal[i])) return "worse";
      return equal.some(Boolean) ? "equivalent" : "no gain that matters";
    };
    return Object.fromEntries(claims.map((claim) => {
      const against = pAgainst[some.indexOf(claim)], supports = pFor[whole.indexOf(claim)];
      let verdict = "inconclusive";
      if (against !== undefined && against < alpha) verdict = refuted(claim);
      else if (claim.untestable) verdict = "untestable here";
      else if (claim.lacks || !claim.tests.length) verdict = "not tested";
      else if (supports !== undefined && supports < alpha) verdict = "supported";
      return [claim.id, verdict];
    }));
  };

  return { verdicts, studentBelow };
})();
