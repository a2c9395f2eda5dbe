// Elements. Text is only ever set as text: nothing in a record is read as HTML.
(function () {
  "use strict";

  // el("a", {href: "#/cells", class: "quiet"}, "text", child, ...); null and false children are left out.
  function el(tag, attributes, ...children) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes || {})) {
      if (value === null || value === undefined || value === false) continue;
      if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
      else if (name === "style") for (const [key, set] of Object.entries(value)) node.style.setProperty(key, set);
      else node.setAttribute(name, value === true ? "" : String(value));
    }
    append(node, children);
    return node;
  }

  function append(node, children) {
    for (const child of children.flat(Infinity)) {
      if (child === null || child === undefined || child === false || child === "") continue;
      node.append(child instanceof Node ? child : document.createTextNode(String(child)));
    }
  }

  function fill(node, ...children) {
    node.replaceChildren();
    append(node, children);
    return node;
  }

  // A table with a caption for screen readers; heads are of th(), bodies of rows.
  function table(kind, caption, heads, bodies) {
    return el(
      "table",
      { class: kind },
      el("caption", { class: "for-readers" }, caption),
      el("thead", null, el("tr", null, heads)),
      bodies,
    );
  }

  function th(side, ...children) {
    return el("th", { scope: "col", class: side }, ...children);
  }

  function rowHead(...children) {
    return el("th", { scope: "row", class: "left" }, ...children);
  }

  function td(kind, ...children) {
    return el("td", { class: kind }, ...children);
  }

  // A box that scrolls sideways in place of the page.
  function wide(label, ...children) {
    const said = { class: "wide", tabindex: "0", role: "region", "aria-label": `${label}, scrolls sideways` };
    return el("div", said, ...children);
  }

  // A name that may be broken after an underscore.
  function breakable(text) {
    return String(text).split(/(?<=_)/).flatMap((part, i) => (i ? [document.createElement("wbr"), part] : [part]));
  }

  // What a screen reader says when a filter has answered.
  let waiting = 0;
  function announce(text) {
    clearTimeout(waiting);
    waiting = setTimeout(() => (document.getElementById("status").textContent = text), 150);
  }

  function sentence(text) {
    return text.charAt(0).toUpperCase() + text.slice(1);
  }

  function plural(count, word) {
    return `${count.toLocaleString("en")} ${word}${count === 1 ? "" : "s"}`;
  }

  // By name, numbers as numbers: layer=2 before layer=10. Made once, since it is asked for every pair of rows.
  const byName = new Intl.Collator("en", { numeric: true }).compare;

  Object.assign(window.board, { el, fill, table, th, rowHead, td, wide });
  Object.assign(window.board, { breakable, announce, plural, sentence, byName });
})();
