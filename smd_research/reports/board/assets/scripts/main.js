// Shows the page that the address asks for.
(function () {
  "use strict";
  const board = window.board;
  const { el, records } = board;
  const main = document.getElementById("main");
  let current = { view: null, update: null };

  function show() {
    const { view, name, asked } = board.route.read();
    const known = board.views[view] ? view : "matrix";
    const moved = current.view !== known || current.name !== name;
    if (current.view !== known) {
      current.update?.leave?.();
      current = { view: known, update: board.views[known].build(main) };
    }
    const first = current.name === undefined && !show.done;
    current.name = name;
    current.update(asked, name);
    for (const link of document.querySelectorAll("#pages a")) {
      const here = link.dataset.view === (known === "cell" ? "cells" : known);
      if (here) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
      // What is filtered on one page stays filtered on the next.
      if (link.dataset.view !== "tables") link.href = board.route.address(link.dataset.view, "", board.filters.kept(asked));
    }
    document.title = `${main.querySelector("h1")?.textContent || board.views[known].title} · smd board`;
    if (moved && !first) {
      main.querySelector("h1")?.focus({ preventScroll: true });
      window.scrollTo(0, 0);
    }
    show.done = true;
  }

  const failed = records.cells.status.filter((status) => status === "failed").length;
  board.fill(
    document.getElementById("made"),
    el("p", null, `${board.plural(records.count, "cell")}${failed ? `, ${failed} failed` : ""}; made by ${records.found.made_by}. A laboratory result: nothing here secures production traffic by itself.`),
    el("p", null, records.cells.texts.some(Boolean) ? "Prompts stand here in clear: this folder is as confidential as they are. " : "This folder holds no texts of prompts. ", "Charts are drawn by Apache ECharts (", el("a", { href: "echarts/LICENSE" }, "licence"), ", ", el("a", { href: "echarts/NOTICE" }, "notice"), ")."),
  );
  document.getElementById("skip").addEventListener("click", (event) => {
    event.preventDefault(); // the address is taken by pages
    main.focus();
  });
  board.theme.onChange(() => current.view === "frontier" && current.update(board.route.read().asked, ""));
  window.addEventListener("hashchange", show);
  show();
  document.documentElement.dataset.ready = "1";
})();
