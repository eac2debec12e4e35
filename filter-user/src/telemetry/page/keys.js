// Keys, the theme, and the dialog that tells them.

import { byId, setText } from "./dom.js";

const THEME = "nodewall.theme";
const KEYS = "nodewall.keys";

const DARK = matchMedia("(prefers-color-scheme: dark)");

/** The theme that is shown. */
export function theme() {
  return document.documentElement.dataset.theme ?? (DARK.matches ? "dark" : "light");
}

/** Changes to the other theme. What the system has is not written down: the page follows it. */
function otherTheme() {
  const other = theme() === "dark" ? "light" : "dark";
  const system = DARK.matches ? "dark" : "light";
  if (other === system) {
    delete document.documentElement.dataset.theme;
  } else {
    document.documentElement.dataset.theme = other;
  }
  remember(THEME, other === system ? null : other);
}

function remember(name, value) {
  try {
    if (value === null) {
      localStorage.removeItem(name);
    } else {
      localStorage.setItem(name, value);
    }
  } catch {
    // No storage: it holds until the page is closed.
  }
}

function recall(name) {
  try {
    return localStorage.getItem(name);
  } catch {
    return null;
  }
}

/** Wires the buttons and keys. */
export function wire({ pause, recolour, announce }) {
  const dialog = byId("help");
  const single = byId("keys-on");
  const button = byId("theme");
  const named = () => {
    setText(byId("theme-words"), theme() === "dark" ? "Light" : "Dark");
  };
  const change = () => {
    otherTheme();
    named();
    recolour();
    announce(`${theme() === "dark" ? "Dark" : "Light"} theme.`);
  };
  button.addEventListener("click", change);
  DARK.addEventListener("change", () => {
    named();
    recolour();
  });
  named();

  const help = () => (dialog.open ? dialog.close() : dialog.showModal());
  byId("help-open").addEventListener("click", help);
  byId("help-close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => {
    // Beside it.
    if (event.target === dialog) {
      dialog.close();
    }
  });

  single.checked = recall(KEYS) !== "off";
  single.addEventListener("change", () => remember(KEYS, single.checked ? null : "off"));

  const focus = (id) => {
    byId(id).focus();
    byId(id).select();
  };
  const actions = {
    p: pause,
    t: change,
    "/": () => focus("log-filter"),
    r: () => focus("rules-filter"),
    "?": help,
  };
  document.addEventListener("keydown", (event) => {
    const typing = event.target.matches?.("input, select, textarea, [contenteditable]");
    if (event.key === "Escape" && event.target.matches?.("input[type=search]")) {
      event.target.blur();
      return;
    }
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing || (typing && event.target.type !== "checkbox")) {
      return;
    }
    const action = actions[event.key];
    if (!action || (!single.checked && event.key !== "?") || (dialog.open && event.key !== "?")) {
      return;
    }
    event.preventDefault();
    if (!event.repeat) {
      action();
    }
  });
}
