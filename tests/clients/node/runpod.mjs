// runpod-sdk for JavaScript against a running omnivec. See checks.mjs.
//
// Its runSync asks /runsync?wait= and then /status-sync; its stream reads `stream` of every reply.

import assert from "node:assert/strict";
import runpodSdk from "runpod-sdk";
import { DOCUMENTS, GUARDED, KEY, MODEL, QUERY, TEXTS } from "./checks.mjs";
import { main, plainScores, plainVectors, sameVectors } from "./checks.mjs";

const endpoint = runpodSdk(KEY, { baseUrl: `${GUARDED}/v2` }).endpoint("abcdef0123456789");
const JOB = { input: { model: MODEL, input: TEXTS } };

async function sameAsPlain(output) {
  assert.equal(output.object, "list");
  sameVectors(output.data.map((entry) => entry.embedding), await plainVectors(TEXTS));
}

async function finished(id) {
  for (;;) {
    const told = await endpoint.status(id);
    if (told.completed) return told;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

await main({
  async runSync() {
    const told = await endpoint.runSync(JOB);
    assert.ok(told.completed && told.succeeded);
    await sameAsPlain(told.output);
    assert.equal(typeof told.delayTime, "number");
    assert.equal(typeof told.executionTime, "number");
  },
  async runAndStatus() {
    const { id, status } = await endpoint.run({ ...JOB, policy: { executionTimeout: 60000 } });
    assert.equal(status, "IN_QUEUE");
    const told = await finished(id);
    assert.equal(told.status, "COMPLETED");
    await sameAsPlain(told.output);
  },
  async stream() {
    const { id } = await endpoint.run(JOB);
    const chunks = [];
    for await (const chunk of endpoint.stream(id)) chunks.push(chunk);
    assert.equal(chunks.length, 1);
    await sameAsPlain(chunks[0].output);
  },
  async rerank() {
    const input = { model: MODEL, query: QUERY, docs: DOCUMENTS, return_docs: true };
    const { output } = await endpoint.runSync({ input });
    const plain = await plainScores(MODEL);
    assert.deepEqual(output.docs, plain.map((one) => DOCUMENTS[one.index]));
  },
  async cancelPurgeAndHealth() {
    const { id } = await endpoint.run({ input: { model: MODEL, input: Array(2000).fill("word ".repeat(200)) } });
    const told = await endpoint.cancel(id);
    assert.equal(told.id, id);
    assert.ok(["CANCELLED", "COMPLETED"].includes(told.status));
    assert.equal((await endpoint.purgeQueue()).status, "completed");
    const health = await endpoint.health();
    assert.ok(health.jobs.completed > 0);
    assert.equal(health.workers.throttled, 0);
  },
});
