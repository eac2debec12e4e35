// The interfaces that are filtered, a row for each direction.

import { bar, byId, cells, element, Rows, setClass, setText, setTitle } from "./dom.js";
import { clock, count, counted, grouped, moment, perSecond, size, utc } from "./format.js";

export class Interfaces {
  #history;
  #rows;
  #sides = [];

  constructor(history) {
    this.#history = history;
    this.#rows = new Rows(byId("interfaces-body"), rowOf);
  }

  /** Takes the document of `/v1/status`. */
  take(status) {
    this.#sides = [];
    for (const one of status.interfaces) {
      this.#sides.push({
        interface: one.interface,
        direction: "ingress",
        first: true,
        one,
        at: one.mode ?? null,
        counts: one,
        flows: one.flows?.ingress,
      });
      this.#sides.push({
        interface: one.interface,
        direction: "egress",
        first: false,
        one,
        at: one.egress?.hook ?? null,
        counts: one.egress,
        flows: one.flows?.egress,
      });
    }
    this.show();
  }

  /** Shows them, with the rates of now. */
  show() {
    for (const side of this.#sides) {
      side.dropped = this.#history.now(side.interface, side.direction, "dropped");
      side.passed = this.#history.now(side.interface, side.direction, "passed");
    }
    this.#rows.show(this.#sides);
    byId("interfaces-table").hidden = this.#sides.length === 0;
    byId("interfaces-none").hidden = this.#sides.length > 0;
  }
}

/** An empty row, and what fills it. */
function rowOf(row) {
  const [name, direction, at, fallback, rules, passed, passedRate, dropped, droppedRate, flows, generation, memory] =
    cells(row, [
      "name",
      "quiet",
      "",
      "",
      "number",
      "number",
      "number",
      "number",
      "number",
      "flows",
      "number",
      "number quiet",
    ]);
  const chip = element("span");
  at.append(chip);
  const ends = element("span");
  fallback.append(ends);
  const fill = bar("plain");
  const words = element("span", "percent");
  flows.append(fill.node, words);
  return (side) => {
    const { one, counts } = side;
    setText(name, side.interface);
    setText(direction, side.direction);
    setClass(row, side.first ? "first" : "second");
    if (side.first) {
      setText(chip, side.at ?? "gone");
      setTitle(chip, side.at === null ? "The device is gone; its filter waits for it." : "");
      setClass(chip, side.at === null ? "chip drop" : "chip plain");
    } else {
      setText(chip, side.at ?? "not filtered");
      setTitle(chip, "");
      setClass(chip, side.at === null ? "quiet" : "chip plain");
    }
    const action = counts?.default ?? "";
    setText(ends, action);
    setClass(ends, action === "" ? "" : `chip ${action === "deny" ? "drop" : "pass"}`);
    setText(rules, counts ? grouped(count(counts.rules)) : "");
    number(passed, counts?.passed);
    setText(passedRate, counts ? perSecond(side.passed) : "");
    number(dropped, counts?.dropped);
    setText(droppedRate, counts ? perSecond(side.dropped) : "");
    const most = count(side.flows?.max_entries);
    fill.node.hidden = Number(most) === 0;
    if (Number(most) === 0) {
      setText(words, counts ? "none kept" : "");
      setTitle(flows, "");
    } else {
      const entries = count(side.flows.entries);
      fill.set(Number(entries) / Number(most));
      setText(words, `${grouped(entries)} of ${grouped(most)}`);
      setTitle(
        flows,
        `begun here: ${grouped(count(side.flows.inserts))} in all, ${counted(count(side.flows.hits), "packet", "packets")} passed for their sake, ${grouped(count(side.flows.evictions))} pushed out, ${grouped(count(side.flows.refused))} refused`,
      );
    }
    const since = moment(one.since);
    setText(generation, side.first ? grouped(one.generation) : "");
    setTitle(generation, side.first && since ? `since ${clock(since)} (${utc(since)})` : "");
    setText(memory, side.first ? size(count(one.memory?.maps_bytes)) : "");
  };
}

function number(cell, pair) {
  setText(cell, pair ? grouped(count(pair.packets)) : "");
  setTitle(cell, pair ? `${size(count(pair.bytes))} (${counted(count(pair.bytes), "byte", "bytes")})` : "");
}
