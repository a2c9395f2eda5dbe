// The declared tables: a list with the verdicts, and each with its claims, its numbers and the cells behind them.
(function () {
  "use strict";
  const board = window.board;
  const { el, fill, records } = board;
  const SIGNS = { holds: "✓", "does not": "✗", undecided: "?" };
  const PLURAL = { holds: "hold", "does not": "do not" };

  function badge(verdict, words) {
    const kind = Object.keys(SIGNS).find((name) => verdict.includes(name)) || "open";
    const sign = SIGNS[kind] && el("span", { "aria-hidden": "true" }, `${SIGNS[kind]} `);
    return el("span", { class: `badge ${kind.replace(" ", "-")}` }, sign, words);
  }

  function badges(verdicts) {
    const order = [...Object.keys(SIGNS), ...Object.keys(verdicts).filter((verdict) => !SIGNS[verdict])];
    const said = (verdict, count) => `${count} ${count > 1 ? PLURAL[verdict] || verdict : verdict}`;
    const given = order.filter((verdict) => verdicts[verdict]);
    return given.map((verdict) => badge(verdict, said(verdict, verdicts[verdict])));
  }

  // All verdicts of the list together.
  function summed(tables) {
    const total = {};
    for (const one of tables) {
      for (const [verdict, count] of Object.entries(one.verdicts)) total[verdict] = (total[verdict] || 0) + count;
    }
    return total;
  }

  function card(one) {
    return el(
      "a",
      { class: "card", href: board.route.address("tables", one.name) },
      el("strong", null, one.title),
      el("span", { class: "quiet" }, one.sample),
      el("span", { class: "badges" }, badges(one.verdicts)),
    );
  }

  function list(main) {
    const tables = records.found.tables;
    const total = summed(tables);
    const lead =
      "Each table is made of the records of this board. A verdict is computed from 95 % intervals, never typed: a " +
      "claim holds, does not, or is undecided at this n.";
    const all = el("span", { class: "quiet" }, "All claims:");
    const claims = el("p", { class: "badges total-badges" }, all, badges(total));
    const none = el("p", { class: "empty" }, "No declared table can be made of these records.");
    fill(
      main,
      el("h1", { tabindex: "-1" }, "Tables and verdicts"),
      el("p", { class: "lead" }, lead),
      Object.keys(total).length > 0 && claims,
      tables.length ? el("ul", { class: "cards" }, tables.map((one) => el("li", null, card(one)))) : none,
    );
  }

  // Where the cells behind an entry stand: one has a page, several are listed.
  function leads(ids) {
    const known = (ids || []).filter((id) => records.places.has(id));
    if (!known.length) return null;
    if (known.length === 1) return board.route.address("cell", known[0]);
    return board.route.address("cells", "", { ids: known.join(",") });
  }

  function entry(cell, column, verdict) {
    const href = leads(cell.ids);
    const small = cell.interval && el("small", null, cell.interval);
    const shown = [verdict ? badge(cell.text, cell.text) : cell.text, small];
    const shaded = cell.shade !== undefined;
    const said = {
      class: `${column.align}${shaded ? " shaded" : ""}`,
      style: shaded ? { "--shade": String(cell.shade) } : {},
      title: cell.note,
    };
    return el("td", said, href ? el("a", { href }, shown) : shown);
  }

  function rowsOf(found) {
    const said = (cell) => ({ text: cell.text, interval: cell.interval || "", cells: cell.ids || [] });
    const key = (i) => `${i + 1} ${found.columns[i].title}`;
    return found.rows.map((row) => Object.fromEntries(row.map((cell, i) => [key(i), said(cell)])));
  }

  function section(name, found, claims) {
    const last = found.columns.length - 1;
    const head = ({ align, title, unit }) => board.th(align, board.breakable(title), unit && el("small", null, unit));
    const entries = (row) => row.map((cell, i) => entry(cell, found.columns[i], claims && i === last));
    const body = el("tbody", null, found.rows.map((row) => el("tr", null, entries(row))));
    const kind = `leaks ${claims ? "claims" : "figures"}`;
    return el(
      "section",
      null,
      el("h2", null, claims ? "Claims" : "Figures"),
      board.wide(found.title, board.table(kind, found.title, found.columns.map(head), body)),
      found.notes.length > 0 && el("ul", { class: "quiet notes" }, found.notes.map((note) => el("li", null, note))),
      board.download.buttons(() => (claims ? `${name}.claims` : name), () => rowsOf(found), () => found.csv),
    );
  }

  function both(name, { table, claims }) {
    const made = table.command && el("p", { class: "quiet" }, "Made by ", el("code", null, table.command));
    return [claims && section(name, claims, true), section(name, table, false), made];
  }

  function one(main, name) {
    const head = records.found.tables.find((table) => table.name === name);
    const trail = el("p", { class: "trail" }, el("a", { href: "#/tables" }, "Tables"));
    fill(main, trail, el("h1", { tabindex: "-1" }, head ? head.title : `No table is named ${name}`));
    if (!head) return;
    const place = el("div", null, el("p", { class: "quiet" }, "Loading"));
    main.append(el("p", { class: "lead" }, head.sample), place);
    board.load("table", name).then(
      (found) => fill(place, both(name, found)),
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
