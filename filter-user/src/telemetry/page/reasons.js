// Why packets were dropped, and why they passed.

import { bar, byId, cells, Rows, setText, setTitle } from "./dom.js";
import { add, count, counted, grouped, perSecond, size } from "./format.js";
import { Rates } from "./rates.js";

/** What a reason means, for who points at it. */
const MEANINGS = {
  policy_deny: "a deny rule decided",
  default_deny: "no rule decided, the default is deny",
  malformed: "a header contradicts itself or the frame",
  tiny_fragment: "a first fragment without its whole L4 header",
  fragment: "a later fragment that a rule with ports could match",
  unreadable_l4: "the L4 header is missing, and a rule with ports could match",
  ipv6_extension: "a chain of IPv6 extension headers that is too long, forbidden or cut",
  vlan_depth: "more than two VLAN tags",
  encapsulated: "IP in LLC/SNAP, PPPoE or MPLS",
  internal: "a look-up that must succeed failed; never expected",
  policy_allow: "an allow rule decided",
  failsafe: "a failsafe port",
  essential: "ARP, neighbour discovery, DHCP and the like, under default deny",
  established: "return traffic of a known flow",
  default_allow: "no rule decided, the default is allow",
  not_ip: "not IP, so not subject to rules",
};

export class Reasons {
  #scope;
  #rates = new Rates();
  #all = [];
  #rows;

  constructor(scope) {
    this.#scope = scope;
    this.#rows = {
      drop: new Rows(byId("reasons-drop"), (row) => rowOf(row, "drop")),
      pass: new Rows(byId("reasons-pass"), (row) => rowOf(row, "pass")),
    };
  }

  /** Takes the document of `/v1/stats`, and its second. */
  take(stats, at, gap) {
    const counters = new Map();
    this.#all = [];
    for (const side of stats.interfaces) {
      for (const reason of side.reasons) {
        const one = {
          interface: side.interface,
          direction: side.direction,
          reason: reason.reason ?? "",
          verdict: reason.verdict === "drop" ? "drop" : "pass",
          packets: count(reason.packets),
          bytes: count(reason.bytes),
        };
        one.identity = JSON.stringify([one.interface, one.direction, one.reason, one.verdict]);
        counters.set(one.identity, one.packets);
        this.#all.push(one);
      }
    }
    this.#rates.take(counters, at, gap);
    this.show();
  }

  /** Shows those in scope, directions and interfaces summed up. */
  show() {
    for (const verdict of ["drop", "pass"]) {
      const sums = new Map();
      for (const one of this.#all) {
        if (one.verdict !== verdict || !this.#scope.has(one.interface, one.direction)) {
          continue;
        }
        const sum = sums.get(one.reason) ?? { reason: one.reason, packets: 0, bytes: 0, rate: null };
        const rate = this.#rates.of(one.identity);
        sum.packets = add(sum.packets, one.packets);
        sum.bytes = add(sum.bytes, one.bytes);
        sum.rate = rate === null ? sum.rate : (sum.rate ?? 0) + rate;
        sums.set(one.reason, sum);
      }
      const seen = [...sums.values()].filter((sum) => Number(sum.packets) > 0);
      seen.sort((a, b) => (a.packets > b.packets ? -1 : a.packets < b.packets ? 1 : 0));
      const total = seen.reduce((all, sum) => add(all, sum.packets), 0);
      for (const sum of seen) {
        sum.share = Number(sum.packets) / Number(total);
      }
      this.#rows[verdict].show(seen);
      byId(`reasons-${verdict}-none`).hidden = seen.length > 0;
      setText(byId(`reasons-${verdict}-total`), grouped(total));
    }
  }
}

/** An empty row, and what fills it. */
function rowOf(row, kind) {
  const [name, packets, rate, share] = cells(row, ["code", "number", "number", "share"]);
  const fill = bar(kind);
  const words = document.createElement("span");
  words.className = "percent";
  share.append(fill.node, words);
  return (sum) => {
    setText(name, sum.reason);
    setTitle(name, MEANINGS[sum.reason]);
    setText(packets, grouped(sum.packets));
    setTitle(packets, `${size(sum.bytes)} (${counted(sum.bytes, "byte", "bytes")})`);
    setText(rate, perSecond(sum.rate));
    fill.set(sum.share);
    setText(words, percent(sum.share));
  };
}

function percent(share) {
  const hundredth = share * 100;
  return hundredth > 0 && hundredth < 1 ? "<1 %" : `${Math.round(hundredth)} %`;
}
