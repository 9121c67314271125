// The viewport: turns pointer and keyboard into gestures, asks the server for frames, shows the newest.
// gr.HTML calls this once with: element, props, trigger, watch. The server has the camera; here are only differences.
const area = element.querySelector(".viewport");
const picture = area.querySelector("img");
const notice = element.querySelector(".viewport-notice");
const status = element.querySelector(".viewport-status");
const legend = element.querySelector(".viewport-legend");
const answers = element.querySelector(".viewport-answers");

const QUIET = 180; // milliseconds without a gesture until the full picture is drawn
const SLOWEST = 125; // milliseconds per frame while moving; slower ones are drawn smaller
const WIDEST_MOVING = 480;
const NARROWEST_MOVING = 240;
const SOONEST = 2; // seconds after which a picture that did not come is asked for again; twice as many each time
const LATEST = 32;

let page = { token: "", version: -1, message: "" };
let gesture = none();
let reset = false;
let stale = true; // the picture is not what the server would draw now
let rough = false; // the picture was drawn small
let flight = null; // the request that is under way
let sequence = 0;
let movingWidth = WIDEST_MOVING;
let lastMove = 0;
let timer = 0;
let failures = 0; // requests in a row that brought no picture
let pause = 0; // nothing is asked for before this time
let beats = []; // when the last frames came in while moving

function none() {
  return { turn: [0, 0], pan: [0, 0], zoom: 1, roll: 0 };
}

function isNone(one) {
  return !one.turn[0] && !one.turn[1] && !one.pan[0] && !one.pan[1] && one.zoom === 1 && !one.roll;
}

function within(value, low, high) {
  return Math.min(high, Math.max(low, value));
}

function say(text) {
  notice.textContent = text;
  notice.hidden = !text;
}

// One request is under way at a time, and it is always for the newest pose. Only a full picture gives way to a gesture.
function pump() {
  if (!page.token || !area.clientWidth) return;
  const wait = pause - performance.now();
  if (wait > 0) return later(wait);
  const moves = !isNone(gesture);
  if (flight && !(flight.full && moves)) return;
  const quiet = performance.now() - lastMove >= QUIET;
  if (moves) send(false);
  else if ((stale || reset || rough) && quiet) send(true);
  else if (stale || reset || rough) later();
}

function later(wait = QUIET) {
  clearTimeout(timer);
  timer = setTimeout(pump, wait);
}

