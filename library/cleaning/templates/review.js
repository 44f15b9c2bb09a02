"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const element = id => document.getElementById(id);
const cards = [...document.querySelectorAll(".suspect")];
const cardOf = new Map(cards.map(card => [card.dataset.id, card]));
const suspects = new Map(data.suspects.map(each => [String(each.id), each]));
const UNDECIDED = {action: "undecided", labels: []};
const MAX_DIGIT_CLASSES = 10;
const RETRY_MS = 3000;

// What the server has saved, and what it has not yet, by id; the second outlives this page.
let saved = new Map(Object.entries(data.decisions));
const storageKey = "unsaved decisions " + data.version;
const pending = new Map(readUnsaved());
const undone = [];  // What each decision in this tab replaced, the last one last.
const otherTabs = new BroadcastChannel("decisions");
let current = null, isSaving = false, hasFailed = false, timer = 0;

const decisionOf = id => pending.get(id)?.decision ?? saved.get(id) ?? UNDECIDED;
const isDecided = id => decisionOf(id).action !== "undecided";
const isShown = card => !card.hidden;
const isSame = (one, other) => JSON.stringify(one) === JSON.stringify(other);
const named = labels => labels.join(" + ") || "no class";

// Decisions.

function describe(decision, suspect) {
  switch (decision.action) {
    case "relabel": return `relabeled to ${named(decision.labels)}`;
    case "keep": return `kept as ${named(suspect.label)}`;
    case "drop": return "dropped";
    default: return "undecided";
  }
}

function decide(id, decision) {
  const suspect = suspects.get(id);
  if (decision.action === "relabel" && isSame(decision.labels, suspect.label)) {
    decision = {action: "keep", labels: []};
  }
  undone.push([id, decisionOf(id)]);
  change(id, decision);
}

function change(id, decision) {
  const expected = pending.get(id)?.expected ?? saved.get(id) ?? UNDECIDED;
  pending.set(id, {decision, expected});
  storeUnsaved();
  show(id);
  showProgress();
  element("said").textContent =
    `${suspects.get(id).file}: ${describe(decision, suspects.get(id))}. ${progress()}`;
  save();
}

// Undo the last decision in this tab or, if there is none, that about the current image.
function undo() {
  const [id, before] = undone.pop() ?? [current.dataset.id, UNDECIDED];
  if (!isSame(decisionOf(id), before)) change(id, before);
  select(cardOf.get(id));
}

// Send all that is pending, one decision after another. Each is saved when the server says so.
async function save() {
  if (isSaving) return;
  isSaving = true;
  clearTimeout(timer);
  let problem = "";
  while (pending.size && !problem) {
    const [[id, sent]] = pending;
    const [status, answer] = await request("POST",
      {version: data.version, id: Number(id), ...sent.decision, expected: sent.expected});
    if (status === 200 || status === 409) {
      if (pending.get(id) === sent) pending.delete(id);
      else pending.get(id).expected = sent.decision;
      storeUnsaved();
      hasFailed = false;
      take(answer);
      show(id);
      otherTabs.postMessage(answer);
      if (status === 409) tell(`${suspects.get(id).file}: ${sentence(answer.message)}`, false);
      else tell("");
    } else if (status === 422) {
      pending.delete(id);
      storeUnsaved();
      show(id);
      tell(`Not saved: ${sentence(answer.message)}`, false);
    } else {
      problem = answer.message;
    }
  }
  isSaving = false;
  hasFailed = Boolean(problem);
  if (problem) {
    tell(`Not saved: ${sentence(problem)} ${count(pending.size, "decision")} kept in this browser.`,
         true);
    timer = setTimeout(save, RETRY_MS);
  }
  pending.forEach((_, id) => show(id));
}

async function request(method, body) {
  try {
    const response = await fetch("decisions", method === "GET" ? {} : {
      method, body: JSON.stringify(body), headers: {"Content-Type": "application/json"}});
    return [response.status, await response.json()];
  } catch {
    return [0, {message: "the server does not answer"}];
  }
}

// Show what the server says is saved.
function take(state) {
  if (state.version !== data.version) {
    tell("The list of suspicious images is a new one: reload this page.", false);
    return;
  }
  const before = saved;
  saved = new Map(Object.entries(state.decisions));
  for (const id of new Set([...before.keys(), ...saved.keys()])) {
    if (!isSame(before.get(id), saved.get(id))) show(id);
  }
  showProgress();
}

