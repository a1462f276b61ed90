// The review page: shows one image of a list at a time, takes verdicts, and asks the server to carry them out.
import { enter, send } from "/token.js";
import { clear, drop, fit, forget, overlay, show, showPictures, view, whenDrawn } from "/views.js";

const at = (id) => document.getElementById(id);
const LISTS = { sample: "Sample", quarantined: "Quarantined", second: "Second look" };
const VERDICTS = {
  confirmed: { label: "No real face left", key: "C" },
  mask: { label: "Hide what I drew", key: "M" },
  withhold: { label: "Withhold this photo", key: "W" },
  release_masked: { label: "Release with faces hidden", key: "M" },
};
const WAITING = {
  confirmed: "Confirmed: no real face left",
  mask: "To be hidden: what is drawn",
  withhold: "To be withheld",
  release_masked: "To be released with every face hidden",
};
const APPLIED = {
  confirmed: "Confirmed: no real face left",
  mask: "Hidden and released",
  withhold: "Withheld",
  release_masked: "Released with every face hidden",
};

let review = null; // the answer of /state
let list = "sample";
let place = { sample: 0, quarantined: 0, second: 0 };
let history = []; // numbers of the images decided here, for undo

const number = () => review.lists[list][place[list]];
const image = () => review.images[number()];
const plural = (count, singular, many) => `${count.toLocaleString("en")} ${count === 1 ? singular : many}`;
const percent = (share) => `${(100 * share).toFixed(share < 0.1 ? 1 : 0)} %`;

async function ask(path, body) {
  const options = body === undefined ? {} : { method: "POST", body: JSON.stringify(body) };
  const answer = await send(path, options).catch(() => null);
  if (answer === null) throw new Error("the review has ended; start it again in the terminal");
  const content = await answer.json();
  if (!answer.ok) throw new Error(content.problem);
  return content;
}

// ---- words ------------------------------------------------------------------------------------------------------

function showTotals() {
  const { judged, waiting, confidence } = review.totals, drawnByLot = review.lists.sample.length;
  at("progress").max = Math.max(drawnByLot, 1);
  at("progress").value = judged.judged;
  let text = `${judged.judged} of ${drawnByLot} judged`;
  if (judged.judged) {
    text += `, ${judged.wrong || "none"} with a real face left or withheld. So at most ${percent(judged.upper)} of the whole `
      + `release can be like that, with ${percent(confidence)} confidence.`;
  } else text += ". How much of the whole release can be wrong is known once some are judged.";
  if (judged.skipped) text += ` ${plural(judged.skipped, "verdict", "verdicts")} after a skipped image not counted yet.`;
  at("bound").textContent = text;
  at("bound").classList.toggle("wrong", judged.wrong > 0);
  at("open-apply").disabled = waiting === 0 && !review.earlier;
  at("open-apply").textContent = waiting ? `Apply ${plural(waiting, "decision", "decisions")}`
    : review.earlier ? "Apply earlier decisions" : "Nothing to apply";
}

function showLists() {
  at("lists").replaceChildren(...Object.entries(LISTS).filter(([name]) => review.lists[name].length || name === "sample")
    .map(([name, label]) => {
      const button = document.createElement("button"), count = document.createElement("small");
      const open = review.lists[name].filter((index) => review.images[index].verdict === null).length;
      button.type = "button";
      button.textContent = label;
      count.textContent = open ? `${open} left` : "all judged";
      if (name === "quarantined" && review.quarantined > review.lists[name].length) {
        count.textContent += ` (the first ${review.lists[name].length} of ${review.quarantined})`;
      }
      button.append(count);
      button.setAttribute("aria-current", String(name === list));
      button.addEventListener("click", () => { list = name; go(place[name]); });
      return button;
    }));
}

