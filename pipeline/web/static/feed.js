// What the station says, as it says it; silence counts as a fault, not as well-being.
import { ask } from "/static/ui.js";

const SILENT_MS = 3000;
const AGAIN_MS = 1000;

const LOST = {
  health: { level: "fault", title: "No connection", reasons: ["This page gets no news from the dashboard; what it shows is old. It tries again."], trusted: false },
};

class Feed {
  constructor() {
    this.line = null;
    this.listeners = new Set();
    this.source = null;
    this.heard = 0;
    this.lost = false;
  }

  listen(listener) {
    this.listeners.add(listener);
    if (this.line) listener(this.line);
    return () => this.listeners.delete(listener);
  }

  start() {
    this.open();
    setInterval(() => this.watch(), AGAIN_MS);
    // A browser keeps six connections to a host: a page that nobody sees gives its own back.
    document.addEventListener("visibilitychange", () => (document.hidden ? this.close() : this.open()));
    window.addEventListener("pagehide", () => this.close());
  }

  open() {
    this.close();
    this.heard = Date.now();
    this.source = new EventSource("/api/v1/events");
    this.source.onmessage = (event) => {
      const back = this.lost;
      this.heard = Date.now();
      this.lost = false;
      this.line = { ...(this.line || { records: [] }), ...JSON.parse(event.data) };
      this.tell(back);
    };
  }

  close() {
    if (this.source) this.source.close();
    this.source = null;
  }

  watch() {
    if (document.hidden || Date.now() - this.heard < SILENT_MS) return;
    this.lost = true;
    this.line = { ...(this.line || { records: [], figures: {} }), ...LOST };
    this.tell(false);
    this.open(); // a sleeping machine leaves a connection that is dead and does not know it
    ask("/line").catch(() => {}); // whose session has ended is led to the login
  }

  tell(back) {
    for (const listener of this.listeners) listener(this.line, back);
  }
}

export const feed = new Feed();
