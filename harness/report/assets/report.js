// The report reads in full without this. With it: unpacking on demand, filter, cells, links.
// Names out of a record only ever become text nodes here; the HTML that is unpacked was escaped
// when the report was drawn, like all the rest of the page.
"use strict";
(() => {
  const root = document.documentElement;
  root.classList.add("js");
  const $ = (selector, within = document) => within.querySelector(selector);
  const $$ = (selector, within = document) => [...within.querySelectorAll(selector)];
  const make = (tag, attributes = {}, ...children) => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  };
  const bdi = (text) => make("bdi", {}, text);

  // --- Light and dark ---
  const theme = $("#theme");
  const dark = () =>
    (root.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "")) === "dark";
  const remember = (value) => {
    try {
      return value ? localStorage.setItem("netpol-theme", value) : localStorage.getItem("netpol-theme");
    } catch {
      return null; // no storage on pages opened from disk in some browsers
    }
  };
  const show = (name) => {
    if (name === "dark" || name === "light") root.dataset.theme = name;
    theme.textContent = dark() ? "Light" : "Dark";
    theme.setAttribute("aria-label", `Switch to ${dark() ? "light" : "dark"} colours`);
  };
  theme.hidden = false;
  theme.addEventListener("click", () => {
    show(dark() ? "light" : "dark");
    remember(root.dataset.theme);
  });
  show(remember());

  // --- Scenarios: unpacked when opened ---
  const list = $("#list");
  const chunks = new Map();
  const chunk = (number) => {
    if (!chunks.has(number)) {
      const packed = atob($(`#chunk-${number}`).textContent);
      const bytes = Uint8Array.from(packed, (c) => c.charCodeAt(0));
      const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
      chunks.set(number, new Response(stream).json());
    }
    return chunks.get(number);
  };
  const filled = new WeakMap();
  const fill = (details) => {
    if (!filled.has(details)) filled.set(details, unpack(details));
    return filled.get(details);
  };
  const unpack = async (details) => {
    const body = $(".body", details);
    if (details.dataset.at) {
      const [number, index] = details.dataset.at.split(".").map(Number);
      try {
        body.innerHTML = (await chunk(number))[index];
      } catch (error) {
        body.textContent = `This browser cannot unpack the scenario: ${error}`;
        return;
      }
    }
    const block = $("script.data", body);
    if (block) details.data = JSON.parse(block.textContent);
    for (const table of $$(".mx table", body)) grid(table);
    for (const raw of $$(".raw", body)) raw.hidden = false;
  };
  list.addEventListener("toggle", (event) => {
    const details = event.target;
    if (!details.open) return;
    if (details.classList.contains("scenario")) fill(details);
    else if (details.classList.contains("raw")) fillRaw(details);
  }, true);

  // --- Cells ---
  const column = (cells, name, index) => {
    const of = cells[name];
    return Array.isArray(of) ? of[index] : of;
  };
  const cellOf = (data, number, index) => {
    const step = data.steps[number - 1];
    const number_ = (name) => column(step.cells, name, index) ?? null;
    const text = (name) => {
      const at = column(step.cells, name, index);
      return at === undefined ? "" : data.values[at];
    };
    const reason = step.reasons[number_("because")];
    return {
      index, step,
      source: text("source"), target: text("target"), port: number_("port"),
      protocol: text("protocol"), via: text("via"), family: number_("family"),
      expected: text("expected"), finding: text("finding"), observed: text("observed"),
      outcomes: text("outcomes") || {}, latency: number_("latency"), backend: text("backend"),
      seenSource: text("seen_source"), raw: text("raw"), note: text("note"), reason: text("reason"),
      grounds: reason ? reason.because.map((i) => data.values[i]) : [],
    };
  };
  const keyOf = (c) => `${c.source}>${c.target}:${c.port}/${c.protocol}/${c.via}/${c.family}`;
  const deciding = (c) => {
    const own = c.grounds.filter((g) => g.verdict === c.expected);
    return own.length ? own : c.grounds;
  };
  const seconds = (s) => (s >= 1 ? `${s.toFixed(2)} s` : `${(s * 1000).toFixed(s < 0.01 ? 1 : 0)} ms`);
  const counted = (outcomes) =>
    Object.entries(outcomes).map(([name, count]) => `${name} ${count}×`).join(", ") || "nothing";
  const context = (td) => {
    const section = td.closest(".step");
    const details = td.closest(".scenario");
    return { section, details, step: Number(section.dataset.step) };
  };
  const cellAt = (td) => {
    const { details, step } = context(td);
    return details.data && cellOf(details.data, step, Number(td.dataset.c));
  };

  const select = (td, focus = true) => {
    const { section, details, step } = context(td);
    const c = cellAt(td);
    if (!c) return;
    for (const other of $$("td.on", section)) other.classList.remove("on");
    td.classList.add("on");
    if (focus) rove(td);
    const panel = $(".cell", section);
    panel.replaceChildren(describe(c, details, step));
    mark(section, c);
  };
  const describe = (c, details, step) => {
    const dl = make("dl");
    const row = (name, ...content) => {
      if (content.some((x) => x !== "" && x !== null)) dl.append(make("dt", {}, name), make("dd", {}, ...content));
    };
    row("From", make("code", {}, bdi(c.source)));
    row("To", make("code", {}, bdi(c.target), `:${c.port}/${c.protocol}`));
    row("By", c.via.replace("-", " ") + (c.family === 6 ? ", IPv6" : ", IPv4"));
    row("Finding", make("b", {}, c.finding));
    row("Expected", c.expected + (c.reason ? ` (${c.reason})` : ""));
    row("Seen", counted(c.outcomes));
    const why = c.grounds.map((g) => {
      const policies = make("p", { class: "policies" });
      for (const name of g.policies || []) policies.append(make("code", {}, bdi(name)));
      const rule = g.rule === null || g.rule === undefined ? "" : `, rule ${g.rule + 1}`;
      const about = `${g.flow === "dns" ? "lookup, " : ""}${g.direction.toLowerCase()} ${g.verdict}${rule}`;
      const place = g.source ? make("small", {}, " ", bdi(g.source)) : "";
      const parts = [make("p", {}, make("small", {}, about), " ", bdi(g.text), place)];
      return policies.childNodes.length ? [...parts, policies] : parts;
    });
    row("Why", ...why.flat());
    row("Latency", c.latency === null ? "" : seconds(c.latency));
    row("Answered by", c.backend && make("code", {}, bdi(c.backend)));
    row("Saw client as", c.seenSource && make("code", {}, bdi(c.seenSource)));
    row("Said", c.raw && make("code", { class: "pre" }, c.raw));
    row("Note", c.note);
    const link = make("a", { href: address(details, step, keyOf(c)) }, "Link to this cell");
    const copy = make("button", { type: "button", class: "copy" }, "Copy link");
    copy.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(new URL(link.href, location.href).href);
        copy.textContent = "Copied";
      } catch {
        copy.textContent = "Copy the link beside this";
      }
    });
    dl.append(make("dt", {}, make("span", { class: "sr" }, "Share")), make("dd", { class: "act" }, link, copy));
    return dl;
  };
  const address = (details, step, key) => `#${details.id}&step=${step}&cell=${encodeURIComponent(key)}`;

  const mark = (section, c) => {
    const lines = $$(".yaml span", section);
    for (const line of lines) line.classList.remove("in", "rule");
    let first = null;
    const paint = (span, css) => {
      for (let n = span[0]; n <= span[1] && n <= lines.length; n++) lines[n - 1].classList.add(css);
      first = first === null ? span[0] : Math.min(first, span[0]);
    };
    for (const ground of deciding(c)) {
      for (const name of ground.policies || []) {
        const spans = Object.hasOwn(c.step.spans, name) ? c.step.spans[name] : null;
        if (!spans) continue;
        paint(spans[""][0], "in");
        const rule = (spans[ground.direction] || [])[ground.rule];
        if (rule) paint(rule, "rule");
      }
    }
    const target = $(".yaml .rule", section) || (first && lines[first - 1]);
    if (target) target.parentElement.scrollTop = target.offsetTop - target.parentElement.offsetTop - 40;
  };

  // One tab stop for each matrix; the arrow keys move within it.
  const grid = (table) => {
    table.setAttribute("role", "grid");
    const cells = $$("td[data-c]", table);
    for (const td of cells) {
      td.tabIndex = -1;
      td.setAttribute("role", "gridcell");
    }
    const first = cells.find((td) => !["al", "dn"].some((css) => td.classList.contains(css))) || cells[0];
    if (first) first.tabIndex = 0;
  };
  const rove = (td) => {
    for (const other of $$('td[tabindex="0"]', td.closest("table"))) other.tabIndex = -1;
    td.tabIndex = 0;
    td.focus({ preventScroll: false });
  };
  const next = (td, key) => {
    const row = td.parentElement;
    const cells = $$("td[data-c], td.no", row);
    const at = cells.indexOf(td);
    const rows = $$("tbody tr", td.closest("table"));
    const down = rows.indexOf(row);
    const walk = (pick) => {
      for (let n = 1; n < 500; n++) {
        const found = pick(n);
        if (!found || found.dataset.c !== undefined) return found;
      }
      return null;
    };
    const inRow = (r) => r && $$("td[data-c], td.no", r)[at];
    switch (key) {
      case "ArrowRight": return walk((n) => cells[at + n]);
      case "ArrowLeft": return walk((n) => cells[at - n]);
      case "ArrowDown": return walk((n) => inRow(rows[down + n]));
      case "ArrowUp": return walk((n) => inRow(rows[down - n]));
      case "Home": return cells.find((c) => c.dataset.c !== undefined);
      case "End": return cells.findLast((c) => c.dataset.c !== undefined);
      default: return undefined;
    }
  };
  list.addEventListener("click", (event) => {
    const td = event.target.closest("td[data-c]");
    if (td) select(td);
  });
  list.addEventListener("keydown", (event) => {
    const td = event.target.closest("td[data-c]");
    if (!td || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      select(td);
      return;
    }
    const to = next(td, event.key);
    if (to === undefined) return;
    event.preventDefault();
    if (to) {
      rove(to);
      hint(to);
    }
  });

  // --- What decided a cell, on hover and on focus ---
  const tip = $("#tip");
  const hint = (td) => {
    const c = cellAt(td);
    if (!c) return;
    tip.replaceChildren(
      make("b", {}, bdi(c.source), " → ", bdi(c.target)),
      make("div", {}, `${c.finding}: expected ${c.expected}, seen ${c.observed || "nothing"}`),
      ...deciding(c).map((g) => make("div", {}, bdi(g.text))),
    );
    tip.hidden = false;
    const box = td.getBoundingClientRect();
    const own = tip.getBoundingClientRect();
    const left = Math.max(8, Math.min(box.left, innerWidth - own.width - 8));
    const below = box.bottom + 8 + own.height < innerHeight;
    tip.style.left = `${left}px`;
    tip.style.top = `${below ? box.bottom + 8 : Math.max(8, box.top - own.height - 8)}px`;
  };
  list.addEventListener("mouseover", (event) => {
    const td = event.target.closest("td[data-c]");
    if (td) hint(td);
    else tip.hidden = true;
  });
  list.addEventListener("mouseleave", () => { tip.hidden = true; });
  list.addEventListener("focusout", () => { tip.hidden = true; });
  addEventListener("scroll", () => { tip.hidden = true; }, { passive: true });
  addEventListener("keydown", (event) => {
    if (event.key === "Escape") tip.hidden = true;
    if (event.key === "/" && !/^(INPUT|SELECT|TEXTAREA)$/.test(document.activeElement.tagName)) {
      event.preventDefault();
      form.elements.q.focus();
    }
  });

  const fillRaw = (details) => {
    const box = $(".scroll", details);
    if (box.childNodes.length) return;
    const { details: scenario, step } = context(details);
    const head = ["From", "To", "Way", "Expected", "Finding", "Seen", "Latency", "Answered by", "Client seen as", "Said"];
    const body = make("tbody");
    for (let n = 0; n < scenario.data.steps[step - 1].cells.count; n++) {
      const c = cellOf(scenario.data, step, n);
      const way = `${c.port}/${c.protocol} ${c.via}${c.family === 6 ? " IPv6" : ""}`;
      body.append(make("tr", {}, ...[
        bdi(c.source), bdi(c.target), way, c.expected, c.finding, counted(c.outcomes),
        c.latency === null ? "" : seconds(c.latency), bdi(c.backend), bdi(c.seenSource), bdi(c.raw),
      ].map((x) => make("td", {}, x))));
    }
    const names = make("tr", {}, ...head.map((name) => make("th", { scope: "col" }, name)));
    box.append(make("table", { class: "figures" }, make("thead", {}, names), body));
  };

  // --- The filter; it lives in the address, so that it can be shared ---
  const form = $("#filter");
  const shown = $("#shown");
  const scenarios = $$(".scenario", list);
  const words = (text) => (text ? text.split(" ") : []);
  const texts = new Map();
  const textOf = (s) => {
    if (!texts.has(s)) texts.set(s, `${$(".name", s).textContent} ${s.dataset.f} ${s.dataset.q}`.toLowerCase());
    return texts.get(s);
  };
  const apply = () => {
    const f = Object.fromEntries(["q", "feature", "namespace", "finding"].map((n) => [n, form.elements[n].value]));
    const outcomes = $$("[name=outcome]:checked", form).map((box) => box.value);
    const wanted = words(f.q.toLowerCase().trim());
    let count = 0;
    for (const s of scenarios) {
      const ok =
        (!outcomes.length || outcomes.includes(s.dataset.o)) &&
        (!f.feature || words(s.dataset.f).includes(f.feature)) &&
        (!f.namespace || words(s.dataset.ns).includes(f.namespace)) &&
        (!f.finding || words(s.dataset.k).includes(f.finding)) &&
        wanted.every((word) => textOf(s).includes(word));
      if (s.hidden === ok) s.hidden = !ok;
      count += ok;
    }
    shown.textContent = count === scenarios.length
      ? `${count.toLocaleString("en")} scenario${count === 1 ? "" : "s"}`
      : `${count.toLocaleString("en")} of ${scenarios.length.toLocaleString("en")} scenarios`;
    $("#none").hidden = count > 0;
    const parts = Object.entries(f).filter(([, value]) => value);
    if (outcomes.length) parts.push(["outcome", outcomes.join(",")]);
    return parts.map(([name, value]) => `${name}=${encodeURIComponent(value)}`).join("&");
  };
  const filtered = () => {
    const text = apply();
    history.replaceState(null, "", text ? `#${text}` : location.pathname + location.search);
  };
  form.hidden = false;
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", filtered);
  form.addEventListener("reset", () => setTimeout(filtered));
  $("#none button").addEventListener("click", () => form.reset());

  // --- Addresses: #scenario=ID&step=N&cell=KEY, or the filter ---
  const decode = (text) => {
    try {
      return decodeURIComponent(text);
    } catch {
      return text;
    }
  };
  const follow = async () => {
    const hash = location.hash.slice(1);
    if (!hash.includes("=")) return;
    const parts = Object.fromEntries(hash.split("&").map((part) => {
      const at = part.indexOf("=");
      return [part.slice(0, at), part.slice(at + 1)];
    }));
    if (parts.scenario === undefined) {
      form.reset();
      for (const name of ["q", "feature", "namespace", "finding"]) form.elements[name].value = decode(parts[name] || "");
      const outcomes = words(decode(parts.outcome || "").replaceAll(",", " "));
      for (const box of $$("[name=outcome]", form)) box.checked = outcomes.includes(box.value);
      apply();
      $("#scenarios").scrollIntoView();
      return;
    }
    const details = document.getElementById(`scenario=${parts.scenario}`);
    if (!details) return;
    details.hidden = false;
    await fill(details);
    details.open = true;
    const section = $$(".step", details).find((s) => s.dataset.step === parts.step);
    if (section && parts.cell !== undefined) {
      const key = decode(parts.cell);
      const td = $$("td[data-c]", section).find((one) => keyOf(cellAt(one)) === key);
      if (td) {
        section.scrollIntoView({ behavior: "instant" });
        select(td);
        return;
      }
    }
    (section || details).scrollIntoView({ behavior: "instant" });
  };
  addEventListener("hashchange", follow);
  follow();

  // --- Print: what went wrong is printed in full ---
  addEventListener("beforeprint", () => {
    for (const details of scenarios) {
      if (!details.dataset.at && $(".body", details).childNodes.length) details.open = true;
    }
  });
})();
