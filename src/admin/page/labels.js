// Labels for the names in the API.

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

// The kinds that a full update runs.
export const FULL_UPDATE = [
  "devices",
  "storage",
  "virtual-machines",
  "virtual-disks",
  "backups",
  "snapshots",
  "replications",
  "backup-routines",
];

const CHANNELS = { native: "event stream", websocket: "/ws", json: "plain JSON" };

export const LEVELS = { info: "Info", success: "Success", warning: "Warning", failure: "Failure" };

// What an operator can do about each cause.
export const HINTS = {
  backend_failed: "The backend reported a failure. See its log for details.",
  objects_failed: "The sync finished, but objects failed. Their errors are listed below.",
  backend_lost: "The connection to the backend was lost. Check that the backend is running, and see its log.",
  backend_nonsense: "The response of the backend was invalid. See its raw messages below.",
  unreachable: "Check that the backend is running and reachable from the host of the bridge: proxbox-bridge check.",
  key_refused: "Start the sync again with the API key of the backend, or set backend.api_key_file.",
  refused: "The backend refused the request. See its log for details.",
  unsupported: "The backend does not support this sync. “Backends” lists the supported ones.",
  idle: "The backend was silent for limits.idle. Check whether it hangs.",
  total: "The sync took longer than limits.total.",
  stopping: "The bridge was stopped before the sync finished. Start the sync again.",
  client_gone: "The client disconnected and did not reconnect (jobs.on_disconnect). Syncs started on this page need no client.",
  busy: "Too many syncs are queued (backend.queue). Try again when they have finished.",
  unrecorded: "The job could not be recorded, and jobs.without_ledger refuses such jobs.",
  crashed: "The bridge crashed during the sync. Its progress on the backend is unknown. Start the sync again.",
};

export const SOURCES = { backend: "the backend", client: "a client", bridge: "the bridge" };

// "ip-addresses" → "IP addresses"
export const phrase = (name) => name.replace(/[-_]/g, " ").replace(/\b(vm|ip|sdn)\b/g, (acronym) => acronym.toUpperCase());

export function label(name) {
  const text = phrase(name);
  return text.charAt(0).toUpperCase() + text.slice(1);
}

export const objectLabel = (name) => OBJECTS[name] ?? label(name);
export const channelLabel = (name) => CHANNELS[name] ?? name;
export const channelList = (names) => names.map(channelLabel).join(" and ");
export const kindList = (kinds) => kinds.map(phrase).join(", ");

// The status of a job, or what is more specific: its outcome, or what became of objects although the job completed.
export function displayStatus(job) {
  if (job.status === "completed" && job.failed_total > 0) return "completed_with_failures";
  if (job.status === "completed" && job.unconfirmed_total > 0) return "completed_unconfirmed";
  return ["cancelled", "timed_out", "interrupted"].includes(job.outcome) ? job.outcome : job.status;
}

export const jobTitle = (job) => (job.vm === null ? label(job.kind) : `${label(job.kind)} of VM ${job.vm}`);
