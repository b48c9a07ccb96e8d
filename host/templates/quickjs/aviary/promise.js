// Promises whose jobs this code runs itself, in place of QuickJS's own: a call ends when `handle` returns, and nothing would
// run jobs after that. `globals.ts` makes this the global `Promise`, and the build turns `async` and `await` into calls of it.

/** What is to run, in order. */
const jobs = [];

/** Promises that were rejected and that nobody waits for, with the reasons. */
export const unhandled = new Map();

const PENDING = 0;
const FULFILLED = 1;
const REJECTED = 2;

export class Promise {
  #state = PENDING;
  #value;
  /** Run once it is settled. */
  #waiting = [];
  #isAwaited = false;

  constructor(executor) {
    if (typeof executor !== "function") throw new TypeError("a promise wants a function");
    let isDecided = false;
    const once = (settle) => (value) => {
      if (!isDecided) {
        isDecided = true;
        settle(value);
      }
    };
    const reject = once((reason) => this.#settle(REJECTED, reason));
    try {
      executor(once((value) => this.#resolve(value)), reject);
    } catch (error) {
      reject(error);
    }
  }

  /** Takes a value, or what another promise comes to. */
  #resolve(value) {
    if (value === this) {
      this.#settle(REJECTED, new TypeError("a promise cannot wait for itself"));
      return;
    }
    let then;
    try {
      then = (typeof value === "object" && value !== null) || typeof value === "function" ? value.then : undefined;
    } catch (error) {
      this.#settle(REJECTED, error);
      return;
    }
    if (typeof then !== "function") {
      this.#settle(FULFILLED, value);
      return;
    }
    jobs.push(() => {
      new Promise((resolve, reject) => then.call(value, resolve, reject)).#whenSettled((state, value) =>
        this.#settle(state, value),
      );
    });
  }

  #settle(state, value) {
    this.#state = state;
    this.#value = value;
    if (state === REJECTED && !this.#isAwaited) unhandled.set(this, value);
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const callback of waiting) jobs.push(() => callback(state, value));
  }

  #whenSettled(callback) {
    this.#isAwaited = true;
    unhandled.delete(this);
    if (this.#state === PENDING) this.#waiting.push(callback);
    else jobs.push(() => callback(this.#state, this.#value));
  }

  then(onFulfilled, onRejected) {
    return new Promise((resolve, reject) => {
      this.#whenSettled((state, value) => {
        const callback = state === FULFILLED ? onFulfilled : onRejected;
        if (typeof callback !== "function") {
          (state === FULFILLED ? resolve : reject)(value);
          return;
        }
        try {
          resolve(callback(value));
        } catch (error) {
          reject(error);
        }
      });
    });
  }

  catch(onRejected) {
    return this.then(undefined, onRejected);
  }

  finally(callback) {
    if (typeof callback !== "function") return this.then();
    const after = (outcome) => Promise.resolve(callback()).then(outcome);
    return this.then(
      (value) => after(() => value),
      (reason) =>
        after(() => {
          throw reason;
        }),
    );
  }

  get [Symbol.toStringTag]() {
    return "Promise";
  }

  static resolve(value) {
    return value instanceof Promise ? value : new Promise((resolve) => resolve(value));
  }

  static reject(reason) {
    return new Promise((_, reject) => reject(reason));
  }

  static withResolvers() {
    const parts = {};
    parts.promise = new Promise((resolve, reject) => Object.assign(parts, { resolve, reject }));
    return parts;
  }

  static all(values) {
    return collect(values, (promise, put, _resolve, reject) => promise.then(put, reject));
  }

  static allSettled(values) {
    return collect(values, (promise, put) =>
      promise.then(
        (value) => put({ status: "fulfilled", value }),
        (reason) => put({ status: "rejected", reason }),
      ),
    );
  }

  static any(values) {
    const none = (errors) => {
      throw new AggregateError(errors, "every promise was rejected");
    };
    return new Promise((resolve, reject) => {
      collect(values, (promise, put) => promise.then(resolve, put)).then(none).catch(reject);
    });
  }

  static race(values) {
    return new Promise((resolve, reject) => {
      for (const value of values) Promise.resolve(value).then(resolve, reject);
    });
  }
}

/** Waits for one result of each, in the order of the values. */
function collect(values, each) {
  return new Promise((resolve, reject) => {
    const results = [];
    let missing = 1;
    const done = () => {
      missing -= 1;
      if (missing === 0) resolve(results);
    };
    let index = 0;
    for (const value of values) {
      const at = index++;
      missing += 1;
      const put = (result) => {
        results[at] = result;
        done();
      };
      each(Promise.resolve(value), put, resolve, reject);
    }
    done();
  });
}

/** Runs all jobs, also those that nobody waits for, and returns what a value comes to or throws what it was rejected with. */
export function settled(value) {
  let outcome;
  Promise.resolve(value).then(
    (value) => (outcome = { value }),
    (error) => (outcome = { error }),
  );
  // All there are at once: to take the first moves the others.
  while (jobs.length > 0) for (const job of jobs.splice(0)) job();
  if (outcome === undefined) throw new Error("handle waits for a promise that nothing will settle");
  if ("error" in outcome) throw outcome.error;
  return outcome.value;
}

/** Runs a function after what is running now. What it throws is a promise's that nobody waits for. */
export function queueMicrotask(callback) {
  Promise.resolve().then(() => {
    callback();
  });
}
