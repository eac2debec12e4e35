// Who sends what is dropped, and to which ports. Estimates, each with its bound.

import { bar, byId, cells, Rows, setText, setTitle } from "./dom.js";
import { clock, count, counted, grouped, moment, utc } from "./format.js";

export class Top {
  #name;
  #rows;

  /** Shows in the elements whose ids begin with `name`. */
  constructor(name) {
    this.#name = name;
    this.#rows = new Rows(byId(`${name}-body`), rowOf);
  }

  /** Takes a document of `/v1/top`. `sampled`: whether drops are reported at all. */
  take(top, sampled) {
    const items = top.items.map((item) => ({
      key: String(item.key),
      packets: count(item.packets),
      error: count(item.error),
    }));
    const most = Number(items[0]?.packets ?? 0);
    for (const item of items) {
      item.share = most > 0 ? Number(item.packets) / most : 0;
    }
    this.#rows.show(items);
    const none = items.length === 0;
    byId(`${this.#name}-table`).closest(".scroll").hidden = none;
    byId(`${this.#name}-none`).hidden = !none;
    setText(byId(`${this.#name}-none`), nothing(sampled));
    const words = byId(`${this.#name}-bound`);
    const since = moment(top.since);
    setText(words, none ? "" : bound(count(top.error_bound), since));
    setTitle(words, since ? `since ${utc(since)}` : "");
  }
}

function nothing(sampled) {
  return sampled
    ? "Nothing dropped yet."
    : "Dropped packets are not reported (the daemon runs with --sample-drops 0), so nobody knows.";
}

function bound(most, since) {
  const begun = since ? `Since ${clock(since)}, from` : "From";
  const exact =
    Number(most) === 0
      ? "Of those, each count is exact."
      : `Of those, a count is never too low, and too high by ${counted(most, "packet", "packets")} at most.`;
  return `${begun} a sample: each reported drop counts for the dropped packets that it stands for. ${exact}`;
}

/** An empty row, and what fills it. */
function rowOf(row) {
  const [key, packets, error, share] = cells(row, ["code", "number", "number quiet", "share"]);
  const fill = bar("drop");
  share.append(fill.node);
  return (item) => {
    setText(key, item.key);
    setText(packets, grouped(item.packets));
    setText(error, Number(item.error) === 0 ? "0" : `up to ${grouped(item.error)}`);
    fill.set(item.share);
  };
}
