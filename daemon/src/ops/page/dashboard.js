"use strict";
// The page's data flow: a sample a second arrives, its rates against the one before become one point of every series, and
// what is on the screen is drawn anew. Everything that comes from the daemon is set as text, never as markup.

const KEEP = 600;
const DIRECTIONS = ["encap", "decap"];
const QUANTILES = [["p50", "p50"], ["p90", "p90"], ["p99", "p99"], ["p999", "p99.9"], ["max", "max"]];
const $ = (id) => document.getElementById(id);
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

const view = { span: 300, split: "total", direction: "encap", paused: false };
const points = [];      // { at, seconds, status, latency, encap: rates, decap: rates }
let last = null;        // the sample before
let charts = [];

// --- numbers for people -------------------------------------------------------------------------------------------

function short(value) {
  if (value === null || value === undefined || !isFinite(value)) return "–";
  const steps = [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]];
  for (const [size, letter] of steps)
    if (Math.abs(value) >= size) return trim(value / size) + " " + letter;
  return trim(value);
}
function trim(value) {
  const magnitude = Math.abs(value);
  if (magnitude >= 100 || Number.isInteger(value)) return value.toFixed(0);
  return value.toFixed(magnitude >= 10 ? 1 : 2);
}
function nanos(value) {
  if (!value || !isFinite(value)) return "–";
  for (const [size, unit] of [[1e9, "s"], [1e6, "ms"], [1e3, "µs"]])
    if (value >= size) return trim(value / size) + " " + unit;
  return value.toFixed(0) + " ns";
}
function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 10) return seconds.toFixed(1) + " s";
  const units = [[86400, "d"], [3600, "h"], [60, "min"]];
  for (const [size, unit] of units)
    if (seconds >= 2 * size) return Math.floor(seconds / size) + " " + unit;
  return Math.floor(seconds) + " s";
}

// --- from samples to points ---------------------------------------------------------------------------------------

function rates(now, before, seconds) {
  const per = (field) => Math.max(0, now[field] - before[field]) / seconds;
  const drops = {};
  for (const [reason, count] of Object.entries(now.drops)) {
    const rate = (count - (before.drops[reason] || 0)) / seconds;
    if (rate > 0) drops[reason] = rate;
  }
  return { packets: per("packets"), bits: 8 * per("bytes"), dropped: per("dropped"), drops };
}

// Packets in one turn of a worker: those of the kernel's programs come in no batch.
function batch(now, before, direction) {
  const received = (status) => status.total[direction].received - (programs(status) ? programs(status).traffic[direction].received : 0);
  const batches = now.total[direction].batches - before.total[direction].batches;
  return batches > 0 ? (received(now) - received(before)) / batches : null;
}

// The programs of the ebpf lane, where they are in the kernel.
function programs(status) {
  return status.programs && status.programs.loaded ? status.programs : null;
}
const sum = (counts) => Object.values(counts).reduce((total, count) => total + count, 0);
const leftBy = (carrier) => sum(carrier.left.encap) + sum(carrier.left.decap);

function take(sample) {
  const before = last;
  last = sample;
  // Another process, or the first sample: nothing to compare with.
  if (!before || before.status.engine_pid !== sample.status.engine_pid) return;
  const seconds = sample.status.uptime_seconds - before.status.uptime_seconds;
  if (seconds <= 0) return;
  const point = { at: sample.at, seconds, status: sample.status, latency: sample.latency, kernelLatency: sample.kernel_latency,
    heat: [sample.heat_from_nanos, sample.heat_per_decade], workers: [], programs: null };
  const [carrier, earlier] = [programs(sample.status), programs(before.status)];
  if (carrier && earlier)
    point.programs = { left: Math.max(0, leftBy(carrier) - leftBy(earlier)) / seconds };
  for (const direction of DIRECTIONS) {
    point[direction] = rates(sample.status.total[direction], before.status.total[direction], seconds);
    point[direction].batch = batch(sample.status, before.status, direction);
    if (point.programs)
      point.programs[direction] = rates(carrier.traffic[direction], earlier.traffic[direction], seconds);
    sample.status.workers.forEach((worker, number) => {
      const old = before.status.workers[number];
      if (!old) return;
      point.workers[number] = point.workers[number] || {};
      point.workers[number][direction] = rates(worker.traffic[direction], old.traffic[direction], seconds);
    });
  }
  const kernel = (status) => sum(status.kernel_drops || {});
  point.kernel = Math.max(0, kernel(sample.status) - kernel(before.status)) / seconds;
  const growth = (field) => Math.max(0, (sample.status[field] || 0) - (before.status[field] || 0)) / seconds;
  // A device may count what its queue has counted.
  point.qdisc = Math.max(growth("qdisc_drops"), growth("device_drops"));
  points.push(point);
  if (points.length > KEEP) points.shift();
}

