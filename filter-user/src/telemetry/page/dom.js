// What is shown comes from the network, names and addresses too: it is put into the
// page as text, never as markup.

/** The element of this id. */
export function byId(id) {
  return document.getElementById(id);
}

/** A new element with classes, and text or elements in it. */
export function element(name, classes, ...children) {
  const node = document.createElement(name);
  if (classes) {
    node.className = classes;
  }
  node.append(...children);
  return node;
}

/** Sets an element's text; what is so already is left alone, and a selection in it. */
export function setText(node, text) {
  if (node.textContent !== text) {
    node.textContent = text;
  }
}

/** Sets an element's classes. */
export function setClass(node, classes) {
  if (node.className !== classes) {
    node.className = classes;
  }
}

/** Sets an element's title, or takes it away. */
export function setTitle(node, title) {
  if (!title) {
    node.removeAttribute("title");
  } else if (node.title !== title) {
    node.title = title;
  }
}

/** Shows a moment: as `words`, in full and in UTC when pointed at. */
export function setTime(node, date, words, utc) {
  setText(node, words);
  setTitle(node, utc);
  node.dateTime = date.toISOString();
}

/** A bar that fills a share of its cell; for the eye alone. */
export function bar(kind) {
  const fill = element("span", `fill ${kind}`);
  const whole = element("span", "bar", fill);
  whole.setAttribute("aria-hidden", "true");
  return {
    node: whole,
    set(share) {
      fill.style.width = `${Math.round(Math.min(1, Math.max(0, share)) * 1000) / 10}%`;
    },
  };
}

/** The rows of a table's body: kept, and filled anew. `make` makes an empty row and returns
 * what fills it with an item. */
export class Rows {
  #body;
  #make;
  #rows = [];

  constructor(body, make) {
    this.#body = body;
    this.#make = make;
  }

  show(items) {
    while (this.#rows.length < items.length) {
      const row = document.createElement("tr");
      this.#rows.push({ row, fill: this.#make(row) });
      this.#body.append(row);
    }
    for (const { row } of this.#rows.splice(items.length)) {
      row.remove();
    }
    items.forEach((item, place) => this.#rows[place].fill(item));
  }
}

/** Empty cells for a row, of these classes; the one at `heading` heads the row. */
export function cells(row, classes, heading = 0) {
  return classes.map((name, place) => {
    const cell = document.createElement(place === heading ? "th" : "td");
    if (place === heading) {
      cell.scope = "row";
    }
    if (name) {
      cell.className = name;
    }
    row.append(cell);
    return cell;
  });
}
