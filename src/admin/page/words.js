// How the page calls what the API has names for.

const OBJECTS = {
  device: "Devices",
  storage: "Storages",
  virtual_machine: "Virtual machines",
  virtual_disk: "Virtual disks",
  backup: "Backups",
  snapshot: "Snapshots",
  node_interface: "Node interfaces",
  interface: "Interfaces",
  vm_interface: "VM interfaces",
  vm_ip: "VM IP addresses",
  task_history: "Task histories",
  replication: "Replications",
  backup_routine: "Backup routines",
  sdn: "SDN objects",
  other: "Other objects",
};

const CHANNELS = { native: "stream", websocket: "/ws", json: "plain JSON" };

export const LEVELS = { info: "Info", success: "Success", warning: "Warning", failure: "Failure" };

// What an operator can do about it, where the message of the job does not say.
export const HINTS = {
  backend_failed: "The backend ran the sync and calls it failed. Its own log says more.",
  objects_failed: "The backend ran to its end, and the objects failed. See each one's error below.",
  backend_lost: "The backend broke the connection off. See whether it still runs, and what its log says.",
  backend_nonsense: "What the backend sent cannot be read. Its raw messages are below.",
  unreachable: "See whether the backend runs and whether this machine reaches it: proxbox-bridge check.",
  key_refused: "Start it again with the API key of the backend, or give the bridge one: backend.api_key_file.",
  refused: "The backend took the request and refused it. Its own log says more.",
  unsupported: "This backend has no way to do that. “Backends” lists what it can do.",
  idle: "The backend said nothing for too long (limits.idle). See whether it hangs.",
  total: "It took longer than it may (limits.total).",
  stopping: "The bridge was stopped before the sync was done. Start it again.",
  client_gone: "Whoever asked for it left and did not come back (jobs.on_disconnect). What is started here goes on.",
  busy: "Too many syncs are queued (backend.queue). Try again when they are done.",
  unrecorded: "The record of jobs cannot be written, and nothing may run without one (jobs.without_ledger).",
  crashed: "The bridge ended in the middle of it. How far the backend went is not known; start it again.",
};

export const SOURCES = { backend: "the backend", client: "a client", bridge: "the bridge" };

// "ip-addresses" → "IP addresses"
export const phrase = (name) => name.replace(/[-_]/g, " ").replace(/\b(vm|ip|sdn)\b/g, (word) => word.toUpperCase());

export function words(name) {
  const text = phrase(name);
  return text.charAt(0).toUpperCase() + text.slice(1);
}

export const objects = (name) => OBJECTS[name] ?? words(name);
export const channel = (name) => CHANNELS[name] ?? name;
export const over = (names) => names.map((name) => (name === "native" ? "its stream" : channel(name))).join(" and ");
export const namesOf = (kinds) => kinds.map(phrase).join(", ");

// Where a job is, in one word: how it ended where NetBox's word would say less.
export function standing(job) {
  return ["cancelled", "timed_out", "interrupted"].includes(job.outcome) ? job.outcome : job.status;
}

export const title = (job) => (job.vm === null ? words(job.kind) : `${words(job.kind)} of VM ${job.vm}`);
