// The live log: what the daemon reports of single packets.
//
// A flood must not freeze the page. Events are kept as the text they came in; a few times
// a second, when the browser draws anyway, as many as there is room for are read and put
// into rows that fell out at the other end.

import { byId, cells, element, setClass, setText, setTime, setTitle } from "./dom.js";
import { count, counted, grouped, moment, parse, timeOfDay, utc } from "./format.js";

/** Rows at most. */
const KEPT = 500;
/** Unread texts at most. */
const UNREAD = 5000;
/** Milliseconds between two drawings at least, and at most. */
const PAUSE = 200;
const LONGEST_PAUSE = 1000;
/** How many times as long as a drawing took the next one waits. */
const REST = 4;

const FLAGS = [
  [0x02, "S"],
  [0x10, "."],
  [0x01, "F"],
  [0x04, "R"],
  [0x08, "P"],
  [0x20, "U"],
];

export class Log {
  #scope;
  #body = byId("log-body");
  #filter = byId("log-filter");
  #button = byId("log-pause");
  #announce;
  #sampled = true;

  #unread = [];
  #skipped = 0;
  #told = 0;
  #seen = 0;
  #lost = 0;

  #kept = [];
  #shown = [];
  #fresh = [];
  #held = [];
  #waiting = 0;
  #paused = false;

  #spare = [];
  #used = new Map();
  #scheduled = false;
  #drawn = 0;
  #pause = PAUSE;

  constructor(scope, announce) {
    this.#scope = scope;
    this.#announce = announce;
    this.#filter.addEventListener("input", () => this.choose());
    this.#button.addEventListener("click", () => this.toggle());
    byId("log-clear").addEventListener("click", () => this.#clear());
  }

  /** Takes an event: its type and its text. */
  take(type, text) {
    if (type === "drop" || type === "log") {
      this.#seen += 1;
    }
    this.#unread.push([type, text]);
    if (this.#unread.length > UNREAD) {
      // Older than all that will be shown.
      this.#skipped += this.#unread.splice(0, UNREAD / 2).filter(([one]) => one !== "lost").length;
    }
    this.#schedule();
  }

  /** Whether dropped packets are reported at all. */
  set sampled(sampled) {
    if (this.#sampled !== sampled) {
      this.#sampled = sampled;
      this.#say();
    }
  }

  /** Reports lost since the daemon began, as it counts them. */
  set lost(lost) {
    if (this.#lost !== lost) {
      this.#lost = lost;
      this.#schedule();
    }
  }

  /** Stops the rows, or lets them go on. */
  toggle() {
    this.#read();
    this.#paused = !this.#paused;
    this.#button.setAttribute("aria-pressed", String(this.#paused));
    if (!this.#paused) {
      this.#keep(this.#held);
      this.#held = [];
      this.#waiting = 0;
    }
    this.#announce(this.#paused ? "The log is paused." : "The log goes on.");
    this.#draw();
  }

  /** Chooses anew among what is kept: the filter or the scope changed. */
  choose() {
    this.#read();
    this.#shown = this.#kept.filter((entry) => this.#wants(entry)).slice(-KEPT);
    this.#fresh = [];
    this.#takeOut([...this.#body.rows]);
    this.#body.append(...this.#shown.map((entry) => this.#row(entry)).reverse());
    if (this.#paused) {
      this.#waiting = this.#held.filter((entry) => this.#wants(entry)).length;
    }
    this.#say();
  }

  #clear() {
    this.#read();
    this.#kept = [];
    this.#held = [];
    this.#waiting = 0;
    this.choose();
  }

  #schedule() {
    if (this.#scheduled) {
      return;
    }
    this.#scheduled = true;
    const wait = Math.max(0, this.#drawn + this.#pause - performance.now());
    setTimeout(() => {
      requestAnimationFrame(() => {
        const begun = performance.now();
        this.#scheduled = false;
        this.#read();
        this.#draw();
        // Layout and paint come before it.
        setTimeout(() => {
          this.#drawn = performance.now();
          this.#pause = Math.min(LONGEST_PAUSE, Math.max(PAUSE, (this.#drawn - begun) * REST));
        });
      });
    }, wait);
  }

