// The contestant pg-boss. Its settings are explained in benches/peers/README.md.

import { PgBoss } from "pg-boss";
import { database, fast, ids, ordered, trickle, verb } from "./order.js";

const QUEUE = "jobs";

// What only enqueues does not look after the tables.
const role = verb === "work" || verb === "setup" ? {} : { supervise: false, schedule: false, migrate: false };
const boss = new PgBoss({ connectionString: database, ...role, ...(fast ? { useListenNotify: true } : {}) });
boss.on("error", console.error);
await boss.start();

if (verb === "setup") {
  await boss.createQueue(QUEUE, fast ? { notify: true } : {});
  await boss.stop();
} else if (verb === "fill") {
  await boss.insert(QUEUE, ids().map((id) => ({ data: { id } })));
  await boss.stop();
} else if (verb === "trickle") {
  await trickle((id) => boss.send(QUEUE, { id }));
  await boss.stop();
} else {
  const work = ordered();
  const settings = fast ? { batchSize: 500, localConcurrency: 4, burstWhenBatchFull: true } : {};
  await boss.work(QUEUE, settings, (batch) => Promise.all(batch.map(({ data }) => work(data.id))));
  process.once("SIGTERM", () => boss.stop({ graceful: false }).then(() => process.exit()));
}
