// Zones and lines, drawn on a picture, as TOML to paste.

import { places } from "/tile.js";

// A click this near to a point takes the point, in pixels of the screen.
const NEAR = 12;
const STEP = 0.005;

const element = (id) => document.getElementById(id);
const clamp = (value) => Math.min(1, Math.max(0, value));
// A basic string of TOML, which JSON's is but for one letter.
const quote = (text) => JSON.stringify(text).replaceAll("\u007f", "\\u007f");
const point = ([x, y]) => `[${+x.toFixed(3)}, ${+y.toFixed(3)}]`;

export class Editor {
  constructor(hello, changed) {
    this.cameras = hello.cameras;
    this.points = [];
    this.cross = [0.5, 0.5];
    this.canvas = element("editor-canvas");
    this.camera = element("editor-camera");
    const before = this.camera.value;
    this.camera.replaceChildren(...hello.cameras.map(({ name }) => new Option(name, name)));
    if (hello.cameras.some(({ name }) => name === before)) this.camera.value = before;
    this.still = document.createElement("canvas");
    this.camera.onchange = () => {
      this.still.width = 640;
      this.still.height = 360;
      changed();
      this.show();
    };
    for (const radio of document.querySelectorAll("[name=shape]")) {
      radio.onchange = () => {
        this.points = this.isLine() ? this.points.slice(0, 2) : this.points;
        element("dwell-label").hidden = this.isLine();
        const name = element("editor-name");
        if (/^(zone|line)-1$/.test(name.value)) name.value = `${this.shape()}-1`;
        this.show();
      };
    }
    for (const id of ["name", "classes", "dwell", "anchor"]) element(`editor-${id}`).oninput = () => this.show();
    element("editor-undo").onclick = () => this.set(this.points.slice(0, -1));
    element("editor-clear").onclick = () => this.set([]);
    element("editor-check").onclick = () => this.check();
    element("editor-copy").onclick = () => this.copy();
    this.canvas.onpointerdown = (event) => this.down(event);
    this.canvas.onpointermove = (event) => this.move(event);
    this.canvas.onpointerup = () => (this.held = undefined);
    this.canvas.onkeydown = (event) => this.key(event);
    this.canvas.onfocus = this.canvas.onblur = () => this.show();
    this.show();
  }

  shape() {
    return document.querySelector("[name=shape]:checked").value;
  }

  isLine() {
    return this.shape() === "line";
  }

  // A live picture of the chosen camera.
  bitmap(bitmap) {
    this.still.width = bitmap.width;
    this.still.height = bitmap.height;
    this.still.getContext("2d").drawImage(bitmap, 0, 0);
    this.show();
  }

  set(points) {
    this.points = points;
    this.show();
  }

  add(at) {
    if (this.isLine() && this.points.length === 2) this.set([at]);
    else this.set([...this.points, at]);
  }

  at(event) {
    const box = this.canvas.getBoundingClientRect();
    return [clamp((event.clientX - box.left) / box.width), clamp((event.clientY - box.top) / box.height)];
  }

  down(event) {
    const at = this.at(event);
    const box = this.canvas.getBoundingClientRect();
    const near = ([x, y]) => Math.hypot((x - at[0]) * box.width, (y - at[1]) * box.height) < NEAR;
    this.held = this.points.findIndex(near);
    if (this.held < 0) {
      this.add(at);
      this.held = this.points.length - 1;
    }
    this.canvas.setPointerCapture(event.pointerId);
  }

  move(event) {
    if (this.held === undefined) return;
    this.points[this.held] = this.at(event);
    this.show();
  }

  key(event) {
    const step = event.shiftKey ? STEP * 10 : STEP;
    const moves = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
    const [dx, dy] = moves[event.key] ?? [0, 0];
    if (event.key in moves) this.cross = [clamp(this.cross[0] + dx), clamp(this.cross[1] + dy)];
    else if (event.key === "Enter") this.add([...this.cross]);
    else if (event.key === "Backspace") this.points = this.points.slice(0, -1);
    else return;
    event.preventDefault();
    this.show();
  }

