// Turns answers and model cards into elements. Text only ever enters as text, never as markup.

import { plainly } from "./client.js";

const STAGES = ["decode", "queue", "inference"];

/** An element with attributes (or style variables, for names that start with two dashes) and children. */
export function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("--")) node.style.setProperty(name, value);
    else node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

function percent(probability) {
  if (probability > 0 && probability < 0.0001) return "<0.01 %";
  return `${(probability * 100).toFixed(probability < 0.09995 ? 2 : 1)} %`;
}

function milliseconds(value) {
  return `${value < 10 ? value.toFixed(2) : value.toFixed(0)} ms`;
}

/** One image's outcome: its picture beside its bars, or beside what is wrong with it. */
export function predictionView(outcome, file) {
  const body = outcome.error
    ? element("p", { class: "notice error" }, plainly(outcome.error.reason, outcome.error.detail))
    : element("div", {}, heading(outcome, file), bars(outcome.top));
  return element("li", { class: "prediction" }, preview(file), body);
}

function heading(outcome, file) {
  const title = outcome.labels ? outcome.labels.map(({ label }) => label).join(", ") || "none" : outcome.label;
  return element("h3", {}, title, " ", element("small", {}, file.name));
}

function bars(top) {
  const rows = top.map(({ label, probability }) =>
    element(
      "li",
      {},
      element("span", { class: "label", title: label }, label),
      element("span", { class: "track" }, element("span", { class: "fill", "--share": `${probability * 100}%` })),
      element("span", { class: "value" }, percent(probability)),
    ),
  );
  return element("ol", { class: "bars" }, ...rows);
}

function preview(file) {
  const url = URL.createObjectURL(file);
  const image = element("img", { src: url, alt: `What was sent: ${file.name}` });
  image.addEventListener("load", () => {
    URL.revokeObjectURL(url);
    image.classList.toggle("tiny", image.naturalWidth < 96);
  });
  image.addEventListener("error", () => {
    URL.revokeObjectURL(url);
    image.replaceWith(element("div", { class: "no-preview" }, "no preview in this browser"));
  });
  return image;
}

/** The answer in one sentence, for screen readers. */
export function spoken(outcomes) {
  return outcomes
    .map((outcome) => (outcome.error ? "an error" : `${outcome.label}, ${percent(outcome.probability)}`))
    .join("; ");
}

/** Fills the bar of stages and its legend; what the stages do not explain is HTTP and network. */
export function showTimings(bar, legend, timings, roundTrip) {
  const stages = STAGES.filter((name) => name in timings).map((name) => [name, name, timings[name]]);
  const known = stages.reduce((sum, [, , value]) => sum + value, 0);
  if (roundTrip > known) stages.push(["rest", "HTTP and network", roundTrip - known]);
  const words = stages.map(([, name, value]) => `${name} ${milliseconds(value)}`);
  bar.replaceChildren(...stages.map(([kind, , value]) => element("span", { class: kind, "--part": value })));
  bar.setAttribute("aria-label", words.join(", "));
  legend.replaceChildren(
    ...stages.map(([kind], index) => element("li", { class: kind }, words[index])),
    element("li", { class: "total" }, `round trip ${milliseconds(roundTrip)}`),
  );
}

/** The facts of a model card as a description list's children. */
export function cardView(card) {
  return facts(card)
    .filter(([, value]) => value)
    .map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, value)));
}

function facts(card) {
  const { input, fold, producer } = card;
  const resize = input.resize_to ? `${input.resize} ${input.resize_to}` : input.resize;
  return [
    ["Model", `${card.name}, version ${card.version}`],
    ["Network", card.architecture],
    ["Task", `${card.task}, ${card.labels.length} labels`],
    ["Accuracy", card.accuracy.map(({ dataset, split, value }) => `${percent(value)} on ${dataset} ${split}`).join("; ")],
    ["Input", `${input.height} × ${input.width}, ${input.colour_order}`],
    ["Resize", `${resize}, ${input.interpolation}`],
    ["Precision", card.precision],
    ["Batch Normalization", fold && `${fold.folded} of ${fold.batch_norms} folded away, error ${fold.error.toExponential(1)}`],
    ["Runs on", card.provider],
    ["Made", new Date(card.created_at).toLocaleString()],
    ["Made with", [`Foldserve ${producer.foldserve}`, producer.torch && `torch ${producer.torch}`].filter(Boolean).join(", ")],
  ];
}

/** One row of the parity table per check. */
export function checkViews(parity) {
  return parity.map(({ check, error, tolerance, instances }) =>
    element(
      "tr",
      {},
      element("td", {}, check),
      element("td", {}, error.toExponential(1)),
      element("td", {}, tolerance.toExponential(0)),
      element("td", {}, String(instances)),
    ),
  );
}

/** One row per version, with the reason of each that was refused. */
export function versionViews(versions) {
  return versions.map(({ version, state, roles, refusal, reason }) =>
    element(
      "tr",
      {},
      element("td", {}, version),
      element("td", {}, state.toLowerCase()),
      element("td", {}, roles.join(", ")),
      element("td", {}, [refusal, reason].filter(Boolean).join(": ")),
    ),
  );
}

/** What an operator should know at once; empty where every version is good. */
export function refusedSentence(versions) {
  const refused = versions.filter(({ refusal }) => refusal).map(({ version, refusal }) => `${version} (${refusal})`);
  return refused.length ? `Refused: version ${refused.join(", ")}. What served before still does; see below why.` : "";
}

export function labelViews(labels) {
  return labels.map((label) => element("li", {}, label));
}

export function optionViews(cards) {
  return cards.map(({ name, version }) => element("option", { value: name }, `${name} (version ${version})`));
}
