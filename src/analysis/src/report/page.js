// The page that `export` writes: draws what the JSON beside it tells. The state that is
// shown (instants, view, order) is in one object and in the address, so that it can be sent.
(() => {
  "use strict";
  const data = JSON.parse(document.getElementById("data").textContent);
  const $ = id => document.getElementById(id);
  const count = data.states.length;
  const shown = {
    a: data.from, b: data.to, change: data.compare, blocks: data.blocks,
    sort: data.sort, down: true, filter: "", find: "", rows: 25, zoom: 0, open: new Set(),
  };

  // Words, as in leakline's other reports.
  function bytes(value) {
    if (value < 1024) return `${value} B`;
    const units = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let unit = 0;
    for (value /= 1024; value >= 1023.95 && unit + 1 < units.length; unit++) value /= 1024;
    const digits = unit < 2 ? 1 : value < 9.995 ? 2 : value < 99.95 ? 1 : 0;
    return `${value.toFixed(digits)} ${units[unit]}`;
  }
  const grouped = value => String(value).replace(/\B(?=(\d{3})+$)/g, ",");
  const size = value => shown.blocks ? grouped(value) : bytes(value);
  const sign = value => value > 0 ? "+" : value < 0 ? "-" : "";
  const signed = value => sign(value) + size(Math.abs(value));
  const noun = () => shown.blocks ? " blocks" : "";
  const two = value => String(Math.floor(value)).padStart(2, "0");
  function clock(ms) {
    const seconds = (data.clock_ms + ms) / 1000;
    return `${two(seconds / 3600 % 24)}:${two(seconds / 60 % 60)}:${two(seconds % 60)}`;
  }
  function duration(ms) {
    const seconds = Math.floor(ms / 1000);
    if (ms < 1) return ms > 0 ? `${Math.ceil(ms * 1000)} us` : "0 s";
    if (ms < 1000) return `${Math.floor(ms)} ms`;
    if (seconds < 60) return `${(Math.floor(ms / 100) / 10).toFixed(1)} s`;
    if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${two(seconds % 60)} s`;
    if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ${two(seconds / 60 % 60)} min`;
    return `${Math.floor(seconds / 86400)} d ${two(seconds / 3600 % 24)} h`;
  }

  // What sites held, state by state: bytes and blocks.
  function unpack(series) {
    const values = [new Float64Array(count), new Float64Array(count)];
    for (let i = 0, at = 0; i < series.length; i += 3) {
      at += series[i];
      values[0].fill(series[i + 1], at);
      values[1].fill(series[i + 2], at);
    }
    return values;
  }
  const text = (frame, part) => data.texts[data.frames[frame][part]];
  function named(frame) {
    const place = text(frame, 1);
    return place ? `${text(frame, 0)} ${place}` : text(frame, 0);
  }
  function origin(frame) {
    const file = text(frame, 2), line = data.frames[frame][4];
    return (file && line ? `${file}:${line}` : file) || text(frame, 3);
  }
  const sites = data.sites.map((site, number) =>
    ({ ...site, number, values: unpack(site.series) }));
  for (const site of sites) {
    const frames = [site.made, site.yours].filter(frame => frame !== undefined);
    site.words = frames.map(frame => [0, 2, 3].map(part => text(frame, part)).join(" "))
      .join(" ").toLowerCase();
  }
  const rest = { ...data.rest_figures, rest: true, values: unpack(data.rest) };
  const all = data.rest_sites > 0 ? [...sites, rest] : sites;
  const at = (site, state) => Math.max(0, site.values[shown.blocks ? 1 : 0][state]);
  const value = site => shown.change ? at(site, shown.b) - at(site, shown.a) : at(site, shown.b);

  function make(name, props = {}, ...children) {
    const element = document.createElement(name);
    for (const [key, value] of Object.entries(props)) {
      if (key in element) element[key] = value; else element.setAttribute(key, value);
    }
    element.append(...children);
    return element;
  }
  function draw(name, props, words) {
    const element = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(props)) element.setAttribute(key, value);
    if (words !== undefined) element.textContent = words;
    return element;
  }
  const tinged = change => change > 0 ? "grew" : change < 0 ? "shrank" : "";

  // The timeline.
  function drawTime() {
    const svg = $("time"), width = svg.clientWidth || 1000, height = 190;
    const top = 34, bottom = height - 18, left = 70, right = width - 12;
    const longest = Math.max(data.duration_ms, 1e-3);
    const most = Math.max(1, ...data.timeline.map(step => step[2]));
    const x = ms => left + (right - left) * ms / longest;
    const y = held => bottom - (bottom - top) * held / most;
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    const parts = [];
    const area = (which, name) => {
      let path = `M${left} ${bottom}`, before = left;
      for (const step of data.timeline) {
        path += `L${before.toFixed(1)} ${y(step[which]).toFixed(1)}`
          + `L${x(step[0]).toFixed(1)} ${y(step[which]).toFixed(1)}`;
        before = x(step[0]);
      }
      parts.push(draw("path", { class: name, d: `${path}L${before.toFixed(1)} ${bottom}Z` }));
    };
    area(2, "most");
    area(1, "live");
    for (const share of [0, 0.5, 1]) {
      const level = y(most * share);
      parts.push(draw("line", { class: "axis", x1: left, x2: right, y1: level, y2: level }));
      parts.push(draw("text", { x: left - 6, y: level + 4, "text-anchor": "end" },
        bytes(Math.round(most * share))));
    }
    for (const share of [0, 0.25, 0.5, 0.75, 1]) {
      const ms = longest * share;
      const anchor = share === 0 ? "start" : share === 1 ? "end" : "middle";
      parts.push(draw("text", { x: x(ms), y: height - 4, "text-anchor": anchor },
        longest < 10000 ? `+${duration(ms)}` : clock(ms)));
    }
    // Names that would lie over each other are left to the tooltip.
    let free = -1;
    for (const mark of [...data.marks].sort((one, other) => one.ms - other.ms)) {
      const group = draw("g", {}), place = x(mark.ms);
      group.append(draw("title", {}, `${mark.name}, ${clock(mark.ms)}`));
      group.append(draw("line", { class: "mark", x1: place, x2: place, y1: top, y2: bottom }));
      const room = mark.name.length * 6.2, start = Math.min(place, right - room);
      if (start > free) {
        group.append(draw("text", { class: "name", x: start, y: top - 5 }, mark.name));
        free = start + room + 8;
      }
      parts.push(group);
    }
    const [a, b] = [shown.a, shown.b].map(state => x(data.states[state].ms));
    if (shown.change) {
      const [from, to] = [Math.min(a, b), Math.max(a, b)];
      parts.push(draw("rect",
        { class: "between", x: from, width: to - from, y: top, height: bottom - top }));
    }
    const cursors = shown.change ? [["A", a], ["B", b]] : [["B", b]];
    for (const [letter, place] of cursors) {
      parts.push(draw("line", { class: "at", x1: place, x2: place, y1: 16, y2: bottom }));
      const middle = { class: "letter", x: place, y: 12, "text-anchor": "middle" };
      parts.push(draw("text", middle, letter));
    }
    svg.replaceChildren(...parts);
    svg.onclick = event => {
      const from = svg.getBoundingClientRect().left + left;
      const ms = (event.clientX - from) / (right - left) * longest;
      let nearest = 0;
      data.states.forEach((state, place) => {
        if (Math.abs(state.ms - ms) < Math.abs(data.states[nearest].ms - ms)) nearest = place;
      });
      if (event.shiftKey) { shown.a = nearest; shown.change = true; } else shown.b = nearest;
      update();
    };
  }

  // Instants.
  const held = state => all.reduce((sum, site) => sum + at(site, state), 0);
  // Whether sites have not told all that the session held: those left out on purpose aside.
  function lacks(state) {
    const { inexact } = data.states[state];
    return !data.filtered && inexact && held(state) < inexact[shown.blocks ? 1 : 0];
  }
  function says(state) {
    const { ms, inexact } = data.states[state];
    const figures = lacks(state)
      ? `${size(inexact[shown.blocks ? 1 : 0])}${noun()} live, `
        + `${size(held(state))} of it known by site: changes below 64 KiB or 1 % come later`
      : `${size(held(state))}${noun()} live`;
    return `${clock(ms)} (+${duration(ms)}), ${figures}`
      + (data.filtered && inexact ? "; changes below 64 KiB or 1 % come later" : "");
  }
  function drawInstants() {
    for (const slider of ["a", "b"]) {
      $(slider).max = count - 1;
      $(slider).value = shown[slider];
      $(slider).setAttribute("aria-valuetext", says(shown[slider]));
      $(`${slider}-says`).textContent = says(shown[slider]);
      $(`${slider}-name`).value = data.states[shown[slider]].name ? shown[slider] : "";
    }
    $("show-state").checked = !shown.change;
    $("show-change").checked = shown.change;
    $("blocks").checked = shown.blocks;
    const sum = all.reduce((sum, site) => sum + value(site), 0);
    const grew = all.filter(site => value(site) > 0).length;
    const shrank = all.filter(site => value(site) < 0).length;
    const what = lacks(shown.a) || lacks(shown.b) ? "What is known by site" : "Live memory";
    $("says").textContent = !shown.change ? "" : shown.a === shown.b
      ? "A and B are the same instant."
      : `${what} ${sum < 0 ? "fell" : "grew"} by ${size(Math.abs(sum))}${noun()} from A to B: `
        + `${grouped(grew)} ${grew === 1 ? "site" : "sites"} grew (red, +), `
        + `${grouped(shrank)} shrank (blue, -).`;
  }

  // Calls: how wide, before and after.
  function weigh() {
    const width = new Float64Array(data.calls.length);
    const before = new Float64Array(data.calls.length);
    const after = new Float64Array(data.calls.length);
    for (const site of all) {
      const call = site.rest ? 0 : site.call;
      const [one, other] = [at(site, shown.a), at(site, shown.b)];
      width[call] += shown.change ? Math.max(one, other) : other;
      before[call] += one;
      after[call] += other;
    }
    for (let call = data.calls.length - 1; call > 0; call--) {
      const parent = data.calls[call][0];
      width[parent] += width[call];
      before[parent] += before[call];
      after[parent] += after[call];
    }
    return { width, before, after };
  }
  const below = data.calls.map(() => []);
  for (let call = 1; call < data.calls.length; call++) below[data.calls[call][0]].push(call);
  const callName = call => call === 0 ? "all" : call < 0 ? `${grouped(data.rest_sites)} more sites`
    : named(data.calls[call][1]);
  let boxes = [];
  function tinge(before, after) {
    const share = (after - before) / Math.max(before, after, 1);
    const strength = Math.sqrt(Math.abs(share));
    return `hsl(${share < 0 ? 215 : 5} ${strength * 80}% ${90 - strength * 22}%)`;
  }
  function callFacts(call, weights) {
    const { before, after } = weights;
    const facts = shown.change
      ? `${signed(after[call] - before[call])}${noun()}, `
        + `from ${size(before[call])} to ${size(after[call])}`
      : `${size(after[call])}${noun()}`;
    const share = after[0] > 0 ? ` (${(100 * after[call] / after[0]).toFixed(1)} % of all)` : "";
    const place = call > 0 ? `\n${origin(data.calls[call][1])}` : "";
    return `${callName(call)}: ${facts}${shown.change ? "" : share}${place}`;
  }
  function drawFlame(focus) {
    const flame = $("flame"), weights = weigh(), room = flame.clientWidth || 1000;
    const { width, before, after } = weights;
    if (width[shown.zoom] <= 0) shown.zoom = 0;
    boxes = [];
    let narrow = 0, found = 0, deepest = 0;
    const above = [];
    for (let call = shown.zoom; call !== 0; call = data.calls[call][0]) {
      above.unshift(data.calls[call][0]);
    }
    above.forEach((call, level) =>
      boxes.push({ call, level, x: 0, w: room, above: true, parent: level - 1 }));
    const whole = width[shown.zoom], level = above.length;
    const pending = [{ call: shown.zoom, level, x: 0, w: room, parent: level - 1 }];
    while (pending.length > 0) {
      const box = pending.pop(), place = boxes.length;
      boxes.push(box);
      let x = box.x;
      const callees = below[box.call].filter(call => width[call] > 0)
        .sort((one, other) => width[other] - width[one] || one - other);
      const next = [];
      for (const call of callees) {
        const w = width[call] / whole * room;
        if (w < 0.75 || boxes.length + pending.length + next.length > 6000) { narrow++; continue; }
        next.push({ call, level: box.level + 1, x, w, parent: place });
        x += w;
      }
      pending.push(...next.reverse());
      if (box.call === 0 && data.rest_sites > 0) {
        const w = Math.max(at(rest, shown.b), shown.change ? at(rest, shown.a) : 0) / whole * room;
        if (w >= 0.75) boxes.push({ call: -1, level: box.level + 1, x, w, parent: place });
      }
    }
    const wanted = shown.find.toLowerCase();
    flame.replaceChildren(...boxes.map((box, place) => {
      const { call, level, x, w } = box, name = callName(call);
      deepest = Math.max(deepest, level);
      let facts;
      if (call < 0) {
        const [one, other] = [at(rest, shown.a), at(rest, shown.b)];
        facts = `${name}: ${shown.change ? signed(other - one) : size(other)}${noun()}`;
      } else facts = callFacts(call, weights);
      const frame = call > 0 ? data.calls[call][1] : undefined;
      const kind = frame === undefined ? "" : ["own", "library", ""][data.frames[frame][5]];
      const change = shown.change && call >= 0 ? ` ${signed(after[call] - before[call])}` : "";
      const element = make("div", {
        className: [kind, box.above ? "above" : "", w < 8 ? "thin" : ""].join(" ").trim(),
        title: facts, tabIndex: -1, role: "treeitem", "aria-level": level + 1, "aria-label": facts,
      });
      if (w >= 24) element.textContent = w > 150 ? name + change : name;
      element.style.cssText = `left:${x}px;width:${w}px;top:${level * 18}px`;
      if (shown.change && call > 0) element.style.background = tinge(before[call], after[call]);
      if (wanted && call > 0 && `${name} ${origin(frame)}`.toLowerCase().includes(wanted)) {
        element.classList.add("found");
        found++;
      }
      element.onclick = () => zoom(call);
      element.onfocus = element.onmouseenter = () => { $("here").textContent = facts; };
      element.dataset.place = place;
      box.element = element;
      return element;
    }));
    flame.style.height = `${(deepest + 1) * 18}px`;
    $("found").textContent = wanted ? `${grouped(found)} calls with “${shown.find}”` : "";
    $("narrow").textContent = narrow > 0
      ? `${grouped(narrow)} calls, with what they called, are too narrow to draw: zoom in.` : "";
    const current = boxes.findIndex(box => box.call === shown.zoom);
    if (boxes[current]) {
      boxes[current].element.tabIndex = 0;
      if (focus) boxes[current].element.focus();
    }
  }
  function zoom(call) {
    if (call < 0) return;
    shown.zoom = call;
    drawFlame(true);
  }
  $("flame").onkeydown = event => {
    const place = Number(event.target.dataset.place), box = boxes[place];
    if (!box) return;
    const beside = boxes.filter(other => other.level === box.level && !other.above)
      .sort((one, other) => one.x - other.x);
    const here = beside.indexOf(box);
    const keys = {
      ArrowUp: () => boxes[box.parent],
      ArrowDown: () => boxes.filter(other => other.parent === place)
        .sort((one, other) => one.x - other.x)[0],
      ArrowLeft: () => beside[here - 1],
      ArrowRight: () => beside[here + 1],
    };
    if (event.key === "Enter" || event.key === " ") zoom(box.call);
    else if (event.key === "Escape") zoom(0);
    else if (keys[event.key]) {
      const next = keys[event.key]();
      if (next) {
        event.target.tabIndex = -1;
        next.element.tabIndex = 0;
        next.element.focus();
      }
    } else return;
    event.preventDefault();
  };

  // The table.
  const unit = () => shown.blocks ? 1 : 0;
  const columns = {
    value: { name: () => shown.change ? "growth" : "live", of: value, say: site =>
      shown.change ? signed(value(site)) : size(value(site)) },
    a: { name: () => "at A", of: site => at(site, shown.a), say: site => size(at(site, shown.a)),
      when: () => shown.change },
    b: { name: () => "at B", of: site => at(site, shown.b), say: site => size(at(site, shown.b)),
      when: () => shown.change },
    peak: { name: () => "peak", hint: "at the session's high-water mark",
      of: site => site.peak[unit()], say: site => size(site.peak[unit()]) },
    total: { name: () => "total", hint: "allocated in all that export was asked for",
      of: site => site.total[unit()], say: site => size(site.total[unit()]) },
    temporary: { name: () => "temporary",
      hint: "blocks freed before their thread's next allocation",
      of: site => site.temporary, say: site => grouped(site.temporary) },
    trend: { name: () => "trend", hint: "live over the whole recording" },
    made: { name: () => "made in", of: site => site.words, text: true },
    yours: { name: () => "your code", text: true,
      of: site => site.yours === undefined ? "" : named(site.yours) },
  };
  function trend(site) {
    const most = Math.max(1, ...site.values[unit()]), end = Math.max(data.duration_ms, 1e-3);
    let path = "M0 18", before = 0, right = 0;
    data.states.forEach((state, place) => {
      const [x, y] = [84 * state.ms / end, 18 - 17 * at(site, place) / most];
      const last = 18 - 17 * before / most;
      path += `L${x.toFixed(1)} ${last.toFixed(1)}L${x.toFixed(1)} ${y.toFixed(1)}`;
      before = at(site, place);
      right = x;
    });
    const svg = draw("svg", { class: "trend", viewBox: "0 0 84 18", "aria-hidden": "true" });
    svg.append(draw("path", { d: `${path}L${right.toFixed(1)} 18Z` }));
    return svg;
  }
  function frameName(frame) {
    const place = text(frame, 1);
    const name = make("code", { title: origin(frame) }, text(frame, 0));
    if (place) name.append(" ", make("span", { className: "place" }, place));
    return name;
  }
  function stackOf(site) {
    const list = make("ol", { className: "stack" });
    for (let call = site.call; call !== 0; call = data.calls[call][0]) {
      const frame = data.calls[call][1], mine = data.frames[frame][5] === 0;
      list.append(make("li", { className: mine ? "mine" : "", title: origin(frame) },
        `${mine ? "> " : "  "}${text(frame, 0)}  ${origin(frame)}`));
    }
    return list;
  }
  function toggle(site) {
    if (shown.open.has(site.number)) shown.open.delete(site.number);
    else shown.open.add(site.number);
    drawSites();
    document.getElementById(`site-${site.number}`)?.focus();
  }
  function drawSites() {
    const used = Object.entries(columns).filter(([, column]) => !column.when || column.when());
    if (!used.some(([key]) => key === shown.sort)) shown.sort = "value";
    $("columns").replaceChildren(...used.map(([key, column]) => {
      const is = key === shown.sort, arrow = is ? shown.down ? " ▼" : " ▲" : "";
      const head = make("th", { className: column.say ? "figure" : "", scope: "col" });
      if (is) head.setAttribute("aria-sort", shown.down ? "descending" : "ascending");
      if (column.hint) head.title = column.hint;
      if (!column.of) head.append(column.name());
      else head.append(make("button", { type: "button", id: `sort-${key}`, onclick: () => {
        shown.down = is ? !shown.down : !column.text;
        shown.sort = key;
        update();
        $(`sort-${key}`).focus();
      } }, column.name() + arrow));
      return head;
    }));
    const wanted = shown.filter.toLowerCase(), by = columns[shown.sort];
    const kept = sites.filter(site => site.words.includes(wanted)
      && (shown.change ? at(site, shown.a) !== at(site, shown.b) : true));
    const order = (one, other) => {
      const [x, y] = [by.of(one), by.of(other)];
      return (x < y ? -1 : x > y ? 1 : 0) * (shown.down ? -1 : 1) || one.number - other.number;
    };
    kept.sort(order);
    const rows = [];
    for (const site of kept.slice(0, shown.rows)) {
      const open = shown.open.has(site.number);
      const row = make("tr", { className: "site", onclick: event => {
        if (!window.getSelection().toString() || event.target.closest("button")) toggle(site);
      } });
      for (const [key, column] of used) {
        const cell = make("td", { className: column.say ? "figure" : column.text ? "name" : "" });
        if (column.say) {
          cell.append(column.say(site));
          if (key === "value" && shown.change) cell.classList.add(tinged(value(site)) || "figure");
        } else if (key === "trend") cell.append(trend(site));
        else if (key === "made") {
          const name = site.made === undefined ? "not known" : frameName(site.made);
          const button = make("button", { type: "button", id: `site-${site.number}` },
            open ? "▾ " : "▸ ", name);
          button.setAttribute("aria-expanded", open);
          cell.append(button);
          if (open) cell.append(stackOf(site), `from ${site.domain || "several domains"}`);
        } else if (site.yours !== undefined) cell.append(frameName(site.yours));
        else if (site.made !== undefined && data.frames[site.made][5] === 0) {
          cell.append("the same");
        }
        row.append(cell);
      }
      rows.push(row);
    }
    if (data.rest_sites > 0 && wanted === "") {
      rows.push(make("tr", {}, ...used.map(([key, column]) => {
        const words = column.say ? column.say(rest) : key === "made"
          ? `the rest: ${grouped(data.rest_sites)} more sites` : "";
        return make("td", { className: column.say ? "figure" : "" }, words);
      })));
    }
    $("rows").replaceChildren(...rows);
    const sum = kept.reduce((sum, site) => sum + value(site), 0);
    $("count").textContent = `${grouped(kept.length)} sites, `
      + `${shown.change ? signed(sum) : size(sum)}${noun()}`;
    $("more").hidden = kept.length <= shown.rows;
    $("more").textContent = `Show more (${grouped(Math.max(0, kept.length - shown.rows))} left)`;
  }

  // The address holds what is shown.
  function read() {
    const given = new URLSearchParams(location.hash.slice(1));
    const place = (name, usual) => {
      const number = Number.parseInt(given.get(name), 10);
      return number >= 0 && number < count ? number : usual;
    };
    shown.a = place("a", shown.a);
    shown.b = place("b", shown.b);
    if (given.has("show")) shown.change = given.get("show") === "change";
    if (given.has("unit")) shown.blocks = given.get("unit") === "blocks";
    if (Object.hasOwn(columns, given.get("sort")) && columns[given.get("sort")].of) {
      shown.sort = given.get("sort");
    }
    shown.down = given.get("order") !== "up";
    shown.filter = given.get("filter") ?? "";
    shown.find = given.get("find") ?? "";
    $("filter").value = shown.filter;
    $("find").value = shown.find;
  }
  let writing;
  function write() {
    // Browsers take offence at an address that changes with each step of a slider.
    clearTimeout(writing);
    writing = setTimeout(writeNow, 150);
  }
  function writeNow() {
    const told = new URLSearchParams({
      a: shown.a, b: shown.b, show: shown.change ? "change" : "state",
      unit: shown.blocks ? "blocks" : "bytes",
      sort: shown.sort, order: shown.down ? "down" : "up",
    });
    if (shown.filter) told.set("filter", shown.filter);
    if (shown.find) told.set("find", shown.find);
    history.replaceState(null, "", `#${told}`);
  }
  function update() {
    drawTime();
    drawInstants();
    drawFlame(false);
    drawSites();
    write();
  }

  for (const slider of ["a", "b"]) {
    const named = data.states.map((state, place) => [state.name, place]).filter(([name]) => name);
    $(`${slider}-name`).append(make("option", { value: "" }, "between marks"),
      ...named.map(([name, place]) => make("option", { value: place }, name)));
    const move = place => {
      shown[slider] = Number(place);
      if (slider === "a") shown.change = true;
      update();
    };
    $(slider).max = count - 1;
    $(slider).oninput = event => move(event.target.value);
    $(`${slider}-name`).onchange = event => event.target.value === "" || move(event.target.value);
  }
  $("show-state").onchange = () => { shown.change = false; shown.sort = "value"; update(); };
  $("show-change").onchange = () => {
    shown.change = true;
    shown.sort = "value";
    shown.down = true;
    update();
  };
  $("blocks").onchange = event => { shown.blocks = event.target.checked; update(); };
  $("all").onclick = () => zoom(0);
  $("find").oninput = event => { shown.find = event.target.value; drawFlame(false); write(); };
  $("filter").oninput = event => {
    shown.filter = event.target.value;
    shown.rows = 25;
    drawSites();
    write();
  };
  $("more").onclick = () => { shown.rows += 200; drawSites(); };
  $("notes").append(...data.notes.map(note => make("p", {}, note)));
  addEventListener("resize", () => { drawTime(); drawFlame(false); });
  addEventListener("hashchange", () => { read(); update(); });
  document.querySelector("main").hidden = false;
  read();
  update();
})();
