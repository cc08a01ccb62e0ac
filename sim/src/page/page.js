// The controls, the lists and the details of the selected event.
const LIST_MAX = 300, CAUSES_MAX = 200;

function item(row, text, tag = "li") {
  const li = document.createElement(tag);
  li.dataset.row = row;
  for (const [name, content] of [["when", seconds(T[row])], ["who", nodeName(data.node[row])], ["text", text]]) {
    const span = document.createElement("span");
    span.className = name;
    span.textContent = content;
    li.append(span);
  }
  li.addEventListener("click", () => select(row, true));
  return li;
}

function markSelected() {
  for (const li of document.querySelectorAll("#picked li, #list li")) li.classList.toggle("selected", Number(li.dataset.row) === selected);
}

// Selects an event; `jump` moves the view if it does not show the event.
function select(row, jump) {
  selected = row;
  const details = element("details");
  details.replaceChildren();
  const title = document.createElement("p"), json = document.createElement("pre");
  title.textContent = `${seconds(T[row], 9)} s, ${nodeName(data.node[row])}: ${describe(row)}`;
  json.textContent = JSON.stringify(eventOf(row), null, 1).replace(/\n\s+(?=[-\d])/g, " ").replace(/(\d)\n\s+\]/g, "$1]");
  details.append(title, json);
  const list = document.createElement("ol");
  for (let at = causeOf(row); at >= 0 && list.childElementCount < CAUSES_MAX; at = causeOf(at)) list.append(item(at, describe(at)));
  if (list.childElementCount) {
    const heading = document.createElement("b");
    heading.textContent = "Caused by, the nearest first";
    details.append(heading, list);
  }
  details.scrollTop = 0;
  if (jump && (T[row] < view.from || T[row] > view.to)) {
    const span = Math.min(view.to - view.from, (whole.to - whole.from) / 20);
    show(T[row] - span / 2, T[row] + span / 2);
  }
  markSelected();
  redraw();
}

// The events in view, or of a filter all of them.
let listed = "";
function fillList() {
  const filtered = isFiltered(), all = [];
  const from = filtered ? 0 : firstWhere(0, rows, r => T[r] >= view.from);
  let more = 0;
  for (let row = from; row < rows && (filtered || T[row] <= view.to); row++) {
    if (!isShown[row]) continue;
    if (all.length < LIST_MAX) all.push(row); else more++;
  }
  element("list-title").textContent = `${filtered ? "Events that match" : "Events in view"}: ${all.length + more}${more ? `, the first ${LIST_MAX} of them` : ""}`;
  const key = all.join();
  if (key === listed) return;
  listed = key;
  const ul = document.createElement("ul");
  ul.append(...all.map(row => item(row, describe(row))));
  element("list").replaceChildren(ul);
  markSelected();
}
let listTimer = 0;
drawers.push(() => { clearTimeout(listTimer); listTimer = setTimeout(fillList, 120); });

function refilter() {
  applyFilters();
  density = null;
  element("status").textContent = `${shownCount} of ${matchCount} events are shown`;
  redraw();
}

const integer = text => /^-?\d+$/.test(text) ? Number(text) : NaN;
const readers = {
  "by-value": text => { filters.value = text ? integer(text) : null; },
  "by-connection": text => { filters.connection = text ? integer(text) : null; },
  "by-file": text => { filters.file = text || null; },
  "by-place": text => {
    const [, partition, offset] = /^(.*?)(?::(\d+))?$/.exec(text);
    filters.place = text ? {partition, offset: offset === undefined ? null : Number(offset)} : null;
  },
};
let filterTimer = 0;
for (const [id, read] of Object.entries(readers)) element(id).addEventListener("input", () => {
  clearTimeout(filterTimer);
  filterTimer = setTimeout(() => { read(element(id).value.trim()); refilter(); }, 150);
});
element("clear").addEventListener("click", () => {
  for (const [id, read] of Object.entries(readers)) { element(id).value = ""; read(""); }
  refilter();
});
for (const key of partitions) element("places").append(new Option(key, key));

classNames.forEach((name, index) => {
  const label = document.createElement("label"), box = document.createElement("input");
  label.style.setProperty("--of", `var(--${name})`);
  Object.assign(box, {type: "checkbox", checked: classIsOn[index]});
  box.addEventListener("change", () => { classIsOn[index] = box.checked; refilter(); });
  label.append(box, ` ${CLASS_NAMES[name]}`);
  element("classes").append(label);
});

