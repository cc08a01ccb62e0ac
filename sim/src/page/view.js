// The part of time that lanes and charts show, and how they are drawn.
const LEFT = 136, RIGHT = 12;
const first = rows ? T[0] : 0, last = rows ? T[rows - 1] : SECOND;
const margin = Math.max((last - first) * .01, 1e6);
const whole = {from: Math.max(first - margin, 0), to: last + margin};
// At the end the world only waits: what is left of a run is checked after a minute.
const lastOperation = (() => { let row = rows - 1; while (row > 0 && kindOf(row) !== "op") row--; return row > 0 ? T[row] : last; })();
const view = {from: whole.from, to: Math.min(lastOperation + margin, whole.to)};
const SPAN_MIN = 2e3;
let selected = -1;
const drawers = [];
let isDue = false;

function redraw() {
  if (isDue) return;
  isDue = true;
  requestAnimationFrame(() => { isDue = false; drawers.forEach(draw => draw()); });
}

function show(from, to) {
  const span = Math.min(Math.max(to - from, SPAN_MIN), whole.to - whole.from);
  const middle = (from + to) / 2;
  view.from = Math.min(Math.max(middle - span / 2, whole.from), whole.to - span);
  view.to = view.from + span;
  redraw();
}

function zoom(factor, around = (view.from + view.to) / 2) {
  show(around - (around - view.from) * factor, around + (view.to - around) * factor);
}

const pan = share => { const by = (view.to - view.from) * share; show(view.from + by, view.to + by); };

// Colours of the style sheet: read again when it changes between light and dark.
const colours = {};
function readColours() {
  const style = getComputedStyle(document.documentElement);
  for (const name of ["back", "fore", "lane", "line", "down", "starting", "paused", "fault", "select", "stable", "bad", "ok", "warn", "read", ...classNames])
    colours[name] = style.getPropertyValue("--" + name).trim();
}
readColours();
matchMedia("(prefers-color-scheme:dark)").addEventListener("change", () => { readColours(); redraw(); });

// Sizes a canvas for the screen's pixels and clears it.
function begin(canvas, height) {
  const ratio = devicePixelRatio || 1, width = canvas.clientWidth;
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    canvas.style.height = height + "px";
  }
  const c = canvas.getContext("2d");
  c.setTransform(ratio, 0, 0, ratio, 0, 0);
  c.clearRect(0, 0, width, height);
  c.font = "12px system-ui, sans-serif";
  c.textBaseline = "middle";
  return [c, width];
}

const xOf = (t, width, of = view) => LEFT + (t - of.from) / (of.to - of.from) * (width - LEFT - RIGHT);
const tOf = (x, width, of = view) => of.from + (x - LEFT) / (width - LEFT - RIGHT) * (of.to - of.from);

// A round number of nanoseconds between two marks of the axis.
function markStep(span, most) {
  let step = 10 ** Math.floor(Math.log10(span / most));
  for (const times of [1, 2, 5, 10]) if (span / (step * times) <= most) return step * times;
  return step * 10;
}

function drawAxis(c, width, y, height) {
  const step = markStep(view.to - view.from, Math.max(2, Math.floor(width / 130)));
  const digits = Math.max(0, Math.min(9, -Math.floor(Math.log10(step / SECOND) + 1e-9)));
  c.textAlign = "center";
  for (let t = Math.ceil(view.from / step) * step; t <= view.to; t += step) {
    const x = xOf(t, width);
    c.fillStyle = colours.lane;
    c.fillRect(x, 0, 1, height);
    c.fillStyle = colours.fore;
    c.fillText(seconds(t, digits) + " s", Math.min(Math.max(x, LEFT + 20), width - 34), y);
  }
}

// A fitting label.
function cutText(c, text, width) {
  if (c.measureText(text).width <= width) return text;
  let length = text.length;
  while (length > 1 && c.measureText(text.slice(0, length) + "…").width > width) length--;
  return text.slice(0, length) + "…";
}

// Pans with a drag, and zooms around the pointer.
function movable(canvas, onClick) {
  let drag = null;
  canvas.addEventListener("pointerdown", e => {
    drag = {x: e.clientX, from: view.from, to: view.to, moved: false};
    canvas.setPointerCapture(e.pointerId);
  });
  canvas.addEventListener("pointermove", e => {
    if (!drag) return;
    const dx = e.clientX - drag.x;
    if (!drag.moved && Math.abs(dx) < 4) return;
    drag.moved = true;
    const by = -dx / (canvas.clientWidth - LEFT - RIGHT) * (drag.to - drag.from);
    show(drag.from + by, drag.to + by);
  });
  canvas.addEventListener("pointerup", e => {
    const wasClick = drag && !drag.moved;
    drag = null;
    if (wasClick && onClick) onClick(e.offsetX, e.offsetY);
  });
  canvas.addEventListener("pointercancel", () => { drag = null; });
  canvas.addEventListener("dblclick", e => zoom(.25, tOf(e.offsetX, canvas.clientWidth)));
  canvas.addEventListener("wheel", e => {
    if (e.ctrlKey || e.metaKey || e.shiftKey && !e.deltaX) {
      e.preventDefault();
      zoom(Math.exp((e.deltaY || e.deltaX) * .002), tOf(e.offsetX, canvas.clientWidth));
    } else if (Math.abs(e.deltaX) > Math.abs(e.deltaY)) {
      e.preventDefault();
      pan(e.deltaX / canvas.clientWidth);
    }
  }, {passive: false});
}
