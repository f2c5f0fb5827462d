// What happened, newest first.

const SHOWN_MAX = 200;
// A snapshot is written a little after its event, or never: a sink need not take every one.
const WRITTEN_MS = 1500;
const RETRY_MS = [2000, 6000];

const WORDS = {
  appear: "appeared", disappear: "disappeared", enter: "entered", leave: "left", dwell: "stays in", cross: "crossed",
};

export class EventList {
  constructor(hello) {
    this.list = document.getElementById("event-list");
    this.none = document.getElementById("no-events");
    this.camera = document.getElementById("event-camera");
    this.kind = document.getElementById("event-kind");
    this.seen = new Set();
    this.camera.replaceChildren(new Option("all", ""), ...hello.cameras.map(({ name }) => new Option(name, name)));
    this.kind.replaceChildren(new Option("all", ""), ...Object.keys(WORDS).map((kind) => new Option(kind, kind)));
    for (const select of [this.camera, this.kind]) select.onchange = () => this.filter();
    this.list.replaceChildren();
  }

  // Whether it is a new one.
  add({ event, snapshot, clip, at_ms: atMs }) {
    if (this.seen.has(event.id)) return false;
    this.seen.add(event.id);
    this.none.hidden = true;
    const item = document.createElement("li");
    Object.assign(item.dataset, { camera: event.camera, kind: event.event, id: event.id });
    if (snapshot) item.append(thumbnail(snapshot, event, WRITTEN_MS - (Date.now() - atMs)));
    const what = document.createElement("div");
    what.className = "what";
    const title = document.createElement("b");
    const track = event.track ? ` #${event.track}` : "";
    const way = event.direction ? ` (${event.direction})` : "";
    title.textContent = `${event.label}${track} ${WORDS[event.event] ?? event.event}${event.place ? ` ${event.place}` : ""}${way}`;
    const time = document.createElement("time");
    const when = new Date(atMs);
    time.dateTime = when.toISOString();
    time.textContent = `${event.camera}, ${when.toLocaleString()}`;
    const more = document.createElement("small");
    const stay = event.age_s > 0 ? `, after ${event.age_s.toFixed(1)} s` : "";
    more.textContent = ` · score ${event.score.toFixed(2)}${stay}`;
    what.append(title, time, more);
    if (clip) {
      const link = document.createElement("a");
      Object.assign(link, { href: clip, target: "_blank", rel: "noopener", textContent: "clip" });
      what.append(" · ", link);
    }
    item.append(what);
    this.list.prepend(item);
    while (this.list.children.length > SHOWN_MAX) {
      this.seen.delete(this.list.lastChild.dataset.id);
      this.list.lastChild.remove();
    }
    this.match(item);
    return true;
  }

  filter() {
    for (const item of this.list.children) this.match(item);
  }

  match(item) {
    const { camera, kind } = item.dataset;
    item.hidden = Boolean((this.camera.value && this.camera.value !== camera) || (this.kind.value && this.kind.value !== kind));
  }
}

function thumbnail(url, event, wait) {
  const link = document.createElement("a");
  Object.assign(link, { href: url, target: "_blank", rel: "noopener", className: "thumbnail" });
  const image = document.createElement("img");
  image.hidden = true;
  image.onload = () => (image.hidden = false);
  image.alt = `${event.label} at ${event.camera}`;
  const waits = [...RETRY_MS];
  image.onerror = () => {
    const next = waits.shift();
    if (next === undefined) link.hidden = true;
    else setTimeout(() => (image.src = `${url}?${waits.length}`), next);
  };
  setTimeout(() => (image.src = url), Math.max(0, wait));
  link.append(image);
  return link;
}
