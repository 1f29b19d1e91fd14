// What the JavaScript checks share; the twin of ../shared/checks.py.
//
//     node openai.mjs GUARDED OPEN        two base URLs: with the key below, and without any

import assert from "node:assert/strict";

export const [GUARDED, OPEN] = process.argv.slice(2);
export const KEY = "sk-omnivec-client-checks";
export const MODEL = "sentence-transformers/all-MiniLM-L6-v2";
export const DIMS = 384;
export const RERANKER = "tiny/cross-encoder";
const TOLERANCE = 1e-6;

export const FOX = "The quick brown fox jumps over the lazy dog.";
export const TEXTS = [FOX, "Déjà vu: naïve façade, 12 €.", "快速的棕色狐狸跳过懒狗。", "emoji 🦊🐶"];
export const QUERY = "How do neural networks learn?";
export const DOCUMENTS = [
  "The stock market experienced a downturn in the third quarter.",
  "Neural networks adjust their weights through backpropagation.",
  "Photosynthesis converts sunlight into chemical energy.",
  "Deep learning uses gradient descent to minimize a loss.",
];

export async function post(path, body) {
  const headers = { "content-type": "application/json", authorization: `Bearer ${KEY}` };
  const reply = await fetch(GUARDED + path, { method: "POST", headers, body: JSON.stringify(body) });
  assert.equal(reply.status, 200, await reply.clone().text());
  return reply.json();
}

export async function plainVectors(input) {
  const reply = await post("/v1/embeddings", { model: MODEL, input, encoding_format: "float" });
  return reply.data.map((item) => item.embedding);
}

export async function plainScores(model) {
  const reply = await post("/v1/rerank", { model, query: QUERY, documents: DOCUMENTS });
  return reply.results;
}

export function sameVectors(got, want) {
  assert.equal(got.length, want.length);
  got.forEach((vector, row) => {
    assert.equal(vector.length, want[row].length, `length of [${row}]`);
    const apart = Math.max(...vector.map((number, at) => Math.abs(number - want[row][at])));
    assert.ok(apart <= TOLERANCE, `[${row}]: ${apart} apart`);
  });
}

export function shortened(vector, dims) {
  const cut = vector.slice(0, dims);
  const length = Math.hypot(...cut);
  return cut.map((number) => number / length);
}

export async function main(checks) {
  let failed = 0;
  for (const [name, check] of Object.entries(checks)) {
    const began = performance.now();
    const trouble = await check().then(() => null, (error) => error);
    failed += trouble !== null;
    const seconds = ((performance.now() - began) / 1000).toFixed(2);
    console.log(`${trouble ? "FAIL" : "ok  "} ${name} (${seconds} s)`);
    if (trouble) console.log(trouble.stack);
  }
  console.log(`${Object.keys(checks).length - failed} passed, ${failed} failed`);
  process.exit(failed > 0 ? 1 : 0);
}
