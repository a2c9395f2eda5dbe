// Documents come as scripts, which a page opened from a disk may add where it may fetch nothing.
(function () {
  "use strict";
  const FOLDER = { table: "tables", cell: "cells", prompts: "prompts" };
  const known = new Map();
  const asked = new Map();

  function receive(kind, name, document) {
    known.set(`${kind} ${name}`, document);
  }

  function has(kind, name) {
    return known.get(`${kind} ${name}`);
  }

  // The document of a kind and name; rejects where the folder lacks its file.
  function load(kind, name) {
    const key = `${kind} ${name}`;
    if (!asked.has(key)) {
      asked.set(
        key,
        new Promise((resolve, reject) => {
          if (!/^[A-Za-z0-9_.-]+$/.test(name)) return reject(new Error(`no ${kind} has such a name`));
          const script = document.createElement("script");
          script.src = `data/${FOLDER[kind]}/${name}.js`;
          script.onload = () => (known.has(key) ? resolve(known.get(key)) : reject(new Error(`${key} is empty`)));
          script.onerror = () => reject(new Error(`data/${FOLDER[kind]}/${name}.js is not in this folder`));
          document.head.append(script);
        }),
      );
    }
    return asked.get(key);
  }

  Object.assign(window.board, { receive, has, load });
})();
