// Light or dark: as the system says, until the reader chooses; the choice is kept where the browser allows it.
(function () {
  "use strict";
  const KEY = "smd-board-theme";
  const board = (window.board = window.board || {});
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const listeners = [];

  function kept() {
    try {
      return localStorage.getItem(KEY);
    } catch {
      return null; // no storage for files here
    }
  }

  function current() {
    return document.documentElement.dataset.theme || (dark.matches ? "dark" : "light");
  }

  function changed() {
    const button = document.getElementById("theme");
    if (button) button.textContent = current() === "dark" ? "Light theme" : "Dark theme";
    listeners.forEach((listener) => listener());
  }

  function turn() {
    const next = current() === "dark" ? "light" : "dark";
    document.documentElement.dataset.theme = next;
    try {
      localStorage.setItem(KEY, next);
    } catch {
      // lasts as long as the page
    }
    changed();
  }

  const before = kept();
  if (before === "light" || before === "dark") document.documentElement.dataset.theme = before;
  dark.addEventListener("change", changed);
  document.addEventListener("DOMContentLoaded", () => {
    document.getElementById("theme").addEventListener("click", turn);
    changed();
  });

  board.theme = {
    onChange: (listener) => listeners.push(listener),
    colour: (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim(),
  };
})();
