// One camera: its picture with what was found in it.
//
// A picture comes before its result. It waits for it, so that boxes sit on the frame that
// they were found in; results name frames by epoch and sequence.

// Longest wait for a result.
const WAIT_MS = 600;
// After so many pictures without a result none is waited for until one comes.
const PATIENCE = 3;
// Pictures that wait at most; then the oldest is drawn as it is.
const PENDING_MAX = 8;
const RESULTS_MAX = 96;
// Boxes of an earlier frame are shown (dashed) on later ones for so long.
const STALE_MS = 1000;

const make = (tag, properties = {}, ...children) => {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
};

export class Tile {
  constructor(camera, number) {
    Object.assign(this, { camera, number });
    this.pending = [];
    this.results = new Map();
    this.missed = 0;
    this.drawn = 0;
    this.last = undefined;
    this.times = [];
    this.canvas = make("canvas", { width: 640, height: 360 });
    this.canvas.setAttribute("aria-hidden", "true");
    this.veil = make("span", { className: "veil" }, "waiting for a picture");
    this.view = make("button", { type: "button", className: "view" }, this.canvas, this.veil);
    this.view.setAttribute("aria-label", `${camera.name}: enlarge`);
    this.stateText = make("span", { className: "state" }, "–");
    this.reason = make("p", { className: "reason", hidden: true });
    this.reason.setAttribute("role", "status");
    this.facts = make("p", { className: "facts" }, "–");
    const head = make("header", {}, make("h2", { title: camera.name }, camera.name), this.stateText);
    this.element = make("article", {}, head, this.view, this.reason, this.facts);
    this.element.dataset.camera = camera.name;
    this.onBitmap = undefined;
  }

  // How the camera is, as the instance says.
  state(state) {
    this.said = state;
    this.stateText.textContent = state.state;
    this.stateText.dataset.state = state.state;
    this.element.dataset.state = state.state;
    this.reason.textContent = state.reason;
    this.reason.hidden = !state.reason;
    const runs = state.state === "live" || state.state === "degraded";
    this.cover(runs ? undefined : state.state, state.reason);
    const part = (value, unit) => (value === null ? "–" : `${value.toFixed(value < 10 ? 1 : 0)}${unit}`);
    const drops = state.drops.map(([cause, count]) => `${cause} ${count}`).join(", ");
    const size = state.width ? `${state.width}×${state.height}, ` : "";
    this.facts.textContent =
      `${size}${part(state.fps_in, " fps")} in, ${part(state.fps_out, " fps")} out, ` +
      `latency p50 ${part(state.p50_ms, " ms")}, p99 ${part(state.p99_ms, " ms")}${drops ? `; drops: ${drops}` : ""}`;
  }

  // Says over the picture that it is no live one.
  cover(word, why = "") {
    this.covered = word;
    this.veil.hidden = !word && this.drawn > 0;
    if (word) this.veil.replaceChildren(word, document.createElement("br"), make("small", {}, why));
    else if (!this.drawn) this.veil.textContent = "waiting for a picture";
  }

  result(result) {
    this.missed = 0;
    // Where inference is slow its frame may have been drawn long ago: then what was found is
    // shown on later ones.
    if (result.outcome === "ok") this.last = { detections: result.detections, at: performance.now() };
    this.results.set(`${result.epoch}/${result.sequence}`, result);
    if (this.results.size > RESULTS_MAX) this.results.delete(this.results.keys().next().value);
    this.flush();
  }

  async picture(picture, acknowledge) {
    let bitmap;
    try {
      bitmap = await createImageBitmap(picture.jpeg);
    } catch {
      return;
    } finally {
      acknowledge();
    }
    this.pending.push({ picture, bitmap, at: performance.now() });
    // The browser decodes two at once, and either may be ready first.
    this.pending.sort((a, b) => a.picture.wallMs - b.picture.wallMs);
    this.flush();
    if (this.pending.length) setTimeout(() => this.flush(), WAIT_MS + 1);
  }

  // Draws, oldest first, what has its result or has waited for long enough.
  flush() {
    while (this.pending.length) {
      const { picture, bitmap, at } = this.pending[0];
      const result = this.results.get(`${picture.epoch}/${picture.sequence}`);
      const waited = performance.now() - at;
      const waits = this.missed < PATIENCE && waited < WAIT_MS && this.pending.length <= PENDING_MAX;
      if (!result && waits) return;
      if (!result) this.missed += 1;
      this.pending.shift();
      this.draw(picture, bitmap, result);
      bitmap.close();
    }
  }

