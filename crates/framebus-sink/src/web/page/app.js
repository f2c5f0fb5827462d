// The page: what comes over the link goes to the view that it belongs to.

import { Chart } from "/chart.js";
import { Editor } from "/editor.js";
import { EventList } from "/events.js";
import { Link } from "/link.js";
import { Tile } from "/tile.js";

const element = (id) => document.getElementById(id);
const TABS = ["wall", "charts", "events", "editor"];

let tiles = [];
let charts = [];
let events;
let editor;
let hello;
let tab = "wall";
let unread = 0;
const visible = new Set();

const link = new Link({
  message(message) {
    if (message.type === "hello") greet(message);
    else if (message.type === "state") state(message);
    else if (message.type === "result") tiles[message.camera]?.result(message);
    else if (message.type === "event") happened(message);
  },
  picture(picture) {
    tiles[picture.camera]?.picture(picture, () => link.drawn(picture.camera));
  },
  status(state, text) {
    element("link").dataset.state = state;
    element("link").textContent = text;
    if (state === "lost") tiles.forEach((tile) => tile.cover("no connection"));
  },
});

const seen = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    if (isIntersecting) visible.add(target.dataset.camera);
    else visible.delete(target.dataset.camera);
  }
  watch();
});

// Only what is on the screen is asked for: the rest costs nobody anything.
function watch() {
  if (!hello) return;
  let names = [];
  if (document.visibilityState === "visible") {
    if (tab === "wall") names = hello.cameras.map(({ name }) => name).filter((name) => visible.has(name));
    else if (tab === "editor") names = [element("editor-camera").value];
  }
  for (const tile of tiles) {
    const edited = tab === "editor" && tile.camera.name === element("editor-camera").value;
    tile.onBitmap = edited ? (bitmap) => editor.bitmap(bitmap) : undefined;
  }
  link.watch(names);
}

// The first message of each connection; after a reload it may say something new.
function greet(message) {
  const same = JSON.stringify(message) === JSON.stringify(hello);
  element("instance").textContent = message.instance;
  document.title = `${message.instance} – framebus`;
  if (same) return;
  hello = message;
  seen.disconnect();
  visible.clear();
  tiles = hello.cameras.map((camera, number) => new Tile(camera, number));
  charts = hello.cameras.map(({ name }) => [
    new Chart(name, "frames/s", [["fps_in", "in"], ["fps_out", "out"]]),
    new Chart(name, "latency, ms", [["p50_ms", "p50"], ["p99_ms", "p99"]]),
  ]);
  element("wall").replaceChildren(...tiles.map((tile) => tile.element));
  element("wall").classList.remove("one");
  element("charts").replaceChildren(...charts.flat().map((chart) => chart.element));
  for (const tile of tiles) {
    tile.view.onclick = () => enlarge(tile);
    seen.observe(tile.element);
  }
  events = new EventList(hello);
  editor = new Editor(hello, watch);
  watch();
}

function enlarge(tile) {
  const big = element("wall").classList.toggle("one");
  for (const other of tiles) other.element.classList.toggle("big", big && other === tile);
  tile.view.setAttribute("aria-label", `${tile.camera.name}: ${big ? "back to all cameras" : "enlarge"}`);
}

function state({ engine, cameras, sinks, video }) {
  if (!cameras) return;
  const why = engine.reason ? ` (${engine.reason})` : "";
  element("engine").textContent = `Inference: ${engine.state}${why}${engine.detail ? `; ${engine.detail}` : ""}`;
  cameras.forEach((camera, number) => {
    tiles[number]?.state(camera);
    charts[number]?.forEach((chart) => chart.add(camera));
  });
  if (tab === "charts") charts.flat().forEach((chart) => chart.draw());
  const unwell = sinks.filter((sink) => sink.state !== "live");
  const ms = (value) => (value === null ? "–" : `${value.toFixed(1)} ms`);
  element("footer").textContent =
    `framebus ${hello?.version ?? ""} · ${video.viewers} viewer${video.viewers === 1 ? "" : "s"}, ${video.filmed} cameras shown, ` +
    `picture ${ms(video.age_ms)} after capture on its way, ${ms(video.encode_ms)} to make it` +
    unwell.map((sink) => ` · sink ${sink.name}: ${sink.state} ${sink.reason}`).join("");
}

function happened(message) {
  if (!events?.add(message) || tab === "events") return;
  unread += 1;
  count();
}

function count() {
  element("event-count").hidden = !unread;
  element("event-count").textContent = unread > 99 ? "99+" : unread;
}

function select(name, focus) {
  tab = name;
  for (const other of TABS) {
    const button = element(`tab-${other}`);
    button.setAttribute("aria-selected", String(other === name));
    button.tabIndex = other === name ? 0 : -1;
    element(other).hidden = other !== name;
  }
  if (focus) element(`tab-${name}`).focus();
  if (name === "events") {
    unread = 0;
    count();
  }
  if (name === "charts") charts.flat().forEach((chart) => chart.draw());
  watch();
}

for (const name of TABS) element(`tab-${name}`).onclick = () => select(name);
document.querySelector("nav").onkeydown = (event) => {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (step) select(TABS[(TABS.indexOf(tab) + step + TABS.length) % TABS.length], true);
};
document.onkeydown = (event) => {
  if (event.key !== "Escape" || !element("wall").classList.contains("one")) return;
  enlarge(tiles.find((tile) => tile.element.classList.contains("big")));
};
document.onvisibilitychange = watch;

const dark = matchMedia("(prefers-color-scheme: dark)");
function theme(chosen) {
  if (chosen) document.documentElement.dataset.theme = chosen;
  const now = document.documentElement.dataset.theme ?? (dark.matches ? "dark" : "light");
  element("theme").textContent = now === "dark" ? "☀" : "☾";
  return now;
}
theme(localStorage.getItem("theme"));
dark.onchange = () => theme();
element("theme").onclick = () => {
  const chosen = theme() === "dark" ? "light" : "dark";
  localStorage.setItem("theme", chosen);
  theme(chosen);
};
