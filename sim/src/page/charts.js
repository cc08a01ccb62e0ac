// A chart for each partition: lines of offsets, and points for acknowledgements and polls.
const LINES = [
  ["log_end", "log end", "disk"], ["durable_end", "durable end", "ok"], ["high_watermark", "high watermark", "read"],
  ["last_stable_offset", "last stable offset", "stable"], ["log_start", "log start", "log"],
];
const POINTS = [["acknowledged", "acknowledged (base offset)", "bad"], ["polled", "polled (last offset)", "warn"]];
const CHART = 190, BOTTOM = 22;

// The indexes of the points in view, with one more at each side.
function pointsInView(points) {
  const count = points.length / 2;
  const from = firstWhere(0, count, i => points[2 * i] >= view.from);
  return [Math.max(from - 1, 0), Math.min(firstWhere(from, count, i => points[2 * i] > view.to) + 1, count)];
}

function rangeOf(chart) {
  let low = Infinity, high = -Infinity;
  for (const [name] of [...LINES, ...POINTS]) {
    const points = chart[name], [from, to] = pointsInView(points), isPoint = POINTS.some(p => p[0] === name);
    for (let i = from; i < to; i++) {
      if (points[2 * i] > view.to || isPoint && points[2 * i] < view.from) continue;
      low = Math.min(low, points[2 * i + 1]);
      high = Math.max(high, points[2 * i + 1]);
    }
  }
  return low > high ? [0, 1] : [low, Math.max(high, low + 1)];
}

// A line changes at its points; what falls on one pixel is one stroke from the lowest to the highest.
function drawLine(c, width, points, yOf) {
  const [from, to] = pointsInView(points);
  c.beginPath();
  let y = null, column = null, low = 0, high = 0;
  const flush = () => { if (column !== null) { c.moveTo(column, low); c.lineTo(column, high); } };
  for (let i = from; i < to; i++) {
    const t = points[2 * i];
    if (t > view.to) break;
    const x = Math.max(Math.round(xOf(t, width)), LEFT), yNext = yOf(points[2 * i + 1]);
    if (x !== column) {
      flush();
      if (y !== null) { c.moveTo(column, y); c.lineTo(x, y); }
      column = x;
      low = high = y ?? yNext;
    }
    low = Math.min(low, yNext);
    high = Math.max(high, yNext);
    y = yNext;
  }
  flush();
  if (y !== null) { c.moveTo(column, y); c.lineTo(width - RIGHT, y); }
  c.stroke();
}

function drawPoints(c, width, points, yOf, size) {
  const [from, to] = pointsInView(points);
  let lastX = -1, lastY = -1;
  // Many points are small, or they would cover the lines.
  if (to - from > width / 12) size = 2;
  for (let i = from; i < to; i++) {
    if (points[2 * i] < view.from || points[2 * i] > view.to) continue;
    const x = Math.round(xOf(points[2 * i], width)), y = Math.round(yOf(points[2 * i + 1]));
    if (x === lastX && y === lastY) continue;
    c.fillRect(x - size / 2, y - size / 2, size, size);
    [lastX, lastY] = [x, y];
  }
}

function drawChart(canvas, chart) {
  const [c, width] = begin(canvas, CHART), [low, high] = rangeOf(chart);
  const yOf = offset => 10 + (1 - (offset - low) / (high - low)) * (CHART - BOTTOM - 18);
  drawAxis(c, width, CHART - BOTTOM / 2, CHART - BOTTOM);
  c.textAlign = "right";
  for (const share of [0, .5, 1]) {
    const offset = Math.round(low + (high - low) * share);
    c.fillStyle = colours.lane;
    c.fillRect(LEFT, yOf(offset), width, 1);
    c.fillStyle = colours.fore;
    c.fillText(offset, LEFT - 6, yOf(offset));
  }
  for (const band of bandsByLane[laneOfNode.get(1)] ?? []) {
    if (band.class === "fault" || band.to < view.from || band.from > view.to) continue;
    const x = Math.max(xOf(band.from, width), LEFT);
    c.fillStyle = colours[band.class];
    c.fillRect(x, 0, Math.max(Math.min(xOf(band.to, width), width - RIGHT) - x, 1), CHART - BOTTOM);
  }
  POINTS.forEach(([name, , colour], i) => { c.fillStyle = colours[colour]; drawPoints(c, width, chart[name], yOf, i ? 4 : 6); });
  LINES.forEach(([name, , colour], i) => {
    c.strokeStyle = colours[colour];
    c.lineWidth = i < 2 ? 2.5 : 1.5;
    c.setLineDash(i === 3 ? [5, 4] : []);
    drawLine(c, width, chart[name], yOf);
  });
  c.setLineDash([]);
  if (selected >= 0) {
    c.fillStyle = colours.select;
    c.fillRect(xOf(T[selected], width), 0, 1.5, CHART - BOTTOM);
  }
}

function makeCharts() {
  const keys = Object.keys(data.charts), chosen = keys.filter(key => data.partitions.includes(key));
  // Without an explanation that names one: the partition with the most acknowledgements.
  const most = keys.reduce((a, b) => data.charts[b].acknowledged.length > data.charts[a].acknowledged.length ? b : a, keys[0]);
  const isOpen = key => chosen.length ? chosen.includes(key) : key === most;
  keys.sort((a, b) => isOpen(b) - isOpen(a) || a.startsWith("__") - b.startsWith("__") || a.localeCompare(b, "en", {numeric: true}));
  const charts = keys.map(key => {
    const details = document.createElement("details"), summary = document.createElement("summary"), canvas = document.createElement("canvas");
    summary.textContent = chosen.includes(key) ? `${key}: the explanation is about it` : key;
    canvas.setAttribute("aria-label", `Offsets of ${key} over time`);
    canvas.style.height = CHART + "px";
    details.append(summary, canvas);
    details.open = isOpen(key);
    details.addEventListener("toggle", redraw);
    movable(canvas);
    element("charts").append(details);
    return {details, canvas, chart: data.charts[key]};
  });
  drawers.push(() => charts.forEach(({details, canvas, chart}) => { if (details.open) drawChart(canvas, chart); }));
  for (const [all, dot] of [[LINES, ""], [POINTS, "dot"]]) for (const [, title, colour] of all) {
    const entry = document.createElement("span"), mark = document.createElement("i");
    mark.className = dot;
    mark.style.background = `var(--${colour})`;
    entry.append(mark, title);
    element("legend").append(entry);
  }
  return keys;
}
const partitions = makeCharts();
