// The head of the page, and what must not be overlooked.

import { byId, setClass, setText, setTime, setTitle } from "./dom.js";
import { clock, count, counted, duration, grouped, moment, utc } from "./format.js";

/** Shows the document of `/v1/status`. */
export function showStatus(status) {
  const { daemon } = status;
  setText(byId("node"), status.node ?? "this node");
  const ready = byId("ready");
  setText(ready, status.ready ? "ready" : "not ready");
  setClass(ready, `chip ${status.ready ? "good" : "bad"}`);

  setText(byId("generation"), generations(status.interfaces));
  setTitle(
    byId("generation"),
    status.interfaces.map((one) => `${one.interface}: generation ${one.generation}`).join("\n"),
  );
  setText(byId("version"), status.version ?? "");
  showReload(daemon);
  showTrouble(status);
  const sampling = Number(count(daemon?.sample_drops));
  setText(
    byId("sampling"),
    sampling === 0
      ? "Drops are not reported."
      : `A sample: up to ${grouped(sampling)} drops a second for each CPU and direction.`,
  );
}

/** One number where all are at the same, else from the least to the greatest. */
function generations(interfaces) {
  const all = interfaces.map((one) => Number(one.generation ?? 0));
  if (all.length === 0) {
    return "none";
  }
  const [least, greatest] = [Math.min(...all), Math.max(...all)];
  return least === greatest ? grouped(least) : `${grouped(least)} to ${grouped(greatest)}`;
}

function showReload(daemon) {
  const words = byId("reload");
  const result = byId("reload-result");
  const attempt = moment(daemon?.last_attempt);
  const error = daemon?.last_error ?? null;
  words.hidden = attempt === null;
  if (attempt) {
    setTime(words, attempt, clock(attempt), utc(attempt));
  }
  setText(result, attempt === null ? "none yet" : error ? "failed" : "succeeded");
  setClass(result, attempt === null ? "quiet" : `chip ${error ? "bad" : "good"}`);
  const reloads = daemon?.reloads ?? {};
  const success = moment(daemon?.last_success);
  setTitle(
    result,
    `${counted(count(reloads.success), "success", "successes")}, ${counted(count(reloads.failure), "failure", "failures")}${success ? `; last success ${clock(success)} (${utc(success)})` : ""}`,
  );
}

/** Says why the daemon is not ready, and how the last reload failed. */
function showTrouble(status) {
  const error = status.daemon?.last_error ?? null;
  const words = [];
  if (!status.ready) {
    const reason = status.not_ready ?? "no reason given";
    // The error is shown below.
    const told = error?.message && reason.includes(error.message);
    words.push(told ? "Not ready." : `Not ready: ${reason}.`);
  }
  if (error) {
    const at = moment(error.time);
    words.push(`The last reload failed${at ? ` at ${clock(at)}` : ""}; what was in force stays in force.`);
  }
  notice("trouble", words.length > 0 ? words.join(" ") : null, error?.message ?? "");
}

/** Shows how the page is connected: "live", "silent" (connected, and nothing comes) or "lost";
 * since when, and why where the daemon says so. */
export function showConnection(state, since, why = "") {
  const words = byId("connection-words");
  const passed = since ? duration((Date.now() - since.getTime()) / 1000) : "";
  setText(
    words,
    {
      connecting: "connecting…",
      live: "live",
      silent: `nothing heard for ${passed}`,
      lost: "reconnecting…",
    }[state],
  );
  setClass(byId("connection"), `connection ${state}`);
  setClass(document.body, state === "lost" ? "lost" : "");
  notice(
    "disconnected",
    state === "lost" && since
      ? `Disconnected since ${clock(since)} (${passed}). What is shown is from then; the page goes on by itself.${why ? ` The daemon says: ${why}` : ""}`
      : null,
  );
  const node = byId("node").textContent;
  document.title = `${state === "lost" ? "Disconnected: " : ""}${node} – nodewall`;
}

/** Shows a notice, or takes it away where there are no words; `detail` is shown as it is. */
export function notice(id, words, detail = "") {
  const node = byId(`notice-${id}`);
  if (words === null) {
    node.hidden = true;
    return;
  }
  setText(node.querySelector(".words"), words);
  const pre = node.querySelector("pre");
  if (pre) {
    setText(pre, detail);
    pre.hidden = detail === "";
  }
  node.hidden = false;
}
