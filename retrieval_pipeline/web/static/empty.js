// Waits for an index, and shows it.

import { root } from "./common.js";

setInterval(async () => {
  try {
    const response = await fetch(`${root}/`, { headers: { Accept: "text/html" } });
    if (response.ok) location.reload();
  } catch {
    // The server was stopped; it may come back.
  }
}, 2000);
