// Any two metrics against each other, a mark a cell, with intervals; those that no other beats on both are joined.
(function () {
  "use strict";
  const board = window.board;
  const { el, fill, records, numbers } = board;
  const SYMBOLS = ["circle", "rect", "diamond", "triangle", "arrow", "roundRect", "pin"];
  const COLOURS = 8;
  const MOST_INTERVALS = 1500;
  const ROWS = 100;

  function points(cells, x, y, strongest) {
    const found = [];
    for (const cell of cells) {
      const [one, other] = [records.figure(cell, x.name), records.figure(cell, y.name)];
      if (one && other) found.push({ cell, x: one, y: other });
    }
    if (!strongest) return found;
    const leak = [x, y].find((metric) => metric.kind === "privacy");
    if (!leak) return found;
    const axis = leak === x ? "x" : "y";
    const worse = (a, b) => (leak.better === "lower" ? a[axis].mean > b[axis].mean : a[axis].mean < b[axis].mean);
    const best = new Map();
    const tested = new Set();
    for (const point of found) {
      const setting = records.cells.setting[point.cell];
      if (!records.part(point.cell, "attack").baseline) tested.add(setting);
      if (!best.has(setting) || worse(point, best.get(setting))) best.set(setting, point);
    }
    // Where only guesses were tried that read nothing, a low leak would say nothing of the defense.
    return [...best].filter(([setting]) => tested.has(setting)).map(([, point]) => point);
  }

  // Those that no other equals or beats on both and beats on one, best x first.
  function undominated(found, x, y) {
    const [sx, sy] = [x, y].map((metric) => (metric.better === "lower" ? 1 : -1));
    const sorted = [...found].sort((a, b) => sx * (a.x.mean - b.x.mean) || sy * (a.y.mean - b.y.mean));
    const best = [];
    for (const point of sorted) if (!best.length || sy * point.y.mean < sy * best[best.length - 1].y.mean) best.push(point);
    return best;
  }

  function axis(metric, log, place) {
    const share = numbers.isShare(metric);
    return {
      type: log ? "log" : "value",
      name: `${metric.label}${metric.unit ? ` (${metric.unit})` : ""} · ${metric.better === "lower" ? "less" : "more"} is better`,
      nameLocation: "middle",
      nameGap: place === "x" ? 32 : 58,
      min: share && !log ? 0 : null,
      max: share && !log ? 1 : null,
      scale: !share,
      axisLabel: { formatter: (value) => (share ? numbers.share(value) : metric.unit === "B" ? numbers.byteCount(value) : Number(value.toPrecision(3)).toLocaleString("en")), hideOverlap: true },
    };
  }

  function hint(point, x, y) {
    const line = (metric, estimate) => {
      const ends = numbers.interval(metric, estimate.mean, estimate.low, estimate.high);
      return el("div", null, `${metric.label}: `, el("b", null, numbers.written(metric, estimate.mean)), ends && ` (${ends})`);
    };
    return el(
      "div",
      { class: "hint" },
      el("strong", null, records.label(point.cell, "defense")),
      el("div", null, `against ${records.label(point.cell, "attack")}`),
      line(x, point.x),
      line(y, point.y),
      el("div", { class: "quiet" }, `${records.name(point.cell, "model")}, ${records.name(point.cell, "task") || records.name(point.cell, "data")}, seed ${records.cells.seed[point.cell]}, n = ${point.x.n}`),
    );
  }

  // An interval as a line across the mark, drawn by the library's own custom series.
  function interval(params, api) {
    const across = api.value(4);
    const [a, b] = across ? [[api.value(0), api.value(2)], [api.value(0), api.value(3)]] : [[api.value(2), api.value(1)], [api.value(3), api.value(1)]];
    const [from, to] = [api.coord(a), api.coord(b)];
    return { type: "line", shape: { x1: from[0], y1: from[1], x2: to[0], y2: to[1] }, style: { stroke: api.visual("color"), lineWidth: 1, opacity: 0.3 }, silent: true };
  }

  function intervals(found, fits) {
    const known = (estimate) => numbers.isNumber(estimate.low) && numbers.isNumber(estimate.high);
    return found.flatMap((point) => [
      ...(known(point.x) && fits(point.x.low, "x") ? [[point.x.mean, point.y.mean, point.x.low, point.x.high, 0]] : []),
      ...(known(point.y) && fits(point.y.low, "y") ? [[point.x.mean, point.y.mean, point.y.low, point.y.high, 1]] : []),
    ]);
  }

  function option(found, best, x, y, asked) {
    const colour = board.theme.colour;
    const logs = { x: asked.logx === "1", y: asked.logy === "1" };
    const fits = (value, axis) => !logs[axis] || value > 0;
    const drawn = found.filter((point) => fits(point.x.mean, "x") && fits(point.y.mean, "y"));
    const by = asked.by || "defense";
    const names = [...new Set(records.values(by))];
    const groups = names.map((name, i) => ({ name, i, points: drawn.filter((point) => records.column[by][point.cell] === name) })).filter((group) => group.points.length);
    const narrow = window.innerWidth < 600;
    const text = { color: colour("ink"), fontFamily: "inherit" };
    const lines = { axisLine: { lineStyle: { color: colour("quiet") } }, splitLine: { lineStyle: { color: colour("rule") } } };
    const ruled = (made) => ({ ...made, ...lines, nameTextStyle: { color: colour("ink") }, axisLabel: { ...made.axisLabel, color: colour("ink") } });
    const series = groups.flatMap((group) => {
      const item = colour(`category-${group.i % COLOURS}`);
      const hollow = group.i % (2 * COLOURS) >= COLOURS; // colours begin again
      const dress = hollow ? { color: colour("paper"), borderColor: item, borderWidth: 2 } : { color: item, borderColor: colour("paper"), borderWidth: 1 };
      const marks = { type: "scatter", name: group.name, symbol: SYMBOLS[group.i % SYMBOLS.length], symbolSize: found.length > 1000 ? 6 : 10, itemStyle: dress, clip: false, data: group.points.map((point) => ({ value: [point.x.mean, point.y.mean], point })), z: 3 };
      const shown = asked.intervals !== "0" && drawn.length <= MOST_INTERVALS ? intervals(group.points, fits) : [];
      return shown.length ? [marks, { type: "custom", name: group.name, renderItem: interval, itemStyle: { color: item }, data: shown, encode: { x: [0], y: [1] }, silent: true, tooltip: { show: false }, z: 2, clip: true }] : [marks];
    });
    if (best.length > 1) series.push({ type: "line", name: "no other beats these on both", data: best.filter((point) => drawn.includes(point)).map((point) => [point.x.mean, point.y.mean]), symbol: "none", lineStyle: { color: colour("quiet"), width: 1.5, type: "dashed" }, itemStyle: { color: colour("quiet") }, silent: true, z: 1 });
    return {
      animation: false,
      textStyle: text,
      grid: { left: narrow ? 60 : 78, right: 18, top: 16, bottom: narrow ? 104 : 92 },
      legend: { type: "scroll", bottom: 0, itemWidth: 16, itemHeight: 11, textStyle: { color: colour("ink") }, pageTextStyle: { color: colour("quiet") }, pageIconColor: colour("ink"), pageIconInactiveColor: colour("rule") },
      tooltip: { trigger: "item", confine: true, backgroundColor: colour("paper"), borderColor: colour("rule"), textStyle: { color: colour("ink"), fontSize: 13 }, formatter: (params) => (params.data.point ? hint(params.data.point, x, y) : "") },
      xAxis: ruled(axis(x, logs.x, "x")),
      yAxis: ruled(axis(y, logs.y, "y")),
      series,
    };
  }

  function row(point, x, y) {
    const of = (metric, estimate) => ({ [metric.name]: estimate.mean, [`${metric.name}_low`]: estimate.low, [`${metric.name}_high`]: estimate.high, [`${metric.name}_n`]: estimate.n });
    const cell = point.cell;
    return { cell: records.cells.id[cell], defense: records.label(cell, "defense"), attack: records.label(cell, "attack"), model: records.name(cell, "model"), data: records.name(cell, "task") || records.name(cell, "data"), seed: records.cells.seed[cell], ...of(x, point.x), ...of(y, point.y) };
  }

  function pointsTable(title, found, x, y) {
    const head = ["Defense", "Attack", x.label, y.label].map((name, i) => el("th", { scope: "col", class: i < 2 ? "left" : "right" }, name));
    const entry = (metric, estimate) => el("td", { class: "right" }, numbers.written(metric, estimate.mean), el("small", null, numbers.interval(metric, estimate.mean, estimate.low, estimate.high)));
    const body = found.slice(0, ROWS).map((point) =>
      el("tr", null, el("th", { scope: "row", class: "left" }, el("a", { href: board.route.address("cell", records.cells.id[point.cell]) }, records.label(point.cell, "defense"))), el("td", { class: "left" }, records.label(point.cell, "attack")), entry(x, point.x), entry(y, point.y)),
    );
    return [
      el("div", { class: "wide", tabindex: "0", role: "region", "aria-label": `${title}, scrolls sideways` }, el("table", { class: "plain" }, el("caption", { class: "for-readers" }, title), el("thead", null, el("tr", null, head)), el("tbody", null, body))),
      found.length > ROWS && el("p", { class: "quiet" }, `${found.length - ROWS} more in the download.`),
    ];
  }

  function build(main) {
    const bar = board.filters.bar();
    const usual = (kind, wanted) => [...wanted, ...records.found.metrics.filter((one) => one.kind === kind).map((one) => one.name)].find((name) => records.metrics.has(name)) || records.usual;
    const first = { x: records.usual, y: usual("utility", ["greedy_equal", "accuracy", "kl"]) };
    const controls = [
      board.controls.metric("Across", "x", first.x),
      board.controls.metric("Up", "y", first.y),
      board.controls.select("A mark is", "show", [["strongest", "a setting, strongest attack"], ["every", "every cell"]], "strongest"),
      board.controls.select("Coloured by", "by", [["defense", "defense"], ["attack", "attack"], ["model", "model"], ["secret", "what is secret"]], "defense"),
    ];
    const checks = [board.controls.check("logarithmic across", "logx"), board.controls.check("logarithmic up", "logy"), board.controls.check("intervals", "intervals", true)];
    const said = el("p", { class: "lead" });
    const place = el("div", { class: "chart", id: "chart", role: "img" });
    const below = el("div");
    let [shown, axes] = [[], null];
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
    chart.on("click", (params) => params.data?.point && (location.hash = board.route.address("cell", records.cells.id[params.data.point.cell])));
    const resize = new ResizeObserver(() => chart.resize());
    resize.observe(place);

    function update(asked) {
      const cells = bar.update(asked);
      [...controls, ...checks].forEach((one) => one.update(asked));
      const [x, y] = ["x", "y"].map((key) => records.metrics.get(asked[key]) || records.metrics.get(first[key]));
      if (!x || !y) return void fill(below, el("p", { class: "empty" }, "No cell here has any figure."));
      shown = points(cells, x, y, asked.show !== "every");
      axes = [x, y];
      const best = undominated(shown, x, y);
      said.textContent = `${board.plural(shown.length, "mark")}; ${best.length} that no other beats on both axes. Lines are 95 % intervals. A mark leads to its cell.${records.caution(x) || records.caution(y)}`;
      place.setAttribute("aria-label", `${y.label} against ${x.label}: ${board.plural(shown.length, "mark")}. The tables below hold the same figures.`);
      chart.setOption(option(shown, best, x, y, asked), { notMerge: true });
      fill(
        below,
        shown.length ? [el("h2", null, "No other beats these on both"), pointsTable("Settings that no other beats on both axes", best, x, y), el("details", null, el("summary", null, "All marks as a table"), pointsTable("All marks", shown, x, y))] : el("p", { class: "empty" }, "No cell that is left has both figures: choose other axes, or remove a filter."),
      );
    }

    update.leave = () => {
      resize.disconnect();
      chart.dispose();
    };
    return update;
  }

  board.views = { ...board.views, frontier: { title: "Frontier", build } };
})();
