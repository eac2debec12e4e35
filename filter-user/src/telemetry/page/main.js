// The dashboard: what comes from the daemon, and to whom it goes.
//
// `stats` events make the plots and come each second; the documents of all totals, of what
// is in force and of who is dropped most are asked for again and again while somebody looks.

import { byId, setText } from "./dom.js";
import { add, count, grouped, parse, perSecond } from "./format.js";
import { notice, showConnection, showStatus } from "./head.js";
import { Interfaces } from "./interfaces.js";
import { wire } from "./keys.js";
import { Log } from "./log.js";
import { Plots } from "./plot.js";
import { Clock, History, summary } from "./rates.js";
import { Reasons } from "./reasons.js";
import { Rules } from "./rules.js";
import { Scope } from "./scope.js";
import { Stream } from "./stream.js";
import { Top } from "./top.js";

/** Milliseconds that an answer may take. */
const PATIENCE = 8000;
/** Rules up to which their words are asked for: they are most of a large document. */
const DESCRIBED = 2000;
/** Seconds between two looks at what changes slowly. */
const SLOWLY = 2;
/** Seconds without a word after which the page says so. */
const QUIET = 4;

const announce = (words) => setText(byId("announce"), words);

const scope = new Scope(byId("scope"), () => {
  log.choose();
  rules.show();
  reasons.show();
  drawTotals();
  drawRates();
  announce(`Showing ${scope.words()}.`);
});
const history = new History();
const clock = new Clock();
const statsClock = new Clock();
const log = new Log(scope, announce);
const rules = new Rules(scope);
const reasons = new Reasons(scope);
const sources = new Top("sources");
const ports = new Top("ports");
const interfaces = new Interfaces(history);
const plots = new Plots([byId("plot-dropped"), byId("plot-passed")], (words, utc) => {
  setText(byId("pointed"), words);
  byId("pointed").title = utc;
});

let sampled = true;
let inForce = "";
let described = false;
let totals = [];
let started = null;
let connection = "connecting";
let heardAt = null;
let heard = null;
let why = "";

/** Asks the daemon for a document. */
async function ask(path) {
  const answer = await fetch(path, { cache: "no-store", signal: AbortSignal.timeout(PATIENCE) });
  const text = await answer.text();
  if (!answer.ok) {
    throw new Error(`${path}: ${answer.status} ${text}`);
  }
  return parse(text);
}

async function askStatus() {
  const status = await ask("v1/status");
  showStatus(status);
  scope.offer(
    status.interfaces.map((one) => [one.interface, one.egress ? ["ingress", "egress"] : ["ingress"]]),
  );
  interfaces.take(status);
  sampled = Number(count(status.daemon?.sample_drops)) > 0;
  log.sampled = sampled;
  byId("none-in-force").hidden = status.interfaces.length > 0;
  byId("in-force").hidden = status.interfaces.length === 0;
  const now = status.interfaces.map((one) => `${one.interface} ${one.generation} ${one.program_id}`).join();
  if (now !== inForce) {
    inForce = now;
    // Other rules: their words are asked for when it is known how many there are.
    described = false;
  }
  return status;
}

async function askStats() {
  const stats = await ask("v1/stats");
  const at = statsClock.at(stats.time);
  const gap = 2 * between() + 4;
  rules.take(stats, at, gap);
  reasons.take(stats, at, gap);
  if (!described && rules.count <= DESCRIBED) {
    rules.describe(await ask("v1/rules"));
    described = true;
  }
}

/** Seconds between two looks at the counters: more where there are thousands of rules. */
function between() {
  return Math.min(5, Math.max(1, rules.count / 1000));
}

async function askTops() {
  sources.take(await ask("v1/top?by=src&n=10"), sampled);
  ports.take(await ask("v1/top?by=dport&n=10"), sampled);
}

/** Calls `action` again and again, `seconds()` after it is done, while somebody looks and the
 * daemon is there. Returns what calls it at once. */
function again(action, seconds) {
  let timer = null;
  let busy = false;
  const turn = async () => {
    clearTimeout(timer);
    if (busy) {
      return;
    }
    busy = true;
    const begun = performance.now();
    if (!document.hidden && connection !== "lost" && connection !== "connecting") {
      try {
        await action();
      } catch (error) {
        // The stream says when the daemon is gone. This was one answer.
        console.warn(String(error));
      }
    }
    busy = false;
    // Large answers are asked for less often.
    timer = setTimeout(turn, Math.max(seconds() * 1000, (performance.now() - begun) * 4));
  };
  return turn;
}

const turns = [
  again(askStats, between),
  again(askStatus, () => SLOWLY),
  again(askTops, () => SLOWLY),
];

