// On a phone the results are below all that was filled in: they come into view when they are there. Gradio is not done
// with drawing them when it says so; before, the page is too short to be scrolled to them.
async () => {
  const results = document.getElementById("anomaly-results");
  for (let frame = 0; frame < 120 && !results?.querySelector(".sheet"); frame++) {
    await new Promise(requestAnimationFrame);
  }
  if (!results || results.getBoundingClientRect().top < innerHeight / 2) return;
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  results.scrollIntoView({ behavior: still ? "instant" : "smooth" });
}
