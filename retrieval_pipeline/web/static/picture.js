// The page of one picture: votes, and Esc to where one came from.

import { listen } from "./votes.js";

listen();
addEventListener("keydown", (event) => {
  if (event.key === "Escape" && history.length > 1) history.back();
});
