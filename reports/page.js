"use strict";
(() => {
  const data = JSON.parse(document.getElementById("sample-data").textContent);
  const PER_PAGE = 8;
  const byId = (id) => document.getElementById(id);
  const fields = { benchmark: byId("f-benchmark"), category: byId("f-category"), seed: byId("f-seed"), order: byId("f-order"), text: byId("f-text") };
  let page = 0;

  const make = (tag, text, className) => {
    const element = document.createElement(tag);
    if (text !== undefined) element.textContent = text;
    if (className) element.className = className;
    return element;
  };
  const fill = (select, entries) => {
    select.replaceChildren(...entries.map(([value, label]) => {
      const option = make("option", label);
      option.value = value;
      return option;
    }));
  };
  const unique = (values) => [...new Set(values)].sort((a, b) => (a > b) - (a < b));
  const inBenchmark = (question) => !fields.benchmark.value || question.b === fields.benchmark.value;

  const fillCategories = () => fill(fields.category, [["", "all"],
    ...unique(data.questions.filter(inBenchmark).map((q) => q.c)).map((c) => [c, c || "none"])]);

  const chosen = () => {
    const words = fields.text.value.toLowerCase().split(/\s+/).filter(Boolean);
    const found = data.questions.filter((q) => inBenchmark(q)
      && (!fields.category.value || q.c === fields.category.value)
      && words.every((word) => q.p.join(" ").toLowerCase().includes(word)));
    const byName = (a, b) => a.b.localeCompare(b.b) || String(a.q).localeCompare(String(b.q), undefined, { numeric: true });
    return fields.order.value === "benchmark" ? [...found].sort(byName) : found;
  };

  const rubric = (grades) => grades && Object.entries(grades).map(([name, value]) => `${name} ${value}`).join(", ");

  const answerCard = (answer, turns) => {
    const model = data.models[answer.m];
    const card = make("div", undefined, "answer");
    card.append(make("h5", `${model.name}, ${model.name === "SFT" ? "world" : "seed"} ${model.seed}`));
    answer.x.forEach((text, turn) => {
      card.append(make("p", (turns > 1 ? `${turn + 1}. ` : "") + (text || "(empty)")));
      const parts = [answer.v[turn], rubric(answer.g[turn]) && `gold ${rubric(answer.g[turn])}`].filter(Boolean);
      card.append(make("p", parts.join(" · "), "meta"));
    });
    card.append(make("p", `${answer.n} characters`, "meta"));
    return card;
  };

  const questionCard = (question) => {
    const card = make("div", undefined, "sample");
    const name = question.q === question.p[0] ? "" : `, ${question.q}`;
    card.append(make("h4", `${data.benchmarks[question.b]}, ${question.c}${name}; disagreement ${question.d.toFixed(2)}`));
    question.p.forEach((turn, i) => card.append(make("p", (question.p.length > 1 ? `${i + 1}. ` : "") + turn, "prompt")));
    const answers = make("div", undefined, "answers");
    const seed = fields.seed.value;
    answers.append(...question.a.filter((a) => seed === "" || data.models[a.m].name === "SFT" || String(data.models[a.m].seed) === seed)
      .map((a) => answerCard(a, question.p.length)));
    card.append(answers);
    return card;
  };

  const show = () => {
    const found = chosen();
    const pages = Math.max(1, Math.ceil(found.length / PER_PAGE));
    page = Math.min(Math.max(page, 0), pages - 1);
    byId("sample-count").textContent = `${found.length} questions`;
    byId("page-number").textContent = `${page + 1} of ${pages}`;
    byId("previous").disabled = page === 0;
    byId("next").disabled = page === pages - 1;
    byId("sample-list").replaceChildren(...found.slice(page * PER_PAGE, (page + 1) * PER_PAGE).map(questionCard));
  };

  fill(fields.benchmark, [["", "all"], ...unique(data.questions.map((q) => q.b)).map((b) => [b, data.benchmarks[b]])]);
  fill(fields.seed, [...unique(data.models.filter((m) => m.name !== "SFT").map((m) => m.seed)).map((s) => [String(s), String(s)]), ["", "all"]]);
  fillCategories();
  fields.benchmark.addEventListener("change", fillCategories);
  byId("filters").addEventListener("input", () => { page = 0; show(); });
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
  byId("previous").addEventListener("click", () => { page -= 1; show(); });
  byId("next").addEventListener("click", () => { page += 1; show(); });
  show();
})();
