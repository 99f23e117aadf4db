// Wires the page: files, paste, drop and drawing go in; predictions, timings and the model card come out.

import { Refusal, fetchModels, fetchVersions, predict } from "./client.js";
import { Drawing } from "./drawing.js";
import * as view from "./view.js";

const $ = (id) => document.getElementById(id);

let cards = [];
let latest = 0;
let lastFiles = [];

function currentCard() {
  return cards.find(({ name }) => name === $("model").value);
}

async function classify(files) {
  const card = currentCard();
  if (!card || files.length === 0) return;
  lastFiles = files;
  const turn = ++latest;
  showCurl();
  try {
    const result = await predict(files, card);
    if (turn === latest) showResult(result, files);
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    if (turn === latest) showProblem(error, files);
  }
}

function showResult({ answer, timings, roundTrip, requestId }, files) {
  $("empty").hidden = true;
  $("problem").hidden = true;
  $("predictions").replaceChildren(
    ...answer.predictions.map((outcome, index) => view.predictionView(outcome, files[index])),
  );
  $("status").textContent = view.spoken(answer.predictions);
  view.showTimings($("timings"), $("legend"), timings, roundTrip);
  showRequestId(requestId);
}

function showProblem(refusal, files) {
  $("empty").hidden = true;
  $("predictions").replaceChildren();
  $("problem").textContent = files.length === 1 ? `${files[0].name}: ${refusal.message}` : refusal.message;
  $("problem").hidden = false;
  $("timings").replaceChildren();
  $("legend").replaceChildren();
  showRequestId(refusal.requestId);
}

function showRequestId(requestId) {
  $("facts").hidden = !requestId;
  $("request-id").textContent = requestId ?? "";
}

function showCurl() {
  const card = currentCard();
  const url = new URL(`predict?${new URLSearchParams({ model: card.name, top_k: 3 })}`, document.baseURI);
  const names = lastFiles.length ? lastFiles.map(({ name }) => name) : ["image.png"];
  const body = names.length === 1
    ? `--data-binary ${quoted(`@${names[0]}`)} -H 'Content-Type: image/*'`
    : names.map((name) => `-F ${quoted(`images=@${name}`)}`).join(" ");
  $("curl").textContent = `curl -sS ${body} \\\n  ${quoted(url.href)}`;
}

function quoted(text) {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

function showCard() {
  const card = currentCard();
  $("card").replaceChildren(...view.cardView(card));
  $("labels").replaceChildren(...view.labelViews(card.labels));
  $("label-count").textContent = card.labels.length;
  $("checks").replaceChildren(...view.checkViews(card.parity));
  $("check-count").textContent = card.parity.length;
  $("brush").value = drawing.suit(Math.min(card.input.height, card.input.width));
  showCurl();
  showVersions();
}

async function showVersions() {
  const { name } = currentCard();
  let versions = [];
  try {
    versions = await fetchVersions(name);
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
  }
  if (currentCard().name !== name) return;
  $("versions").replaceChildren(...view.versionViews(versions));
  $("version-count").textContent = versions.length;
  $("refused").textContent = view.refusedSentence(versions);
  $("refused").hidden = !$("refused").textContent;
}

function take(files) {
  if (files.length === 0) return;
  select("files");
  classify([...files]);
}

// Drawing.

const drawing = new Drawing($("canvas"), classifyDrawing);

async function classifyDrawing() {
  if (!drawing.isEmpty) classify([await drawing.file()]);
}

$("clear").addEventListener("click", () => drawing.clear());
$("brush").addEventListener("input", (event) => {
  drawing.width = Number(event.target.value);
});
$("paper").addEventListener("change", (event) => {
  drawing.isDarkOnLight = event.target.checked;
  drawing.paint();
  classifyDrawing();
});

// Files: chosen, dropped, pasted.

$("files").addEventListener("change", (event) => {
  take(event.target.files);
  event.target.value = "";
});
document.addEventListener("paste", (event) => take(event.clipboardData.files));
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("dropping");
});
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) document.body.classList.remove("dropping");
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dropping");
  take(event.dataTransfer.files);
});

// Tabs, with the arrow keys as the ARIA practices have it.

const TABS = ["files", "draw"];

function select(name) {
  for (const tab of TABS) {
    const isSelected = tab === name;
    $(`tab-${tab}`).setAttribute("aria-selected", isSelected);
    $(`tab-${tab}`).tabIndex = isSelected ? 0 : -1;
    $(`panel-${tab}`).hidden = !isSelected;
  }
}

for (const [index, tab] of TABS.entries()) {
  $(`tab-${tab}`).addEventListener("click", () => select(tab));
  $(`tab-${tab}`).addEventListener("keydown", (event) => {
    if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return;
    const other = TABS[(index + 1) % TABS.length];
    select(other);
    $(`tab-${other}`).focus();
  });
}

// Model, copying, start.

$("model").addEventListener("change", () => {
  showCard();
  classify(lastFiles);
});
// Browsers lend the clipboard to secure pages only.
$("copy").hidden = !navigator.clipboard;
$("copy").addEventListener("click", async () => {
  await navigator.clipboard.writeText($("curl").textContent);
  $("copy").textContent = "Copied";
  setTimeout(() => ($("copy").textContent = "Copy"), 1500);
});

try {
  cards = await fetchModels();
  $("model").replaceChildren(...view.optionViews(cards));
  $("model").disabled = cards.length < 2;
  showCard();
} catch (error) {
  if (!(error instanceof Refusal)) throw error;
  $("models-error").textContent = error.message;
  $("models-error").hidden = false;
}
