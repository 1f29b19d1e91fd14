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
  const listed = new Map((list.data || []).map((model) => [model.id, { ...model, name: model.id }]));
  if (!Array.isArray(health.models) || !health.models.length) return [...listed.values()];
  return health.models.map((model) => ({ inputs: listed.get(model.name)?.inputs, ...model }));
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
    showChoice(known.filter((model) => model.tasks?.includes("encode")));
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

async function embed(input) {
  const reply = await fetch("/v1/embeddings", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ input, model: byId("model").value || undefined }),
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
    const [a, b] = await embed(SIDES.map((one) => one.held()));
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

/** Which of the models answers, where there are several; pictures only where it sees. */
function showChoice(known) {
  const chosen = byId("model").value;
  byId("choice").hidden = known.length < 2;
  byId("model").replaceChildren(...known.map((model) => new Option(model.name, model.name)));
  if (known.some((model) => model.name === chosen)) byId("model").value = chosen;
  const sees = new Set(
    known.filter((model) => model.inputs?.includes("image")).map((model) => model.name),
  );
  const show = () => SIDES.forEach((side) => side.allow(sees.has(byId("model").value)));
  byId("model").onchange = show;
  show();
}

/** One of the two things to compare: a text, or the picture that was chosen in its place. */
function side(id) {
  const part = (name) => byId(`side-${id}`).querySelector(name);
  const [file, shown, remove] = ["input", "img", "button"].map(part);
  const show = (picture) => {
    shown.src = picture;
    shown.hidden = remove.hidden = !picture;
    byId(id).parentElement.hidden = Boolean(picture);
    byId(id).required = !picture;
    if (!picture) file.value = "";
  };
  file.addEventListener("change", () => {
    const reader = new FileReader();
    reader.addEventListener("load", () => show(reader.result));
    if (file.files.length) reader.readAsDataURL(file.files[0]);
    else show("");
  });
  remove.addEventListener("click", () => {
    show("");
    byId(id).focus();
  });
  return {
    allow(sees) {
      file.parentElement.hidden = !sees;
      if (!sees) show("");
    },
    held: () => (remove.hidden ? byId(id).value : { image: shown.src }),
  };
}

const SIDES = ["a", "b"].map(side);

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
    `reply = client.embeddings.create(\n    model=${JSON.stringify(model)}, input=${input})\n` +
    "print(len(reply.data[0].embedding))";
}

showCalls("", false);
refresh();
byId("form").addEventListener("submit", compare);
