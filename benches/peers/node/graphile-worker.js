// The contestant graphile-worker. Its settings are explained in benches/peers/README.md.

import { makeWorkerUtils, run, runMigrations } from "graphile-worker";
import { database, fast, ids, ordered, trickle, verb } from "./order.js";

const settings = fast
  ? {
      concurrentJobs: 24,
      maxPoolSize: 25,
      localQueue: { size: 500 },
      completeJobBatchDelay: 0,
      failJobBatchDelay: 0,
    }
  : {};
const preset = { worker: { connectionString: database, ...settings } };

if (verb === "setup") {
  await runMigrations({ preset });
} else if (verb === "work") {
  const work = ordered();
  const runner = await run({ preset, taskList: { job: ({ id }) => work(id) } });
  await runner.promise;
} else {
  const utils = await makeWorkerUtils({ preset });
  if (verb === "fill") {
    await utils.addJobs(ids().map((id) => ({ identifier: "job", payload: { id } })));
  } else {
    await trickle((id) => utils.addJob("job", { id }));
  }
  await utils.release();
}
