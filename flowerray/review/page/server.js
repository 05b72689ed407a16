// What is asked of the server, and the decisions that it hasn't confirmed yet.

const PAUSES = [500, 1000, 2000, 5000]; // ms before the next try, the last one again and again
const pause = (tries) => new Promise((done) => setTimeout(done, PAUSES[Math.min(tries, PAUSES.length - 1)]));

// Whether the server answers, how many decisions wait, and which was refused: {line, entry, isFinal},
// final unless another address would take it.
export const link = { away: false, unsaved: 0, refused: null };
const listeners = new Set();
export function listen(heard) {
  listeners.add(heard);
  return () => listeners.delete(heard);
}
function tell(change) {
  Object.assign(link, change);
  for (const heard of listeners) heard();
}

// An answer that is not the one asked for. `status` is 0 where nothing answered.
export class Failure extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
  get mayPass() {
    return this.status === 0 || this.status >= 500;
  }
}

// The JSON that the server answers to a GET, or to a POST of `body`. Raises Failure.
export async function ask(path, body) {
  let answer;
  try {
    answer = await fetch(
      path,
      body && {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify(body),
      },
    );
  } catch {
    tell({ away: true });
    throw new Failure("the server doesn't answer", 0);
  }
  if (link.away) tell({ away: false });
  const said = await answer.json().catch(() => null);
  if (answer.ok && said) return said;
  if (answer.status === 403)
    throw new Failure("this address is no longer valid: open the one that the command prints now", 403);
  throw new Failure(said?.error ?? `the server answered ${answer.status}`, answer.status);
}

// The same, tried again until something answers; `gaveUp` ends it with null.
export async function patiently(path, body, gaveUp = () => false) {
  for (let tries = 0; ; tries++) {
    try {
      return await ask(path, body);
    } catch (failure) {
      if (failure.status !== 0) throw failure;
    }
    await pause(tries);
    if (gaveUp()) return null;
  }
}

const keyed = () => `${Date.now().toString(36)}-${Math.random().toString(36).slice(2)}`;

// Decisions on their way: posted one after the other, in order, until each is confirmed. They are
// kept in the browser, so that a reload, or another tab of the same pile, sends what is left.
export class Outbox {
  constructor(pile) {
    this.prefix = `flowerray-unsaved:${pile}:`;
    this.key = this.prefix + keyed();
    this.entries = [];
    this.answers = new Map();
    this.sending = false;
    // Held as long as this tab lives: whoever waits for it inherits what the tab left.
    navigator.locks?.request(this.key, () => new Promise(() => {}));
    for (const key of stored(this.prefix)) {
      if (navigator.locks) navigator.locks.request(key, () => this.inherit(key));
      else this.inherit(key);
    }
  }

  inherit(key) {
    const left = read(key) ?? [];
    forget(key);
    if (!left.length) return;
    this.entries.push(...left);
    this.keep();
    this.send();
  }

  // Takes {path, body} on its way; the answer once it is there, or null if it was given up.
  post(path, body) {
    const entry = { path, body: { ...body, key: keyed() } };
    this.entries.push(entry);
    this.keep();
    const answer = new Promise((done) => this.answers.set(entry.body.key, done));
    this.send();
    return answer;
  }

  // Drops the last decision if nobody has been told of it; whether it did.
  takeBack() {
    const last = this.entries.at(-1);
    if (!last || last.path !== "api/decide" || (this.sending && this.entries.length === 1)) return false;
    this.drop(last);
    if (!this.entries.length) tell({ refused: null });
    return true;
  }

  ids() {
    return this.entries.flatMap((entry) => entry.body.ids ?? []);
  }

  drop(entry, answer = null) {
    this.entries = this.entries.filter((other) => other !== entry);
    this.keep();
    this.answers.get(entry.body.key)?.(answer);
    this.answers.delete(entry.body.key);
  }

  // After a refusal: once more, or without the one that was refused.
  goOn({ without }) {
    if (without && this.entries.length) this.drop(this.entries[0]);
    tell({ refused: null });
    this.send();
  }

  async send() {
    if (this.sending || link.refused) return;
    this.sending = true;
    let tries = 0;
    while (this.entries.length && !link.refused) {
      const entry = this.entries[0];
      try {
        const answer = await ask(entry.path, entry.body);
        tries = 0;
        this.drop(entry, answer);
      } catch (failure) {
        if (failure.mayPass) await pause(tries++);
        else tell({ refused: { line: failure.message, entry, isFinal: failure.status !== 403 } });
      }
    }
    this.sending = false;
  }

  keep() {
    if (this.entries.length) write(this.key, this.entries);
    else forget(this.key);
    tell({ unsaved: this.entries.length });
  }
}

// The browser's store, which it may deny: then nothing is kept, and the page works all the same.
export function read(key) {
  try {
    return JSON.parse(localStorage.getItem(key));
  } catch {
    return null;
  }
}
export function write(key, value) {
  try {
    localStorage.setItem(key, JSON.stringify(value));
  } catch {
    // full or denied
  }
}
function forget(key) {
  try {
    localStorage.removeItem(key);
  } catch {
    // denied
  }
}
function stored(prefix) {
  try {
    return Object.keys(localStorage).filter((key) => key.startsWith(prefix));
  } catch {
    return [];
  }
}
