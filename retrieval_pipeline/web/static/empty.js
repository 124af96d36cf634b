// Waits for an index, and shows it.

setInterval(async () => {
  try {
    const response = await fetch("/", { headers: { Accept: "text/html" } });
    if (response.ok) location.reload();
  } catch {
    // The server was stopped; it may come back.
  }
}, 2000);