  /** Reads what has come. Where nothing is filtered, what no row could show is not read. */
  #read() {
    let unread = this.#unread;
    this.#unread = [];
    const chooses = this.#filter.value.trim() !== "" || this.#scope.words() !== "all interfaces";
    let skipped = this.#skipped;
    this.#skipped = 0;
    if (!chooses && unread.length > KEPT) {
      skipped += unread.splice(0, unread.length - KEPT).filter(([type]) => type !== "lost").length;
    }
    if (skipped > 0) {
      this.#told = 0;
    }
    const entries = [];
    for (const [type, text] of unread) {
      const data = parse(text);
      if (type === "lost") {
        const lost = Number(count(data.lost));
        if (data.why !== "slow_reader") {
          this.#told += lost;
        }
        lose(entries, lost, data.why, data.time);
        continue;
      }
      // The same loss may have been told by an event of its own.
      const untold = Number(count(data.lost)) - this.#told;
      this.#told = Math.max(0, -untold);
      if (untold > 0) {
        lose(entries, untold, "budget", data.time);
      }
      entries.push(packet(type, data));
    }
    if (this.#paused) {
      this.#held.push(...entries);
      this.#held.splice(0, this.#held.length - KEPT);
      this.#waiting += skipped + entries.filter((entry) => !entry.lost && this.#wants(entry)).length;
    } else {
      this.#keep(entries);
    }
  }

  /** Puts entries to those that are kept, and those of them that are wanted to the rows. */
  #keep(entries) {
    for (const entry of entries) {
      const last = this.#kept.at(-1);
      if (entry.lost && last?.lost && last.why === entry.why) {
        last.lost += entry.lost;
        last.date = entry.date;
        last.changed?.();
        continue;
      }
      this.#kept.push(entry);
      if (this.#wants(entry)) {
        this.#fresh.push(entry);
      }
    }
    this.#kept.splice(0, this.#kept.length - KEPT);
    this.#fresh.splice(0, this.#fresh.length - KEPT);
  }

  /** Whether the filter and the scope choose it. A loss may have been of anything. */
  #wants(entry) {
    if (entry.lost) {
      return true;
    }
    const words = this.#filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    return (
      this.#scope.has(entry.data.interface, entry.data.direction) &&
      words.every((word) => entry.search.includes(word))
    );
  }

  #draw() {
    if (this.#fresh.length > 0) {
      this.#takeOut([...this.#body.rows].slice(KEPT - this.#fresh.length));
      const rows = this.#fresh.map((entry) => this.#row(entry)).reverse();
      this.#body.prepend(...rows);
      this.#shown = [...this.#shown, ...this.#fresh].slice(-KEPT);
      this.#fresh = [];
    }
    this.#say();
  }

  /** What stands around the rows. */
  #say() {
    const rows = this.#shown.length;
    const empty = byId("log-none");
    empty.hidden = rows > 0;
    byId("log-table").hidden = rows === 0;
    if (rows === 0) {
      setText(empty, this.#nothing());
    }
    setText(
      this.#button.querySelector(".label"),
      !this.#paused ? "Pause" : this.#waiting === 0 ? "Resume" : `Resume (${grouped(this.#waiting)} waiting)`,
    );
    const state = this.#paused ? "Paused. " : "";
    const lost =
      Number(this.#lost) === 0
        ? ""
        : ` ${counted(this.#lost, "packet was", "packets were")} not reported since the daemon began.`;
    setText(
      byId("log-status"),
      `${state}${counted(rows, "row", "rows")} of ${counted(this.#seen, "report", "reports")} since this page is open.${lost}`,
    );
  }

  #nothing() {
    if (this.#kept.length > 0) {
      return "None of what was reported is chosen by the filter.";
    }
    return this.#sampled
      ? "Nothing dropped yet."
      : "Dropped packets are not reported: the daemon runs with --sample-drops 0. The counters are exact all the same.";
  }

  /** A row for an entry; one that fell out, where there is one. */
  #row(entry) {
    if (entry.lost) {
      return lossRow(entry);
    }
    const row = this.#spare.pop() ?? new PacketRow();
    row.fill(entry);
    this.#used.set(row.row, row);
    return row.row;
  }

  /** Takes rows out; those of packets are kept for others. */
  #takeOut(rows) {
    for (const row of rows) {
      row.remove();
      const used = this.#used.get(row);
      if (used !== undefined) {
        this.#used.delete(row);
        this.#spare.push(used);
      }
    }
  }
}