  toml() {
    const least = this.isLine() ? 2 : 3;
    if (this.points.length < least) return "";
    const classes = element("editor-classes").value.split(",").map((name) => name.trim()).filter(Boolean);
    const dwell = Number(element("editor-dwell").value);
    const lines = [`[[${this.shape()}]]`, `camera = ${quote(this.camera.value)}`, `name = ${quote(element("editor-name").value)}`];
    if (this.isLine()) lines.push(`from = ${point(this.points[0])}`, `to = ${point(this.points[1])}`);
    else lines.push(`points = [${this.points.map(point).join(", ")}]`);
    if (classes.length) lines.push(`classes = [${classes.map((name) => (/^\d+$/.test(name) ? name : quote(name))).join(", ")}]`);
    if (!this.isLine() && dwell > 0) lines.push(`dwell_s = ${dwell}`);
    if (element("editor-anchor").value !== "bottom") lines.push(`anchor = ${quote(element("editor-anchor").value)}`);
    return `${lines.join("\n")}\n`;
  }

  show() {
    const { canvas, still } = this;
    if (canvas.width !== still.width || canvas.height !== still.height) {
      canvas.width = still.width;
      canvas.height = still.height;
    }
    const context = canvas.getContext("2d");
    const scale = canvas.width / (canvas.clientWidth || canvas.width);
    context.fillStyle = "#222";
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.drawImage(still, 0, 0);
    const camera = this.cameras.find(({ name }) => name === this.camera.value);
    if (camera) places(context, camera, scale);
    const corners = this.points.map(([x, y]) => [x * canvas.width, y * canvas.height]);
    context.strokeStyle = "#3fb6ff";
    context.fillStyle = "rgb(63 182 255 / 22%)";
    context.lineWidth = 2.5 * scale;
    context.beginPath();
    for (const corner of corners) context.lineTo(...corner);
    if (!this.isLine() && corners.length > 2) {
      context.closePath();
      context.fill();
    }
    context.stroke();
    context.fillStyle = "#3fb6ff";
    for (const [x, y] of corners) {
      context.beginPath();
      context.arc(x, y, 5 * scale, 0, 7);
      context.fill();
    }
    if (document.activeElement === canvas) {
      const [x, y] = [this.cross[0] * canvas.width, this.cross[1] * canvas.height];
      context.strokeStyle = "#fff";
      context.lineWidth = scale;
      context.beginPath();
      context.moveTo(x - 9 * scale, y);
      context.lineTo(x + 9 * scale, y);
      context.moveTo(x, y - 9 * scale);
      context.lineTo(x, y + 9 * scale);
      context.stroke();
    }
    const text = this.toml();
    const area = element("editor-text");
    if (area.value !== text) {
      area.value = text;
      this.say("");
    }
    for (const id of ["check", "copy"]) element(`editor-${id}`).disabled = !text;
  }

  say(text, ok) {
    const said = element("editor-said");
    said.textContent = text;
    said.dataset.ok = ok ?? "";
  }

  async check() {
    const answer = await fetch("/api/check", { method: "POST", body: this.toml() }).catch(() => undefined);
    if (!answer?.ok) return this.say("The page's process does not answer.", false);
    const { ok, errors } = await answer.json();
    this.say(ok ? "This loads. Paste it at the end of the configuration, then run framebus reload." : errors.join("\n"), ok);
  }

  async copy() {
    const area = element("editor-text");
    try {
      await navigator.clipboard.writeText(area.value);
      this.say("Copied.", true);
    } catch {
      // Without TLS a browser gives no clipboard to pages of other machines.
      area.select();
      this.say("Selected: copy it with Ctrl+C.", true);
    }
  }
}
