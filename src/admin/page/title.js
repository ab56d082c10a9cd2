// The title of the page, which is all that is seen of it behind others.

import { count } from "./numbers.js";
import { jobs, shown } from "./state.js";
import { phrase, standing, title } from "./words.js";

export function drawTitle() {
  const about = shown.job === null ? null : `${title(shown.job)}: ${phrase(standing(shown.job))}`;
  const busy = jobs.size === 0 ? null : `${count(jobs.size)} running`;
  document.title = [shown.id === null ? busy : about, "proxbox-bridge"].filter((part) => part !== null).join(" – ");
}
