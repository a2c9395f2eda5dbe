// The filters that all pages of cells share: what is chosen on one goes along to the next.
(function () {
  "use strict";
  const board = window.board;
  const LABELS = {
    model: "Model",
    data: "Data",
    task: "Task",
    secret: "What is secret",
    defense: "Defense",
    attack: "Attack",
  };
  const NARROWER = { variant: "defense", tried: "attack", status: "status", ids: "cells" };
  const KEYS = [...Object.keys(LABELS), ...Object.keys(NARROWER), "text", "all"];

  // A bar of filters; update(asked) returns the places of the cells that are left.
  function bar() {
    const offered = Object.entries(LABELS)
      .map(([key, label]) => [key, label, board.records.values(key)])
      .filter(([, , values]) => values.length > 1);
    const controls = offered.map(([key, label, values]) =>
      board.controls.select(label, key, [["", "all"], ...values.map((value) => [value, value])]),
    );
    controls.push(board.controls.text("Words", "text"));
    const old = board.records.hasSuperseded ? [board.controls.check("with earlier versions", "all")] : [];
    const chips = board.el("div", { class: "chips" });
    const total = board.el("p", { class: "quiet total" });
    const drop = () => board.route.change(Object.fromEntries(KEYS.map((key) => [key, ""])));
    const clear = board.el("button", { type: "button", class: "quiet-button", onclick: drop }, "Show all");
    // Folded on a phone, so that what is filtered is seen first.
    const folded = board.el(
      "details",
      { class: "fold", open: window.innerWidth > 640 },
      board.el("summary", null, "Filters"),
      board.el("div", { class: "fields" }, controls.map((one) => one.node)),
    );
    const node = board.el(
      "form",
      { class: "filters", "aria-label": "Filters", onsubmit: (event) => event.preventDefault() },
      folded,
      board.el("div", { class: "line" }, total, chips, old.map((one) => one.node), clear),
    );

    function update(asked) {
      for (const one of [...controls, ...old]) one.update(asked);
      const left = board.records.matching(asked);
      board.fill(chips, Object.keys(NARROWER).filter((key) => asked[key]).map((key) => chip(key, asked[key])));
      const words = `${left.length.toLocaleString("en")} of ${board.plural(board.records.count, "cell")}`;
      total.textContent = words;
      clear.hidden = !KEYS.some((key) => asked[key]);
      board.announce(`${words} shown`);
      return left;
    }

    return { node, update };
  }

  function chip(key, value) {
    const shown = key === "ids" ? board.plural(value.split(",").length, "cell") : value;
    const said = {
      type: "button",
      class: "chip",
      "aria-label": `Remove the filter ${NARROWER[key]} ${shown}`,
      onclick: () => board.route.change({ [key]: "" }),
    };
    return board.el("button", said, `${shown} ×`);
  }

  // What of the address is a filter, to go along to another page.
  function kept(asked) {
    return Object.fromEntries(KEYS.filter((key) => asked[key]).map((key) => [key, asked[key]]));
  }

  board.filters = { bar, kept };
})();