// --- charts -------------------------------------------------------------------------------------------------------

const PALETTE = ["#0067a5", "#b35900", "#087f5b", "#8b3fb0", "#c92a2a", "#6b7280", "#0b7285", "#a0840b"];
const PALETTE_DARK = ["#5db7f5", "#f5a94e", "#46c793", "#cf96ea", "#ff7b72", "#a7b0bd", "#4fd1dc", "#e0c341"];
const isDark = () => {
  const theme = document.documentElement.dataset.theme;
  return theme ? theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
};
const colour = (number) => (isDark() ? PALETTE_DARK : PALETTE)[number % PALETTE.length];

// Both directions often carry the same: the second is dashed, so that the first shows.
const DASH = [undefined, [6, 4]];

// Each chart says which lines it has and how to read a point; lines may come and go.
const CHARTS = [
  { id: "packets", format: short, lines() {
      if (view.split === "total")
        return DIRECTIONS.map((direction, at) => ({ label: direction, colour: at, dash: DASH[at], read: (p) => p[direction].packets }));
      const workers = points.length ? points[points.length - 1].workers.length : 0;
      const lines = [];
      for (let number = 0; number < workers; number++)
        DIRECTIONS.forEach((direction, at) => lines.push({ label: direction + " " + number, colour: 2 * number + at,
          dash: DASH[at], read: (p) => p.workers[number] ? p.workers[number][direction].packets : null }));
      if (points.length && points[points.length - 1].programs)
        DIRECTIONS.forEach((direction, at) => lines.push({ label: direction + " kernel", colour: 2 * workers + at,
          dash: DASH[at], read: (p) => p.programs ? p.programs[direction].packets : null }));
      return lines;
    } },
  { id: "bits", format: (value) => short(value), lines: () =>
      DIRECTIONS.map((direction, at) => ({ label: direction, colour: at, dash: DASH[at], read: (p) => p[direction].bits })) },
  { id: "latency", log: true, format: nanos, lines: () =>
      QUANTILES.map(([field, label], at) => ({ label, colour: at, read: (p) => p.latency[view.direction][field] || null })) },
  { id: "batch", format: trim, lines: () =>
      DIRECTIONS.map((direction, at) => ({ label: direction, colour: at, dash: DASH[at], read: (p) => p[direction].batch })) },
  { id: "drops", format: short, lines() {
      const sums = new Map();
      for (const point of shown()) for (const direction of DIRECTIONS)
        for (const [reason, rate] of Object.entries(point[direction].drops)) {
          const name = direction + " " + reason;
          sums.set(name, (sums.get(name) || 0) + rate);
        }
      const names = [...sums].sort((a, b) => b[1] - a[1]).slice(0, 8).map(([name]) => name);
      if (!names.length) return [{ label: "none", colour: 5, read: (p) => p.encap.dropped + p.decap.dropped }];
      return names.map((name, at) => {
        const [direction, reason] = name.split(" ");
        return { label: name, colour: at, read: (p) => p[direction].drops[reason] || 0 };
      });
    } },
];

function shown() {
  if (!points.length) return [];
  const from = points[points.length - 1].at - view.span;
  return points.filter((point) => point.at >= from);
}

const chartHeight = () => innerWidth >= 2200 ? 300 : 200;
const edge = () => points.length ? points[points.length - 1].at : Date.now() / 1000;
const clock = (at) => new Date(at * 1000).toTimeString().slice(0, 8);
// On a logarithmic axis the powers of ten are enough.
function label(chart, value) {
  if (value === null || (chart.log && Math.abs(Math.log10(value) - Math.round(Math.log10(value))) > 1e-6)) return "";
  return chart.format(value);
}