function lookNow() {
  turns.forEach((turn) => turn());
}

function drawRates() {
  const columns = history.columns(scope);
  const now = clock.now();
  if (now === null) {
    return;
  }
  if (!document.hidden) {
    plots.show(columns, now);
  }
  const live = connection === "live";
  for (const [verdict, column] of [
    ["dropped", columns[1]],
    ["passed", columns[2]],
  ]) {
    const { now: last, mean, peak } = summary(column);
    setText(byId(`${verdict}-now`), perSecond(live ? last : null));
    setText(byId(`${verdict}-mean`), perSecond(mean));
    setText(byId(`${verdict}-peak`), perSecond(peak));
  }
}

function drawTotals() {
  for (const verdict of ["dropped", "passed"]) {
    const seen = totals.filter((one) => scope.has(one.interface, one.direction));
    setText(byId(`${verdict}-total`), grouped(seen.reduce((sum, one) => add(sum, one[verdict]), 0)));
  }
}

const EVENTS = {
  stats(text) {
    const event = parse(text);
    totals = event.interfaces.map((one) => ({
      interface: one.interface,
      direction: one.direction,
      dropped: count(one.dropped?.packets),
      passed: count(one.passed?.packets),
    }));
    history.take(totals, clock.at(event.time));
    log.lost = count(event.events_lost);
    drawTotals();
    drawRates();
    interfaces.show();
  },
  policy(text) {
    const event = parse(text);
    announce(
      event.result === "success"
        ? "The policy was reloaded."
        : `The reload of the policy failed: ${event.message ?? ""}`,
    );
    lookNow();
  },
};

function changeConnection(state) {
  if (state === connection) {
    return;
  }
  const before = connection;
  connection = state;
  if (state === "lost" && heardAt === null) {
    heardAt = new Date();
  }
  showConnection(state, heardAt, why);
  drawRates();
  if (state === "lost") {
    announce("Disconnected from the daemon.");
  } else if (before === "lost") {
    announce("Connected again.");
  }
  if (state === "live" && before !== "silent") {
    lookNow();
  }
}

const stream = new Stream({
  async prepare() {
    const status = await askStatus();
    const daemon = `${status.daemon?.pid} ${status.daemon?.started}`;
    if (started !== null && started !== daemon) {
      checkAssets(status.version);
    }
    started = daemon;
    version ??= status.version;
    return daemon;
  },
  event(type, text) {
    heard = performance.now();
    heardAt = new Date();
    changeConnection("live");
    if (type === "stats" || type === "policy") {
      EVENTS[type](text);
    } else {
      log.take(type, text);
    }
  },
  state(state, reason = "") {
    why = reason;
    if (state === "live") {
      heard = performance.now();
      heardAt = new Date();
    }
    changeConnection(state);
  },
});

// A daemon of another version may speak otherwise than this page understands.

let version = null;
let tags = null;

/** The tags of the files that this page is made of. */
async function readTags() {
  const files = performance
    .getEntriesByType("resource")
    .map((entry) => new URL(entry.name))
    .filter((url) => url.pathname.includes("/assets/"))
    .map((url) => url.href);
  const found = [];
  for (const file of [location.pathname, ...new Set(files)]) {
    const answer = await fetch(file, {
      method: "HEAD",
      cache: "no-store",
      signal: AbortSignal.timeout(PATIENCE),
    });
    found.push(`${file} ${answer.status} ${answer.headers.get("etag")}`);
  }
  return found.join("\n");
}

async function checkAssets(now) {
  let changed = version !== null && now !== version;
  if (!changed && tags !== null) {
    try {
      changed = (await readTags()) !== tags;
    } catch {
      // Gone again: the next start is looked at.
    }
  }
  if (changed) {
    notice("new-version", `The daemon was replaced (version ${now}); this page is of the one before.`);
    announce("The daemon has another page now. Reload it.");
  }
}

wire({
  pause: () => log.toggle(),
  recolour: () => plots.recolour(),
  announce,
});
for (const button of document.querySelectorAll("button[data-reload]")) {
  button.addEventListener("click", () => location.reload());
}
byId("retry").addEventListener("click", () => stream.retry());
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) {
    lookNow();
    stream.retry();
    drawRates();
  }
});
setInterval(() => {
  if (connection === "live" && heard !== null && (performance.now() - heard) / 1000 > QUIET) {
    changeConnection("silent");
  }
  if (connection !== "live") {
    showConnection(connection, heardAt, why);
    drawRates();
  }
}, 1000);

stream.open();
readTags().then(
  (read) => {
    tags = read;
  },
  () => {},
);
