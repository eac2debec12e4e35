// The reader's choice of light or dark, before the first paint. Not a module:
// those run when the page has been drawn already.
"use strict";

try {
  const theme = localStorage.getItem("nodewall.theme");
  if (theme === "light" || theme === "dark") {
    document.documentElement.dataset.theme = theme;
  }
} catch {
  // No storage: as the system has it.
}
