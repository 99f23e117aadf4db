// The OpenAPI document as a page to read. Text only ever enters as text, never as markup.

import { element } from "./view.js";

const METHODS = ["get", "post", "put", "patch", "delete"];
const SCHEMA_PREFIX = "#/components/schemas/";

/** Text with `code` in it, as nodes. */
function prose(text = "") {
  return text.split("`").map((part, index) => (index % 2 ? element("code", {}, part) : part));
}

/** What a schema allows, in a few words; other schemas are links. */
function typeOf(schema) {
  if (!schema) return ["anything"];
  if (schema.$ref) {
    const name = schema.$ref.slice(SCHEMA_PREFIX.length);
    return [element("a", { href: `#schema-${name}` }, name)];
  }
  const choices = schema.anyOf ?? schema.oneOf ?? schema.allOf;
  if (choices) return choices.flatMap((choice, index) => (index ? [" or ", ...typeOf(choice)] : typeOf(choice)));
  if ("const" in schema) return [element("code", {}, JSON.stringify(schema.const))];
  if (schema.enum) return [element("code", {}, schema.enum.join(" | "))];
  if (schema.type === "array") return ["list of ", ...typeOf(schema.items ?? schema.prefixItems?.[0])];
  return [[schema.type ?? "anything", schema.format, ...bounds(schema)].filter(Boolean).join(", ")];
}

function bounds({ minimum, maximum, minItems, pattern }) {
  return [
    minimum !== undefined && `from ${minimum}`,
    maximum !== undefined && `to ${maximum}`,
    minItems && `at least ${minItems}`,
    pattern && `like ${pattern}`,
  ];
}

function table(titles, rows) {
  const head = titles.map((title) => element("th", { scope: "col" }, title));
  const body = rows.map((cells) => element("tr", {}, ...cells.map((cell) => element("td", {}, ...cell))));
  return element(
    "div",
    { class: "scroll" },
    element("table", {}, element("thead", {}, element("tr", {}, ...head)), element("tbody", {}, ...body)),
  );
}

function part(title, titles, rows) {
  return rows.length ? [element("h3", {}, title), table(titles, rows)] : [];
}

function parameterRow({ name, in: place, required, description, schema }) {
  const words = required ? `${place}, required` : place;
  return [[element("code", {}, name)], [words], typeOf(schema), prose(description)];
}

function contentRow([mediaType, { schema }]) {
  return [[element("code", {}, mediaType)], typeOf(schema), prose(schema?.description)];
}

function responseRow([status, { description, content = {} }]) {
  const forms = Object.entries(content).flatMap(([mediaType, { schema }], index) => [
    ...(index ? [", "] : []),
    element("code", {}, mediaType),
    ...(schema ? [" ", ...typeOf(schema)] : []),
  ]);
  return [[element("code", {}, status)], forms, prose(description)];
}

function operationView(path, method, operation) {
  return element(
    "section",
    { class: "panel operation", id: anchor(path, method) },
    element("h2", {}, element("code", { class: "method" }, method.toUpperCase()), " ", element("code", {}, path)),
    element("p", {}, element("strong", {}, operation.summary ?? ""), " ", ...prose(operation.description)),
    ...part("Parameters", ["name", "where", "type", "what"], (operation.parameters ?? []).map(parameterRow)),
    ...part("Body", ["media type", "schema", "what"], Object.entries(operation.requestBody?.content ?? {}).map(contentRow)),
    ...part("Answers", ["status", "body", "when"], Object.entries(operation.responses).map(responseRow)),
  );
}

function anchor(path, method) {
  return `${method}-${path.replace(/[^a-z0-9]+/gi, "-")}`;
}

function schemaView([name, schema]) {
  const required = new Set(schema.required ?? []);
  const rows = Object.entries(schema.properties ?? {}).map(([field, inner]) => [
    [element("code", {}, field)],
    typeOf(inner),
    [required.has(field) ? "required" : ""],
    prose(inner.description),
  ]);
  const body = rows.length ? table(["field", "type", "", "what"], rows) : element("p", {}, ...typeOf(schema));
  return element(
    "details",
    { id: `schema-${name}` },
    element("summary", {}, element("code", {}, name)),
    element("p", {}, ...prose(schema.description)),
    body,
  );
}

/** A link to a folded schema unfolds it. */
function unfold() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (target instanceof HTMLDetailsElement) target.open = true;
  target?.scrollIntoView();
}

function show({ info, paths, components }) {
  const operations = Object.entries(paths).flatMap(([path, methods]) =>
    METHODS.filter((method) => method in methods).map((method) => [path, method, methods[method]]),
  );
  document.getElementById("version").textContent = info.version;
  document
    .getElementById("index")
    .replaceChildren(
      ...operations.map(([path, method]) =>
        element("a", { href: `#${anchor(path, method)}` }, `${method.toUpperCase()} ${path}`),
      ),
    );
  document.getElementById("operations").replaceChildren(...operations.map((each) => operationView(...each)));
  document.getElementById("schemas").replaceChildren(...Object.entries(components.schemas).map(schemaView));
  unfold();
}

try {
  const response = await fetch("openapi.json");
  if (!response.ok) throw new Error(`openapi.json was answered ${response.status}`);
  show(await response.json());
  addEventListener("hashchange", unfold);
} catch (error) {
  const problem = document.getElementById("problem");
  problem.textContent = `The document could not be read: ${error.message}`;
  problem.hidden = false;
}
