"use strict";

// What a mark says is its title. A page can show it sooner than a browser does, and to the keyboard as well.
const tip = document.getElementById("tip");

function say(mark, x, y) {
  tip.textContent = mark.dataset.title;
  tip.hidden = false;
  const { width, height } = tip.getBoundingClientRect();
  tip.style.left = `${Math.max(4, Math.min(x + 14, innerWidth - width - 4))}px`;
  tip.style.top = `${Math.max(4, y + 18 + height > innerHeight ? y - height - 10 : y + 18)}px`;
}

for (const mark of document.querySelectorAll(".mark")) {
  const title = mark.querySelector("title");
  mark.dataset.title = title.textContent;
  mark.setAttribute("aria-label", title.textContent);
  title.remove();
  mark.addEventListener("pointermove", (event) => say(mark, event.clientX, event.clientY));
  mark.addEventListener("pointerleave", () => { tip.hidden = true; });
  mark.addEventListener("focus", () => {
    const box = mark.getBoundingClientRect();
    say(mark, Math.min(box.left + box.width / 2, innerWidth / 2 + 100), box.bottom - 12);
  });
  mark.addEventListener("blur", () => { tip.hidden = true; });
}

// One stop of the Tab key for each picture; the arrow keys go from mark to mark.
for (const picture of document.querySelectorAll("svg.picture")) {
  const marks = [...picture.querySelectorAll(".mark")];
  marks.forEach((mark, i) => { mark.setAttribute("tabindex", i ? "-1" : "0"); });
  picture.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    const at = marks.indexOf(document.activeElement);
    if (event.key === "Escape") tip.hidden = true;
    if (!step || at < 0) return;
    event.preventDefault();
    const next = marks[(at + step + marks.length) % marks.length];
    marks[at].setAttribute("tabindex", "-1");
    next.setAttribute("tabindex", "0");
    next.focus();
  });
}

// A click on a heading sorts by it, another one the other way round.
function sort(table, heading) {
  const body = table.tBodies[0];
  const column = heading.cellIndex;
  const down = heading.getAttribute("aria-sort") === "ascending";
  const key = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent;
  const numeric = heading.classList.contains("number");
  const compare = numeric ? (a, b) => key(a) - key(b) : (a, b) => key(a).localeCompare(key(b));
  const rows = [...body.rows].sort((a, b) => (down ? compare(b, a) : compare(a, b)));
  for (const other of heading.parentElement.cells) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", down ? "descending" : "ascending");
  body.append(...rows);
}

for (const table of document.querySelectorAll("table.sortable")) {
  for (const heading of table.tHead.rows[0].cells) {
    heading.querySelector("button").addEventListener("click", () => sort(table, heading));
  }
}
