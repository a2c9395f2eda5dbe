// Shows the page that the address asks for.
(function () {
  "use strict";
  const board = window.board;
  const { el, records } = board;
  const main = document.getElementById("main");
  let current = null;

  function show() {
    const { view, name, asked } = board.route.read();
    const known = board.views[view] ? view : "matrix";
    const before = current;
    if (before?.view !== known) {
      before?.update.leave?.();
      current = { view: known, update: board.views[known].build(main) };
    }
    current.name = name;
    current.update(asked, name);
    mark(known === "cell" ? "cells" : known, asked);
    document.title = `${main.querySelector("h1")?.textContent || board.views[known].title} · smd board`;
    if (before && (before !== current || before.shown !== name)) arrive();
    current.shown = name;
  }

  // Say where the reader is; what is filtered on one page stays filtered on the next.
  function mark(here, asked) {
    for (const link of document.querySelectorAll("#pages a")) {
      const view = link.dataset.view;
      if (view === here) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
      if (view !== "tables") link.href = board.route.address(view, "", board.filters.kept(asked));
    }
  }

  function arrive() {
    main.querySelector("h1")?.focus({ preventScroll: true });
    window.scrollTo(0, 0);
  }

  function foot() {
    const failed = records.cells.status.filter((status) => status === "failed").length;
    const counted = `${board.plural(records.count, "cell")}${failed ? `, ${failed} failed` : ""}`;
    const texts = records.cells.texts.some(Boolean)
      ? "Prompts stand here in clear: this folder is as confidential as they are. "
      : "This folder holds no texts of prompts. ";
    const link = (file, text) => el("a", { href: `echarts/${file}` }, text);
    board.fill(
      document.getElementById("made"),
      el("p", null, `${counted}; made by ${records.found.made_by}. `,
        "A laboratory result: nothing here secures production traffic by itself."),
      el("p", null, texts, "Charts are drawn by Apache ECharts (", link("LICENSE", "licence"), ", ",
        link("NOTICE", "notice"), ")."),
    );
  }

  document.getElementById("skip").addEventListener("click", (event) => {
    event.preventDefault(); // the address is taken by pages
    main.focus();
  });
  board.theme.onChange(() => current.view === "frontier" && current.update(board.route.read().asked, ""));
  window.addEventListener("hashchange", show);
  foot();
  show();
  document.documentElement.dataset.ready = "1";
})();