/** Adds a loss, to the one before where there is nothing between them. */
function lose(entries, lost, why, time) {
  if (lost === 0) {
    return;
  }
  const last = entries.at(-1);
  const date = moment(time) ?? new Date();
  if (last?.lost && last.why === why) {
    last.lost += lost;
    last.date = date;
  } else {
    entries.push({ lost, why, date });
  }
}

/** A reported packet, and the text that a filter looks into. */
function packet(type, data) {
  const { l4, icmp, ip } = data;
  let proto = l4?.proto === null || l4?.proto === undefined ? "" : String(l4.proto);
  if (icmp) {
    proto += ` ${icmp.type}/${icmp.code}`;
  } else if (typeof l4?.tcp_flags === "number") {
    proto += ` ${FLAGS.map(([bit, letter]) => (l4.tcp_flags & bit ? letter : "")).join("")}`;
  } else if (typeof l4?.tcp_flags === "string") {
    proto += ` ${l4.tcp_flags}`;
  }
  const endpoint = (address, port) => {
    if (address === null || address === undefined) {
      return "–";
    }
    if (port === null || port === undefined) {
      return String(address);
    }
    return ip.version === 6 ? `[${address}]:${port}` : `${address}:${port}`;
  };
  const index = data.rule === null || data.rule === undefined ? "default" : data.rule;
  const entry = {
    type,
    data,
    date: moment(data.time) ?? new Date(),
    proto: proto.trim() || "–",
    src: endpoint(ip?.src, l4?.sport),
    dst: endpoint(ip?.dst, l4?.dport),
    rule: data.policy ? `${data.policy} ${index}` : "–",
    standsFor: data.sampled_1_in ? `1 in ${grouped(count(data.sampled_1_in))}` : "",
  };
  const { interface: name, direction, verdict, reason, action, stage } = data;
  entry.search =
    `${name} ${direction} ${verdict} ${type} ${entry.proto} ${entry.src} ${entry.dst} ${reason} ${action} ${stage} ${entry.rule}`.toLowerCase();
  return entry;
}

function lossRow(entry) {
  const row = element("tr", "loss");
  const time = element("time");
  const when = element("td", "when", time);
  const words = element("td");
  words.colSpan = 8;
  row.append(when, words);
  entry.changed = () => {
    setTime(time, entry.date, timeOfDay(entry.date), utc(entry.date));
    const packets = counted(entry.lost, "packet", "packets");
    setText(
      words,
      entry.why === "slow_reader"
        ? `${counted(entry.lost, "report", "reports")} skipped: this page was too slow to take them. The counters have them.`
        : `${packets} not reported: more came than are. The counters have them.`,
    );
  };
  entry.changed();
  return row;
}

/** A row of a packet, which is filled again for others. */
class PacketRow {
  constructor() {
    this.row = element("tr");
    this.cells = cells(
      this.row,
      ["when", "", "code", "code", "code", "code quiet", "name", "quiet", "number quiet"],
      -1,
    );
    this.time = element("time");
    this.cells[0].append(this.time);
    this.chip = element("span");
    this.tag = element("span", "tag", "log");
    this.cells[1].append(this.chip, this.tag);
  }

  fill(entry) {
    const { data } = entry;
    const [, , proto, src, dst, reason, rule, where, standsFor] = this.cells;
    setTime(this.time, entry.date, timeOfDay(entry.date), utc(entry.date));
    setText(this.chip, String(data.verdict ?? ""));
    setClass(this.chip, `chip ${data.verdict === "drop" ? "drop" : "pass"}`);
    this.tag.hidden = entry.type !== "log";
    setText(proto, entry.proto);
    setText(src, entry.src);
    setTitle(src, entry.src);
    setText(dst, entry.dst);
    setTitle(dst, entry.dst);
    setText(reason, String(data.reason ?? ""));
    setText(rule, entry.rule);
    setTitle(rule, [entry.rule, data.stage, data.action].filter(Boolean).join(", "));
    setText(where, `${data.interface ?? ""} ${data.direction ?? ""}`);
    setText(standsFor, entry.standsFor);
  }
}
