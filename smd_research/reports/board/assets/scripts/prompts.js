// A cell prompt by prompt: the truth, token by token as the attack left it, and its guess where it differs.
(function () {
  "use strict";
  const board = window.board;
  const { el, fill, numbers } = board;
  const WORDS = { r: "recovered", w: "wrong", a: "abstained", u: "untried" };
  const ABSTAINED = "·";
  const [FIRST, NEXT] = [10, 20];

  function secretAt(spans, place) {
    const span = spans.find(([start, end]) => start <= place && place < end);
    return span ? span[2] : "";
  }

  function token(text, letter, secret) {
    return el("span", { class: `${WORDS[letter]}${secret ? " secret" : ""}`, title: secret || null }, text);
  }

  // "14 of 16 tokens recovered", and each secret with whether all of it was found: the colours in words.
  function summary(verdicts, spans) {
    const letters = [...verdicts];
    if (letters.every((letter) => letter === "u")) return el("p", { class: "quiet counts" }, "nobody attacked");
    const right = letters.filter((letter) => letter === "r").length;
    const secrets = spans.map(([start, end, type]) => {
      const found = letters.slice(start, end).every((letter) => letter === "r");
      return el("span", { class: found ? "found" : "kept" }, `${type} ${found ? "found" : "kept"}`);
    });
    const counted = el("span", null, `${right} of ${letters.length} tokens recovered`);
    return el("p", { class: "quiet counts" }, counted, secrets);
  }

  function spoken(word) {
    return el("span", { class: "for-readers" }, word);
  }

  function prompt(set, mine, i) {
    const [tokens, spans, verdicts] = [set.tokens[i], set.secrets[i], mine.verdicts[i]];
    const wrong = [...mine.wrong[i]];
    const guessed = { r: (text) => text, u: (text) => text, w: () => wrong.shift(), a: () => ABSTAINED };
    const truth = tokens.map((text, place) => token(text, verdicts[place], secretAt(spans, place)));
    const guess = tokens.map((text, place) => token(guessed[verdicts[place]](text), verdicts[place], ""));
    return el(
      "li",
      { class: "prompt" },
      el("h3", null, set.names[i], set.sources[i] && el("small", null, set.sources[i])),
      summary(verdicts, spans),
      el("p", { class: "tokens" }, spoken("Prompt: "), truth),
      /[wa]/.test(verdicts) && el("p", { class: "tokens guess" }, spoken("Guess: "), guess),
    );
  }

  // A prompt whose text was not recorded: its scores, and how many of its secrets were found.
  function bare(mine, i) {
    const metrics = board.records.metrics;
    const measured = Object.keys(mine.scores).filter((name) => metrics.has(name) && mine.scores[name][i] !== null);
    const score = (name) => `${metrics.get(name).label} ${numbers.written(metrics.get(name), mine.scores[name][i])}`;
    const said = measured.map((name) => el("span", null, score(name)));
    const secrets = mine.found[i].map(([type, count, found]) =>
      el("span", { class: found ? "found" : "kept" }, `${type}: ${found} of ${count} found`),
    );
    return el(
      "li",
      { class: "prompt" },
      el("h3", null, mine.names[i], el("small", null, board.plural(mine.lengths[i], "token"))),
      el("p", { class: "quiet counts" }, said, secrets),
    );
  }

  function legend() {
    const marks = ["r", "w", "a"].map((letter) => [token(WORDS[letter], letter, ""), " "]);
    const secret = el("span", { class: "secret" }, "secret");
    return el("p", { class: "quiet legend" }, marks, secret, " Below a prompt stands the guess, where it differs.");
  }

  function picker(types, update) {
    const option = (value, text) => el("option", { value }, text);
    const choice = el(
      "select",
      { id: "secret-type", onchange: () => update(choice.value) },
      option("", "all prompts"),
      types.map((type) => option(type, type)),
    );
    const field = el("div", { class: "field" }, el("label", { for: "secret-type" }, "With a secret of type"), choice);
    return el("div", { class: "fields view" }, field);
  }

  // The prompts of a cell into a place; all, or those with a secret of a type.
  function show(place, mine, set) {
    const every = (set || mine).names.map((_, i) => i);
    const typesOf = (i) => (set ? set.secrets[i].map((one) => one[2]) : mine.found[i].map((one) => one[0]));
    const types = [...new Set(every.flatMap(typesOf))].sort();
    const [list, more] = [el("ol", { class: "prompts" }), el("div", { class: "line" })];
    const made = (i) => (set ? prompt(set, mine, i) : bare(mine, i));

    function update(type) {
      const left = every.filter((i) => !type || typesOf(i).includes(type));
      let upto = 0;
      function next() {
        const after = upto + (upto ? NEXT : FIRST);
        list.append(...left.slice(upto, after).map(made));
        upto = after;
        const text = `Show ${Math.min(NEXT, left.length - upto)} more of ${left.length}`;
        fill(more, upto < left.length && el("button", { type: "button", onclick: next }, text));
      }
      fill(list);
      next();
      board.announce(`${board.plural(left.length, "prompt")} shown`);
    }

    fill(place, set && legend(), types.length > 1 && picker(types, update), list, more);
    update("");
  }

  board.prompts = { show };
})();
