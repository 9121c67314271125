// Buttons of the sheet say what they ask for in their data; a photo that was chosen comes into view.
element.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  const { show, page, photo } = button.dataset;
  trigger("look", { show, page, photo });
  if (photo !== undefined) {
    document.getElementById("anomaly-photo")?.scrollIntoView({ behavior: "smooth", block: "nearest" });
  }
});
