// What the reader looks at: all of the node, one interface, or one direction of it.

const BETWEEN = " ";

/** The name of one direction of an interface. Interfaces have no blanks in their names. */
export function sideName(interfaceName, direction) {
  return interfaceName + BETWEEN + direction;
}

/** The choice of a `<select>`, and whom to tell when it changes. */
export class Scope {
  #select;
  #sides = "";

  constructor(select, changed) {
    this.#select = select;
    select.addEventListener("change", changed);
  }

  /** Whether this direction of this interface is looked at. */
  has(interfaceName, direction) {
    const chosen = this.#select.value;
    return chosen === "" || chosen === interfaceName || chosen === sideName(interfaceName, direction);
  }

  /** In words. */
  words() {
    return this.#select.value || "all interfaces";
  }

  /** Offers these interfaces, each with its directions. */
  offer(sides) {
    const names = JSON.stringify(sides);
    if (names === this.#sides) {
      return;
    }
    this.#sides = names;
    const chosen = this.#select.value;
    const options = [new Option("All interfaces", "")];
    for (const [name, directions] of sides) {
      options.push(new Option(name, name));
      if (directions.length > 1) {
        for (const direction of directions) {
          options.push(new Option(`${name} ${direction}`, sideName(name, direction)));
        }
      }
    }
    // One that is gone for a moment is not given up.
    if (chosen !== "" && !options.some((option) => option.value === chosen)) {
      options.push(new Option(`${chosen} (gone)`, chosen));
    }
    this.#select.replaceChildren(...options);
    this.#select.value = chosen;
  }
}
