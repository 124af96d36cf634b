"""The search page: server-rendered HTML, a little JavaScript, and a JSON API for all of it."""
