// On a phone the results are below all that was filled in: they come into view when they are there.
() => {
  const results = document.getElementById("anomaly-results");
  if (!results || results.getBoundingClientRect().top < innerHeight / 2) return;
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  results.scrollIntoView({ behavior: still ? "instant" : "smooth" });
}