  draw(picture, bitmap, result) {
    const { canvas } = this;
    if (canvas.width !== bitmap.width || canvas.height !== bitmap.height) {
      canvas.width = bitmap.width;
      canvas.height = bitmap.height;
    }
    const context = canvas.getContext("2d");
    context.drawImage(bitmap, 0, 0);
    if (this.onBitmap) this.onBitmap(bitmap);
    const now = performance.now();
    const answered = result?.outcome === "ok";
    // In a frame that was left out because nothing moved, everything is where it was.
    const same = answered || result?.reason === "motion";
    const recent = same || now - (this.last?.at ?? -STALE_MS) < STALE_MS ? (this.last?.detections ?? []) : [];
    const found = answered ? result.detections : recent;
    const scale = canvas.width / (canvas.clientWidth || canvas.width);
    places(context, this.camera, scale);
    boxes(context, found, [canvas.width / picture.width, canvas.height / picture.height], scale, same);
    this.drawn += 1;
    this.times.push(now);
    while (this.times.length > 30) this.times.shift();
    Object.assign(this.element.dataset, {
      sequence: picture.sequence,
      boxes: found.length,
      own: String(answered),
      drawn: this.drawn,
      latency: (Date.now() - picture.wallMs).toFixed(1),
    });
    if (this.drawn === 1) this.cover(this.covered, this.said?.reason);
  }
}

// Colours that stay apart; the same object keeps its own.
function colour(found) {
  const number = found.track ?? found.class;
  return `hsl(${(number * 137.5 + 40) % 360} 90% 62%)`;
}

function boxes(context, detections, [sx, sy], scale, own) {
  context.setLineDash(own ? [] : [5 * scale, 4 * scale]);
  context.lineWidth = 2 * scale;
  context.font = `600 ${12 * scale}px system-ui, sans-serif`;
  context.textBaseline = "middle";
  const height = 17 * scale;
  for (const found of detections) {
    const [left, top, right, bottom] = found.box;
    const [x, y, w, h] = [left * sx, top * sy, (right - left) * sx, (bottom - top) * sy];
    context.strokeStyle = context.fillStyle = colour(found);
    context.strokeRect(x, y, w, h);
    // As much as there is room for: labels of small boxes in a crowd would hide it.
    const track = found.track ? ` #${found.track}` : "";
    const texts = [`${found.label} ${found.score.toFixed(2)}${track}`, `${found.label}${track}`, found.label];
    const wide = (text) => context.measureText(text).width + 8 * scale;
    const text = texts.find((text) => wide(text) <= 1.5 * w);
    if (!text) continue;
    const width = wide(text);
    const [tx, ty] = [Math.min(x, context.canvas.width - width), y < height ? y : y - height];
    context.fillRect(Math.max(tx, 0), ty, width, height);
    context.fillStyle = "#000";
    context.fillText(text, Math.max(tx, 0) + 4 * scale, ty + height / 2);
  }
  context.setLineDash([]);
}

// Zones and lines of the configuration, under the boxes.
export function places(context, camera, scale) {
  const { width, height } = context.canvas;
  context.lineWidth = 1.5 * scale;
  context.font = `${12 * scale}px system-ui, sans-serif`;
  context.textBaseline = "top";
  context.strokeStyle = "#ffd33d";
  const name = (text, [x, y]) => {
    context.fillStyle = "rgb(0 0 0 / 65%)";
    context.fillRect(x * width, y * height, context.measureText(text).width + 8 * scale, 17 * scale);
    context.fillStyle = "#ffd33d";
    context.fillText(text, x * width + 4 * scale, y * height + 3 * scale);
  };
  for (const zone of camera.zones) {
    context.beginPath();
    for (const [x, y] of zone.points) context.lineTo(x * width, y * height);
    context.closePath();
    context.fillStyle = "rgb(255 211 61 / 12%)";
    context.fill();
    context.stroke();
    name(zone.name, zone.points[0]);
  }
  for (const line of camera.lines) {
    context.beginPath();
    context.moveTo(line.from[0] * width, line.from[1] * height);
    context.lineTo(line.to[0] * width, line.to[1] * height);
    context.stroke();
    name(line.name, line.from);
  }
}
