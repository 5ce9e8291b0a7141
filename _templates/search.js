// The search page. Pagefind finds pages; the words of a query are asked for one by one too and summed, so that a page
// with most of them is found, and a rare word counts more than a common one. Below each page its best sections.
"use strict";
(() => {
  const PAGES = 12, SECTIONS = 3, WEIGH = 40; // pages shown, sections below each, sections looked at closely
  const WHOLE = 4, NEXT = [1, 0.25, 0.1]; // what a section with all words counts; what further sections of a page count
  const IN_TITLE = 0.9, IN_HEADING = 0.4; // what words of a query in a title and in a heading add
  const field = document.querySelector(".book-search input");
  const list = document.getElementById("search-results");
  const state = document.getElementById("search-state");
  const here = new URL(".", location.href);
  let engine, turn = 0;

  async function load() {
    const pagefind = await import(new URL("pagefind/pagefind.js", here));
    await pagefind.options({
      baseUrl: here.pathname,
      excerptLength: 26,
      ranking: { termFrequency: 0.6, termSaturation: 1.2, pageLength: 0.35, termSimilarity: 9, metaWeights: { title: 4, heading: 4 } },
    });
    const { languages } = await (await fetch(new URL("pagefind/pagefind-entry.json", here))).json();
    return { pagefind, entries: languages.en.page_count };
  }

  const COMMON = new Set("a an and are as at be by can do does for from how i in is it my not of on or the to vs what when why with".split(" "));

  function words(query) {
    const all = [...new Set(query.toLowerCase().match(/[\p{L}\p{N}_.]+/gu) || [])];
    const rare = all.filter((one) => !COMMON.has(one));
    return rare.length ? rare : all;
  }

  // Sections with their scores: for the whole query, and for each of its words by how rare it is; then their pages.
  async function find(query) {
    const { pagefind, entries } = await (engine ||= load());
    const parts = words(query);
    const asked = parts.length > 1 ? [query, ...parts] : [query];
    const answers = await Promise.all(asked.map((one) => pagefind.search(one)));
    const sections = new Map(), rare = new Map();
    answers.forEach(({ results }, k) => {
      const whole = k === 0 && parts.length > 1;
      const weight = whole ? WHOLE : Math.max(0.05, Math.log((entries + 1) / (results.length + 0.5)));
      if (!whole) rare.set(asked[k].toLowerCase(), weight);
      const best = Math.max(...results.map((one) => one.score), 1e-9);
      for (const result of results) {
        const section = sections.get(result.id) || { score: 0, best: 0, result };
        const points = weight * (result.score / best);
        section.score += points;
        if (points > section.best) Object.assign(section, { best: points, result });
        sections.set(result.id, section);
      }
    });
    const ranked = [...sections.values()].sort((a, b) => b.score - a.score).slice(0, WEIGH);
    const seen = await Promise.all(ranked.map(async (one) => ({ ...one, data: await one.result.data() })));
    return grouped(seen.filter(({ data }) => has(data, parts)), rare);
  }

  // Where no page has a word, Pagefind takes shorter and shorter beginnings of it: four letters must be there.
  function has({ excerpt, meta }, parts) {
    const marked = (excerpt.match(/<mark>.*?<\/mark>/g) || []).map((one) => one.slice(6, -7));
    const text = [...marked, meta.title, meta.heading].join(" ").toLowerCase();
    return parts.some((part) => text.includes(part.slice(0, 4)));
  }

  // How much of a query stands in a title, from 0 to 1; words match by how they begin.
  function covered(title, rare) {
    const own = words(title || "");
    const alike = (one, other) => one.slice(0, Math.max(4, other.length - 2)) === other.slice(0, Math.max(4, other.length - 2));
    let all = 0, found = 0;
    for (const [word, weight] of rare) {
      all += weight;
      if (own.some((one) => alike(one, word))) found += weight;
    }
    return all ? found / all : 0;
  }

  // Sections under their pages: a page counts as much as its best section, and a little for the next ones.
  function grouped(sections, rare) {
    const points = ({ score, data: { meta } }) =>
      score * Number(meta.factor) * (1 + IN_TITLE * covered(meta.title, rare) + IN_HEADING * covered(meta.heading, rare));
    const weighed = sections.map((one) => ({ ...one, points: points(one) })).sort((a, b) => b.points - a.points);
    const pages = new Map();
    for (const { points, data } of weighed) {
      const url = data.url.split("#")[0];
      const page = pages.get(url) || { url, score: 0, title: data.meta.title, sections: [] };
      page.score += points * (NEXT[page.sections.length] || 0);
      page.sections.push({ url: data.url, title: data.meta.heading, excerpt: data.excerpt });
      pages.set(url, page);
    }
    const best = [...pages.values()].sort((a, b) => b.score - a.score).slice(0, PAGES);
    return best.map((page) => ({ ...page, sections: page.sections.slice(0, SECTIONS) }));
  }

  const element = (name, text, more) => Object.assign(document.createElement(name), { textContent: text, ...more });

  // An excerpt is text with <mark> around the words: nothing else of it becomes an element.
  function passage(excerpt) {
    const box = element("p", "", { className: "passage" });
    const text = (html) => new DOMParser().parseFromString(html, "text/html").body.textContent;
    excerpt.split(/(<mark>.*?<\/mark>)/).forEach((piece) => {
      const marked = piece.startsWith("<mark>");
      box.append(marked ? element("mark", text(piece.slice(6, -7))) : text(piece.replaceAll(" ", "\u00a0")).replaceAll("\u00a0", " "));
    });
    return box;
  }

  function show(pages) {
    list.replaceChildren(...pages.map(({ title, url, sections }) => {
      const item = element("li", "");
      item.append(element("a", title, { href: url, className: "page-hit" }));
      for (const one of sections) {
        if (one.title) item.append(element("a", one.title, { href: one.url, className: "section-hit" }));
        item.append(passage(one.excerpt));
      }
      return item;
    }));
  }

  async function ask() {
    const query = field.value.trim(), mine = ++turn;
    list.dataset.query = "";
    if (!query) {
      list.replaceChildren();
      state.textContent = "";
      return;
    }
    const pages = await find(query);
    if (mine !== turn) return; // another query has been typed meanwhile
    state.textContent = pages.length ? "" : `Nothing has the words “${query}”. Try fewer or other words, or the symptoms.`;
    show(pages);
    list.dataset.query = query;
  }

  if (location.protocol === "file:") {
    document.getElementById("search-from-file").hidden = false;
    return;
  }
  field.value = new URLSearchParams(location.search).get("q") || "";
  field.focus();
  let wait;
  field.addEventListener("input", () => {
    clearTimeout(wait);
    wait = setTimeout(ask, 150);
  });
  field.form.addEventListener("submit", (event) => {
    event.preventDefault();
    history.replaceState(null, "", `?q=${encodeURIComponent(field.value.trim())}`);
    ask();
  });
  ask();
})();
