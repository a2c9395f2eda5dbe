// How numbers are written for people: as smd_research/reports/render/numbers.py does, which a test compares.
(function () {
  "use strict";
  const MISSING = "–";

  // Decimals with ties to even, as Python writes them.
  function fixed(value, decimals) {
    const rest = Math.abs(value).toFixed(20).split(".")[1].slice(decimals);
    if (!/^50*$/.test(rest)) return value.toFixed(decimals);
    const scale = 10 ** decimals;
    const below = Math.floor(Math.abs(value) * scale);
    return ((Math.sign(value) * (below % 2 ? below + 1 : below)) / scale).toFixed(decimals);
  }

  function significant(value, digits) {
    return String(Number(value.toPrecision(digits)));
  }

  function share(value) {
    if (!isNumber(value)) return MISSING;
    const percent = Number((100 * value).toFixed(9)) + 0;
    const nearEnd = (percent > 0 && percent < 1) || (percent > 99 && percent < 100);
    const text = fixed(percent, nearEnd || (percent > -1 && percent < 0) ? 1 : 0);
    return `${text === "0.0" ? "< 0.1" : text === "100.0" ? "> 99.9" : text === "-0" ? "0" : text} %`;
  }

  function quantity(value, like) {
    if (!isNumber(value)) return MISSING;
    const size = Math.abs(like === undefined ? value : like);
    if (size === 0) return significant(value, 3);
    if (size < 1e-3) return value.toExponential(0);
    const decimals = Math.max(0, 2 - Math.floor(Math.log10(size)));
    const [whole, part] = fixed(value, decimals).split(".");
    const grouped = whole.replace(/\B(?=(\d{3})+$)/g, ",");
    return part ? `${grouped}.${part}` : grouped;
  }

  function byteCount(value) {
    if (!isNumber(value)) return MISSING;
    let unit = "B";
    for (unit of ["B", "kB", "MB"]) {
      if (Math.abs(value) < 1000 || unit === "MB") break;
      value /= 1000;
    }
    return unit === "B" || Math.abs(value) >= 100 ? `${fixed(value, 0)} ${unit}` : `${significant(value, 2)} ${unit}`;
  }

  function isNumber(value) {
    return typeof value === "number" && Number.isFinite(value);
  }

  function isShare(metric) {
    return metric.ceiling === 1;
  }

  // A value of a metric with its unit.
  function written(metric, value) {
    if (!isNumber(value)) return MISSING;
    if (isShare(metric)) return share(value);
    if (metric.unit === "B") return byteCount(value);
    return `${quantity(value)} ${metric.unit}`.trim();
  }

  // Its 95 % interval; empty where there is none.
  function interval(metric, mean, low, high) {
    if (!isNumber(low) || !isNumber(high)) return "";
    if (isShare(metric)) return `${fixed(100 * low, 0)}–${fixed(100 * high, 0)}`;
    const ends = metric.unit === "B" ? [low, high].map(byteCount) : [low, high].map((end) => quantity(end, mean));
    return ends[0] === ends[1] ? "" : ends.join("–");
  }

  // A figure as it stands in a table: its mean, and small under it the interval.
  function entry(metric, figure) {
    if (!figure) return MISSING;
    const ends = interval(metric, figure.mean, figure.low, figure.high);
    return [written(metric, figure.mean), ends && window.board.el("small", null, ends)];
  }

  window.board.numbers = { MISSING, share, quantity, byteCount, written, interval, entry, isNumber, isShare };
})();
