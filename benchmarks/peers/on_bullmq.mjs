// BullMQ on Node, with finished jobs removed. It does what produce.py and jobs.py do:
//   node on_bullmq.mjs single|bulk|pace KIND COUNT       enqueues, and prints {"rate": …}
//   node on_bullmq.mjs work                              works until it is told to stop
// Node maps no files into memory, so marks are kept here and written out every 5 ms.

import fs from "node:fs";
import path from "node:path";
import { createRequire } from "node:module";
import { setTimeout as sleep } from "node:timers/promises";

const require = createRequire(path.join(process.env.BENCH_PEER, "package.json"));
const { Queue, Worker } = require("bullmq");

const BATCH = 500;
const PACE = 20;
const NAP = 100;
const url = new URL(process.env.BENCH_URL);
const connection = { host: url.hostname, port: Number(url.port), maxRetriesPerRequest: null };
const open = (name) => fs.openSync(path.join(process.env.BENCH_FOLDER, name), "r+");
const times = open("times");
const now = () => Number(process.hrtime.bigint()) / 1e9;

function note(place, second, seconds) {
  const bytes = Buffer.alloc(8);
  bytes.writeDoubleLE(seconds);
  fs.writeSync(times, bytes, 0, 8, place * 16 + (second ? 8 : 0));
}

function work() {
  const done = open("done");
  const marks = fs.readFileSync(done);
  const slot = Number(process.env.BENCH_SLOT);
  let changed = [];
  const noop = (place) => {
    marks[place] = marks[place] ? 255 : slot;
    changed.push(place);
  };
  const kinds = {
    noop,
    stamp: (place) => { note(place, true, now()); noop(place); },
    nap: async (place) => {
      note(place, false, now());
      await sleep(NAP);
      note(place, true, now());
      noop(place);
    },
  };
  setInterval(() => {
    // Whole runs of places at once; jobs end nearly in order.
    const places = changed.sort((a, b) => a - b);
    changed = [];
    for (let i = 0; i < places.length; i++) {
      const first = places[i];
      while (places[i + 1] === places[i] + 1) i++;
      fs.writeSync(done, marks, first, places[i] - first + 1, first);
    }
  }, 5);
  const concurrency = Number(process.env.BENCH_CONCURRENCY ?? "50");
  new Worker("bench", async (job) => { await kinds[job.name](job.data); }, { connection, concurrency });
}

async function produce(how, kind, count) {
  const defaultJobOptions = { removeOnComplete: true, removeOnFail: true };
  const queue = new Queue("bench", { connection, defaultJobOptions });
  note(0, false, now());
  await queue.add(kind, 0);
  const start = now();
  if (how === "bulk") {
    for (let first = 1; first < count; first += BATCH) {
      const length = Math.min(BATCH, count - first);
      await queue.addBulk(Array.from({ length }, (_, i) => ({ name: kind, data: first + i })));
    }
  } else {
    for (let place = 1; place < count; place++) {
      if (how === "pace") {
        await sleep(PACE);
        note(place, false, now());
      }
      await queue.add(kind, place);
    }
  }
  console.log(JSON.stringify({ rate: (count - 1) / (now() - start) }));
  await queue.close();
}

const [how, kind, count] = process.argv.slice(2);
if (how === "work") work();
else await produce(how, kind, Number(count));
