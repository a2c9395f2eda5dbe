// The data behind what is shown, as a file that the page makes itself.
(function () {
  "use strict";
  const board = window.board;

  function save(name, type, text) {
    const url = URL.createObjectURL(new Blob([text], { type }));
    const link = board.el("a", { href: url, download: name });
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(url), 10000);
  }

  // A value as CSV; one that a spreadsheet would take for a formula stays text.
  function quoted(value) {
    if (value === null || value === undefined) return "";
    if (typeof value === "number") return String(value);
    const text = /^[=+\-@\t\r]/.test(value) && !/^-?\d/.test(value) ? `'${value}` : String(value);
    return /[",\n\r]/.test(text) ? `"${text.replace(/"/g, '""')}"` : text;
  }

  function csv(rows) {
    const columns = Object.keys(rows[0] || {});
    return [columns, ...rows.map((row) => columns.map((column) => row[column]))]
      .map((line) => line.map(quoted).join(","))
      .join("\n") + "\n";
  }

  // Two buttons; rows are asked for when one is pressed.
  function buttons(name, rows, made) {
    const button = (text, onclick) => board.el("button", { type: "button", onclick }, text);
    return board.el(
      "div",
      { class: "buttons" },
      board.el("span", { class: "quiet" }, "Download the data:"),
      button("CSV", () => save(`${name()}.csv`, "text/csv", made ? made() : csv(rows()))),
      button("JSON", () => save(`${name()}.json`, "application/json", `${JSON.stringify(rows(), null, 1)}\n`)),
    );
  }

  board.download = { buttons };
})();
