// The lanes: a row for each node, with bands, messages and events; and the overview above them.
const LANE = 30, AXIS = 22, MESSAGES_MAX = 3000, LABELS_MAX = 60;
const lanesCanvas = element("lanes"), overviewCanvas = element("overview");
const laneY = lane => AXIS + lane * LANE + LANE / 2;
const arrivals = new Map(data.arrives);
const bandsByLane = data.nodes.map(([node]) => data.bands.filter(band => band.node === node));

// The rows of a list that are in view: indexes from, to.
function inView(list) {
  const from = firstWhere(0, list.length, i => T[list[i]] >= view.from);
  return [from, firstWhere(from, list.length, i => T[list[i]] > view.to)];
}

function drawBands(c, width) {
  for (let lane = 0; lane < bandsByLane.length; lane++) {
    for (const band of bandsByLane[lane]) {
      if (band.to < view.from || band.from > view.to) continue;
      const from = Math.max(xOf(band.from, width), LEFT), to = Math.min(xOf(band.to, width), width - RIGHT);
      c.fillStyle = colours[band.class];
      c.fillRect(from, AXIS + lane * LANE + 2, Math.max(to - from, 2), LANE - 4);
      // Other lanes have no room for words; there the pointer shows them.
      if (lane === laneOfNode.get(0) && to - from > 60) {
        c.fillStyle = colours.fore;
        c.font = "10px system-ui, sans-serif";
        c.textAlign = "left";
        c.fillText(cutText(c, band.text, to - from - 6), from + 3, AXIS + lane * LANE + 9);
        c.font = "12px system-ui, sans-serif";
      }
    }
  }
}

function drawMessages(c, width) {
  const messages = [];
  const edge = view.to - view.from;
  for (const list of laneRows) {
    const from = firstWhere(0, list.length, i => T[list[i]] >= view.from - edge);
    for (let i = from; i < list.length && T[list[i]] <= view.to; i++) {
      if (arrivals.has(list[i])) messages.push(list[i]);
      if (messages.length > MESSAGES_MAX) return false;
    }
  }
  c.strokeStyle = colours.net;
  c.globalAlpha = messages.length > 400 ? .25 : .6;
  c.lineWidth = 1;
  c.beginPath();
  for (const row of messages) {
    const to = laneOfNode.get(whatOf(row).to);
    if (to === undefined) continue;
    const x = xOf(T[row], width), y = laneY(data.node[row]), xTo = xOf(T[row] + arrivals.get(row), width), yTo = laneY(to);
    c.moveTo(x, y);
    c.lineTo(xTo, yTo);
    if (messages.length <= 400) {
      const angle = Math.atan2(yTo - y, xTo - x);
      for (const turn of [-.4, .4]) {
        c.moveTo(xTo, yTo);
        c.lineTo(xTo - 8 * Math.cos(angle + turn), yTo - 8 * Math.sin(angle + turn));
      }
    }
  }
  c.stroke();
  c.globalAlpha = 1;
  return true;
}

// Events of one class that fall on one pixel of a lane are drawn once.
function drawEvents(c, width) {
  let total = 0;
  laneRows.forEach((list, lane) => {
    const [from, to] = inView(list);
    total += to - from;
    const dense = to - from > (width - LEFT) / 4, lastX = new Int32Array(classNames.length).fill(-1);
    for (let i = from; i < to; i++) {
      const row = list[i], x = Math.round(xOf(T[row], width)), of = classOf[row];
      if (lastX[of] === x) continue;
      lastX[of] = x;
      c.fillStyle = colours[classNames[of]];
      if (dense) {
        c.fillRect(x, laneY(lane) - 10 + of * 4, 1, 4);
      } else {
        c.beginPath();
        c.arc(x, laneY(lane), classNames[of] === "process" ? 5 : 3.5, 0, 7);
        c.fill();
      }
    }
    if (!dense && to - from <= LABELS_MAX) drawLabels(c, width, list, from, to, lane);
  });
  return total;
}

// Kinds of events, where there is room for them.
function drawLabels(c, width, list, from, to, lane) {
  c.font = "10px system-ui, sans-serif";
  c.textAlign = "left";
  c.fillStyle = colours.fore;
  for (let i = from, free = 0; i < to; i++) {
    const x = xOf(T[list[i]], width), w = whatOf(list[i]), text = w.api ?? w.f ?? w.e;
    const next = i + 1 < to ? xOf(T[list[i + 1]], width) : width;
    const length = c.measureText(text).width;
    if (x < free || x + 7 + length > Math.max(next - 5, 0) && next > x + 1 || x + length > width - RIGHT) continue;
    c.fillText(text, x + 5, laneY(lane) + 9);
    free = x + 9 + length;
  }
  c.font = "12px system-ui, sans-serif";
}