// The violation.
function showViolation() {
  // The judges find most violations at the end of the run: that is not part of the story.
  const of = picked.filter(p => kindOf(p.row) !== "violation"), times = (of.length ? of : picked).map(p => T[p.row]), from = Math.min(...times), to = Math.max(...times);
  const margin = Math.max((to - from) * .05, 2e5);
  show(from - margin, to + margin);
}
if (picked.length) {
  element("violation").hidden = false;
  element("picked").append(...picked.map(p => item(p.row, p.text)));
  element("picked-left-out").textContent = chain.length ? "Red in the lanes: these events. Dotted: which task woke which." : "Red in the lanes: these events.";
  document.querySelector("[data-zoom=violation]").hidden = false;
}
const zooms = {in: () => zoom(.5), out: () => zoom(2), fit: () => show(whole.from, whole.to), violation: showViolation};
for (const button of document.querySelectorAll("[data-zoom]")) button.addEventListener("click", zooms[button.dataset.zoom]);

// A fault of the story leads to its event.
const faultRows = new Map();
for (let row = 0; row < rows; row++) if (kindOf(row) === "fault") faultRows.set(`fault ${whatOf(row).fault.id}`, row);
for (const tr of document.querySelectorAll(".stories tr")) {
  const row = faultRows.get(tr.dataset.key);
  if (row === undefined || tr.classList.contains("gone")) continue;
  tr.dataset.jump = row;
  tr.addEventListener("click", () => { select(row, true); lanesCanvas.scrollIntoView({block: "center"}); });
}

element("save").addEventListener("click", () => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([element("failure").textContent], {type: "application/json"}));
  link.download = "failure.json";
  link.click();
  URL.revokeObjectURL(link.href);
});

movable(lanesCanvas, (x, y) => { const row = rowAt(x, y); if (row >= 0) select(row, false); });
lanesCanvas.addEventListener("pointermove", e => {
  const row = rowAt(e.offsetX, e.offsetY), tip = element("tip");
  const texts = row >= 0 ? [`${seconds(T[row])} s ${describe(row)}`] : bandsAt(e.offsetX, e.offsetY).map(band => band.text);
  tip.hidden = !texts.length;
  tip.textContent = texts.join("\n");
  tip.style.top = Math.min(e.clientY + 16, innerHeight - tip.offsetHeight - 4) + "px";
  tip.style.left = Math.min(e.clientX + 12, innerWidth - tip.offsetWidth - 4) + "px";
});
lanesCanvas.addEventListener("pointerleave", () => { element("tip").hidden = true; });
const toOverview = e => {
  const t = tOf(e.offsetX, overviewCanvas.clientWidth, whole), half = (view.to - view.from) / 2;
  show(t - half, t + half);
};
overviewCanvas.addEventListener("pointerdown", e => { overviewCanvas.setPointerCapture(e.pointerId); toOverview(e); });
overviewCanvas.addEventListener("pointermove", e => { if (e.buttons) toOverview(e); });

// The next or previous shown event of the selected event's lane.
function step(by) {
  if (selected < 0) return;
  const list = laneRows[data.node[selected]];
  const at = firstWhere(0, list.length, i => list[i] >= selected) + (by < 0 || list.includes(selected) ? by : 0);
  if (list[at] !== undefined) select(list[at], true);
}
const keys = {"+": () => zoom(.5), "-": () => zoom(2), ArrowLeft: () => pan(-.2), ArrowRight: () => pan(.2), n: () => step(1), p: () => step(-1)};
document.addEventListener("keydown", e => {
  if (e.target instanceof HTMLInputElement || e.ctrlKey || e.metaKey || e.altKey || !keys[e.key]) return;
  e.preventDefault();
  keys[e.key]();
});
addEventListener("resize", redraw);

refilter();
if (picked.length) { showViolation(); select(picked[picked.length - 1].row, false); }
// For checks: when the first picture is there, and where an event is on the canvas.
window.brokkrPage = {
  rows, lanes: data.nodes.length, shown: () => shownCount, selected: () => selected,
  visible: () => laneRows.flatMap(list => { const [from, to] = inView(list); return list.slice(from, to); }),
  samples: () => {
    // A text for each filter that some events match and others do not.
    const found = {};
    for (let row = rows - 1; row >= 0 && Object.keys(found).length < 4; row--) {
      const w = whatOf(row);
      if (w.conn !== undefined) found.connection ??= w.conn;
      if (w.e !== "op" || w.f !== "send" || w.type !== "ok") continue;
      for (const [partition, offset, value] of recordsOf(w)) {
        if (typeof value !== "number" || offset === null || offset < 0) continue;
        found.value ??= value;
        found.place ??= `${partition}:${offset}`;
        found.file ??= `${partition}/`;
      }
    }
    return found;
  },
  position: row => ({x: xOf(T[row], lanesCanvas.clientWidth), y: laneY(data.node[row])}),
};
requestAnimationFrame(() => requestAnimationFrame(() => { document.body.dataset.ready = Math.round(performance.now() - begun); }));
