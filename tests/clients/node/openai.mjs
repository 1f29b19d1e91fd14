// openai-node against a running omnivec. See checks.mjs.
//
// It asks for base64 unless told otherwise and decodes whatever comes, so a server that
// answers floats gives it vectors of a quarter of the length.

import assert from "node:assert/strict";
import OpenAI, { AuthenticationError, BadRequestError, NotFoundError, UnprocessableEntityError } from "openai";
import { DIMS, FOX, GUARDED, KEY, MODEL, OPEN, RERANKER, TEXTS } from "./checks.mjs";
import { main, plainVectors, sameVectors, shortened } from "./checks.mjs";

const client = new OpenAI({ baseURL: `${GUARDED}/v1`, apiKey: KEY });

async function vectors(fields, from = client) {
  const reply = await from.embeddings.create({ model: MODEL, ...fields });
  reply.data.forEach((item, at) => assert.equal(item.index, at));
  return reply.data.map((item) => item.embedding);
}

await main({
  async oneTextInTheDefaultEncoding() {
    const [vector] = await vectors({ input: FOX });
    assert.equal(vector.length, DIMS);
    sameVectors([vector], await plainVectors([FOX]));
  },
  async aBatchKeepsItsOrder() {
    sameVectors(await vectors({ input: TEXTS }), await plainVectors(TEXTS));
  },
  async explicitFloat() {
    sameVectors(await vectors({ input: TEXTS, encoding_format: "float" }), await plainVectors(TEXTS));
  },
  async explicitBase64() {
    const [packed] = await vectors({ input: FOX, encoding_format: "base64" });
    const bytes = Buffer.from(packed, "base64");
    const vector = Array.from({ length: DIMS }, (_, at) => bytes.readFloatLE(4 * at));
    sameVectors([vector], await plainVectors([FOX]));
  },
  async dimensions() {
    const wanted = (await plainVectors(TEXTS)).map((vector) => shortened(vector, 128));
    sameVectors(await vectors({ input: TEXTS, dimensions: 128 }), wanted);
  },
  async usage() {
    const { usage, model, object } = await client.embeddings.create({ model: MODEL, input: FOX });
    assert.ok(usage.prompt_tokens > 8 && usage.total_tokens === usage.prompt_tokens);
    assert.deepEqual([model, object], [MODEL, "list"]);
  },
  async refusals() {
    const refused = [
      [NotFoundError, "MODEL_NOT_FOUND", { model: "no/such-model", input: FOX }],
      [UnprocessableEntityError, "INVALID_REQUEST", { input: FOX, dimensions: DIMS + 1 }],
      [BadRequestError, "INVALID_REQUEST", { input: Array(2049).fill("a") }],
    ];
    for (const [kind, code, fields] of refused) {
      await assert.rejects(vectors(fields), (error) => {
        assert.ok(error instanceof kind, `${error.status} ${error.message}`);
        assert.equal(error.code, code);
        return true;
      });
    }
    const stranger = new OpenAI({ baseURL: `${GUARDED}/v1`, apiKey: "sk-wrong" });
    await assert.rejects(vectors({ input: FOX }, stranger), AuthenticationError);
  },
  async models() {
    const ids = [];
    for await (const model of client.models.list()) ids.push(model.id);
    assert.ok(ids.includes(MODEL) && ids.includes(RERANKER), ids.join());
    assert.equal((await client.models.retrieve(MODEL)).id, MODEL);
    await assert.rejects(client.models.retrieve("no/such-model"), NotFoundError);
  },
  async anyKeyPassesWhereNoneIsSet() {
    const anyone = new OpenAI({ baseURL: `${OPEN}/v1`, apiKey: "whatever" });
    sameVectors(await vectors({ input: FOX }, anyone), await plainVectors([FOX]));
  },
});
