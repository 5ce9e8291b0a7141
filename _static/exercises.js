// Exercises of the book: where a cell waits for an answer, a box to type it into. The same keys as lossviz/exercises.py.
(() => {
  "use strict";

  const hash = (text) => {
    let value = 0x811c9dc5;
    for (const byte of new TextEncoder().encode(text)) value = Math.imul(value ^ byte, 0x01000193) >>> 0;
    return value.toString(16).padStart(8, "0");
  };

  // "1/3" and "42 %" are numbers too; anything else is a word.
  const number = (text) => {
    const match = /^([-+]?[\d.]+(?:e[-+]?\d+)?)\s*(?:\/\s*([\d.]+))?\s*(%?)$/i.exec(text.replace("\u2212", "-"));
    return match ? (Number(match[1]) / Number(match[2] || 1)) / (match[3] ? 100 : 1) : NaN;
  };

  const written = (text) => {
    const value = number(text);
    if (Number.isNaN(value)) return [text.toLowerCase().split(/\s+/).join(" ")];
    return [0, 1e-3, -1e-3].map((step) => (value * (1 + step) + 0).toExponential(2).replace("+", ""));
  };

  const verdict = (answer, key, hint) => {
    const keys = key.split("-");
    const values = answer.trim().split(keys.length > 1 ? /[\s,;]+/ : /$^/).filter((one) => one !== "");
    if (!values.length) return "not answered yet";
    if (values.length !== keys.length) return `not yet: ${keys.length} values are asked for, and you gave ${values.length}. ${hint}`;
    const right = keys.filter((one, k) => written(values[k].trim()).some((text) => hash(text) === one)).length;
    if (right === keys.length) return "right";
    return `not yet${keys.length > 1 ? ` (${right} of ${keys.length} are right)` : ""}. ${hint}`.trim();
  };

  const attach = (place) => {
    const { key, hint } = place.dataset;
    const form = document.createElement("form");
    const box = document.createElement("input");
    const button = document.createElement("button");
    const said = document.createElement("output");
    box.setAttribute("aria-label", key.includes("-") ? "Your answers, separated by spaces" : "Your answer");
    box.placeholder = key.includes("-") ? `${key.split("-").length} answers` : "your answer";
    box.autocomplete = "off";
    button.textContent = "Check";
    form.append(box, button, said);
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      said.textContent = verdict(box.value, key, hint);
    });
    place.replaceChildren(form);
  };

  document.addEventListener("DOMContentLoaded", () => {
    document.querySelectorAll(".lossviz-exercise[data-key]").forEach(attach);
  });
  if (typeof module !== "undefined") module.exports = { verdict };
  else window.lossvizExercises = { verdict };
})();
