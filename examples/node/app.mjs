// A shop that sends a receipt for each order, by a job: Node.js 20 and nothing from a registry.
//
// Decides what an app has to do for its jobs: enqueue in its own transaction, verify who calls, and do each job once.

import { spawn } from "node:child_process";
import { createHmac, timingSafeEqual } from "node:crypto";
import { createServer } from "node:http";

const DATABASE = process.env.DATABASE ?? "turnwise.db";
const KEY = Buffer.from(process.env.SIGNING_KEY.trim().replace(/^whsec_/, ""), "base64");
const TOLERANCE_S = 300;
const BODY_BYTES_MAX = 256 * 1024;

const TABLES = `
CREATE TABLE IF NOT EXISTS stock (item TEXT PRIMARY KEY, pieces INTEGER NOT NULL CHECK (pieces >= 0));
CREATE TABLE IF NOT EXISTS orders (id INTEGER PRIMARY KEY, item TEXT NOT NULL, receipts INTEGER NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS done (job TEXT PRIMARY KEY);
INSERT OR IGNORE INTO stock VALUES ('tea', 1), ('coffee', 1000);`;

// Node.js 20 has no SQLite of its own: the program sqlite3 is asked, a process for each transaction. With -bail it stops at the
// first error, and what it began is rolled back.
async function transaction(sql) {
  const sqlite = spawn("sqlite3", ["-batch", "-bail", "-json", "-cmd", ".timeout 5000", DATABASE]);
  const said = { stdout: "", stderr: "" };
  for (const stream of ["stdout", "stderr"]) sqlite[stream].setEncoding("utf8").on("data", (text) => (said[stream] += text));
  sqlite.stdin.on("error", () => {}).end(`BEGIN IMMEDIATE; ${sql}; COMMIT;`);
  const code = await new Promise((resolve, reject) => sqlite.on("error", reject).on("close", resolve));
  if (code !== 0) throw new Error(said.stderr);
  return said.stdout === "" ? [] : JSON.parse(said.stdout);
}

// A text in SQL, whatever stands in it.
const text = (value) => `CAST(x'${Buffer.from(String(value)).toString("hex")}' AS TEXT)`;

// Take an order. Its job exists exactly if the order does: one transaction holds both.
async function order(item) {
  const [{ id }] = await transaction(`
    INSERT INTO orders (item) VALUES (${text(item)}) RETURNING id;
    INSERT INTO turnwise_jobs (url) SELECT '/jobs/receipt?order=' || max(id) FROM orders;
    -- Fails when there is none left; then there is no order, and no job.
    UPDATE stock SET pieces = pieces - 1 WHERE item = ${text(item)}`);
  return id;
}

// Do a job, once: what was done and that it was done are written in one transaction.
const sendReceipt = (job, number) =>
  transaction(`
    UPDATE orders SET receipts = receipts + 1
    WHERE id = ${text(number)} AND NOT EXISTS (SELECT * FROM done WHERE job = ${text(job)});
    INSERT OR IGNORE INTO done VALUES (${text(job)})`);

// Whether whoever sent this knows the key (Standard Webhooks). The body is the bytes as they came.
function isFromTurnwise(headers, body) {
  const [sent, job, signatures] = ["timestamp", "id", "signature"].map((name) => headers[`webhook-${name}`] ?? "");
  if (!/^\d+$/.test(sent) || Math.abs(Date.now() / 1000 - Number(sent)) > TOLERANCE_S) return false;
  const mine = Buffer.from(`v1,${createHmac("sha256", KEY).update(`${job}.${sent}.`).update(body).digest("base64")}`);
  return signatures.split(" ").some((theirs) => {
    const bytes = Buffer.from(theirs);
    return bytes.length === mine.length && timingSafeEqual(bytes, mine);
  });
}

// Whether a signed envelope is about this very request: a query stands nowhere else where it is signed.
function names(envelope, method, target) {
  const url = new URL(envelope.url);
  return envelope.method === method && target === url.pathname + url.search;
}

async function bodyOf(request) {
  const parts = [];
  let bytes = 0;
  for await (const part of request) {
    bytes += part.length;
    if (bytes > BODY_BYTES_MAX) return null;
    parts.push(part);
  }
  return Buffer.concat(parts);
}

async function answer(request) {
  const url = new URL(request.url, "http://here");
  if (request.method === "GET") {
    const number = url.pathname.split("/").at(-1);
    const [row] = await transaction(`SELECT item, receipts FROM orders WHERE id = ${text(number)}`);
    return row ? [200, row] : [404, "no such order"];
  }
  const body = await bodyOf(request);
  if (body === null) return [413, "a shorter body, please"];
  if (url.pathname === "/orders") {
    try {
      return [201, { order: await order(JSON.parse(body).item) }];
    } catch (error) {
      if (error.message.includes("constraint failed")) return [409, "there is none left"];
      throw error;
    }
  }
  if (!isFromTurnwise(request.headers, body) || !names(JSON.parse(body), request.method, request.url)) {
    return [401, "this is not from a node that knows the key"];
  }
  if (url.pathname === "/jobs/receipt") {
    // The id that is signed: idempotency-key says the same, but whoever repeats a call may change it.
    await sendReceipt(request.headers["webhook-id"], url.searchParams.get("order"));
    return [200, "sent"];
  }
  // Such a job will never succeed: it is not tried again.
  return [410, "no such job"];
}

await transaction(TABLES);
const server = createServer(async (request, response) => {
  const [status, said] = await answer(request).catch((error) => (console.error(error), [500, "that did not work"]));
  response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(said));
});
server.listen(Number(process.env.PORT ?? 8080), "127.0.0.1", () =>
  console.log(`listening on http://127.0.0.1:${server.address().port}`),
);