function showWords() {
  const current = image(), shown = review.lists[list];
  at("place").textContent = `${LISTS[list]} ${place[list] + 1} of ${shown.length}, shard ${current.shard}`;
  at("name").textContent = current.name;
  const wording = current.carried_out ? APPLIED : WAITING;
  at("state").className = current.verdict || "";
  at("state").textContent = current.verdict ? wording[current.verdict] + (current.carried_out ? "" : " (not applied yet)")
    : current.allowed.includes("confirmed") ? "Not judged yet" : "Quarantined by the job, not judged yet";
  at("reason").textContent = current.status === "quarantined" ? `The reason: ${current.reason}.` : "";
  at("hint").textContent = current.allowed.includes("mask")
    ? "Is a real face left as it was? Draw a box around it; the grey ellipse is what will be hidden."
    : current.allowed.includes("release_masked")
      ? "It stays withheld unless you draw a box around every face in it. Those the job knew are hidden too."
      : "Its file cannot be decoded, so it can only stay withheld.";
  at("verdicts").replaceChildren(...current.allowed.map((verdict) => {
    const button = document.createElement("button"), key = document.createElement("kbd");
    button.type = "button";
    button.className = verdict;
    button.dataset.verdict = verdict;
    button.append(current.allowed.includes("confirmed") || verdict !== "withhold" ? VERDICTS[verdict].label : "Keep it withheld");
    key.textContent = VERDICTS[verdict].key;
    button.append(key);
    button.setAttribute("aria-pressed", String(verdict === current.verdict));
    button.addEventListener("click", () => decide(verdict));
    return button;
  }));
  at("faces").replaceChildren(...(show.boxes ? current.faces : []).map((face) => {
    const item = document.createElement("li");
    item.textContent = [face.method, face.fallback === face.method ? "fallback" : face.fallback, face.reason]
      .filter(Boolean).join(", ");
    return item;
  }));
  at("previous").disabled = place[list] === 0;
  at("next").disabled = place[list] >= shown.length - 1;
  at("undo").disabled = current.verdict === null && history.length === 0;
  for (const [name, on] of [["original", show.original], ["boxes", show.boxes], ["size", show.large]]) {
    at(`toggle-${name}`).setAttribute("aria-pressed", String(on));
  }
}

function refresh() {
  if (review === null) return; // a key before the page is ready
  showTotals();
  showLists();
  if (review.lists[list].length === 0) return;
  showWords();
  const next = review.lists[list][place[list] + 1];
  showPictures(number(), image(), review.grow, next === undefined ? [] : [next, review.images[next]]);
}

// ---- what the person does ---------------------------------------------------------------------------------------

function go(to) {
  if (review === null || to < 0 || to >= review.lists[list].length) return;
  place[list] = to;
  view.drawn = image().boxes.map((box) => [...box]);
  at("problem").textContent = "";
  refresh();
}

async function post(path, body) {
  try {
    const answer = await ask(path, body);
    review.totals = answer.totals || answer;
    at("problem").textContent = "";
    return answer;
  } catch (error) {
    at("problem").textContent = `Not done: ${error.message}.`;
    return null;
  }
}

async function decide(verdict) {
  const which = number(), boxes = verdict.includes("mask") ? view.drawn : [];
  const answer = await post("/decide", { image: which, verdict, boxes });
  if (!answer) return;
  review.images[which] = answer.image;
  history.push(which);
  place[list] < review.lists[list].length - 1 ? go(place[list] + 1) : refresh();
}

async function undo() {
  if (review === null) return;
  let which = number();
  if (image().verdict === null) {
    which = history.pop();
    const there = which === undefined ? -1 : review.lists[list].indexOf(which);
    if (there < 0) return;
    place[list] = there;
  }
  const answer = await post("/decide", { image: which, verdict: null });
  if (!answer) return;
  review.images[which] = answer.image;
  history = history.filter((index) => index !== which);
  go(place[list]);
}

function toggle(name) {
  show[name] = !show[name];
  refresh();
}

const KEYS = {
  arrowleft: () => go(place[list] - 1),
  arrowright: () => go(place[list] + 1),
  u: undo,
  o: () => toggle("original"),
  b: () => toggle("boxes"),
  z: () => toggle("large"),
  escape: clear,
  backspace: drop,
};

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || at("apply").open) return;
  const key = event.key.toLowerCase();
  const verdict = [...at("verdicts").children].find((button) => VERDICTS[button.dataset.verdict].key.toLowerCase() === key);
  if (!verdict && !KEYS[key]) return;
  event.preventDefault();
  verdict ? verdict.click() : KEYS[key]();
}

