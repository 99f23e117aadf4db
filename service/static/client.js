// What the page asks of the service. Paths are relative, so it works below any prefix.

/** The error reasons in plain words; the service's own detail follows them. */
const REASONS = {
  malformed_body: "The request was not understood.",
  invalid_parameter: "A setting of the request is not possible.",
  unauthenticated: "This service wants an API key, which this page does not have.",
  forbidden: "This API key may not do that.",
  model_not_found: "This model is not served any more. Reload the page.",
  slow_client: "The upload took too long.",
  body_too_large: "This file is too large for this service.",
  too_many_pixels: "This image has too many pixels for this service.",
  too_many_images: "These are too many images at once.",
  unsupported_media_type: "This image format is not accepted.",
  undecodable_image: "This is no image, or a damaged one.",
  rate_limited: "Too many requests. Wait a moment.",
  overloaded: "The service is busy. Try again in a moment.",
  not_ready: "The model is not ready yet. Try again in a moment.",
  shutting_down: "The service is shutting down.",
  deadline_exceeded: "The answer took too long.",
  inference_failed: "The model failed. The operator finds the cause under the request id.",
};

/** A refusal by the service, or no answer at all. */
export class Refusal extends Error {
  constructor(reason, detail, requestId) {
    super(plainly(reason, detail));
    this.requestId = requestId;
  }
}

export function plainly(reason, detail) {
  return [REASONS[reason] ?? "The service refused this.", detail && `(${detail})`].filter(Boolean).join(" ");
}

/** The cards of all models that serve, the default one first. */
export async function fetchModels() {
  return (await answered(fetch("models"))).json();
}

/** What became of each version of a model, the highest first. */
export async function fetchVersions(model) {
  const response = await answered(fetch(`models/${encodeURIComponent(model)}`));
  return (await response.json()).versions;
}

/**
 * Classifies images in one request.
 *
 * @param {File[]} images one or more
 * @param {{name: string}} model
 * @returns answer (the JSON), timings ({name: milliseconds}) and requestId
 */
export async function predict(images, model) {
  const started = performance.now();
  const url = `predict?${new URLSearchParams({ model: model.name })}`;
  const response = await answered(fetch(url, { method: "POST", ...encoded(images) }));
  const answer = await response.json();
  const timings = parseTimings(response.headers.get("Server-Timing") ?? "");
  return { answer, timings, roundTrip: performance.now() - started, requestId: answer.request_id };
}

function encoded(images) {
  if (images.length === 1) {
    return { body: images[0], headers: { "Content-Type": images[0].type || "application/octet-stream" } };
  }
  const form = new FormData();
  images.forEach((image, index) => form.append("images", image, image.name || `image-${index}`));
  return { body: form };
}

async function answered(request) {
  let response;
  try {
    response = await request;
  } catch {
    throw new Refusal(null, "no answer: is the service still running?", null);
  }
  if (response.ok) return response;
  const problem = await response.json().catch(() => ({}));
  throw new Refusal(problem.reason, problem.detail, problem.request_id ?? response.headers.get("X-Request-ID"));
}

/** `decode;dur=0.4, queue;dur=0.1` as an object. */
function parseTimings(header) {
  const entries = header.matchAll(/([a-z_]+)\s*;\s*dur=([\d.]+)/g);
  return Object.fromEntries([...entries].map(([, name, milliseconds]) => [name, Number(milliseconds)]));
}
