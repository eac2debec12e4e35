// From counters to rates. Counters go on over restarts of the daemon and changes of the
// policy; where one does not, or nothing was heard for a while, there is no rate: neither
// a spike nor a negative one.

import { minus, moment } from "./format.js";
import { sideName } from "./scope.js";

/** Seconds that are drawn. */
export const WINDOW = 300;

/** Seconds without a reading after which two are not compared. */
const GAP = 4;

/** Rates of many counters between two readings of them. */
export class Rates {
  #before = new Map();
  #at = null;
  #rates = new Map();

  /** Takes a reading: a Map from names to counters, and the second of it. */
  take(counters, at, gap = GAP) {
    const seconds = this.#at === null ? 0 : at - this.#at;
    const known = seconds > 0 && seconds <= gap;
    const rates = new Map();
    for (const [name, value] of counters) {
      const before = this.#before.get(name);
      const more = before === undefined ? -1 : minus(value, before);
      rates.set(name, known && more >= 0 ? more / seconds : null);
    }
    this.#before = counters;
    this.#at = at;
    this.#rates = rates;
  }

  /** Of a counter, a second; null where it is not known. */
  of(name) {
    return this.#rates.get(name) ?? null;
  }
}

/** When readings were taken, by the daemon's clock. What it writes to the second only is
 * made finer by when it came here, as far as the two agree. */
export class Clock {
  #last = null;

  /** The second of a reading with this `time` that comes now. */
  at(time, now = performance.now() / 1000) {
    const date = moment(time);
    const told = date ? date.getTime() / 1000 : now;
    const fine = !Number.isInteger(told);
    let at = told;
    if (!fine && this.#last !== null) {
      const passed = now - this.#last.now;
      const expected = this.#last.at + passed;
      // Several that come at once are a second apart, as they say.
      if (passed > 0.2 && Math.abs(expected - told) <= 1.2) {
        at = expected;
      }
    }
    this.#last = { at, now };
    return at;
  }

  /** The daemon's time now; null before it said any. */
  now(now = performance.now() / 1000) {
    return this.#last === null ? null : this.#last.at + (now - this.#last.now);
  }
}

/** What passed and was dropped in each of the last seconds, for each direction of each
 * interface. */
export class History {
  #rates = new Rates();
  #samples = [];

  /** Takes the counters of a `stats` event, and its second. */
  take(interfaces, at) {
    const last = this.#samples.at(-1);
    if (last && at <= last.at) {
      if (last.at - at < 2) {
        return;
      }
      // The daemon's clock was set back.
      this.#samples = [];
    }
    const counters = new Map();
    for (const one of interfaces) {
      const side = sideName(one.interface, one.direction);
      counters.set(`dropped ${side}`, one.dropped);
      counters.set(`passed ${side}`, one.passed);
    }
    this.#rates.take(counters, at);
    if (last && at - last.at > GAP) {
      this.#samples.push({ at: last.at + 1, sides: [] });
    }
    const sides = interfaces.map(({ interface: name, direction }) => ({
      name,
      direction,
      dropped: this.#rates.of(`dropped ${sideName(name, direction)}`),
      passed: this.#rates.of(`passed ${sideName(name, direction)}`),
    }));
    this.#samples.push({ at, sides });
    const first = this.#samples.findIndex((sample) => sample.at >= at - WINDOW - 2);
    this.#samples.splice(0, Math.max(0, first));
  }

  /** The rate of one direction of an interface in the last second. */
  now(name, direction, verdict) {
    const sides = this.#samples.at(-1)?.sides ?? [];
    const side = sides.find((one) => one.name === name && one.direction === direction);
    return side ? side[verdict] : null;
  }

  /** Columns to draw: times, dropped and passed a second, of what is in scope. */
  columns(scope) {
    const times = [];
    const dropped = [];
    const passed = [];
    for (const { at, sides } of this.#samples) {
      times.push(at);
      const seen = sides.filter((side) => scope.has(side.name, side.direction));
      dropped.push(sum(seen.map((side) => side.dropped)));
      passed.push(sum(seen.map((side) => side.passed)));
    }
    return [times, dropped, passed];
  }
}

/** The sum of what is known; null where nothing is. */
function sum(rates) {
  const known = rates.filter((rate) => rate !== null);
  return known.length === 0 ? null : known.reduce((a, b) => a + b, 0);
}

/** The last, mean and greatest of a column; null where nothing is known. */
export function summary(column) {
  const known = column.filter((rate) => rate !== null);
  if (known.length === 0) {
    return { now: null, mean: null, peak: null };
  }
  return {
    now: column.at(-1),
    mean: known.reduce((a, b) => a + b, 0) / known.length,
    peak: Math.max(...known),
  };
}