async function refresh() {
  const [status, state] = await request("GET");
  if (status === 200) take(state);
}

function readUnsaved() {
  try {
    return JSON.parse(localStorage.getItem(storageKey)) ?? [];
  } catch {
    return [];
  }
}

function storeUnsaved() {
  try {
    if (pending.size) localStorage.setItem(storageKey, JSON.stringify([...pending]));
    else localStorage.removeItem(storageKey);
  } catch { /* No storage: they are kept as long as the page is open. */ }
}

// What is shown.

const sentence = text => text.endsWith("?") ? text : text + ".";
const count = (number, noun) => `${number} ${noun}${number === 1 ? " is" : "s are"}`;

const countDecided = () => cards.filter(card => isDecided(card.dataset.id)).length;
const progress = () => `${countDecided()} of ${cards.length} decided`;

function tell(text, canRetry) {
  element("error").hidden = !text;
  element("error").firstElementChild.textContent = text;
  element("retry").hidden = !canRetry;
}

function show(id) {
  const card = cardOf.get(id);
  if (!card) return;
  const isUnsaved = pending.has(id) && hasFailed;
  const text = describe(decisionOf(id), suspects.get(id));
  card.classList.toggle("decided", isDecided(id));
  card.classList.toggle("unsaved", isUnsaved);
  const line = card.querySelector(".decision");
  line.hidden = !isDecided(id) && !isUnsaved;
  line.textContent = text[0].toUpperCase() + text.slice(1) + (isUnsaved ? ", not saved" : "");
  if (card === current) showClasses();
}

function showProgress() {
  element("count").textContent = progress();
  element("progress").value = countDecided();
}

// The classes that digits choose: all, if they are few, or those of the neighbors.
function candidates(suspect) {
  if (data.classes.length <= MAX_DIGIT_CLASSES) return data.classes;
  const near = suspect.neighbors.flat();
  return [...new Set([...suspect.suggestion, ...near, ...suspect.label])].slice(0, MAX_DIGIT_CLASSES);
}

function chosenLabels(id) {
  const decision = decisionOf(id);
  return decision.action === "relabel" ? decision.labels : suspects.get(id).label;
}

function showClasses() {
  if (!element("classes") || !current) return;
  const id = current.dataset.id, chosen = isDecided(id) ? chosenLabels(id) : [];
  const marked = data.multi_label ? chosenLabels(id) : chosen;
  element("classes").replaceChildren(...candidates(suspects.get(id)).map((name, position) => {
    const button = document.createElement("button"), key = document.createElement("kbd");
    button.type = "button";
    button.setAttribute("aria-pressed", marked.includes(name));
    key.textContent = (position + 1) % 10;
    button.append(key, " " + name);
    button.addEventListener("click", () => choose(name));
    return button;
  }));
}

function select(card) {
  if (!card) return;
  mark(card);
  card.focus({preventScroll: true});
  const {top, bottom} = card.getBoundingClientRect();
  if (top < 0 || bottom > innerHeight - element("bar").offsetHeight) card.scrollIntoView();
}

function mark(card) {
  // Tab reaches one card, from which the arrow keys lead to the others.
  const before = document.querySelector(".suspect[tabindex='0']");
  before.removeAttribute("aria-current");
  before.tabIndex = -1;
  card.tabIndex = 0;
  current = card;
  card.setAttribute("aria-current", "true");
  showClasses();
}

function step(by, isWanted = isShown) {
  let position = cards.indexOf(current) + by;
  while (cards[position] && !isWanted(cards[position])) position += by;
  select(cards[position]);
}

const nextUndecided = () => step(1, card => isShown(card) && !isDecided(card.dataset.id));

// A class of a single label is a decision; of several labels, it is added or removed.
function choose(name) {
  const id = current.dataset.id;
  if (!data.multi_label) {
    decide(id, {action: "relabel", labels: [name]});
    return step(1);
  }
  const labels = new Set(chosenLabels(id));
  if (!labels.delete(name)) labels.add(name);
  decide(id, {action: "relabel", labels: [...labels].sort(byPosition)});
  select(current);  // The button that had the focus is a new one.
}

const byPosition = (one, other) => data.classes.indexOf(one) - data.classes.indexOf(other);

