"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const data = JSON.parse($("data").textContent);
  const PAGE = 24;
  const SVG = "http://www.w3.org/2000/svg";
  const ARMS = ["baseline", "candidate"];
  const CHANGES = { new: "new failure", both: "fails in both", fixed: "fixed by the candidate", unmeasured: "not measured" };
  const READERS = { disagree: "readers disagree: for a person", agree: "second reader agrees", one: "one reader only" };
  const NAMES = { change: CHANGES, reader: READERS };
  const SORTS = { "": "new failures first", "-latency": "slowest first", "-cost": "dearest first", "-attempts": "most attempts first", id: "case" };

  // Every text goes in as a text node: prompts and messages are not trusted.
  const el = (tag, props = {}, ...children) => {
    const node = document.createElement(tag);
    for (const [key, value] of Object.entries(props)) {
      if (value === null || value === undefined || value === false) continue;
      if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
      else node.setAttribute(key, value === true ? "" : value);
    }
    node.append(...children.filter((c) => c !== null && c !== undefined && c !== ""));
    return node;
  };
  const usd = (micro) => "$" + (micro / 1e6).toFixed(micro < 1e5 ? 4 : 2);
  const plural = (n, word) => n.toLocaleString("en") + " " + word + (n === 1 ? "" : "s");
  const amiss = (side) => side && (side.failed || side.outcome === "unmeasured");

  // Light, dark, or as the system says.
  const theme = $("theme");
  theme.hidden = false;
  theme.addEventListener("click", () => {
    const root = document.documentElement;
    const system = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
    root.dataset.theme = (root.dataset.theme || system) === "dark" ? "light" : "dark";
  });

  // Sortable tables.
  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      if (head.hasAttribute("data-fixed") || !head.textContent) return;
      const label = head.textContent;
      head.textContent = "";
      head.append(el("button", { type: "button", onclick: () => {
        const down = head.getAttribute("aria-sort") ? head.getAttribute("aria-sort") === "ascending" : head.classList.contains("num");
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const key = (row) => { const cell = row.cells[column]; const k = cell.dataset.sort ?? cell.textContent.trim(); return k !== "" && !isNaN(k) ? Number(k) : k; };
        const order = (a, b) => (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b)));
        const rows = [...table.tBodies[0].rows].sort((a, b) => (down ? -1 : 1) * order(key(a), key(b)));
        table.tBodies[0].append(...rows);
      } }, label));
    });
  }
  for (const group of document.querySelectorAll("[data-filter=slices]")) {
    group.addEventListener("click", (event) => {
      const chosen = event.target.closest("button");
      if (!chosen) return;
      for (const button of group.children) button.setAttribute("aria-pressed", String(button === chosen));
      for (const row of $("slice-table").tBodies[0].rows) row.hidden = Boolean(chosen.dataset.value) && row.dataset.dimension !== chosen.dataset.value;
    });
  }

  const viewer = $("viewer");
  const form = $("filters");
  if (!form) return;

  // What can be searched and filtered, gathered once.
  const reasonsOf = (item, arm) => {
    const found = new Set();
    for (const name of arm ? [arm] : ARMS) {
      const side = item.arms[name];
      if (!amiss(side)) continue;
      (side.reasons || []).forEach((r) => found.add(r));
      side.findings.forEach((f) => found.add(data.checks[f.check]));
    }
    return found;
  };
  for (const item of data.items) {
    const words = [item.id, item.prompt, item.theme, ...(item.expected || [])];
    for (const arm of ARMS) {
      const side = item.arms[arm];
      if (side) words.push(...[...(side.reasons || []), ...side.findings.map((f) => data.checks[f.check])].map((name) => data.words[name]));
      if (side) words.push(side.failure, side.model, ...(side.reasons || []), ...(side.read || []), ...(side.extra || []), ...(side.severity || []), ...side.findings.map((f) => f.message));
    }
    item.words = words.filter(Boolean).join("\n").toLowerCase();
  }
  const reader = (f) => (f.confirmed === undefined ? "" : f.confirmed === null ? "one" : f.confirmed ? "agree" : "disagree");
  const worst = (item, key) => Math.max(...ARMS.map((arm) => (item.arms[arm] && item.arms[arm][key]) || 0));
  const facets = {
    arm: (item) => ARMS.filter((arm) => item.arms[arm] && item.arms[arm].failed),
    change: (item) => [item.change],
    check: (item) => [...reasonsOf(item, state.arm)],
    subtask: (item) => [item.subtask],
    reader: (item) => [...new Set(ARMS.filter((a) => (!state.arm || a === state.arm) && amiss(item.arms[a])).flatMap((a) => item.arms[a].findings).map(reader).filter(Boolean))],
    locale: (item) => [item.locale],
    origin: (item) => [item.origin],
    model: (item) => ARMS.filter((a) => (!state.arm || a === state.arm) && amiss(item.arms[a])).flatMap((a) => (item.arms[a].model || "").split(" → ")),
  };
  let state = {};

  const readHash = () => {
    const hash = location.hash.slice(1);
    const params = hash.includes("=") ? new URLSearchParams(hash) : new URLSearchParams();
    state = Object.fromEntries(params);
    return hash.includes("=");
  };
  const writeHash = () => {
    const params = new URLSearchParams(Object.entries(state).filter(([, value]) => value));
    history.replaceState(null, "", "#" + (params.size ? params : "gallery"));
  };
  const matches = (item, except) => {
    for (const [name, values] of Object.entries(facets)) {
      if (name !== except && state[name] && !values(item).includes(state[name])) return false;
    }
    return !state.q || state.q.toLowerCase().split(/\s+/).every((word) => item.words.includes(word));
  };

  const fill = () => {
    for (const name of Object.keys(facets)) {
      const counts = new Map();
      for (const item of data.items) if (matches(item, name)) for (const v of facets[name](item)) counts.set(v, (counts.get(v) || 0) + 1);
      if (state[name] && !counts.has(state[name])) counts.set(state[name], 0);
      const select = form.elements[name];
      const named = NAMES[name] || {};
      const order = Object.keys(named);
      const keys = [...counts.keys()].filter(Boolean).sort((a, b) => (order.length ? order.indexOf(a) - order.indexOf(b) : a.localeCompare(b)));
      select.replaceChildren(new Option("any", ""), ...keys.map((k) => new Option(`${named[k] || k} (${counts.get(k)})`, k)));
      select.value = state[name] || "";
      select.classList.toggle("set", Boolean(state[name]));
    }
    form.elements.sort.replaceChildren(...Object.entries(SORTS).map(([k, label]) => new Option(label, k)));
    form.elements.sort.value = state.sort in SORTS ? state.sort : "";
    if (form.elements.q.value !== (state.q || "")) form.elements.q.value = state.q || "";
  };

  const inline = (key) => (typeof data.thumbs[key] === "string" ? "data:image/webp;base64," + data.thumbs[key] : "");
  // The marked places as they are drawn and numbered: findings on one place share its number.
  const places = (side) => [...new Map(side.findings.filter((f) => f.region).map((f) => [f.region.join(), f.region])).values()];
  const numberOf = (side, f) => (f.region && places(side).length > 1 ? places(side).findIndex((r) => r.join() === f.region.join()) + 1 : 0);
  const shape = (tag, props) => {
    const node = document.createElementNS(SVG, tag);
    for (const [key, value] of Object.entries(props)) node.setAttribute(key, value);
    return node;
  };
  const marks = (side) => {
    const svg = shape("svg", { viewBox: `0 0 ${side.w} ${side.h}`, "aria-hidden": "true" });
    const regions = places(side);
    regions.forEach((region, place) => {
      const [x, y, width, height] = region;
      for (const kind of ["halo", "mark"]) svg.append(shape("rect", { x, y, width, height, class: kind }));
      if (regions.length < 2) return;
      const size = Math.max(side.w, side.h) / 13;
      const label = shape("text", { x: Math.min(Math.max(x, 0), side.w - size), y: y > size ? y - size / 5 : y + height + size > side.h ? y + size : y + height + size * 0.9, "font-size": size });
      label.textContent = place + 1;
      svg.append(label);
    });
    return svg;
  };
  const missing = (title, ...more) => [el("span", { class: "none" }, el("strong", {}, title), ...more)];
  const shown = (key, alt, svg) => {
    const thumb = data.thumbs[key];
    if (typeof thumb === "string") return [el("img", { src: inline(key), alt, decoding: "async" }), svg];
    if (thumb) return missing(key.startsWith("input:") ? "no picture" : "file does not decode", el("span", {}, thumb.problem), thumb.head ? el("code", {}, thumb.head) : "");
    return missing("picture not embedded", key.startsWith("input:") ? "kept with the inputs" : "kept in the image store");
  };
  const picture = (item, arm, side) => {
    if (!side.img) return missing(side.outcome === "refused" ? "refused" : "no picture", side.failure || "");
    const where = places(side).length ? ", with the marked region" : "";
    return shown(side.img, `${arm} picture for: ${item.prompt.slice(0, 160)}${where}`, side.w && side.h && where ? marks(side) : "");
  };
  const tile = (item, head, content, large, name) => {
    const shot = large ? el("div", { class: "shot" }, ...content)
      : el("button", { type: "button", class: "shot", "aria-label": `Open case ${item.id}, ${name}`, onclick: () => { state.case = item.id; writeHash(); open(); } }, ...content);
    return el("div", { class: "side" }, el("div", { class: "side-head" }, ...head), shot);
  };
  const half = (item, arm, large) => {
    const side = item.arms[arm];
    const key = el("span", { class: "key " + arm }, arm);
    if (!side) return tile(item, [key], [el("span", { class: "none" }, "not run")], true, arm);
    const out = side.outcome ? el("span", { class: "out" + (side.failed ? " failed" : side.outcome === "unmeasured" ? " unmeasured" : "") }, side.outcome) : "";
    const node = tile(item, [key, out], picture(item, arm, side), large, arm);
    if (large && side.w && side.h) node.lastElementChild.style.aspectRatio = `${side.w} / ${side.h}`;
    return node;
  };
  // What the picture was made from: the upload of an edit, the small picture before the upscaler.
  const origin = (item, key, label, large) => tile(item, [el("span", { class: "from" }, label)], shown(key, label, ""), large, label);
  const figure = (value) => (Number.isInteger(value) ? String(value) : String(Number(value.toPrecision(4))));
  const score = (f) => {
    if (f.score === undefined) return "";
    if (f.limit === undefined) return `score ${figure(f.score)}`;
    return `score ${figure(f.score)}, passes ${f.lower ? "up to" : "from"} ${figure(f.limit)}${f.lower ? "" : " up"}`;
  };
  const badge = (f) => {
    const kind = reader(f);
    if (!kind) return "";
    return el("span", { class: "reader " + kind, title: kind === "one" ? "No second reader knows this script or reads this place clearly." : "A second, independent reader looked at the same place." }, kind === "disagree" ? "⚑ for a person: the readers disagree" : kind === "agree" ? "✓ second reader agrees" : "one reader only");
  };
  const rule = (name, version) => el("p", { class: "rule" }, el("b", {}, data.words[name] || name), " ", el("code", {}, name + (version ? " v" + version : "")));
  const findings = (side, arm, marked) => {
    const tone = marked ? " " + arm : "";
    const out = side.findings.map((f) => {
      const number = numberOf(side, f);
      const crop = f.crop && inline(f.crop) ? el("img", { class: "crop", alt: number ? `the marked part ${number}, enlarged` : "the marked part, enlarged", src: inline(f.crop) }) : "";
      return el("div", { class: "finding" + (f.fault || f.told ? " fault" : "") + tone },
        rule(data.checks[f.check], f.version),
        el("p", {}, number ? el("span", { class: "number" }, number) : "", f.fault ? "The check broke: " : "", el("bdi", {}, f.message)),
        score(f) || badge(f) || f.told ? el("p", { class: "measured" }, score(f) ? el("span", {}, score(f)) : "", badge(f), f.told ? el("span", {}, "told only: by the policy it fails no picture") : "") : "", crop);
    });
    if (side.failure && amiss(side)) out.push(el("div", { class: "finding" + tone }, rule((side.reasons || [])[0] || "delivery"), el("p", {}, el("bdi", {}, side.failure))));
    return out;
  };
  const letter = (text) => el("bdi", { class: "letter" }, text.trim() ? text : text ? "a space" : "nothing");
  const quoted = (text) => (text.trim() ? ["“", letter(text), "”"] : [letter(text)]);
  // The same in words, for who cannot see the marks.
  const inWords = (pieces) => {
    const said = pieces.filter(([kind]) => "-+~x".includes(kind)).map(([kind, was, is]) => {
      if (kind === "-") return ["missing ", ...quoted(was)];
      if (kind === "+") return ["added ", ...quoted(is)];
      if (kind === "x") return ["swapped ", ...quoted(was), " to ", ...quoted(is)];
      return /^[□▯☐]+$/.test(is) ? [...quoted(was), " as empty boxes"] : [...quoted(was), " read as ", ...quoted(is)];
    });
    const most = 6;
    const parts = said.slice(0, most).flatMap((words, n) => [n ? "; " : "", ...words]);
    return said.length > most ? [...parts, `; and ${said.length - most} more`] : parts;
  };
  const MARKS = { "-": "lost", "+": "more", "~": "other", x: "swap", ".": "context" };
  const line = (pieces, side) => el("bdi", {}, ...pieces.map(([kind, was, is]) => {
    const text = side === "expected" || is === undefined ? was : is;
    return kind === "=" || !text ? text : el(kind === "." ? "span" : side === "expected" ? "del" : "ins", { class: MARKS[kind] }, text);
  }));
  const texts = (side, item) => {
    const read = side.read ? el("bdi", {}, side.read.join(" / ")) : el("span", { class: "faint" }, "nothing");
    const spoken = /^[a-z]{2,3}(-[a-z0-9]{2,8})*$/i.test(item.locale) && item.locale !== "und" ? item.locale : null;
    const list = el("dl", { class: "texts", lang: spoken });
    const row = (name, ...value) => list.append(el("dt", { lang: "en" }, name), el("dd", {}, ...value));
    if (side.right) row("text", el("span", { class: "fine", lang: "en" }, "✓ as asked: "), el("bdi", {}, (item.expected || []).join(" / ")));
    else if (side.texts) {
      for (const [n, pieces] of side.texts.entries()) {
        const severity = (side.severity || [])[n];
        const differs = pieces.some(([kind]) => "-+~x".includes(kind));
        row("expected", line(pieces, "expected"), severity && severity !== "exact" ? el("span", { class: "severity", lang: "en" }, severity) : "");
        if (pieces.every(([kind]) => kind === "-")) row("read", el("span", { class: "faint", lang: "en" }, side.read ? "nothing like it, but " : ""), read);
        else row("read", line(pieces, "read"), differs ? "" : el("span", { class: "fine", lang: "en" }, " ✓"));
        if (differs && !pieces.every(([kind]) => kind === "-")) list.append(el("dt", { class: "sr", lang: "en" }, "difference"), el("dd", { class: "said", lang: "en" }, ...inWords(pieces)));
      }
    } else if (item.expected) {
      row("expected", el("bdi", {}, item.expected.join(" / ")));
      if (side.read) row("read", read);
      if (side.unjudged) row("judged", el("span", { class: "faint", lang: "en" }, side.unjudged));
    }
    if (side.extra) row("not asked", el("bdi", { class: "faint" }, side.extra.join(" / ")), side.extra_more ? el("span", { class: "faint", lang: "en" }, ` and ${plural(side.extra_more, "more line")}`) : "");
    return list.children.length ? [list] : [];
  };
  const origins = (item, arm, large) => {
    const found = [];
    if (item.upload) found.push(origin(item, item.upload, "upload", large));
    if (item.mask && large) found.push(origin(item, item.mask, "may change where white", large));
    const side = item.arms[arm];
    if (side && side.source && !large) found.push(origin(item, side.source, "before enlarging", large));
    return found;
  };
  const wire = (side) => (side.latency === undefined ? "" : `${side.latency.toFixed(2)} s · ${side.cached ? "cached" : usd(side.cost)} · ${plural(side.attempts, "attempt")}`);
  const card = (item) => {
    // The candidate's failure is the news; the baseline's is told where only it failed.
    const arm = state.arm && amiss(item.arms[state.arm]) ? state.arm : amiss(item.arms.candidate) ? "candidate" : "baseline";
    const side = item.arms[arm];
    const tiles = [...origins(item, arm, false), ...ARMS.map((a) => half(item, a))];
    const node = el("article", { class: "case", "data-id": item.id }, el("div", { class: "pair of" + tiles.length }, ...tiles), el("p", { class: "prompt" }, el("bdi", {}, item.prompt)));
    if (item.prompt.length > 170) node.append(el("button", { type: "button", class: "more", "aria-expanded": "false", onclick: (event) => { const on = node.classList.toggle("open"); event.target.textContent = on ? "less" : "whole prompt"; event.target.setAttribute("aria-expanded", String(on)); } }, "whole prompt"));
    if (item.expect) node.append(el("p", { class: "note" }, "The right answer here is a " + item.expect + "."));
    node.append(...texts(side, item), ...findings(side, arm, true));
    node.append(el("div", { class: "facts-line" }, el("span", { class: "change " + item.change }, CHANGES[item.change]), el("span", {}, item.subtask), el("span", {}, item.locale), el("span", {}, item.origin), el("span", {}, side.model || ""), el("span", {}, wire(side)), el("span", {}, item.id)));
    return node;
  };

  const open = () => {
    const item = state.case && data.items.find((i) => i.id === state.case);
    if (!item) { if (viewer.open) viewer.close(); return; }
    const close = el("button", { type: "button", onclick: () => viewer.close() }, "Close");
    const names = (list) => list.map((n) => data.checks[n]).join(", ");
    const column = (arm) => {
      const node = half(item, arm, true);
      const side = item.arms[arm];
      if (!side) return node;
      if (side.link) node.append(el("a", { href: side.link, target: "_blank", rel: "noreferrer" }, "Open the full picture"));
      if (side.source) {
        const small = origin(item, side.source, "before enlarging", true);
        if (side.w && side.h) small.lastElementChild.style.aspectRatio = `${side.w} / ${side.h}`;
        node.append(el("div", { class: "inset" }, small));
      }
      node.append(el("p", { class: "list" }, [side.model, wire(side)].filter(Boolean).join(" · ")), ...texts(side, item), ...findings(side, arm, false));
      if (side.read && side.texts) node.append(el("p", { class: "list" }, "All text read: ", el("bdi", {}, side.read.join(" / "))));
      if (side.pass && side.pass.length) node.append(el("p", { class: "list" }, "Passed: " + names(side.pass)));
      if (side.skip && side.skip.length) node.append(el("p", { class: "list" }, "Did not apply: " + names(side.skip)));
      return node;
    };
    const from = origins(item, "candidate", true);
    const cut = item.length > item.prompt.length ? el("p", { class: "note" }, `The first ${item.prompt.length.toLocaleString("en")} of ${item.length.toLocaleString("en")} characters; the table of cases holds all.`) : "";
    viewer.firstElementChild.replaceChildren(
      el("div", { class: "viewer-head" }, el("h2", {}, el("bdi", {}, item.id)), el("span", { class: "change " + item.change }, CHANGES[item.change]), close),
      el("div", {}, el("p", { class: "prompt" }, el("bdi", {}, item.prompt)), cut),
      el("p", { class: "list" }, [item.subtask, item.locale, item.origin, item.theme, item.size].filter(Boolean).join(" · ")),
      el("div", { class: "pair of" + (2 + Math.min(1, from.length)) }, from.length ? el("div", { class: "side origins" }, ...from) : "", ...ARMS.map(column)));
    if (!viewer.open) viewer.showModal();
  };
  viewer.addEventListener("close", () => { delete state.case; writeHash(); });
  viewer.addEventListener("click", (event) => { if (event.target === viewer) viewer.close(); });

  const show = () => {
    fill();
    let found = data.items.filter((item) => matches(item));
    const sort = state.sort in SORTS ? state.sort : "";
    if (sort === "id") found = found.slice().sort((a, b) => a.id.localeCompare(b.id));
    else if (sort) found = found.slice().sort((a, b) => worst(b, sort.slice(1)) - worst(a, sort.slice(1)) || a.n - b.n);
    const pages = Math.max(1, Math.ceil(found.length / PAGE));
    const page = Math.min(pages, Math.max(1, parseInt(state.page, 10) || 1));
    $("cards").replaceChildren(...found.slice((page - 1) * PAGE, page * PAGE).map(card));
    if (!found.length) $("cards").append(el("p", { class: "empty" }, "No failure matches these filters."));
    $("count").textContent = `${found.length.toLocaleString("en")} of ${plural(data.items.length, "case")}`;
    const bar = $("pages");
    bar.hidden = pages < 2;
    bar.children[1].textContent = `page ${page} of ${pages}`;
    bar.children[0].disabled = page === 1;
    bar.children[2].disabled = page === pages;
    bar.dataset.page = page;
    open();
  };
  const change = (edit) => { edit(); delete state.case; writeHash(); show(); };
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("change", (event) => { if (event.target.name !== "q") change(() => { state[event.target.name] = event.target.value; delete state.page; }); });
  form.addEventListener("reset", () => change(() => { state = {}; }));
  let waiting = 0;
  form.elements.q.addEventListener("input", (event) => { clearTimeout(waiting); waiting = setTimeout(() => change(() => { state.q = event.target.value; delete state.page; }), 150); });
  $("pages").addEventListener("click", (event) => {
    const step = Number(event.target.dataset.step);
    if (!step) return;
    change(() => { state.page = String(Number($("pages").dataset.page) + step); });
    $("gallery").scrollIntoView();
  });
  addEventListener("hashchange", () => { if (readHash()) { show(); $("gallery").scrollIntoView(); } });

  form.hidden = false;
  form.elements.reader.parentElement.hidden = !data.items.some((item) => facets.reader(item).length);
  if (data.total > data.pictured) $("pictured").textContent = `Pictures are embedded for the first ${data.pictured.toLocaleString("en")} of ${data.total.toLocaleString("en")} failing cases, new failures first; the others are listed without.`;
  const linked = readHash();
  show();
  if (linked && !state.case) $("gallery").scrollIntoView({ behavior: "instant" });
})();
