// Makes the figures interactive when they come into view, and the table of trials sortable, with a choice of columns.
const specs = JSON.parse(document.getElementById("specs").textContent);
document.documentElement.classList.add("scripted");

async function draw(target) {
  const spec = specs[target.id];
  const still = target.firstElementChild;
  const drawn = document.createElement("div");
  drawn.style.width = "100%";
  target.append(drawn);
  try {
    // ast: expressions are interpreted, since the page's policy forbids making code from text
    await window.vegaEmbed(drawn, spec, { actions: false, renderer: "svg", ast: true });
    still.remove();
    target.dataset.interactive = "yes";
  } catch (error) {
    drawn.remove();
    console.error(target.id, error);
  }
}

const seen = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (entry.isIntersecting) {
      seen.unobserve(entry.target);
      draw(entry.target);
    }
  }
}, { rootMargin: "200px" });
for (const id of Object.keys(specs)) seen.observe(document.getElementById(id));

function columnChoice(table, place) {
  [...table.tHead.rows[0].cells].forEach((head, at) => {
    if (at === 0) return;
    const label = document.createElement("label");
    const box = document.createElement("input");
    box.type = "checkbox";
    box.checked = true;
    label.append(box, " ", head.textContent);
    place.append(label);
    box.addEventListener("change", () => {
      for (const row of table.rows) row.cells[at].style.display = box.checked ? "" : "none";
    });
  });
}

const table = document.getElementById("trial-table");
if (table) {
  columnChoice(table, document.getElementById("columns"));
  sortable(table);
}
