// What every contestant in Node.js does alike: what the harness asks for, what a job's work is, how completions are
// counted. Not how jobs reach it.

import { createInterface } from "node:readline";
import { Pool } from "undici";

/** What the harness asks for: setup, fill, trickle or work. */
export const verb = process.argv[2];

export const database = process.env.DATABASE_URL;
export const jobs = Number(process.env.PEER_JOBS ?? 0);

/** Whether the setting is the one that the documents recommend for many small jobs, and not the defaults. */
export const fast = process.env.PEER_SETTING === "fast";

/** Nanoseconds of the machine's monotonic clock, which every process reads alike. */
const now = () => process.hrtime.bigint();

/** The work of a job, by its number: one POST to the target with keep-alive, or nothing but be counted. */
export function ordered() {
  return process.env.PEER_TARGET ? caller(process.env.PEER_TARGET) : counter();
}

function caller(target) {
  const pool = new Pool(target, { pipelining: 1 });
  return async (id) => {
    const { statusCode, body } = await pool.request({ path: `/jobs/${id}`, method: "POST" });
    await body.dump();
    if (statusCode !== 200) {
      throw new Error(`the target answered ${statusCode}`);
    }
  };
}

function counter() {
  const seen = new Uint8Array(jobs);
  let [count, distinct, first, last] = [0, 0, 0n, 0n];
  setInterval(() => {
    process.stdout.write(`{"count":${count},"distinct":${distinct},"first":${first},"last":${last}}\n`);
  }, 100);
  return async (id) => {
    last = now();
    if (count === 0) {
      first = last;
    }
    count += 1;
    if (seen[id] === 0) {
      seen[id] = 1;
      distinct += 1;
    }
  };
}

/** Enqueue a job for each number that comes in, and print the instant at which it was committed. */
export async function trickle(enqueue) {
  for await (const line of createInterface({ input: process.stdin })) {
    await enqueue(Number(line));
    process.stdout.write(`${now()}\n`);
  }
}

/** The numbers of all jobs. */
export const ids = () => Array.from({ length: jobs }, (_, id) => id);
