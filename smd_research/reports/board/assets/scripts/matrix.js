// Defenses by attacks: one figure a place, coloured and written; a place leads to its cell, or to the list of its cells.
(function () {
  "use strict";
  const board = window.board;
  const { el, fill, records } = board;
  const OF_SEVERAL = { worst: "the worst", mean: "the mean", best: "the best" };

  // One figure of several; "worst" is the largest leak, since a defense is as good as its best attack lets it be.
  function chosen(metric, cells, rule) {
    const known = cells.map((cell) => [cell, records.value(cell, metric.name)]).filter(([, value]) => value !== null && value !== undefined);
    if (!known.length) return null;
    if (rule === "mean") return { value: known.reduce((sum, [, value]) => sum + value, 0) / known.length, of: known };
    const up = (metric.better === "higher") === (rule === "best");
    const [cell, value] = known.reduce((one, other) => ((up ? other[1] > one[1] : other[1] < one[1]) ? other : one));
    return { value, cell, of: known };
  }

  function grouped(cells, rows) {
    const found = new Map();
    for (const cell of cells) {
      if (records.column.attack[cell] === "none") continue;
      const row = records.column[rows][cell];
      if (!found.has(row)) found.set(row, new Map());
      const attack = records.column.attack[cell];
      if (!found.get(row).has(attack)) found.get(row).set(attack, []);
      found.get(row).get(attack).push(cell);
    }
    return found;
  }

  // Undefended first, then by name, numbers as numbers.
  function ordered(names) {
    const rank = (name) => (name.split(" ")[0] === "none" ? 0 : 1);
    return names.sort((a, b) => rank(a) - rank(b) || board.byName(a, b));
  }

  function orderedAttacks(cells) {
    const baseline = new Set(records.found.parts.attack.filter((one) => one.baseline).map((one) => one.name));
    const names = [...new Set(cells.map((cell) => records.column.attack[cell]))].filter((name) => name !== "none");
    const rank = (name) => (name === "random" ? 0 : baseline.has(name) ? 1 : 2);
    return names.sort((a, b) => rank(a) - rank(b) || board.byName(a, b));
  }

  // How dark a value is: darker is worse for the user. A share by itself, an amount by its place among those shown.
  function shades(metric, values) {
    const sign = metric.better === "higher" ? (x) => 1 - x : (x) => x;
    if (board.numbers.isShare(metric)) return (value) => sign(Math.min(Math.max(value, 0), 1));
    const scale = values.every((value) => value > 0) ? Math.log : (x) => x;
    const [low, high] = [Math.min(...values.map(scale)), Math.max(...values.map(scale))];
    return (value) => (high > low ? sign((scale(value) - low) / (high - low)) : 0);
  }

  function place(metric, cells, rule, asked, rows, row, attack) {
    const { numbers, route } = board;
    if (!cells) return { text: "", words: "not run" };
    const found = chosen(metric, cells, rule);
    const several = route.address("cells", "", { ...board.filters.kept(asked), [rows]: row, attack, metric: metric.name });
    const href = cells.length === 1 ? route.address("cell", records.cells.id[cells[0]]) : several;
    if (!found) {
      const status = new Set(cells.map((cell) => records.cells.status[cell]));
      const text = status.has("failed") ? "failed" : numbers.MISSING;
      const why = records.cells.reason[cells[0]] || `no figure of ${metric.label}`;
      return { href, text, words: status.has("n/a") ? `does not apply: ${why}` : why };
    }
    const one = records.figure(found.cell ?? cells[0], metric.name);
    const alone = cells.length === 1 && numbers.interval(metric, one.mean, one.low, one.high);
    const small = cells.length === 1 ? alone : board.plural(cells.length, "cell");
    return { href, value: found.value, text: numbers.written(metric, found.value), small, words: cells.length > 1 ? `${OF_SEVERAL[rule]} of ${cells.length} cells` : "" };
  }

  function table(metric, rule, rows, cells, asked) {
    const found = grouped(cells, rows);
    const has = (places) => places.some((cell) => records.figure(cell, metric.name));
    const all = orderedAttacks(cells);
    const attacks = all.filter((attack) => [...found.values()].some((line) => has(line.get(attack) || [])));
    for (const [row, line] of found) if (!attacks.some((attack) => line.has(attack))) found.delete(row);
    const lines = ordered([...found.keys()]).map((row) => ({
      row,
      places: attacks.map((attack) => place(metric, found.get(row).get(attack), rule, asked, rows, row, attack)),
    }));
    const shade = shades(metric, lines.flatMap((line) => line.places).map((one) => one.value).filter(board.numbers.isNumber));
    const head = el("tr", null, el("th", { scope: "col", class: "left" }, "Defense"), attacks.map((name) => el("th", { scope: "col" }, board.breakable(name))));
    const body = lines.map((line) =>
      el("tr", null, el("th", { scope: "row", class: "left" }, board.breakable(line.row)), line.places.map((one, i) => cellOf(one, shade, line.row, attacks[i]))),
    );
    const kind = metric.kind === "privacy" ? "leaks" : "amounts";
    return {
      without: all.filter((attack) => !attacks.includes(attack)),
      node: el("table", { class: `matrix ${kind}` }, el("caption", { class: "for-readers" }, `${metric.label} by defense and attack`), el("thead", null, head), el("tbody", null, body)),
      rows: lines.flatMap((line) => line.places.filter((one) => one.href).map((one, i) => ({ defense: line.row, attack: attacks[line.places.indexOf(one)], metric: metric.name, of_several: rule, value: one.value ?? null, shown: one.text, remark: one.words }))),
    };
  }

  function cellOf(one, shade, row, attack) {
    if (!one.href) return el("td", { class: "absent" }, el("span", { class: "for-readers" }, one.words));
    const level = board.numbers.isNumber(one.value) ? shade(one.value) : null;
    const link = el(
      "a",
      { href: one.href, title: one.words || null, "aria-label": `${row} against ${attack}: ${one.text}${one.words || one.small ? `, ${one.words || one.small}` : ""}` },
      one.text,
      one.small && el("small", null, one.small),
    );
    return el("td", { class: level === null ? "none" : "shaded", style: level === null ? {} : { "--shade": level.toFixed(3) } }, link);
  }

  // Arrow keys move between places.
  function arrows(event) {
    const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    const from = event.target.closest("td");
    if (!step || !from) return;
    const rows = [...from.closest("tbody").rows];
    let [y, x] = [rows.indexOf(from.parentElement), from.cellIndex];
    for (;;) {
      [y, x] = [y + step[0], x + step[1]];
      const next = rows[y]?.cells[x];
      if (!next) return;
      const link = next.querySelector("td a");
      if (link) {
        link.focus();
        event.preventDefault();
        return;
      }
    }
  }

  function legend(metric) {
    const ends = board.numbers.isShare(metric)
      ? metric.better === "lower" ? ["0 %", "100 %"] : ["100 %", "0 %"]
      : metric.better === "lower" ? ["least", "most"] : ["most", "least"];
    const steps = [0, 0.25, 0.5, 0.75, 1].map((shade) => el("span", { class: "swatch shaded", style: { "--shade": String(shade) } }));
    return el("p", { class: `legend quiet ${metric.kind === "privacy" ? "leaks" : "amounts"}` }, ends[0], el("span", { class: "swatches", "aria-hidden": "true" }, steps), `${ends[1]}: darker is worse for the user, and of several cells the worst is the worst for the user. – the attack does not apply. Empty: not run.`);
  }

  function build(main) {
    const bar = board.filters.bar();
    const controls = [
      board.controls.metric("Metric", "metric", records.usual),
      board.controls.select("Of several cells", "of", Object.entries(OF_SEVERAL), "worst"),
      board.controls.select("A row is", "rows", [["defense", "a defense"], ["variant", "with its options"]], "defense"),
    ];
    const said = el("p", { class: "lead" });
    const box = el("div", { class: "wide", tabindex: "0", role: "region", "aria-label": "Matrix, scrolls sideways", onkeydown: arrows });
    const below = el("div");
    let shown = [];
    fill(
      main,
      el("h1", { tabindex: "-1" }, "Every defense under every attack"),
      said,
      bar.node,
      el("div", { class: "fields view" }, controls.map((one) => one.node)),
      box,
      below,
      board.download.buttons(() => "matrix", () => shown),
    );
    return (asked) => {
      const cells = bar.update(asked);
      controls.forEach((one) => one.update(asked));
      const metric = records.metrics.get(asked.metric) || records.metrics.get(records.usual);
      if (!metric) return void fill(box, el("p", { class: "empty" }, "No cell here has any figure."));
      said.textContent = `${board.sentence(metric.label)}: ${metric.description}. ${metric.better === "lower" ? "Less" : "More"} is better for the user.${records.caution(metric)}`;
      const made = table(metric, asked.of || "worst", asked.rows === "variant" ? "variant" : "defense", cells, asked);
      shown = made.rows;
      fill(box, made.rows.length ? made.node : el("p", { class: "empty" }, "No cell that is left has this metric: choose another, or remove a filter."));
      fill(below, made.rows.length > 0 && legend(metric), made.without.length > 0 && el("p", { class: "quiet" }, `Not measured by this metric: ${made.without.join(", ")}.`));
    };
  }

  board.views = { ...board.views, matrix: { title: "Matrix", build } };
})();
