// Buttons of the sheet say what they ask for in their data; a photo that was chosen comes into view. With the arrow keys
// the keyboard goes from photo to photo.
const STEPS = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1 };

element.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  const { show, page, photo } = button.dataset;
  trigger("look", { show, page, photo });
  if (photo !== undefined) {
    const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
    const behavior = still ? "instant" : "smooth";
    document.getElementById("anomaly-photo")?.scrollIntoView({ behavior, block: "nearest" });
  }
});

element.addEventListener("keydown", (event) => {
  const step = STEPS[event.key];
  const photos = [...element.querySelectorAll("button.card")];
  const place = photos.indexOf(document.activeElement);
  if (step === undefined || place < 0) return;
  event.preventDefault();
  photos[place + step]?.focus();
});
