// Labelled choices whose value stands in the address.
(function () {
  "use strict";
  const board = window.board;
  let made = 0;

  function field(label, control) {
    control.id = `control-${++made}`;
    return board.el("div", { class: "field" }, board.el("label", { for: control.id }, label), control);
  }

  // A choice; options are [value, text] or a group {label, options}.
  function select(label, key, options, otherwise) {
    const option = ([value, text]) => board.el("option", { value }, text);
    const group = (one) => board.el("optgroup", { label: one.label }, one.options.map(option));
    const control = board.el(
      "select",
      { onchange: () => board.route.change({ [key]: control.value === otherwise ? "" : control.value }) },
      options.map((one) => (Array.isArray(one) ? option(one) : group(one))),
    );
    return { node: field(label, control), update: (asked) => (control.value = asked[key] || otherwise || "") };
  }

  function metric(label, key, otherwise) {
    const of = (kind) => board.records.found.metrics.filter((one) => one.kind === kind);
    const named = (one) => [one.name, `${one.label} · ${one.name}`];
    const groups = ["privacy", "utility", "cost"].map((kind) => ({ label: kind, options: of(kind).map(named) }));
    return select(label, key, groups.filter((group) => group.options.length), otherwise);
  }

  function check(label, key, otherwise) {
    const on = otherwise ? "" : "1";
    const off = otherwise ? "0" : "";
    const change = () => board.route.change({ [key]: control.checked ? on : off });
    const control = board.el("input", { type: "checkbox", onchange: change });
    control.id = `control-${++made}`;
    const node = board.el("div", { class: "check" }, control, board.el("label", { for: control.id }, label));
    return { node, update: (asked) => (control.checked = otherwise ? asked[key] !== "0" : asked[key] === "1") };
  }

  function text(label, key) {
    const control = board.el("input", {
      type: "search",
      autocomplete: "off",
      spellcheck: "false",
      oninput: () => board.route.change({ [key]: control.value }, true),
    });
    return {
      node: field(label, control),
      update: (asked) => {
        if (document.activeElement !== control) control.value = asked[key] || "";
      },
    };
  }

  board.controls = { select, metric, check, text };
})();