// ---- carrying it out --------------------------------------------------------------------------------------------

function say(title, ...lines) {
  at("apply-title").textContent = title;
  at("apply-text").replaceChildren(...lines.map((line) => {
    if (typeof line !== "string") return line;
    const paragraph = document.createElement("p");
    paragraph.textContent = line;
    return paragraph;
  }));
}

function buttons(cancel, apply) {
  at("apply-cancel").hidden = cancel === null;
  at("apply-cancel").textContent = cancel;
  at("apply-go").hidden = !apply;
}

function openApply() {
  say("Apply the decisions",
    "The shards of these images are taken out of the release, made again and signed with a new certificate. "
      + "All others keep their bytes.",
    "A copy of the release that has already left the building does not change.");
  buttons("Not yet", true);
  at("apply").showModal();
}

async function apply() {
  at("apply-progress").hidden = false;
  at("apply-progress").removeAttribute("value");
  buttons(null, false);
  say("Applying", "The certificate is withdrawn until this is done. If it is cut off, `anonlib render` finishes it.");
  let answer = await post("/apply", {});
  while (answer && answer.applying.result === null && answer.applying.problem === null) {
    if (answer.applying.shards) {
      at("apply-progress").max = answer.applying.shards;
      at("apply-progress").value = answer.applying.done;
    }
    await new Promise((done) => setTimeout(done, 500));
    answer = await post("/totals");
  }
  at("apply-progress").hidden = true;
  buttons("Close", false);
  if (!answer || answer.applying.problem) {
    say("It could not be finished", answer ? answer.applying.problem : at("problem").textContent);
    return;
  }
  const { shards, changes } = answer.applying.result, items = document.createElement("ul");
  items.append(...changes.map((change) => {
    const item = document.createElement("li");
    item.textContent = `${change.key}: ${became(change)}`;
    return item;
  }));
  say("Applied", `${plural(shards.length, "shard", "shards")} made again; the release has a new certificate.`, items);
  await load();
}

function became(change) {
  if (change.after === "quarantined") return `not released, ${change.reason}`;
  if (change.hidden) return `released, ${plural(change.hidden, "drawn face", "drawn faces")} hidden`;
  return change.before === "quarantined" ? "released" : "what you decided is in its row of the manifest";
}

async function load() {
  review = await ask("/state");
  forget();
  at("release").textContent = review.release;
  document.title = `Review ${review.release}`;
  const first = review.lists[list].findIndex((index) => review.images[index].verdict === null);
  if (review.lists[list].length) go(Math.max(first, 0));
  else refresh();
}

whenDrawn(({ drawn, seen }) => {
  for (const button of at("verdicts").children) {
    const masks = button.dataset.verdict.includes("mask");
    // Whoever cannot see an image can only withhold it.
    button.disabled = button.dataset.verdict !== "withhold" && (!seen || (masks && drawn.length === 0));
  }
  at("clear").disabled = drawn.length === 0;
});
document.addEventListener("keydown", onKey);
addEventListener("resize", () => { fit(); overlay(); });
at("previous").addEventListener("click", KEYS.arrowleft);
at("next").addEventListener("click", KEYS.arrowright);
at("undo").addEventListener("click", undo);
at("clear").addEventListener("click", clear);
at("toggle-original").addEventListener("click", () => toggle("original"));
at("toggle-boxes").addEventListener("click", () => toggle("boxes"));
at("toggle-size").addEventListener("click", () => toggle("large"));
at("open-apply").addEventListener("click", openApply);
at("apply-cancel").addEventListener("click", () => at("apply").close());
at("apply-go").addEventListener("click", apply);
at("apply").addEventListener("cancel", (event) => { if (at("apply-cancel").hidden) event.preventDefault(); });
enter().then(load).catch((error) => { at("bound").textContent = `Not loaded: ${error.message}.`; });
