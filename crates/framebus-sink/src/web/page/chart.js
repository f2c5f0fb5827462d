// Small charts of the last two minutes, drawn as SVG.

const SAMPLES = 120;
const [WIDTH, HEIGHT, LEFT, BOTTOM, TOP] = [340, 130, 34, 16, 8];
const NS = "http://www.w3.org/2000/svg";

const svg = (tag, attributes, text = "") => {
  const element = document.createElementNS(NS, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.textContent = text;
  return element;
};

// 1, 2 or 5 times a power of ten, not below `value`.
function ceiling(value) {
  const power = 10 ** Math.floor(Math.log10(Math.max(value, 1)));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= value) ?? value;
}

export class Chart {
  // `series`: [key of the state, name], …
  constructor(title, unit, series) {
    Object.assign(this, { title, unit, series });
    this.values = series.map(() => []);
    this.element = document.createElement("div");
    this.element.className = "chart";
    const head = document.createElement("header");
    const name = document.createElement("h2");
    name.textContent = `${title}: ${unit}`;
    head.append(name);
    this.plot = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img" });
    this.key = document.createElement("div");
    this.key.className = "key";
    this.element.append(head, this.plot, this.key);
  }

  add(state) {
    this.series.forEach(([key], index) => {
      this.values[index].push(state[key]);
      if (this.values[index].length > SAMPLES) this.values[index].shift();
    });
  }

  draw() {
    const top = ceiling(Math.max(1, ...this.values.flat().filter((value) => value !== null)));
    const x = (index, count) => LEFT + ((SAMPLES - count + index) * (WIDTH - LEFT - 4)) / (SAMPLES - 1);
    const y = (value) => TOP + (1 - value / top) * (HEIGHT - TOP - BOTTOM);
    const parts = [];
    for (const share of [0, 0.5, 1]) {
      parts.push(svg("line", { class: "grid", x1: LEFT, x2: WIDTH - 4, y1: y(top * share), y2: y(top * share) }));
      parts.push(svg("text", { x: LEFT - 5, y: y(top * share) + 3, "text-anchor": "end" }, `${+(top * share).toFixed(1)}`));
    }
    parts.push(svg("text", { x: LEFT, y: HEIGHT - 3 }, "2 min ago"));
    parts.push(svg("text", { x: WIDTH - 4, y: HEIGHT - 3, "text-anchor": "end" }, "now"));
    this.values.forEach((values, index) => {
      // A gap where nothing was known.
      let path = "";
      let up = true;
      values.forEach((value, at) => {
        if (value !== null) path += `${up ? "M" : "L"}${x(at, values.length).toFixed(1)} ${y(value).toFixed(1)}`;
        up = value === null;
      });
      parts.push(svg("path", { class: `line series-${index + 1}`, d: path }));
    });
    this.plot.replaceChildren(...parts);
    const now = this.series.map(([, name], index) => [name, this.values[index].at(-1) ?? null]);
    const said = now.map(([name, value]) => `${name} ${value === null ? "unknown" : value.toFixed(1)}`);
    this.plot.setAttribute("aria-label", `${this.title}, ${this.unit}: ${said.join(", ")}`);
    this.key.replaceChildren(
      ...now.map(([name, value], index) => {
        const entry = document.createElement("span");
        entry.className = `series-${index + 1}`;
        const number = document.createElement("b");
        number.textContent = value === null ? "–" : value.toFixed(1);
        entry.append(`${name} `, number);
        return entry;
      }),
    );
  }
}
