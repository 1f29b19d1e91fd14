// The Vercel AI SDK against a running omnivec: embed and embedMany through
// @ai-sdk/openai-compatible, rerank through @ai-sdk/cohere. See checks.mjs.

import assert from "node:assert/strict";
import { createCohere } from "@ai-sdk/cohere";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { APICallError, cosineSimilarity, embed, embedMany, rerank } from "ai";
import { DIMS, DOCUMENTS, FOX, GUARDED, KEY, MODEL, OPEN, QUERY, RERANKER, TEXTS } from "./checks.mjs";
import { main, plainScores, plainVectors, sameVectors, shortened } from "./checks.mjs";

const omnivec = createOpenAICompatible({ name: "omnivec", baseURL: `${GUARDED}/v1`, apiKey: KEY });
const model = omnivec.embeddingModel(MODEL);
const cohere = createCohere({ baseURL: `${GUARDED}/v2`, apiKey: KEY });

function refusedWith(status) {
  return (error) => {
    assert.ok(APICallError.isInstance(error), error.stack);
    assert.equal(error.statusCode, status);
    return true;
  };
}

await main({
  async embedOne() {
    const { embedding, usage } = await embed({ model, value: FOX });
    assert.equal(embedding.length, DIMS);
    assert.ok(usage.tokens > 8);
    sameVectors([embedding], await plainVectors([FOX]));
  },
  async embedManyKeepsItsOrder() {
    const { embeddings, values } = await embedMany({ model, values: TEXTS });
    assert.deepEqual(values, TEXTS);
    sameVectors(embeddings, await plainVectors(TEXTS));
  },
  async embedManyOverOneCallsLimit() {
    const values = Array.from({ length: 2100 }, (_, at) => `n${at % 50}`);
    const { embeddings } = await embedMany({ model, values, maxParallelCalls: 2 });
    assert.equal(embeddings.length, 2100);
    sameVectors(embeddings.slice(2050), await plainVectors(values.slice(2050)));
  },
  async dimensionsAsAProviderOption() {
    const providerOptions = { omnivec: { dimensions: 128, user: "u-1" } };
    const { embeddings } = await embedMany({ model, values: TEXTS, providerOptions });
    sameVectors(embeddings, (await plainVectors(TEXTS)).map((vector) => shortened(vector, 128)));
  },
  async similarTextsAreSimilar() {
    const values = ["a cat sat on the mat", "a kitten rests on a rug", "quarterly tax returns"];
    const { embeddings } = await embedMany({ model, values });
    const [cat, kitten, tax] = embeddings;
    assert.ok(cosineSimilarity(cat, kitten) > cosineSimilarity(cat, tax) + 0.2);
  },
  async rerankThroughCohere() {
    for (const name of [MODEL, RERANKER]) {
      const wanted = (await plainScores(name)).slice(0, 3);
      const { ranking, rerankedDocuments } = await rerank({
        model: cohere.rerankingModel(name),
        query: QUERY,
        documents: DOCUMENTS,
        topN: 3,
      });
      assert.deepEqual(ranking.map((item) => item.originalIndex), wanted.map((item) => item.index));
      sameVectors([ranking.map((item) => item.score)], [wanted.map((item) => item.relevance_score)]);
      assert.deepEqual(rerankedDocuments, wanted.map((item) => DOCUMENTS[item.index]));
    }
  },
  async rerankOfObjects() {
    const documents = DOCUMENTS.map((text, id) => ({ id, text }));
    const { ranking } = await rerank({ model: cohere.rerankingModel(MODEL), query: QUERY, documents });
    assert.equal(ranking.length, DOCUMENTS.length);
    assert.deepEqual(ranking.slice(0, 2).map((item) => item.originalIndex).sort(), [1, 3]);
  },
  async refusals() {
    const once = { value: FOX, maxRetries: 0 };
    const unknown = omnivec.embeddingModel("no/such-model");
    await assert.rejects(embed({ model: unknown, ...once }), refusedWith(404));
    const providerOptions = { omnivec: { dimensions: DIMS + 1 } };
    await assert.rejects(embed({ model, ...once, providerOptions }), refusedWith(422));
    const stranger = createOpenAICompatible({ name: "x", baseURL: `${GUARDED}/v1`, apiKey: "sk-wrong" });
    await assert.rejects(embed({ model: stranger.embeddingModel(MODEL), ...once }), refusedWith(401));
  },
  async withoutAKeyWhereNoneIsSet() {
    const open = createOpenAICompatible({ name: "omnivec", baseURL: `${OPEN}/v1` });
    const { embedding } = await embed({ model: open.embeddingModel(MODEL), value: FOX });
    sameVectors([embedding], await plainVectors([FOX]));
  },
});
