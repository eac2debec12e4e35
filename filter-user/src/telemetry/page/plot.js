// What was dropped and what passed in each of the last seconds: two plots over the same time,
// each with its own scale, since one is often a thousand times the other.

import { brief, clock, perSecond, utc } from "./format.js";
import { WINDOW } from "./rates.js";

const VERDICTS = ["dropped", "passed"];

function sizeOf(holder) {
  return { width: Math.max(160, holder.clientWidth), height: Math.max(100, holder.clientHeight) };
}

export class Plots {
  #plots;
  #pointed;
  #colours = {};
  #columns = [[], [], []];

  /** Draws into `holders` (of dropped and passed); `pointed` says what is pointed at. */
  constructor(holders, pointed) {
    this.#pointed = pointed;
    this.#readColours();
    this.#plots = VERDICTS.map((verdict, place) => this.#make(verdict, holders[place], place));
    const resized = new ResizeObserver(() => {
      this.#plots.forEach((plot, place) => {
        plot.setSize(sizeOf(holders[place]));
      });
    });
    holders.forEach((holder) => resized.observe(holder));
  }

  /** Shows columns of times, dropped and passed, up to `now`. */
  show(columns, now) {
    this.#columns = columns;
    const [times, ...rates] = columns;
    this.#plots.forEach((plot, place) => {
      plot.batch(() => {
        plot.setData([times, rates[place]], false);
        plot.setScale("x", { min: now - WINDOW, max: now });
      });
    });
  }

  /** Takes the colours of the page's theme. */
  recolour() {
    this.#readColours();
    this.#plots.forEach((plot) => plot.redraw(false, false));
  }

  #readColours() {
    // A canvas knows no variables of the style sheet: they are asked of elements.
    const of = (selector) => getComputedStyle(document.querySelector(selector)).color;
    this.#colours = {
      dropped: of(".ink-drop"),
      passed: of(".ink-pass"),
      droppedFill: of(".ink-drop-fill"),
      passedFill: of(".ink-pass-fill"),
      grid: of(".ink-grid"),
      text: of(".ink-text"),
    };
  }

  #make(verdict, holder, place) {
    const font = `12px ${getComputedStyle(holder).fontFamily}`;
    const axis = {
      font,
      stroke: () => this.#colours.text,
      grid: { stroke: () => this.#colours.grid, width: 1 },
      ticks: { show: false },
    };
    const two = (number) => String(number).padStart(2, "0");
    const options = {
      ...sizeOf(holder),
      legend: { show: false },
      padding: [8, 20, 0, 0],
      cursor: {
        sync: { key: "rates" },
        drag: { x: false, y: false },
        points: { size: 7 },
      },
      scales: {
        x: { time: true },
        y: { range: (_, __, max) => [0, Math.max(1, (max ?? 0) * 1.1)] },
      },
      axes: [
        {
          ...axis,
          space: 60,
          size: 26,
          values: (_, splits) =>
            splits.map((second) => {
              const date = new Date(second * 1000);
              return `${two(date.getHours())}:${two(date.getMinutes())}${date.getSeconds() ? `:${two(date.getSeconds())}` : ""}`;
            }),
        },
        { ...axis, space: 32, size: 52, values: (_, splits) => splits.map(brief) },
      ],
      series: [
        {},
        {
          stroke: () => this.#colours[verdict],
          fill: () => this.#colours[`${verdict}Fill`],
          width: 1.5,
          // Told apart without colours too.
          dash: verdict === "passed" ? [5, 3] : undefined,
          points: { show: false },
          spanGaps: false,
        },
      ],
      hooks: { setCursor: [(plot) => place === 0 && this.#point(plot.cursor.idx)] },
    };
    return new globalThis.uPlot(options, [[], []], holder);
  }

  #point(index) {
    const [times, dropped, passed] = this.#columns;
    const at = index === null || index === undefined ? undefined : times[index];
    if (at === undefined) {
      this.#pointed("", "");
      return;
    }
    const date = new Date(at * 1000);
    this.#pointed(
      `${clock(date)}: ${perSecond(dropped[index])} dropped, ${perSecond(passed[index])} passed a second`,
      utc(date),
    );
  }
}
