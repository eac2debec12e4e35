// Every rule in force, with its exact counters.

import { byId, cells, element, Rows, setClass, setText, setTitle } from "./dom.js";
import { count, counted, grouped, perSecond, size } from "./format.js";
import { Rates } from "./rates.js";

/** Rows at most: a page with ten thousand answers nobody. */
const SHOWN = 200;

/** How rules are ordered by each column; greater counters first, texts from A. */
const ORDERS = {
  policy: (a, b) => compare(a.policy, b.policy) || a.place - b.place,
  rule: (a, b) => (a.rule ?? -1) - (b.rule ?? -1) || a.place - b.place,
  side: (a, b) => compare(a.side, b.side) || a.place - b.place,
  stage: (a, b) => compare(a.stage, b.stage) || a.place - b.place,
  action: (a, b) => compare(a.action, b.action) || a.place - b.place,
  packets: (a, b) => compare(a.packets, b.packets) || b.place - a.place,
  bytes: (a, b) => compare(a.bytes, b.bytes) || b.place - a.place,
  rate: (a, b) => compare(a.rate ?? -1, b.rate ?? -1) || compare(a.packets, b.packets) || b.place - a.place,
};
const GREATEST_FIRST = new Set(["packets", "bytes", "rate"]);

function compare(a, b) {
  return a < b ? -1 : a > b ? 1 : 0;
}

/** The name of a rule that it keeps over changes of the policy. */
function identity(rule) {
  const { interface: name, direction, stage, policy, rule: index, staged } = rule;
  return JSON.stringify([name, direction, stage, policy, index, staged]);
}

/** How an action is coloured. */
function kindOf(action) {
  return { deny: "drop", allow: "pass" }[action] ?? "plain";
}

export class Rules {
  #scope;
  #rates = new Rates();
  #all = [];
  #words = new Map();
  #order = "packets";
  #descending = true;
  #rows;
  #filter = byId("rules-filter");
  #never = byId("rules-never");

  constructor(scope) {
    this.#scope = scope;
    this.#rows = new Rows(byId("rules-body"), rowOf);
    this.#filter.addEventListener("input", () => this.show());
    this.#never.addEventListener("change", () => this.show());
    for (const button of document.querySelectorAll("#rules button[data-order]")) {
      button.addEventListener("click", () => this.#sort(button.dataset.order));
    }
  }

  /** How many rules there are. */
  get count() {
    return this.#all.length;
  }

  /** Takes the document of `/v1/stats`, and its second. */
  take(stats, at, gap) {
    const one = new Set(stats.interfaces.map((side) => side.interface)).size === 1;
    const counters = new Map();
    this.#all = [];
    for (const side of stats.interfaces) {
      for (const told of side.rules) {
        const rule = {
          place: this.#all.length,
          interface: side.interface,
          direction: side.direction,
          side: one ? side.direction : `${side.interface} ${side.direction}`,
          stage: told.stage ?? "",
          policy: told.policy ?? "",
          rule: told.rule,
          action: told.action ?? "",
          staged: told.staged === true,
          packets: count(told.packets),
          bytes: count(told.bytes),
        };
        rule.identity = identity(rule);
        counters.set(rule.identity, rule.packets);
        this.#all.push(rule);
      }
    }
    this.#rates.take(counters, at, gap);
    for (const rule of this.#all) {
      rule.rate = this.#rates.of(rule.identity);
    }
    this.show();
  }

  /** Takes the document of `/v1/rules`: what each rule matches, in words. */
  describe(document) {
    this.#words = new Map(document.rules.map((rule) => [identity(rule), rule.match ?? ""]));
    this.show();
  }

  #sort(order) {
    this.#descending = order === this.#order ? !this.#descending : GREATEST_FIRST.has(order);
    this.#order = order;
    for (const button of document.querySelectorAll("#rules button[data-order]")) {
      const heading = button.closest("th");
      if (button.dataset.order === order) {
        heading.setAttribute("aria-sort", this.#descending ? "descending" : "ascending");
      } else {
        heading.removeAttribute("aria-sort");
      }
    }
    this.show();
  }

  /** Shows the rules that are in scope and chosen. */
  show() {
    const wanted = this.#filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    const inScope = this.#all.filter((rule) => this.#scope.has(rule.interface, rule.direction));
    const never = inScope.filter((rule) => Number(rule.packets) === 0).length;
    const chosen = inScope.filter((rule) => {
      if (this.#never.checked && Number(rule.packets) !== 0) {
        return false;
      }
      if (wanted.length === 0) {
        return true;
      }
      const words = this.#words.get(rule.identity) ?? "";
      const staged = rule.staged ? "staged" : "";
      const text = `${rule.policy} ${rule.rule ?? "default"} ${rule.side} ${rule.stage} ${rule.action} ${staged} ${words}`.toLowerCase();
      return wanted.every((word) => text.includes(word));
    });
    chosen.sort(ORDERS[this.#order]);
    if (this.#descending) {
      chosen.reverse();
    }
    const shown = chosen.slice(0, SHOWN);
    for (const rule of shown) {
      rule.words = this.#words.get(rule.identity) ?? "";
    }
    this.#rows.show(shown);
    byId("rules-table").hidden = shown.length === 0;
    setText(byId("rules-status"), this.#status(inScope.length, never, chosen.length, shown.length));
  }

  #status(all, never, chosen, shown) {
    if (all === 0) {
      return "No rules are in force.";
    }
    const known = `${counted(all, "rule", "rules")} in force, ${grouped(never)} never hit.`;
    if (chosen === 0) {
      return `${known} None is chosen by the filter.`;
    }
    if (shown < chosen) {
      return `${known} ${grouped(shown)} shown, ${grouped(chosen - shown)} more: a filter finds them.`;
    }
    return chosen < all ? `${known} ${grouped(chosen)} chosen.` : known;
  }
}

/** An empty row, and what fills it. */
function rowOf(row) {
  const [policy, index, action, packets, rate, bytes, side, stage, match] = cells(row, [
    "name",
    "number",
    "",
    "number",
    "number rate",
    "number quiet",
    "quiet",
    "quiet",
    "quiet",
  ]);
  const chip = element("span");
  const staged = element("span", "tag", "staged");
  action.append(chip, staged);
  return (rule) => {
    setText(policy, rule.policy);
    setTitle(policy, rule.policy);
    setText(index, rule.rule === null || rule.rule === undefined ? "default" : String(rule.rule));
    setText(side, rule.side);
    setText(stage, rule.stage);
    setText(chip, rule.action);
    setClass(chip, `chip ${kindOf(rule.action)}`);
    staged.hidden = !rule.staged;
    setText(match, rule.words);
    setTitle(match, rule.words);
    const never = Number(rule.packets) === 0;
    setClass(packets, never ? "number never" : "number");
    setText(packets, never ? "never hit" : grouped(rule.packets));
    setText(bytes, never ? "" : size(rule.bytes));
    setTitle(bytes, never ? "" : counted(rule.bytes, "byte", "bytes"));
    setText(rate, perSecond(rule.rate));
    row.classList.toggle("hot", rule.rate > 0);
  };
}
