// How numbers, and texts that are too long, are written.

// How much of one line of somebody else is in the page.
export const LINE_CHARS = 4000;

export const count = new Intl.NumberFormat("en").format;
export const many = (number, one, more = `${one}s`) => `${count(number)} ${number === 1 ? one : more}`;

export function duration(seconds) {
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  const whole = Math.floor(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  if (whole < 86_400) return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
  return `${many(Math.floor(whole / 86_400), "day")} ${Math.floor((whole % 86_400) / 3600)} h`;
}

// Roughly, for what goes on and would otherwise flicker.
export function roughly(seconds) {
  return duration(seconds < 60 ? Math.max(1, Math.floor(seconds)) : seconds).replace(/\.0 s$/, " s");
}

export function bytes(number) {
  const units = ["bytes", "KiB", "MiB", "GiB"];
  const power = number < 1024 ? 0 : Math.min(units.length - 1, Math.floor(Math.log2(number) / 10));
  return power === 0 ? many(number, "byte") : `${(number / 1024 ** power).toFixed(1)} ${units[power]}`;
}

export function shortened(text, most) {
  return text.length <= most ? text : `${text.slice(0, most)}… (${count(text.length - most)} characters more)`;
}