async function send(full) {
  if (flight) flight.abort.abort();
  const wide = Math.round(area.clientWidth * Math.min(window.devicePixelRatio || 1, 2));
  const width = within(full ? wide : Math.min(wide, movingWidth), 16, 1920);
  const asked = { ...gesture, token: page.token, sequence: ++sequence, width: Math.round(width), moving: !full, reset };
  for (const drag of [asked.turn, asked.pan]) drag.forEach((value, i) => (drag[i] = within(value, -4, 4)));
  asked.zoom = within(asked.zoom, 0.01, 100);
  gesture = none();
  reset = stale = false;
  rough = !full;
  const mine = (flight = { full, abort: new AbortController() });
  const started = performance.now();
  let trouble = "";
  try {
    const address = new URL("frame", location.href.split(/[?#]/)[0]);
    const body = JSON.stringify(asked);
    const headers = { "Content-Type": "application/json" };
    // Frames are never elsewhere: who is sent elsewhere is sent to a login page.
    const options = { method: "POST", headers, body, signal: mine.abort.signal, redirect: "manual" };
    const reply = await fetch(address, options);
    const about = reply.headers.get("X-Frame");
    const image = reply.status === 200 && about ? await reply.blob() : null;
    if (flight !== mine) return; // a newer request took its place
    if (image) show(image, JSON.parse(about), full, asked.sequence, performance.now() - started);
    else if (reply.status === 204) stale = true;
    else trouble = await complaint(reply);
    if (reply.status === 404) page = { ...page, token: "" };
  } catch (error) {
    trouble = "The server does not answer.";
  }
  if (flight !== mine) return;
  flight = null;
  if (trouble) failed(trouble, asked.reset);
  else failures = 0;
  pump();
}

async function complaint(reply) {
  const sent = await reply.json().catch(() => null);
  if (sent && typeof sent.error === "string") return sent.error;
  const html = reply.status === 200 && /html/.test(reply.headers.get("Content-Type"));
  if (reply.type === "opaqueredirect" || reply.status === 401 || reply.status === 403 || html)
    return "You are no longer logged in; reload the page and log in again.";
  if (reply.status === 404) return "The server does not know this page any more; reload it.";
  return "The server sent no picture.";
}

// A visit that is over stays over. All else may pass, and is tried again less and less often.
function failed(trouble, lostReset) {
  if (!page.token) return say(trouble);
  stale = true;
  reset = reset || lostReset;
  const seconds = Math.min(LATEST, SOONEST * 2 ** failures++);
  pause = performance.now() + 1000 * seconds;
  say(`${trouble} Trying again in ${seconds} seconds.`);
}

function show(image, info, full, number, milliseconds) {
  const old = picture.src;
  picture.src = URL.createObjectURL(image);
  if (old.startsWith("blob:")) URL.revokeObjectURL(old);
  picture.alt = `The scene from ${info.view === "free" ? "a free viewpoint" : info.view}`;
  area.style.setProperty("--ratio", info.ratio);
  area.dataset.frame = number;
  area.dataset.full = full;
  say("");
  if (!full) {
    const slow = milliseconds > SLOWEST ? 0.85 : milliseconds < 0.6 * SLOWEST ? 1.1 : 1;
    movingWidth = within(movingWidth * slow, NARROWEST_MOVING, WIDEST_MOVING);
    const now = performance.now();
    beats = [...beats.filter((beat) => now - beat < 2000), now];
  }
  const rate = beats.length > 2 ? (1000 * (beats.length - 1)) / (beats[beats.length - 1] - beats[0]) : 0;
  const pace = full || !rate ? "" : `${rate.toFixed(0)} frames per second, `;
  status.textContent = `${pace}${info.width} × ${info.height}, ${info.milliseconds} ms`;
  if (full || info.answers.length) explain(info.answers);
  colours(info.legend);
}

function element_(kind, text, name) {
  const made = document.createElement(kind);
  if (text !== undefined) made.textContent = text;
  if (name) made.className = name;
  return made;
}

function colours(found) {
  legend.replaceChildren();
  legend.hidden = !found;
  if (!found) return;
  legend.append(element_("span", found.title, "viewport-title"));
  if (found.colors) {
    const bar = element_("span", undefined, "viewport-bar");
    bar.style.background = `linear-gradient(to right, ${found.colors.join(", ")})`;
    bar.setAttribute("aria-hidden", "true");
    legend.append(element_("span", found.low.toFixed(2)), bar, element_("span", found.high.toFixed(2)));
  }
  for (const key of found.keys || []) {
    const dot = element_("span", undefined, "viewport-dot");
    dot.style.background = key.color;
    legend.append(dot, element_("span", key.name));
  }
}

function explain(found) {
  answers.replaceChildren();
  answers.hidden = !found.length;
  for (const one of found) {
    const dot = element_("span", undefined, "viewport-dot");
    dot.style.background = one.color;
    const meter = element_("span", undefined, "viewport-meter");
    const fill = element_("span");
    fill.style.width = `${Math.round(100 * one.confidence)}%`;
    fill.style.background = one.color;
    meter.append(fill);
    meter.setAttribute("aria-hidden", "true");
    const name = element_("span", one.phrase, "viewport-phrase");
    if (!one.present) {
      const unsure = element_("span", "unsure", "viewport-unsure");
      unsure.title = "Generic phrases fit every place better: it may not be in this view";
      name.append(" ", unsure);
    }
    const sure = element_("span", one.confidence.toFixed(2), "viewport-sure");
    const place = element_("span", `level: ${one.level}, at ${one.point.join(", ")}`, "viewport-place");
    place.title = `Pixels from the left and from the top of the photo; found in ${one.milliseconds} ms`;
    const row = element_("li");
    row.append(dot, name, meter, sure, place);
    row.title = "Confidence: how much likelier than generic phrases, 0.5 is equally likely";
    answers.append(row);
  }
}

function moved() {
  lastMove = performance.now();
  pump();
}

// Pointer: one finger or button turns, with shift or another button pans; two fingers pan and zoom; a click picks.
const pointers = new Map();
let travelled = 0;

area.addEventListener("pointerdown", (event) => {
  if (event.target.closest("button")) return;
  area.setPointerCapture(event.pointerId);
  if (!pointers.size) travelled = 0;
  pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
  area.focus({ preventScroll: true });
  event.preventDefault();
});

area.addEventListener("pointermove", (event) => {
  const before = pointers.get(event.pointerId);
  if (!before) return;
  const dx = event.clientX - before.x;
  const dy = event.clientY - before.y;
  travelled += Math.abs(dx) + Math.abs(dy);
  const size = area.clientWidth;
  if (pointers.size === 2) {
    const other = [...pointers.entries()].find(([id]) => id !== event.pointerId)[1];
    const apart = (x, y) => Math.max(8, Math.hypot(x - other.x, y - other.y));
    gesture.zoom *= apart(event.clientX, event.clientY) / apart(before.x, before.y);
    add(gesture.pan, dx / size / 2, dy / size / 2);
  } else if (travelled > 3) {
    const pans = event.shiftKey || event.buttons & 6;
    add(pans ? gesture.pan : gesture.turn, dx / size, dy / size);
  }
  pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
  if (travelled > 3) moved();
});

function add(sum, x, y) {
  sum[0] += x;
  sum[1] += y;
}

function released(event) {
  if (!pointers.delete(event.pointerId) || pointers.size) return;
  if (event.type === "pointerup" && travelled <= 3 && event.button === 0) {
    const frame = area.getBoundingClientRect();
    pick((event.clientX - frame.left) / frame.width, (event.clientY - frame.top) / frame.height);
  }
  pump();
}

area.addEventListener("pointerup", released);
area.addEventListener("pointercancel", released);
area.addEventListener("contextmenu", (event) => event.preventDefault());
area.addEventListener("dragstart", (event) => event.preventDefault());

area.addEventListener(
  "wheel",
  (event) => {
    event.preventDefault();
    gesture.zoom *= Math.exp(-within(event.deltaY * (event.deltaMode ? 20 : 1), -200, 200) * 0.0015);
    moved();
  },
  { passive: false },
);

function pick(x, y) {
  if (x >= 0 && x < 1 && y >= 0 && y < 1) trigger("pick", { x, y });
}

const STEP = 0.03;
const KEYS = {
  ArrowLeft: [-STEP, 0],
  ArrowRight: [STEP, 0],
  ArrowUp: [0, -STEP],
  ArrowDown: [0, STEP],
};

area.addEventListener("keydown", (event) => {
  if (event.target !== area || event.ctrlKey || event.metaKey || event.altKey) return;
  if (KEYS[event.key]) add(event.shiftKey ? gesture.pan : gesture.turn, ...KEYS[event.key]);
  else if (event.key === "+" || event.key === "=") gesture.zoom *= 1.1;
  else if (event.key === "-" || event.key === "_") gesture.zoom /= 1.1;
  else if (event.key === "[" || event.key === "]") gesture.roll += event.key === "[" ? -0.05 : 0.05;
  else if (event.key === "Home" || event.key === "0") back();
  else if (event.key === "Enter") pick(0.5, 0.5);
  else return;
  event.preventDefault();
  if (!isNone(gesture)) moved();
});

function back() {
  gesture = none();
  reset = true;
  lastMove = 0;
  pump();
}

element.querySelector("[data-does=nearer]").addEventListener("click", () => ((gesture.zoom *= 1.25), moved()));
element.querySelector("[data-does=farther]").addEventListener("click", () => ((gesture.zoom /= 1.25), moved()));
element.querySelector("[data-does=reset]").addEventListener("click", back);

function arrived() {
  const value = props.value || {};
  if (!value.token) {
    say(value.message || "");
    return;
  }
  if (value.token !== page.token) gesture = none();
  page = value;
  stale = true;
  pause = 0;
  lastMove = 0;
  pump();
}

watch("value", arrived);
let drawnFor = area.clientWidth;
new ResizeObserver(() => {
  if (area.clientWidth === drawnFor) return;
  drawnFor = area.clientWidth;
  rough = true;
  later();
}).observe(area);
arrived();
