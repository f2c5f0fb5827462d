// The socket: comes back by itself, says how it is, asks only for what is on the screen.

const RETRY_MIN_MS = 500;
const RETRY_MAX_MS = 5000;
// A state comes every second: without one for so long the process hangs, or the network.
const SILENT_MS = 5000;

export class Link {
  constructor({ message, picture, status }) {
    Object.assign(this, { message, picture, status });
    this.wanted = [];
    this.retry = RETRY_MIN_MS;
    this.heard = 0;
    this.open();
    setInterval(() => this.look(), 1000);
  }

  open() {
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    const socket = new WebSocket(`${scheme}://${location.host}/ws`);
    this.socket = socket;
    this.heard = performance.now();
    socket.binaryType = "arraybuffer";
    socket.onopen = () => {
      this.retry = RETRY_MIN_MS;
      this.status("open", "Connected.");
      this.ask();
    };
    socket.onmessage = ({ data }) => {
      if (socket !== this.socket) return;
      if (performance.now() - this.heard > SILENT_MS) this.status("open", "Connected.");
      this.heard = performance.now();
      if (typeof data === "string") this.message(JSON.parse(data));
      else this.picture(read(data));
    };
    socket.onclose = () => {
      if (socket !== this.socket) return;
      this.socket = undefined;
      const wait = this.retry;
      this.retry = Math.min(this.retry * 2, RETRY_MAX_MS);
      this.status("lost", "The page's process does not answer: what you see is old. Trying again …");
      setTimeout(() => this.again(), wait);
    };
  }

  // A browser does not say why a socket was refused; an ordinary request does.
  async again() {
    const answer = await fetch("/api/state").catch(() => undefined);
    if (answer?.status === 401) location.reload();
    else this.open();
  }

  look() {
    const silent = performance.now() - this.heard;
    if (this.socket?.readyState === WebSocket.OPEN && silent > SILENT_MS) {
      const seconds = Math.round(silent / 1000);
      this.status("lost", `Nothing was heard for ${seconds} s: what you see is old.`);
      if (silent > 3 * SILENT_MS) this.socket.close();
    }
  }

  // Names of the cameras whose pictures and results shall come.
  watch(names) {
    if (names.join("\n") === this.wanted.join("\n")) return;
    this.wanted = names;
    this.ask();
  }

  ask() {
    this.send({ watch: this.wanted });
  }

  drawn(camera) {
    this.send({ drawn: camera });
  }

  send(value) {
    if (this.socket?.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(value));
  }
}

// The header in front of each picture, little endian; 40 bytes.
function read(buffer) {
  const view = new DataView(buffer);
  return {
    version: view.getUint16(0, true),
    camera: view.getUint16(2, true),
    width: view.getUint32(4, true),
    height: view.getUint32(8, true),
    epoch: view.getBigUint64(12, true).toString(),
    sequence: Number(view.getBigUint64(20, true)),
    wallMs: Number(view.getBigUint64(28, true) / 1000n) / 1000,
    ageMs: view.getUint32(36, true) / 1000,
    jpeg: new Blob([new Uint8Array(buffer, 40)], { type: "image/jpeg" }),
  };
}
