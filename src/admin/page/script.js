"use strict";
// How everything stands comes with the stream, about once a second, and events say when to look at
// once; without the stream the page asks every second. Everything is written by textContent: names are foreign text.
const POLL = 1000, CALM = 2000, WINDOW = 15 * 60 * 1000, MOST_EVENTS = 100, MOST_FAILOVERS = 12, MANY = 24;
const STREAM = "/v1/events/stream", NS = "http://www.w3.org/2000/svg";
const $ = (id) => document.getElementById(id);
const plural = (n, one, more) => `${n.toLocaleString("en")} ${n === 1 ? one : more || one + "s"}`;

function element(tag, attributes, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value !== null && value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children.filter((it) => it !== null && it !== undefined && it !== ""));
  return made;
}
function drawing(tag, attributes, ...children) {
  const made = document.createElementNS(NS, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}
// Writes only what has changed, so that nothing is read out twice.
function say(node, text) { if (node.textContent !== text) node.textContent = text; }
function put(node, key, ...children) {
  if (node.dataset.key === key) return;
  node.dataset.key = key;
  node.replaceChildren(...children.filter((it) => it !== null && it !== ""));
}

// Shapes, because colours alone say nothing to some.
const SHAPES = {
  up: "M2 8.5l4 4 8-9", down: "M3 3l10 10M13 3L3 13", warn: "M8 2v7.5M8 13v.6", none: "M3 8h10",
};
function shape(kind) {
  return drawing("svg", { viewBox: "0 0 16 16", "aria-hidden": "true", class: kind },
    drawing("path", { d: SHAPES[kind], fill: "none", stroke: "currentColor", "stroke-width": 2.4, "stroke-linecap": "round", "stroke-linejoin": "round" }));
}

const time = (text) => (text ? Date.parse(text) : NaN);
function span(seconds) {
  if (!Number.isFinite(seconds)) return "";
  const s = Math.max(0, seconds);
  if (s < 60) return `${Math.floor(s)} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
}
function fine(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 0.001) return `${Math.round(seconds * 1e6)} µs`;
  if (seconds < 0.01) return `${(seconds * 1000).toFixed(1)} ms`;
  if (seconds < 1) return `${(seconds * 1000).toFixed(1)} ms`;
  return `${seconds.toFixed(seconds < 10 ? 2 : 1)} s`;
}
function rate(number) {
  if (number === null) return "–";
  if (number < 0.05) return "0";
  return number < 10 ? number.toFixed(1) : Math.round(number).toLocaleString("en");
}
function size(number) {
  for (const unit of ["B", "kB", "MB", "GB"]) {
    if (number < 999.5) return `${number < 10 && unit !== "B" ? number.toFixed(1) : Math.round(number)} ${unit}`;
    number /= 1000;
  }
  return `${number.toFixed(1)} TB`;
}
function percent(share) {
  if (share === null || share === undefined) return "–";
  if (share === 1) return "100 %";
  const text = (share * 100).toFixed(share > 0.99 ? 3 : 1);
  return `${text.startsWith("100") ? "99.999" : text} %`;
}
const clock = (at) => new Date(at).toLocaleTimeString([], { hour12: false });

// Clients that found nobody, or were not let in: who, and why. Those of the last minute matter now.
function turnedAway(service) {
  const lost = service.unserved, lines = [];
  const recent = lost.total > 0 && !(now() - time(lost.last) > 60000);
  if (recent) {
    const ago = (at) => `${span((now() - time(at)) / 1000)} ago`;
    const told = (it) => `${it.total.toLocaleString("en")} ${it.cause}${it.last && it.last !== lost.last ? ` (${ago(it.last)})` : ""}`;
    // What happens now comes before what happened often.
    const latest = [...lost.causes].sort((a, b) => (b.last ?? "").localeCompare(a.last ?? ""));
    const causes = latest.map((it) => (latest.length === 1 ? it.cause : told(it))).join(", ");
    lines.push(`${plural(lost.total, "client")} turned away so far, the last ${ago(lost.last)}: ${causes}`);
  }
  for (const it of service.refusals.filter((it) => it.refused_total > 0 && now() - time(it.last) < 60000)) {
    lines.push(`${plural(it.refused_total, "client")} not let in by ${it.rule} so far, the last ${span((now() - time(it.last)) / 1000)} ago`);
  }
  const full = service.queue.waiting > 0 && service.queue.waiting >= service.queue.size;
  if (full) lines.push(`${plural(service.queue.waiting, "client")} ${service.queue.waiting === 1 ? "waits" : "wait"} for a place; the queue (${service.queue.size}) is full`);
  return { recent, full, text: lines.join(" · ") };
}

// What bandwidth caps have slowed down, or would have: each cap that has met a session.
function slowedDown(service) {
  const lines = [];
  for (const it of service.throttling || []) {
    const cap = it.bytes_per_second === null ? it.cap : `${it.cap} (${size(it.bytes_per_second)}/s)`;
    if (it.slowed_total > 0) lines.push(`${plural(it.slowed_total, "session")} slowed down by ${cap}, ${span(it.slowed_seconds_total)} together`);
    if (it.would_be_total > 0) lines.push(`${plural(it.would_be_total, "session")} would be slowed down by ${cap}, which only counts`);
  }
  return lines.join(" · ");
}

// What a backend is, in a word, and how much it matters.
function judge(backend) {
  const admin = backend.admin && backend.admin.duty;
  if (backend.state === "down") return ["down", "down", 0];
  if (!backend.enabled) return ["none", "disabled", 3];
  if (admin === "drain") return ["none", "draining", 2];
  if (admin === "maintenance") return ["none", "disabled", 2];
  if (backend.ejected_until) return ["down", "ejected", 0];
  if (backend.state === "failing") return ["warn", "failing", 1];
  if (backend.state === "recovering") return ["warn", "recovering", 1];
  if (backend.max_connections && backend.traffic.sessions >= backend.max_connections) return ["warn", "full", 2];
  if (backend.suspect) return ["warn", "slow", 1];
  if (backend.state === "unknown") return ["none", "unknown", 2];
  if (backend.agent) return ["warn", `agent: ${backend.agent}`, 2];
  if (!backend.serving) return ["none", "standing by", 3];
  return ["up", "up", 4];
}

let view = null, before = null, events = [], heard = new Set(), streaming = false, since = Date.now(), skew = 0;
const open = new Set();
const now = () => Date.now() + skew;

// Sessions a second between the last two views.
const index = new Map();
function rates(next) {
  const seconds = before ? (time(next.at) - time(before.at)) / 1000 : 0;
  const same = before && before.process.started === next.process.started;
  const note = (key, traffic) => {
    const was = index.get(key);
    const of = (field) => (same && was && seconds > 0.2 ? Math.max(0, (traffic[field] - was.traffic[field]) / seconds) : was ? was[field] : null);
    const found = { traffic };
    for (const field of ["sessions_total", "to_backend_bytes_total", "to_client_bytes_total"]) found[field] = of(field);
    // How long connecting took: of the latest sessions, or of all there were.
    const connected = was ? traffic.sessions_total - was.traffic.sessions_total : 0;
    const took = was ? traffic.connect_seconds_total - was.traffic.connect_seconds_total : 0;
    const overall = traffic.sessions_total > 0 ? traffic.connect_seconds_total / traffic.sessions_total : null;
    found.connect = same && connected > 0 ? took / connected : was && same ? was.connect : overall;
    index.set(key, found);
  };
  if (same && seconds <= 0.2) return;
  for (const service of next.services) {
    note(service.name, service.traffic);
    for (const backend of service.backends) note(`${service.name}\n${backend.name}`, backend.traffic);
  }
  before = next;
}

// Up and down over the last quarter of an hour, from the present state back through the events.
function history(service, backend) {
  const end = now(), start = end - WINDOW;
  const born = Math.max(start, time(view.process.started));
  const isDown = (it) => it.state === "down" || Boolean(it.ejected_until);
  const flips = events.filter((it) => it.service === service.name && it.backend === backend.name && time(it.at) > start)
    .map((it) => [time(it.at), { "backend-down": true, ejected: true, "backend-up": false, returned: false }[it.kind]])
    .filter(([, down]) => down !== undefined).sort((a, b) => b[0] - a[0]);
  const parts = [];
  let until = end, down = backend.state === "unknown" ? null : isDown(backend);
  for (const [at, becomesDown] of flips) {
    parts.push([at, until, down]);
    until = at;
    // Before its first verdict nothing was known of it.
    down = becomesDown ? false : at - time(view.process.started) < 10000 ? null : true;
  }
  if (flips.length === 0 && time(backend.since) > born) {
    parts.push([time(backend.since), until, down]);
    until = time(backend.since);
    down = null;
  }
  parts.push([born, until, down]);
  return parts.filter(([from, to]) => to > from).map(([from, to, is]) => [(from - start) / WINDOW, (to - start) / WINDOW, is]);
}
function strip(cell, service, backend) {
  const parts = history(service, backend);
  const key = parts.map(([from, to, is]) => `${Math.round(from * 180)} ${Math.round(to * 180)} ${is}`).join();
  const off = parts.filter((it) => it[2] === true);
  const missed = off.reduce((sum, [from, to]) => sum + (to - from), 0) * WINDOW / 1000;
  const label = off.length === 0 ? "not down in the last 15 minutes" : `down ${plural(off.length, "time")} for ${span(missed)} in the last 15 minutes`;
  const rects = parts.map(([from, to, is]) => drawing("rect", {
    x: from * 180, width: Math.max((to - from) * 180, is === true ? 1.5 : 0.1), y: is === true ? 1 : 11, height: is === true ? 16 : 4,
    class: is === null ? "dark" : is ? "off" : "on",
  }));
  // Before the daemon started.
  rects.unshift(drawing("rect", { x: 0, width: 180, y: 12.5, height: 1, class: "dark" }));
  put(cell, key, drawing("svg", { class: "strip", viewBox: "0 0 180 18", preserveAspectRatio: "none", role: "img", "aria-label": label }, drawing("title", {}, label), ...rects));
}

// Who has ordered it, and until when.
function orders(admin) {
  const left = (time(admin.deadline) - now()) / 1000;
  return [admin.by ? ` (${admin.by})` : "", Number.isNaN(left) ? "" : left > 0 ? `what is left is closed in ${span(left)}` : "its deadline is over"];
}

function cell(row, name, attributes) {
  const made = element(name === "th" ? "th" : "td", attributes);
  row.append(made);
  return made;
}
function backendRow(service, backend, rows) {
  const key = `${service.name}\n${backend.name}`;
  let row = rows.get(key);
  if (!row) {
    row = { tr: element("tr", { role: "row", class: "backend" }) };
    row.name = cell(row.tr, "th", { scope: "row", role: "rowheader" });
    row.state = cell(row.tr, "td", { role: "cell", class: "state" });
    row.health = cell(row.tr, "td", { role: "cell", class: "health" });
    for (const [field, label] of [["sessions", "Sessions"], ["rate", "New/s"], ["connect", "Connect"], ["availability", "Available"]]) {
      row[field] = cell(row.tr, "td", { role: "cell", class: "number", "data-label": label });
    }
    rows.set(key, row);
  }
  const [kind, word, weight] = judge(backend);
  const address = backend.address && backend.address !== backend.name ? backend.address : backend.address ? "" : "its name leads nowhere";
  put(row.name, address, backend.name, address ? element("span", { class: "quiet" }, address) : "");
  const said = backend.admin && backend.admin.duty !== "serve" && backend.state !== "down";
  const length = span((now() - time((said && backend.admin.since) || backend.since)) / 1000);
  const meant = backend.admin || !backend.enabled;
  const failing = meant && backend.state === "down" && backend.check && backend.check.last_failure;
  const ordered = backend.admin && backend.admin.duty !== "serve" ? orders(backend.admin) : ["", ""];
  const reason = backend.why ? backend.why + ordered[0] : "";
  const why = weight < 4 ? [failing ? `its checks fail: ${failing}` : "", reason, ordered[1]].filter(Boolean).join("; ") : "";
  put(row.state, [kind, word, length, why].join("\n"), element("span", { class: kind }, shape(kind), word),
    length ? element("span", { class: "since" }, `, ${length}`) : "", why && why !== word ? element("span", { class: "because" }, why) : "");
  row.tr.className = `backend${weight === 0 ? " attention" : weight === 1 ? " attention mild" : ""}`;
  strip(row.health, service, backend);
  const found = index.get(key);
  say(row.sessions, backend.traffic.sessions.toLocaleString("en"));
  say(row.rate, rate(found ? found.sessions_total : null));
  say(row.connect, fine(found ? found.connect : null));
  const check = backend.check ? backend.check.latency_seconds : null;
  const title = check === null ? "" : `a check takes ${fine(check)}`;
  if (row.connect.title !== title) row.connect.title = title;
  say(row.availability, percent(backend.record.availability));
  return [row.tr, weight];
}

const made = new Map();
function serviceCard(service) {
  let card = made.get(service.name);
  if (!card) {
    const id = `service-${made.size}`;
    card = { rows: new Map(), root: element("section", { class: "service", "aria-labelledby": id }) };
    const head = element("header");
    card.title = element("h2", { id }, service.name);
    card.state = element("span", { class: "state" });
    card.about = element("span", { class: "about" });
    card.figures = element("span", { class: "figures" });
    card.why = element("p", { class: "why" });
    head.append(card.title, card.state, card.about, card.figures, card.why);
    const column = (text, cls) => element("th", { scope: "col", role: "columnheader", class: cls }, text);
    card.body = element("tbody", { role: "rowgroup" });
    card.table = element("table", { role: "table" }, element("caption", { class: "unseen" }, `Backends of ${service.name}`),
      element("thead", { role: "rowgroup" }, element("tr", { role: "row" }, column("Backend"), column("State"), column("Last 15 minutes", "health"),
        column("Sessions", "number"), column("New/s", "number"), column("Connect", "number"), column("Available", "number"))), card.body);
    card.tiles = element("div", { class: "tiles" });
    card.more = element("button", { class: "more", type: "button" });
    card.more.addEventListener("click", () => {
      if (!open.delete(service.name)) open.add(service.name);
      draw();
    });
    card.root.append(head, element("div", { class: "card" }, card.tiles, card.table, card.more));
    made.set(service.name, card);
  }
  const kind = { ok: "up", degraded: "warn", down: "down" }[service.standing] || "none";
  put(card.state, service.standing, element("span", { class: kind }, shape(kind), service.standing));
  const slowed = slowedDown(service);
  say(card.about, `${service.listeners.map((it) => it.address).join(", ")} · ${service.strategy} · ${service.eligible} of ${service.configured} may serve${slowed && ` · ${slowed}`}`);
  const why = [service.why || "", turnedAway(service).text].filter(Boolean).join(" · ");
  say(card.why, why);
  card.why.hidden = !why;
  const found = index.get(service.name) || {};
  const left = service.left && service.left.sessions ? `, ${service.left.sessions.toLocaleString("en")} of them at ${plural(service.left.backends, "backend")} that left` : "";
  const waiting = left + (service.queue.waiting > 0 ? `, ${service.queue.waiting} waiting` : "");
  const bytes = (found.to_backend_bytes_total || 0) + (found.to_client_bytes_total || 0);
  const figures = [plural(service.traffic.sessions, "session") + waiting, `${rate(found.sessions_total ?? null)} new/s`, bytes >= 1 ? `${size(bytes)}/s` : ""];
  put(card.figures, figures.join(), element("b", {}, service.traffic.sessions.toLocaleString("en")), figures[0].slice(service.traffic.sessions.toLocaleString("en").length),
    " · ", element("b", {}, rate(found.sessions_total ?? null)), " new/s", figures[2] ? ` · ${figures[2]}` : "");

  const many = service.backends.length > MANY, all = !many || open.has(service.name);
  const order = all ? service.backends : service.backends.filter((it) => judge(it)[2] < 2);
  const rows = order.map((backend) => backendRow(service, backend, card.rows)[0]);
  if (rows.length !== card.body.children.length || rows.some((row, at) => card.body.children[at] !== row)) card.body.replaceChildren(...rows);
  for (const [key, row] of card.rows) if (!row.tr.isConnected) card.rows.delete(key);
  card.table.hidden = rows.length === 0;
  card.tiles.hidden = !many;
  card.more.hidden = !many;
  if (many) {
    tiles(card.tiles, service);
    say(card.more, all ? "Show only those that need attention" : `Show all ${service.backends.length} backends`);
    card.more.setAttribute("aria-expanded", String(all));
  }
  return card.root;
}
// Many backends at one look: a tile each, those that are down are taller.
function tiles(node, service) {
  const kinds = service.backends.map((it) => judge(it));
  const counts = new Map();
  for (const [, word] of kinds) counts.set(word, (counts.get(word) || 0) + 1);
  const text = [...counts].sort((a, b) => b[1] - a[1]).map(([word, count]) => `${count} ${word}`).join(", ");
  const across = Math.min(matchMedia("(max-width: 46rem)").matches ? 20 : 50, kinds.length), high = Math.ceil(kinds.length / across);
  const cls = { up: "on", down: "off", warn: "odd", none: "dark" };
  const rects = kinds.map(([kind, word], at) => drawing("rect", {
    x: (at % across) * 20 + 1, width: 17, y: Math.floor(at / across) * 16 + (kind === "up" ? 6 : kind === "none" ? 9 : 1),
    height: kind === "up" ? 7 : kind === "none" ? 4 : 12, rx: 2, class: cls[kind],
  }, drawing("title", {}, `${service.backends[at].name}: ${word}`)));
  put(node, [across, ...kinds.map((it) => it[1])].join(), element("p", {}, text),
    drawing("svg", { viewBox: `0 0 ${across * 20} ${high * 16}`, "aria-hidden": "true" }, ...rects));
}

function draw() {
  const all = view.services.flatMap((it) => it.backends);
  const bad = all.filter((it) => judge(it)[2] === 0), odd = all.filter((it) => judge(it)[2] === 1);
  const dead = view.services.filter((it) => it.standing === "down");
  const hurt = view.services.filter((it) => turnedAway(it).recent), full = view.services.filter((it) => turnedAway(it).full);
  let kind = "up", text = "All is well";
  if (view.process.stopping) [kind, text] = ["warn", "Stopping: no new sessions are taken"];
  else if (dead.length) [kind, text] = ["down", `${dead.map((it) => it.name).slice(0, 3).join(", ")}${dead.length > 3 ? ` and ${dead.length - 3} more` : ""} ${dead.length === 1 ? "is" : "are"} down`];
  else if (hurt.length) [kind, text] = ["down", `Clients of ${hurt.map((it) => it.name).slice(0, 3).join(", ")}${hurt.length > 3 ? ` and ${hurt.length - 3} more` : ""} are turned away`];
  else if (full.length) [kind, text] = ["down", `The queue of ${full[0].name}${full.length > 1 ? ` and ${full.length - 1} more` : ""} is full`];
  else if (bad.length) [kind, text] = ["down", `${plural(bad.length, "backend")} of ${all.length} ${bad.length === 1 ? "is" : "are"} out`];
  else if (odd.length) [kind, text] = ["warn", `${plural(odd.length, "backend")} of ${all.length} ${odd.length === 1 ? "needs" : "need"} attention`];
  else if (all.some((it) => it.state === "unknown" && it.enabled && it.address)) [kind, text] = ["none", "Waiting for first answers"];
  else if (view.services.some((it) => it.standing === "degraded")) [kind, text] = ["warn", "Degraded"];
  put($("verdict"), kind + text, shape(kind), element("span", {}, text));
  document.title = `${{ up: "✓", down: "✗", warn: "!", none: "…" }[kind]} ${text} – Ballast`;
  const process = view.process;
  say($("build"), process.version);
  say($("facts"), `${plural(view.services.length, "service")}, ${all.filter((it) => judge(it)[2] >= 2).length} of ${plural(all.length, "backend")} in order, ` +
    `${process.sessions.toLocaleString("en")} of at most ${plural(process.max_connections, "session")}, up for ${span(process.uptime_seconds)}, configuration of ${clock(time(process.configuration.applied))}`);
  notices(view);
  const cards = view.services.map(serviceCard);
  for (const [name] of made) if (!view.services.some((it) => it.name === name)) made.delete(name);
  const services = $("services");
  if (cards.length !== services.children.length || cards.some((card, at) => services.children[at] !== card)) services.replaceChildren(...cards);
}
function notices({ process, services }) {
  const shown = [], files = [];
  const reject = (what, stays, rejected, missing) => {
    if (!rejected) return;
    const problems = rejected.problems.slice(0, 10).join("\n");
    files.push(rejected.at, problems);
    shown.push(element("div", { class: "notice bad" }, `${what} ${missing ? "is missing since" : "was rejected at"} ${clock(time(rejected.at))}; ${stays}.`, element("pre", {}, problems)));
  };
  reject("The configuration file", "the one before it is in force", process.configuration.rejected);
  for (const { name, backends_file: file } of services) if (file) reject(`The list of backends of ${name}`, "its last good one stays", file.rejected, file.missing);
  const short = process.short_of ? process.short_of.replaceAll("-", " ") : "";
  if (short) shown.push(element("div", { class: "notice bad" }, `Short of ${short}: new clients wait.`));
  put($("notices"), `${files.join(" ")} ${short}`, ...shown);
}
function lost(why) {
  const key = `lost ${why}`;
  put($("notices"), key, element("div", { class: "notice bad" }, `${why} What is shown is of ${clock(since)}.`));
}

function drawEvents() {
  const list = $("events");
  const last = events.slice(-MOST_EVENTS);
  if (last.length === 0) {
    put(list, "none", element("li", { class: "nothing" }, "Nothing has happened yet."));
    return;
  }
  if (list.dataset.key === "none") list.replaceChildren();
  list.dataset.key = "some";
  const known = new Set([...list.children].map((it) => Number(it.dataset.id)));
  for (const event of last) {
    if (known.has(event.id)) continue;
    const kind = { error: "down", warn: "warn" }[event.level] || (event.kind === "backend-up" ? "up" : "none");
    const word = event.level === "info" ? "" : element("span", { class: "unseen" }, `${event.level === "warn" ? "warning" : "error"}: `);
    const at = time(event.at), today = new Date(at).toDateString() === new Date().toDateString();
    const item = element("li", { "data-id": event.id }, element("time", { datetime: event.at, title: event.at }, today ? clock(at) : new Date(at).toLocaleDateString([], { month: "short", day: "numeric" })),
      shape(kind), element("span", {}, word, event.text));
    const next = [...list.children].find((it) => Number(it.dataset.id) < event.id);
    list.insertBefore(item, next || null);
  }
  while (list.children.length > MOST_EVENTS) list.lastElementChild.remove();
}
function drawFailovers(failovers) {
  const last = failovers.slice(-MOST_FAILOVERS).reverse();
  $("failovers").hidden = last.length === 0;
  const scale = Math.max(...last.map((it) => it.recovered_seconds), 0.001);
  const rows = last.map((it) => {
    const x = (seconds) => Math.min(300, (seconds / scale) * 300);
    const marks = [0, it.first_evidence_seconds, it.detected_seconds, it.moved_seconds, it.recovered_seconds].map(x);
    const parts = ["t0", "t1", "t2", "t3"].map((cls, at) => drawing("rect", {
      class: cls, x: marks[at], y: at === 0 ? 6 : 3, height: at === 0 ? 4 : 10, width: Math.max(marks[at + 1] - marks[at], marks[at + 1] > marks[at] ? 1 : 0),
    }));
    const label = `detected after ${fine(it.detected_seconds)}, moved after ${fine(it.moved_seconds)}, over after ${fine(it.recovered_seconds)}`;
    const course = drawing("svg", { class: "course", viewBox: "0 0 300 16", preserveAspectRatio: "none", role: "img", "aria-label": label },
      drawing("title", {}, label), drawing("line", { class: "axis", x1: 0, x2: 300, y1: 8, y2: 8 }), ...parts);
    const number = (seconds, label) => element("td", { class: "number", role: "cell", "data-label": label }, fine(seconds));
    const at = time(it.began);
    const cost = it.sessions_hurt || it.sessions_moved ? `${it.sessions_moved} moved, ${it.sessions_hurt} lost` : "none lost";
    return element("tr", { role: "row", class: "failover" }, element("td", { role: "cell" }, element("time", { datetime: it.began, title: it.began }, clock(at))),
      element("th", { scope: "row", role: "rowheader" }, `${it.service}/${it.backend}`, element("span", { class: "quiet" }, it.why)),
      element("td", { role: "cell", class: "course-cell whole" }, course), number(it.detected_seconds, "t1"), number(it.moved_seconds, "t2"), number(it.recovered_seconds, "t3"),
      element("td", { role: "cell", class: "whole" }, cost));
  });
  put($("failover-rows"), last.map((it) => it.began + it.backend + it.service).join(), ...rows);
}

function show(next) {
  // Another process numbers its events anew; what was asked for before the latest event came tells nothing of that.
  if (view && view.process.started !== next.process.started) {
    events = [];
    heard.clear();
    $("events").replaceChildren();
    fetchEvents().catch(() => {});
  }
  skew = time(next.at) - Date.now();
  rates(next);
  view = next;
  since = Date.now();
  draw();
  say($("live"), streaming ? "Live." : "Looking every second.");
}

// One question at a time; what comes up meanwhile is asked right after.
let asking = false, again = false, timer = 0;
async function ask(path) {
  const answer = await fetch(path, { headers: { accept: "application/json" }, cache: "no-store", signal: AbortSignal.timeout(8000) });
  if (!answer.ok) throw new Error(answer.status === 401 ? "The daemon wants a token here." : `The daemon answers ${answer.status}.`);
  return answer.json();
}
async function refresh() {
  if (asking) { again = true; return; }
  asking = true;
  clearTimeout(timer);
  try {
    do {
      again = false;
      show(await ask("/v1/view"));
      if (!streaming) await fetchEvents();
    } while (again);
  } catch (error) {
    lost(error.name === "TypeError" || error.name === "TimeoutError" ? "The daemon does not answer." : error.message);
    say($("live"), "Not live.");
  }
  asking = false;
  timer = setTimeout(refresh, document.hidden ? 10 * CALM : streaming ? CALM : POLL);
}
function take(event) {
  if (!event || typeof event.id !== "number" || heard.has(event.id)) return false;
  heard.add(event.id);
  events.push(event);
  if (events.length > 1 && events[events.length - 2].id > event.id) events.sort((a, b) => a.id - b.id);
  if (events.length > 1000) heard.delete(events.shift().id);
  return true;
}
// A daemon that does not keep these is shown without them.
const paths = new Set(document.body.dataset.paths.split(" "));
const optional = async (path, none) => (paths.has(path) ? ask(path) : none);
async function fetchEvents() {
  const [found, failovers] = await Promise.all([optional("/v1/events", { events: [] }), optional("/v1/failovers", { failovers: [] })]);
  found.events.forEach(take);
  drawEvents();
  drawFailovers(failovers.failovers);
}
let stirred = 0;
function stir() {
  if (stirred) return;
  stirred = setTimeout(() => {
    stirred = 0;
    refresh();
    drawEvents();
    optional("/v1/failovers", { failovers: [] }).then((it) => drawFailovers(it.failovers)).catch(() => {});
  }, 50);
}
function listen() {
  if (!paths.has(STREAM)) return;
  const source = new EventSource(STREAM);
  source.onopen = () => { streaming = true; fetchEvents().catch(() => {}); refresh(); };
  source.onerror = () => {
    streaming = false;
    refresh();
    // Refused for good: somebody else has the places, or this daemon has no stream.
    if (source.readyState === EventSource.CLOSED) setTimeout(listen, 15000);
  };
  const hear = (message) => {
    try { if (take(JSON.parse(message.data))) stir(); } catch { /* not one of ours */ }
  };
  source.addEventListener("event", hear);
  source.addEventListener("view", (message) => {
    show(JSON.parse(message.data));
    // As long as they come, nobody has to ask.
    clearTimeout(timer);
    timer = setTimeout(refresh, 5 * CALM);
  });
}
document.addEventListener("visibilitychange", () => { if (!document.hidden) refresh(); });
refresh().then(() => fetchEvents().then(() => view && draw()).catch(() => {}));
listen();
