// The declared tables: a list with the verdicts, and each with its claims, its numbers and the cells behind them.
(function () {
  "use strict";
  const board = window.board;
  const { el, fill, records } = board;
  const SIGNS = { holds: "✓", "does not": "✗", undecided: "?" };

  function badge(verdict, words) {
    const kind = Object.keys(SIGNS).find((name) => verdict.includes(name)) || "open";
    return el("span", { class: `badge ${kind.replace(" ", "-")}` }, SIGNS[kind] && el("span", { "aria-hidden": "true" }, `${SIGNS[kind]} `), words);
  }

  function badges(verdicts) {
    const said = { holds: ["holds", "hold"], "does not": ["does not", "do not"] };
    const order = [...Object.keys(SIGNS), ...Object.keys(verdicts).filter((verdict) => !SIGNS[verdict])];
    return order.filter((verdict) => verdicts[verdict]).map((verdict) => badge(verdict, `${verdicts[verdict]} ${said[verdict] ? said[verdict][verdicts[verdict] > 1 ? 1 : 0] : verdict}`));
  }

  function list(main) {
    const tables = records.found.tables;
    const total = {};
    for (const one of tables) for (const [verdict, count] of Object.entries(one.verdicts)) total[verdict] = (total[verdict] || 0) + count;
    const items = tables.map((one) =>
      el(
        "li",
        null,
        el("a", { class: "card", href: board.route.address("tables", one.name) }, el("strong", null, one.title), el("span", { class: "quiet" }, one.sample), el("span", { class: "badges" }, badges(one.verdicts))),
      ),
    );
    fill(
      main,
      el("h1", { tabindex: "-1" }, "Tables and verdicts"),
      el("p", { class: "lead" }, "Each table is made of the records of this board. A verdict is computed from 95 % intervals, never typed: a claim holds, does not, or is undecided at this n."),
      Object.keys(total).length > 0 && el("p", { class: "badges total-badges" }, el("span", { class: "quiet" }, "All claims:"), badges(total)),
      items.length ? el("ul", { class: "cards" }, items) : el("p", { class: "empty" }, "No declared table can be made of these records."),
    );
  }

  function entry(cell, column, verdict) {
    const ids = (cell.ids || []).filter((id) => records.places.has(id));
    const href = ids.length && (ids.length === 1 ? board.route.address("cell", ids[0]) : board.route.address("cells", "", { ids: ids.join(",") }));
    const shown = [verdict ? badge(cell.text, cell.text) : cell.text, cell.interval && el("small", null, cell.interval)];
    const shaded = cell.shade !== undefined;
    return el("td", { class: `${column.align}${shaded ? " shaded" : ""}`, style: shaded ? { "--shade": String(cell.shade) } : {}, title: cell.note || null }, href ? el("a", { href }, shown) : shown);
  }

  function section(name, found, claims) {
    const last = found.columns.length - 1;
    const head = found.columns.map((column) => el("th", { scope: "col", class: column.align }, board.breakable(column.title), column.unit && el("small", null, column.unit)));
    const body = found.rows.map((row) => el("tr", null, row.map((cell, i) => entry(cell, found.columns[i], claims && i === last))));
    const rows = () => found.rows.map((row) => Object.fromEntries(row.map((cell, i) => [`${i + 1} ${found.columns[i].title}`, { text: cell.text, interval: cell.interval || "", cells: cell.ids || [] }])));
    return el(
      "section",
      null,
      el("h2", null, claims ? "Claims" : "Figures"),
      el("div", { class: "wide", tabindex: "0", role: "region", "aria-label": `${found.title}, scrolls sideways` }, el("table", { class: claims ? "leaks claims" : "leaks figures" }, el("caption", { class: "for-readers" }, found.title), el("thead", null, el("tr", null, head)), el("tbody", null, body))),
      found.notes.length > 0 && el("ul", { class: "quiet notes" }, found.notes.map((note) => el("li", null, note))),
      board.download.buttons(() => (claims ? `${name}.claims` : name), rows, () => found.csv),
    );
  }

  function one(main, name) {
    const head = records.found.tables.find((table) => table.name === name);
    fill(main, el("p", { class: "trail" }, el("a", { href: "#/tables" }, "Tables")), el("h1", { tabindex: "-1" }, head ? head.title : `No table is named ${name}`));
    if (!head) return;
    const place = el("div", null, el("p", { class: "quiet" }, "Loading"));
    main.append(el("p", { class: "lead" }, head.sample), place);
    board.load("table", name).then(
      (found) => fill(place, found.claims && section(name, found.claims, true), section(name, found.table, false), found.table.command && el("p", { class: "quiet" }, "Made by ", el("code", null, found.table.command))),
      (error) => fill(place, el("p", { class: "empty" }, error.message)),
    );
  }

  function build(main) {
    let shown = null;
    return (asked, name) => {
      if (shown === name) return;
      shown = name;
      if (name) one(main, name);
      else list(main);
    };
  }

  board.views = { ...board.views, tables: { title: "Tables", build } };
})();
