// The events, unpacked from their columns. A row is the index of an event; rows are in the order of the trace.
const begun = performance.now();
const element = id => document.getElementById(id);
const data = JSON.parse(element("data").textContent);
const rows = data.n.length;
const N = new Float64Array(rows), T = new Float64Array(rows);
for (let row = 0, n = 0, t = 0; row < rows; row++) {
  N[row] = n += data.n[row];
  T[row] = t += data.t[row];
}

// The first row for which `is` holds, if it holds for all rows after it.
function firstWhere(from, to, is) {
  while (from < to) {
    const middle = (from + to) >> 1;
    if (is(middle)) to = middle; else from = middle + 1;
  }
  return from;
}

function rowOf(n) {
  const row = firstWhere(0, rows, r => N[r] >= n);
  return row < rows && N[row] === n ? row : -1;
}

const causeOf = row => data.by[row] ? rowOf(N[row] - data.by[row]) : -1;

// The inverse of sim/src/page/pack.rs.
function unpacked(packed) {
  if (!Array.isArray(packed)) return packed;
  const index = packed[0];
  if (index < -1) return data.strings[-2 - index];
  if (index === -1) return packed.slice(1).map(unpacked);
  const shape = data.shapes[index], object = {};
  if (shape[0]) object.e = shape[0];
  for (let i = 1; i < shape.length; i++) object[shape[i]] = unpacked(packed[i]);
  return object;
}

const kindOf = row => data.shapes[data.what[row][0]][0];
const whatOf = row => unpacked(data.what[row]);
const taskOf = row => data.task[row] < 0 ? null : data.strings[data.task[row]];
const nodeName = lane => data.nodes[lane][1];
const laneOfNode = new Map(data.nodes.map(([node], lane) => [node, lane]));

// The event as the trace's line of JSON has it, without checksums.
function eventOf(row) {
  const {e, ...fields} = whatOf(row);
  const event = {n: N[row], t: T[row], node: data.nodes[data.node[row]][0], life: data.life[row]};
  if (taskOf(row) !== null) event.task = taskOf(row);
  if (data.by[row]) event.by = N[row] - data.by[row];
  return {...event, e, ...fields};
}

// Classes of events, each with its colour.
const CLASSES = {
  client: ["op"],
  net: ["request", "response", "connect", "connected", "accept", "eof", "reset"],
  disk: ["write", "wrote", "write_dropped", "sync", "synced", "truncate", "name", "open", "lost"],
  process: ["fault", "calm", "start", "started", "stop", "ended", "kill", "power_loss", "pause", "resume", "panic", "violation"],
  log: ["log", "reached"],
  cause: ["run", "timer"],
};
const CLASS_NAMES = {client: "clients' operations", net: "network", disk: "disk", process: "processes and faults", log: "log", cause: "scheduler (causes)"};
const classNames = Object.keys(CLASSES);
const classOfKind = {};
classNames.forEach((name, index) => CLASSES[name].forEach(kind => { classOfKind[kind] = index; }));
const classOf = new Uint8Array(rows);
for (let row = 0; row < rows; row++) classOf[row] = classOfKind[kindOf(row)] ?? classNames.indexOf("log");

const SECOND = 1e9;
const seconds = (t, digits = 6) => (t / SECOND).toFixed(digits);

function batchText(b) {
  const values = b.values.length ? ` values ${b.values[0]}${b.values.length > 1 ? " to " + b.values[b.values.length - 1] : ""}` : "";
  const producer = b.producer >= 0 ? ` of producer ${b.producer}:${b.epoch} seq ${b.sequence}` : "";
  return `offsets ${b.base}..=${b.last}${producer}${values}`;
}

function answerText(a) {
  const parts = [`${a.topic ?? "partition"}-${a.partition}:`];
  if (a.error) parts.push(a.error);
  if (a.base !== undefined && !a.error) parts.push(`base offset ${a.base}`);
  if (a.high_watermark !== undefined) parts.push(`high watermark ${a.high_watermark}`);
  if (a.batches) parts.push(a.batches.map(batchText).join("; "));
  return parts.join(" ");
}

const short = value => { const text = JSON.stringify(value); return text.length > 300 ? text.slice(0, 300) + "…" : text; };

// An event in a line.
function describe(row) {
  const w = whatOf(row), error = w.error ? ` FAILED: ${w.error}` : "";
  const batches = w.batches && w.batches.length ? ` [${w.batches.map(batchText).join("; ")}]` : "";
  switch (w.e) {
    case "op": return `process ${w.process} ${w.type} ${w.f} ${short(w.value)}`;
    case "request": return `asks node ${w.to}: ${w.api} v${w.version} #${w.correlation} on connection ${w.conn}${batches}`;
    case "response": return `answers node ${w.to}: ${w.api} #${w.correlation} on connection ${w.conn} ${(w.answers ?? []).map(answerText).join("; ")}`;
    case "connect": return `connects to node ${w.to}`;
    case "connected": return w.conn === undefined ? `node ${w.to} refuses the connection` : `connection ${w.conn} to node ${w.to}`;
    case "accept": return `accepts connection ${w.conn}`;
    case "eof": return `the end of connection ${w.conn} arrives`;
    case "reset": return `connection ${w.conn} is reset`;
    case "write": return `writes ${w.file} at ${w.at}, ${w.len} bytes${batches}`;
    case "wrote": return `wrote ${w.file} at ${w.at}, ${w.len} bytes: in the page cache${error}`;
    case "write_dropped": return `write ${w.write} never reaches the page cache`;
    case "sync": return w.len === undefined ? `syncs the names in ${w.file}` : `syncs the ${w.len} bytes of ${w.file}`;
    case "synced": return `synced ${w.file}${error}`;
    case "truncate": return `truncates ${w.file} to ${w.to} bytes`;
    case "name": return `${w.op} ${w.file}${w.to ? " to " + w.to : ""}${error}`;
    case "open": return `${w.made ? "creates" : "opens"} ${w.file}`;
    case "lost": return `${w.file}: ${w.len} bytes at ${w.at} are ${w.how}${batches}`;
    case "fault": return `fault: ${short(w.fault)}`;
    case "calm": return "all faults end";
    case "start": return `node ${w.of} is started`;
    case "started": return `node ${w.of}: ${w.how}`;
    case "stop": return `node ${w.of} is asked to stop`;
    case "ended": return `the process of node ${w.of} has ended`;
    case "kill": return `kill -9 of node ${w.of}`;
    case "power_loss": return `node ${w.of} loses its power`;
    case "pause": return `node ${w.of} is paused (SIGSTOP)`;
    case "resume": return `node ${w.of} is resumed (SIGCONT)`;
    case "panic": return `panics: ${w.message}`;
    case "violation": return `VIOLATION ${w.invariant}: ${w.what}`;
    case "log": return `${w.level} ${w.target}${w.text}`;
    case "reached": return `reached: ${w.name}`;
    case "run": return `task ${taskOf(row)} runs${w.note ? ": " + w.note : ""}`;
    case "timer": return w.note ?? "a timer fires";
    default: return short(w);
  }
}

const picked = data.picked.map(([n, text]) => ({row: rowOf(n), text})).filter(p => p.row >= 0);
const chain = data.chain.map(rowOf).filter(row => row >= 0).reverse();
