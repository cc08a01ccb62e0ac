// Which events are shown: those of the classes that are on, which match all filters.
const isShown = new Uint8Array(rows);
const classIsOn = new Uint8Array(classNames.length).fill(1);
classIsOn[classNames.indexOf("cause")] = 0;
const filters = {value: null, place: null, connection: null, file: null};
let shownCount = 0, matchCount = 0;
let laneRows = [];

const partitionOfFile = file => { const parts = file.split("/"); return parts[parts.length - 2] ?? ""; };
// t0-0 of a key t0@id-0: a topic that was deleted and created again keeps its folder's name.
const partitionOfKey = key => key.includes("@") ? key.slice(0, key.indexOf("@")) + key.slice(key.lastIndexOf("-")) : key;

// The records that an operation names: partition, offset (null if unknown), value.
function* recordsOf(w) {
  if (!Array.isArray(w.value)) return;
  for (const micro of w.value) {
    if (!Array.isArray(micro)) continue;
    if (micro[0] === "send") {
      const [offset, value] = Array.isArray(micro[2]) ? micro[2] : [null, micro[2]];
      yield [partitionOfKey(String(micro[1])), offset, value];
    } else if (micro[0] === "poll" && micro[1]) {
      for (const [key, messages] of Object.entries(micro[1]))
        for (const message of messages) yield [partitionOfKey(key), message[0], message[1]];
    }
  }
}

const batchesOf = w => [...(w.batches ?? []), ...(w.answers ?? []).flatMap(a => a.batches ?? [])];

function hasValue(w, value) {
  if (batchesOf(w).some(b => b.values.includes(value))) return true;
  if (w.e !== "op") return w.e === "violation" && w.what.includes(String(value));
  for (const record of recordsOf(w)) if (record[2] === value) return true;
  return false;
}

function hasPlace(w, {partition, offset}) {
  const covers = b => offset === null || b.base <= offset && offset <= b.last;
  if (w.e === "op") {
    for (const [key, at] of recordsOf(w)) if (key === partition && (offset === null || at === offset)) return true;
    return partitionOfKey(String(w.value?.key ?? "")) === partition && offset === null;
  }
  if (w.answers) return w.answers.some(a => `${a.topic}-${a.partition}` === partition &&
    (offset === null || a.base === offset || (a.batches ?? []).some(covers)));
  if (w.file && partitionOfFile(w.file) === partition) return offset === null || (w.batches ?? []).some(covers);
  const text = w.text ?? (w.e === "violation" ? w.what : "");
  return new RegExp(`(^|[^\\w-])${partition.replace(/[^\w-]/g, "\\$&")}($|[^\\w])`).test(text) &&
    (offset === null || new RegExp(`offsets? ${offset}($|\\D)`).test(text));
}

function matches(w) {
  const {value, place, connection, file} = filters;
  if (connection !== null && w.conn !== connection) return false;
  if (file !== null && !(w.file?.includes(file) || typeof w.to === "string" && w.to.includes(file))) return false;
  if (value !== null && !hasValue(w, value)) return false;
  return place === null || hasPlace(w, place);
}

const isFiltered = () => Object.values(filters).some(f => f !== null);

function applyFilters() {
  const filtered = isFiltered(), cause = classNames.indexOf("cause");
  laneRows = data.nodes.map(() => []);
  shownCount = matchCount = 0;
  for (let row = 0; row < rows; row++) {
    const isOn = classIsOn[classOf[row]];
    if (classOf[row] !== cause) matchCount++;
    isShown[row] = isOn && (!filtered || matches(whatOf(row))) ? 1 : 0;
    if (isShown[row]) {
      shownCount++;
      laneRows[data.node[row]].push(row);
    }
  }
}