function options(chart, lines, box) {
  const axis = { stroke: css("--quiet"), grid: { stroke: css("--grid"), width: 1 }, ticks: { stroke: css("--grid"), width: 1 },
    font: "12px system-ui, sans-serif" };
  const range = chart.log
    ? (u, low, high) => [10 ** Math.floor(Math.log10(low || 1e3)), 10 ** Math.ceil(Math.log10((high || 1e5) * 1.01))]
    : (u, low, high) => [0, Math.max(high || 0, 1) * 1.08];
  return {
    width: box.clientWidth, height: chartHeight(),
    cursor: { sync: { key: "time" }, points: { size: 6 } },
    legend: { live: true },
    scales: { x: { time: true, range: () => [edge() - view.span, edge()] }, y: { distr: chart.log ? 3 : 1, range } },
    axes: [ { ...axis, space: 70, values: (u, splits) => splits.map(clock) },
      { ...axis, size: 64, values: (u, splits) => splits.map((value) => label(chart, value)) } ],
    series: [ {} ].concat(lines.map((line) => ({
      label: line.label, stroke: colour(line.colour), width: 1.5, dash: line.dash, spanGaps: false, points: { show: false },
      value: (u, value) => value === null || value === undefined ? "–" : chart.format(value) }))),
  };
}

function draw(chart) {
  const box = $(chart.id), lines = chart.lines(), visible = shown();
  const data = [visible.map((p) => p.at)].concat(lines.map((line) => visible.map(line.read)));
  const key = lines.map((line) => line.label).join("|") + isDark() + box.clientWidth + chartHeight();
  let plot = charts.find((known) => known.id === chart.id);
  if (plot && plot.key !== key) {
    plot.plot.destroy();
    charts = charts.filter((known) => known !== plot);
    plot = null;
  }
  if (!plot) {
    if (box.clientWidth < 40) return;
    plot = { id: chart.id, key, plot: new uPlot(options(chart, lines, box), data, box) };
    charts.push(plot);
  } else {
    plot.plot.setData(data);
  }
  // Without a cursor the legend shows the latest, once the chart has taken the data in.
  const { plot: shownPlot } = plot;
  requestAnimationFrame(() => {
    if (shownPlot.cursor.idx === null || shownPlot.cursor.idx === undefined)
      shownPlot.setLegend({ idx: visible.length - 1 }, false);
  });
}

// One column a sample, one row a fifth of a decade; the darker the more packets of that second.
function drawHeat() {
  const canvas = $("heat"), visible = shown(), ratio = devicePixelRatio || 1;
  canvas.width = canvas.clientWidth * ratio;
  canvas.height = canvas.clientHeight * ratio;
  const paint = canvas.getContext("2d");
  paint.scale(ratio, ratio);
  const left = 64, bottom = 24, width = canvas.clientWidth - left, height = canvas.clientHeight - bottom;
  paint.font = "12px system-ui, sans-serif";
  paint.fillStyle = css("--quiet");
  paint.textAlign = "right";
  if (!visible.length) return;
  const [from, perDecade] = visible[visible.length - 1].heat;
  const rows = visible[visible.length - 1].latency[view.direction].heat.length;
  const end = visible[visible.length - 1].at, scale = width / view.span;
  for (let decade = 0; decade * perDecade <= rows; decade++) {
    const y = height - (decade * perDecade / rows) * height;
    paint.fillStyle = css("--grid");
    paint.fillRect(left, y, width, 1);
    paint.fillStyle = css("--quiet");
    paint.fillText(nanos(from * 10 ** decade), left - 8, Math.max(10, Math.min(height, y + 4)));
  }
  const heat = css("--heat");
  for (const point of visible) {
    const row = point.latency[view.direction].heat, most = Math.max(...row);
    if (!most) continue;
    const x = left + width - (end - point.at + point.seconds) * scale;
    row.forEach((count, at) => {
      if (!count) return;
      // The root shows rare slow packets beside very many fast ones.
      paint.fillStyle = `rgb(${heat} / ${Math.max(.12, Math.sqrt(Math.sqrt(count / most)))})`;
      paint.fillRect(Math.max(left, x), height - (at + 1) / rows * height, Math.max(1, point.seconds * scale + .5), height / rows);
    });
  }
  paint.fillStyle = css("--quiet");
  paint.textAlign = "left";
  paint.fillText("–" + view.span / 60 + " min", left, height + 17);
  paint.textAlign = "right";
  paint.fillText("now", left + width, height + 17);
  $("heat-title").textContent = view.direction;
}

