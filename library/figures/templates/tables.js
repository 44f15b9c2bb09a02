"use strict";
// Tables of class "sortable" are sorted by their headings, and filtered by the controls that name
// them in data-filters. Without JavaScript they stay as the page has them, and have no controls.
(() => {
  const collator = new Intl.Collator(undefined, {numeric: true});
  const textOf = (row, column) => row.cells[column].textContent.trim();
  const isEmpty = text => text === "" || text === "-";
  const toNumber = text => Number(text.replaceAll(",", "").replace(/ %$/, ""));

  function sort(table, column, direction) {
    const body = table.tBodies[0];
    const rows = [...body.rows].map(row => [textOf(row, column), row]);
    const isNumeric = rows.every(([text]) => isEmpty(text) || !Number.isNaN(toNumber(text)));
    const compare = isNumeric ? (a, b) => toNumber(a) - toNumber(b) : collator.compare;
    rows.sort(([a], [b]) => isEmpty(a) - isEmpty(b) || direction * compare(a, b));
    body.append(...rows.map(([, row]) => row));
  }

  for (const table of document.querySelectorAll("table.sortable")) {
    const headings = [...table.tHead.rows[0].cells];
    for (const heading of headings.filter(each => each.textContent.trim())) {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...heading.childNodes);
      heading.append(button);
      button.addEventListener("click", () => {
        const wasAscending = heading.getAttribute("aria-sort") === "ascending";
        headings.forEach(each => each.removeAttribute("aria-sort"));
        heading.setAttribute("aria-sort", wasAscending ? "descending" : "ascending");
        sort(table, heading.cellIndex, wasAscending ? -1 : 1);
      });
      // The order in which the page has its rows.
      if (heading.dataset.sorted) heading.setAttribute("aria-sort", heading.dataset.sorted);
    }
  }

  for (const controls of document.querySelectorAll("[data-filters]")) {
    const table = document.getElementById(controls.dataset.filters);
    const rows = [...table.tBodies[0].rows];
    // Pictures of the first rows, in the same order.
    const pictures = document.querySelectorAll(`[data-pictures-of="${table.id}"] > *`);
    const search = controls.querySelector("input");
    const choices = [...controls.querySelectorAll("select")];
    const valuesOf = (row, choice) => textOf(row, choice.dataset.column).split(table.dataset.separator);

    for (const choice of choices) {
      const counts = new Map();
      for (const row of rows) {
        for (const value of valuesOf(row, choice)) counts.set(value, (counts.get(value) ?? 0) + 1);
      }
      const values = [...counts.keys()].sort(collator.compare);
      choice.append(...values.map(each => new Option(`${each} (${counts.get(each)})`, each)));
    }

    function filter() {
      const words = search.value.toLowerCase();
      const isShown = row => textOf(row, 0).toLowerCase().includes(words) &&
        choices.every(each => !each.selectedIndex || valuesOf(row, each).includes(each.value));
      rows.forEach((row, n) => {
        row.hidden = !isShown(row);
        if (pictures[n]) pictures[n].hidden = row.hidden;
      });
      const shown = rows.filter(each => !each.hidden).length;
      controls.querySelector("output").textContent =
        `${shown.toLocaleString("en")} of ${rows.length.toLocaleString("en")}`;
    }

    controls.addEventListener("input", filter);
    controls.hidden = false;
    filter();
  }
})();
