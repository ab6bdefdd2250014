"use strict";
(() => {
  const root = document.documentElement;
  const all = (selector, inside = document) => [...inside.querySelectorAll(selector)];
  const said = document.getElementById("said");
  const say = (text) => { said.textContent = text; };
  root.classList.add("scripted");

  // Theme: as the system, light, dark. What was chosen is kept where the browser allows it.
  const themes = ["", "light", "dark"];
  const names = { "": "auto", light: "light", dark: "dark" };
  const kept = { get: () => { try { return localStorage.getItem("pd-harness-theme") || ""; } catch { return ""; } },
    set: (value) => { try { localStorage.setItem("pd-harness-theme", value); } catch { /* a file of its own has none */ } } };
  const system = matchMedia("(prefers-color-scheme: dark)");
  const button = document.getElementById("theme");
  const show = (theme) => {
    if (theme) root.dataset.theme = theme; else delete root.dataset.theme;
    button.textContent = `Theme: ${names[theme]}`;
  };
  let theme = themes.includes(kept.get()) ? kept.get() : "";
  show(theme);
  button.hidden = false;
  button.addEventListener("click", () => {
    theme = themes[(themes.indexOf(theme) + 1) % themes.length];
    kept.set(theme);
    show(theme);
    redraw();
  });
  system.addEventListener("change", () => redraw());

  // Charts: drawn when they come into view, and again when the theme changes.
  const drawn = new Map();
  let vega = null;
  const unpack = async () => {
    const text = atob(document.getElementById("vega").textContent), packed = new Uint8Array(text.length);
    for (let i = 0; i < text.length; i += 1) packed[i] = text.charCodeAt(i);
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
    const script = document.createElement("script");
    script.textContent = await new Response(stream).text();
    document.head.append(script);
    return window.vegaEmbed;
  };
  const colour = (name) => getComputedStyle(root).getPropertyValue(`--${name}`).trim();
  const config = () => {
    const text = colour("text"), muted = colour("muted"), line = colour("line");
    const font = getComputedStyle(document.body).fontFamily;
    return {
      background: "transparent", font, padding: 4,
      view: { stroke: line },
      axis: { labelColor: muted, titleColor: text, gridColor: line, domainColor: colour("strong-line"), tickColor: colour("strong-line"), labelFontSize: 12, titleFontSize: 12, titleFontWeight: 500 },
      legend: { symbolBaseFillColor: muted, symbolBaseStrokeColor: muted, labelColor: text, titleColor: text, labelFontSize: 12, titleFontSize: 12, orient: "top", direction: "horizontal", columns: innerWidth < 640 ? 2 : 0 },
      header: { labelColor: text, titleColor: text },
      title: { color: text, subtitleColor: muted },
      text: { color: text }, rule: { color: muted },
      mark: { color: colour("c1") }, point: { filled: true },
      range: { category: [1, 2, 3, 4, 5, 6, 7, 8].map((n) => colour(`c${n}`)) },
    };
  };
  // A specification may name the page's colours: "var(--invalid-mark)".
  const coloured = (part) => {
    if (typeof part === "string") return part.replace(/^var\(--([a-z0-9-]+)\)$/, (whole, name) => colour(name) || whole);
    if (Array.isArray(part)) return part.map(coloured);
    if (!part || typeof part !== "object") return part;
    return Object.fromEntries(Object.entries(part).map(([key, value]) => [key, key === "values" || key === "datasets" ? value : coloured(value)]));
  };
  const points = (spec) => {
    if (!spec || typeof spec !== "object") return 0;
    return Object.entries(spec).reduce((sum, [key, value]) => sum + (key === "values" && Array.isArray(value) ? value.length
      : key === "datasets" ? Object.values(value).reduce((n, one) => n + one.length, 0) : points(value)), 0);
  };
  const spec = (name) => {
    const found = all("script.chart-data").find((one) => one.dataset.chart === name);
    const { $schema, ...rest } = JSON.parse(found.textContent);
    return rest;
  };
  const draw = async (place) => {
    const name = place.dataset.draw, given = spec(name);
    try {
      vega = vega || unpack();
      const embed = await vega;
      drawn.get(place)?.finalize?.();
      // On paper, a picture that was drawn for a dark page is inverted: it cannot be drawn again in time.
      const ground = getComputedStyle(root).colorScheme;
      // Vega compiles its expressions with eval unless it interprets them (ast), and this page's policy forbids eval.
      const result = await embed(place, coloured(given), { mode: "vega-lite", actions: false, ast: true, config: config(), renderer: points(given) > 1500 ? "canvas" : "svg" });
      all("svg, canvas", place).forEach((one) => { one.setAttribute("aria-hidden", "true"); one.removeAttribute("role"); });
      drawn.set(place, result);
      place.dataset.ground = ground;
      place.dataset.drawn = "yes";
      performance.mark(`drawn-${name}`);
    } catch (error) {
      place.dataset.drawn = "failed";
      place.textContent = `This picture could not be drawn (${error}). The text below says what it shows.`;
      console.error(error);
    }
  };
  // One after another: a chart that is seen is not to wait for those below it.
  let queue = Promise.resolve();
  const enqueue = (place) => { queue = queue.then(() => draw(place)).then(() => new Promise((resolve) => setTimeout(resolve))).then(rest); };
  const redraw = () => { for (const place of drawn.keys()) enqueue(place); };
  const begin = (place) => { seen.unobserve(place); drawn.set(place, null); enqueue(place); };
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) if (entry.isIntersecting && !drawn.has(entry.target)) begin(entry.target);
  }, { rootMargin: "200px" });
  all("[data-draw]").forEach((place) => seen.observe(place));
  // The others are drawn when the browser has nothing else to do, one at a time: whoever prints the page wants them, too.
  const idle = window.requestIdleCallback || ((then) => setTimeout(then, 200));
  const rest = () => idle(() => {
    if (all("[data-draw]").some((one) => drawn.has(one) && !one.dataset.drawn)) return;
    const next = all("[data-draw]").find((one) => !drawn.has(one));
    if (next) begin(next);
  });
  rest();

  // On paper nothing can be opened. What was closed is closed again afterwards.
  let opened = [];
  addEventListener("beforeprint", () => { opened = all("details:not([open])"); opened.forEach((one) => { one.open = true; }); });
  addEventListener("afterprint", () => { opened.forEach((one) => { one.open = false; }); opened = []; });

  // Tables that can be sorted: a button in each heading. Cells may carry a number to sort by in data-v.
  const value = (row, column) => {
    const cell = row.cells[column], given = cell?.dataset.v ?? cell?.textContent.trim() ?? "";
    return given === "" ? null : Number.isNaN(Number(given)) ? given : Number(given);
  };
  const order = (one, other) => {
    if (one === null || other === null) return (one === null) - (other === null);
    if (typeof one === typeof other) return typeof one === "number" ? one - other : one.localeCompare(other, "en", { numeric: true });
    return typeof one === "number" ? -1 : 1;
  };
  const sort = (table, heading) => {
    const column = heading.cellIndex, up = heading.getAttribute("aria-sort") !== "ascending";
    const rows = [...table.tBodies[0].rows].map((row) => [value(row, column), row]);
    // Cells without a value stay last in both directions.
    rows.sort(([a], [b]) => (a === null || b === null || up ? order(a, b) : order(b, a)));
    table.tBodies[0].append(...rows.map(([, row]) => row));
    all("thead th", table).forEach((one) => one.removeAttribute("aria-sort"));
    heading.setAttribute("aria-sort", up ? "ascending" : "descending");
    say(`Sorted by ${heading.textContent.trim()}, ${up ? "ascending" : "descending"}.`);
  };
  all("table[data-sort] thead th").forEach((heading) => {
    if (!heading.textContent.trim()) return;
    const press = document.createElement("button");
    press.type = "button";
    press.append(...heading.childNodes);
    heading.append(press);
    press.addEventListener("click", () => sort(heading.closest("table"), heading));
  });

  // Tables that can be filtered: by the kind of a row (data-kind) and by text.
  all(".controls[data-for]").forEach((controls) => {
    const rows = [...document.getElementById(controls.dataset.for).tBodies[0].rows];
    const search = controls.querySelector("input"), count = controls.querySelector(".count");
    const presses = all("button[data-kind]", controls);
    const texts = new Map();
    const text = (row) => { if (!texts.has(row)) texts.set(row, row.textContent.toLowerCase()); return texts.get(row); };
    const apply = () => {
      const kind = presses.find((one) => one.getAttribute("aria-pressed") === "true")?.dataset.kind ?? "";
      const words = search ? search.value.trim().toLowerCase() : "";
      let shown = 0;
      for (const row of rows) {
        row.hidden = Boolean((kind && row.dataset.kind !== kind) || (words && !text(row).includes(words)));
        shown += !row.hidden;
      }
      count.textContent = `${shown.toLocaleString("en")} of ${rows.length.toLocaleString("en")} rows shown`;
    };
    presses.forEach((one) => one.addEventListener("click", () => {
      presses.forEach((other) => other.setAttribute("aria-pressed", String(other === one)));
      apply();
    }));
    search?.addEventListener("input", apply);
    controls.hidden = false;
    apply();
  });

  // Commands that can be copied.
  all("[data-copy]").forEach((press) => {
    press.hidden = false;
    press.addEventListener("click", async () => {
      const from = document.getElementById(press.dataset.copy);
      try {
        await navigator.clipboard.writeText(from.textContent);
      } catch {
        const range = document.createRange();
        range.selectNodeContents(from);
        getSelection().removeAllRanges();
        getSelection().addRange(range);
        if (!document.execCommand("copy")) { say("Selected: copy it with the keyboard."); return; }
      }
      say("Copied.");
      press.textContent = "Copied";
      setTimeout(() => { press.textContent = "Copy"; }, 2000);
    });
  });

  // The section that is read is marked among the contents.
  const links = new Map(all("nav.contents a").map((link) => [link.hash.slice(1), link]));
  let asked = false;
  const mark = () => {
    asked = false;
    let read = null;
    links.forEach((link, id) => {
      const section = document.getElementById(id);
      if (section && section.getBoundingClientRect().top <= innerHeight / 5) read = link;
    });
    links.forEach((link) => { if (link === read) link.setAttribute("aria-current", "true"); else link.removeAttribute("aria-current"); });
  };
  const ask = () => { if (!asked) { asked = true; requestAnimationFrame(mark); } };
  addEventListener("scroll", ask, { passive: true });
  addEventListener("resize", ask);
  mark();
  // A link to something inside a closed part opens that part.
  const open = () => { const at = location.hash.length > 1 && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    for (let one = at && at.closest("details"); one; one = one.parentElement?.closest("details")) one.open = true; if (at) at.scrollIntoView(); };
  addEventListener("hashchange", open);
  open();
})();