// --- text ---------------------------------------------------------------------------------------------------------

function element(name, text, kind) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (kind) made.className = kind;
  return made;
}

// Cells are text, or [text, class]. Number columns are right-aligned.
function table(id, heads, rows, empty) {
  const made = $(id), numbers = heads.map((head) => head.startsWith("#"));
  const head = element("tr");
  heads.forEach((text, at) => head.append(element("th", text.replace("#", ""), numbers[at] ? "number" : "")));
  const body = rows.map((cells) => {
    const row = element("tr");
    cells.forEach((cell, at) => {
      const [text, kind] = Array.isArray(cell) ? cell : [cell, ""];
      row.append(element("td", text, [kind, numbers[at] ? "number" : "value"].join(" ").trim()));
    });
    return row;
  });
  if (!body.length) {
    const row = element("tr"), cell = element("td", empty, "empty");
    cell.colSpan = heads.length;
    row.append(cell);
    body.push(row);
  }
  made.replaceChildren(head, ...body);
}

function tile(title, value, below, kind) {
  const made = element("div", undefined, "tile " + (kind || ""));
  made.append(element("h3", title), element("b", value), element("small", below));
  return made;
}

// Engines that ended by themselves; what is up is the last one.
function restarted(status) {
  const count = sum(status.control.engine_restarts || {});
  return count > 0 ? ["engine started again " + count + (count === 1 ? " time" : " times")] : [];
}

function lane(status) {
  const workers = status.workers_lane;
  return !workers || workers === status.lane ? status.lane : status.lane + ", workers by " + workers;
}

// What part of the packets the kernel carries, and why not more.
// Workers', and of the programs, which take the time of one packet in 256, where these carried any.
function latencyTile(point, direction) {
  const workers = point.latency[direction], kernel = point.kernelLatency && point.kernelLatency[direction];
  const beside = kernel && kernel.count > 0 ? ", kernel p99 " + nanos(kernel.p99) : "";
  return tile("p99 " + direction, nanos(workers.p99), "p50 " + nanos(workers.p50) + beside);
}

function kernelTile(point, status) {
  const carrier = programs(status), { encap, decap, left } = point.programs;
  const all = point.encap.packets + point.decap.packets, share = all > 0 ? 100 * (encap.packets + decap.packets) / all : null;
  const held = !carrier.carries.encap && !carrier.carries.decap;
  const value = held ? "nothing" : share === null ? "–" : trim(share) + " %";
  return tile("by the kernel", value, carrier.obstacles.join("; ") || short(left) + "/s left to workers", held ? "bad" : "");
}

const STATES = { usable: "good", unreachable: "bad", probing: "warn", unknown: "warn" };

function tell() {
  const point = points[points.length - 1], status = last.status;
  document.title = status.host + " – isatapd " + status.interface.name;
  $("host").textContent = status.interface.name + " on " + status.host;
  const draining = status.draining_seconds != null;
  $("state").textContent = status.ready ? "ready" : draining ? "draining" : "not ready";
  $("state").className = "pill " + (status.ready ? "good" : "bad");
  $("facts").textContent = [status.role + " at " + status.locator.address, "lane " + lane(status),
    status.workers.length + (status.workers.length === 1 ? " worker" : " workers"), "MTU " + status.interface.tunnel_mtu,
    "version " + status.version, "up " + duration(status.uptime_seconds)].concat(restarted(status)).join(" · ");
  $("obstacles").hidden = status.ready;
  $("obstacles").textContent = status.not_ready.join("\n");
  if (point) {
    const tiles = [];
    for (const direction of DIRECTIONS) {
      const arrow = direction === "encap" ? "encap, to IPv4" : "decap, from IPv4";
      tiles.push(tile(arrow, short(point[direction].packets) + "/s", short(point[direction].bits) + "bit/s", direction));
    }
    const dropped = point.encap.dropped + point.decap.dropped;
    const beside = short(point.kernel) + "/s by the kernel" + (point.qdisc > 0 ? ", " + short(point.qdisc) + "/s on the way out" : "");
    tiles.push(tile("dropped", short(dropped) + "/s", beside, dropped + point.kernel + point.qdisc > 0 ? "bad" : ""));
    if (point.programs) tiles.push(kernelTile(point, status));
    for (const direction of DIRECTIONS)
      tiles.push(latencyTile(point, direction));
    if (status.role === "host") {
      const usable = status.routers.filter((router) => router.state === "usable").length;
      tiles.push(tile("routers usable", usable + " of " + status.routers.length, status.route_count + " routes", usable ? "good" : "bad"));
    } else {
      tiles.push(tile("routes", short(status.route_count), "over " + status.interface.name));
    }
    $("tiles").replaceChildren(...tiles);
  }
  tables(status, point);
}

