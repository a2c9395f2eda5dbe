// The records of the board: cells by place, figures by cell and metric, and which cells a filter leaves.
(function () {
  "use strict";
  const board = window.board;
  const found = board.has("board", "");
  const cells = found.cells;
  const count = cells.id.length;
  const metrics = new Map(found.metrics.map((metric) => [metric.name, metric]));
  const figures = new Map(found.metrics.map((metric) => [metric.name, new Int32Array(count).fill(-1)]));
  found.figures.cell.forEach((cell, row) => {
    figures.get(found.metrics[found.figures.metric[row]].name)[cell] = row;
  });
  const places = new Map(cells.id.map((id, place) => [id, place]));

  function part(cell, kind) {
    const place = cells[kind][cell];
    return place < 0 ? null : found.parts[kind][place];
  }

  function name(cell, kind) {
    const known = part(cell, kind);
    return known ? known.name : "";
  }

  function label(cell, kind) {
    const known = part(cell, kind);
    return known ? known.label : "";
  }

  // The estimate of a metric in a cell, null where it has none.
  function figure(cell, metric) {
    const row = figures.has(metric) ? figures.get(metric)[cell] : -1;
    if (row < 0 || found.figures.mean[row] === null) return null;
    const { mean, low, high, n } = found.figures;
    return { mean: mean[row], low: low[row], high: high[row], n: n[row] };
  }

  function value(cell, metric) {
    const row = figures.has(metric) ? figures.get(metric)[cell] : -1;
    return row < 0 ? null : found.figures.mean[row];
  }

  const READ = {
    model: (cell) => name(cell, "model"),
    data: (cell) => name(cell, "data"),
    task: (cell) => name(cell, "task"),
    defense: (cell) => name(cell, "defense"),
    attack: (cell) => name(cell, "attack"),
    variant: (cell) => label(cell, "defense"),
    tried: (cell) => label(cell, "attack"),
    secret: (cell) => cells.secret[cell],
    status: (cell) => cells.status[cell],
  };
  // Read once: what a filter asks for again with each key that is pressed.
  const columns = {};
  for (const [key, read] of Object.entries(READ)) columns[key] = cells.id.map((_, cell) => read(cell));
  const words = cells.id.map((id, cell) => {
    const labels = ["defense", "attack", "model", "data", "task"].map((kind) => label(cell, kind));
    return [id, cells.name[cell], ...labels].join(" ").toLowerCase();
  });

  // The places of the cells that fit filters: by key; "text", words that all occur; "ids", a list; "all", with earlier
  // versions.
  function matching(filters) {
    const keys = Object.keys(READ).filter((key) => filters[key]);
    const asked = (filters.text || "").toLowerCase().split(/\s+/).filter(Boolean);
    const ids = filters.ids ? new Set(filters.ids.split(",")) : null;
    const left = [];
    for (let cell = 0; cell < count; cell++) {
      if (cells.superseded[cell] && !filters.all && !ids) continue;
      if (keys.some((key) => columns[key][cell] !== filters[key])) continue;
      if (ids && !ids.has(cells.id[cell])) continue;
      if (asked.every((word) => words[cell].includes(word))) left.push(cell);
    }
    return left;
  }

  function values(key) {
    return [...new Set(columns[key])].filter(Boolean).sort();
  }

  // The task where a cell has one, which stands in the place of its data.
  function matter(cell) {
    return name(cell, "task") || name(cell, "data");
  }

  // What a reader must know of a metric before comparing cells by it.
  function caution(metric) {
    return ["s", "ms", "1/s"].includes(metric.unit) ? " Times compare within one machine and one run only." : "";
  }

  // The metric that most cells of the commonest kind are asked for first.
  function usual() {
    const order = ["token_accuracy", "span_exact", "token_recovery", "rec_scratch"];
    const size = (name) => figures.get(name).reduce((sum, row) => sum + (row >= 0), 0);
    const candidates = order.filter((name) => metrics.has(name));
    return candidates.sort((a, b) => size(b) - size(a))[0] || found.metrics[0]?.name || "";
  }

  board.records = {
    found, cells, count, metrics, places, part, name, label, matter, figure, value, matching, values, caution,
    column: columns, usual: usual(), hasSuperseded: cells.superseded.some(Boolean),
  };
})();
