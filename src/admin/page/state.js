// What the page knows.

// What the bridge says of itself, and the backends, as they were last told.
export const told = { bridge: null, backends: [] };
// The jobs that have not ended, by id.
export const jobs = new Map();
// Jobs that were started here, until they have ended, and jobs that were asked to end.
export const mine = new Set();
export const cancelling = new Set();

// The job that the page shows, if it shows one: `job` is null until it is known.
export const shown = { id: null, job: null, source: null, ticket: 0 };

export const hasEnded = (job) => job.completed !== null;

export function backendName(url) {
  return told.backends.find((backend) => backend.url === url)?.name ?? url;
}
