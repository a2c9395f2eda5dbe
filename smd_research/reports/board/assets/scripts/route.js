// Where the reader is, in the address: #/view/name?key=value. So links lead everywhere and the way back works.
(function () {
  "use strict";
  const board = window.board;

  function read() {
    const [path, query] = location.hash.replace(/^#\/?/, "").split("?");
    const [view, name] = path.split("/").map(decodeURIComponent);
    return { view: view || "matrix", name: name || "", asked: Object.fromEntries(new URLSearchParams(query || "")) };
  }

  function address(view, name, asked) {
    const kept = Object.entries(asked || {}).filter(([, value]) => ![undefined, null, ""].includes(value));
    const query = new URLSearchParams(kept).toString();
    return `#/${view}${name ? `/${encodeURIComponent(name)}` : ""}${query ? `?${query}` : ""}`;
  }

  // Change some of what is asked on the same page; while a text is typed the address is replaced, not added.
  function change(asked, replace) {
    const now = read();
    const next = address(now.view, now.name, { ...now.asked, ...asked });
    if (next === location.hash) return;
    if (replace) {
      history.replaceState(null, "", next);
      window.dispatchEvent(new HashChangeEvent("hashchange"));
    } else location.hash = next;
  }

  board.route = { read, address, change };
})();
