// A cell prompt by prompt: the truth, token by token as the attack left it, and its guess where it differs.
(function () {
  "use strict";
  const board = window.board;
  const { el, fill } = board;
  const WORDS = { r: "recovered", w: "wrong", a: "abstained", u: "untried" };
  const ABSTAINED = "·";

  function secretAt(spans, place) {
    const span = spans.find(([start, end]) => start <= place && place < end);
    return span ? span[2] : "";
  }

  function token(text, letter, secret) {
    return el("span", { class: `${WORDS[letter]}${secret ? " secret" : ""}`, title: secret || null }, text);
  }

  function whole(verdicts, [start, end]) {
    return [...verdicts.slice(start, end)].every((letter) => letter === "r");
  }

  // "14 of 16 tokens", and each secret with whether all of it was found: the colours in words.
  function summary(verdicts, spans, score) {
    const letters = [...verdicts];
    const tried = letters.some((letter) => letter !== "u");
    const counted = tried ? `${letters.filter((letter) => letter === "r").length} of ${letters.length} tokens recovered` : "nobody attacked";
    const secrets = tried && spans.map((span) => el("span", { class: whole(verdicts, span) ? "found" : "kept" }, `${span[2]} ${whole(verdicts, span) ? "found" : "kept"}`));
    return el("p", { class: "quiet counts" }, el("span", null, counted), secrets, score);
  }

  function prompt(set, mine, i) {
    const [tokens, spans, verdicts] = [set.tokens[i], set.secrets[i], mine.verdicts[i]];
    const wrong = [...mine.wrong[i]];
    const truth = tokens.map((text, place) => token(text, verdicts[place], secretAt(spans, place)));
    const guess = tokens.map((text, place) => {
      const letter = verdicts[place];
      return token(letter === "w" ? wrong.shift() : letter === "a" ? ABSTAINED : text, letter, "");
    });
    const differs = /[wa]/.test(verdicts);
    return el(
      "li",
      { class: "prompt" },
      el("h3", null, set.names[i], set.sources[i] && el("small", null, set.sources[i])),
      summary(verdicts, spans, null),
      el("p", { class: "tokens" }, el("span", { class: "for-readers" }, "Prompt: "), truth),
      differs && el("p", { class: "tokens guess" }, el("span", { class: "for-readers" }, "Guess: "), guess),
    );
  }

  function bare(mine, i) {
    const scores = Object.entries(mine.scores).filter(([, column]) => column[i] !== null).map(([name, column]) => {
      const metric = board.records.metrics.get(name);
      return metric ? `${metric.label} ${board.numbers.written(metric, column[i])}` : "";
    });
    const secrets = mine.found[i].map(([type, count, found]) => el("span", { class: found ? "found" : "kept" }, `${type}: ${found} of ${count} found`));
    return el("li", { class: "prompt" }, el("h3", null, mine.names[i], el("small", null, board.plural(mine.lengths[i], "token"))), el("p", { class: "quiet counts" }, scores.slice(0, 4).map((text) => el("span", null, text)), secrets));
  }

  function legend() {
    return el("p", { class: "quiet legend" }, ["r", "w", "a"].map((letter) => [token(WORDS[letter], letter, ""), " "]), el("span", { class: "secret" }, "secret"), " Below a prompt stands the guess, where it differs.");
  }

  // The prompts of a cell into a place; all, or those with a secret of a type.
  function show(place, mine, set) {
    const count = set ? set.names.length : mine.names.length;
    const typesOf = (i) => (set ? set.secrets[i] : mine.found[i]).map((one) => (set ? one[2] : one[0]));
    const types = [...new Set(Array.from({ length: count }, (_, i) => typesOf(i)).flat())].sort();
    const list = el("ol", { class: "prompts" });
    const more = el("div", { class: "line" });
    const made = (i) => (set ? prompt(set, mine, i) : bare(mine, i));

    function update(type) {
      const left = Array.from({ length: count }, (_, i) => i).filter((i) => !type || typesOf(i).includes(type));
      fill(list, left.slice(0, 10).map(made));
      board.announce(`${board.plural(left.length, "prompt")} shown`);
      let upto = 10;
      const offer = () => fill(more, upto < left.length && el("button", { type: "button", onclick: next }, `Show ${Math.min(20, left.length - upto)} more of ${left.length}`));
      function next() {
        list.append(...left.slice(upto, upto + 20).map(made));
        upto += 20;
        offer();
      }
      offer();
    }

    const choice = el("select", { id: "secret-type", onchange: () => update(choice.value) }, el("option", { value: "" }, "all prompts"), types.map((type) => el("option", { value: type }, type)));
    const picker = types.length > 1 && el("div", { class: "fields view" }, el("div", { class: "field" }, el("label", { for: "secret-type" }, "With a secret of type"), choice));
    fill(place, set && legend(), picker, list, more);
    update("");
  }

  board.prompts = { show };
})();
