// Defenses by attacks: one figure a place, coloured and written; a place leads to its cell, or to a list of its cells.
(function () {
  "use strict";
  const board = window.board;
  const { el, fill, records, numbers } = board;
  const OF_SEVERAL = { worst: "the worst", mean: "the mean", best: "the best" };
  const FIRST = 40; // lines: a browser lays out a thousand links in a blink, and several thousand in more
  const ROWS = { defense: "a defense", variant: "with its options" };

  // One figure of several; "worst" is the largest leak, since a defense is as good as its best attack lets it be.
  function chosen(metric, cells, rule) {
    const values = cells.map((cell) => records.value(cell, metric.name)).filter(numbers.isNumber);
    if (!values.length) return null;
    if (rule === "mean") return values.reduce((sum, value) => sum + value, 0) / values.length;
    return (metric.better === "higher") === (rule === "best") ? Math.max(...values) : Math.min(...values);
  }

  // Cells by row and attack.
  function grouped(cells, rows) {
    const found = new Map();
    for (const cell of cells) {
      const [row, attack] = [records.column[rows][cell], records.column.attack[cell]];
      if (attack === "none") continue;
      if (!found.has(row)) found.set(row, new Map());
      if (!found.get(row).has(attack)) found.get(row).set(attack, []);
      found.get(row).get(attack).push(cell);
    }
    return found;
  }

  // Undefended first, then by name.
  function orderedRows(names) {
    const rank = (name) => (name.split(" ")[0] === "none" ? 0 : 1);
    return names.sort((a, b) => rank(a) - rank(b) || board.byName(a, b));
  }

  const baselines = new Set(records.found.parts.attack.filter((one) => one.baseline).map((one) => one.name));

  // What reads nothing first, then by name.
  function orderedAttacks(found) {
    const names = [...new Set([...found.values()].flatMap((line) => [...line.keys()]))];
    const rank = (name) => (name === "random" ? 0 : baselines.has(name) ? 1 : 2);
    return names.sort((a, b) => rank(a) - rank(b) || board.byName(a, b));
  }

  // How dark a value is: darker is worse for the user. A share by itself, an amount by its place among those shown.
  function shades(metric, values) {
    const turned = metric.better === "higher" ? (x) => 1 - x : (x) => x;
    if (numbers.isShare(metric)) return (value) => turned(Math.min(Math.max(value, 0), 1));
    const scale = values.every((value) => value > 0) ? Math.log : (x) => x;
    const [low, high] = [Math.min(...values.map(scale)), Math.max(...values.map(scale))];
    return (value) => (high > low ? turned((scale(value) - low) / (high - low)) : 0);
  }

  // What stands at a row and an attack: where it leads, its text, a small line below, and the same in words.
  function place(cells, row, attack, view) {
    const { metric, rule, rows, asked } = view;
    if (!cells?.length) return { row, attack, text: "", small: "" };
    const [only, several] = [records.cells.id[cells[0]], { ...board.filters.kept(asked), metric: metric.name }];
    several[rows] = row;
    if (!view.control) several.attack = attack;
    const address = board.route.address;
    const href = cells.length === 1 ? address("cell", only) : address("cells", "", several);
    const value = chosen(metric, cells, rule);
    if (value === null) return { row, attack, href, ...absent(cells) };
    const figure = cells.length === 1 && records.figure(cells[0], metric.name);
    const ends = figure ? numbers.interval(metric, figure.mean, figure.low, figure.high) : "";
    const small = figure ? ends : board.plural(cells.length, "cell");
    return { row, attack, href, value, text: numbers.written(metric, value), small };
  }

  function absent(cells) {
    const status = cells.map((cell) => records.cells.status[cell]);
    const failed = status.indexOf("failed");
    const reason = records.cells.reason[cells[Math.max(failed, 0)]];
    if (failed >= 0) return { text: "failed", small: "", why: reason };
    return { text: numbers.MISSING, small: "", why: status.includes("n/a") ? reason : "no such figure" };
  }

  // The lines of the matrix, without attacks and defenses that the metric says nothing of.
  function lines(view, cells) {
    const found = grouped(cells, view.rows);
    const measured = (line, attack) => (line.get(attack) || []).some((cell) => records.figure(cell, view.metric.name));
    const all = orderedAttacks(found);
    const attacks = all.filter((attack) => [...found.values()].some((line) => measured(line, attack)));
    const rows = [...found].filter(([, line]) => attacks.some((attack) => line.has(attack))).map(([row]) => row);
    const control = records.metrics.get(`control_${view.metric.name}`);
    const made = orderedRows(rows).map((row) => {
      const line = found.get(row);
      const places = attacks.map((attack) => place(line.get(attack), row, attack, view));
      return control ? [...places, controlled(line, row, control, view)] : places;
    });
    const columns = [...attacks, ...(control ? ["control"] : [])];
    return { made, columns, without: all.filter((attack) => !attacks.includes(attack)) };
  }

  // What attacks that read the protocol find when they are given another prompt's view, at most.
  function controlled(line, row, control, view) {
    const cells = [...line].filter(([attack]) => !baselines.has(attack)).flatMap(([, some]) => some);
    const measured = cells.filter((cell) => records.figure(cell, control.name));
    return place(measured, row, "control", { ...view, metric: control, control: true });
  }

  function cellOf(one, shade) {
    if (!one.href) return el("td", { class: "absent" }, el("span", { class: "for-readers" }, one.text || "not run"));
    const words = [one.text, one.why || one.small].filter(Boolean).join(", ");
    const link = el(
      "a",
      { href: one.href, title: one.why, "aria-label": `${one.row} against ${one.attack}: ${words}` },
      one.text,
      one.small && el("small", null, one.small),
    );
    if (!numbers.isNumber(one.value)) return el("td", { class: "none" }, link);
    return el("td", { class: "shaded", style: { "--shade": shade(one.value).toFixed(3) } }, link);
  }

  // The first so many lines; shaded as all of them ask for.
  function table(view, { made, columns }, count) {
    const shade = shades(view.metric, made.flat().map((one) => one.value).filter(numbers.isNumber));
    const heads = columns.map((name) => board.th("", board.breakable(name)));
    const rows = made.slice(0, count).map((line) =>
      el("tr", null, board.rowHead(board.breakable(line[0].row)), line.map((one) => cellOf(one, shade))),
    );
    const caption = `${view.metric.label} by defense and attack`;
    const all = [board.th("left", "Defense"), heads];
    return board.table(`matrix ${tint(view.metric)}`, caption, all, el("tbody", null, rows));
  }

  function tint(metric) {
    return metric.kind === "privacy" ? "leaks" : "amounts";
  }

  // Arrow keys move between places.
  function arrows(event) {
    const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    const from = event.target.closest("td");
    if (!step || !from) return;
    const rows = [...from.closest("tbody").rows];
    let [y, x] = [rows.indexOf(from.parentElement), from.cellIndex];
    let next;
    do {
      [y, x] = [y + step[0], x + step[1]];
      next = rows[y]?.cells[x];
    } while (next && !next.matches("td:has(a)"));
    if (!next) return;
    next.querySelector("a").focus();
    event.preventDefault();
  }

  function legend(metric, without) {
    const ends = numbers.isShare(metric) ? ["0 %", "100 %"] : ["least", "most"];
    const [light, dark] = metric.better === "lower" ? ends : ends.reverse();
    const swatch = (shade) => el("span", { class: "swatch shaded", style: { "--shade": String(shade) } });
    const swatches = el("span", { class: "swatches", "aria-hidden": "true" }, [0, 0.25, 0.5, 0.75, 1].map(swatch));
    return [
      el("p", { class: `legend quiet ${tint(metric)}` }, light, swatches, `${dark}: darker is worse for the user.`),
      el("p", { class: "quiet" }, `${numbers.MISSING}: the attack does not apply. Empty: not run. `,
        "Control: the most that attacks find when they are given another prompt's view."),
      without.length > 0 && el("p", { class: "quiet" }, `Not measured by this metric: ${without.join(", ")}.`),
    ];
  }

  function rowsOf(made, view) {
    const known = made.flat().filter((one) => one.href);
    return known.map((one) => ({
      defense: one.row,
      attack: one.attack,
      metric: view.metric.name,
      of_several: view.rule,
      value: one.value ?? null,
      shown: one.text,
      remark: one.why || one.small,
    }));
  }

  function build(main) {
    const bar = board.filters.bar();
    const controls = [
      board.controls.metric("Metric", "metric", records.usual),
      board.controls.select("Of several cells", "of", Object.entries(OF_SEVERAL), "worst"),
      board.controls.select("A row is", "rows", Object.entries(ROWS), "defense"),
    ];
    const [said, box, more, below] = [el("p", { class: "lead" }), board.wide("Matrix"), el("div"), el("div")];
    box.addEventListener("keydown", arrows);
    let shown = [];
    fill(
      main,
      el("h1", { tabindex: "-1" }, "Every defense under every attack"),
      said,
      bar.node,
      el("div", { class: "fields view" }, controls.map((one) => one.node)),
      box,
      more,
      below,
      board.download.buttons(() => "matrix", () => shown),
    );

    // The lines that are not shown yet.
    function offer(view, found) {
      const all = () => {
        fill(box, table(view, found, found.made.length));
        fill(more);
        box.focus();
      };
      const text = `Show all ${found.made.length} rows`;
      fill(more, found.made.length > FIRST && el("button", { type: "button", onclick: all }, text));
    }

    return (asked) => {
      const cells = bar.update(asked);
      controls.forEach((one) => one.update(asked));
      const metric = records.metrics.get(asked.metric) || records.metrics.get(records.usual);
      if (!metric) return void fill(box, el("p", { class: "empty" }, "No cell here has any figure."));
      const rule = OF_SEVERAL[asked.of] ? asked.of : "worst";
      const view = { metric, rule, rows: ROWS[asked.rows] ? asked.rows : "defense", asked };
      const found = lines(view, cells);
      const better = metric.better === "lower" ? "Less" : "More";
      said.textContent =
        `${board.sentence(metric.label)}: ${metric.description}. ${better} is better for the user.` +
        records.caution(metric);
      shown = rowsOf(found.made, view);
      const none = "No cell that is left has this metric: choose another, or remove a filter.";
      fill(box, found.made.length ? table(view, found, FIRST) : el("p", { class: "empty" }, none));
      offer(view, found);
      fill(below, found.made.length > 0 && legend(metric, found.without));
    };
  }

  board.views = { ...board.views, matrix: { title: "Matrix", build } };
})();
