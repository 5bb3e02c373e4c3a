// START HERE. Joins the parts of the playground: photos are given (drop.js), sent (sender.js,
// api.js), shown (photo.js, heat.js), and compared at other sizes (lab.js).

import { Api } from "./api.js";
import { Classes } from "./classes.js";
import { Controls } from "./controls.js";
import { takeFiles } from "./drop.js";
import { askKey } from "./key.js";
import { Lab } from "./lab.js";
import { watchLive } from "./live.js";
import { Photo } from "./photo.js";
import { progressOf } from "./progress.js";
import { Sender } from "./sender.js";
import { count } from "./words.js";

const api = new Api(askKey);
const photos = [];
const models = [];
const section = document.querySelector("#photos");
const cards = document.querySelector("#cards");
const status = document.querySelector("#status");

const controls = new Controls(models, () => photos.length > 0 && resend());
const progress = progressOf(document.querySelector("#progress"), () => sender.cancel());
const sender = new Sender(api, () => controls.choice, told);
const lab = new Lab(api, models);
const act = {
  again: (photo) => send([photo]),
  compare: (photo) => lab.open(photo),
  look,
};
let ready = null; // the models, once they are asked for

takeFiles(add);
watchLive(document.querySelector("#live"), api);
document.querySelector("#clear").onclick = clear;
load().catch(() => {}); // photos that are given will tell

async function add(files) {
  const added = files.map((file) => new Photo(file, act));
  photos.push(...added);
  cards.append(...added.map((photo) => photo.element));
  section.hidden = false;
  await send(added);
}

/** Send photos as soon as the models are known. */
async function send(chosen) {
  for (const photo of chosen) photo.waits();
  try {
    await load();
  } catch (problem) {
    for (const photo of chosen) photo.failed(problem);
    status.textContent = problem.title;
    return;
  }
  sender.send(chosen.filter((photo) => photos.includes(photo)));
}

/** The models, asked for once; again when that failed. */
function load() {
  ready ??= loaded().catch((problem) => {
    ready = null;
    throw problem;
  });
  return ready;
}

async function loaded() {
  const onWait = (seconds, detail) => (status.textContent = detail);
  const found = [];
  for (const name of await api.models({ onWait })) {
    const model = await api.model(name, { onWait });
    found.push({ ...model, classes: new Classes(model.card.labels) });
  }
  models.push(...found);
  controls.show();
}

function resend() {
  sender.cancel();
  sender.send(photos);
}

function clear() {
  sender.cancel();
  photos.length = 0;
  cards.replaceChildren();
  section.hidden = true;
  lab.offer(photos);
  status.textContent = "All photos removed";
  document.querySelector("#choose").focus();
}

function told(how) {
  progress(how);
  if (how.total > 0) return;
  lab.offer(photos.filter((photo) => photo.result));
  const done = photos.filter((photo) => photo.result).length;
  const failed = document.querySelectorAll("[data-state=failed]").length;
  const also = failed ? `, ${failed} failed` : "";
  status.textContent = `${count(done, "photo")} classified${also}`;
}

/** Add the map of a class that is named; what to say when there is none. */
async function look(photo, text) {
  const { name, classes } = photo.model;
  const index = classes.find(text);
  const before = photo.result;
  if (index < 0) return `No class is called ${text}`;
  try {
    const [result] = await api.classify(name, [photo.file], { ...controls.sizing, classes: index, cam: "png" });
    if (result.error) return result.error.detail;
    if (photo.result === before) photo.added(result); // else another model or size was chosen
    return "";
  } catch (problem) {
    return problem.message;
  }
}