function tables(status, point) {
  const drops = [];
  for (const direction of DIRECTIONS)
    for (const [reason, count] of Object.entries(status.total[direction].drops))
      drops.push([direction, reason, short(count), point ? short(point[direction].drops[reason] || 0) : "–", count]);
  drops.sort((a, b) => b[4] - a[4]);
  table("drop-table", ["direction", "reason", "#packets", "#per second"], drops.map((row) => row.slice(0, 4)), "no packet was dropped");
  table("router-table", ["router", "state", "#last RA", "#lifetime", "#round trip"], status.routers.map((router) => [
    router.address, [router.state, STATES[router.state]], duration(router.advertised_seconds_ago), duration(router.lifetime_seconds),
    router.round_trip_seconds === null ? "–" : nanos(router.round_trip_seconds * 1e9)]),
    status.role === "router" ? "this is a router" : "none is known");
  const carrier = (name, rate, calls) => [name, rate ? short(rate.encap.packets) : "–", rate ? short(rate.decap.packets) : "–",
    rate ? short(rate.encap.dropped + rate.decap.dropped) : "–", calls];
  const carriers = status.workers.map((worker, number) =>
    carrier(String(worker.worker), point && point.workers[number], short(worker.syscalls)));
  if (programs(status)) carriers.push(carrier("kernel", point && point.programs, "–"));
  table("worker-table", ["worker", "#encap/s", "#decap/s", "#dropped/s", "#system calls"], carriers, "none");
  table("setting-table", ["name", "value"], (status.configuration || []).map((line) => [line.name, line.value]), "unknown");
}

// --- control ------------------------------------------------------------------------------------------------------

let wanted = false;
function refresh() {
  if (wanted || document.hidden) return;
  wanted = true;
  requestAnimationFrame(() => {
    wanted = false;
    if (!last) return;
    tell();
    CHARTS.forEach(draw);
    drawHeat();
  });
}

function choice(id, apply) {
  const buttons = [...$(id).querySelectorAll("button")];
  buttons.forEach((button) => button.addEventListener("click", () => {
    buttons.forEach((other) => other.setAttribute("aria-pressed", String(other === button)));
    apply(button.dataset.value);
    refresh();
  }));
}
choice("span", (value) => { view.span = Number(value); });
choice("split", (value) => { view.split = value; });
choice("direction", (value) => { view.direction = value; });
$("pause").addEventListener("click", () => {
  view.paused = !view.paused;
  $("pause").setAttribute("aria-pressed", String(view.paused));
  $("pause").textContent = view.paused ? "resume" : "pause";
  if (!view.paused) refresh();
});
function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  try { localStorage.setItem("theme", theme); } catch { /* a page without storage forgets it */ }
  refresh();
}
$("theme").addEventListener("click", () => setTheme(isDark() ? "light" : "dark"));
try { const theme = localStorage.getItem("theme"); if (theme) document.documentElement.dataset.theme = theme; } catch { /* as above */ }
addEventListener("resize", refresh);
document.addEventListener("visibilitychange", refresh);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", refresh);

let heardAt = Date.now();
const source = new EventSource("/api/v1/live");
source.onmessage = (event) => {
  heardAt = Date.now();
  take(JSON.parse(event.data));
  if (!view.paused) refresh();
};
setInterval(() => {
  const silent = (Date.now() - heardAt) / 1000;
  $("age").textContent = silent > 3 ? "no news for " + duration(silent) : "";
  if (silent > 5) { $("state").textContent = "no answer"; $("state").className = "pill bad"; }
}, 1000);
