// One cell: its numbers, where they come from, what else was tried on the same setting, and its prompts.
(function () {
  "use strict";
  const board = window.board;
  const { el, fill, records, numbers } = board;
  const KINDS = ["privacy", "utility", "cost"];
  const PARTS = ["defense", "attack", "model", "data", "task", "tuning", "link"];
  const SETTINGS = {
    n_prompts: "prompts",
    prompt_tokens: "tokens of each prompt",
    max_new_tokens: "new tokens",
    held_out: "held-out documents",
    seed: "seed",
    dtype: "arithmetic",
    wire_dtype: "arithmetic on the wire",
    transport: "transport",
    device: "device",
  };
  // What a reader wants first: of each line the first that a cell has.
  const HEADLINE = [
    ["token_recovery", "span_exact", "token_accuracy", "choice_top1", "stream_found", "attribute_accuracy"].concat(
      ["rec_scratch", "rec_exposed", "hidden_overlap"],
    ),
    ["accuracy", "greedy_equal", "kl", "perplexity"],
    ["tpot_ms", "tune_s", "infer_s"],
  ];
  const NO_TEXTS =
    "Texts were not recorded (record_texts=false), or are left out of this board (texts=false): the numbers of each " +
    "prompt stay.";

  // The metrics that a cell has a figure of, with it.
  function figuresOf(cell) {
    const all = records.found.metrics.map((metric) => [metric, records.figure(cell, metric.name)]);
    return all.filter(([, figure]) => figure);
  }

  function tile(cell, name) {
    const [metric, figure] = [records.metrics.get(name), records.figure(cell, name)];
    const control = records.figure(cell, `control_${name}`);
    const ends = numbers.interval(metric, figure.mean, figure.low, figure.high);
    const beside = [ends && `95 % interval ${ends}`, control && `control ${numbers.written(metric, control.mean)}`];
    return el(
      "li",
      null,
      el("span", { class: "quiet" }, board.sentence(metric.label)),
      el("strong", null, numbers.written(metric, figure.mean)),
      el("small", { class: "quiet" }, beside.filter(Boolean).join("; ")),
    );
  }

  function headline(cell) {
    const shown = HEADLINE.map((names) => names.find((name) => records.figure(cell, name))).filter(Boolean);
    return shown.length > 0 && el("ul", { class: "headline" }, shown.map((name) => tile(cell, name)));
  }

  function row([metric, figure]) {
    const better = metric.better === "lower" ? "Less" : "More";
    const what = board.sentence(metric.description);
    const said = `${what}. ${better} is better for the user. Interval: ${metric.interval}.`;
    return el(
      "tr",
      { "data-metric": metric.name },
      board.rowHead(metric.label, el("small", null, metric.name)),
      board.td("right strong", numbers.written(metric, figure.mean)),
      board.td("right", numbers.interval(metric, figure.mean, figure.low, figure.high) || numbers.MISSING),
      board.td("right", figure.n.toLocaleString("en")),
      board.td("left words", said),
    );
  }

  function numbersTable(cell) {
    const known = figuresOf(cell);
    const bodies = KINDS.map((kind) => {
      const rows = known.filter(([metric]) => metric.kind === kind);
      const name = el("th", { colspan: "5", scope: "rowgroup", class: "left" }, kind);
      return rows.length > 0 && el("tbody", null, el("tr", { class: "group" }, name), rows.map(row));
    });
    const heads = ["Mean", "95 % interval", "n"].map((name) => board.th("right", name));
    const all = [board.th("left", "Metric"), heads, board.th("left", "What it is")];
    return board.table("plain numbers", "All numbers of this cell", all, bodies);
  }

  function facts(pairs) {
    const known = pairs.filter(([, value]) => ![null, undefined, "", false].includes(value));
    const fact = ([name, value]) => el("div", null, el("dt", null, name), el("dd", null, value));
    return el("dl", { class: "facts" }, known.map(fact));
  }

  // A plain value as words.
  function words(value) {
    if (value === null || value === undefined) return "";
    if (Array.isArray(value)) return value.map(words).join(", ");
    if (typeof value !== "object") return String(value);
    return Object.entries(value).map(([key, one]) => `${key} ${words(one)}`).join(", ");
  }

  function settings(values) {
    const known = Object.entries(values).filter(([, value]) => value !== null);
    return known.map(([key, value]) => `${key}=${words(value)}`).join("  ");
  }

  // The parts of a cell with their options and versions.
  function parts(cell, versions) {
    const known = PARTS.map((kind) => [kind, records.part(cell, kind)]);
    const told = known.filter(([kind, part]) => part && !(kind === "link" && part.name === "none"));
    return told.map(([kind, part]) => {
      const version = versions[kind] && ` (version ${versions[kind]})`;
      const options = el("span", { class: "quiet options" }, settings(part.options));
      return [kind, [el("b", null, part.name), version, options]];
    });
  }

  function provenance(cell, found) {
    const today = records.found.scores;
    const older = found.scored < today ? ` of ${today}: Wilson's or Student's intervals` : "";
    const first = facts([
      ["command", found.command && el("code", null, found.command)],
      ["cell", el("code", null, records.cells.id[cell])],
      ["record", found.sources.map((source) => el("div", null, el("code", null, source)))],
      ...parts(cell, found.versions),
      ["guarantee", found.guarantee],
      ["scores", `version ${found.scored}${older}`],
    ]);
    const rest = facts([
      ...Object.entries(SETTINGS).map(([key, name]) => [name, words(records.cells[key][cell])]),
      ["chosen when deployed", settings(found.chosen)],
      ...Object.entries(found.environment).map(([key, value]) => [key.replace(/_/g, " "), words(value)]),
      ["seconds by stage", words(found.wall_s)],
    ]);
    return [first, el("details", { class: "more" }, el("summary", null, "Settings, versions and environment"), rest)];
  }

  // All attacks on the same setting, the most telling first.
  function beside(cell) {
    const metric = records.metrics.get(records.usual);
    const same = records.cells.setting[cell];
    const alike = (place) => records.cells.setting[place] === same && !records.cells.superseded[place];
    const others = [...records.cells.id.keys()].filter(alike);
    if (!metric || others.length < 2) return null;
    const value = (place) => records.value(place, metric.name) ?? -1;
    const rows = others.sort((a, b) => value(b) - value(a)).map((place) => {
      const [name, figure] = [records.label(place, "attack"), records.figure(place, metric.name)];
      const link = el("a", { href: board.route.address("cell", records.cells.id[place]) }, name);
      const shown = figure ? numbers.entry(metric, figure) : records.cells.status[place];
      const who = place === cell ? el("b", null, `${name} (this cell)`) : link;
      return el("tr", null, board.rowHead(who), board.td("right", shown));
    });
    const title = "Attacks on the same setting";
    const heads = [board.th("left", "Attack"), board.th("right", metric.label)];
    const table = board.table("plain", title, heads, el("tbody", null, rows));
    return el("section", null, el("h2", null, title), board.wide(title, table));
  }

  function trail() {
    return el("p", { class: "trail" }, el("a", { href: "#/cells" }, "Cells"));
  }

  function head(cell) {
    const [status, reason] = [records.cells.status[cell], records.cells.reason[cell]];
    const [defense, attack] = ["defense", "attack"].map((kind) => board.breakable(records.label(cell, kind)));
    const tags = [
      records.name(cell, "model"),
      records.matter(cell),
      `secret: ${records.cells.secret[cell]}`,
      `seed ${records.cells.seed[cell]}`,
      ...(records.cells.superseded[cell] ? ["earlier version"] : []),
    ];
    const said = el("b", null, status === "n/a" ? "Does not apply" : "Failed");
    return [
      trail(),
      el("h1", { tabindex: "-1" }, defense, el("span", { class: "against" }, " against "), attack),
      el("p", { class: "tags" }, tags.map((text) => el("span", { class: "tag" }, text))),
      status !== "ok" && el("p", { class: "note" }, said, reason && `: ${reason}`),
    ];
  }

  function promptsOf(place, cell, mine) {
    if (!mine) {
      const ok = records.cells.status[cell] === "ok";
      const why = ok ? "This cell has no prompts: its items are of another kind." : "There are no prompts.";
      return void fill(place, el("p", { class: "quiet" }, why));
    }
    if (!mine.set) {
      board.prompts.show(place, mine, null);
      return void place.prepend(el("p", { class: "note" }, NO_TEXTS));
    }
    board.load("prompts", mine.set).then(
      (set) => board.prompts.show(place, mine, set),
      (error) => fill(place, el("p", { class: "empty" }, error.message)),
    );
  }

  function rowsOf(cell) {
    const about = {
      cell: records.cells.id[cell],
      defense: records.label(cell, "defense"),
      attack: records.label(cell, "attack"),
    };
    return figuresOf(cell).map(([metric, figure]) => ({ ...about, metric: metric.name, ...figure, unit: metric.unit }));
  }

  function show(main, id) {
    const cell = records.places.get(id);
    const none = el("h1", { tabindex: "-1" }, "No such cell is on this board");
    if (cell === undefined) return void fill(main, trail(), none);
    const from = el("div", null, el("p", { class: "quiet" }, "Loading"));
    const prompts = el("div");
    const measured = el(
      "section",
      null,
      el("h2", null, "All numbers"),
      board.wide("Numbers", numbersTable(cell)),
      board.download.buttons(() => records.cells.name[cell], () => rowsOf(cell)),
    );
    fill(
      main,
      head(cell),
      headline(cell),
      beside(cell),
      el("section", null, el("h2", null, "Prompt by prompt"), prompts),
      figuresOf(cell).length > 0 && measured,
      el("section", null, el("h2", null, "Where these numbers come from"), from),
    );
    board.load("cell", id).then(
      (found) => {
        fill(from, provenance(cell, found));
        promptsOf(prompts, cell, found.prompts);
      },
      (error) => fill(from, el("p", { class: "empty" }, error.message)),
    );
  }

  function build(main) {
    let shown = null;
    return (asked, id) => {
      if (shown !== id) show(main, id);
      shown = id;
    };
  }

  board.views = { ...board.views, cell: { title: "Cell", build } };
})();
