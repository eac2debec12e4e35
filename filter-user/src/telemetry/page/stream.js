// The stream of events, opened again and again until the daemon is there.
//
// Not left to EventSource alone: it gives up for good where an answer is an error, and
// after a restart the ids begin anew, which it can't know.

const TYPES = ["drop", "log", "stats", "policy", "lost"];
const FIRST_WAIT = 1;
const LONGEST_WAIT = 8;
/** Seconds without `stats`, which come once a second, after which the stream is dead. */
const SILENCE = 15;

export class Stream {
  #prepare;
  #event;
  #state;
  #source = null;
  #timer = null;
  #wait = FIRST_WAIT;
  #daemon = null;
  #lastId = "0";
  #heard = 0;

  /** `prepare` asks the daemon who it is: a name that changes with each start. `event` takes a
   * type and its text, `state` takes "live", or "lost" and why, where the daemon says so. */
  constructor({ prepare, event, state }) {
    this.#prepare = prepare;
    this.#event = event;
    this.#state = state;
    setInterval(() => this.#watch(), 1000);
  }

  /** Opens it. */
  async open() {
    this.#timer = null;
    let daemon;
    try {
      daemon = await this.#prepare();
    } catch {
      this.#lose();
      return;
    }
    if (daemon !== this.#daemon) {
      // Its ids are not those of the one before. What it has kept is told from the start.
      this.#daemon = daemon;
      this.#lastId = "0";
    }
    const address = `v1/events?last_id=${encodeURIComponent(this.#lastId)}`;
    const source = new EventSource(address);
    let opened = false;
    this.#source = source;
    this.#heard = performance.now();
    source.addEventListener("open", () => {
      opened = true;
      this.#heard = performance.now();
      this.#state("live");
    });
    source.addEventListener("error", () => {
      if (source === this.#source) {
        this.#lose();
        if (!opened) {
          this.#askWhy(address);
        }
      }
    });
    for (const type of TYPES) {
      source.addEventListener(type, (message) => {
        if (source !== this.#source) {
          return;
        }
        this.#heard = performance.now();
        this.#wait = FIRST_WAIT;
        this.#lastId = message.lastEventId || this.#lastId;
        this.#event(type, message.data);
      });
    }
  }

  /** Tries at once. */
  retry() {
    if (this.#timer !== null) {
      clearTimeout(this.#timer);
      this.#wait = FIRST_WAIT;
      this.open();
    }
  }

  #lose() {
    this.#source?.close();
    this.#source = null;
    this.#state("lost");
    if (this.#timer === null) {
      this.#timer = setTimeout(() => this.open(), this.#wait * 1000);
      this.#wait = Math.min(LONGEST_WAIT, this.#wait * 2);
    }
  }

  /** An EventSource that is refused doesn't say why: the answer does, when asked again. */
  async #askWhy(address) {
    const over = new AbortController();
    try {
      const answer = await fetch(address, { cache: "no-store", signal: over.signal });
      const words = answer.ok ? "" : await answer.text();
      over.abort();
      if (words !== "" && this.#source === null) {
        this.#state("lost", reasonIn(words));
      }
    } catch {
      // It is not there at all.
    }
  }

  /** A connection may die without a word: a machine that slept, a cable. */
  #watch() {
    const silent = (performance.now() - this.#heard) / 1000 > SILENCE;
    if (this.#source !== null && !document.hidden && silent) {
      this.#lose();
    }
  }
}

/** What an answer says of an error: `{"error":"…"}`, or its text. */
function reasonIn(text) {
  try {
    return String(JSON.parse(text).error ?? text);
  } catch {
    return text.slice(0, 300);
  }
}