function drawPath(c, width, all, colour, dash) {
  if (!all.length) return;
  c.save();
  c.beginPath();
  c.rect(LEFT - 8, 0, width, lanesCanvas.clientHeight);
  c.clip();
  c.strokeStyle = colour;
  c.setLineDash(dash);
  c.lineWidth = 1.2;
  c.beginPath();
  all.forEach((row, i) => c[i ? "lineTo" : "moveTo"](xOf(T[row], width), laneY(data.node[row])));
  c.stroke();
  c.setLineDash([]);
  c.lineWidth = 2;
  for (const row of all) {
    if (T[row] < view.from || T[row] > view.to) continue;
    c.beginPath();
    c.arc(xOf(T[row], width), laneY(data.node[row]), 6, 0, 7);
    c.stroke();
  }
  c.restore();
}

function drawLanes() {
  const height = AXIS + data.nodes.length * LANE + 4;
  const [c, width] = begin(lanesCanvas, height);
  drawAxis(c, width, AXIS / 2, height);
  c.save();
  c.beginPath();
  c.rect(LEFT - 8, 0, width, height);
  c.clip();
  drawBands(c, width);
  data.nodes.forEach((_, lane) => { c.fillStyle = colours.line; c.fillRect(LEFT, laneY(lane), width, 1); });
  const drawn = drawMessages(c, width);
  const total = drawEvents(c, width);
  c.restore();
  drawPath(c, width, chain, colours.warn, [2, 3]);
  drawPath(c, width, picked.map(p => p.row), colours.bad, []);
  if (selected >= 0) {
    c.strokeStyle = colours.select;
    c.lineWidth = 3;
    c.beginPath();
    c.arc(xOf(T[selected], width), laneY(data.node[selected]), 9, 0, 7);
    c.stroke();
  }
  c.textAlign = "left";
  data.nodes.forEach(([node, name], lane) => {
    c.fillStyle = colours.fore;
    c.fillText(cutText(c, node && !name.startsWith("node") ? `${name} (${node})` : name, LEFT - 14), 6, laneY(lane));
  });
  element("too-many").textContent = drawn ? "" : `More than ${MESSAGES_MAX} messages are in view: zoom in to see them as arrows.`;
  element("range").textContent = `${seconds(view.from)} to ${seconds(view.to)} s, ${total} events`;
}

// How many events each pixel of the overview has; it changes with the filters alone.
let density = null;
function densityOf(width) {
  if (density && density.width === width) return density;
  const counts = new Float64Array(width);
  for (let row = 0; row < rows; row++) if (isShown[row]) counts[Math.max(0, Math.min(width - 1, Math.round(xOf(T[row], width, whole))))]++;
  density = {width, counts, most: Math.max(1, counts.reduce((a, b) => Math.max(a, b), 0))};
  return density;
}

function drawOverview() {
  const height = 36, [c, width] = begin(overviewCanvas, height);
  const {counts, most} = densityOf(Math.round(width));
  for (const band of data.bands) {
    if (band.class === "fault") continue;
    const from = xOf(band.from, width, whole);
    c.fillStyle = colours[band.class];
    c.fillRect(from, 0, Math.max(xOf(band.to, width, whole) - from, 1), height);
  }
  c.fillStyle = colours.client;
  counts.forEach((n, x) => { const tall = n && Math.max(2, Math.sqrt(n / most) * (height - 4)); c.fillRect(x, height - tall, 1, tall); });
  c.fillStyle = colours.bad;
  for (const p of picked) c.fillRect(xOf(T[p.row], width, whole), 0, 2, 7);
  const from = Math.max(xOf(view.from, width, whole), LEFT), to = xOf(view.to, width, whole);
  c.strokeStyle = colours.select;
  c.lineWidth = 2;
  c.strokeRect(from, 1, Math.max(to - from, 3), height - 2);
  c.fillStyle = colours.fore;
  c.textAlign = "left";
  c.fillText("overview", 6, height / 2);
}

// The shown event that is nearest to a point of the canvas, if one is near; events of the violation come first.
function rowAt(x, y) {
  const lane = Math.floor((y - AXIS) / LANE), list = laneRows[lane], width = lanesCanvas.clientWidth;
  if (!list || x < LEFT - 8) return -1;
  const of = picked.find(p => data.node[p.row] === lane && isShown[p.row] && Math.abs(xOf(T[p.row], width) - x) <= 5);
  if (of) return of.row;
  const at = firstWhere(0, list.length, i => xOf(T[list[i]], width) >= x);
  const near = [at - 1, at].filter(i => i >= 0 && i < list.length);
  const distance = i => Math.abs(xOf(T[list[i]], width) - x);
  const best = near.sort((a, b) => distance(a) - distance(b))[0];
  return best !== undefined && distance(best) <= 8 ? list[best] : -1;
}

function bandsAt(x, y) {
  const lane = Math.floor((y - AXIS) / LANE), t = tOf(x, lanesCanvas.clientWidth);
  return (bandsByLane[lane] ?? []).filter(band => band.from <= t && t <= band.to);
}
drawers.push(drawLanes, drawOverview);
