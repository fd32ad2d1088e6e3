// The page of eet_tf.service: what is searched by, the filters, and what was found. No libraries, no other server.
"use strict";

const byId = (id) => document.getElementById(id);
const form = byId("form"), results = byId("results"), neighbors = byId("neighbors"), preview = byId("preview"), small = byId("small");
const filters = [...form.querySelectorAll("[data-filter]")];
const maxBytes = Number(document.body.dataset.maxBytes);
const isWide = matchMedia("(min-width: 56.01rem)");

// What was searched by, so that the browser's Back button goes back: {file, url} or {like, url, name}. The history of
// a page that was loaded before has other keys.
const queries = new Map(), loaded = Date.now();
let current = null;
let waiting = null; // the search that is on its way

function showError(error) {
  byId("error").textContent = error;
  byId("error").hidden = !error;
  if (error) byId("error").scrollIntoView({ block: "nearest" }); // on a phone it may be far below
}

function showStatus(status) {
  byId("status").textContent = status;
}

function tile(found) {
  const item = byId("tile").content.cloneNode(true);
  const button = item.querySelector("button"), image = item.querySelector("img");
  const score = found.score === null ? "" : found.score.toFixed(3);
  image.src = found.url;
  image.alt = `Photo of ${found.sku}`;
  image.addEventListener("error", () => { image.parentNode.textContent = "no picture"; });
  item.querySelector(".sku").textContent = found.sku;
  item.querySelector(".facts").textContent = found.facts.join(" · ");
  item.querySelector(".score").textContent = score;
  button.title = "Search by this photo";
  button.setAttribute("aria-label", `Search by ${found.sku}` + (score && `, similarity ${score}`) + found.facts.map((fact) => `, ${fact}`).join(""));
  button.addEventListener("click", () => start({ like: found.photo, url: found.url, name: found.sku }));
  return item;
}

async function ask(address, options) {
  let answer;
  try {
    answer = await fetch(address, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("This page's server does not answer. Is it still running?");
  }
  const content = await answer.json().catch(() => ({ error: `The server answered with ${answer.status}.` }));
  if (!answer.ok) throw new Error(content.error);
  return content;
}

function formOf(query) {
  const fields = new FormData(form);
  for (const [name, value] of [...fields]) if (!value) fields.delete(name);
  if (query.file) fields.set("photo", query.file, "photo");
  else fields.set("like", query.like);
  return fields;
}

async function search(query) {
  waiting?.abort();
  const own = (waiting = new AbortController());
  results.setAttribute("aria-busy", "true");
  byId("heading").textContent = "What looks like it";
  showError("");
  showStatus("Searching …");
  try {
    const found = await ask(form.action, { method: "POST", body: formOf(query), signal: own.signal });
    neighbors.replaceChildren(...found.neighbors.map(tile));
    const count = found.neighbors.length;
    const took = `${Math.max(1, Math.round(1000 * found.seconds))} ms`;
    // leaves an error as it is: a file may have been refused while this search was on its way
    showStatus(count ? `${count} of ${found.searched.toLocaleString("en")} photos, ${took}` : "No photo meets these filters.");
  } catch (error) {
    if (own !== waiting) return; // a later search has begun
    neighbors.replaceChildren();
    showError(error.message);
    showStatus("");
  } finally {
    if (own === waiting) results.removeAttribute("aria-busy");
  }
}

function open(query) {
  current = query;
  preview.src = small.src = query.url;
  preview.alt = query.file ? "Your photo" : `Photo of ${query.name}`;
  preview.hidden = small.hidden = false;
  byId("hint").hidden = true;
  byId("drop").classList.add("full");
  byId("query-heading").textContent = preview.alt;
  results.scrollIntoView({ block: isWide.matches ? "nearest" : "start" });
  if (isWide.matches) scrollTo(0, 0);
  if (query.like) results.focus({ preventScroll: true }); // the tile that had the focus is about to go
  search(query);
}

// Begins with another photo: one more step for the Back button.
function start(query) {
  const key = `${loaded}-${queries.size}`;
  queries.set(key, query);
  history.pushState(key, "");
  open(query);
}

function startWithFile(file) {
  if (!file) return;
  if (file.type && !file.type.startsWith("image/")) return showError("This is no photo: choose a JPEG, PNG, WebP, BMP or GIF.");
  if (file.size > maxBytes) return show(`This photo is larger than ${Math.round(maxBytes / 2 ** 20)} MB. Choose a smaller one.`);
  start({ file, url: URL.createObjectURL(file) });
}

async function begin() {
  current = null;
  waiting?.abort();
  waiting = null;
  preview.hidden = small.hidden = true;
  byId("hint").hidden = false;
  byId("drop").classList.remove("full");
  byId("query-heading").textContent = "Your photo";
  byId("heading").textContent = "Or begin with one of these";
  results.removeAttribute("aria-busy");
  showError("");
  showStatus("");
  try {
    const found = await ask("samples");
    if (current === null) neighbors.replaceChildren(...found.neighbors.map(tile));
  } catch (error) {
    if (current === null) showError(error.message);
  }
}

function countFilters() {
  const count = filters.filter((field) => (field.type === "checkbox" ? field.checked : field.value)).length;
  byId("active").textContent = count;
  byId("active").hidden = byId("clear").hidden = !count;
}

let pause = null;
function changed(event) {
  countFilters();
  clearTimeout(pause);
  if (current) pause = setTimeout(() => search(current), event?.type === "input" ? 400 : 0);
}

for (const id of ["file", "camera"]) {
  byId(id).addEventListener("change", (event) => {
    startWithFile(event.target.files[0]);
    event.target.value = ""; // so that the same photo can be chosen again
  });
}
form.addEventListener("input", (event) => { if (event.target.type === "number") changed(event); });
form.addEventListener("change", (event) => { if (!["file", "number"].includes(event.target.type)) changed(event); });
form.addEventListener("submit", (event) => {
  event.preventDefault();
  changed();
  if (!isWide.matches) results.scrollIntoView();
});
byId("clear").addEventListener("click", () => {
  for (const field of filters) field.type === "checkbox" ? (field.checked = false) : (field.value = "");
  changed();
});
addEventListener("paste", (event) => startWithFile(event.clipboardData.files[0]));
addEventListener("dragover", (event) => { event.preventDefault(); document.body.classList.add("dragging"); });
addEventListener("dragleave", (event) => { if (!event.relatedTarget) document.body.classList.remove("dragging"); });
addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dragging");
  startWithFile(event.dataTransfer.files[0]);
});
addEventListener("popstate", (event) => {
  const query = queries.get(event.state);
  query ? open(query) : begin();
});
byId("filters").open = isWide.matches;
countFilters();
begin();
