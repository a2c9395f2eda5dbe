// One cell: its numbers, where they come from, what else was tried on the same setting, and its prompts.
(function () {
  "use strict";
  const board = window.board;
  const { el, fill, records, numbers } = board;
  const KINDS = ["privacy", "utility", "cost"];
  const SETTINGS = { n_prompts: "prompts", prompt_tokens: "tokens of each prompt", max_new_tokens: "new tokens", held_out: "held-out documents", seed: "seed", dtype: "arithmetic", wire_dtype: "arithmetic on the wire", transport: "transport", device: "device" };

  const HEADLINE = {
    leak: ["token_recovery", "span_exact", "token_accuracy", "choice_top1", "stream_found", "attribute_accuracy", "rec_scratch", "rec_exposed", "hidden_overlap"],
    utility: ["accuracy", "greedy_equal", "kl", "perplexity"],
    cost: ["tpot_ms", "tune_s", "infer_s"],
  };

  // What a reader wants first: one figure of each kind, a leak beside its control.
  function headline(cell) {
    const shown = Object.values(HEADLINE).map((names) => names.find((name) => records.figure(cell, name))).filter(Boolean);
    const tile = (name) => {
      const [metric, figure] = [records.metrics.get(name), records.figure(cell, name)];
      const control = records.figure(cell, `control_${name}`);
      const ends = numbers.interval(metric, figure.mean, figure.low, figure.high);
      const beside = [ends && `95 % interval ${ends}`, control && `control ${numbers.written(metric, control.mean)}`].filter(Boolean).join("; ");
      return el("li", null, el("span", { class: "quiet" }, board.sentence(metric.label)), el("strong", null, numbers.written(metric, figure.mean)), el("small", { class: "quiet" }, beside));
    };
    return shown.length > 0 && el("ul", { class: "headline" }, shown.map(tile));
  }

  function numbersTable(cell) {
    const known = records.found.metrics.map((metric) => [metric, records.figure(cell, metric.name)]).filter(([, figure]) => figure);
    const bodies = KINDS.map((kind) => {
      const rows = known.filter(([metric]) => metric.kind === kind);
      return rows.length && el("tbody", null, el("tr", { class: "group" }, el("th", { colspan: "5", scope: "rowgroup", class: "left" }, kind)), rows.map(row));
    });
    const head = ["Metric", "Mean", "95 % interval", "n", "What it is"].map((name, i) => el("th", { scope: "col", class: i && i < 4 ? "right" : "left" }, name));
    return el("table", { class: "plain numbers" }, el("caption", { class: "for-readers" }, "All numbers of this cell"), el("thead", null, el("tr", null, head)), bodies);
  }

  function row([metric, figure]) {
    const ends = numbers.interval(metric, figure.mean, figure.low, figure.high);
    return el(
      "tr",
      { "data-metric": metric.name },
      el("th", { scope: "row", class: "left" }, metric.label, el("small", null, metric.name)),
      el("td", { class: "right strong" }, numbers.written(metric, figure.mean)),
      el("td", { class: "right" }, ends || numbers.MISSING),
      el("td", { class: "right" }, figure.n.toLocaleString("en")),
      el("td", { class: "left words" }, `${board.sentence(metric.description)}. ${metric.better === "lower" ? "Less" : "More"} is better for the user. Interval: ${metric.interval}.`),
    );
  }

  function facts(pairs) {
    return el("dl", { class: "facts" }, pairs.filter(([, value]) => value !== null && value !== undefined && value !== "").map(([name, value]) => el("div", null, el("dt", null, name), el("dd", null, value))));
  }

  function words(value) {
    if (value === null || value === undefined) return "";
    if (Array.isArray(value)) return value.map(words).join(", ");
    if (typeof value === "object") return Object.entries(value).map(([key, one]) => `${key} ${words(one)}`).join(", ");
    return String(value);
  }

  function options(cell, versions) {
    return ["defense", "attack", "model", "data", "task", "tuning", "link"].map((kind) => {
      const part = records.part(cell, kind);
      if (!part || (kind === "link" && part.name === "none")) return null;
      const set = Object.entries(part.options).filter(([, value]) => value !== null).map(([key, value]) => `${key}=${words(value)}`);
      return [kind, [el("b", null, part.name), versions[kind] && ` (version ${versions[kind]})`, set.length > 0 && el("span", { class: "quiet options" }, set.join("  "))]];
    });
  }

  function provenance(cell, found) {
    const older = found.scored < records.found.scores ? `version ${found.scored} of ${records.found.scores}: Wilson's or Student's intervals` : `version ${found.scored}`;
    const first = facts([
      ["command", found.command && el("code", null, found.command)],
      ["cell", el("code", null, records.cells.id[cell])],
      ["record", found.sources.map((source) => el("div", null, el("code", null, source)))],
      ...options(cell, found.versions).filter(Boolean),
      ["guarantee", found.guarantee],
    ]);
    const rest = facts([
      ...Object.entries(SETTINGS).map(([key, name]) => [name, words(records.cells[key][cell])]),
      ["chosen when deployed", Object.entries(found.chosen).map(([key, value]) => `${key}=${words(value)}`).join("  ")],
      ["scores", older],
      ...Object.entries(found.environment).map(([key, value]) => [key.replace(/_/g, " "), words(value)]),
      ["seconds by stage", words(found.wall_s)],
    ]);
    return [first, el("details", { class: "more" }, el("summary", null, "Settings, versions and environment"), rest)];
  }

  // The other attacks on the same setting, the most telling first.
  function beside(cell) {
    const metric = records.metrics.get(records.usual);
    const same = records.cells.setting[cell];
    const others = records.cells.id.map((_, place) => place).filter((place) => records.cells.setting[place] === same && !records.cells.superseded[place]);
    if (!metric || others.length < 2) return null;
    others.sort((a, b) => (records.value(b, metric.name) ?? -1) - (records.value(a, metric.name) ?? -1));
    const body = others.map((place) => {
      const figure = records.figure(place, metric.name);
      const name = records.label(place, "attack");
      return el("tr", null, el("th", { scope: "row", class: "left" }, place === cell ? el("b", null, `${name} (this cell)`) : el("a", { href: board.route.address("cell", records.cells.id[place]) }, name)), el("td", { class: "right" }, figure ? numbers.written(metric, figure.mean) : records.cells.status[place], figure && el("small", null, numbers.interval(metric, figure.mean, figure.low, figure.high))));
    });
    return el("section", null, el("h2", null, "Attacks on the same setting"), el("div", { class: "wide" }, el("table", { class: "plain" }, el("caption", { class: "for-readers" }, "Attacks on the same setting"), el("thead", null, el("tr", null, el("th", { scope: "col", class: "left" }, "Attack"), el("th", { scope: "col", class: "right" }, metric.label))), el("tbody", null, body))));
  }

  function head(cell) {
    const chips = [records.name(cell, "model"), records.name(cell, "task") || records.name(cell, "data"), `secret: ${records.cells.secret[cell]}`, `seed ${records.cells.seed[cell]}`];
    const status = records.cells.status[cell];
    return [
      el("p", { class: "trail" }, el("a", { href: "#/cells" }, "Cells")),
      el("h1", { tabindex: "-1" }, board.breakable(records.label(cell, "defense")), el("span", { class: "against" }, " against "), board.breakable(records.label(cell, "attack"))),
      el("p", { class: "tags" }, chips.map((text) => el("span", { class: "tag" }, text)), records.cells.superseded[cell] ? el("span", { class: "tag" }, "earlier version") : null),
      status !== "ok" && el("p", { class: "note" }, el("b", null, status === "n/a" ? "Does not apply" : "Failed"), records.cells.reason[cell] && `: ${records.cells.reason[cell]}`),
    ];
  }

  function promptsOf(place, cell, found) {
    const mine = found.prompts;
    if (!mine) return void fill(place, el("p", { class: "quiet" }, records.cells.status[cell] === "ok" ? "This cell has no prompts: its items are of another kind." : "There are no prompts."));
    if (!mine.set) {
      board.prompts.show(place, mine, null);
      place.prepend(el("p", { class: "note" }, "Texts were not recorded (record_texts=false), or are left out of this board (texts=false): the numbers of each prompt stay."));
      return;
    }
    board.load("prompts", mine.set).then((set) => board.prompts.show(place, mine, set), (error) => fill(place, el("p", { class: "empty" }, error.message)));
  }

  function rowsOf(cell) {
    const about = { cell: records.cells.id[cell], defense: records.label(cell, "defense"), attack: records.label(cell, "attack") };
    return records.found.metrics.map((metric) => [metric, records.figure(cell, metric.name)]).filter(([, figure]) => figure).map(([metric, figure]) => ({ ...about, metric: metric.name, ...figure, unit: metric.unit }));
  }

  function build(main) {
    let shown = null;
    return (asked, id) => {
      if (shown === id) return;
      shown = id;
      const cell = records.places.get(id);
      if (cell === undefined) return void fill(main, el("p", { class: "trail" }, el("a", { href: "#/cells" }, "Cells")), el("h1", { tabindex: "-1" }, "No such cell is on this board"));
      const from = el("div", null, el("p", { class: "quiet" }, "Loading"));
      const prompts = el("div");
      const measured = rowsOf(cell).length > 0;
      fill(
        main,
        head(cell),
        headline(cell),
        beside(cell),
        el("section", null, el("h2", null, "Prompt by prompt"), prompts),
        measured && el("section", null, el("h2", null, "All numbers"), el("div", { class: "wide", tabindex: "0", role: "region", "aria-label": "Numbers, scrolls sideways" }, numbersTable(cell)), board.download.buttons(() => records.cells.name[cell], () => rowsOf(cell))),
        el("section", null, el("h2", null, "Where these numbers come from"), from),
      );
      board.load("cell", id).then(
        (found) => {
          fill(from, provenance(cell, found));
          promptsOf(prompts, cell, found);
        },
        (error) => fill(from, el("p", { class: "empty" }, error.message)),
      );
    };
  }

  board.views = { ...board.views, cell: { title: "Cell", build } };
})();
