// Numbers, sizes and times as people read them.

// A counter has 64 bits, a number here 53. What has 16 digits or more becomes a
// string, which `count` takes; strings are stepped over, whatever stands in them.
const LONG = /\d{16}/;
const TOKEN = /"[^"\\]*(?:\\.[^"\\]*)*"|-?\d[\d.eE+-]*/g;

/** Reads JSON without rounding its counters. */
export function parse(text) {
  if (!LONG.test(text)) {
    return JSON.parse(text);
  }
  const exact = text.replace(TOKEN, (token) => (/^\d{16,}$/.test(token) ? `"${token}"` : token));
  return JSON.parse(exact);
}

/** A counter of a document that `parse` has read: a number, or a BigInt where that rounds. */
export function count(value) {
  if (typeof value === "string" && /^\d+$/.test(value)) {
    const number = Number(value);
    return Number.isSafeInteger(number) ? number : BigInt(value);
  }
  return typeof value === "number" ? value : 0;
}

/** The sum of two counters, exact. */
export function add(a, b) {
  if (typeof a === "number" && typeof b === "number") {
    const sum = a + b;
    if (Number.isSafeInteger(sum)) {
      return sum;
    }
  }
  return BigInt(a) + BigInt(b);
}

/** How much greater `a` is than `b`, as a number. */
export function minus(a, b) {
  return typeof a === "number" && typeof b === "number" ? a - b : Number(BigInt(a) - BigInt(b));
}

/** An integer with its thousands separated. */
export function grouped(value) {
  return String(value).replace(/\B(?=(\d{3})+$)/g, ",");
}

/** A rate, `–` where it is not known. */
export function perSecond(rate) {
  if (rate === null || rate === undefined) {
    return "–";
  }
  if (rate > 0 && rate < 10) {
    // What is hardly anything is not nothing.
    return rate < 0.05 ? "<0.1" : rate.toFixed(1).replace(/\.0$/, "");
  }
  return grouped(Math.round(rate));
}

/** A rate for the axis of a plot, in four characters or so. */
export function brief(rate) {
  for (const [unit, letter] of [
    [1e9, "G"],
    [1e6, "M"],
    [1e3, "k"],
  ]) {
    if (rate >= unit) {
      return `${Number((rate / unit).toPrecision(3))}${letter}`;
    }
  }
  return String(Number(rate.toPrecision(3)));
}

/** Bytes in the unit that fits. */
export function size(bytes) {
  let value = Number(bytes);
  let unit = "B";
  for (const next of ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"]) {
    if (value < 1024) {
      break;
    }
    value /= 1024;
    unit = next;
  }
  return unit === "B" ? `${value} B` : `${value < 10 ? value.toFixed(1) : grouped(Math.round(value))} ${unit}`;
}

/** `1 packet`, `2,000 packets`. */
export function counted(value, one, many) {
  return `${grouped(value)} ${Number(value) === 1 ? one : many}`;
}

/** How long, in words, to what matters. */
export function duration(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) {
    return `${whole} s`;
  }
  if (whole < 3600) {
    return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  }
  return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
}

const CLOCK = new Intl.DateTimeFormat("en-GB", { timeStyle: "medium" });
const DAY = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short" });

/** Local time of the day. */
export function timeOfDay(date) {
  return CLOCK.format(date);
}

/** The same, with the day where it is not today. */
export function clock(date) {
  const text = CLOCK.format(date);
  return date.toDateString() === new Date().toDateString() ? text : `${DAY.format(date)} ${text}`;
}

/** The same moment in UTC, for a title. */
export function utc(date) {
  return date.toISOString().replace("T", " ").replace(/(\.000)?Z$/, " UTC");
}

/** The moment that RFC 3339 text says; null where it says none. */
export function moment(text) {
  const date = new Date(text ?? NaN);
  return Number.isNaN(date.getTime()) ? null : date;
}
