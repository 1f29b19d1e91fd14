"use strict";

const byId = (id) => document.getElementById(id);
const ABILITIES = { encode: "embeds", score: "reranks", embed: "embeds", rerank: "reranks" };
const RETRY = 1500; // milliseconds between questions while a model is loading

/** A table cell; the text is never read as markup. */
function cell(text) {
  const made = document.createElement("td");
  made.textContent = text === null || text === undefined || text === "" ? "–" : String(text);
  return made;
}

function row(model) {
  const made = document.createElement("tr");
  const tasks = [model.tasks || model.capabilities || []].flat();
  made.append(
    cell(model.name),
    cell(tasks.map((task) => ABILITIES[task] || task).join(", ")),
    cell(model.dimension),
    cell(model.max_tokens),
    cell(model.state),
  );
  if (model.reason) made.lastChild.title = model.reason;
  return made;
}

/** One shape for what /health and /v1/models say. */
function models(health, list) {
  if (Array.isArray(health.models) && health.models.length) return health.models;
  return (list.data || []).map((model) => ({ ...model, name: model.id }));
}

function showState(status) {
  const kinds = { ready: "good", loading: "wait", stopping: "wait" };
  byId("state").textContent = status;
  byId("state").className = `state ${kinds[status] || "bad"}`;
}

async function refresh() {
  try {
    const [health, list] = await Promise.all(
      ["/health", "/v1/models"].map((path) => fetch(path).then((reply) => reply.json())),
    );
    showState(health.status || "unknown");
    const known = models(health, list);
    byId("models").replaceChildren(...known.map(row));
    if (known.length) showCalls(known[0].name, health.api_key_needed);
    if (health.status === "loading") setTimeout(refresh, RETRY);
  } catch {
    showState("no answer");
    setTimeout(refresh, 2 * RETRY);
  }
}

function cosine(a, b) {
  let dot = 0;
  let left = 0;
  let right = 0;
  for (let i = 0; i < a.length; i += 1) {
    dot += a[i] * b[i];
    left += a[i] * a[i];
    right += b[i] * b[i];
  }
  return dot / Math.sqrt(left * right);
}

async function embed(texts) {
  const reply = await fetch("/v1/embeddings", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ input: texts }),
  });
  const said = await reply.json();
  if (!reply.ok) throw new Error(said.error ? said.error.message : `status ${reply.status}`);
  return said.data.map((found) => found.embedding);
}

async function compare(event) {
  event.preventDefault();
  const button = byId("form").querySelector("button");
  const answer = byId("answer");
  button.setAttribute("aria-busy", "true");
  try {
    const started = performance.now();
    const [a, b] = await embed([byId("a").value, byId("b").value]);
    const score = cosine(a, b);
    byId("meter").value = Math.max(0, score);
    answer.className = "";
    answer.textContent =
      `Similarity ${score.toFixed(3)} · ${a.length} dimensions · ` +
      `${Math.round(performance.now() - started)} ms`;
  } catch (error) {
    answer.className = "bad";
    answer.textContent = error.message || "The server did not answer.";
  } finally {
    button.removeAttribute("aria-busy");
  }
}

function showCalls(model, keyed) {
  const here = window.location.origin;
  const input = '["a text", "another"]';
  const header = keyed ? " -H 'Authorization: Bearer YOUR_KEY'" : "";
  byId("curl").textContent =
    `curl ${here}/v1/embeddings${header} -H 'Content-Type: application/json' \\\n` +
    `  -d '{"input": ${input}}'`;
  byId("python").textContent =
    "from openai import OpenAI\n\n" +
    `client = OpenAI(base_url="${here}/v1", api_key="${keyed ? "YOUR_KEY" : "none"}")\n` +
    `reply = client.embeddings.create(model=${JSON.stringify(model)}, input=${input})\n` +
    "print(len(reply.data[0].embedding))";
}

showCalls("", false);
refresh();
byId("form").addEventListener("submit", compare);
