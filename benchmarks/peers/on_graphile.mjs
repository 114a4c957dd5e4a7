// graphile-worker on Node, by its own README's settings for throughput. As on_bullmq.mjs:
//   node on_graphile.mjs single|together|bulk|pace KIND COUNT   enqueues, and prints {"rate": …}
//   node on_graphile.mjs setup | work                           makes its tables; works

import fs from "node:fs";
import path from "node:path";
import { createRequire } from "node:module";
import { setTimeout as sleep } from "node:timers/promises";

const require = createRequire(path.join(process.env.BENCH_PEER, "package.json"));
const { makeWorkerUtils, run, runMigrations } = require("graphile-worker");

const BATCH = 500;
const CALLERS = 16;
const PACE = 20;
const connectionString = process.env.BENCH_DATABASE;
const open = (name) => fs.openSync(path.join(process.env.BENCH_FOLDER, name), "r+");
const now = () => Number(process.hrtime.bigint()) / 1e9;

function note(times, place, second, seconds) {
  const bytes = Buffer.alloc(8);
  bytes.writeDoubleLE(seconds);
  fs.writeSync(times, bytes, 0, 8, place * 16 + (second ? 8 : 0));
}

async function work() {
  const [done, times] = [open("done"), open("times")];
  const marks = fs.readFileSync(done);
  const slot = Number(process.env.BENCH_SLOT);
  let changed = [];
  const noop = ({ place }) => {
    marks[place] = marks[place] ? 255 : slot;
    changed.push(place);
  };
  const stamp = ({ place }) => { note(times, place, true, now()); noop({ place }); };
  setInterval(() => {
    const places = changed.sort((a, b) => a - b);
    changed = [];
    for (let i = 0; i < places.length; i++) {
      const first = places[i];
      while (places[i + 1] === places[i] + 1) i++;
      fs.writeSync(done, marks, first, places[i] - first + 1, first);
    }
  }, 5);
  const worker = {
    concurrentJobs: Number(process.env.BENCH_CONCURRENCY),
    completeJobBatchDelay: 0,
    failJobBatchDelay: 0,
    localQueue: { size: 500 },
  };
  const logger = new (require("graphile-worker").Logger)(() => () => {});
  await run({ connectionString, taskList: { noop, stamp }, logger, preset: { worker } });
}

async function produce(how, kind, count) {
  const times = open("times");
  const utils = await makeWorkerUtils({ connectionString, maxPoolSize: CALLERS });
  note(times, 0, false, now());
  await utils.addJob(kind, { place: 0 });
  const start = now();
  if (how === "bulk") {
    for (let first = 1; first < count; first += BATCH) {
      const length = Math.min(BATCH, count - first);
      await utils.addJobs(Array.from({ length }, (_, i) => ({ identifier: kind, payload: { place: first + i } })));
    }
  } else if (how === "together") {
    let next = 1;
    const caller = async () => { while (next < count) await utils.addJob(kind, { place: next++ }); };
    await Promise.all(Array.from({ length: CALLERS }, caller));
  } else {
    for (let place = 1; place < count; place++) {
      if (how === "pace") {
        await sleep(PACE);
        note(times, place, false, now());
      }
      await utils.addJob(kind, { place });
    }
  }
  console.log(JSON.stringify({ rate: (count - 1) / (now() - start) }));
  await utils.release();
}

const [how, kind, count] = process.argv.slice(2);
if (how === "setup") await runMigrations({ connectionString });
else if (how === "work") await work();
else await produce(how, kind, Number(count));