function filter() {
  const wanted = Object.fromEntries(
    ["pair", "reason", "decided"].map(id => [id, element(id).value]));
  for (const card of cards) {
    card.hidden = Boolean(
      wanted.pair && card.dataset.pair !== wanted.pair ||
      wanted.reason && !card.dataset.reasons.split(" ").includes(wanted.reason) ||
      wanted.decided && isDecided(card.dataset.id) !== (wanted.decided === "yes"));
  }
  const shown = cards.filter(isShown);
  element("shown").textContent = `${shown.length} of ${cards.length} shown`;
  // A key must not decide about an image that is out of sight.
  if (current?.hidden) current = null;
  if (!current && shown.length) mark(shown[0]);
}

// The search for a class.

function findClass(text) {
  const wanted = text.trim().toLowerCase();
  if (!wanted) return undefined;
  const lower = data.classes.map(name => name.toLowerCase());
  for (const fits of [name => name === wanted, name => name.startsWith(wanted),
                      name => name.includes(wanted)]) {
    const position = lower.findIndex(fits);
    if (position >= 0) return data.classes[position];
  }
  return undefined;
}

function search() {
  element("query").value = "";
  element("match").textContent = "";
  element("search").showModal();
}

function endSearch(name) {
  element("search").close();
  current.focus({preventScroll: true});
  if (name) choose(name);
}

// Keys and clicks.

const ACTIONS = {
  accept: id => {
    const {suggestion, can_accept: canAccept} = suspects.get(id);
    if (canAccept) decide(id, {action: "relabel", labels: suggestion});
  },
  keep: id => decide(id, {action: "keep", labels: []}),
  drop: id => decide(id, {action: "drop", labels: []}),
};
const KEYS = {a: "accept", k: "keep", d: "drop"};
const MOVES = {
  ArrowDown: () => step(1), ArrowRight: () => step(1),
  ArrowUp: () => step(-1), ArrowLeft: () => step(-1), n: nextUndecided,
};

function act(action) {
  if (action === "search") return search();
  ACTIONS[action](current.dataset.id);
  step(1);
}

function press(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || !current) return;
  if (event.target.closest("input, select, textarea, dialog")) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (key in MOVES) MOVES[key]();
  else if (!data.is_served || event.repeat) return;
  else if (key in KEYS) act(KEYS[key]);
  else if (key === "u") undo();
  else if (key === "/") search();
  else if (/^[0-9]$/.test(key)) {
    const name = candidates(suspects.get(current.dataset.id))[(Number(key) + 9) % 10];
    if (name) choose(name);
  } else return;
  event.preventDefault();
}

document.addEventListener("keydown", press);
element("suspects").addEventListener("click", event => {
  const card = event.target.closest(".suspect");
  if (!card) return;
  const button = event.target.closest("[data-action]");
  select(card);
  if (button) act(button.dataset.action);
});
element("suspects").addEventListener("focusin", event => {
  const card = event.target.closest(".suspect");
  if (card && card !== current) mark(card);
});
for (const id of ["pair", "reason", "decided"]) element(id).addEventListener("change", filter);

if (data.is_served) {
  new ResizeObserver(() => {
    document.documentElement.style.setProperty("--bar", `${element("bar").offsetHeight}px`);
  }).observe(element("bar"));
  element("retry").addEventListener("click", save);
  element("undo").addEventListener("click", () => { if (current) undo(); });
  element("query").addEventListener("input", () => {
    const text = element("query").value, name = findClass(text);
    element("match").textContent = name ? `→ ${name}` : text ? "no such class" : "";
  });
  element("search").addEventListener("submit", event => {
    event.preventDefault();
    const name = findClass(element("query").value);
    if (name) endSearch(name);
  });
  element("cancel").addEventListener("click", () => endSearch());
  element("search").addEventListener("cancel", event => {
    event.preventDefault();
    endSearch();
  });
  otherTabs.addEventListener("message", event => take(event.data));
  document.addEventListener("visibilitychange", () => { if (!document.hidden) refresh(); });
  window.addEventListener("beforeunload", event => { if (pending.size) event.preventDefault(); });
}

cards.forEach(card => show(card.dataset.id));
showProgress();
filter();
if (data.is_served) {
  select(cards.find(card => !isDecided(card.dataset.id)) ?? cards[0]);
  save();
}
