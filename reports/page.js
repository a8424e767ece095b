"use strict";
// The page's address says what is shown: #id opens a section; #/score, #/contrast and #/run open evidence in a dialog;
// #/answers and #/what-if carry the choices of their forms. All text of models is set as text, never as markup.
(() => {
  const byId = (id) => document.getElementById(id);
  const embedded = {};
  const read = (name) => (embedded[name] ??= JSON.parse(byId(`${name}-data`).textContent));
  const make = (tag, text, className) => {
    const element = document.createElement(tag);
    if (text !== undefined && text !== null) element.textContent = text;
    if (className) element.className = className;
    return element;
  };
  const link = (text, href) => { const a = make("a", text); a.href = href; return a; };
  const fill = (select, entries) => {
    const before = select.value;
    select.replaceChildren(...entries.map(([value, label]) => { const o = make("option", label); o.value = value; return o; }));
    if (entries.some(([value]) => value === before)) select.value = before;
  };
  const unique = (values) => [...new Set(values)].sort((a, b) => (a > b) - (a < b));
  const shown = (value, digits = 1) => (value === null || value === undefined || Number.isNaN(value) ? "–" : value.toFixed(digits).replace("-", "−"));
  const signed = (value, digits = 1) => (value > 0 ? "+" : "") + shown(value, digits);
  const names = read("names");
  const title = (method) => {
    const [name, cap] = method.split("@");
    return (names.methods[name] || name) + (cap && cap !== names.budgets[name] ? ` (at most ${100 * cap} %)` : "");
  };
  const words = (benchmark, metric) => `${names.benchmarks[benchmark] || "All benchmarks"}, ${(names.metrics[benchmark] || {})[metric] || metric.replaceAll("_", " ")}`;
  const place = (hash) => history.replaceState(null, "", hash || location.pathname + location.search);
  const say = (text) => { byId("said").textContent = text; setTimeout(() => { byId("said").textContent = ""; }, 4000); };

  // --- tables ------------------------------------------------------------------------------------------------------
  const table = (label, heads, rows) => {
    const scroll = make("div", undefined, "scroll");
    scroll.tabIndex = 0; scroll.setAttribute("role", "region"); scroll.setAttribute("aria-label", label);
    const t = make("table"), head = make("tr");
    heads.forEach((h) => { const th = make("th", h); th.scope = "col"; head.append(th); });
    const thead = make("thead"), body = make("tbody");
    thead.append(head);
    rows.forEach((cells) => {
      const row = make("tr");
      cells.forEach((cell, i) => {
        const td = make(i ? "td" : "th");
        if (!i) td.scope = "row";
        td.append(cell instanceof Node ? cell : String(cell ?? "–"));
        row.append(td);
      });
      body.append(row);
    });
    t.append(thead, body); scroll.append(t);
    return scroll;
  };
  const csvLine = (line) => {
    if (!line.includes('"')) return line.split(",");
    return [...line.matchAll(/("(?:[^"]|"")*"|[^,]*)(?:,|$)/g)].map((m) => m[1].replace(/^"|"$/g, "").replaceAll('""', '"'));
  };
  const scores = () => (embedded.scores ??= (() => {
    const [head, ...lines] = read("files")["scores.csv"].trimEnd().split("\n");
    const columns = csvLine(head);
    return lines.map((line) => Object.fromEntries(csvLine(line).map((cell, i) => [columns[i], cell])));
  })());
  const arm = (method) => { const [name, cap] = method.split("@"); return [name, cap ? (cap.includes(".") ? cap : `${cap}.0`) : names.budgets[name] || "0.0"]; };
  const found = (method, benchmark, metric, judge) => {
    const [name, budget] = arm(method), last = name === "sft" ? 0 : names.iterations;
    return scores().filter((s) => s.method === name && s.budget === budget && s.benchmark === benchmark && s.metric === metric
      && s.judge === judge && Number(s.iteration) === last);
  };
  const runId = (s) => `${s.method}/budget${s.budget}/seed${s.seed}`;
  const runLink = (id) => (read("runs")[id] ? link(id, `#/run/${id}`) : make("span", id));
  const where = (s) => (s.world === s.seed ? `${names.manyWorlds ? "world" : "seed"} ${s.seed}` : `seed ${s.seed}, world ${s.world}`);

  // --- evidence ----------------------------------------------------------------------------------------------------
  const dialog = byId("evidence"), body = byId("evidence-body");
  const open = (heading, ...content) => {
    byId("evidence-title").textContent = heading;
    body.replaceChildren(...content);
    if (!dialog.open) dialog.showModal();
    dialog.scrollTop = 0;
    byId("evidence-title").focus();
  };
  dialog.addEventListener("close", () => { if (location.hash.startsWith("#/") && !/^#\/(answers|what-if|mechanism)/.test(location.hash)) place(""); });

  const showScore = ([method, benchmark, metric, judge]) => {
    const rows = found(method, benchmark, metric, judge || names.judges[0]);
    const digits = names.pairwise.includes(benchmark) ? 1 : 2;
    open(`${title(method)}: ${words(benchmark, metric)}`,
      make("p", `Judge ${judge || names.judges[0]}, after the last iteration; ${rows.length ? `${rows[0].n} questions, protocol ${rows[0].version}` : "no score"}. Each run with its 95 % interval over questions.`, "note"),
      table("Runs", ["run", "where", "annotations, % of Online DPO", "score", "95 % interval", "note"], rows.map((s) => [runLink(runId(s)), where(s),
        shown(100 * s.annotation_ratio_total), shown(Number(s.value), digits), s.ci_low === "" ? "–" : `${shown(Number(s.ci_low), digits)} to ${shown(Number(s.ci_high), digits)}`,
        s.flag || ""])));
  };

  const showContrast = ([better, worse, benchmark, metric]) => {
    const claims = JSON.parse(read("files")["claims.json"]);
    const label = `${better} - ${worse}`;
    const all = claims.flatMap((c) => c.parts.map((p) => ({ ...p, claim: c.id, replicates: c.replicates })))
      .filter((p) => p.label === label && p.benchmark === benchmark && p.metric === metric);
    const part = all[0], judge = names.judges[0], digits = part && part.unit === "grade" ? 2 : 1;
    const content = [];
    if (part) {
      const limits = part.ci_low === null ? "" : ` [${signed(part.ci_low, digits)}, ${signed(part.ci_high, digits)}]`;
      const p = make("p");
      p.append(make("strong", `${signed(part.effect, digits)}${limits} ${part.unit === "grade" ? "grades" : "points"}`),
        ` over ${part.n_seeds} ${part.replicates} and ${part.n_prompts} questions, paired. `,
        part.decides ? `It decides ${all.map((x) => x.claim).join(" and ")}: ${part.verdict}. ` : "It decides no claim. ",
        part.p_for === null ? "" : `One-sided p: ${part.p_for.toPrecision(2)} for, ${part.p_against.toPrecision(2)} against a gain that matters.`);
      content.push(p);
    }
    const benchmarks = benchmark === "overall" ? Object.keys(names.benchmarks) : [benchmark];
    for (const b of benchmarks) {
      const m = benchmark === "overall" ? Object.keys(names.metrics[b]).at(-1) : metric;
      const [left, right] = [found(better, b, m, judge), found(worse, b, m, judge)];
      const rows = left.map((s) => [s, right.find((o) => o.seed === s.seed)]).filter(([, o]) => o);
      content.push(make("h3", words(b, m)), table(words(b, m), ["where", `${title(better)}`, `${title(worse)}`, "difference", "runs"], rows.map(([s, o]) => {
        const both = make("span");
        both.append(runLink(runId(s)), " and ", runLink(runId(o)));
        return [where(s), shown(Number(s.value), digits), shown(Number(o.value), digits), signed(s.value - o.value, digits), both];
      })));
    }
    content.push(make("p", `Differences are taken question by question; their mean over ${part ? part.replicates : "seeds"} is the effect. Judge ${judge}.`, "note"));
    open(`${title(better)} against ${title(worse)}: ${words(benchmark, metric)}`, ...content);
  };

  const download = (name, text) => {
    const a = make("a", name);
    a.href = URL.createObjectURL(new Blob([text], { type: "text/plain" }));
    a.download = name.replaceAll("/", "-");
    document.body.append(a); a.click(); a.remove();
  };
  const button = (text, act) => { const b = make("button", text, "quiet"); b.type = "button"; b.addEventListener("click", act); return b; };

  const outcomes = (id) => {
    const data = read("sample"), m = data.models.findIndex((model) => model.run === id), counts = {};
    data.questions.forEach((q) => q.a.filter((a) => a.m === m && a.s !== null).forEach((a) => {
      const c = (counts[q.b] ??= { won: 0, lost: 0, all: 0 });
      c.all += 1;
      if (a.s > 0.5) c.won += 1;
      if (a.s < 0.5) c.lost += 1;
    }));
    return Object.entries(counts);
  };
  const showRun = (parts) => {
    const id = parts.join("/"), record = read("runs")[id];
    if (!record) { open("No such run", make("p", `${id} is not a run of this experiment.`)); return; }
    const whole = { ...read("names").shared, ...record };
    const list = make("dl", undefined, "shared");
    const fact = (name, value) => { if (value) list.append(make("dt", name), make("dd", value)); };
    fact("Method", `${record.title} (${whole.module}), seed ${record.seed}, world ${whole.world}, budget at most ${100 * whole.budget} % of the prompts`);
    fact("Made", `${whole.finished || ""}, in ${shown(whole.seconds, 0)} s, on ${Object.values(whole.machine || {}).join(", ") || "an unrecorded machine"}`);
    fact("Code", `commit ${whole.commit}, sha256 ${whole.code_sha256}`);
    fact("Packages", Object.entries(whole.packages || {}).map(([k, v]) => `${k} ${v}`).join(", "));
    const ledger = table("Annotation ledger", ["iteration", "prompts", "sampled", "responses scored", "pairs", "ties", "KL", "length"], whole.iterations.map((t, i) => [i + 1, t.prompts, t.sampled,
      t.responses_scored, t.pairs, t.ties, shown(t.kl, 2), shown(t.mean_length)]));
    const [name, budget] = [parts[0], (parts[1] || "").replace("budget", "")];
    const mine = scores().filter((s) => s.method === name && s.budget === budget && `seed${s.seed}` === parts[2] && Number(s.iteration) === names.iterations);
    const scored = table("Scores of this run", ["metric", "judge", "score", "95 % interval"], mine.filter((s) => (names.metrics[s.benchmark] || {})[s.metric]).map((s) => [words(s.benchmark, s.metric), s.judge,
      shown(Number(s.value), 2), s.ci_low === "" ? "–" : `${shown(Number(s.ci_low), 2)} to ${shown(Number(s.ci_high), 2)}`]));
    const ways = make("ul");
    outcomes(id).forEach(([b, c]) => {
      const item = make("li", `${names.benchmarks[b]}: `);
      const to = (outcome) => `#/answers?benchmark=${encodeURIComponent(b)}&run=${encodeURIComponent(id)}&outcome=${outcome}`;
      item.append(link(`${c.won} won`, to("won")), ", ", link(`${c.lost} lost`, to("lost")), `, of ${c.all} embedded here`);
      ways.append(item);
    });
    const settings = make("details");
    const pre = make("pre", JSON.stringify(whole, null, 1));
    pre.tabIndex = 0;
    settings.append(make("summary", "Full record: settings, data hashes, ledger"), pre);
    open(`Run ${id}`, list, make("h3", "Annotation ledger"), ledger, make("h3", "Scores after the last iteration"), scored,
      make("h3", "Answers (above or below half of the scale)"), ways, settings, button("Download run.json", () => download(`${id}/run.json`, JSON.stringify(whole, null, 2))));
  };

  // --- answers -----------------------------------------------------------------------------------------------------
  const PER_PAGE = 8;
  const keys = ["benchmark", "category", "seed", "run", "outcome", "order", "text"];
  const fields = Object.fromEntries(keys.map((key) => [key, byId(`f-${key}`)]));
  let page = 0, samplesReady = false;
  const inBenchmark = (question) => !fields.benchmark.value || question.b === fields.benchmark.value;
  const fillCategories = () => fill(fields.category, [["", "all"],
    ...unique(read("sample").questions.filter(inBenchmark).map((q) => q.c)).map((c) => [c, c || "none"])]);
  const prepareSamples = () => {
    if (samplesReady) return;
    samplesReady = true;
    const data = read("sample");
    fill(fields.benchmark, [["", "all"], ...unique(data.questions.map((q) => q.b)).map((b) => [b, names.benchmarks[b]])]);
    fill(fields.seed, [...unique(data.models.filter((m) => m.method !== "sft").map((m) => m.seed)).map((s) => [String(s), String(s)]), ["", "all"]]);
    fill(fields.run, [["", "any"], ...data.models.map((m) => [m.run, `${m.name}, ${m.method === "sft" ? "world" : "seed"} ${m.seed}`])]);
    fillCategories();
  };
  const chosen = () => {
    const data = read("sample"), sought = fields.text.value.toLowerCase().split(/\s+/).filter(Boolean);
    const run = data.models.findIndex((m) => m.run === fields.run.value), outcome = fields.outcome.value;
    const list = data.questions.filter((q) => inBenchmark(q) && (!fields.category.value || q.c === fields.category.value)
      && sought.every((word) => q.p.join(" ").toLowerCase().includes(word))
      && (run < 0 || q.a.some((a) => a.m === run && (!outcome || (a.s !== null && (outcome === "won" ? a.s > 0.5 : a.s < 0.5))))));
    const byName = (a, b) => a.b.localeCompare(b.b) || String(a.q).localeCompare(String(b.q), undefined, { numeric: true });
    return fields.order.value === "benchmark" ? [...list].sort(byName) : list;
  };
  const rubric = (grades) => grades && read("sample").rubric.map((name, i) => [name, grades[i]]).filter(([, v]) => v !== undefined && v !== null).map(([n, v]) => `${n} ${v}`).join(", ");
  const answerCard = (answer, turns) => {
    const model = read("sample").models[answer.m];
    const card = make("div", undefined, `answer${model.run === fields.run.value ? " chosen" : ""}`);
    card.append(make("h5", `${model.name}, ${model.method === "sft" ? "world" : "seed"} ${model.seed}`));
    answer.x.forEach((text, turn) => {
      const p = make("p", (turns > 1 ? `${turn + 1}. ` : "") + (text || "(empty)"));
      if (text.length > 1500) p.tabIndex = 0;
      card.append(p);
      const parts = [answer.v[turn], rubric(answer.g[turn]) && `gold ${rubric(answer.g[turn])}`].filter(Boolean);
      card.append(make("p", parts.join(" · "), "meta"));
    });
    card.append(make("p", `${answer.n} characters`, "meta"));
    return card;
  };
  const questionCard = (question) => {
    const data = read("sample"), card = make("div", undefined, "sample"), seed = fields.seed.value;
    const name = question.q === question.p[0] ? "" : `, ${question.q}`;
    card.append(make("h4", `${names.benchmarks[question.b]}, ${question.c}${name}; disagreement ${question.d.toFixed(2)}`));
    question.p.forEach((turn, i) => card.append(make("p", (question.p.length > 1 ? `${i + 1}. ` : "") + turn, "prompt")));
    const list = make("div", undefined, "answers");
    list.append(...question.a.filter((a) => seed === "" || data.models[a.m].method === "sft" || String(data.models[a.m].seed) === seed)
      .map((a) => answerCard(a, question.p.length)));
    card.append(list);
    return card;
  };
  const show = () => {
    prepareSamples();
    const list = chosen(), pages = Math.max(1, Math.ceil(list.length / PER_PAGE));
    page = Math.min(Math.max(page, 0), pages - 1);
    byId("sample-count").textContent = `${list.length} questions`;
    byId("page-number").textContent = `${page + 1} of ${pages}`;
    byId("previous").disabled = page === 0;
    byId("next").disabled = page === pages - 1;
    byId("sample-list").replaceChildren(...list.slice(page * PER_PAGE, (page + 1) * PER_PAGE).map(questionCard));
  };
  const keep = () => {
    const query = new URLSearchParams(keys.map((key) => [key, fields[key].value]).filter(([, value]) => value));
    if (page) query.set("page", page + 1);
    place(`#/answers?${query}`);
  };
  const showAnswers = (query) => {
    if (dialog.open) dialog.close();
    byId("samples").open = true;
    prepareSamples();
    fields.benchmark.value = query.get("benchmark") || "";
    fillCategories();
    keys.forEach((key) => { fields[key].value = query.get(key) || ""; });
    const run = read("sample").models.find((m) => m.run === query.get("run"));
    if (run && run.method !== "sft" && !query.has("seed")) fields.seed.value = String(run.seed);
    page = Number(query.get("page") || 1) - 1;
    show();
    byId("samples").scrollIntoView({ behavior: "instant" });
  };
  fields.benchmark.addEventListener("change", fillCategories);
  byId("filters").addEventListener("input", () => { page = 0; show(); keep(); });
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
  byId("previous").addEventListener("click", () => { page -= 1; show(); keep(); });
  byId("next").addEventListener("click", () => { page += 1; show(); keep(); });
  byId("samples").addEventListener("toggle", () => { if (byId("samples").open && !samplesReady) show(); });

  // --- what if -----------------------------------------------------------------------------------------------------
  const panel = byId("choices"), choices = {};
  const data = panel && read("what-if");
  const currentCell = () => {
    const without = choices.without.checked;
    const same = (c) => c.metric === choices.metric.value && c.cut === choices.cut.value && c.judge === choices.judge.value && c.entry === choices.entry.value;
    return data.cells.find((c) => same(c) && c.without === without) || data.cells.find((c) => same(c) && !c.without);
  };
  const registered = () => WhatIf.verdicts(data, data.cells[0], 1, data.corrections[0]);
  const decide = () => {
    const can = data.cells.some((c) => c.without && c.metric === choices.metric.value);
    choices.without.disabled = !can;
    if (!can) choices.without.checked = false;
    const before = registered(), after = WhatIf.verdicts(data, currentCell(), Number(choices.margin.value), choices.correction.value);
    let changed = 0;
    [...byId("w-verdicts").rows].forEach((row) => {
      const id = row.cells[0].textContent, differs = before[id] !== after[id];
      changed += differs;
      row.className = differs ? "changed" : "";
      row.cells[2].textContent = after[id] + (differs ? " (changed)" : "");
    });
    byId("w-said").textContent = changed ? `${changed} of ${Object.keys(after).length} verdicts change.` : "No verdict changes.";
  };
  const keepChoice = () => {
    const query = new URLSearchParams();
    ["margin", "correction", "metric", "cut", "judge", "entry"].forEach((key) => {
      const first = key === "margin" ? "1" : choices[key].options[0].value;
      if (choices[key].value !== first) query.set(key, choices[key].value);
    });
    if (choices.without.checked) query.set("without", "1");
    place(`#/what-if?${query}`);
  };
  const choose = (query) => {
    ["correction", "metric", "cut", "judge", "entry"].forEach((key) => { choices[key].value = query.get(key) || choices[key].options[0].value; });
    choices.margin.value = query.get("margin") || "1";
    choices.without.checked = query.get("without") === "1";
    decide();
  };
  if (panel) {
    ["margin", "correction", "metric", "cut", "judge", "entry", "without"].forEach((key) => { choices[key] = byId(`w-${key}`); });
    const several = (key) => [...new Set(data.cells.map((c) => c[key]))];
    fill(choices.margin, data.margins.map((f) => [String(f), `${f} point${f === 1 ? "" : "s"}, ${+(f / 10).toFixed(3)} grades${f === 1 ? " (registered)" : ""}`]));
    choices.margin.value = "1";
    fill(choices.correction, data.corrections.map((c, i) => [c, c + (i ? "" : " (registered)")]));
    fill(choices.metric, several("metric").map((m, i) => [m, data.titles[m] + (i ? "" : " (registered)")]));
    fill(choices.cut, several("cut").map((c) => [c, c === "all runs" ? "all runs" : "without runs that cut over 3 % of answers"]));
    ["judge", "entry"].forEach((key) => { fill(choices[key], several(key).map((v) => [v, key === "entry" ? title(v) : v])); choices[key].parentElement.hidden = several(key).length < 2; });
    choices.without.parentElement.hidden = !data.cells.some((c) => c.without);
    panel.addEventListener("input", () => { decide(); keepChoice(); });
    panel.addEventListener("submit", (event) => event.preventDefault());
    byId("w-reset").addEventListener("click", () => { choose(new URLSearchParams()); place("#what-if"); });
    decide();
  }

  // --- mechanism ---------------------------------------------------------------------------------------------------
  const scrub = byId("scrub");
  const step = (number) => {
    const steps = [...document.querySelectorAll(".step")];
    const at = Math.min(Math.max(number, 0), steps.length - 1);
    scrub.value = String(at);
    steps.forEach((s, i) => { s.hidden = i !== at; });
    byId("scrub-said").textContent = steps[at].querySelector("h3").textContent;
  };
  if (scrub) {
    step(Number(scrub.max));
    scrub.addEventListener("input", () => { step(Number(scrub.value)); place(`#/mechanism?step=${scrub.value}`); });
  }

  // --- addresses ---------------------------------------------------------------------------------------------------
  const reveal = (id) => {
    const target = byId(id);
    if (!target) return;
    for (let e = target; e; e = e.parentElement) if (e.tagName === "DETAILS") e.open = true;
    target.scrollIntoView({ behavior: "instant" });
  };
  const go = () => {
    let hash = location.hash;
    try { hash = decodeURI(hash); } catch { /* an address that someone mistyped opens nothing */ }
    if (!hash.startsWith("#/")) {
      if (dialog.open) dialog.close();
      if (hash.length > 1) reveal(hash.slice(1));
      return;
    }
    const [path, query] = [hash.slice(2).split("?")[0], new URLSearchParams(location.hash.split("?")[1] || "")];
    const [kind, ...rest] = path.split("/");
    if (kind === "score") showScore(rest);
    if (kind === "contrast") showContrast(rest);
    if (kind === "run") showRun(rest);
    if (kind === "answers") showAnswers(query);
    if (kind === "what-if" && panel) { choose(query); byId("what-if").scrollIntoView({ behavior: "instant" }); }
    if (kind === "mechanism" && scrub) { step(Number(query.get("step"))); byId("mechanism").scrollIntoView({ behavior: "instant" }); }
  };
  window.addEventListener("hashchange", go);
  document.querySelectorAll("#questions > details > summary").forEach((summary) => summary.addEventListener("click", () => {
    const details = summary.parentElement;
    if (!details.open) place(`#${details.id}`);
  }));

  // --- citing and downloads ----------------------------------------------------------------------------------------
  document.querySelectorAll("button.cite").forEach((b) => b.addEventListener("click", async () => {
    const text = (b.dataset.figure ? `“${b.dataset.figure}”. ` : "") + byId("citation").textContent;
    try { await navigator.clipboard.writeText(text); say("Copied."); } catch { say(text); }
  }));
  const downloads = byId("downloads");
  downloads.replaceChildren(...Object.keys(read("files")).flatMap((name) => [button(name, () => download(name, read("files")[name])), " "]),
    button("run records", () => download("runs.json", JSON.stringify(Object.fromEntries(Object.entries(read("runs")).map(([id, r]) => [id, { ...names.shared, ...r }])), null, 1))));

  go();
})();
