// The cells that the filters leave, a row a cell, sorted by any column.
(function () {
  "use strict";
  const board = window.board;
  const { el, fill, records, numbers } = board;
  const PAGE = 50;

  function columns(metric) {
    return [
      { key: "defense", title: "Defense", read: (cell) => records.label(cell, "defense") },
      { key: "attack", title: "Attack", read: (cell) => records.label(cell, "attack") },
      { key: "model", title: "Model", read: (cell) => records.name(cell, "model") },
      { key: "data", title: "Data or task", read: records.matter },
      { key: "seed", title: "Seed", right: true, read: (cell) => records.cells.seed[cell] },
      { key: "status", title: "Status", read: (cell) => records.cells.status[cell] },
      {
        key: "value",
        title: metric ? metric.label : "Value",
        unit: metric && metric.unit,
        right: true,
        read: (cell) => (metric ? records.value(cell, metric.name) : null),
      },
    ];
  }

  // Sorted by a column; what is absent comes last either way.
  function sorted(cells, column, down) {
    const sign = down ? -1 : 1;
    const absent = (value) => value === null || value === undefined || value === "";
    const compare = (one, other) => (typeof one === "number" ? one - other : board.byName(one, other));
    return cells
      .map((cell) => [cell, column.read(cell)])
      .sort(([a, one], [b, other]) => {
        if (absent(one) || absent(other)) return absent(one) - absent(other) || a - b;
        return sign * compare(one, other) || a - b;
      })
      .map(([cell]) => cell);
  }

  function line(cell, metric, shown) {
    return el("tr", null, shown.map((column) => entry(cell, metric, column)));
  }

  function entry(cell, metric, column) {
    const text = column.read(cell);
    switch (column.key) {
      case "defense": {
        const href = board.route.address("cell", records.cells.id[cell]);
        return board.rowHead(el("a", { href }, board.breakable(text)));
      }
      case "value":
        return board.td("right", numbers.entry(metric, metric && records.figure(cell, metric.name)));
      case "status":
        return el("td", { class: "left", title: records.cells.reason[cell] || null }, text);
      default:
        return board.td(column.right ? "right" : "left", board.breakable(text));
    }
  }

  function heading(column, asked) {
    const active = (asked.sort || "defense") === column.key;
    const down = asked.down === "1";
    const turn = () => board.route.change({ sort: column.key, down: active && !down ? "1" : "" });
    const arrow = active ? (down ? " ↓" : " ↑") : "";
    return el(
      "th",
      {
        scope: "col",
        class: column.right ? "right" : "left",
        "aria-sort": active ? (down ? "descending" : "ascending") : null,
      },
      el(
        "button",
        { type: "button", class: "sorter", onclick: turn },
        column.title,
        el("span", { "aria-hidden": "true" }, arrow),
      ),
      column.unit && el("small", null, column.unit),
    );
  }

  function rowsOf(cells, metric) {
    return cells.map((cell) => {
      const figure = (metric && records.figure(cell, metric.name)) || {};
      return {
        cell: records.cells.id[cell],
        defense: records.label(cell, "defense"),
        attack: records.label(cell, "attack"),
        model: records.name(cell, "model"),
        data: records.name(cell, "data"),
        task: records.name(cell, "task"),
        seed: records.cells.seed[cell],
        status: records.cells.status[cell],
        reason: records.cells.reason[cell],
        metric: metric ? metric.name : "",
        mean: figure.mean ?? null,
        low: figure.low ?? null,
        high: figure.high ?? null,
        n: figure.n ?? null,
      };
    });
  }

  function build(main) {
    const bar = board.filters.bar();
    const metrics = board.controls.metric("Metric", "metric", records.usual);
    const [box, more] = [board.wide("Cells"), el("div", { class: "line" })];
    const lead =
      "A cell is one experiment: a model, data, a defense, an attack, a seed. Each has a page with all its numbers, " +
      "where they come from, and its prompts.";
    let [shown, metric] = [[], null];
    fill(
      main,
      el("h1", { tabindex: "-1" }, "Cells"),
      el("p", { class: "lead" }, lead),
      bar.node,
      el("div", { class: "fields view" }, metrics.node),
      box,
      more,
      board.download.buttons(() => "cells", () => rowsOf(shown, metric)),
    );
    return (asked) => {
      const left = bar.update(asked);
      metrics.update(asked);
      metric = records.metrics.get(asked.metric) || records.metrics.get(records.usual) || null;
      const all = columns(metric);
      shown = sorted(left, all.find((column) => column.key === asked.sort) || all[0], asked.down === "1");
      const body = el("tbody", null, shown.slice(0, PAGE).map((cell) => line(cell, metric, all)));
      const table = board.table("plain", "Cells", all.map((column) => heading(column, asked)), body);
      fill(box, shown.length ? table : el("p", { class: "empty" }, "No cell is left: remove a filter."));
      extend(more, shown, (cells) => body.append(...cells.map((cell) => line(cell, metric, all))));
    };
  }

  // A button that shows the next of many.
  function extend(place, all, add) {
    let upto = PAGE;
    function offer() {
      if (upto >= all.length) return void fill(place);
      const button = el("button", { type: "button", onclick: next }, `Show ${Math.min(PAGE, all.length - upto)} more`);
      fill(place, button, el("span", { class: "quiet" }, `${upto} of ${all.length.toLocaleString("en")}`));
    }
    function next() {
      add(all.slice(upto, upto + PAGE));
      upto += PAGE;
      offer();
      place.querySelector("button")?.focus();
    }
    offer();
  }

  board.views = { ...board.views, cells: { title: "Cells", build } };
})();
