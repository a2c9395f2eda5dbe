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

  Object.assign(window.board, { el, fill, breakable, announce, plural, sentence, byName });
})();
