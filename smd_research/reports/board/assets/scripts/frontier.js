// Any two metrics against each other, a mark a cell, with intervals; those that no other beats on both are joined.
(function () {
  "use strict";
  const board = window.board;
  const { el, fill, records, numbers } = board;
  const SYMBOLS = ["circle", "rect", "diamond", "triangle", "arrow", "roundRect", "pin"];
  const COLOURS = 8;
  const MOST_INTERVALS = 1500;
  const ROWS = 100;

  // A mark for each cell that has both figures, or for each setting under its strongest attack.
  function points(cells, x, y, strongest) {
    const found = [];
    for (const cell of cells) {
      const [one, other] = [records.figure(cell, x.name), records.figure(cell, y.name)];
      if (one && other) found.push({ cell, x: one, y: other });
    }
    const leak = [x, y].find((metric) => metric.kind === "privacy");
    return strongest && leak ? strongestOf(found, leak === x ? "x" : "y", leak.better) : found;
  }

  function strongestOf(found, axis, better) {
    const sign = better === "lower" ? 1 : -1;
    const [best, tested] = [new Map(), new Set()];
    for (const point of found) {
      const setting = records.cells.setting[point.cell];
      if (!records.part(point.cell, "attack").baseline) tested.add(setting);
      const before = best.get(setting);
      if (!before || sign * point[axis].mean > sign * before[axis].mean) best.set(setting, point);
    }
    // Where only guesses were tried that read nothing, a low leak would say nothing of the defense.
    return [...best].filter(([setting]) => tested.has(setting)).map(([, point]) => point);
  }

  // Those that no other equals or beats on both and beats on one, best across first.
  function undominated(found, x, y) {
    const [sx, sy] = [x, y].map((metric) => (metric.better === "lower" ? 1 : -1));
    const sorted = [...found].sort((a, b) => sx * (a.x.mean - b.x.mean) || sy * (a.y.mean - b.y.mean));
    const best = [];
    for (const point of sorted) {
      if (!best.length || sy * point.y.mean < sy * best[best.length - 1].y.mean) best.push(point);
    }
    return best;
  }

  function axis(metric, log, place) {
    const [share, colour] = [numbers.isShare(metric), board.theme.colour];
    const tick = (value) => {
      if (share) return numbers.share(value);
      return metric.unit === "B" ? numbers.byteCount(value) : Number(value.toPrecision(3)).toLocaleString("en");
    };
    const better = metric.better === "lower" ? "less" : "more";
    return {
      type: log ? "log" : "value",
      name: `${metric.label}${metric.unit ? ` (${metric.unit})` : ""} · ${better} is better`,
      nameLocation: "middle",
      nameGap: place === "x" ? 32 : 58,
      nameTextStyle: { color: colour("ink") },
      min: share && !log ? 0 : null,
      max: share && !log ? 1 : null,
      scale: !share,
      axisLine: { lineStyle: { color: colour("quiet") } },
      splitLine: { lineStyle: { color: colour("rule") } },
      axisLabel: { color: colour("ink"), formatter: tick, hideOverlap: true },
    };
  }

  // What stands beside the pointer.
  function hint(point, x, y) {
    const line = (metric, figure) => {
      const ends = numbers.interval(metric, figure.mean, figure.low, figure.high);
      const mean = el("b", null, numbers.written(metric, figure.mean));
      return el("div", null, `${metric.label}: `, mean, ends && ` (${ends})`);
    };
    const cell = point.cell;
    const seed = `seed ${records.cells.seed[cell]}`;
    const where = [records.name(cell, "model"), records.matter(cell), seed, `n = ${point.x.n}`];
    return el(
      "div",
      { class: "hint" },
      el("strong", null, records.label(cell, "defense")),
      el("div", null, `against ${records.label(cell, "attack")}`),
      line(x, point.x),
      line(y, point.y),
      el("div", { class: "quiet" }, where.join(", ")),
    );
  }

  // An interval as a line through its mark, in the library's own custom series: x, y, low, high, whether it stands.
  function interval(params, api) {
    const [x, y, low, high, stands] = [0, 1, 2, 3, 4].map((place) => api.value(place));
    const [from, to] = (stands ? [[x, low], [x, high]] : [[low, y], [high, y]]).map((end) => api.coord(end));
    const style = { stroke: api.visual("color"), lineWidth: 1, opacity: 0.3 };
    return { type: "line", shape: { x1: from[0], y1: from[1], x2: to[0], y2: to[1] }, style, silent: true };
  }

  function intervals(found, fits) {
    const known = (point, side) =>
      numbers.isNumber(point[side].low) && numbers.isNumber(point[side].high) && fits(point[side].low, side);
    const line = (point, side) => [point.x.mean, point.y.mean, point[side].low, point[side].high, side === "y" ? 1 : 0];
    return found.flatMap((point) => ["x", "y"].filter((side) => known(point, side)).map((side) => line(point, side)));
  }

  // The marks of one kind and, below them, their intervals.
  function kind(group, dense, fits, withIntervals) {
    const [colour, paper] = [board.theme.colour(`category-${group.number % COLOURS}`), board.theme.colour("paper")];
    const hollow = group.number % (2 * COLOURS) >= COLOURS; // colours begin again
    const filled = { color: colour, borderColor: paper, borderWidth: 1 };
    const marks = {
      type: "scatter",
      name: group.name,
      symbol: SYMBOLS[group.number % SYMBOLS.length],
      symbolSize: dense ? 6 : 10,
      itemStyle: hollow ? { color: paper, borderColor: colour, borderWidth: 2 } : filled,
      data: group.points.map((point) => ({ value: [point.x.mean, point.y.mean], point })),
      clip: false,
      z: 3,
    };
    const lines = {
      type: "custom",
      name: group.name,
      renderItem: interval,
      itemStyle: { color: colour },
      data: withIntervals ? intervals(group.points, fits) : [],
      encode: { x: [0], y: [1] },
      silent: true,
      tooltip: { show: false },
      clip: true,
      z: 2,
    };
    return lines.data.length ? [marks, lines] : [marks];
  }

  function joined(best) {
    const quiet = board.theme.colour("quiet");
    return {
      type: "line",
      name: "no other beats these on both",
      data: best.map((point) => [point.x.mean, point.y.mean]),
      symbol: "none",
      lineStyle: { color: quiet, width: 1.5, type: "dashed" },
      itemStyle: { color: quiet },
      silent: true,
      z: 1,
    };
  }

  function option(found, best, x, y, asked) {
    const colour = board.theme.colour;
    const logs = { x: asked.logx === "1", y: asked.logy === "1" };
    const fits = (value, side) => !logs[side] || value > 0;
    const drawn = found.filter((point) => fits(point.x.mean, "x") && fits(point.y.mean, "y"));
    const by = records.column[asked.by] || records.column.defense;
    const groups = [...new Set(by)].filter(Boolean).sort().map((name, number) => ({
      name, number, points: drawn.filter((point) => by[point.cell] === name),
    }));
    const withIntervals = asked.intervals !== "0" && drawn.length <= MOST_INTERVALS;
    const shown = groups.filter((group) => group.points.length);
    const series = shown.flatMap((group) => kind(group, drawn.length > 1000, fits, withIntervals));
    if (best.length > 1) series.push(joined(best.filter((point) => drawn.includes(point))));
    const narrow = window.innerWidth < 600;
    return {
      animation: false,
      textStyle: { color: colour("ink"), fontFamily: "inherit" },
      grid: { left: narrow ? 60 : 78, right: 18, top: 16, bottom: narrow ? 104 : 92 },
      legend: {
        type: "scroll",
        bottom: 0,
        itemWidth: 16,
        itemHeight: 11,
        textStyle: { color: colour("ink") },
        pageTextStyle: { color: colour("quiet") },
        pageIconColor: colour("ink"),
        pageIconInactiveColor: colour("rule"),
      },
      tooltip: {
        trigger: "item",
        confine: true,
        backgroundColor: colour("paper"),
        borderColor: colour("rule"),
        textStyle: { color: colour("ink"), fontSize: 13 },
        formatter: (params) => (params.data.point ? hint(params.data.point, x, y) : ""),
      },
      xAxis: axis(x, logs.x, "x"),
      yAxis: axis(y, logs.y, "y"),
      series,
    };
  }

  function row(point, x, y) {
    const cell = point.cell;
    const made = {
      cell: records.cells.id[cell],
      defense: records.label(cell, "defense"),
      attack: records.label(cell, "attack"),
      model: records.name(cell, "model"),
      data: records.matter(cell),
      seed: records.cells.seed[cell],
    };
    for (const [metric, figure] of [[x, point.x], [y, point.y]]) {
      made[metric.name] = figure.mean;
      for (const key of ["low", "high", "n"]) made[`${metric.name}_${key}`] = figure[key];
    }
    return made;
  }

  function pointsTable(title, found, x, y) {
    const { th, td } = board;
    const heads = [th("left", "Defense"), th("left", "Attack"), th("right", x.label), th("right", y.label)];
    const rows = found.slice(0, ROWS).map((point) => {
      const [defense, attack] = ["defense", "attack"].map((kind) => records.label(point.cell, kind));
      const link = el("a", { href: board.route.address("cell", records.cells.id[point.cell]) }, defense);
      const figures = [numbers.entry(x, point.x), numbers.entry(y, point.y)].map((one) => td("right", one));
      return el("tr", null, board.rowHead(link), td("left", attack), figures);
    });
    const rest = found.length - rows.length;
    return [
      board.wide(title, board.table("plain", title, heads, el("tbody", null, rows))),
      rest > 0 && el("p", { class: "quiet" }, `${rest} more in the download.`),
    ];
  }

  // The first metric of some that there is, else the first of a kind.
  function first(wanted, kind) {
    const others = records.found.metrics.filter((one) => one.kind === kind).map((one) => one.name);
    return [...wanted, ...others].find((name) => records.metrics.has(name)) || records.usual;
  }

  function build(main) {
    const bar = board.filters.bar();
    const usual = { x: records.usual, y: first(["greedy_equal", "accuracy", "kl"], "utility") };
    const marks = [["strongest", "a setting, strongest attack"], ["every", "every cell"]];
    const kinds = [["defense", "defense"], ["attack", "attack"], ["model", "model"], ["secret", "what is secret"]];
    const controls = [
      board.controls.metric("Across", "x", usual.x),
      board.controls.metric("Up", "y", usual.y),
      board.controls.select("A mark is", "show", marks, "strongest"),
      board.controls.select("Coloured by", "by", kinds, "defense"),
    ];
    const checks = [
      board.controls.check("logarithmic across", "logx"),
      board.controls.check("logarithmic up", "logy"),
      board.controls.check("intervals", "intervals", true),
    ];
    const [said, below] = [el("p", { class: "lead" }), el("div")];
    const place = el("div", { class: "chart", id: "chart", role: "img" });
    let [shown, axes] = [[], []];
    fill(
      main,
      el("h1", { tabindex: "-1" }, "What is kept against what is found"),
      said,
      bar.node,
      el("div", { class: "fields view" }, controls.map((one) => one.node)),
      el("div", { class: "line" }, checks.map((one) => one.node)),
      place,
      board.download.buttons(() => "frontier", () => shown.map((point) => row(point, ...axes))),
      below,
    );
    const chart = window.echarts.init(place);
    board.chart = chart;
    chart.on("click", ({ data }) => {
      if (data?.point) location.hash = board.route.address("cell", records.cells.id[data.point.cell]);
    });
    const resize = new ResizeObserver(() => chart.resize());
    resize.observe(place);

    function update(asked) {
      const cells = bar.update(asked);
      [...controls, ...checks].forEach((one) => one.update(asked));
      const [x, y] = ["x", "y"].map((key) => records.metrics.get(asked[key]) || records.metrics.get(usual[key]));
      if (!x || !y) return void fill(below, el("p", { class: "empty" }, "No cell here has any figure."));
      [shown, axes] = [points(cells, x, y, asked.show !== "every"), [x, y]];
      const best = undominated(shown, x, y);
      const count = board.plural(shown.length, "mark");
      said.textContent =
        `${count}; ${best.length} that no other beats on both axes. Lines are 95 % intervals. ` +
        "A mark leads to its cell." +
        (records.caution(x) || records.caution(y));
      const same = "The tables below hold the same figures.";
      place.setAttribute("aria-label", `${y.label} against ${x.label}: ${count}. ${same}`);
      chart.setOption(option(shown, best, x, y, asked), { notMerge: true });
      const none = "No cell that is left has both figures: choose other axes, or remove a filter.";
      fill(below, shown.length ? listed(best, shown, x, y) : el("p", { class: "empty" }, none));
    }

    update.leave = () => {
      resize.disconnect();
      chart.dispose();
    };
    return update;
  }

  function listed(best, shown, x, y) {
    return [
      el("h2", null, "No other beats these on both"),
      pointsTable("Settings that no other beats on both axes", best, x, y),
      el("details", null, el("summary", null, "All marks as a table"), pointsTable("All marks", shown, x, y)),
    ];
  }

  board.views = { ...board.views, frontier: { title: "Frontier", build } };
})();
